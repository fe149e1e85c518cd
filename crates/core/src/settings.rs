//! What the operator decided in the configuration file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What the operator decided in the configuration file, already checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What a lease gets that asks for nothing.
    pub default_lease_ttl: Duration,
    /// What no lease exceeds.
    pub max_lease_ttl: Duration,
    /// The address that clients are told to use; may be empty.
    pub api_addr: String,
    /// The address for the other nodes; may be empty.
    pub cluster_addr: String,
    /// The cluster's name; made at init when empty.
    pub cluster_name: String,
    /// The name of the storage backend for `sys/seal-status`: `raft`, `file`, `inmem`.
    pub storage_type: String,
    /// Audit devices; there is no other way to add one (invariant 12).
    pub audit: Vec<AuditSettings>,
    /// The version that `sys/health` and `sys/seal-status` tell.
    pub version: String,
    /// The listeners, told by `sys/config/state/sanitized`.
    pub listeners: Vec<ListenerSettings>,
    /// The log level, told by `sys/config/state/sanitized`.
    pub log_level: String,
    /// Whether the server runs in development mode.
    pub dev: bool,
    /// What tells this place of the storage from a copy of it; empty where nothing does. See [`crate::lease::quarantine`].
    pub home: String,
}

/// One audit device of the configuration file: `audit "file" "name" { options { file_path = … } }`.
#[derive(Clone, Debug)]
pub struct AuditSettings {
    /// `file`.
    pub device: String,
    /// Its path in `sys/audit`, without a trailing slash.
    pub name: String,
    /// For people.
    pub description: String,
    /// `file_path`, `mode`, `log_raw`, `hmac_accessor`, `elide_list_responses`, `format`.
    pub options: BTreeMap<String, String>,
}

impl AuditSettings {
    /// Where a file device writes; `None` when the option is missing.
    pub fn file_path(&self) -> Option<PathBuf> {
        self.options.get("file_path").or_else(|| self.options.get("path")).map(PathBuf::from)
    }
}

/// One listener, as told by `sys/config/state/sanitized`.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// `tcp` or `unix`.
    pub kind: String,
    /// Address or socket path.
    pub address: String,
    /// Whether it is plain HTTP.
    pub tls_disable: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let month = Duration::from_secs(768 * 3600);
        Settings {
            default_lease_ttl: month,
            max_lease_ttl: month,
            api_addr: String::new(),
            cluster_addr: String::new(),
            cluster_name: String::new(),
            storage_type: "inmem".into(),
            audit: Vec::new(),
            version: env!("CARGO_PKG_VERSION").into(),
            listeners: Vec::new(),
            log_level: "info".into(),
            dev: false,
            home: String::new(),
        }
    }
}
