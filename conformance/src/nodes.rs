//! The processes of a cluster of three or five nodes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::http::Client;
use crate::node_faults::NodeFaults;
use crate::servers::{Make, NodeSettings, Server};

/// The timeout for a node to join, to become a voter, and to serve.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The timeout of one response while the nodes may be disturbed.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A cluster.
pub struct Nodes {
    servers: Vec<Server>,
    root: String,
    keys: Vec<String>,
    faults: Option<NodeFaults>,
    /// The number of requests that were sent to the nodes in turn.
    turn: AtomicUsize,
}

impl Nodes {
    /// Starts a cluster of this number of voters.
    pub fn start(make: Make, count: usize) -> Result<Self> {
        Self::start_with(make, count, 1, 1, None)
    }

    /// As [`Nodes::start`], initialized with this number of shares and threshold.
    pub fn start_with_shares(make: Make, count: usize, shares: usize, threshold: usize) -> Result<Self> {
        Self::start_with(make, count, shares, threshold, None)
    }

    /// As [`Nodes::start`], with links, clocks and disks that can be disturbed.
    pub fn start_with_faults(make: Make, count: usize, seed: u64) -> Result<Self> {
        if make != Make::Keepfast {
            bail!("the faults affect only programs that use the C library");
        }
        Self::start_with(make, count, 1, 1, Some(NodeFaults::prepare(count, seed)?))
    }

    fn start_with(
        make: Make,
        count: usize,
        shares: usize,
        threshold: usize,
        faults: Option<NodeFaults>,
    ) -> Result<Self> {
        let start = |number: usize, faults: &Option<NodeFaults>| -> Result<Server> {
            let node_id = format!("n{}", number + 1);
            match faults {
                None => Server::start_node(make, &NodeSettings::on_free_port(node_id)?, Vec::new()),
                Some(faults) => Server::start_node(make, &faults.settings(number, node_id), faults.environment(number)),
            }
        };
        let mut first = start(0, &faults)?;
        first.init_with(shares, threshold)?;
        let (root, keys) = (first.root.clone(), first.keys.clone());
        let mut nodes = Self { servers: vec![first], root, keys, faults, turn: AtomicUsize::new(0) };
        // Promotion waits for this time, which protects large clusters and only delays a test.
        let config = json!({"server_stabilization_time": "1s"});
        nodes.call(0, "POST", "sys/storage/raft/autopilot/configuration", Some(&config))?;
        for number in 1..count {
            let server = start(number, &nodes.faults)?;
            let join = json!({"leader_api_addr": nodes.servers[0].url});
            let mut client = server.client()?;
            let mut joins =
                || client.call(None, "POST", "sys/storage/raft/join", Some(&join)).is_ok_and(|r| r.status == 200);
            nodes.wait_until(|_| joins(), "a node joins")?;
            nodes.servers.push(server);
            nodes.unseal(number)?;
        }
        nodes.wait_until(|nodes| nodes.voters().is_ok_and(|voters| voters == count), "all nodes are voters")?;
        nodes.wait_until_all_serve()?;
        Ok(nodes)
    }

    /// The number of nodes.
    pub fn count(&self) -> usize {
        self.servers.len()
    }

    /// A node.
    pub fn server(&self, at: usize) -> &Server {
        &self.servers[at]
    }

    /// A client of the next node.
    ///
    /// # Errors
    /// When its address is none.
    pub fn client_of_next(&self) -> Result<Client> {
        self.servers[self.turn.fetch_add(1, Ordering::Relaxed) % self.servers.len()].client()
    }

    /// The means to disturb the nodes.
    ///
    /// # Errors
    /// When the cluster was started without them.
    pub fn faults(&self) -> Result<&NodeFaults> {
        self.faults.as_ref().context("the cluster was started without faults")
    }

    /// The base URLs of all nodes.
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(|server| server.url.clone()).collect()
    }

    /// The base URL of a node.
    pub fn url(&self, at: usize) -> &str {
        &self.servers[at].url
    }

    /// The ends of the logs of all nodes.
    pub fn logs(&self) -> String {
        self.servers.iter().map(|server| format!("--- {}\n{}\n", server.url, server.log())).collect()
    }

    /// The unseal keys in base64.
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// The root token.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The node that leads.
    pub fn leader(&self) -> Result<usize> {
        let mut leader = None;
        self.wait_until(
            |nodes| {
                leader = (0..nodes.servers.len()).find(|at| nodes.health(*at).is_ok_and(|status| status == 200));
                leader.is_some()
            },
            "a node leads",
        )?;
        leader.context("no leader")
    }

    /// The term of Raft; every election begins another one.
    pub fn term(&self) -> Result<u64> {
        let response =
            self.impatient(self.leader()?)?.call(Some(&self.root), "GET", "sys/metrics?format=prometheus", None)?;
        let text = String::from_utf8_lossy(&response.body).into_owned();
        let line = text.lines().find(|line| line.starts_with("vault_raft_storage_stats_term"));
        let value = line.and_then(|line| line.rsplit(' ').next()).context("no metric of the term")?;
        Ok(value.parse::<f64>()? as u64)
    }

    /// Kills a node.
    pub fn kill(&mut self, at: usize) -> Result<()> {
        self.servers[at].kill()
    }

    /// Terminates a node as an operator does.
    pub fn terminate(&mut self, at: usize) -> Result<()> {
        self.servers[at].terminate()
    }

    /// Whether the process of a node runs.
    pub fn is_running(&mut self, at: usize) -> bool {
        self.servers[at].is_running()
    }

    /// Restarts a node on its data, and unseals it.
    pub fn restart(&mut self, at: usize) -> Result<()> {
        self.servers[at].restart()?;
        self.unseal(at)
    }

    /// Restarts a node on its data. It is sealed, unless a seal unseals it.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn restart_sealed(&mut self, at: usize) -> Result<()> {
        self.servers[at].restart()
    }

    /// Waits until every node serves reads and the cluster has a leader.
    pub fn wait_until_all_serve(&self) -> Result<()> {
        let serves = |nodes: &Self, at: usize| {
            nodes.health(at).is_ok_and(|status| matches!(status, 200 | 429 | 473))
                && nodes
                    .impatient(at)
                    .and_then(|mut client| client.call(Some(&nodes.root), "GET", "auth/token/lookup-self", None))
                    .is_ok_and(|response| response.status == 200)
        };
        self.wait_until(|nodes| (0..nodes.servers.len()).all(|at| serves(nodes, at)), "all nodes serve")
    }

    /// A request at one node with the root token; an error unless the status is below 300.
    pub fn call(
        &self,
        at: usize,
        method: &str,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<serde_json::Value> {
        let response = self.servers[at].client()?.call(Some(&self.root), method, path, body)?;
        if response.status >= 300 {
            bail!("{method} {path}: {} {}", response.status, String::from_utf8_lossy(&response.body));
        }
        Ok(response.json().unwrap_or_default())
    }

    fn health(&self, at: usize) -> Result<u16> {
        Ok(self.impatient(at)?.call(None, "GET", "sys/health", None)?.status)
    }

    /// A client for a node that may be paused or cut off.
    fn impatient(&self, at: usize) -> Result<Client> {
        Ok(self.servers[at].client()?.with_timeout(RESPONSE_TIMEOUT))
    }

    fn voters(&self) -> Result<usize> {
        let configuration = self.call(0, "GET", "sys/storage/raft/configuration", None)?;
        let servers = configuration["data"]["config"]["servers"].as_array().context("no servers")?;
        Ok(servers.iter().filter(|server| server["voter"] == true).count())
    }

    /// Submits the shares to a node.
    pub fn unseal(&self, at: usize) -> Result<()> {
        self.servers[at].submit_shares(&self.keys)
    }

    fn wait_until(&self, mut holds: impl FnMut(&Self) -> bool, what: &str) -> Result<()> {
        let end = Instant::now() + TIMEOUT;
        while !holds(self) {
            if Instant::now() > end {
                bail!("not within {} s: {what}; the logs: {}", TIMEOUT.as_secs(), self.logs());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}
