//! The mount as visible to its engine.

use std::collections::BTreeMap;
use std::time::Duration;

/// The mount that a request reached, as the operator configured it.
#[derive(Clone, Debug, Default)]
pub struct MountInfo {
    /// The path, such as `secret/` or `auth/approle/`; ends in `/`.
    pub path: String,
    /// The engine's type as in `secrets enable TYPE`.
    pub engine: String,
    /// The random name that aliases and audit entries refer to.
    pub accessor: String,
    /// The random name under which the mount's data is stored.
    pub uuid: String,
    /// Options such as `version=2`.
    pub options: BTreeMap<String, String>,
    /// The effective lease limits: those of the mount, or of the system.
    pub ttl: TtlBounds,
}

/// Lease limits of a mount, each already resolved against the system's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TtlBounds {
    /// The TTL of a lease that requests none.
    pub default: Duration,
    /// The largest TTL of a lease.
    pub max: Duration,
}

impl Default for TtlBounds {
    /// 768 hours for both, as in Vault.
    fn default() -> Self {
        let month = Duration::from_secs(768 * 3600);
        TtlBounds { default: month, max: month }
    }
}
