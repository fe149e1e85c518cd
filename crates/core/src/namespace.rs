//! Namespaces. Only the root namespace exists today, but every id names its own, so that none can act in another.

use serde::{Deserialize, Serialize};

/// The namespace that an id belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct NamespaceId(String);

impl NamespaceId {
    /// The root namespace.
    pub(crate) fn root() -> Self {
        NamespaceId("root".to_owned())
    }

    /// The namespace of a request's header; only the root namespace can be named.
    pub(crate) fn of_header(header: &str) -> Option<Self> {
        matches!(header.trim_matches('/'), "" | "root").then(Self::root)
    }
}
