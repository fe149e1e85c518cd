//! Disks that are full or fail under concurrent writes: nothing is acknowledged that is not there after a restart, clients get an error in
//! words, and the process neither ends nor hangs. The faults come from a library that is preloaded into the server (`disk_fault.c`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::diary::{self, Diary, check, write};
use super::{Found, Options};
use crate::dice::Dice;
use crate::servers::{Make, Server, Storage};

/// What fails, and below which part of the server's directory.
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

pub(super) fn run(options: &Options) -> Result<Found> {
    if options.on != Make::Keepfast {
        bail!("the faults reach programs that write through the C library only");
    }
    let mut server = Server::start_in(options.on, Storage::Durable, |directory| {
        let library = compile(directory)?;
        Ok(vec![
            ("LD_PRELOAD".to_owned(), library.display().to_string()),
            ("FAULT_SWITCH".to_owned(), switch(directory).display().to_string()),
        ])
    })?;
    server.init()?;
    diary::prepare(&server)?;
    let mut diaries: Vec<Diary> = (0..options.connections).map(|_| Diary::default()).collect();
    let mut found = Found { passed: 0, failures: Vec::new(), numbers: String::new() };
    let mut refusals = 0;
    for round in 0..options.count {
        let fault = FAULTS[round as usize % FAULTS.len()];
        let cut = write_through(&server, &mut diaries, round, fault, &mut Dice::of(options.seed, round))?;
        refusals += judge_refusals(&mut server, &mut diaries, round, fault, cut, &mut found)?;
        end(&mut server, round, &mut found)?;
        server.restart().with_context(|| format!("round {round}: it does not start again"))?;
        server.unseal().with_context(|| format!("round {round}: it does not open again"))?;
        check(&server, &diaries, round, round + 1 == options.count, &mut found)?;
    }
    let (records, counters) = diary::acknowledged(&diaries);
    found.numbers = format!(
        "{} faults, {} writers, {refusals} refusals, {records} records and {counters} counter steps acknowledged, {} checks",
        options.count, options.connections, found.passed
    );
    Ok(found)
}

/// The file that switches the faults on.
fn switch(directory: &Path) -> PathBuf {
    directory.join("fault")
}

fn compile(directory: &Path) -> Result<PathBuf> {
    let library = directory.join("disk_fault.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/campaign/disk_fault.c");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    if !built.context("starting the C compiler")?.success() {
        bail!("the library with the faults does not compile");
    }
    Ok(library)
}

/// All writers write before, during and after the fault. Tells how many of them lost their connection.
fn write_through(
    server: &Server,
    diaries: &mut [Diary],
    round: u64,
    (mode, place): (&str, &str),
    dice: &mut Dice,
) -> Result<usize> {
    let mut pause = |least: u64, more: usize| {
        std::thread::sleep(Duration::from_millis(least + dice.below(more) as u64));
    };
    let over = AtomicBool::new(false);
    let switch = switch(server.directory());
    // Written elsewhere and renamed, so that it is never seen half written.
    let prepared = server.directory().join("fault.next");
    std::fs::write(&prepared, format!("{mode} {}", server.directory().join(place).display()))?;
    std::thread::scope(|scope| -> Result<usize> {
        let writers: Vec<_> = diaries
            .iter_mut()
            .enumerate()
            .map(|(writer, diary)| {
                let over = &over;
                scope.spawn(move || {
                    let mut step = 0;
                    while !over.load(Ordering::Relaxed) {
                        if write(&server.url, &server.root, writer, round, step, diary).is_err() {
                            return true;
                        }
                        step += 1;
                    }
                    false
                })
            })
            .collect();
        pause(30, 120);
        std::fs::rename(&prepared, &switch)?;
        pause(60, 200);
        // From here on a write would succeed again: what has stopped must still refuse.
        std::fs::remove_file(&switch)?;
        pause(30, 60);
        over.store(true, Ordering::Relaxed);
        Ok(writers.into_iter().filter_map(|writer| writer.join().ok()).filter(|cut| *cut).count())
    })
}

/// Clients were told, in words and as a fault of the server; the server is there, and after a fault of the audit log it serves again.
fn judge_refusals(
    server: &mut Server,
    diaries: &mut [Diary],
    round: u64,
    (mode, place): (&str, &str),
    cut: usize,
    found: &mut Found,
) -> Result<usize> {
    let mut judge = |ok: bool, what: String| match ok {
        true => found.passed += 1,
        false => found.failures.push(format!("round {round} ({mode} {place}): {what}")),
    };
    judge(server.is_running(), format!("the server has ended; its log: {}", server.log()));
    judge(cut == 0, format!("{cut} writers lost their connection"));
    let refused: Vec<(u16, String)> = diaries.iter_mut().flat_map(|d| d.refused.drain(..)).collect();
    judge(!refused.is_empty(), "no write was refused".to_owned());
    for (status, what) in &refused {
        judge(*status == 500 && what.contains("{\"errors\":[\""), format!("refused with {what}"));
    }
    let health = server.client()?.call(None, "GET", "sys/health", None)?;
    judge(health.status == 200, format!("health is {}", health.status));
    if place == "audit.log" {
        let body = json!({"v": round});
        let after = server.client()?.call(Some(&server.root), "PUT", "kv/after", Some(&body))?;
        judge(after.status == 204, format!("a write after the fault is {}", after.status));
        let log = std::fs::read_to_string(server.directory().join("audit.log"))?;
        let last = log.lines().last().unwrap_or_default();
        let whole = serde_json::from_str::<serde_json::Value>(last).is_ok();
        judge(whole, "the first entry after a torn one cannot be read".to_owned());
    }
    Ok(refused.len())
}

/// By the operator, or by a failure of the process.
fn end(server: &mut Server, round: u64, found: &mut Found) -> Result<()> {
    if round.is_multiple_of(2) {
        return server.kill();
    }
    server.terminate().with_context(|| format!("round {round}: it does not end"))?;
    found.passed += 1;
    Ok(())
}
