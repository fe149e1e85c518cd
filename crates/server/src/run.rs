//! The life of a server process: configuration, sockets, storage, node, service, signals, end.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_core::{Incoming, Node, Settings};
use keepfast_crypto::secret::SecretString;
use keepfast_framework::clock::SystemClock;
use keepfast_storage::{Backend, LocalBackend, LocalOptions, MemoryBackend, StorageError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::args::ServerArgs;
use crate::banner::{self, Development};
use crate::config::{self, ConfigError, Environment, Storage};
use crate::http::answer::Answer;
use crate::http::body::BodyMemory;
use crate::http::{Edge, Kernel};
use crate::listener::{Connections, Listener, Socket};
use crate::plan::{DevPlan, Plan};
use crate::process::{self, PidFile};
use crate::telemetry::{Level, Log, Sink};
use crate::tls::{Tls, TlsError};

/// Memory for large request bodies of all listeners together; more where one body may be larger than half of it.
const BODY_MEMORY: usize = 256 << 20;
/// How long requests in flight may still take when the server is told to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A listener's socket.
    #[error("error initializing listener on {address}: {reason}")]
    Listener {
        /// As configured.
        address: String,
        /// What the system says.
        reason: io::Error,
    },
    /// A listener's certificate.
    #[error("error initializing listener on {address}: {reason}")]
    Tls {
        /// As configured.
        address: String,
        /// What is wrong.
        reason: TlsError,
    },
    /// The data.
    #[error("error initializing storage of type {kind}: {reason}")]
    Storage {
        /// The configured type.
        kind: &'static str,
        /// What the store says.
        reason: StorageError,
    },
    /// The certificate of `-dev-tls`.
    #[error("error making the development certificate: {0}")]
    DevelopmentCertificate(io::Error),
    /// Initialising the development server.
    #[error("error initializing dev mode: {0}")]
    Development(keepfast_framework::Error),
    /// The runtime, the log or the pid file.
    #[error("{what}: {reason}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        reason: io::Error,
    },
}

impl StartError {
    fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |reason| StartError::System { what, reason }
    }
}

/// Runs `keepfast server` until it is told to end. Blocks; makes its own runtime.
///
/// # Errors
/// [`StartError`] when it could not start.
pub fn run(mut args: ServerArgs) -> Result<ExitCode, StartError> {
    let environment = Environment::of_process();
    let paths = args.config.clone();
    let verify_only = args.verify_only;
    let plan = Plan::make(&mut args, &environment)?;
    if verify_only {
        for warning in &plan.warnings {
            let _ = writeln!(io::stderr(), "{warning}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    process::harden();
    let file = plan.config.log_file.as_deref().map(open_log).transpose().map_err(StartError::system("log_file"))?;
    let log = Log::start(plan.level, plan.config.log_format, file).map_err(StartError::system("log"))?;
    std::panic::set_hook(Box::new(|panic| {
        // Where, but not with what text: it could hold a secret.
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic");
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("keepfast")
        .enable_all()
        .build()
        .map_err(StartError::system("runtime"))?;
    let outcome = runtime.block_on(serve(plan, &log, &paths, &environment));
    runtime.shutdown_timeout(Duration::from_secs(1));
    log.flush();
    outcome.map(|()| ExitCode::SUCCESS)
}

fn open_log(path: &Path) -> io::Result<std::fs::File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// From bound sockets to the last answered request.
async fn serve(
    plan: Plan,
    log: &Log,
    paths: &[std::path::PathBuf],
    environment: &Environment,
) -> Result<(), StartError> {
    let out = Sink::start(io::stdout()).map_err(StartError::system("standard output"))?;
    let mut signals = Signals::new().map_err(StartError::system("signals"))?;
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    let locked = !plan.config.disable_mlock && lock_memory();
    let connections = Connections::new(process::connection_room());
    // Clients may connect from here on; they are answered as soon as the storage is open.
    let ears = listen(&plan)?;
    let _pid =
        plan.config.pid_file.as_deref().map(PidFile::write).transpose().map_err(StartError::system("pid_file"))?;
    let node = open_node(&plan, log).await?;
    out.write(banner::summary(&plan.config, env!("CARGO_PKG_VERSION"), &plan.config.log_level, locked).into_bytes());
    if let Some(dev) = &plan.dev {
        develop(&node, dev, &plan.config.api_addr, &out).await?;
    }
    let (stop, stopped) = watch::channel(false);
    let memory = BodyMemory::new(body_memory(&plan));
    let mut certificates = Vec::new();
    for (ear, listener) in ears.into_iter().zip(&plan.config.listeners) {
        certificates.extend(ear.tls.clone());
        let edge = Edge::new(Arc::new(Served(node.clone())), node.admission().clone(), memory.clone(), listener);
        let accepting = Listener { edge, tls: ear.tls, connections: connections.clone(), stop: stopped.clone() };
        tokio::spawn(accepting.run(ear.socket));
    }
    out.write(banner::STARTED.into());
    while let Event::Reload = signals.next().await {
        reload(&node, &certificates, log, paths, environment);
    }
    out.write(banner::STOPPING.into());
    // The receivers live as long as their connections; an error only says that there are none.
    let _ = stop.send(true);
    if !connections.drained(DRAIN).await {
        tracing::warn!("requests in flight were cut off after {} seconds", DRAIN.as_secs());
    }
    node.shutdown().await;
    out.flush(Duration::from_millis(200));
    Ok(())
}

fn body_memory(plan: &Plan) -> usize {
    let largest = plan.config.listeners.iter().map(|l| l.limits.body).max().unwrap_or(0);
    largest.saturating_mul(2).max(BODY_MEMORY)
}

/// A bound listener that does not accept yet.
struct Ear {
    socket: Socket,
    tls: Option<Arc<Tls>>,
}

fn listen(plan: &Plan) -> Result<Vec<Ear>, StartError> {
    let open = |listener: &config::ListenerConfig| {
        let tls = listener.tls.as_ref().map(Tls::load).transpose();
        let tls = tls.map_err(|reason| StartError::Tls { address: listener.address(), reason })?;
        let socket = Socket::bind(&listener.bind);
        let socket = socket.map_err(|reason| StartError::Listener { address: listener.address(), reason })?;
        let address = socket.address().map_or_else(|| listener.address(), |bound| bound.to_string());
        tracing::info!(kind = listener.kind(), address, "listening");
        Ok(Ear { socket, tls: tls.map(Arc::new) })
    };
    plan.config.listeners.iter().map(open).collect()
}

/// Whether it worked; the log tells why not.
fn lock_memory() -> bool {
    match process::lock_memory() {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "memory is not locked: secrets may reach the swap space; allow it or set disable_mlock");
            false
        }
    }
}

async fn open_node(plan: &Plan, log: &Log) -> Result<Arc<Node>, StartError> {
    let storage = plan.config.storage.clone();
    let kind = storage.kind();
    // Opening replays a log: that is work for a thread that may block.
    let opened = tokio::task::spawn_blocking(move || open_storage(&storage)).await;
    let backend = match opened {
        Ok(opened) => opened.map_err(|reason| StartError::Storage { kind, reason })?,
        Err(_) => return Err(StartError::System { what: "storage", reason: io::Error::other("opening it failed") }),
    };
    let home = home_of(&plan.config.storage);
    let settings = Settings { home, log: Some(log.levels()), ..plan.settings() };
    Ok(Node::new(backend, keepfast_engines::all(), Arc::new(SystemClock), settings))
}

/// What tells the data directory from a copy of it: which file its lock is and when that file was made. Restoring or
/// copying the directory makes another file; mounting its volume elsewhere does not.
fn home_of(storage: &Storage) -> String {
    let (Storage::Raft { path, .. } | Storage::File { path }) = storage else { return String::new() };
    let Ok(lock) = std::fs::metadata(path.join("LOCK")) else { return String::new() };
    let made = lock.created().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
    format!("{}-{}", lock.ino(), made.as_nanos())
}

fn open_storage(storage: &Storage) -> Result<Arc<dyn Backend>, StorageError> {
    Ok(match storage {
        Storage::Raft { path, node_id } => {
            let node_id = Some(node_id.clone()).filter(|n| !n.is_empty());
            Arc::new(LocalBackend::open(path, LocalOptions { node_id, ..LocalOptions::default() })?)
        }
        Storage::File { path } => Arc::new(LocalBackend::open(path, LocalOptions::default())?),
        Storage::InMemory => Arc::new(MemoryBackend::new()),
    })
}

/// Initialises, unseals, tells the secrets and stores the token for the command line.
async fn develop(node: &Arc<Node>, dev: &DevPlan, address: &str, out: &Sink) -> Result<(), StartError> {
    let made = node.init_dev(dev.root_token.clone(), dev.kv).await.map_err(StartError::Development)?;
    let share = made.shares.first().map(|s| STANDARD.encode(s.expose())).unwrap_or_default();
    let text = banner::development(&Development {
        address,
        ca: dev.ca.as_deref(),
        unseal_key: &SecretString::new(share),
        root_token: &made.root_token,
    });
    out.write(text.into_bytes());
    if let Some(path) = &dev.token_file {
        if std::fs::read(path).is_ok_and(|old| !old.is_empty() && old != made.root_token.expose().as_bytes()) {
            tracing::warn!(path = %path.display(), "the token of another server is replaced; -dev-no-store-token keeps it");
        }
        if let Err(error) = store_token(path, &made.root_token) {
            tracing::warn!(%error, "the root token could not be stored for the command line");
        }
    }
    Ok(())
}

fn store_token(path: &Path, token: &SecretString) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // An older file may have been readable by others.
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(token.expose().as_bytes())
}

/// SIGHUP: certificates, audit targets, log level. What is faulty stays as it was.
fn reload(node: &Node, certificates: &[Arc<Tls>], log: &Log, paths: &[std::path::PathBuf], environment: &Environment) {
    tracing::info!("reload triggered");
    for tls in certificates {
        if let Err(error) = tls.reload() {
            tracing::error!(%error, "the certificate in use is kept");
        }
    }
    node.reopen_audit();
    if paths.is_empty() {
        return;
    }
    match config::load_over(paths, environment, Some(Storage::InMemory)) {
        Ok((config, _)) => {
            if let Some(level) = Level::parse(&config.log_level) {
                log.set_level(level);
            }
        }
        Err(error) => tracing::error!(%error, "the configuration in use is kept"),
    }
}

enum Event {
    Reload,
    Stop,
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.terminate.recv() => Event::Stop,
            _ = self.interrupt.recv() => Event::Stop,
            _ = self.hangup.recv() => Event::Reload,
        }
    }
}

/// The node behind the edge.
pub(crate) struct Served(pub(crate) Arc<Node>);

impl Kernel for Served {
    async fn handle(&self, incoming: Incoming) -> Answer {
        self.0.handle(incoming).await.into()
    }

    async fn record_refusal(&self, refused: Incoming) {
        self.0.record_refusal(refused).await;
    }

    fn metrics(&self, format: &str) -> Answer {
        self.0.open_metrics(format).into()
    }
}
