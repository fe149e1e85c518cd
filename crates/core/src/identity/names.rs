//! Names as keys: unique names cannot be stored twice, because the second write would have the same key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keepfast_crypto::{hash, random};
use keepfast_framework::reply::Alias;

/// The form in which names are compared, see [`Alias::fold`].
///
/// An auth method that accepts further spellings of a user folds them itself, before it returns the alias of a login.
pub(crate) fn fold(name: &str) -> String {
    Alias::fold(name)
}

/// The key of a name. It has a hash of the name, because names may have any characters.
pub(super) fn name_key(name: &str) -> String {
    key_of_exact(&fold(name))
}

/// The key of the name of an alias at a mount.
pub(super) fn alias_key(mount_accessor: &str, name: &str) -> String {
    format!("{mount_accessor}/{}", name_key(name))
}

/// The key of an alias in records of earlier versions, which did not fold the name.
pub(crate) fn unfolded_alias_key(mount_accessor: &str, name: &str) -> String {
    format!("{mount_accessor}/{}", key_of_exact(name))
}

fn key_of_exact(name: &str) -> String {
    URL_SAFE_NO_PAD.encode(hash::sha256(name.as_bytes()))
}

/// A name for an entity or a group that is created without one: `entity_` and eight random digits, as in OpenBao.
pub(super) fn generated(what: &str, namespace: &str) -> String {
    let id = random::uuid();
    format!("{what}_{}.{namespace}", id.split('-').next().unwrap_or(&id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_a_name_have_one_key_per_mount() {
        for (one, other) in [("Anna", "aNNA"), ("É", "é"), ("ΟΔΟΣ", "οδοσ")] {
            assert_eq!(name_key(one), name_key(other), "{one}");
            assert_eq!(alias_key("auth_a", one), alias_key("auth_a", other), "{one}");
            assert_ne!(alias_key("auth_a", one), alias_key("auth_b", one), "{one}");
        }
        for (one, other) in [("anna", "anna "), ("a", "ａ"), ("ss", "ß"), ("a/b", "a")] {
            assert_ne!(name_key(one), name_key(other), "{one} and {other} may be two users of an auth method");
        }
        assert!(!name_key("a/b").contains('/'));
    }
}
