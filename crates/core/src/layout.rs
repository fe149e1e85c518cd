//! The layout of core: the paths of its mounts and the prefixes of its storage.

/// The mount of the server's own API.
pub(crate) const SYSTEM_MOUNT: &str = "sys/";
/// The mount of the auth method for tokens.
pub(crate) const TOKEN_MOUNT: &str = "auth/token/";

/// Mounts, policies, migrations, locked users, and other records of `sys/`.
pub(crate) const SYSTEM_STORAGE: &str = "sys/";
/// Tokens, token roles and leases.
pub(crate) const TOKEN_STORAGE: &str = "token/";
/// Entities and aliases.
pub(crate) const IDENTITY_STORAGE: &str = "identity/";
/// Salts and audit devices that the API has created.
pub(crate) const AUDIT_STORAGE: &str = "audit/";

/// The entries of the mounts.
pub(crate) const MOUNT_ENTRIES: &str = "sys/mount/";
/// Policies.
pub(crate) const POLICIES: &str = "sys/policy/";
/// Locks of users.
pub(crate) const LOCKS: &str = "sys/lockout/";
/// Locks of names without a user.
pub(crate) const UNKNOWN_LOCKS: &str = "sys/lockout-unknown/";
/// Entities.
pub(crate) const ENTITIES: &str = "identity/entity/";
/// Tokens by their keys.
pub(crate) const TOKENS: &str = "token/id/";
/// The storage of secrets engines, and of auth methods.
pub(crate) const ENGINE_STORAGE: [&str; 2] = ["logical/", "auth/"];
/// Audit devices that the API has created.
pub(crate) const AUDIT_DEVICES: &str = "audit/device/";
