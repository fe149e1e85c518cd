//! The policies that every server has, and the names that callers may not assign.

use unicode_normalization::UnicodeNormalization as _;

/// The name of the policy that new tokens get by default.
pub(crate) const DEFAULT: &str = "default";
/// The name of the root policy in responses. No code parses this name: root is [`super::Acl::Root`].
pub(crate) const ROOT: &str = "root";
/// The name of the policy of wrapping tokens, which is neither listed nor changed.
pub(crate) const RESPONSE_WRAPPING: &str = "response-wrapping";

/// The text of [`DEFAULT`] until an operator changes it.
pub(crate) const DEFAULT_TEXT: &str = r#"
# Look up, renew and revoke this token itself.
path "auth/token/lookup-self" {
    capabilities = ["read"]
}
path "auth/token/renew-self" {
    capabilities = ["update"]
}
path "auth/token/revoke-self" {
    capabilities = ["update"]
}

# Read the capabilities of this token on a path.
path "sys/capabilities-self" {
    capabilities = ["update"]
}

# Read the entity of this token.
path "identity/entity/id/{{identity.entity.id}}" {
    capabilities = ["read"]
}
path "identity/entity/name/{{identity.entity.name}}" {
    capabilities = ["read"]
}

# Read the union of this token's policies, for user interfaces. The format may change.
path "sys/internal/ui/resultant-acl" {
    capabilities = ["read"]
}

# Renew and look up leases whose ids the caller knows.
path "sys/leases/renew" {
    capabilities = ["update"]
}
path "sys/leases/lookup" {
    capabilities = ["update"]
}

# Use the cubbyhole of this token.
path "cubbyhole/*" {
    capabilities = ["create", "read", "update", "delete", "list"]
}

# Wrap a value; look up and unwrap a wrapping token.
path "sys/wrapping/wrap" {
    capabilities = ["update"]
}
path "sys/wrapping/lookup" {
    capabilities = ["update"]
}
path "sys/wrapping/unwrap" {
    capabilities = ["update"]
}

# Hash a value.
path "sys/tools/hash" {
    capabilities = ["update"]
}
path "sys/tools/hash/*" {
    capabilities = ["update"]
}

# Log in to applications through an OIDC provider of this server.
path "identity/oidc/provider/+/authorize" {
    capabilities = ["read", "update"]
}
"#;

/// The text of [`RESPONSE_WRAPPING`].
pub(crate) const RESPONSE_WRAPPING_TEXT: &str = r#"
path "cubbyhole/response" {
    capabilities = ["create", "read"]
}

path "sys/wrapping/unwrap" {
    capabilities = ["update"]
}

path "auth/token/revoke-self" {
    capabilities = ["update"]
}
"#;

/// Whether a name is `root` once width, accents, case, blanks and invisible characters are disregarded.
pub(crate) fn reads_like_root(name: &str) -> bool {
    let visible = name.nfkd().filter(|c| c.is_alphanumeric() || c.is_ascii_punctuation()).flat_map(char::to_lowercase);
    visible.eq(ROOT.chars())
}
