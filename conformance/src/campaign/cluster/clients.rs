//! Clients that check every response against what was acknowledged before they sent the request.
//!
//! A register is a secret that one client writes with check-and-set, so that its version is the number of its effective
//! writes: a write whose outcome is unknown cannot take effect after a later one. A read is linearizable if it returns no
//! version that is older than one which was acknowledged, or returned to another reader, before the read began, and none
//! that is newer than the last one sent.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::campaign::Findings;
use crate::http::Client;
use crate::nodes::Nodes;
use crate::rng::Rng;

/// The timeout for a write after a kill.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// A secret and what is known of its versions.
#[derive(Default)]
struct Register {
    /// The newest version that was acknowledged, or returned by a read.
    visible: AtomicU64,
    /// The newest version that was sent.
    sent: AtomicU64,
}

/// Numbers of a run.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) writes: u64,
    pub(super) reads: u64,
    pub(super) refused_uses: u64,
    pub(super) retries: u64,
}

/// All clients: one writer and one reader for each register, and one that revokes tokens.
pub(super) struct Clients {
    root: String,
    registers: Vec<Register>,
    writes: AtomicU64,
    reads: AtomicU64,
    refused_uses: AtomicU64,
    retries: AtomicU64,
    violations: Mutex<Vec<String>>,
    started: Instant,
    /// What happened, for the report of a violation.
    notes: Mutex<Vec<String>>,
}

impl Clients {
    /// Mounts the engine of the registers and creates them.
    pub(super) fn prepare(nodes: &Nodes, count: u64) -> Result<Self> {
        let mount = json!({"type": "kv", "options": {"version": "2"}});
        nodes.call(0, "POST", "sys/mounts/registers", Some(&mount))?;
        let clients = Self {
            root: nodes.root().to_owned(),
            registers: (0..count).map(|_| Register::default()).collect(),
            writes: AtomicU64::default(),
            reads: AtomicU64::default(),
            refused_uses: AtomicU64::default(),
            retries: AtomicU64::default(),
            violations: Mutex::default(),
            started: Instant::now(),
            notes: Mutex::default(),
        };
        for (number, register) in clients.registers.iter().enumerate() {
            let body = json!({"options": {"cas": 0}, "data": {"n": 1}});
            nodes.call(0, "POST", &path(number), Some(&body))?;
            register.sent.store(1, Ordering::SeqCst);
            register.visible.store(1, Ordering::SeqCst);
        }
        Ok(clients)
    }

    /// Starts the clients, which send each request to a random node until `over`.
    pub(super) fn start<'s>(&'s self, scope: &'s Scope<'s, '_>, urls: Vec<String>, over: &'s AtomicBool, round: u64) {
        for number in 0..self.registers.len() {
            for is_writer in [true, false] {
                let seed = round * 1000 + 2 * number as u64 + u64::from(is_writer);
                let mut node = RandomNode::new(urls.clone(), seed);
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        if is_writer {
                            self.write(number, &mut node);
                        } else {
                            self.read(number, &mut node);
                        }
                    }
                });
            }
        }
        let mut node = RandomNode::new(urls, round * 1000 + 999);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                self.revoke(&mut node);
            }
        });
    }

    /// Waits until a write that began after `since` is acknowledged. Returns the time from then.
    pub(super) fn wait_for_write(&self, since: Instant) -> Result<Duration> {
        // A write that was sent before may be acknowledged just now: the second one of each writer began later.
        let before = self.writes.load(Ordering::SeqCst) + self.registers.len() as u64;
        while self.writes.load(Ordering::SeqCst) <= before {
            if since.elapsed() > WRITE_TIMEOUT {
                bail!("no write succeeds within {} s after a kill", WRITE_TIMEOUT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(since.elapsed())
    }

    /// Reads every register at every node.
    pub(super) fn check_everywhere(&self, nodes: &Nodes, found: &mut Findings) -> Result<()> {
        for (at, url) in nodes.urls().into_iter().enumerate() {
            let mut node = RandomNode::new(vec![url], 0);
            for number in 0..self.registers.len() {
                let before = self.reads.load(Ordering::SeqCst);
                self.read(number, &mut node);
                if self.reads.load(Ordering::SeqCst) == before {
                    bail!("node {at} does not read register {number}");
                }
            }
        }
        found.failures.append(&mut self.violations());
        Ok(())
    }

    /// The numbers of the whole run, which count as checks.
    pub(super) fn totals(&self, found: &mut Findings) -> Totals {
        found.failures.append(&mut self.violations());
        let load = |number: &AtomicU64| number.load(Ordering::SeqCst);
        let totals = Totals {
            writes: load(&self.writes),
            reads: load(&self.reads),
            refused_uses: load(&self.refused_uses),
            retries: load(&self.retries),
        };
        found.passed += totals.writes + totals.reads + totals.refused_uses;
        totals
    }

    fn violations(&self) -> Vec<String> {
        self.violations.lock().map(|mut found| std::mem::take(&mut *found)).unwrap_or_default()
    }

    /// Notes an event; the last one is in the report of a violation.
    pub(super) fn note(&self, what: &str) {
        if let Ok(mut notes) = self.notes.lock() {
            notes.push(format!("{what} at {} ms", self.started.elapsed().as_millis()));
        }
    }

    fn violation(&self, what: String) {
        let last = self.notes.lock().ok().and_then(|notes| notes.last().cloned()).unwrap_or_default();
        if let Ok(mut found) = self.violations.lock() {
            found.push(format!("{what}, at {} ms, after: {last}", self.started.elapsed().as_millis()));
        }
    }

    /// Writes the next version; after an unknown outcome the present version is read first.
    fn write(&self, number: usize, node: &mut RandomNode) {
        let register = &self.registers[number];
        let Some(version) = self.read(number, node) else { return };
        register.sent.fetch_max(version + 1, Ordering::SeqCst);
        let body = json!({"options": {"cas": version}, "data": {"n": version + 1}});
        let Some((status, response, url)) = self.send(node, &self.root, "POST", &path(number), Some(&body)) else {
            return;
        };
        match status {
            200 if response["data"]["version"] == version + 1 => {
                register.visible.fetch_max(version + 1, Ordering::SeqCst);
                self.writes.fetch_add(1, Ordering::SeqCst);
            }
            // Its own earlier write, whose outcome was unknown, took effect between the read and this write.
            400 => {}
            _ => self.violation(format!("a write at {url}: {status} {response}")),
        }
    }

    /// Reads a register, and returns its version; `None` when no node responds.
    fn read(&self, number: usize, node: &mut RandomNode) -> Option<u64> {
        let register = &self.registers[number];
        let oldest = register.visible.load(Ordering::SeqCst);
        let (status, response, url) = self.send(node, &self.root, "GET", &path(number), None)?;
        let newest = register.sent.load(Ordering::SeqCst);
        let (version, value) = (&response["data"]["metadata"]["version"], &response["data"]["data"]["n"]);
        let Some(version) = version.as_u64().filter(|version| status == 200 && value == version) else {
            self.violation(format!("a read at {url}: {status} {response}"));
            return None;
        };
        if version < oldest || version > newest {
            self.violation(format!(
                "{url} returned version {version} of register {number}: {oldest} was visible, {newest} was sent"
            ));
        }
        register.visible.fetch_max(version, Ordering::SeqCst);
        self.reads.fetch_add(1, Ordering::SeqCst);
        Some(version)
    }

    /// Creates a token, revokes it, and uses it at every node.
    fn revoke(&self, node: &mut RandomNode) {
        let create = json!({"policies": ["default"], "ttl": "1h"});
        let Some((200, created, _)) = self.send(node, &self.root, "POST", "auth/token/create", Some(&create)) else {
            return;
        };
        let Some(token) = created["auth"]["client_token"].as_str() else { return };
        let Some((200, ..)) = self.send(node, token, "GET", "auth/token/lookup-self", None) else { return };
        let revoke = json!({"token": token});
        let Some((204, ..)) = self.send(node, &self.root, "POST", "auth/token/revoke", Some(&revoke)) else { return };
        for at in 0..node.urls.len() {
            node.at = at;
            let Some((status, _, url)) = self.send(node, token, "GET", "auth/token/lookup-self", None) else {
                continue;
            };
            if status == 403 {
                self.refused_uses.fetch_add(1, Ordering::SeqCst);
            } else {
                self.violation(format!("{url} responded with {status} to a token whose revocation was acknowledged"));
            }
        }
    }

    /// Sends a request to a random node. `None` for a response that clients may retry, and for a broken connection: the
    /// outcome is then unknown.
    fn send(
        &self,
        node: &mut RandomNode,
        token: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Option<(u16, Value, String)> {
        let url = node.urls[node.at].clone();
        let sent = node.client().and_then(|client| client.call(Some(token), method, path, body));
        node.next();
        match sent {
            Ok(response) if !may_be_retried(response.status) => {
                Some((response.status, response.json().unwrap_or_default(), url))
            }
            Ok(_) | Err(_) => {
                self.retries.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
                None
            }
        }
    }
}

/// The responses that hvac and the clients of Vault retry: 412 and 5xx.
fn may_be_retried(status: u16) -> bool {
    status == 412 || status >= 500
}

fn path(number: usize) -> String {
    format!("registers/data/r{number}")
}

/// A client that sends each request to another node.
struct RandomNode {
    urls: Vec<String>,
    clients: Vec<Option<Client>>,
    at: usize,
    rng: Rng,
}

impl RandomNode {
    fn new(urls: Vec<String>, seed: u64) -> Self {
        let mut rng = Rng::of(seed, 0);
        let at = rng.below(urls.len());
        Self { clients: urls.iter().map(|_| None).collect(), urls, at, rng }
    }

    fn client(&mut self) -> Result<&mut Client> {
        let (slot, url) = (&mut self.clients[self.at], &self.urls[self.at]);
        if slot.is_none() {
            *slot = Some(Client::new(url)?);
        }
        slot.as_mut().context("no client")
    }

    fn next(&mut self) {
        self.at = self.rng.below(self.urls.len());
    }
}
