//! Unauthenticated bytes of every expensive kind against a server with a file audit device, unsealed, sealed and
//! uninitialised: whatever is sent, the server writes at most 4 bytes of audit log and holds at most 4 bytes of memory per
//! byte sent, above a fixed 64 MiB, and answers other clients meanwhile.
//!
//! `--count` is the number of connections of each attack. The long form also holds the p99 of `sys/health` under 50 ms.

mod attack;
mod watch;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use self::attack::{ATTACKS, Attack, When};
use self::watch::{Seen, watch};
use super::{Found, Options};
use crate::dice::Dice;
use crate::http::Client;
use crate::servers::{Server, Storage};

/// What the server may hold, and write, whatever is sent.
const FIXED: u64 = 64 << 20;
/// What it may hold, and write, for each byte sent.
const PER_BYTE: u64 = 4;
/// The highest p99 of `sys/health` of another client, in the long form.
const SLOWEST: Duration = Duration::from_millis(50);
/// The descriptors of the server in the case of idle connections at the cap.
const FEW_DESCRIPTORS: u64 = 300;

pub(super) fn run(options: &Options) -> Result<Found> {
    let mut found = Found { passed: 0, failures: Vec::new(), numbers: String::new() };
    for state in [State::Uninitialised, State::Sealed, State::Unsealed] {
        for (item, attack) in ATTACKS.iter().enumerate() {
            if state == State::Unsealed || attack.when == When::Always {
                let server = state.start(options)?;
                let dice = Dice::of(options.seed, item as u64);
                play(attack, state, server, dice, options, &mut found).with_context(|| attack.name.to_owned())?;
            }
        }
    }
    at_the_cap(options, &mut found)?;
    Ok(found)
}

/// In what state the server is attacked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Uninitialised,
    Sealed,
    Unsealed,
}

impl State {
    fn start(self, options: &Options) -> Result<Server> {
        let mut server = Server::start(options.on, Storage::Memory)?;
        if self != State::Uninitialised {
            server.init()?;
            let mut client = server.client()?;
            expect(&mut client, &server.root, "sys/auth/approle", &json!({"type": "approle"}))?;
            expect(&mut client, &server.root, "sys/mounts/kv", &json!({"type": "kv"}))?;
        }
        if self == State::Sealed {
            expect(&mut server.client()?, &server.root, "sys/seal", &json!({}))?;
        }
        Ok(server)
    }
}

fn expect(client: &mut Client, token: &str, path: &str, body: &serde_json::Value) -> Result<()> {
    let answer = client.call(Some(token), "PUT", path, Some(body))?;
    if answer.status >= 300 {
        bail!("{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
    }
    Ok(())
}

fn play(
    attack: &Attack,
    state: State,
    mut server: Server,
    mut dice: Dice,
    options: &Options,
    found: &mut Found,
) -> Result<()> {
    let seen = watch(&server, || {
        let held = (attack.run)(&server, &mut dice, options.count)?;
        let refused = if attack.writes && state == State::Unsealed { root_writes(&server) } else { Vec::new() };
        Ok((held.sent, refused, held))
    })?;
    let mut faults = judged(&seen, options);
    faults.extend(seen.outcome.1.iter().cloned());
    if !server.is_running() {
        faults.push(format!("the server has ended; its log: {}", server.log()));
    }
    let line = format!("{} {state:?}: {}", attack.name, seen.numbers());
    println!("{line}");
    found.numbers = format!("{}{}{line}", found.numbers, if found.numbers.is_empty() { "" } else { "; " });
    found.failures.extend(faults.iter().map(|fault| format!("{} {state:?}: {fault}", attack.name)));
    found.passed += u64::from(faults.is_empty());
    Ok(())
}

/// What of the goal does not hold.
fn judged<T>(seen: &Seen<T>, options: &Options) -> Vec<String> {
    let most = FIXED + PER_BYTE * seen.sent;
    let mut faults = Vec::new();
    if seen.peak.saturating_sub(seen.before) > most {
        faults.push(format!("{} bytes of memory held for {} sent", seen.peak - seen.before, seen.sent));
    }
    if seen.after.saturating_sub(seen.before) > FIXED {
        faults.push(format!("{} bytes of memory kept afterwards", seen.after - seen.before));
    }
    if seen.audited > most {
        faults.push(format!("{} bytes of audit log for {} sent", seen.audited, seen.sent));
    }
    if seen.latencies.is_empty() || seen.unanswered > 0 {
        faults.push(format!("sys/health: {} answers, {} failures", seen.latencies.len(), seen.unanswered));
    }
    if !options.short && seen.quantile(99) > SLOWEST {
        faults.push(format!("p99 of sys/health is {} ms", seen.quantile(99).as_millis()));
    }
    faults
}

/// Secrets of sizes below and above what is free, which root must be able to write while strangers send bodies.
fn root_writes(server: &Server) -> Vec<String> {
    let write = |length: usize| -> Result<()> {
        expect(&mut server.client()?, &server.root, "kv/big", &json!({"v": "x".repeat(length)}))
    };
    [60_000, 75_000, 200_000]
        .into_iter()
        .filter_map(|length| write(length).err())
        .map(|e| format!("root: {e:#}"))
        .collect()
}

/// Idle connections up to the cap: new clients are served all the same.
fn at_the_cap(options: &Options, found: &mut Found) -> Result<()> {
    let server = Server::start_with_descriptors(options.on, Storage::Memory, FEW_DESCRIPTORS)?;
    let mut held = Vec::new();
    let mut failures = 0;
    for _ in 0..FEW_DESCRIPTORS {
        let mut idle = server.client()?;
        let answered = idle.call(None, "GET", "sys/health", None);
        failures += u64::from(answered.is_err());
        held.push(idle);
        failures += u64::from(server.client()?.call(None, "GET", "sys/health", None).is_err());
    }
    println!("idle connections at the cap: {failures} of {} clients were not served", 2 * FEW_DESCRIPTORS);
    if failures > 0 {
        found.failures.push(format!("idle connections at the cap: {failures} clients were not served"));
    } else {
        found.passed += 1;
    }
    Ok(())
}
