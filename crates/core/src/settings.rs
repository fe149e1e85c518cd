//! What the operator decided in the configuration file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::engine::Gauge;
use serde::{Deserialize, Serialize};

use crate::audit::OwnFiles;
use crate::seal::SealKind;

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
    /// What unlocks the root key of a storage that this server initialises.
    pub seal: SealKind,
    /// The declared audit devices (invariant 12).
    pub audit: Vec<AuditSettings>,
    /// What no audit device may write to.
    pub own_files: Arc<OwnFiles>,
    /// Whether `sys/audit` creates and removes further devices.
    pub allow_api_audit_creation: bool,
    /// Whether devices may have a prefix.
    pub allow_audit_log_prefixing: bool,
    /// Whether `sys/internal/inspect` shows the tables of the router.
    pub introspection_endpoint: bool,
    /// The version that `sys/health` and `sys/seal-status` tell.
    pub version: String,
    /// The listeners, told by `sys/config/state/sanitized`.
    pub listeners: Vec<ListenerSettings>,
    /// The log level, told by `sys/config/state/sanitized`.
    pub log_level: String,
    /// Whether the server runs in development mode.
    pub dev: bool,
    /// When guessing at a user's secret locks the user out, by type of auth method; `all` for the rest.
    pub user_lockout: BTreeMap<String, LockoutSettings>,
    /// What the metrics are kept and told as.
    pub telemetry: TelemetrySettings,
    /// The name of this machine, told by `sys/ha-status`.
    pub hostname: String,
    /// What the process around the kernel knows of its machine, for the metrics.
    pub host_gauges: Option<Arc<dyn HostGauges>>,
    /// The levels of the server's log, if it has one.
    pub log: Option<Arc<dyn LogLevels>>,
    /// The directories below which the settings of a database connection may name local files and sockets.
    pub database_file_directories: Vec<PathBuf>,
    /// Where this node's storage is; `None` where nothing tells it from a copy. See [`crate::lease::quarantine`].
    pub home: Option<Home>,
}

/// Where the data directory of a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// Names the node, the same for as long as it has its data directory.
    pub node: String,
    /// What tells the data directory from a copy of it.
    pub place: String,
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
    /// As [`crate::audit::DeviceOptions`] reads them.
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

/// The `user_lockout` stanza.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockoutSettings {
    /// How many failed attempts lock a user out.
    pub threshold: u64,
    /// For how long after the last of them.
    pub duration: Duration,
    /// After how long without a failed attempt all are forgotten.
    pub counter_reset: Duration,
    /// Whether nobody is locked out.
    pub disabled: bool,
}

impl Default for LockoutSettings {
    fn default() -> Self {
        let quarter = Duration::from_secs(15 * 60);
        LockoutSettings { threshold: 5, duration: quarter, counter_reset: quarter, disabled: false }
    }
}

/// The `telemetry` stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// How long metrics are kept for Prometheus; zero turns its format off.
    pub prometheus_retention: Duration,
    /// Whether the stanza says so; names never have the name of this machine in them.
    pub disable_hostname: bool,
    /// What names begin with.
    pub prefix: String,
    /// How often the usage gauges are counted; zero turns them off.
    pub usage_period: Duration,
    /// How many sets of labels one of them has at most.
    pub gauge_cardinality: usize,
    /// Whether there is such a stanza.
    pub is_given: bool,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        TelemetrySettings {
            prometheus_retention: Duration::from_secs(24 * 3600),
            disable_hostname: false,
            prefix: "vault".to_owned(),
            usage_period: Duration::from_secs(600),
            gauge_cardinality: 500,
            is_given: false,
        }
    }
}

/// Numbers of the machine, such as the room on the disk. Asked when somebody reads the metrics, so they are told without
/// waiting.
pub trait HostGauges: std::fmt::Debug + Send + Sync {
    /// All of them.
    fn gauges(&self) -> Vec<Gauge>;
}

/// The levels of the server's log, which can be changed while it runs.
pub trait LogLevels: std::fmt::Debug + Send + Sync {
    /// The level of each named part.
    fn levels(&self) -> BTreeMap<&'static str, &'static str>;
    /// Sets the level of one part, or of all; `None` for the level of the configuration. Whether there is such a part.
    fn set(&self, part: Option<&str>, level: Option<LogLevel>) -> bool;
}

/// A level of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the API's own")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl LogLevel {
    /// Reads a level by any of its names.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.trim().to_ascii_lowercase().as_str() {
            "trace" => LogLevel::Trace,
            "debug" => LogLevel::Debug,
            "info" | "notice" => LogLevel::Info,
            "warn" | "warning" => LogLevel::Warn,
            "error" | "err" => LogLevel::Error,
            _ => return None,
        })
    }
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
            seal: SealKind::default(),
            audit: Vec::new(),
            own_files: Arc::default(),
            allow_api_audit_creation: false,
            allow_audit_log_prefixing: false,
            introspection_endpoint: false,
            version: env!("CARGO_PKG_VERSION").into(),
            listeners: Vec::new(),
            log_level: "info".into(),
            dev: false,
            user_lockout: BTreeMap::new(),
            telemetry: TelemetrySettings::default(),
            hostname: String::new(),
            host_gauges: None,
            log: None,
            database_file_directories: Vec::new(),
            home: None,
        }
    }
}
