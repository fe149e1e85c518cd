//! Versions of plugins. All plugins here are built in, so every other version is unknown.

use keepfast_framework::fields::Quoted;

/// The version of a plugin in OpenBao's format, unless it is the built-in one.
///
/// # Errors
/// When it is not a version.
pub(super) fn other_than_built_in(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let malformed = |why: &str| format!("version {} is not a valid semantic version: {why}", Quoted(text));
    let broken = || malformed(&format!("malformed version: {text}"));
    let bare = text.strip_prefix('v').unwrap_or(text);
    let (rest, metadata) = match bare.split_once('+') {
        Some((rest, metadata)) => (rest, Some(metadata)),
        None => (bare, None),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (numbers, label) = rest.split_at(end);
    if !is_dotted(metadata.unwrap_or("0")) || !(label.is_empty() || is_dotted(label)) {
        return Err(broken());
    }
    let mut parts = Vec::new();
    for number in numbers.split('.') {
        if number.is_empty() {
            return Err(broken());
        }
        let overflow =
            |_| malformed(&format!("error parsing version: strconv.ParseInt: parsing {number:?}: value out of range"));
        parts.push(number.parse::<i64>().map_err(overflow)?);
    }
    if metadata.is_some_and(|metadata| metadata.split('.').any(|part| part == "builtin")) {
        return Ok(None);
    }
    parts.resize(parts.len().max(3), 0);
    let numbers: Vec<String> = parts.iter().map(ToString::to_string).collect();
    let label = match label.strip_prefix('-').filter(|label| !label.is_empty()).unwrap_or(label) {
        "" => String::new(),
        label => format!("-{label}"),
    };
    Ok(Some(format!("v{}{label}{}", numbers.join("."), metadata.map(|m| format!("+{m}")).unwrap_or_default())))
}

/// Whether a text consists of parts of letters, digits, hyphens and tildes, separated by dots.
fn is_dotted(text: &str) -> bool {
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-~".contains(&b));
    text.split('.').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_parsed_as_in_openbao() {
        for (text, expected) in [
            ("", Ok(None)),
            ("v1.0.0+builtin", Ok(None)),
            ("v2.7.2+builtin.bao", Ok(None)),
            ("1", Ok(Some("v1.0.0"))),
            ("v1.2", Ok(Some("v1.2.0"))),
            ("01.02", Ok(Some("v1.2.0"))),
            ("1.2.3.4", Ok(Some("v1.2.3.4"))),
            ("1h", Ok(Some("v1.0.0-h"))),
            ("1-2", Ok(Some("v1.0.0-2"))),
            ("1.2.3-", Ok(Some("v1.2.3--"))),
            ("1.2.3-rc.1+meta", Ok(Some("v1.2.3-rc.1+meta"))),
            ("1.2.3+built", Ok(Some("v1.2.3+built"))),
            ("V1.0", Err("malformed version: V1.0")),
            ("~1", Err("malformed version: ~1")),
            ("builtin", Err("malformed version: builtin")),
            ("1.2.3.beta", Err("malformed version: 1.2.3.beta")),
            ("-1", Err("malformed version: -1")),
            (" ", Err("malformed version:  ")),
            (
                "9223372036854775808",
                Err("error parsing version: strconv.ParseInt: parsing \"9223372036854775808\": value out of range"),
            ),
        ] {
            let expected = match expected {
                Ok(version) => Ok(version.map(str::to_owned)),
                Err(why) => Err(format!("version {} is not a valid semantic version: {why}", Quoted(text))),
            };
            assert_eq!(other_than_built_in(text), expected);
        }
    }
}
