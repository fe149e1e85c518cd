//! Seals that fail in turn under load, and all of them unreachable at a start: no request fails or waits, the status
//! shows the failure within the interval of the checks, and shares unseal what no seal unseals.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::faults::Fault;
use super::load::Load;
use super::ways::{all_failed, settled, submit};
use crate::campaign::{Findings, Options};
use crate::rng::Rng;
use crate::seals::{SealKind, SealServices, SealedServer, done, permit_transit, random_key};
use crate::servers::Server;
use crate::slow_proxy::SlowProxy;

/// The checks of each seal. The intervals are ±20 %.
const CHECKED: &str = " timeout = \"3s\"\n health_check_interval = \"2s\"\n health_check_interval_unhealthy = \"1s\"\n \
                       health_check_timeout = \"4s\"\n";
/// The longest time from a fault to its status: an interval, the timeout of a call and of the one before it, and time for
/// slow machines.
const SEEN_WITHIN: Duration = Duration::from_secs(12);
/// The longest time from the end of a fault to a healthy status. The program of an HSM that has failed waits before its next start.
const HEALED_WITHIN: Duration = Duration::from_secs(90);
/// A response that takes as long has waited for a seal.
const LONGEST: Duration = Duration::from_millis(2500);

/// A server with three seals, and their services.
struct Stage {
    services: SealServices,
    proxy: SlowProxy,
    server: Server,
    static_key: String,
}

/// Lets each service fail in each way under load, `rounds` times, and then starts the server without seals.
pub(super) fn run(options: &Options, found: &mut Findings) -> Result<()> {
    let rounds = if options.short { 1 } else { (options.count / 100).clamp(1, 50) };
    let requests = match options.operations {
        0 if options.short => 2000,
        0 => 10_000,
        given => given,
    };
    let mut stage = Stage::prepare()?;
    let load = Load::default();
    let (url, root) = (stage.server.url.clone(), stage.server.root.clone());
    for round in 0..rounds {
        let mut faults = Fault::ALL;
        let mut rng = Rng::of(options.seed, round);
        (1..faults.len()).rev().for_each(|at| faults.swap(at, rng.below(at + 1)));
        for fault in faults {
            let worked = load.during(&url, &root, LONGEST, || stage.run_fault(fault, found));
            worked.with_context(|| format!("round {round}: {fault:?}; the log: {}", stage.server.log()))?;
            let failures = load.take_failures();
            found.passed += u64::from(failures.is_empty());
            found.failures.extend(failures.iter().take(3).map(|what| format!("round {round}, {fault:?}: {what}")));
        }
    }
    let started = Instant::now();
    load.during(&url, &root, LONGEST, || {
        let is_enough = || load.requests.load(std::sync::atomic::Ordering::Relaxed) >= requests;
        while !is_enough() && started.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    stage.start_without_seals(&load, found)?;
    let sent = load.requests.load(std::sync::atomic::Ordering::Relaxed);
    if sent < requests {
        found.failures.push(format!("{sent} requests are too few"));
    }
    let (slowest, faults) = (load.slowest().as_millis(), rounds as usize * Fault::ALL.len());
    found.numbers +=
        &format!("; {faults} faults of three seals, {sent} requests meanwhile, the slowest in {slowest} ms");
    Ok(())
}

/// What a server says of a seal.
#[derive(Debug)]
struct SealHealth {
    is_healthy: bool,
    class: Option<String>,
    metric: Option<f64>,
}

impl Stage {
    fn prepare() -> Result<Self> {
        let SealedServer { services, proxy, server, static_key } = SealedServer::start(CHECKED)?;
        let mount = json!({"type": "kv"});
        done(&mut server.client()?, &server.root, "POST", "sys/mounts/kv", &mount)?;
        Ok(Self { services, proxy, server, static_key })
    }

    /// Lets one service fail: the status shows it, the root key is rotated meanwhile, and the seal recovers afterwards.
    fn run_fault(&mut self, fault: Fault, found: &mut Findings) -> Result<()> {
        fault.begin(&mut self.services, &self.proxy, self.server.pid())?;
        let started = Instant::now();
        if let Some((kind, classes)) = fault.expected() {
            let shown = self.wait_for(found, fault, SEEN_WITHIN, |seals| {
                let (_, seal) = &seals[position(kind)];
                !seal.is_healthy && seal.class.as_deref().is_some_and(|class| classes.contains(&class))
            })?;
            found.passed += u64::from(shown);
        } else {
            std::thread::sleep(Duration::from_secs(3));
            let all =
                self.wait_for(found, fault, Duration::ZERO, |seals| seals.iter().all(|(_, seal)| seal.is_healthy))?;
            found.passed += u64::from(all);
        }
        let rotated = Instant::now();
        done(&mut self.server.client()?, &self.server.root, "POST", "sys/rotate/root", &json!({}))?;
        found.require(rotated.elapsed() < LONGEST, || format!("{fault:?}: rotate/root took {:?}", rotated.elapsed()));
        fault.end(&mut self.services, &self.proxy, self.server.pid(), &self.static_key)?;
        let healed =
            self.wait_for(found, fault, HEALED_WITHIN, |seals| seals.iter().all(|(_, seal)| seal.is_healthy))?;
        found.passed += u64::from(healed);
        let wrapped = self.wait_until_wrapped()?;
        found.require(wrapped, || format!("{fault:?}: not fully wrapped {:?} after it", started.elapsed()));
        Ok(())
    }

    /// Waits until the status is as expected; the seals of other services must stay healthy.
    fn wait_for(
        &self,
        found: &mut Findings,
        fault: Fault,
        within: Duration,
        holds: impl Fn(&[(SealKind, SealHealth)]) -> bool,
    ) -> Result<bool> {
        let end = Instant::now() + within;
        let failing = fault.expected().map(|(kind, _)| kind);
        loop {
            let seals = self.seal_health()?;
            for (kind, seal) in seals.iter().filter(|(kind, _)| Some(*kind) != failing) {
                found.require(seal.is_healthy, || format!("{fault:?}: {kind:?} is unhealthy: {seal:?}"));
            }
            if holds(&seals) {
                let metric = |seal: &SealHealth| seal.metric == Some(f64::from(u8::from(seal.is_healthy)));
                // The checks go on while the two are read.
                let is_same =
                    seals.iter().all(|(_, seal)| metric(seal)) || self.seal_health()?.iter().all(|(_, s)| metric(s));
                found.require(is_same, || format!("{fault:?}: the metrics differ from the status: {seals:?}"));
                return Ok(true);
            }
            if Instant::now() >= end {
                found.failures.push(format!("{fault:?}: the status is not true within {within:?}: {seals:?}"));
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What the server says of its seals, in the order of [`SealKind::ALL`].
    fn seal_health(&self) -> Result<Vec<(SealKind, SealHealth)>> {
        let (mut client, root) = (self.server.client()?, &self.server.root);
        let listed = done(&mut client, root, "GET", "sys/seals", &Value::Null)?;
        let status = done(&mut client, "", "GET", "sys/seal-backend-status", &Value::Null)?;
        let metrics = client.call(Some(root), "GET", "sys/metrics?format=prometheus", None)?;
        let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
        let named = |list: &Value, name: &str| -> Result<Value> {
            let found = list.as_array().and_then(|list| list.iter().find(|seal| seal["name"] == name));
            found.cloned().with_context(|| format!("no seal {name} in {list}"))
        };
        let of = |kind: SealKind| -> Result<(SealKind, SealHealth)> {
            let seal = named(&listed["data"]["seals"], kind.name())?;
            let backend = named(&status["backends"], kind.name())?;
            let line = format!("vault_seal_healthy{{seal=\"{}\"}} ", kind.name());
            let metric = metrics.lines().find_map(|found| found.strip_prefix(&line)?.trim().parse().ok());
            let class = seal["error"].as_str().map(str::to_owned);
            // Both pages, or neither: a check may end between them.
            let is_healthy = seal["healthy"] == true && backend["healthy"] == true;
            Ok((kind, SealHealth { is_healthy, class, metric }))
        };
        SealKind::ALL.into_iter().map(of).collect()
    }

    fn wait_until_wrapped(&self) -> Result<bool> {
        let end = Instant::now() + HEALED_WITHIN;
        let mut client = self.server.client()?;
        while Instant::now() < end {
            let status = done(&mut client, "", "GET", "sys/seal-backend-status", &Value::Null)?;
            if status["fully_wrapped"] == true && status["healthy"] == true {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(false)
    }

    /// All seals are dead at the start: shares open. Then a seal whose file is missing stops no other one.
    fn start_without_seals(&mut self, load: &Load, found: &mut Findings) -> Result<()> {
        self.server.terminate()?;
        permit_transit(&self.services.kms, false)?;
        self.services.write_static_key("k1", &random_key()?)?;
        std::fs::rename(self.services.tokens(), self.services.tokens().with_extension("aside"))?;
        self.server.restart()?;
        let (is_open, status) = settled(&self.server)?;
        found.require(!is_open, || format!("it opens without a seal: {status}"));
        let health = self.server.client()?.call(None, "GET", "sys/health", None)?;
        found.require(health.status == 503, || format!("health is {}", health.status));
        found.require(all_failed(&self.server, SEEN_WITHIN)?, || "a dead seal counts as healthy".to_owned());
        let wrong = vec!["ab".repeat(33), "cd".repeat(33)];
        found.require(!submit(&self.server, &wrong, false)?, || "wrong shares open".to_owned());
        found.require(submit(&self.server, &self.server.keys, false)?, || "the shares do not open".to_owned());
        self.server.wait_until_serving()?;
        self.check_written(load, found)?;
        self.server.terminate()?;
        std::fs::rename(self.services.tokens().with_extension("aside"), self.services.tokens())?;
        permit_transit(&self.services.kms, true)?;
        std::fs::remove_file(self.services.static_key("k1"))?;
        self.server.restart().context("with a missing file of a seal")?;
        let (is_open, status) = settled_by_any(&self.server)?;
        found.require(is_open, || format!("a missing file of one seal stops the others: {status}"));
        if is_open {
            self.server.wait_until_serving()?;
            self.check_written(load, found)?;
            self.services.write_static_key("k1", &self.static_key)?;
            found.require(self.wait_until_wrapped()?, || "a seal whose file is back stays unhealthy".to_owned());
        }
        Ok(())
    }

    fn check_written(&self, load: &Load, found: &mut Findings) -> Result<()> {
        for (path, count) in load.written() {
            let body = done(&mut self.server.client()?, &self.server.root, "GET", &path, &Value::Null)?;
            let n = body["data"]["n"].as_u64().unwrap_or_default();
            found.require(n >= count, || format!("{path} is {n}, acknowledged {count}"));
        }
        Ok(())
    }
}

fn position(kind: SealKind) -> usize {
    SealKind::ALL.iter().position(|other| *other == kind).unwrap_or_default()
}

/// Whether any seal unseals the server in time, although others fail.
fn settled_by_any(server: &Server) -> Result<(bool, Value)> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let status = done(&mut server.client()?, "", "GET", "sys/seal-status", &Value::Null)?;
        if status["sealed"] == false || Instant::now() > end {
            return Ok((status["sealed"] == false, status));
        }
        if status["initialized"] == false {
            bail!("not initialized: {status}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
