//! HAProxy in front of a cluster: it sends each request to the next node, so that a client never talks to the same node
//! twice in a row. On demand the leader is killed again and again.

use std::fmt::Write as _;
use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tempfile::TempDir;

use crate::http::Client;
use crate::nodes::Nodes;
use crate::servers::{Make, free_port};

/// The timeout for the load balancer to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// The nodes of a balanced cluster.
const NODES: usize = 3;

/// A balanced cluster.
pub struct Balanced {
    balancer: Balancer,
    root: String,
    // Stopped before the nodes.
    killer: Option<LeaderKiller>,
    nodes: Arc<Mutex<Nodes>>,
}

impl Balanced {
    /// Starts a cluster of three nodes and a load balancer on a free port.
    pub fn start(make: Make) -> Result<Self> {
        Self::start_with(make, &Settings::default())
    }

    /// As [`Balanced::start`], with settings.
    pub fn start_with(make: Make, settings: &Settings) -> Result<Self> {
        let nodes = Nodes::start_with_shares(make, NODES, settings.shares, settings.threshold)?;
        let balancer = Balancer::start(&nodes.urls(), settings)?;
        let (root, nodes) = (nodes.root().to_owned(), Arc::new(Mutex::new(nodes)));
        let interval = settings.kill_leader_every.map(Duration::from_secs);
        let killer = interval.map(|interval| LeaderKiller::start(nodes.clone(), interval));
        Ok(Self { balancer, root, killer, nodes })
    }

    /// A client of the load balancer.
    pub fn client(&self) -> Result<Client> {
        Client::new(&self.balancer.url)
    }

    /// The root token.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The number of kills of the leader.
    pub fn kills(&self) -> u64 {
        self.killer.as_ref().map_or(0, |killer| killer.kills.load(Ordering::SeqCst))
    }

    /// Stops the kills of the leader. Returns their number.
    ///
    /// # Errors
    /// When no node led, or the nodes did not all serve, after one of them.
    pub fn stop_kills(&mut self) -> Result<u64> {
        self.killer.take().map_or(Ok(0), LeaderKiller::stop)
    }
}

/// The settings of a balanced cluster.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// The address of the load balancer; default: a free port
    #[arg(long)]
    pub listen: Option<String>,
    /// The certificate and key of the load balancer in one PEM file; default: plain HTTP
    #[arg(long)]
    pub certificate: Option<PathBuf>,
    /// The number of shares
    #[arg(long, default_value_t = 1)]
    pub shares: usize,
    /// The threshold of shares
    #[arg(long, default_value_t = 1)]
    pub threshold: usize,
    /// Kill the leader each time this number of seconds has passed, restart and unseal it
    #[arg(long)]
    pub kill_leader_every: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { listen: None, certificate: None, shares: 1, threshold: 1, kill_leader_every: None }
    }
}

/// Kills the leader of a cluster again and again.
struct LeaderKiller {
    kills: Arc<AtomicU64>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl LeaderKiller {
    fn start(nodes: Arc<Mutex<Nodes>>, interval: Duration) -> Self {
        let (stop, stopped) = mpsc::channel();
        let kills = Arc::<AtomicU64>::default();
        let count = kills.clone();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let mut nodes = nodes.lock().unwrap_or_else(PoisonError::into_inner);
                let leader = nodes.leader()?;
                nodes.kill(leader)?;
                nodes.restart(leader)?;
                nodes.wait_until_all_serve()?;
                count.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        });
        Self { kills, stop: Some(stop), thread: Some(thread) }
    }

    fn stop(mut self) -> Result<u64> {
        self.stop = None;
        let ended = self.thread.take().map(JoinHandle::join);
        ended.and_then(std::result::Result::ok).context("the thread that kills the leader has failed")??;
        Ok(self.kills.load(Ordering::SeqCst))
    }
}

impl Drop for LeaderKiller {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A HAProxy process.
struct Balancer {
    url: String,
    process: Child,
    directory: TempDir,
}

impl Balancer {
    fn start(nodes: &[String], settings: &Settings) -> Result<Self> {
        let address = match &settings.listen {
            Some(address) => address.clone(),
            None => format!("127.0.0.1:{}", free_port()?),
        };
        let directory = tempfile::Builder::new().prefix("conformance-haproxy-").tempdir()?;
        let file = directory.path().join("haproxy.cfg");
        std::fs::write(&file, configuration(&address, settings.certificate.as_deref(), nodes)?)?;
        let log = File::create(directory.path().join("log"))?;
        let process = Command::new(program()?)
            .arg("-db")
            .arg("-f")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting haproxy")?;
        let scheme = if settings.certificate.is_some() { "https" } else { "http" };
        let mut balancer = Self { url: format!("{scheme}://{address}"), process, directory };
        balancer.wait_until_listening(&address)?;
        Ok(balancer)
    }

    fn wait_until_listening(&mut self, address: &str) -> Result<()> {
        let end = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(address).is_err() {
            if self.process.try_wait()?.is_some() || Instant::now() > end {
                let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                bail!("haproxy does not listen: {log}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Debian installs it where only root has it in the `PATH`.
fn program() -> Result<&'static str> {
    let places = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy", "/usr/bin/haproxy"];
    places.into_iter().find(|place| Path::new(place).exists()).context("haproxy is not installed")
}

/// Every request goes to the next node that is unsealed and has joined. A failed request is not sent again.
fn configuration(address: &str, certificate: Option<&Path>, nodes: &[String]) -> Result<String> {
    let tls = certificate.map(|file| format!(" ssl crt {}", file.display())).unwrap_or_default();
    let mut text = format!(
        "defaults\n  mode http\n  timeout connect 2s\n  timeout client 90s\n  timeout server 90s\n  retries 0\n\
         frontend clients\n  bind {address}{tls}\n  option accept-invalid-http-request\n  default_backend nodes\n\
         backend nodes\n  balance roundrobin\n  option accept-invalid-http-response\n  \
         option httpchk GET /v1/sys/health?standbyok=true\n  http-check expect status 200\n"
    );
    for (number, url) in nodes.iter().enumerate() {
        let address = url.trim_start_matches("http://");
        writeln!(text, "  server n{} {address} check inter 200ms fall 1 rise 1", number + 1)?;
    }
    Ok(text)
}

/// Runs a balanced cluster until its standard input ends, after a line of JSON with its addresses, keys and root token.
/// With `token`, this is a root token, and a KV engine of version 2 is mounted at `secret/`, as in a development server.
pub fn serve(make: Make, settings: &Settings, token: Option<&str>) -> Result<bool> {
    let mut balanced = Balanced::start_with(make, settings)?;
    let line = {
        let nodes = balanced.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = token {
            let create = json!({"id": token, "policies": ["root"], "no_parent": true});
            nodes.call(0, "POST", "auth/token/create", Some(&create))?;
            let mount = json!({"type": "kv", "options": {"version": "2"}});
            nodes.call(0, "POST", "sys/mounts/secret", Some(&mount))?;
        }
        json!({
            "address": balanced.balancer.url,
            "nodes": nodes.urls(),
            "keys": nodes.keys(),
            "root_token": nodes.root(),
        })
    };
    println!("{line}");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    let kills = balanced.stop_kills()?;
    eprintln!("{kills} kills of the leader");
    Ok(true)
}
