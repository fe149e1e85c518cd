//! Unauthenticated bytes of every expensive kind against a server with a file audit device, unsealed, sealed and
//! uninitialized. The server may write at most 4 bytes of audit log and hold at most 4 bytes of memory per byte sent,
//! above a fixed 64 MiB, and must serve other clients at the same time.
//!
//! `--count` is the number of connections per attack. The long form also limits the p99 of `sys/health` to 50 ms.

mod attack;
mod watch;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use self::attack::{ATTACKS, Attack, When};
use self::watch::{Measurements, watch};
use super::{Findings, Options};
use crate::http::Client;
use crate::rng::Rng;
use crate::servers::{Server, Storage};

/// Bytes that the server may hold and write independently of the bytes sent.
const FIXED: u64 = 64 << 20;
/// Bytes that it may hold and write per byte sent.
const PER_BYTE: u64 = 4;
/// The maximum p99 of `sys/health` for another client, in the long form.
const SLOWEST: Duration = Duration::from_millis(50);
/// The limit on descriptors for the test with idle connections.
const FEW_DESCRIPTORS: u64 = 300;

pub(super) fn run(options: &Options) -> Result<Findings> {
    let mut found = Findings { passed: 0, failures: Vec::new(), numbers: String::new() };
    for state in [State::Uninitialised, State::Sealed, State::Unsealed] {
        for (item, attack) in ATTACKS.iter().enumerate() {
            if state == State::Unsealed || attack.when == When::Always {
                let server = state.start(options)?;
                let rng = Rng::of(options.seed, item as u64);
                play(attack, state, server, rng, options, &mut found).with_context(|| attack.name.to_owned())?;
            }
        }
    }
    at_the_cap(options, &mut found)?;
    Ok(found)
}

/// The state of the attacked server.
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
    let response = client.call(Some(token), "PUT", path, Some(body))?;
    if response.status >= 300 {
        bail!("{path}: {} {}", response.status, String::from_utf8_lossy(&response.body));
    }
    Ok(())
}

fn play(
    attack: &Attack,
    state: State,
    mut server: Server,
    mut rng: Rng,
    options: &Options,
    found: &mut Findings,
) -> Result<()> {
    let seen = watch(&server, || {
        let held = (attack.run)(&server, &mut rng, options.count)?;
        let refused = if attack.writes && state == State::Unsealed { root_writes(&server) } else { Vec::new() };
        Ok((held.sent, refused, held))
    })?;
    let mut failures = exceeded_limits(&seen, options);
    failures.extend(seen.outcome.1.iter().cloned());
    if !server.is_running() {
        failures.push(format!("the server has exited; its log: {}", server.log()));
    }
    let line = format!("{} {state:?}: {}", attack.name, seen.numbers());
    println!("{line}");
    found.numbers = format!("{}{}{line}", found.numbers, if found.numbers.is_empty() { "" } else { "; " });
    found.failures.extend(failures.iter().map(|fault| format!("{} {state:?}: {fault}", attack.name)));
    found.passed += u64::from(failures.is_empty());
    Ok(())
}

/// The limits that the server exceeded.
fn exceeded_limits<T>(seen: &Measurements<T>, options: &Options) -> Vec<String> {
    let most = FIXED + PER_BYTE * seen.sent;
    let mut failures = Vec::new();
    if seen.peak.saturating_sub(seen.before) > most {
        failures.push(format!("{} bytes of memory held for {} sent", seen.peak - seen.before, seen.sent));
    }
    if seen.after.saturating_sub(seen.before) > FIXED {
        failures.push(format!("{} bytes of memory kept afterwards", seen.after - seen.before));
    }
    if seen.audited > most {
        failures.push(format!("{} bytes of audit log for {} sent", seen.audited, seen.sent));
    }
    if seen.latencies.is_empty() || seen.unanswered > 0 {
        failures.push(format!("sys/health: {} responses, {} failures", seen.latencies.len(), seen.unanswered));
    }
    if !options.short && seen.quantile(99) > SLOWEST {
        failures.push(format!("p99 of sys/health is {} ms", seen.quantile(99).as_millis()));
    }
    failures
}

/// Writes secrets below and above the free budget as root, which must succeed while unauthenticated clients send
/// bodies.
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

/// Opens idle connections up to the limit; new clients must still be served.
fn at_the_cap(options: &Options, found: &mut Findings) -> Result<()> {
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
    println!("idle connections at the limit: {failures} of {} clients were not served", 2 * FEW_DESCRIPTORS);
    if failures > 0 {
        found.failures.push(format!("idle connections at the limit: {failures} clients were not served"));
    } else {
        found.passed += 1;
    }
    Ok(())
}
