//! The settings of the configuration file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::engine::Gauge;
use keepfast_framework::external_key::ExternalKeyPlugins;
use keepfast_storage::Addresses;
use serde::{Deserialize, Serialize};

use crate::audit::OwnFiles;
use crate::cluster::announced::announced;
use crate::cluster::join::client::{JoinClient, JoinTarget};
use crate::cluster::port::ClusterPort;

/// The validated settings of the configuration file.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The default TTL of leases.
    pub default_lease_ttl: Duration,
    /// The max_ttl of leases.
    pub max_lease_ttl: Duration,
    /// The address that clients use; may be empty.
    pub api_addr: String,
    /// The address for the other nodes; may be empty.
    pub cluster_addr: String,
    /// The name of the cluster; generated at init when empty.
    pub cluster_name: String,
    /// The name of the storage backend for `sys/seal-status`: `raft`, `file`, `inmem`.
    pub storage_type: String,
    /// Whether recovery keys never unseal, also when no seal works (`disable_break_glass`).
    pub disable_break_glass: bool,
    /// Whether no value is wrapped (`disable_sealwrap`).
    pub disable_sealwrap: bool,
    /// The declared audit devices (invariant 12 of `docs/invariants.md`).
    pub audit: Vec<AuditSettings>,
    /// The files that no audit device may write to.
    pub own_files: Arc<OwnFiles>,
    /// Whether `sys/audit` creates and removes further devices.
    pub allow_api_audit_creation: bool,
    /// Whether audit devices may have a prefix.
    pub allow_audit_log_prefixing: bool,
    /// Whether `sys/internal/inspect` shows the tables of the router.
    pub introspection_endpoint: bool,
    /// The version in `sys/health` and `sys/seal-status`.
    pub version: String,
    /// The listeners, for `sys/config/state/sanitized`.
    pub listeners: Vec<ListenerSettings>,
    /// The log level, for `sys/config/state/sanitized`.
    pub log_level: String,
    /// Whether the server runs in development mode.
    pub dev: bool,
    /// The user lockout by type of auth method; `all` applies to the other types.
    pub user_lockout: BTreeMap<String, LockoutSettings>,
    /// The settings of the metrics.
    pub telemetry: TelemetrySettings,
    /// The host name, for `sys/ha-status`.
    pub hostname: String,
    /// The gauges of the machine, for the metrics.
    pub host_gauges: Option<Arc<dyn HostGauges>>,
    /// The log levels of the server, if it has a log.
    pub log: Option<Arc<dyn LogLevels>>,
    /// The directories below which the settings of a database connection may name local files and sockets.
    pub database_file_directories: Vec<PathBuf>,
    /// The plugins of external keys.
    pub external_keys: Option<Arc<dyn ExternalKeyPlugins>>,
    /// The place of the storage of this node; `None` if it cannot be distinguished from a copy. See
    /// [`crate::lease::quarantine`].
    pub data_directory: Option<DataDirectory>,
    /// The cluster port; `None` for a storage without a cluster.
    pub cluster_port: Option<Arc<dyn ClusterPort>>,
    /// Whether a standby passes every request to the leader (`disable_standby_reads`).
    pub disable_standby_reads: bool,
    /// How this node joins a cluster.
    pub join: JoinSettings,
    /// The interval of autopilot (`autopilot_reconcile_interval`).
    pub autopilot_interval: Duration,
    /// The automatic snapshots; `None` for none.
    pub snapshots: Option<SnapshotSettings>,
    /// The files of snapshots on request; `None` where these are in memory.
    pub snapshot_files: Option<SnapshotFiles>,
}

/// Where snapshots are that are saved, or restored, on request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFiles {
    /// The directory of the files, which have no names.
    pub directory: PathBuf,
    /// The longest file in bytes (`max_snapshot_size`).
    pub longest: u64,
}

/// The `snapshots` stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// The directory of the files.
    pub directory: PathBuf,
    /// The time between two snapshots.
    pub interval: Duration,
    /// The number of files that are kept.
    pub retain: usize,
}

impl Settings {
    /// The addresses of this node, and what it announces, for the other members.
    pub(crate) fn addresses(&self) -> Addresses {
        Addresses {
            api_addr: self.api_addr.clone(),
            cluster_addr: self.cluster_addr.clone(),
            version: announced(&self.version, self.disable_sealwrap),
        }
    }
}

/// How a node joins a cluster.
#[derive(Clone, Debug, Default)]
pub struct JoinSettings {
    /// Calls leaders; `None` where the server cannot join.
    pub client: Option<Arc<dyn JoinClient>>,
    /// The leaders of the configuration (`retry_join`).
    pub retry: Vec<JoinTarget>,
    /// Whether the node gets no vote (`retry_join_as_non_voter`).
    pub non_voter: bool,
}

/// The place of the data directory of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDirectory {
    /// The name of the node, constant for its data directory.
    pub node: String,
    /// Properties that distinguish the data directory from a copy of it.
    pub place: String,
}

/// One audit device of the configuration file: `audit "file" "name" { options { file_path = … } }`.
#[derive(Clone, Debug)]
pub struct AuditSettings {
    /// The device type: `file`.
    pub device: String,
    /// Its path in `sys/audit`, without a trailing slash.
    pub name: String,
    /// The description.
    pub description: String,
    /// The options, which [`crate::audit::DeviceOptions`] parses.
    pub options: BTreeMap<String, String>,
}

impl AuditSettings {
    /// The target of a file device; `None` when the option is missing.
    pub fn file_path(&self) -> Option<PathBuf> {
        self.options.get("file_path").or_else(|| self.options.get("path")).map(PathBuf::from)
    }
}

/// One listener, as `sys/config/state/sanitized` shows it.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// `tcp` or `unix`.
    pub kind: String,
    /// The address or the socket path.
    pub address: String,
    /// Whether TLS is off.
    pub tls_disable: bool,
}

/// The `user_lockout` stanza.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockoutSettings {
    /// The number of failed logins that lock a user out.
    pub threshold: u64,
    /// The duration of a lock, from the last failed login.
    pub duration: Duration,
    /// The time without a failed login after which the count restarts.
    pub counter_reset: Duration,
    /// Whether the lockout is off.
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
    /// The retention of metrics for Prometheus; zero turns the Prometheus format off.
    pub prometheus_retention: Duration,
    /// Only returned by `sys/config/state/sanitized`: names never contain the host name.
    pub disable_hostname: bool,
    /// The prefix of metric names.
    pub prefix: String,
    /// The interval of the usage gauges; zero turns them off.
    pub usage_period: Duration,
    /// The maximum number of label sets of one usage gauge.
    pub gauge_cardinality: usize,
    /// Whether the configuration has the stanza.
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

/// Gauges of the machine, such as the free disk space. They are read for each scrape, so they must be returned without
/// waiting.
pub trait HostGauges: std::fmt::Debug + Send + Sync {
    /// All gauges.
    fn gauges(&self) -> Vec<Gauge>;
}

/// The log levels of the server, which can be changed at run time.
pub trait LogLevels: std::fmt::Debug + Send + Sync {
    /// The level of each named logger.
    fn levels(&self) -> BTreeMap<&'static str, &'static str>;
    /// Sets the level of one logger, or of all; `None` restores the configured level. Returns whether the logger
    /// exists.
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
    /// Parses a level by any of its names.
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
            disable_break_glass: false,
            disable_sealwrap: false,
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
            external_keys: None,
            data_directory: None,
            cluster_port: None,
            disable_standby_reads: false,
            join: JoinSettings::default(),
            autopilot_interval: Duration::from_secs(10),
            snapshots: None,
            snapshot_files: None,
        }
    }
}
