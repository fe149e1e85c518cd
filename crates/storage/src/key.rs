//! Storage paths.

use std::{borrow::Borrow, fmt, sync::Arc};

use crate::StorageError;

/// Longest storage path in bytes.
const MAX_LEN: usize = 16 * 1024;

/// A storage path such as `logical/<uuid>/data/x`, or a prefix of such paths. Cheap to clone, ordered by bytes.
///
/// Every segment between slashes is non-empty and none is `..`, so each path has exactly one spelling and none reaches
/// outside its prefix. Otherwise any UTF-8 is allowed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// The path of a record.
    ///
    /// # Errors
    /// [`StorageError::InvalidKey`] for an empty path, an empty or `..` segment, a leading or trailing slash, or more
    /// than 16 KiB.
    pub fn new(path: impl AsRef<str>) -> Result<Self, StorageError> {
        let path = path.as_ref();
        Self::check(path)?;
        Ok(Self(path.into()))
    }

    /// The prefix of a listing: empty for everything, otherwise a path, with or without its final slash.
    ///
    /// # Errors
    /// As [`Key::new`].
    pub fn prefix(path: impl AsRef<str>) -> Result<Self, StorageError> {
        let path = path.as_ref();
        let bare = path.strip_suffix('/').unwrap_or(path);
        if path.is_empty() {
            return Ok(Self("".into()));
        }
        Self::check(bare)?;
        Ok(Self(if bare.len() < path.len() { path.into() } else { format!("{path}/").into() }))
    }

    /// Checks that `path` is the path of a record; see [`Key::new`].
    pub(crate) fn check(path: &str) -> Result<(), StorageError> {
        if path.len() > MAX_LEN {
            return Err(StorageError::InvalidKey("longer than 16 KiB"));
        }
        for segment in path.as_bytes().split(|byte| *byte == b'/') {
            match segment {
                b"" => return Err(StorageError::InvalidKey("a segment is empty")),
                b".." => return Err(StorageError::InvalidKey("a segment is '..'")),
                _ => {}
            }
        }
        Ok(())
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn refuses_paths_that_could_be_written_in_two_ways() {
        for path in ["", "/", "/a", "a/", "a//b", "..", "../a", "a/..", "a/../b"] {
            assert!(Key::new(path).is_err(), "{path:?}");
        }
        assert!(Key::new("a".repeat(16 * 1024 + 1)).is_err());
    }

    #[test]
    fn accepts_any_other_text() {
        for path in ["a", "a/b", "a..b", "...", ".", "ä/漢字", "a b", "a\0b", "a%2e%2e"] {
            assert_eq!(Key::new(path).unwrap().as_str(), path);
        }
    }

    #[test]
    fn a_prefix_ends_in_a_slash_or_is_empty() {
        assert_eq!(Key::prefix("").unwrap().as_str(), "");
        assert_eq!(Key::prefix("a").unwrap().as_str(), "a/");
        assert_eq!(Key::prefix("a/b/").unwrap().as_str(), "a/b/");
        for path in ["/", "//", "a//", "../", "a/../"] {
            assert!(Key::prefix(path).is_err(), "{path:?}");
        }
    }
}
