//! Paths in bodies and queries. They are canonical like the paths of requests, so that every path that is stored or
//! compared can occur in a request.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as DeError};

use crate::fields::{CommaList, Text};
use crate::path::{CanonicalPath, PathError};

/// A path, with at most one slash at each end; may be empty. [`check_path`] says which paths are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathText(String);

/// A list of paths, also accepted as one comma-separated text. [`check_path`] says which paths are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathTexts(pub Vec<String>);

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// No request can have this path.
    #[error(transparent)]
    NotCanonical(#[from] PathError),
    /// A blank at an end, which tools and users overlook.
    #[error("path begins or ends with a blank")]
    Blank,
    /// A blank other than the space, or a character without a glyph.
    #[error("path contains a character that cannot be printed")]
    Unprintable,
}

impl PathText {
    /// The path without slashes at its ends.
    pub fn bare(&self) -> &str {
        self.0.trim_matches('/')
    }
}

/// Checks that a request can have this path, apart from one leading slash, and that all of its characters are visible.
///
/// # Errors
/// [`PathFault`].
pub fn check_path(text: &str) -> Result<(), PathFault> {
    let path = text.strip_prefix('/').unwrap_or(text);
    if path == "/" {
        return Err(PathError::EmptySegment.into());
    }
    CanonicalPath::new(path.to_owned())?;
    let bare = path.strip_suffix('/').unwrap_or(path);
    if bare.trim() != bare {
        return Err(PathFault::Blank);
    }
    match path.chars().any(|c| c != ' ' && (c.is_whitespace() || is_invisible(c))) {
        true => Err(PathFault::Unprintable),
        false => Ok(()),
    }
}

/// Unicode's format characters (general category Cf) and other characters that are not displayed
/// (Default_Ignorable_Code_Point, UCD 16).
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
        | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
        | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

impl<'de> Deserialize<'de> for PathText {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let Text(text) = Text::deserialize(d)?;
        check_path(&text).map_err(D::Error::custom)?;
        Ok(PathText(text))
    }
}

impl<'de> Deserialize<'de> for PathTexts {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let CommaList(texts) = CommaList::deserialize(d)?;
        texts.iter().try_for_each(|text| check_path(text)).map_err(D::Error::custom)?;
        Ok(PathTexts(texts))
    }
}

impl JsonSchema for PathText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "path".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "path" })
    }
}

impl JsonSchema for PathTexts {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "path-list".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "format": "path-list", "items": { "type": "string" } })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn sec_kf12_a_path_in_a_body_is_one_that_a_request_can_have() {
        for bad in [
            "../x",
            "x//y",
            "x/../y",
            "a\0b",
            ".",
            "..",
            "a/./b",
            "x\ny",
            " x",
            "x ",
            "x /",
            "//x",
            "x//",
            "\tx",
            "x\u{7f}",
            "x\u{85}y",
            "\u{a0}x",
            "x\u{200b}",
            "x\u{202e}y",
            "a\u{2028}b",
            "x/..",
            "./x",
            "//",
            "\u{feff}x",
        ] {
            assert!(check_path(bad).is_err(), "{bad:?}");
            assert!(serde_json::from_value::<PathText>(json!(bad)).is_err(), "{bad:?}");
        }
        for (good, bare) in [
            ("x", "x"),
            ("/x/", "x"),
            ("a b/c", "a b/c"),
            ("", ""),
            ("/", ""),
            ("a/...", "a/..."),
            ("ü/日本", "ü/日本"),
        ] {
            assert_eq!(serde_json::from_value::<PathText>(json!(good)).unwrap().bare(), bare, "{good:?}");
        }
        assert_eq!(serde_json::from_value::<PathTexts>(json!("/a/, b")).unwrap().0, ["/a/", "b"]);
        assert!(serde_json::from_value::<PathTexts>(json!(["a", "b/../c"])).is_err());
    }

    proptest! {
        #[test]
        fn accepted_paths_are_canonical(text in "[a-c./ \\x00\n\u{200b}]{0,8}") {
            if let Ok(path) = serde_json::from_value::<PathText>(json!(text)) {
                let kept = CanonicalPath::new(path.bare().to_owned());
                prop_assert_eq!(kept.map(|p| p.as_str().to_owned()), Ok(path.bare().to_owned()));
            }
        }
    }
}
