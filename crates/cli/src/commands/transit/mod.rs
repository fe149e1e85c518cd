//! `transit …`: commands for keys of the transit engine, and for files encrypted with them.

mod envelope;
mod files;
mod import;

use keepfast_crypto::Zeroizing;

use crate::args::Node;
use crate::command_error::CommandError;

pub(super) const COMMANDS: &[Node] = &[
    Node::Leaf(&files::DECRYPT),
    Node::Leaf(&files::ENCRYPT),
    Node::Leaf(&import::IMPORT),
    Node::Leaf(&import::IMPORT_VERSION),
];

/// Splits a path such as `transit/keys/app` into mount and key name.
fn split_key_path(path: &str) -> Result<(&str, &str), CommandError> {
    let found =
        path.rsplit_once("/keys/").filter(|(mount, name)| !mount.is_empty() && !name.is_empty() && !name.contains('/'));
    found.ok_or_else(|| CommandError::usage("Expected the path of a key, such as transit/keys/app"))
}

/// Decodes standard base64 and ignores whitespace around it.
fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    use base64::Engine as _;
    let packed: Zeroizing<Vec<u8>> = Zeroizing::new(text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect());
    base64::engine::general_purpose::STANDARD.decode(packed.as_slice()).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::split_key_path;

    #[test]
    fn a_key_path_is_mount_and_name() {
        assert_eq!(split_key_path("transit/keys/app").unwrap(), ("transit", "app"));
        assert_eq!(split_key_path("a/keys/b/keys/c").unwrap(), ("a/keys/b", "c"));
        for wrong in ["transit/app", "keys/app", "transit/keys/", "transit/keys/a/b", ""] {
            assert!(split_key_path(wrong).is_err(), "{wrong}");
        }
    }
}
