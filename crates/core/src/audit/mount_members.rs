//! The mount in an entry, written once for each mount and not with each entry.

use serde::Serialize as _;

use crate::mount::entry::MountEntry;
use crate::version_history::BUILT_IN;

/// The members of entries that describe one mount. No device hashes them.
pub(crate) struct MountMembers {
    /// The members of `request`, each after a comma.
    pub(super) request: Box<[u8]>,
    /// The first members of `response`.
    pub(super) response: Box<[u8]>,
}

/// The first members of `response` without a mount.
pub(super) const NO_MOUNT: &str = r#""mount_point":"","mount_type":"","mount_accessor":"","mount_class":"""#;

impl MountMembers {
    /// The members for a stored mount of the namespace at this path.
    pub(crate) fn new(entry: &MountEntry, namespace: &str, engine: &str) -> Self {
        let path = format!("{namespace}{}", entry.path);
        let class = if entry.auth { "auth" } else { "secret" };
        let members = [
            ("mount_point", path.as_str()),
            ("mount_type", engine),
            ("mount_accessor", entry.accessor.as_str()),
            ("mount_class", class),
        ];
        let written = |version: &'static str| {
            let mut out = Vec::new();
            for (name, value) in members.into_iter().chain([(version, BUILT_IN)]) {
                out.extend_from_slice(b",\"");
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b"\":");
                // The serialization of a text cannot fail.
                let _ = value.serialize(&mut serde_json::Serializer::new(&mut out));
            }
            out
        };
        MountMembers {
            request: written("mount_running_version").into_boxed_slice(),
            response: written("mount_running_plugin_version").split_off(1).into_boxed_slice(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_a_mount_are_json_texts_in_the_order_of_entries() {
        let stored = r#"{"uuid":"u","path":"a \"b\"/","engine":"kv","auth":false,"accessor":"kv_1"}"#;
        let mark = MountMembers::new(&serde_json::from_str(stored).unwrap(), "", "kv");
        let members = |version: &str| {
            format!(
                r#""mount_point":"a \"b\"/","mount_type":"kv","mount_accessor":"kv_1","mount_class":"secret","{version}":"{BUILT_IN}""#
            )
        };
        assert_eq!(String::from_utf8_lossy(&mark.request), format!(",{}", members("mount_running_version")));
        assert_eq!(String::from_utf8_lossy(&mark.response), members("mount_running_plugin_version"));
    }
}
