//! Many live service tokens: their cost in memory and at unseal, and the rate of look-ups.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{Findings, Options};
use crate::rng::Rng;
use crate::servers::{Server, Storage};

/// How long look-ups are measured.
const LOOKUPS: Duration = Duration::from_secs(5);
/// The number of tokens that are looked up.
const SAMPLE: u64 = 20_000;

pub(super) fn run(options: &Options) -> Result<Findings> {
    let mut server = Server::start_unsealed(options.on, Storage::Durable)?;
    let empty_unseal = restart(&mut server)?;
    let empty_rss = resident(&server)?;
    let started = Instant::now();
    let sample = create(&server, options)?;
    let create_seconds = started.elapsed().as_secs_f64();
    let full_rss = resident(&server)?;
    let before = look_up(&server, &sample, options)?;
    let full_unseal = restart(&mut server)?;
    let after_rss = resident(&server)?;
    let after = look_up(&server, &sample, options)?;
    let each = |rss: u64| (rss.saturating_sub(empty_rss)) as f64 / options.count as f64;
    let mut found = Findings { passed: before.1 + after.1, failures: Vec::new(), numbers: String::new() };
    if before.2 + after.2 > 0 {
        found.failures.push(format!("{} look-ups of live tokens failed", before.2 + after.2));
    }
    found.numbers = format!(
        "made at {:.0}/s; memory {} KB empty, {} KB full ({:.0} bytes each), {} KB after a restart ({:.0} each); \
         start to unsealed {} ms empty, {} ms full; look-ups {:.0}/s before and {:.0}/s after",
        options.count as f64 / create_seconds,
        empty_rss / 1024,
        full_rss / 1024,
        each(full_rss),
        after_rss / 1024,
        each(after_rss),
        empty_unseal.as_millis(),
        full_unseal.as_millis(),
        before.0,
        after.0
    );
    Ok(found)
}

/// Creates the tokens over all connections; returns the ids of a sample.
fn create(server: &Server, options: &Options) -> Result<Vec<String>> {
    let next = AtomicU64::new(0);
    let stride = (options.count / SAMPLE).max(1);
    let body = json!({"policies": ["default"], "ttl": "100h", "no_parent": true});
    let make = || -> Result<Vec<String>> {
        let mut client = server.client()?;
        let mut kept = Vec::new();
        loop {
            let item = next.fetch_add(1, Ordering::Relaxed);
            if item >= options.count {
                return Ok(kept);
            }
            let response = client.call(Some(&server.root), "POST", "auth/token/create", Some(&body))?;
            if response.status != 200 {
                bail!("token {item}: {} {}", response.status, String::from_utf8_lossy(&response.body));
            }
            if item.is_multiple_of(stride) {
                let token = response.json().and_then(|b| b["auth"]["client_token"].as_str().map(str::to_owned));
                kept.push(token.context("no client_token")?);
            }
        }
    };
    let kept: Vec<Result<Vec<String>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.connections).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| bail!("a thread panicked"))).collect()
    });
    Ok(kept.into_iter().collect::<Result<Vec<_>>>()?.concat())
}

/// Looks up random tokens for a while: the rate per second, the number of successes, the number of failures.
fn look_up(server: &Server, sample: &[String], options: &Options) -> Result<(f64, u64, u64)> {
    let (alive, dead) = (AtomicU64::new(0), AtomicU64::new(0));
    let end = Instant::now() + LOOKUPS;
    std::thread::scope(|scope| {
        for thread in 0..options.connections {
            let (alive, dead) = (&alive, &dead);
            scope.spawn(move || -> Result<()> {
                let mut client = server.client()?;
                let mut rng = Rng::of(options.seed, thread);
                while Instant::now() < end {
                    let token = &sample[rng.below(sample.len())];
                    let response = client.call(Some(token), "GET", "auth/token/lookup-self", None);
                    let lived = response.is_ok_and(|response| response.status == 200);
                    if lived { alive } else { dead }.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
        }
    });
    let alive = alive.into_inner();
    Ok((alive as f64 / LOOKUPS.as_secs_f64(), alive, dead.into_inner()))
}

/// Restarts the server; returns the time from its start until it responds unsealed.
pub(super) fn restart(server: &mut Server) -> Result<Duration> {
    server.terminate()?;
    let started = Instant::now();
    server.restart()?;
    server.unseal()?;
    Ok(started.elapsed())
}

/// Resident memory in bytes.
pub(super) fn resident(server: &Server) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024)
}
