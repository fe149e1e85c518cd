//! Numbers: the start to serving, the memory, a rotation of the root key, and opening the record.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use super::super::tokens::resident;
use super::ways::QUIET;
use crate::seals::{SealKind, SealServices, done};
use crate::servers::{Make, Server, Storage};

/// The repetitions of each measurement.
const REPETITIONS: usize = 15;

/// The numbers as text.
pub(super) fn measure(services: &SealServices) -> Result<String> {
    let mut shares = Server::start_unsealed(Make::Keepfast, Storage::Durable)?;
    let by_shares = restarts(&mut shares, Server::unseal)?;
    let memory = resident(&shares)?;
    drop(shares);
    let mut one = services.serve(None, &services.stanza(SealKind::Static, QUIET), Vec::new())?;
    one.init_with_seals(3, 2)?;
    let by_static = restarts(&mut one, |server| server.wait_until_serving())?;
    let opened = unseal_without_services(&one)?;
    drop(one);
    let stanzas: String = SealKind::ALL.iter().map(|kind| services.stanza(*kind, QUIET)).collect();
    let mut three = services.serve(None, &stanzas, Vec::new())?;
    three.init_with_seals(3, 2)?;
    let rotated = rotations(&three)?;
    restarts(&mut three, |server| server.wait_until_serving())?;
    let with_three = resident(&three)?;
    Ok(format!(
        "start to serving {} ms with static and {} ms with shares; rotate/root with 3 seals {:.1} ms; \
         unseal without its services, so the record, {opened:.2} ms; memory {} KB with shares and {} KB with 3 seals",
        by_static.as_millis(),
        by_shares.as_millis(),
        rotated.as_secs_f64() * 1000.0,
        memory / 1024,
        with_three / 1024
    ))
}

/// The median time from the start of the process until it serves.
fn restarts(server: &mut Server, open: impl Fn(&mut Server) -> Result<()>) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..REPETITIONS {
        server.terminate()?;
        let started = Instant::now();
        server.restart()?;
        open(server)?;
        times.push(started.elapsed());
    }
    median(times)
}

fn rotations(server: &Server) -> Result<Duration> {
    let (mut client, mut times) = (server.client()?, Vec::new());
    for _ in 0..REPETITIONS {
        let started = Instant::now();
        done(&mut client, &server.root, "POST", "sys/rotate/root", &json!({}))?;
        times.push(started.elapsed());
    }
    median(times)
}

/// The time of the unseal without that of its services, in milliseconds: reading and opening the record.
fn unseal_without_services(server: &Server) -> Result<f64> {
    let response = server.client()?.call(Some(&server.root), "GET", "sys/metrics?format=prometheus", None)?;
    let text = String::from_utf8_lossy(&response.body).into_owned();
    let sum = |name: &str| -> Result<f64> {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
        found.with_context(|| format!("no metric {name}"))
    };
    Ok(sum("vault_core_unseal_sum")? - sum("vault_core_post_unseal_sum")?)
}

fn median(mut times: Vec<Duration>) -> Result<Duration> {
    times.sort();
    times.get(times.len() / 2).copied().context("nothing was measured")
}
