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

use anyhow::{Result, bail};
use serde_json::json;

use super::operations::PARENTS;
use super::random_node::RandomNode;
use crate::campaign::Findings;
use crate::nodes::Nodes;

/// The timeout for a write after a fault.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The timeout of a response, after which a client tries another node.
const IMPATIENT: Duration = Duration::from_secs(1);
/// The timeout of clients that wait for the response of a paused node.
const PATIENT: Duration = Duration::from_secs(20);
/// The clients that revoke tokens.
const REVOKERS: usize = 3;
/// The registers that also have a patient reader.
const PATIENT_READERS: usize = 2;

/// A secret and what is known of its versions.
#[derive(Default)]
pub(super) struct Register {
    /// The newest version that was acknowledged, or returned by a read.
    pub(super) visible: AtomicU64,
    /// The newest version that was sent.
    pub(super) sent: AtomicU64,
}

/// What the clients counted.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) writes: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) refused_uses: AtomicU64,
    pub(super) retries: AtomicU64,
}

impl Counts {
    /// Counts one.
    pub(super) fn add(number: &AtomicU64) {
        number.fetch_add(1, Ordering::SeqCst);
    }

    /// The checked operations.
    pub(super) fn checked(&self) -> u64 {
        [&self.writes, &self.reads, &self.refused_uses].map(|number| number.load(Ordering::SeqCst)).iter().sum()
    }

    /// The uses of tokens whose revocation was acknowledged before; each was refused.
    pub(super) fn refused_uses(&self) -> u64 {
        self.refused_uses.load(Ordering::SeqCst)
    }

    /// The numbers for the ledger.
    pub(super) fn summary(&self) -> String {
        let load = |number: &AtomicU64| number.load(Ordering::SeqCst);
        format!(
            "{} writes, {} reads and {} uses of revoked tokens checked, {} retries",
            load(&self.writes),
            load(&self.reads),
            load(&self.refused_uses),
            load(&self.retries)
        )
    }
}

/// All clients: for each register a writer, and a reader at each node, so that a node that does not respond delays only its
/// own readers; patient readers for some registers; and those that revoke tokens.
pub(super) struct Clients {
    pub(super) root: String,
    pub(super) registers: Vec<Register>,
    pub(super) counts: Counts,
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
        nodes.call(0, "POST", "sys/policies/acl/parents", Some(&json!({"policy": PARENTS})))?;
        let clients = Self {
            root: nodes.root().to_owned(),
            registers: (0..count).map(|_| Register::default()).collect(),
            counts: Counts::default(),
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

    /// Starts the clients, which send requests until `over`.
    pub(super) fn start<'s>(&'s self, scope: &'s Scope<'s, '_>, urls: &[String], over: &'s AtomicBool, round: u64) {
        self.start_with(scope, urls, over, round, IMPATIENT);
    }

    /// As [`Self::start`], with clients that wait long for each response.
    pub(super) fn start_patient<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        urls: &[String],
        over: &'s AtomicBool,
        round: u64,
    ) {
        self.start_with(scope, urls, over, round, PATIENT);
    }

    fn start_with<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        urls: &[String],
        over: &'s AtomicBool,
        round: u64,
        timeout: Duration,
    ) {
        let mut item = round << 16;
        let mut node = |urls: &[String], timeout| {
            item += 1;
            RandomNode::new(urls.to_vec(), timeout, item)
        };
        let repeat = |mut node: RandomNode, act: fn(&Self, usize, &mut RandomNode), number: usize| {
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    act(self, number, &mut node);
                }
            });
        };
        for number in 0..self.registers.len() {
            repeat(node(urls, timeout), Self::write, number);
            for url in urls {
                repeat(node(std::slice::from_ref(url), timeout), Self::read_often, number);
            }
            if number < PATIENT_READERS {
                repeat(node(urls, PATIENT), Self::read_patiently, number);
            }
        }
        for _ in 0..REVOKERS {
            repeat(node(urls, timeout), |clients, _, node| clients.revoke(node), 0);
        }
    }

    /// Waits until a write that began after `since` is acknowledged. Returns the time from then.
    pub(super) fn wait_for_write(&self, since: Instant) -> Result<Duration> {
        // A write that was sent before may be acknowledged just now: the second one of each writer began later.
        let writes = || self.counts.writes.load(Ordering::SeqCst);
        let before = writes() + self.registers.len() as u64;
        while writes() <= before {
            if since.elapsed() > WRITE_TIMEOUT {
                bail!("no write succeeds within {} s after a fault", WRITE_TIMEOUT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(since.elapsed())
    }

    /// Reads every register at every node.
    pub(super) fn check_everywhere(&self, nodes: &Nodes, found: &mut Findings) -> Result<()> {
        for (at, url) in nodes.urls().into_iter().enumerate() {
            let mut node = RandomNode::new(vec![url], PATIENT, 0);
            for number in 0..self.registers.len() {
                // An election may be under way on a busy machine.
                let is_read = (0..100).any(|_| self.read(number, &mut node).is_some());
                if !is_read {
                    bail!("node {at} does not read register {number}");
                }
            }
        }
        self.report(found);
        Ok(())
    }

    /// Moves the violations to the findings of the campaign.
    pub(super) fn report(&self, found: &mut Findings) {
        if let Ok(mut violations) = self.violations.lock() {
            found.failures.append(&mut violations);
        }
    }

    /// Notes an event; the last one is in the report of a violation.
    pub(super) fn note(&self, what: &str) {
        if let Ok(mut notes) = self.notes.lock() {
            notes.push(format!("{what} at {} ms", self.started.elapsed().as_millis()));
        }
    }

    /// Records a response that must not be.
    pub(super) fn violation(&self, what: &str) {
        let last = self.notes.lock().ok().and_then(|notes| notes.last().cloned()).unwrap_or_default();
        if let Ok(mut violations) = self.violations.lock() {
            violations.push(format!("{what}, at {} ms, after: {last}", self.started.elapsed().as_millis()));
        }
    }
}

/// The path of a register.
pub(super) fn path(number: usize) -> String {
    format!("registers/data/r{number}")
}
