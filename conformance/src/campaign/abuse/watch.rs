//! Measures the memory, audit log and latency of a server during an attack.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::servers::Server;

/// The interval between samples of the memory.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);
/// How long the connections stay open before the attack ends.
const HOLD: Duration = Duration::from_secs(2);
/// The number of ordinary requests before the final sample: the allocator returns memory only when it is used.
const AFTERWARDS: usize = 500;

/// The measurements of an attack.
pub(super) struct Measurements<T> {
    pub(super) outcome: T,
    /// Bytes sent.
    pub(super) sent: u64,
    /// Resident memory in bytes: before, the peak, and after.
    pub(super) before: u64,
    pub(super) peak: u64,
    pub(super) after: u64,
    /// Bytes written to the audit log.
    pub(super) audited: u64,
    /// Latencies of `sys/health` for another client, sorted.
    pub(super) latencies: Vec<Duration>,
    pub(super) unanswered: u64,
}

impl<T> Measurements<T> {
    /// A percentile of the latencies.
    pub(super) fn quantile(&self, percent: usize) -> Duration {
        let at = self.latencies.len() * percent / 100;
        self.latencies.get(at).or(self.latencies.last()).copied().unwrap_or_default()
    }

    pub(super) fn numbers(&self) -> String {
        format!(
            "sent {} KiB, memory {} +{} KiB, then +{}; audit {} KiB; health p99 {} ms",
            self.sent >> 10,
            self.before >> 10,
            self.peak.saturating_sub(self.before) >> 10,
            self.after.saturating_sub(self.before) >> 10,
            self.audited >> 10,
            self.quantile(99).as_millis()
        )
    }
}

/// Runs an attack that returns the number of bytes it sent, and keeps its connections open for [`HOLD`].
pub(super) fn watch<T, H>(
    server: &Server,
    run: impl FnOnce() -> Result<(u64, T, H)>,
) -> Result<Measurements<(u64, T)>> {
    let (before, audit_before) = (resident(server)?, audited(server));
    let (over, peak) = (AtomicBool::new(false), AtomicU64::new(before));
    let (done, probed) = std::thread::scope(|scope| {
        let prober = scope.spawn(|| probe(server, &over));
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                peak.fetch_max(resident(server).unwrap_or_default(), Ordering::Relaxed);
                std::thread::sleep(SAMPLE_INTERVAL);
            }
        });
        let done = run();
        std::thread::sleep(HOLD);
        over.store(true, Ordering::Relaxed);
        (done, prober.join())
    });
    let (sent, outcome, held) = done?;
    drop(held);
    let (mut latencies, unanswered) = probed.unwrap_or_default();
    latencies.sort_unstable();
    let audited = audited(server).saturating_sub(audit_before);
    for _ in 0..AFTERWARDS {
        server.client()?.call(None, "GET", "sys/health", None)?;
    }
    Ok(Measurements {
        outcome: (sent, outcome),
        sent,
        before,
        peak: peak.into_inner(),
        after: resident(server)?,
        audited,
        latencies,
        unanswered,
    })
}

/// Requests `sys/health` on a separate connection until `over`. Returns the latencies and the number of failures.
fn probe(server: &Server, over: &AtomicBool) -> (Vec<Duration>, u64) {
    let (mut latencies, mut unanswered) = (Vec::new(), 0);
    let Ok(mut client) = server.client() else { return (latencies, 1) };
    while !over.load(Ordering::Relaxed) {
        let started = Instant::now();
        match client.call(None, "GET", "sys/health", None) {
            Ok(_) => latencies.push(started.elapsed()),
            Err(_) => unanswered += 1,
        }
        std::thread::sleep(SAMPLE_INTERVAL / 4);
    }
    (latencies, unanswered)
}

/// Resident memory in bytes.
fn resident(server: &Server) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()))?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = kilobytes.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kilobytes.context("no VmRSS")? << 10)
}

fn audited(server: &Server) -> u64 {
    std::fs::metadata(server.directory().join("audit.log")).map_or(0, |metadata| metadata.len())
}
