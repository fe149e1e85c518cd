//! What an engine knows of the place where it is mounted.

use std::collections::BTreeMap;
use std::time::Duration;

/// The mount that a request reached, as the operator configured it.
#[derive(Clone, Debug, Default)]
pub struct MountInfo {
    /// Where: `secret/`, `auth/approle/`; ends in `/`.
    pub path: String,
    /// The engine's type as in `secrets enable TYPE`.
    pub engine: String,
    /// The random name that aliases and audit entries refer to.
    pub accessor: String,
    /// The random name under which the mount's data is stored.
    pub uuid: String,
    /// Options such as `version=2`.
    pub options: BTreeMap<String, String>,
    /// Lease bounds in force here: the mount's own, or the system's.
    pub ttl: TtlBounds,
}

/// Lease bounds of a mount, each already resolved against the system's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TtlBounds {
    /// What a lease gets that asks for nothing.
    pub default: Duration,
    /// What no lease exceeds.
    pub max: Duration,
}

impl Default for TtlBounds {
    /// 768 hours for both, as Vault has them.
    fn default() -> Self {
        let month = Duration::from_secs(768 * 3600);
        TtlBounds { default: month, max: month }
    }
}
