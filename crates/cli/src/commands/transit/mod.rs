//! `transit …`: keys of the transit engine, and files encrypted with them.

mod envelope;
mod files;
mod import;

use keepfast_crypto::Zeroizing;

use crate::args::Node;
use crate::halt::Halt;

pub(super) const COMMANDS: &[Node] = &[
    Node::Leaf(&files::DECRYPT),
    Node::Leaf(&files::ENCRYPT),
    Node::Leaf(&import::IMPORT),
    Node::Leaf(&import::IMPORT_VERSION),
];

/// A key's mount and name, from a path such as `transit/keys/app`.
fn place(path: &str) -> Result<(&str, &str), Halt> {
    let found =
        path.rsplit_once("/keys/").filter(|(mount, name)| !mount.is_empty() && !name.is_empty() && !name.contains('/'));
    found.ok_or_else(|| Halt::usage("Expected the path of a key, such as transit/keys/app"))
}

/// The bytes of standard base64, whitespace around it ignored.
fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    use base64::Engine as _;
    let packed: Zeroizing<Vec<u8>> = Zeroizing::new(text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect());
    base64::engine::general_purpose::STANDARD.decode(packed.as_slice()).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn places_name_mount_and_key() {
        assert_eq!(place("transit/keys/app").unwrap(), ("transit", "app"));
        assert_eq!(place("a/keys/b/keys/c").unwrap(), ("a/keys/b", "c"));
        for wrong in ["transit/app", "keys/app", "transit/keys/", "transit/keys/a/b", ""] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}
