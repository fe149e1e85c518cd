//! The layout of core: the paths of its mounts and the prefixes of its storage.
//!
//! | prefix | contents |
//! |---|---|
//! | `barrier/keyring`, `barrier/seal` | the keyring under the root key; the seal configuration, the only plaintext |
//! | `sys/` | mounts, policies, quotas and the counters of leases, migrations, locked users, the progress of the self-initialization |
//! | `token/` | tokens, their expiries and children, token roles; leases, their expiries by mount, and their claims |
//! | `identity/`, `audit/` | entities, aliases and groups; salts of the audit devices, and devices of `sys/audit` |
//! | `logical/<uuid>/`, `auth/<uuid>/` | the data of one mount each |
//! | `ns/` | the namespaces, and below `ns/<id>/` the mounts, policies, identity, locks and data of each |

/// The mount of the server's own API.
pub(crate) const SYSTEM_MOUNT: &str = "sys/";
/// The mount of entities, aliases and groups.
pub(crate) const IDENTITY_MOUNT: &str = "identity/";
/// The mount of the auth method for tokens.
pub(crate) const TOKEN_MOUNT: &str = "auth/token/";

/// Mounts, policies, migrations, locked users, and other records of `sys/`.
pub(crate) const SYSTEM_STORAGE: &str = "sys/";
/// Tokens, token roles and leases.
pub(crate) const TOKEN_STORAGE: &str = "token/";
/// Entities, aliases and groups.
pub(crate) const IDENTITY_STORAGE: &str = "identity/";
/// The records of the OIDC provider, below [`IDENTITY_STORAGE`].
pub(crate) const OIDC: &str = "oidc/";
/// Login enforcements, below [`IDENTITY_STORAGE`].
pub(crate) const MFA_ENFORCEMENTS: &str = "mfa/enforcement/";
/// Salts and audit devices that the API has created.
pub(crate) const AUDIT_STORAGE: &str = "audit/";

/// The records of namespaces besides root, and the storage of each.
pub(crate) const NAMESPACES: &str = "ns/";

/// The storage of secrets engines, and of auth methods.
pub(crate) const ENGINE_STORAGE: [&str; 2] = ["logical/", "auth/"];

/// The entries of the mounts, in [`SYSTEM_STORAGE`].
pub(crate) const MOUNT_ENTRIES: &str = "mount/";
/// The progress of the self-initialization, in [`SYSTEM_STORAGE`].
pub(crate) const SELF_INIT: &str = "self-init";
/// Responses that later requests of the self-initialization refer to, in [`SYSTEM_STORAGE`].
pub(crate) const SELF_INIT_RESPONSES: &str = "self-init-responses/";
/// Policies, in [`SYSTEM_STORAGE`].
pub(crate) const POLICIES: &str = "policy/";
/// Backups of encrypted shares, in [`SYSTEM_STORAGE`].
pub(crate) const SHARE_BACKUPS: &str = "share-backup/";
/// Locks of users, in [`SYSTEM_STORAGE`].
pub(crate) const LOCKS: &str = "lockout/";
/// Locks of names without a user, in [`SYSTEM_STORAGE`].
pub(crate) const UNKNOWN_LOCKS: &str = "lockout-unknown/";
/// Entities, by id, in [`IDENTITY_STORAGE`].
pub(crate) const ENTITIES: &str = "entity/";
/// Tokens by their keys, in [`TOKEN_STORAGE`].
pub(crate) const TOKENS: &str = "id/";
/// Audit devices that the API has created, in [`AUDIT_STORAGE`].
pub(crate) const AUDIT_DEVICES: &str = "device/";
