//! Namespaces. Only the root namespace exists today, but every record has its namespace, and each reader of a record
//! refuses one of another namespace, so that no record has an effect in another namespace.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The namespace of a record or a request. A record without one belongs to the root namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct NamespaceId(Cow<'static, str>);

impl NamespaceId {
    /// The root namespace.
    pub(crate) const fn root() -> Self {
        NamespaceId(Cow::Borrowed("root"))
    }

    /// The namespace in the header of a request; `None` for any but the root namespace.
    pub(crate) fn of_header(header: &str) -> Option<Self> {
        matches!(header.trim_matches('/'), "" | "root").then(Self::root)
    }

    /// Whether it is the root namespace, which is omitted in records.
    pub(crate) fn is_root(&self) -> bool {
        self.0 == "root"
    }

    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
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
}
