//! Runs a server process: configuration, sockets, storage, node, requests, signals, shutdown.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_core::audit::{self, AllowedTargets, DeviceError};
use keepfast_core::cluster::port::ClusterPort;
use keepfast_core::settings::{DataDirectory, HostGauges};
use keepfast_core::{Node, Settings, init_dev};
use keepfast_crypto::secret::SecretString;
use keepfast_edge::{BodyMemory, Connections, Edge, Limits, Listener, Socket, Tls, TlsError};
use keepfast_framework::clock::{Clock, SystemClock};
use keepfast_storage::{LocalBackend, StorageError};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::args::ServerArgs;
use crate::banner::{self, Development};
use crate::cluster::{Port, RequestLimits};
use crate::config::{self, ConfigError, Environment, Storage};
use crate::effective_config::{DevConfig, EffectiveConfig};
use crate::host_gauges::Gauges;
use crate::kernel::Served;
use crate::log_file::LogFile;
use crate::logging::{Log, Sink};
use crate::own_files::own_files;
use crate::preflight;
use crate::process::{self, PidFile};
use crate::reload::Running;
use crate::service_manager;
use crate::signals::{Event, Signals};
use crate::storage::{directory_identity, open_storage};

/// The memory for large request bodies of all listeners, in bytes; more when one body may be larger than half of it.
const BODY_MEMORY: usize = 256 << 20;
/// The most time for requests in flight at shutdown.
const DRAIN: Duration = Duration::from_secs(10);
/// The most time for the requests of other members after that.
const DRAIN_MEMBERS: Duration = Duration::from_secs(2);
/// The most time for sealing after that.
const SEALING: Duration = Duration::from_secs(10);

/// The reason why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An invalid configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A listener's socket.
    #[error("error initializing listener on {address}: {reason}")]
    Listener {
        /// The configured address.
        address: String,
        /// The reason of the system.
        reason: io::Error,
    },
    /// A listener's certificate.
    #[error("error initializing listener on {address}: {reason}")]
    Tls {
        /// The configured address.
        address: String,
        /// The reason.
        reason: TlsError,
    },
    /// The storage.
    #[error("error initializing storage of type {kind}: {reason}")]
    Storage {
        /// The configured type.
        kind: &'static str,
        /// The error of the store.
        reason: StorageError,
    },
    /// Errors of [`validate`]: one per line.
    #[error("{}", .0.join("\n"))]
    Preflight(Vec<String>),
    /// An audit device.
    #[error(transparent)]
    Audit(#[from] DeviceError),
    /// The certificate of `-dev-tls`.
    #[error("error making the development certificate: {0}")]
    DevelopmentCertificate(io::Error),
    /// Initialising the development server.
    #[error("error initializing dev mode: {0}")]
    Development(keepfast_framework::Error),
    /// The runtime, the log or the pid file.
    #[error("{what}: {reason}")]
    System {
        /// The operation.
        what: &'static str,
        /// The reason of the system.
        reason: io::Error,
    },
}

impl StartError {
    fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |reason| StartError::System { what, reason }
    }
}

/// Loads a production configuration and checks the resources of a start on this machine: certificates, addresses,
/// directories and files. Returns its warnings, one text each.
///
/// # Errors
/// [`StartError`] when a server would not start.
pub fn validate(paths: &[PathBuf], environment: &Environment) -> Result<Vec<String>, StartError> {
    let (config, warnings) = config::load(paths, environment)?;
    preflight(&config, paths, &warnings)
}

fn preflight(
    config: &config::Config,
    paths: &[PathBuf],
    warnings: &[config::Warning],
) -> Result<Vec<String>, StartError> {
    let found = preflight::check(config, own_files(config, paths), SystemClock.now());
    if !found.errors.is_empty() {
        return Err(StartError::Preflight(found.errors));
    }
    Ok(warnings.iter().map(ToString::to_string).chain(found.warnings).collect())
}

/// Changes the data directory of a stopped server back to the format that earlier versions read. Returns its path; `None`
/// for a storage without a directory.
///
/// # Errors
/// [`StartError`] for an invalid configuration, and when the storage is in use, has the earlier format, or belongs to a
/// member of a cluster.
pub fn downgrade_storage(paths: &[PathBuf], environment: &Environment) -> Result<Option<PathBuf>, StartError> {
    let (config, _) = config::load(paths, environment)?;
    let kind = config.storage.kind();
    let (Storage::Raft { path, .. } | Storage::File { path }) = config.storage else { return Ok(None) };
    LocalBackend::downgrade(&path).map_err(|reason| StartError::Storage { kind, reason })?;
    Ok(Some(path))
}

/// Runs `keepfast server` until a signal stops it. Blocks; creates its own runtime.
///
/// # Errors
/// [`StartError`] when the server cannot start.
pub fn run(mut args: ServerArgs) -> Result<ExitCode, StartError> {
    let environment = Environment::of_process();
    let verify_only = args.verify_only;
    let effective = EffectiveConfig::read(&mut args, &environment)?;
    // With the path of `VAULT_CONFIG_PATH`, so that a reload reads it, too.
    let paths = std::mem::take(&mut args.config);
    if verify_only {
        for warning in preflight(&effective.config, &paths, &effective.warnings)? {
            let _ = writeln!(io::stderr(), "{warning}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    process::harden();
    let open_log = |path: &Path| LogFile::open(path, effective.config.log_rotation, Arc::new(SystemClock));
    let file =
        effective.config.log_file.as_deref().map(open_log).transpose().map_err(StartError::system("log_file"))?;
    let log = Log::start(effective.level, effective.config.log_format, file).map_err(StartError::system("log"))?;
    std::panic::set_hook(Box::new(|panic| {
        // The log contains the position of the panic, not its text, which could contain a secret.
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic");
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("keepfast")
        .enable_all()
        .build()
        .map_err(StartError::system("runtime"))?;
    let outcome = runtime.block_on(serve(effective, &log, &paths, &environment));
    runtime.shutdown_timeout(Duration::from_secs(1));
    log.flush();
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Serves, from bound sockets to the last response.
async fn serve(
    mut effective: EffectiveConfig,
    log: &Log,
    paths: &[PathBuf],
    environment: &Environment,
) -> Result<(), StartError> {
    let out = Sink::start(io::stdout()).map_err(StartError::system("standard output"))?;
    let mut signals = Signals::new().map_err(StartError::system("signals"))?;
    let started = SystemClock.now();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), storage = effective.config.storage.kind(), "starting");
    for warning in &effective.warnings {
        tracing::warn!("{warning}");
    }
    let locked = !effective.config.disable_mlock && lock_memory();
    audit::target::prepare_all(&effective.config.audit, &AllowedTargets::declared(&effective.own_files))?;
    let connections = Connections::new(process::connection_room());
    // Clients may connect from here on; their requests wait until the storage is open.
    let bound = listen(&effective)?;
    effective.bound(&bound.iter().map(|listener| listener.socket.address()).collect::<Vec<Option<SocketAddr>>>());
    let _pid =
        effective.config.pid_file.as_deref().map(PidFile::write).transpose().map_err(StartError::system("pid_file"))?;
    let certificates =
        bound.iter().zip(&effective.config.listeners).filter_map(|(b, l)| Some((l.address(), b.tls.clone()?)));
    let gauges = Gauges::new(&effective.config.storage, certificates.collect());
    let cluster_port = cluster_port(&effective);
    let node = open_node(&effective, log, gauges, cluster_port.clone()).await?;
    let counted = node.clone();
    tokio::spawn(async move { counted.monitoring().keep_metrics().await });
    let is_quiet = effective.dev.as_ref().is_some_and(|dev| dev.json);
    let print = |text: String| {
        if !is_quiet {
            out.write(text.into_bytes());
        }
    };
    print(banner::summary(&effective.config, env!("CARGO_PKG_VERSION"), &effective.config.log_level, locked));
    let development = match &effective.dev {
        Some(dev) => Some(start_development(&node, dev, &effective.config.api_addr).await?),
        None => None,
    };
    log_seal(&node, config::initializes_itself(&effective.config)).await;
    let (stop, stopped) = watch::channel(false);
    let certificates = accept(bound, &effective, &node, &connections, &stopped);
    if let Some(text) = development {
        out.write(text.into_bytes());
    }
    node.start();
    print(banner::STARTED.into());
    service_manager::ready();
    let has_level_flag = effective.has_level_flag;
    let seals = Mutex::new(effective.config.seals.clone());
    let running = Running { node, certificates, connections, log, paths, environment, has_level_flag, started, seals };
    handle_signals(&mut signals, &running).await;
    service_manager::stopping();
    print(banner::STOPPING.into());
    // The receivers live as long as their connections; an error only means that there are none.
    let _ = stop.send(true);
    end(&mut signals, &running, cluster_port.as_deref()).await;
    out.flush(Duration::from_millis(200));
    Ok(())
}

/// Handles signals until SIGTERM or SIGINT.
async fn handle_signals(signals: &mut Signals, running: &Running<'_>) {
    loop {
        match signals.next().await {
            Event::Reload => {
                service_manager::reloading();
                running.reload_all();
                service_manager::ready();
            }
            Event::LogState => running.log_state(),
            Event::Stop => return,
        }
    }
}

/// Waits for requests in flight, at most [`DRAIN`] or until a second SIGTERM or SIGINT, for those of other members, and
/// seals.
async fn end(signals: &mut Signals, running: &Running<'_>, cluster_port: Option<&Port>) {
    tokio::select! {
        drained = running.connections.drained(DRAIN) => if !drained {
            tracing::warn!("requests in flight were cut off after {} seconds", DRAIN.as_secs());
        },
        () = signals.stop() => tracing::warn!("requests in flight were cut off by a second signal"),
    }
    if let Some(port) = cluster_port {
        tokio::select! {
            drained = port.drain(DRAIN_MEMBERS) => if !drained {
                tracing::warn!("requests of other members were cut off after {} seconds", DRAIN_MEMBERS.as_secs());
            },
            () = signals.stop() => tracing::warn!("requests of other members were cut off by a second signal"),
        }
    }
    tokio::select! {
        sealed = tokio::time::timeout(SEALING, running.node.shutdown()) => if sealed.is_err() {
            tracing::error!("sealing took longer than {} seconds", SEALING.as_secs());
        },
        () = signals.stop() => tracing::warn!("sealing was cut off by a second signal"),
    }
}

/// Starts the accept loops and returns the certificates that a reload reads again.
fn accept(
    bound: Vec<BoundListener>,
    effective: &EffectiveConfig,
    node: &Arc<Node>,
    connections: &Arc<Connections>,
    stopped: &watch::Receiver<bool>,
) -> Vec<Arc<Tls>> {
    let memory = BodyMemory::new(body_memory(effective));
    let mut certificates = Vec::new();
    for (bound, listener) in bound.into_iter().zip(&effective.config.listeners) {
        certificates.extend(bound.tls.clone());
        let edge = Edge::new(Arc::new(Served(node.clone())), memory.clone(), listener);
        let accepting = Listener { edge, tls: bound.tls, connections: connections.clone(), stop: stopped.clone() };
        tokio::spawn(accepting.run(bound.socket));
    }
    certificates
}

/// Logs the next step of the operator for a sealed or uninitialized server.
async fn log_seal(node: &Node, initializes_itself: bool) {
    match node.is_initialized().await {
        Ok(_) if !node.state().is_sealed => {}
        Ok(true) if node.state().has_seals => tracing::info!("the server is sealed, and its seals unseal it"),
        Ok(true) => tracing::info!("the server is sealed: unseal it with \"operator unseal\""),
        Ok(false) if initializes_itself => tracing::info!("the server is not initialized: it initializes itself"),
        Ok(false) => tracing::info!("the server is not initialized: initialize it with \"operator init\""),
        Err(error) => tracing::error!(%error, "the seal configuration cannot be read"),
    }
}

fn body_memory(effective: &EffectiveConfig) -> usize {
    let largest = effective.config.listeners.iter().map(|l| l.limits.body).max().unwrap_or(0);
    largest.saturating_mul(2).max(BODY_MEMORY)
}

/// A listener whose socket is bound and that does not accept yet.
struct BoundListener {
    socket: Socket,
    tls: Option<Arc<Tls>>,
}

fn listen(effective: &EffectiveConfig) -> Result<Vec<BoundListener>, StartError> {
    let open = |listener: &config::ListenerConfig| {
        let tls = listener.tls.as_ref().map(Tls::load).transpose();
        let tls = tls.map_err(|reason| StartError::Tls { address: listener.address(), reason })?;
        let socket = Socket::bind(&listener.bind);
        let socket = socket.map_err(|reason| StartError::Listener { address: listener.address(), reason })?;
        let address = socket.address().map_or_else(|| listener.address(), |bound| bound.to_string());
        tracing::info!(kind = listener.kind(), address, tls = tls.is_some(), "listening");
        if let Some(tls) = &tls {
            tls.warn_of_dates(SystemClock.now());
        }
        Ok(BoundListener { socket, tls: tls.map(Arc::new) })
    };
    effective.config.listeners.iter().map(open).collect()
}

/// Locks the memory of the process. Returns whether it succeeded; an error is logged.
fn lock_memory() -> bool {
    match process::lock_memory() {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "memory is not locked: secrets may reach the swap space; allow it or set disable_mlock");
            false
        }
    }
}

async fn open_node(
    effective: &EffectiveConfig,
    log: &Log,
    gauges: Gauges,
    cluster_port: Option<Arc<Port>>,
) -> Result<Arc<Node>, StartError> {
    let (storage, election) = (effective.config.storage.clone(), effective.config.raft.election);
    let kind = storage.kind();
    // Opening replays a log: that needs a thread that may block.
    let opened = tokio::task::spawn_blocking(move || open_storage(storage, election)).await;
    let (backend, incarnation) = match opened {
        Ok(opened) => opened.map_err(|reason| StartError::Storage { kind, reason })?,
        Err(_) => return Err(StartError::System { what: "storage", reason: io::Error::other("opening it failed") }),
    };
    let place = directory_identity(&effective.config.storage);
    let data_directory = incarnation.zip(place).map(|(node, place)| DataDirectory { node, place });
    let host_gauges: Option<Arc<dyn HostGauges>> = Some(Arc::new(gauges));
    let cluster_port = cluster_port.map(|port| port as Arc<dyn ClusterPort>);
    let settings =
        Settings { data_directory, log: Some(log.levels()), host_gauges, cluster_port, ..effective.settings() };
    let (seals, self_init) = (effective.config.seal_set()?, effective.config.self_init.clone());
    Ok(Node::new(backend, keepfast_engines::all(), Arc::new(SystemClock), (settings, seals, self_init)))
}

/// The cluster port of a storage with a cluster. Core opens it at unseal and closes it at seal.
fn cluster_port(effective: &EffectiveConfig) -> Option<Arc<Port>> {
    let config = &effective.config;
    if !matches!(config.storage, Storage::Raft { .. }) {
        return None;
    }
    let bind = config.cluster_bind_addresses();
    if bind.is_empty() {
        tracing::warn!("other nodes cannot reach this server: it has no tcp listener with a cluster_address");
    } else if config.cluster_addr.is_empty() {
        tracing::warn!("other nodes cannot reach this server: set api_addr or cluster_addr");
    } else if config::is_unspecified(&config.cluster_addr) {
        tracing::warn!(
            cluster_addr = config.cluster_addr,
            "other nodes cannot reach this address: set api_addr or cluster_addr"
        );
    }
    let limits = || config.listeners.iter().map(|listener| listener.limits);
    let body = limits().map(|limits| limits.body).max().unwrap_or(0);
    let duration = limits().map(|limits| limits.duration).max().unwrap_or(Limits::default().duration);
    Some(Port::new(bind, RequestLimits { body, duration }, Arc::new(SystemClock)))
}

/// Initialises and unseals the node, stores the token for the command line, and returns the banner with the secrets.
async fn start_development(node: &Arc<Node>, dev: &DevConfig, address: &str) -> Result<String, StartError> {
    let made = init_dev(node, dev.root_token.clone(), dev.kv.mount()).await.map_err(StartError::Development)?;
    let share = SecretString::new(made.shares.first().map(|s| STANDARD.encode(s.expose())).unwrap_or_default());
    let development = Development { address, ca: dev.ca.as_deref(), unseal_key: &share, root_token: &made.root_token };
    if let Some(path) = &dev.token_file {
        if std::fs::read(path).is_ok_and(|old| !old.is_empty() && old != made.root_token.expose().as_bytes()) {
            tracing::warn!(path = %path.display(), "the token of another server is replaced; -dev-no-store-token keeps it");
        }
        if let Err(error) = store_token(path, &made.root_token) {
            tracing::warn!(%error, "the root token could not be stored for the command line");
        }
    }
    Ok(if dev.json { banner::development_json(&development) } else { banner::development(&development) })
}

fn store_token(path: &Path, token: &SecretString) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // An older file may be readable by others.
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(token.expose().as_bytes())
}
