//! The id of a namespace, and the ids of tokens and leases that end in it.

use std::borrow::Cow;

use keepfast_crypto::random;
use serde::{Deserialize, Serialize};

/// The length of the id of a namespace other than root.
const LENGTH: usize = 6;

/// The id of a namespace. A record without one belongs to the root namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct NamespaceId(Cow<'static, str>);

impl NamespaceId {
    /// The root namespace.
    pub(crate) const fn root() -> Self {
        NamespaceId(Cow::Borrowed("root"))
    }

    /// A random id of six characters of base62.
    pub(crate) fn random() -> Self {
        NamespaceId(Cow::Owned(random::base62(LENGTH)))
    }

    /// Parses the id of a namespace other than root; `None` if it is invalid.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_valid = text.len() == LENGTH && text.bytes().all(|b| b.is_ascii_alphanumeric());
        is_valid.then(|| NamespaceId(Cow::Owned(text.to_owned())))
    }

    /// Whether it is the root namespace, which is omitted in records.
    pub(crate) fn is_root(&self) -> bool {
        self.0 == "root"
    }

    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The suffix of the tokens, accessors and lease ids of this namespace, as in Vault: `.` and the id; empty for root.
    pub(crate) fn suffix(&self) -> String {
        if self.is_root() { String::new() } else { format!(".{}", self.0) }
    }

    /// The part of an id of this namespace before its suffix; `None` for an id of another namespace.
    pub(crate) fn own<'a>(&self, id: &'a str) -> Option<&'a str> {
        let (own, namespace) = split_suffix(id);
        (namespace.unwrap_or("root") == self.as_str()).then_some(own)
    }
}

/// Splits an id into its own part and the id of its namespace, which is `None` for root.
pub(crate) fn split_suffix(id: &str) -> (&str, Option<&str>) {
    match id.rsplit_once('.') {
        Some((own, suffix)) if !own.is_empty() && NamespaceId::parse(suffix).is_some() => (own, Some(suffix)),
        _ => (id, None),
    }
}

impl Default for NamespaceId {
    fn default() -> Self {
        Self::root()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Record {
        #[serde(default, skip_serializing_if = "NamespaceId::is_root")]
        namespace: NamespaceId,
    }

    #[test]
    fn a_record_without_the_field_is_of_the_root_namespace() {
        let root = Record { namespace: NamespaceId::root() };
        assert_eq!(serde_json::from_str::<Record>("{}").unwrap(), root);
        assert_eq!(serde_json::from_str::<Record>(r#"{"namespace":"root"}"#).unwrap(), root);
        assert_eq!(serde_json::to_string(&root).unwrap(), "{}");
        let other = r#"{"namespace":"aB3dE6"}"#;
        let read: Record = serde_json::from_str(other).unwrap();
        assert_ne!(read, root);
        assert_eq!(serde_json::to_string(&read).unwrap(), other);
    }

    #[test]
    fn an_id_belongs_to_the_namespace_of_its_suffix() {
        let (root, other) = (NamespaceId::root(), NamespaceId::parse("aB3dE6").unwrap());
        for (id, of_root, of_other) in [
            ("hvs.x", Some("hvs.x"), None),
            ("hvs.x.aB3dE6", None, Some("hvs.x")),
            ("hvs.x.aB3dE7", None, None),
            ("hvs.x.aB3dE", Some("hvs.x.aB3dE"), None),
            (".aB3dE6", Some(".aB3dE6"), None),
            ("", Some(""), None),
        ] {
            assert_eq!((root.own(id), other.own(id)), (of_root, of_other), "{id}");
        }
        assert_eq!((root.suffix(), other.suffix()), (String::new(), ".aB3dE6".to_owned()));
        assert_eq!(NamespaceId::parse("root"), None);
        assert!(NamespaceId::parse(NamespaceId::random().as_str()).is_some());
    }
}
