//! The whole configuration: its stanzas, and the rules between them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keepfast_core::self_init::SelfInitPlan;
use keepfast_core::settings::{AuditSettings, LockoutSettings, SnapshotSettings, TelemetrySettings};
use keepfast_framework::external_key::ExternalKeyPlugins;
use keepfast_hcl::Suggestion;

use super::address_template;
use super::environment::Environment;
use super::error::{ConfigError, Warning};
use super::known_keys;
use super::listener;
use super::raft::RaftConfig;
use super::seals::{self, SealSettings};
use super::stanza::{Labelled, Source, Stanza};
use super::{Limits, ListenerConfig};
use super::{audit, initialize, kms_libraries, small_stanzas, snapshots};

/// The checked configuration of the server.
#[derive(Debug, Clone)]
pub struct Config {
    /// The storage.
    pub storage: Storage,
    /// The node as a member of a cluster, with `storage "raft"`.
    pub raft: RaftConfig,
    /// Whether a standby passes every request to the leader.
    pub disable_standby_reads: bool,
    /// Whether recovery keys never unseal.
    pub disable_break_glass: bool,
    /// Whether no value is wrapped.
    pub disable_sealwrap: bool,
    /// The listeners, in order.
    pub listeners: Vec<ListenerConfig>,
    /// The `cluster_address` of each listener, in the same order.
    pub cluster_addresses: Vec<Option<String>>,
    /// The address that clients are redirected to; may be empty.
    pub api_addr: String,
    /// The address of this node for other nodes; may be empty.
    pub cluster_addr: String,
    /// The name of the cluster; may be empty.
    pub cluster_name: String,
    /// The seals whose key is outside of the server.
    pub seals: Vec<SealSettings>,
    /// The default TTL of leases.
    pub default_lease_ttl: Duration,
    /// The max TTL of leases.
    pub max_lease_ttl: Duration,
    /// Whether memory is not locked.
    pub disable_mlock: bool,
    /// The log level; empty means `info`.
    pub log_level: String,
    /// The format of log lines.
    pub log_format: LogFormat,
    /// An additional file for the log.
    pub log_file: Option<PathBuf>,
    /// When `log_file` is rotated.
    pub log_rotation: LogRotation,
    /// The audit devices.
    pub audit: Vec<AuditSettings>,
    /// Whether `sys/audit` can enable and disable devices.
    pub unsafe_allow_api_audit_creation: bool,
    /// Whether audit devices may have a prefix.
    pub allow_audit_log_prefixing: bool,
    /// Whether `sys/internal/inspect` returns the tables of the router.
    pub introspection_endpoint: bool,
    /// The path of the pid file.
    pub pid_file: Option<PathBuf>,
    /// The telemetry settings.
    pub telemetry: TelemetrySettings,
    /// The user lockout settings, by type of auth method.
    pub user_lockout: BTreeMap<String, LockoutSettings>,
    /// The directories that contain the local files and sockets of database connections.
    pub database_file_directories: Vec<PathBuf>,
    /// The automatic snapshots.
    pub snapshots: Option<SnapshotSettings>,
    /// The `initialize` stanzas.
    pub self_init: Arc<SelfInitPlan>,
    /// The plugins of external keys; always present in a configuration that was loaded.
    pub external_keys: Option<Arc<dyn ExternalKeyPlugins>>,
}

/// The storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// The embedded durable store, as the only node of a cluster.
    Raft {
        /// The directory.
        path: PathBuf,
        /// The name of the node.
        node_id: String,
    },
    /// The embedded durable store.
    File {
        /// The directory.
        path: PathBuf,
    },
    /// Memory: lost when the process ends.
    InMemory,
}

impl Storage {
    /// The storage type in the response of `sys/seal-status`.
    pub fn kind(&self) -> &'static str {
        match self {
            Storage::Raft { .. } => "raft",
            Storage::File { .. } => "file",
            Storage::InMemory => "inmem",
        }
    }

    /// The directory of a durable store.
    pub fn path(&self) -> Option<&PathBuf> {
        match self {
            Storage::Raft { path, .. } | Storage::File { path } => Some(path),
            Storage::InMemory => None,
        }
    }
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `2026-01-01T00:00:00.000Z [INFO]  core: text: key=value`
    #[default]
    Standard,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// Parses a `log_format`; empty is the standard one.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "" | "standard" | "text" => Some(LogFormat::Standard),
            "json" => Some(LogFormat::Json),
            _ => None,
        }
    }
}

/// When `log_file` is rotated, and how many older files are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRotation {
    /// The size in bytes after which a file is rotated (`log_rotate_bytes`); 0 is no limit.
    pub bytes: u64,
    /// The time after which a file is rotated (`log_rotate_duration`); zero is no limit.
    pub duration: Duration,
    /// The number of older files that are kept (`log_rotate_max_files`); `None` keeps all.
    pub max_files: Option<usize>,
}

impl LogRotation {
    /// Converts Vault's numbers for `log_rotate_max_files`: 0 keeps all older files, a negative number none.
    pub fn max_files(count: i64) -> Option<usize> {
        (count != 0).then(|| usize::try_from(count).unwrap_or(0))
    }
}

impl Default for LogRotation {
    fn default() -> Self {
        LogRotation { bytes: 0, duration: Duration::from_secs(24 * 3600), max_files: None }
    }
}

impl Default for Config {
    fn default() -> Self {
        let month = Duration::from_secs(768 * 3600);
        Config {
            storage: Storage::InMemory,
            raft: RaftConfig::default(),
            disable_standby_reads: false,
            disable_break_glass: false,
            disable_sealwrap: false,
            listeners: Vec::new(),
            cluster_addresses: Vec::new(),
            api_addr: String::new(),
            cluster_addr: String::new(),
            cluster_name: String::new(),
            seals: Vec::new(),
            default_lease_ttl: month,
            max_lease_ttl: month,
            disable_mlock: false,
            log_level: String::new(),
            log_format: LogFormat::Standard,
            log_file: None,
            log_rotation: LogRotation::default(),
            audit: Vec::new(),
            unsafe_allow_api_audit_creation: false,
            allow_audit_log_prefixing: false,
            introspection_endpoint: false,
            pid_file: None,
            telemetry: TelemetrySettings::default(),
            user_lockout: BTreeMap::new(),
            database_file_directories: Vec::new(),
            snapshots: None,
            self_init: Arc::default(),
            external_keys: None,
        }
    }
}

/// Applies the files in order, then the environment, and checks the result. Audit devices are parsed when the keys of
/// all files are known.
pub(super) fn build(
    sources: &[Source],
    environment: &Environment,
    mut storage: Option<Storage>,
    warnings: &mut Vec<Warning>,
) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    let must_listen = storage.is_none();
    let mut roots: Vec<Stanza<'_>> = sources.iter().map(Source::root).collect();
    for root in &mut roots {
        apply(&mut config, &mut storage, root, environment, warnings)?;
    }
    // The key that allows the prefix of a device may be in a later file than the device.
    for root in &mut roots {
        for block in root.blocks("audit", 2)? {
            let device = audit::read(block, &config, warnings)?;
            config.audit.push(device);
        }
    }
    config.seals = seals::read(&mut roots, environment, warnings)?;
    config.self_init = Arc::new(initialize::read(&mut roots, warnings)?);
    config.external_keys = Some(kms_libraries::read(&mut roots, environment, warnings)?);
    for mut root in roots {
        root.without_effect(known_keys::TOP_LEVEL, warnings);
        root.finish_root(warnings)?;
    }
    config.storage = storage.ok_or_else(|| ConfigError::Whole("a storage backend must be specified".into()))?;
    apply_environment(&mut config, environment)?;
    check(&config)?;
    if must_listen && config.listeners.is_empty() {
        let example = "listener \"tcp\" { address = \"127.0.0.1:8200\" … }";
        return Err(ConfigError::Whole(format!(
            "no listener is configured: the server would be unreachable; add {example}"
        )));
    }
    Ok(config)
}

fn apply(
    config: &mut Config,
    storage: &mut Option<Storage>,
    root: &mut Stanza<'_>,
    environment: &Environment,
    warnings: &mut Vec<Warning>,
) -> Result<(), ConfigError> {
    if let Some((found, raft)) = read_storage(root, environment, warnings)? {
        *storage = Some(found);
        config.raft = raft;
    }
    let duration =
        root.duration("default_max_request_duration")?.filter(|d| !d.is_zero()).unwrap_or(Limits::default().duration);
    for block in root.blocks("listener", 1)? {
        let (listener, cluster_address) = listener::read(block, duration, warnings)?;
        config.listeners.push(listener);
        config.cluster_addresses.push(cluster_address);
    }
    let flag = |found: Option<bool>, known: &mut bool| *known = found.unwrap_or(*known);
    flag(root.flag("unsafe_allow_api_audit_creation")?, &mut config.unsafe_allow_api_audit_creation);
    flag(root.flag("allow_audit_log_prefixing")?, &mut config.allow_audit_log_prefixing);
    flag(root.flag("introspection_endpoint")?, &mut config.introspection_endpoint);
    flag(root.flag("disable_standby_reads")?, &mut config.disable_standby_reads);
    flag(root.flag("disable_break_glass")?, &mut config.disable_break_glass);
    flag(root.flag("disable_sealwrap")?, &mut config.disable_sealwrap);
    refuse_hsm(root)?;
    if let Some(stanza) = root.object("telemetry")? {
        config.telemetry = small_stanzas::telemetry(stanza, warnings)?;
    }
    if let Some(stanza) = root.object("snapshots")? {
        config.snapshots = Some(snapshots::read(stanza, warnings)?);
    }
    for block in root.blocks("user_lockout", 1)? {
        let (of, settings) = small_stanzas::user_lockout(block, warnings)?;
        config.user_lockout.insert(of, settings);
    }
    set(&mut config.api_addr, root.address("api_addr")?);
    set(&mut config.cluster_addr, root.address("cluster_addr")?);
    set(&mut config.cluster_name, root.text("cluster_name")?);
    set(&mut config.default_lease_ttl, root.duration("default_lease_ttl")?.filter(|d| !d.is_zero()));
    set(&mut config.max_lease_ttl, root.duration("max_lease_ttl")?.filter(|d| !d.is_zero()));
    set(&mut config.disable_mlock, root.flag("disable_mlock")?);
    if root.flag("ui")?.unwrap_or(false) {
        let text = "ui has no effect in Keepfast: there is no user interface";
        warnings.push(root.warning(root.position("ui"), text));
    }
    set(&mut config.log_level, root.text("log_level")?);
    set_some(&mut config.log_file, root.text("log_file")?.filter(|p| !p.is_empty()).map(PathBuf::from));
    small_stanzas::log_rotation(root, &mut config.log_rotation)?;
    set_some(&mut config.pid_file, root.text("pid_file")?.filter(|p| !p.is_empty()).map(PathBuf::from));
    if let Some(directories) = root.list("database_file_directories")? {
        config.database_file_directories = small_stanzas::file_directories(directories)?;
    }
    if let Some(text) = root.text("log_format")? {
        config.log_format =
            LogFormat::parse(&text).ok_or_else(|| ConfigError::Whole(format!("unknown log_format {text:?}")))?;
    }
    for key in ["ha_storage", "ha_backend"] {
        if let Some(item) = root.item(key)? {
            return Err(root.fault(item.position(), format!("{key} is not supported: storage \"raft\" needs none")));
        }
    }
    Ok(())
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

fn set_some<T>(target: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *target = value;
    }
}

/// Parses `storage "raft" { … }`, also under its old name `backend`.
fn read_storage(
    root: &mut Stanza<'_>,
    environment: &Environment,
    warnings: &mut Vec<Warning>,
) -> Result<Option<(Storage, RaftConfig)>, ConfigError> {
    let mut raft = RaftConfig::default();
    let mut blocks = root.blocks("storage", 1)?;
    blocks.extend(root.blocks("backend", 1)?);
    let mut blocks = blocks.into_iter();
    let Some(Labelled { labels, position, mut stanza }) = blocks.next() else { return Ok(None) };
    if let Some(second) = blocks.next() {
        return Err(root.fault(second.position, "only one storage block is permitted"));
    }
    let kind = labels.first().copied().unwrap_or_default().to_ascii_lowercase();
    let storage = match kind.as_str() {
        "raft" => {
            let path = environment.setting("RAFT_PATH").map(str::to_owned).or(stanza.text("path")?);
            let node_id =
                environment.setting("RAFT_NODE_ID").map(str::to_owned).or(stanza.text("node_id")?).unwrap_or_default();
            raft = RaftConfig::read(&mut stanza, warnings)?;
            let path = path.ok_or_else(|| stanza.fault(position, "storage \"raft\" needs a path"))?;
            Storage::Raft { path: path.into(), node_id }
        }
        "file" => {
            let path = stanza.text("path")?.ok_or_else(|| stanza.fault(position, "storage \"file\" needs a path"))?;
            Storage::File { path: path.into() }
        }
        "inmem" | "inmem_transactional" | "inmem_ha" => Storage::InMemory,
        other if known_keys::OTHER_STORAGE.contains(&other) => {
            let message = format!("storage {other:?} is not supported; there are raft, file and inmem");
            return Err(stanza.fault(position, message));
        }
        other => {
            let suggestion = Suggestion::of(other, &["raft", "file", "inmem"]);
            return Err(stanza.fault(position, format!("unknown storage type {other}{suggestion}")));
        }
    };
    stanza.without_effect(known_keys::RAFT, warnings);
    stanza.finish(warnings);
    Ok(Some((storage, raft)))
}

/// Vault's old block `hsm` is refused: the operator relies on it.
fn refuse_hsm(root: &mut Stanza<'_>) -> Result<(), ConfigError> {
    for Labelled { position, mut stanza, .. } in root.blocks("hsm", 1)? {
        if !stanza.flag("disabled")?.unwrap_or(false) {
            return Err(stanza.fault(position, "hsm is not supported; write a seal block"));
        }
    }
    Ok(())
}

fn apply_environment(config: &mut Config, environment: &Environment) -> Result<(), ConfigError> {
    let text = |name| environment.setting(name).map(str::to_owned);
    let address = |name: &str, given: Option<String>| {
        let expanded = given.map(|text| address_template::expand(&text)).transpose();
        expanded.map_err(|error| ConfigError::Whole(format!("{name} in the environment: {error}")))
    };
    let api_addr = text("API_ADDR").or_else(|| text("REDIRECT_ADDR"));
    set(&mut config.api_addr, address("API_ADDR", api_addr)?);
    set(&mut config.cluster_addr, address("CLUSTER_ADDR", text("CLUSTER_ADDR"))?);
    set(&mut config.log_level, text("LOG_LEVEL"));
    if let Some(format) = environment.setting("LOG_FORMAT") {
        config.log_format = LogFormat::parse(format)
            .ok_or_else(|| ConfigError::Whole(format!("unknown log format {format:?} in the environment")))?;
    }
    Ok(())
}

/// Checks the rules between the parts.
fn check(config: &Config) -> Result<(), ConfigError> {
    snapshots::check(config)?;
    initialize::check(config)?;
    if config.default_lease_ttl > config.max_lease_ttl {
        return Err(ConfigError::Whole("default_lease_ttl is greater than max_lease_ttl".into()));
    }
    if crate::logging::Level::parse(&config.log_level).is_none() {
        return Err(ConfigError::Whole(format!("unknown log level: {:?}", config.log_level)));
    }
    for (key, address) in [("api_addr", &config.api_addr), ("cluster_addr", &config.cluster_addr)] {
        if !address.is_empty() {
            check_url(address).map_err(|wrong| ConfigError::Whole(format!("{key} must be a URL with {wrong}")))?;
        }
    }
    Ok(())
}

/// Checks the URL of a server: `https://vault.example:8200`. The error is the requirement that it violates.
fn check_url(text: &str) -> Result<(), &'static str> {
    let scheme = "http:// or https://";
    let url: http::Uri = text.parse().map_err(|_| scheme)?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(scheme);
    }
    let authority = url.authority().map_or("", http::uri::Authority::as_str);
    if authority.contains('@') {
        return Err("a host only, without a user or a password");
    }
    let behind_host = authority.rsplit_once(']').map_or(authority, |(_, behind)| behind);
    let port = behind_host.rsplit_once(':').map(|(_, port)| port);
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err("a port from 0 to 65535");
    }
    match url.host() {
        None | Some("") => Err("a host"),
        Some(_) => Ok(()),
    }
}
