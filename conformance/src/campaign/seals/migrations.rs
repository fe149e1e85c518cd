//! kill -9 of members, and of the leader, in the middle of a rolling migration of a cluster of three: from shares to
//! `static`, to `transit`, and back. Afterwards every member unseals by the new seal alone, the old one unseals nothing, and
//! no acknowledged write is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::ways::{Known, Way, open_alone, submit};
use crate::campaign::{Findings, Options};
use crate::http::Client;
use crate::nodes::Nodes;
use crate::rng::Rng;
use crate::seals::{SealKind, SealServices};
use crate::servers::Make;

const MEMBERS: usize = 3;
/// The timeout for a member to unseal, and for a migration to complete.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The timeout of one response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest time before a kill, in which the leader commits the steps of the migration, and before the restart.
const LONGEST_DELAY: usize = 2_500;
const LONGEST_OUTAGE: usize = 800;
/// The pause of the client between two writes.
const PAUSE: Duration = Duration::from_millis(10);
/// An item of the random numbers that no kill of a lone server has.
const ITEM: u64 = 1 << 32;

/// The migrations of a cluster: from shares, or the seal of the one before, to a seal.
const MIGRATIONS: [(Option<SealKind>, SealKind); 3] = [
    (None, SealKind::Static),
    (Some(SealKind::Static), SealKind::Transit),
    (Some(SealKind::Transit), SealKind::Static),
];

/// A cluster that migrates.
struct Cluster<'a> {
    services: &'a SealServices,
    nodes: Nodes,
    /// The configuration of each member without its seals.
    without_seals: Vec<String>,
    rng: Rng,
    kills: Vec<String>,
}

/// Migrates a cluster in each round, with kills at random times.
pub(super) fn run(options: &Options, services: &SealServices, found: &mut Findings) -> Result<()> {
    let (rounds, migrations, kills) = match options.short {
        true => (1, &MIGRATIONS[..2], 1),
        false => ((options.count / 100).clamp(1, 50), &MIGRATIONS[..], 3),
    };
    let (mut killed, mut acknowledged) = (0, 0);
    for round in 0..rounds {
        let mut cluster = Cluster::start(services, Rng::of(options.seed, ITEM + round))?;
        for (number, (from, to)) in migrations.iter().enumerate() {
            let context = format!("seed {}, round {round}, {from:?} to {to:?}", options.seed);
            let migrated = cluster.migrate(*from, *to, kills, number);
            let written = migrated.with_context(|| format!("{context}, {:?}", cluster.kills))?;
            let checked = cluster.check(*from, *to, &written, &context, found);
            checked.with_context(|| format!("{context}, {:?}", cluster.kills))?;
            killed += std::mem::take(&mut cluster.kills).len();
            acknowledged += written.len();
        }
    }
    found.numbers += &format!(
        "; {} migrations of a cluster with {killed} kills of members and {acknowledged} writes",
        rounds as usize * migrations.len()
    );
    Ok(())
}

impl<'a> Cluster<'a> {
    fn start(services: &'a SealServices, rng: Rng) -> Result<Self> {
        let nodes = Nodes::start_with_shares(Make::Keepfast, MEMBERS, 3, 2)?;
        nodes.call(nodes.leader()?, "POST", "sys/mounts/kv", Some(&json!({"type": "kv"})))?;
        let read = |at| std::fs::read_to_string(nodes.server(at).directory().join("config.hcl"));
        let without_seals = (0..MEMBERS).map(read).collect::<Result<_, _>>()?;
        Ok(Self { services, nodes, without_seals, rng, kills: Vec::new() })
    }

    /// Migrates all members while a client writes, with `kills` kills. Returns the paths of the acknowledged writes.
    fn migrate(&mut self, from: Option<SealKind>, to: SealKind, kills: usize, number: usize) -> Result<Vec<String>> {
        let (urls, root, is_over) = (self.nodes.urls(), self.nodes.root().to_owned(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| write(&urls, &root, number, &is_over));
            let rolled = self.roll(from, to, kills);
            is_over.store(true, Ordering::SeqCst);
            let written = writer.join();
            rolled?;
            written.or_else(|_| bail!("the client panicked"))
        })
    }

    /// Restarts one member after the other with the new seals, standbys first, and then lets another one lead.
    fn roll(&mut self, from: Option<SealKind>, to: SealKind, kills: usize) -> Result<()> {
        let disabled = from.map(|from| self.services.stanza(from, " disabled = \"true\"\n")).unwrap_or_default();
        let stanzas = format!("{disabled}{}", self.services.stanza(to, ""));
        // Half of the kills come after a restart, the others while the leader migrates.
        let moments: Vec<usize> = (0..kills).map(|_| self.rng.below(2 * MEMBERS)).collect();
        let leader = self.nodes.leader()?;
        let order = (0..MEMBERS).filter(|at| *at != leader).chain([leader]);
        for (step, at) in order.enumerate() {
            let file = self.nodes.server(at).directory().join("config.hcl");
            std::fs::write(file, format!("{}{stanzas}", self.without_seals[at]))?;
            self.nodes.terminate(at)?;
            self.restart(at, from)?;
            for _ in moments.iter().filter(|moment| **moment == step) {
                self.kill_one(from)?;
            }
        }
        // It may have lost the role meanwhile.
        let _ = self.nodes.call(self.nodes.leader()?, "POST", "sys/step-down", Some(&json!({})));
        for _ in moments.iter().filter(|moment| **moment >= MEMBERS) {
            self.kill_one(from)?;
        }
        self.wait_until_migrated(from, to)
    }

    /// Kills the leader or any member, each half of the time, after a random delay, and starts it again.
    fn kill_one(&mut self, from: Option<SealKind>) -> Result<()> {
        let victim = match self.rng.below(2) {
            0 => self.nodes.leader()?,
            _ => self.rng.below(MEMBERS),
        };
        let (delay, outage) = (self.rng.below(LONGEST_DELAY), self.rng.below(LONGEST_OUTAGE));
        self.kills.push(format!("member {victim} after {delay} ms for {outage} ms"));
        std::thread::sleep(Duration::from_millis(delay as u64));
        self.nodes.kill(victim)?;
        std::thread::sleep(Duration::from_millis(outage as u64));
        self.restart(victim, from)
    }

    /// Starts a member, and waits until it has unsealed itself; a quorum authorizes the migration from shares.
    fn restart(&mut self, at: usize, from: Option<SealKind>) -> Result<()> {
        self.nodes.restart_sealed(at)?;
        let end = Instant::now() + TIMEOUT;
        loop {
            let server = self.nodes.server(at);
            let response = server.client()?.call(None, "GET", "sys/seal-status", None)?;
            let status = response.json().unwrap_or_default();
            if status["sealed"] == false {
                return Ok(());
            }
            if from.is_none() && status["sealed_reason"] == "shares" {
                submit(server, self.nodes.keys(), status["migration"] == true)?;
            }
            if Instant::now() > end {
                bail!("member {at} does not unseal: {status}; the log: {}", server.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until only the new seal has a slot. As an operator does, submits a quorum at each leader that awaits one.
    fn wait_until_migrated(&self, from: Option<SealKind>, to: SealKind) -> Result<()> {
        let end = Instant::now() + TIMEOUT;
        loop {
            let leader = self.nodes.leader()?;
            let seals = self.nodes.call(leader, "GET", "sys/seals", None);
            if seals.as_ref().is_ok_and(|seals| enrolled(seals) == [to.name()]) {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("the migration does not complete: {seals:?}; the logs: {}", self.nodes.logs());
            }
            std::thread::sleep(Duration::from_millis(300));
            for key in self.nodes.keys().iter().filter(|_| from.is_none()) {
                let body = json!({"key": key, "migrate": true});
                let _ = self.nodes.server(leader).client()?.call(None, "PUT", "sys/unseal", Some(&body));
            }
        }
    }

    /// Kills all members at once, and checks what opens their storage, and what it has.
    fn check(
        &mut self,
        from: Option<SealKind>,
        to: SealKind,
        written: &[String],
        context: &str,
        found: &mut Findings,
    ) -> Result<()> {
        for at in 0..MEMBERS {
            let seals = self.nodes.call(at, "GET", "sys/seals", None)?;
            found.require(enrolled(&seals) == [to.name()], || format!("{context}: member {at} has {seals}"));
        }
        (0..MEMBERS).try_for_each(|at| self.nodes.kill(at))?;
        // The lone server has the node id of the first member.
        let data = self.nodes.server(0).directory().join("data");
        let opens =
            |kind| open_alone(self.services, &data, Way::of(kind), &Known::default()).map(|open| open.is_some());
        let is_open = opens(to)?;
        found.require(is_open, || format!("{context}: {to:?} does not unseal"));
        if let Some(from) = from {
            let is_open = opens(from)?;
            found.require(!is_open, || format!("{context}: {from:?} still unseals"));
        }
        (0..MEMBERS).try_for_each(|at| self.nodes.restart_sealed(at))?;
        self.nodes.wait_until_all_serve()?;
        let value = |path: &String| Some(self.nodes.call(0, "GET", path, None).ok()?["data"]["path"] == path.as_str());
        let lost: Vec<_> = written.iter().filter(|path| value(path) != Some(true)).collect();
        found.require(!written.is_empty() && lost.is_empty(), || {
            format!("{context}: lost {} of {}: {:?}", lost.len(), written.len(), lost.first())
        });
        Ok(())
    }
}

/// The names of the seals that have a slot.
fn enrolled(seals: &Value) -> Vec<&str> {
    let seals = seals["data"]["seals"].as_array().into_iter().flatten();
    seals.filter(|seal| seal["enrolled"] == true).filter_map(|seal| seal["name"].as_str()).collect()
}

/// Writes to each member in turn until it is over. Returns the paths whose writing was acknowledged.
fn write(urls: &[String], root: &str, number: usize, is_over: &AtomicBool) -> Vec<String> {
    let mut written = Vec::new();
    for (item, url) in urls.iter().cycle().enumerate() {
        if is_over.load(Ordering::SeqCst) {
            break;
        }
        let path = format!("kv/migration{number}/{item}");
        let Ok(client) = Client::new(url) else { break };
        let body = json!({"path": path});
        let sent = client.with_timeout(RESPONSE_TIMEOUT).call(Some(root), "PUT", &path, Some(&body));
        if sent.is_ok_and(|response| response.status < 300) {
            written.push(path);
        }
        std::thread::sleep(PAUSE);
    }
    written
}
