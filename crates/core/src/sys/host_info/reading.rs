//! Reads files of `/proc` and `/sys`.

use std::path::Path;

/// The most bytes that are read of one file.
const MOST: u64 = 4 << 20;

/// A file's text, at most [`MOST`] bytes of it.
pub(super) fn text(path: impl AsRef<Path>) -> Option<String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(MOST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The first line of a file, trimmed; empty if there is none.
pub(super) fn line(path: impl AsRef<Path>) -> String {
    text(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// `part` of `whole` in percent; 0 if `whole` is 0.
pub(super) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_nothing_is_no_percent() {
        assert_eq!((percent(1, 4), percent(1, 0)), (25.0, 0.0));
    }
}
