//! A snapshot of many MiB on request: the whole file is saved, and restores all records; meanwhile the memory of the server
//! does not grow with it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::tokens::resident;
use super::{Findings, Options};
use crate::http::{Client, Request};
use crate::rng::Rng;
use crate::servers::{Server, Storage};

/// The length of a value: its record has about three quarters of a MiB.
const VALUE: usize = 768 << 10;
/// The most bytes by which the memory of the server may grow, at its peak, while a snapshot is saved or restored: a window of
/// the log, caches of the storage, and parts.
const GROWTH: u64 = 128 << 20;
/// The timeout of the restore.
const TIMEOUT: Duration = Duration::from_secs(600);

pub(super) fn run(options: &Options) -> Result<Findings> {
    let server = Server::start_unsealed(options.on, Storage::Durable)?;
    let mut client = server.client()?.with_timeout(TIMEOUT);
    let mut found = Findings { passed: 0, failures: Vec::new(), numbers: String::new() };
    let count = (options.count * (1 << 20)).div_ceil(VALUE as u64);
    expect(&mut client, &server, "POST", "sys/mounts/big", Some(&json!({"type": "kv"})), 204)?;
    fill(&server, options, count)?;

    let (saved, save_growth, save_time) = measured(&server, || {
        let response = send(&mut client, &server, "GET", "sys/storage/raft/snapshot", None)?;
        if response.0 != 200 {
            bail!("a snapshot is not saved: {} {}", response.0, String::from_utf8_lossy(&response.1));
        }
        Ok(response.1)
    })?;
    expect(&mut client, &server, "POST", "big/r0", Some(&json!({"v": "changed"})), 204)?;
    expect(&mut client, &server, "DELETE", "big/r1", None, 204)?;
    let length = saved.len();
    let cut = saved[..length / 2].to_vec();
    let refused = send(&mut client, &server, "POST", "sys/storage/raft/snapshot", Some(cut))?.0;
    found.require(refused == 400, || format!("half of the file: {refused}"));
    let (restored, restore_growth, restore_time) =
        measured(&server, || Ok(send(&mut client, &server, "POST", "sys/storage/raft/snapshot", Some(saved))?.0))?;
    found.require(restored == 204, || format!("the restore: {restored}"));
    wait_until_it_serves(&server)?;
    for item in 0..count {
        let response = client.call(Some(&server.root), "GET", &format!("big/r{item}"), None)?;
        let read = response.json().unwrap_or_default();
        found.require(read["data"]["v"] == value(options.seed, item), || format!("record {item} is another one"));
    }
    for (what, growth) in [("saved", save_growth), ("restored", restore_growth)] {
        let text = format!("the memory grew by {} MiB while it was {what}", growth >> 20);
        found.require(growth < GROWTH, || text);
    }
    found.numbers = format!(
        "{count} records, a file of {} MiB; memory +{} MiB in {} s while it was saved, +{} MiB in {} s while it was restored",
        length >> 20,
        save_growth >> 20,
        save_time.as_secs(),
        restore_growth >> 20,
        restore_time.as_secs()
    );
    Ok(found)
}

/// A text that compression hardly makes shorter.
fn value(seed: u64, item: u64) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut rng = Rng::of(seed, item);
    (0..VALUE).map(|_| char::from(DIGITS[rng.below(64)])).collect()
}

fn fill(server: &Server, options: &Options, count: u64) -> Result<()> {
    let next = AtomicU64::new(0);
    let write = || -> Result<()> {
        let mut client = server.client()?;
        loop {
            let item = next.fetch_add(1, Ordering::Relaxed);
            if item >= count {
                return Ok(());
            }
            let body = json!({"v": value(options.seed, item)});
            expect(&mut client, server, "POST", &format!("big/r{item}"), Some(&body), 204)?;
        }
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..options.connections).map(|_| scope.spawn(write)).collect();
        writers.into_iter().try_for_each(|writer| writer.join().unwrap_or_else(|_| bail!("a thread panicked")))
    })
}

fn expect(
    client: &mut Client,
    server: &Server,
    method: &str,
    path: &str,
    body: Option<&Value>,
    status: u16,
) -> Result<()> {
    let response = client.call(Some(&server.root), method, path, body)?;
    if response.status != status {
        bail!("{method} {path}: {} {}", response.status, String::from_utf8_lossy(&response.body));
    }
    Ok(())
}

fn send(
    client: &mut Client,
    server: &Server,
    method: &str,
    path: &str,
    body: Option<Vec<u8>>,
) -> Result<(u16, Vec<u8>)> {
    let headers = vec![("X-Vault-Token".to_owned(), server.root.clone())];
    let response = client.send(&Request { method: method.to_owned(), path: format!("/v1/{path}"), headers, body })?;
    Ok((response.status, response.body))
}

/// Runs something. Also returns by how much the memory of the server grew meanwhile, at its peak, and the time.
fn measured<T>(server: &Server, run: impl FnOnce() -> Result<T>) -> Result<(T, u64, Duration)> {
    // Sets the peak to the present size.
    std::fs::write(format!("/proc/{}/clear_refs", server.pid()), "5").context("the peak of the memory")?;
    let (before, started) = (resident(server)?, Instant::now());
    let result = run()?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let peak: u64 = peak.trim().trim_end_matches("kB").trim().parse()?;
    Ok((result, (peak * 1024).saturating_sub(before), started.elapsed()))
}

fn wait_until_it_serves(server: &Server) -> Result<()> {
    let end = Instant::now() + TIMEOUT;
    let serves = || -> Result<bool> {
        let response = server.client()?.call(Some(&server.root), "GET", "auth/token/lookup-self", None)?;
        Ok(response.status == 200)
    };
    while !serves().unwrap_or(false) {
        if Instant::now() > end {
            bail!("the server does not serve after the restore: {}", server.log());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
