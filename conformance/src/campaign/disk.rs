//! Full and failing disks under concurrent writes: every acknowledged write is there after a restart, clients get an
//! error response, and the process neither exits nor hangs. A preloaded library injects the faults (`disk_fault.c`).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::write_log::{self, WriteLog, check, write};
use super::{Findings, Options};
use crate::node_faults::{compile, switch_on};
use crate::rng::Rng;
use crate::servers::{Make, Server, Storage};

/// The fault, and the part of the server's directory that it affects.
const FAULTS: [(&str, &str); 8] = [
    ("write-full", "data/"),
    ("sync-broken", "data/"),
    ("write-full", "audit.log"),
    ("write-short", "data/"),
    ("write-broken", "data/"),
    ("write-short", "audit.log"),
    ("sync-full", "data/"),
    ("write-broken", "audit.log"),
];

pub(super) fn run(options: &Options) -> Result<Findings> {
    if options.on != Make::Keepfast {
        bail!("the faults affect only programs that write through the C library");
    }
    let mut server = Server::start_in(options.on, Storage::Durable, |directory| {
        let library = compile("campaign/disk_fault.c", directory)?;
        Ok(vec![
            ("LD_PRELOAD".to_owned(), library.display().to_string()),
            ("FAULT_SWITCH".to_owned(), switch(directory).display().to_string()),
        ])
    })?;
    server.init()?;
    write_log::prepare(&server)?;
    let mut logs: Vec<WriteLog> = (0..options.connections).map(|_| WriteLog::default()).collect();
    let mut found = Findings { passed: 0, failures: Vec::new(), numbers: String::new() };
    let mut refusals = 0;
    for round in 0..options.count {
        let fault = FAULTS[round as usize % FAULTS.len()];
        let cut = write_through(&server, &mut logs, round, fault, &mut Rng::of(options.seed, round))?;
        refusals += check_refusals(&mut server, &mut logs, round, fault, cut, &mut found)?;
        end(&mut server, round, &mut found)?;
        server.restart().with_context(|| format!("round {round}: it does not restart"))?;
        server.unseal().with_context(|| format!("round {round}: it does not unseal"))?;
        check(&server, &logs, round, round + 1 == options.count, &mut found)?;
    }
    let (records, counters) = write_log::acknowledged(&logs);
    found.numbers = format!(
        "{} faults, {} writers, {refusals} refusals, {records} records and {counters} counter steps acknowledged, {} checks",
        options.count, options.connections, found.passed
    );
    Ok(found)
}

/// The file that enables the faults.
fn switch(directory: &Path) -> PathBuf {
    directory.join("fault")
}

/// All writers write before, during and after the fault. Returns the number of writers that lost their connection.
fn write_through(
    server: &Server,
    logs: &mut [WriteLog],
    round: u64,
    (mode, place): (&str, &str),
    rng: &mut Rng,
) -> Result<usize> {
    let mut pause = |least: u64, more: usize| {
        std::thread::sleep(Duration::from_millis(least + rng.below(more) as u64));
    };
    let over = AtomicBool::new(false);
    let switch = switch(server.directory());
    std::thread::scope(|scope| -> Result<usize> {
        let writers: Vec<_> = logs
            .iter_mut()
            .enumerate()
            .map(|(writer, log)| {
                let over = &over;
                scope.spawn(move || {
                    let mut step = 0;
                    while !over.load(Ordering::Relaxed) {
                        if write(&server.url, &server.root, writer, round, step, log).is_err() {
                            return true;
                        }
                        step += 1;
                    }
                    false
                })
            })
            .collect();
        pause(30, 120);
        switch_on(&switch, mode, &server.directory().join(place))?;
        pause(60, 200);
        // From here on a write would succeed again: a stopped store must still refuse it.
        std::fs::remove_file(&switch)?;
        pause(30, 60);
        over.store(true, Ordering::Relaxed);
        Ok(writers.into_iter().filter_map(|writer| writer.join().ok()).filter(|cut| *cut).count())
    })
}

/// Checks that clients got an error response, and that the server runs and, after a fault of the audit log, serves
/// again.
fn check_refusals(
    server: &mut Server,
    logs: &mut [WriteLog],
    round: u64,
    (mode, place): (&str, &str),
    cut: usize,
    found: &mut Findings,
) -> Result<usize> {
    let mut require = |ok: bool, what: String| match ok {
        true => found.passed += 1,
        false => found.failures.push(format!("round {round} ({mode} {place}): {what}")),
    };
    require(server.is_running(), format!("the server has exited; its log: {}", server.log()));
    require(cut == 0, format!("{cut} writers lost their connection"));
    let refused: Vec<(u16, String)> = logs.iter_mut().flat_map(|d| d.refused.drain(..)).collect();
    require(!refused.is_empty(), "no write was refused".to_owned());
    for (status, what) in &refused {
        require(*status == 500 && what.contains("{\"errors\":[\""), format!("refused with {what}"));
    }
    let health = server.client()?.call(None, "GET", "sys/health", None)?;
    require(health.status == 200, format!("health is {}", health.status));
    if place == "audit.log" {
        let body = json!({"v": round});
        let after = server.client()?.call(Some(&server.root), "PUT", "kv/after", Some(&body))?;
        require(after.status == 204, format!("a write after the fault is {}", after.status));
        let log = std::fs::read_to_string(server.directory().join("audit.log"))?;
        let last = log.lines().last().unwrap_or_default();
        let whole = serde_json::from_str::<serde_json::Value>(last).is_ok();
        require(whole, "the first entry after a torn one cannot be read".to_owned());
    }
    Ok(refused.len())
}

/// Stops the server with a signal for termination, or kills it.
fn end(server: &mut Server, round: u64, found: &mut Findings) -> Result<()> {
    if round.is_multiple_of(2) {
        return server.kill();
    }
    server.terminate().with_context(|| format!("round {round}: it does not exit"))?;
    found.passed += 1;
    Ok(())
}
