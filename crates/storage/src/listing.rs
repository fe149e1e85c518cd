//! Lists the names one level below a prefix in an ordered map of whole paths.

use std::ops::Bound;

use crate::{Page, StorageError};

/// Number of children of one name that are skipped one by one before a seek to the next name is cheaper.
const STEPS: usize = 16;

/// A position in an ordered map of paths.
pub(crate) trait Cursor {
    /// Moves to before the first path within the bound.
    fn seek(&mut self, from: Bound<&str>) -> Result<(), StorageError>;
    /// Writes the next path to `path`; returns false at the end.
    fn next(&mut self, path: &mut String) -> Result<bool, StorageError>;
}

/// Lists the names one level below `prefix` (empty, or ending in `/`).
///
/// Cutting a path after the first slash keeps the byte order, so the names are sorted as the paths are.
pub(crate) fn names(cursor: &mut impl Cursor, prefix: &str, page: &Page) -> Result<Vec<String>, StorageError> {
    let limit = page.limit.unwrap_or(usize::MAX);
    let mut names: Vec<String> = Vec::new();
    if limit == 0 {
        return Ok(names);
    }
    seek_behind(cursor, prefix, page.after.as_deref().unwrap_or(""))?;
    let (mut path, mut steps) = (String::new(), 0);
    while cursor.next(&mut path)? {
        let Some(rest) = path.strip_prefix(prefix) else {
            break;
        };
        let name = cut(rest);
        if names.last().is_some_and(|last| last == name) {
            steps += 1;
            if steps == STEPS {
                seek_behind(cursor, prefix, name)?;
            }
            continue;
        }
        steps = 0;
        if names.len() == limit {
            break;
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

/// Returns the text up to and including the first slash.
pub(crate) fn cut(rest: &str) -> &str {
    rest.find('/').map_or(rest, |slash| &rest[..=slash])
}

/// Moves the cursor to the first path whose name below `prefix` comes after `name`.
fn seek_behind(cursor: &mut impl Cursor, prefix: &str, name: &str) -> Result<(), StorageError> {
    let name = cut(name);
    if name.is_empty() {
        return cursor.seek(Bound::Included(prefix));
    }
    match name.strip_suffix('/') {
        // '0' follows '/', so this is the first path after all children of the name.
        Some(bare) => cursor.seek(Bound::Included(&format!("{prefix}{bare}0"))),
        None => cursor.seek(Bound::Excluded(&format!("{prefix}{name}"))),
    }
}
