//! Starts the servers to test, OpenBao (`bao`) and Keepfast, with the same configuration on a free port, in a temporary
//! directory that is removed with the server.

use std::fmt::Write as _;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::{Client, Response};

/// The timeout for a server to listen, and to respond after unsealing.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Make {
    /// OpenBao, the reference.
    #[value(name = "bao")]
    OpenBao,
    /// Keepfast.
    Keepfast,
}

impl Make {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenBao => "bao",
            Self::Keepfast => "keepfast",
        }
    }

    /// The binary: `BAO` or `KEEPFAST` in the environment, else where `cargo xtask test` puts it.
    pub fn binary(self) -> Result<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let (variable, candidates) = match self {
            Self::OpenBao => ("BAO", vec![root.join(".cache/venv/bin/bao")]),
            Self::Keepfast => {
                ("KEEPFAST", vec![root.join("target/release/keepfast"), root.join("target/debug/keepfast")])
            }
        };
        if let Some(path) = std::env::var_os(variable) {
            return Ok(path.into());
        }
        let found = candidates
            .iter()
            .filter(|path| path.exists())
            .max_by_key(|path| path.metadata().and_then(|m| m.modified()).ok());
        found.cloned().with_context(|| {
            format!("no {} binary: set {variable}, or run `cargo xtask test --only install,build`", self.name())
        })
    }
}

/// The storage of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Storage {
    /// In memory.
    Memory,
    /// On disk, durably.
    Durable,
}

/// A server process to test, killed when dropped.
pub struct Server {
    /// Its base URL.
    pub url: String,
    /// Its root token, once it is initialized.
    pub root: String,
    /// The unseal keys in base64, once it is initialized.
    pub keys: Vec<String>,
    make: Make,
    environment: Vec<(String, String)>,
    descriptors: Option<u64>,
    process: Child,
    directory: TempDir,
}

/// What makes a server a node of a cluster.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Its `node_id`.
    pub node_id: String,
    /// The address of its cluster port.
    pub cluster_address: String,
    /// The address at which other nodes reach the port.
    pub advertised: String,
}

impl NodeSettings {
    /// A node whose cluster port has a free port.
    ///
    /// # Errors
    /// When no port is free.
    pub fn on_free_port(node_id: String) -> Result<Self> {
        let cluster_address = format!("127.0.0.1:{}", free_port()?);
        Ok(Self { node_id, advertised: cluster_address.clone(), cluster_address })
    }
}

/// The part of the configuration that depends on the use of a server.
#[derive(Clone, Copy)]
struct Settings<'a> {
    storage: Storage,
    is_open: bool,
    descriptors: Option<u64>,
    node: Option<&'a NodeSettings>,
    /// The `seal` stanzas.
    seals: &'a str,
}

impl Settings<'_> {
    fn of(storage: Storage) -> Self {
        Self { storage, is_open: false, descriptors: None, node: None, seals: "" }
    }
}

impl Server {
    /// Starts a server with one file audit device and waits until it listens; it is not initialized.
    pub fn start(make: Make, storage: Storage) -> Result<Self> {
        Self::start_with(make, Settings::of(storage), |_| Ok(Vec::new()))
    }

    /// As [`Server::start`], with a limit on the descriptors of the process, which bounds its connections.
    pub fn start_with_descriptors(make: Make, storage: Storage, descriptors: u64) -> Result<Self> {
        let settings = Settings { descriptors: Some(descriptors), ..Settings::of(storage) };
        Self::start_with(make, settings, |_| Ok(Vec::new()))
    }

    /// As [`Server::start`], with a configuration that permits operations with key shares, in-flight requests and the
    /// router tables without a token.
    pub fn start_open(make: Make, storage: Storage) -> Result<Self> {
        Self::start_with(make, Settings { is_open: true, ..Settings::of(storage) }, |_| Ok(Vec::new()))
    }

    /// As [`Server::start_open`], with a `static` seal.
    pub fn start_with_static_seal(make: Make, storage: Storage) -> Result<Self> {
        Self::start_with(make, Settings { is_open: true, seals: STATIC_SEAL, ..Settings::of(storage) }, |_| {
            Ok(Vec::new())
        })
    }

    /// As [`Server::start`], with environment variables, which may name files in its directory.
    pub fn start_in(
        make: Make,
        storage: Storage,
        environment: impl FnOnce(&Path) -> Result<Vec<(String, String)>>,
    ) -> Result<Self> {
        Self::start_with(make, Settings::of(storage), environment)
    }

    /// Starts a node with durable storage and these environment variables; it is not initialized and may join a cluster.
    pub fn start_node(make: Make, node: &NodeSettings, environment: Vec<(String, String)>) -> Result<Self> {
        Self::start_with(make, Settings { node: Some(node), ..Settings::of(Storage::Durable) }, |_| Ok(environment))
    }

    fn start_with(
        make: Make,
        settings: Settings<'_>,
        environment: impl FnOnce(&Path) -> Result<Vec<(String, String)>>,
    ) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("conformance-").tempdir()?;
        let port = free_port()?;
        let url = format!("http://127.0.0.1:{port}");
        std::fs::create_dir(directory.path().join("data"))?;
        std::fs::write(directory.path().join("config.hcl"), configuration(directory.path(), port, settings)?)?;
        let environment = environment(directory.path())?;
        let descriptors = settings.descriptors;
        let process = spawn(make, directory.path(), &environment, descriptors)?;
        let mut server =
            Self { url, root: String::new(), keys: Vec::new(), make, environment, descriptors, process, directory };
        server.wait_until_listening()?;
        Ok(server)
    }

    /// Starts a server, initializes it with one share and unseals it.
    pub fn start_unsealed(make: Make, storage: Storage) -> Result<Self> {
        let mut server = Self::start(make, storage)?;
        server.init()?;
        Ok(server)
    }

    /// Initializes it with one share and unseals it.
    pub fn init(&mut self) -> Result<()> {
        self.init_with(1, 1)
    }

    /// Initializes it with this number of shares and threshold, and unseals it.
    pub fn init_with(&mut self, shares: usize, threshold: usize) -> Result<()> {
        let mut client = self.client()?;
        let body = json!({"secret_shares": shares, "secret_threshold": threshold});
        let response = expect_ok(client.call(None, "PUT", "sys/init", Some(&body))?)?;
        let keys = response["keys_base64"].as_array().context("no keys_base64")?;
        self.keys = keys.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        self.root = response["root_token"].as_str().context("no root_token")?.to_owned();
        self.unseal()
    }

    /// Submits shares until the server is unsealed, without waiting for it to serve.
    pub fn submit_shares(&self, keys: &[String]) -> Result<()> {
        let mut client = self.client()?;
        for key in keys {
            let status = expect_ok(client.call(None, "PUT", "sys/unseal", Some(&json!({"key": key})))?)?;
            if status["sealed"] == false {
                break;
            }
        }
        Ok(())
    }

    /// Submits its shares and waits until the server responds.
    pub fn unseal(&mut self) -> Result<()> {
        self.submit_shares(&self.keys)?;
        self.wait_until_serving()
    }

    /// Initializes a server with seals, with this number of recovery keys and threshold, and waits until it has unsealed itself.
    pub fn init_with_seals(&mut self, shares: usize, threshold: usize) -> Result<()> {
        let body = json!({"recovery_shares": shares, "recovery_threshold": threshold});
        let response = expect_ok(self.client()?.call(None, "PUT", "sys/init", Some(&body))?)?;
        let keys = response["recovery_keys_base64"].as_array().context("no recovery_keys_base64")?;
        self.keys = keys.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        self.root = response["root_token"].as_str().context("no root_token")?.to_owned();
        self.wait_until_serving()
    }

    /// Waits until the server is unsealed and responds to its root token.
    pub fn wait_until_serving(&self) -> Result<()> {
        let mut client = self.client()?;
        let end = Instant::now() + START_TIMEOUT;
        // OpenBao serves some requests before its node is active.
        while client.call(None, "GET", "sys/health", None)?.status != 200
            || client.call(Some(&self.root), "GET", "auth/token/lookup-self", None)?.status != 200
        {
            if Instant::now() > end {
                bail!("{} does not respond after unsealing; its log: {}", self.make.name(), self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// A client for it.
    pub fn client(&self) -> Result<Client> {
        Client::new(&self.url)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The directory with `data/`, `audit.log` and `server.log`.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Whether the process is running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Kills the process without a shutdown (SIGKILL).
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Pauses the process (SIGSTOP): its connections stay open without responses.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Continues a paused process (SIGCONT).
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let sent = kill_process(Pid::from_child(&self.process), signal);
        sent.with_context(|| format!("no process {} for a signal", self.pid()))
    }

    /// Terminates it like an operator (SIGTERM) and waits until it has exited.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let end = Instant::now() + START_TIMEOUT;
        while self.is_running() {
            if Instant::now() > end {
                bail!("{} does not exit after SIGTERM; its log: {}", self.make.name(), self.log());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Restarts it on the same data and port, sealed.
    pub fn restart(&mut self) -> Result<()> {
        self.process = spawn(self.make, self.directory.path(), &self.environment, self.descriptors)?;
        self.wait_until_listening()
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.directory.path().join("server.log")).unwrap_or_default();
        let from = text.char_indices().rev().nth(3000).map_or(0, |(at, _)| at);
        text[from..].to_owned()
    }

    fn wait_until_listening(&mut self) -> Result<()> {
        let end = Instant::now() + START_TIMEOUT;
        let address = self.url.trim_start_matches("http://").to_owned();
        while std::net::TcpStream::connect(&address).is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!("{} exited with {status}; its log: {}", self.make.name(), self.log());
            }
            if Instant::now() > end {
                bail!("{} does not listen; its log: {}", self.make.name(), self.log());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(make: Make, directory: &Path, environment: &[(String, String)], descriptors: Option<u64>) -> Result<Child> {
    let log = File::options().create(true).append(true).open(directory.join("server.log"))?;
    let binary = make.binary()?;
    let mut command = match descriptors {
        None => Command::new(&binary),
        Some(limit) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")]).arg(&binary);
            shell
        }
    };
    command
        .arg("server")
        .arg(format!("-config={}", directory.join("config.hcl").display()))
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {}", binary.display()))
}

/// The listener settings of an open server.
const OPEN_LISTENER: &str = "  disable_unauthed_rekey_endpoints = false\n  disable_unauthed_generate_root_endpoints = false\n  \
                             inflight_requests_logging {\n    unauthenticated_in_flight_requests_access = true\n  }\n";

/// A seal that needs no service.
const STATIC_SEAL: &str = "seal \"static\" {\n  current_key_id = \"2026-1\"\n  current_key = \
                           \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"\n}\n";

/// The configuration that both servers read.
fn configuration(directory: &Path, port: u16, settings: Settings<'_>) -> Result<String> {
    let (mut listener, top) = match settings.is_open {
        true => (OPEN_LISTENER.to_owned(), "introspection_endpoint = true\n"),
        false => (String::new(), ""),
    };
    let at = directory.display();
    let storage = match (settings.storage, settings.node) {
        (Storage::Memory, _) => "storage \"inmem\" {}\n".to_owned(),
        (Storage::Durable, None) => format!("storage \"raft\" {{\n  path = \"{at}/data\"\n  node_id = \"n1\"\n}}\n"),
        (Storage::Durable, Some(node)) => {
            writeln!(listener, "  cluster_address = \"{}\"", node.cluster_address)?;
            // The interval of autopilot, which promotes nodes that have joined, only delays a test.
            let (id, interval) = (&node.node_id, "autopilot_reconcile_interval = \"1s\"");
            format!("storage \"raft\" {{\n  path = \"{at}/data\"\n  node_id = \"{id}\"\n  {interval}\n}}\n")
        }
    };
    let cluster = match settings.node {
        Some(node) => node.advertised.clone(),
        None => format!("127.0.0.1:{}", free_port()?),
    };
    Ok(format!(
        "{storage}listener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  tls_disable = true\n{listener}}}\n\
         audit \"file\" \"conformance\" {{\n  options {{\n    file_path = \"{at}/audit.log\"\n  }}\n}}\n\
         disable_mlock = true\napi_addr = \"http://127.0.0.1:{port}\"\ncluster_addr = \"https://{cluster}\"\n\
         ui = false\nlog_level = \"warn\"\n{top}{}",
        settings.seals
    ))
}

fn expect_ok(response: Response) -> Result<Value> {
    if response.status != 200 {
        bail!("{} {}", response.status, String::from_utf8_lossy(&response.body));
    }
    response.json().context("no JSON")
}

/// A free port of loopback. It is below the range of ports for outgoing connections, and no two calls of a process
/// return the same one.
///
/// # Errors
/// When no port is free.
pub fn free_port() -> Result<u16> {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(97);
    let next = || FIRST + start.wrapping_add(CALLS.fetch_add(1, Ordering::Relaxed)) % COUNT;
    let mut ports = (0..COUNT).filter_map(|_| u16::try_from(next()).ok());
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).context("no port is free")
}
