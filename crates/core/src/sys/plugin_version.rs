//! Plugin versions in requests: semantic versions with or without `v`, of which parts may be missing.

use keepfast_framework::fields::Quoted;
use keepfast_framework::{Error, Result};

/// The full form of the version: `v1.2.0` for `1.2`.
///
/// # Errors
/// 400 for a text that is no version.
pub(super) fn canonical(text: &str) -> Result<String> {
    let malformed = || {
        Error::invalid(format!("version {} is not a valid semantic version: malformed version: {text}", Quoted(text)))
    };
    let bare = text.strip_prefix('v').unwrap_or(text);
    let end = bare.find(['-', '+']).unwrap_or(bare.len());
    let (numbers, rest) = bare.split_at(end);
    let mut parts: Vec<u64> = numbers.split('.').map(str::parse).collect::<Result<_, _>>().map_err(|_| malformed())?;
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.' | '~');
    if rest.len() == 1 || !rest.chars().all(is_word) || numbers.contains('+') {
        return Err(malformed());
    }
    parts.resize(parts.len().max(3), 0);
    let numbers: Vec<String> = parts.iter().map(u64::to_string).collect();
    Ok(format!("v{}{rest}", numbers.join(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_completed_and_other_texts_refused() {
        let read = |text: &str| canonical(text).map_err(|error| error.public().to_owned());
        for (text, whole) in [
            ("v1", "v1.0.0"),
            ("1.2", "v1.2.0"),
            ("01.2", "v1.2.0"),
            ("1.2.3-beta", "v1.2.3-beta"),
            ("v1.2.3+ent", "v1.2.3+ent"),
            ("1.2.3.4", "v1.2.3.4"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(whole));
        }
        for text in ["", "x", "1.", " ", "1-", "v", "1.2 ", "+1"] {
            assert_eq!(
                read(text),
                Err(format!("version {} is not a valid semantic version: malformed version: {text}", Quoted(text)))
            );
        }
    }
}
