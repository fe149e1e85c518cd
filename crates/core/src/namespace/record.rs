//! The stored records of namespaces, all in the storage of the root namespace:
//!
//! | key below `ns/` | contents |
//! |---|---|
//! | `rec/<id>` | the record |
//! | `dir/<id of the parent>/<name>` | the id: a name is unique below its parent |
//! | `gone/<id>` | an id that is not used again |
//! | `due/<id>` | a namespace that the leader opens for background work |
//! | `<id>/` | everything of the namespace |

use std::collections::BTreeMap;

use keepfast_framework::{Records, Timestamp};
use serde::{Deserialize, Serialize};

use super::NamespaceId;

/// The records of namespaces, by id.
pub(crate) const RECORDS: Records<NamespaceRecord> = Records::at("rec/");
/// The ids of the children of a namespace, by the id of the parent and the name.
pub(crate) const DIRECTORY: Records<NamespaceId> = Records::at("dir/");
/// The ids of deleted namespaces.
pub(crate) const GONE: Records<()> = Records::at("gone/");
/// The namespaces with background work.
pub(crate) const DUE: Records<()> = Records::at("due/");

/// The stored record of a namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NamespaceRecord {
    /// Its id, which is the suffix of its tokens.
    pub(crate) id: NamespaceId,
    /// Its UUID.
    pub(crate) uuid: String,
    /// The id of the namespace above it.
    pub(crate) parent: NamespaceId,
    /// Its name: the last segment of its path.
    pub(crate) name: String,
    /// The metadata that its creator has given.
    #[serde(default)]
    pub(crate) custom_metadata: BTreeMap<String, String>,
    /// The SHA-256 of its unlock key in hexadecimal digits, while it is locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lock: Option<String>,
    /// Whether it is being deleted: it handles no requests.
    #[serde(default)]
    pub(crate) deleting: bool,
    /// Whether leases that cannot be revoked are abandoned by the deletion.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) force: bool,
    /// The time of its creation.
    pub(crate) created: Timestamp,
}

/// The key of a name in [`DIRECTORY`].
pub(crate) fn directory_key(parent: &NamespaceId, name: &str) -> String {
    format!("{}/{name}", parent.as_str())
}
