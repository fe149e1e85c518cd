//! One operation of the campaign, and the log of acknowledged operations.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::STATIC;
use crate::http::{Client, Response};
use crate::rng::Rng;

/// The characters of a refusal that are printed.
const REFUSAL: usize = 100;

/// The state of a lease according to the responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseState {
    /// Acknowledged and never revoked.
    Held,
    /// Its revocation was acknowledged, or recorded before it failed.
    Ended,
    /// The response of its revocation was lost: both results are correct.
    Uncertain,
}

/// A lease whose creation was acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) id: String,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) is_short: bool,
    pub(super) state: LeaseState,
}

/// The shared log of all workers.
#[derive(Default)]
pub(super) struct LeaseLog {
    leases: Mutex<Vec<Lease>>,
    refusals: Mutex<BTreeMap<String, u64>>,
    created: AtomicU64,
    renewed: AtomicU64,
    revoked: AtomicU64,
    rotated: AtomicU64,
    rotated_root: AtomicU64,
    failed: AtomicU64,
    cut_off: AtomicU64,
}

impl LeaseLog {
    /// All acknowledged leases.
    pub(super) fn leases(&self) -> MutexGuard<'_, Vec<Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn summary(&self) -> String {
        let n = |count: &AtomicU64| count.load(Ordering::Relaxed);
        format!(
            "acknowledged {} created, {} renewed, {} revoked, {} rotated, {} rotated root; {} refused, {} cut off",
            n(&self.created),
            n(&self.renewed),
            n(&self.revoked),
            n(&self.rotated),
            n(&self.rotated_root),
            n(&self.failed),
            n(&self.cut_off)
        )
    }

    /// The number of refusals by their beginnings.
    pub(super) fn refusals(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a response; returns it if it is a success.
    fn count(&self, response: Option<Response>, good: &AtomicU64) -> Option<Response> {
        match response {
            None => drop(self.cut_off.fetch_add(1, Ordering::Relaxed)),
            Some(response) if response.status >= 300 => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let text = String::from_utf8_lossy(&response.body);
                let cause: String = text.trim().chars().take(REFUSAL).collect();
                *self.refusals().entry(format!("{} {cause}", response.status)).or_default() += 1;
            }
            Some(response) => {
                good.fetch_add(1, Ordering::Relaxed);
                return Some(response);
            }
        }
        None
    }

    /// Takes a live lease out of the log, so that no other worker uses it.
    fn take(&self, rng: &mut Rng, long_only: bool) -> Option<Lease> {
        let mut leases = self.leases();
        let held: Vec<usize> = (0..leases.len())
            .filter(|at| leases[*at].state == LeaseState::Held && !(long_only && leases[*at].is_short))
            .collect();
        let at = *held.get(rng.below(held.len()))?;
        Some(leases.swap_remove(at))
    }
}

/// The node to which an operation is sent.
pub(super) struct Caller<'a> {
    pub(super) url: String,
    pub(super) root: &'a str,
    /// Whether a node may refuse a request, or not know its outcome, because there is no leader.
    pub(super) is_cluster: bool,
}

/// Does one random operation.
pub(super) fn operate(log: &LeaseLog, caller: &Caller<'_>, rng: &mut Rng) {
    // Each call has its own connection: nothing is sent twice.
    let call = |method: &str, path: &str, body: Option<Value>| -> Option<Response> {
        let client = Client::new(&caller.url);
        client.and_then(|mut client| client.call(Some(caller.root), method, path, body.as_ref())).ok()
    };
    match rng.below(100) {
        0..45 => create(log, rng, &call),
        45..60 => renew(log, rng, &call),
        60..80 => revoke(log, caller.is_cluster, rng, &call),
        80..91 => {
            let path = format!("database/rotate-role/svc{}", rng.below(STATIC));
            log.count(call("POST", &path, Some(json!({}))), &log.rotated);
        }
        _ => drop(log.count(call("POST", "database/rotate-root/pg", Some(json!({}))), &log.rotated_root)),
    }
}

type Call<'a> = &'a dyn Fn(&str, &str, Option<Value>) -> Option<Response>;

fn create(log: &LeaseLog, rng: &mut Rng, call: Call<'_>) {
    let is_short = rng.below(10) < 3;
    let role = if is_short { "short" } else { "long" };
    let response = log.count(call("GET", &format!("database/creds/{role}"), None), &log.created);
    let Some(body) = response.and_then(|response| response.json()) else { return };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    log.leases().push(Lease {
        id: text(&body["lease_id"]),
        user: text(&body["data"]["username"]),
        password: text(&body["data"]["password"]),
        is_short,
        state: LeaseState::Held,
    });
}

fn renew(log: &LeaseLog, rng: &mut Rng, call: Call<'_>) {
    let Some(lease) = log.take(rng, true) else { return create(log, rng, call) };
    let increment = 3600 * (5 + rng.below(10));
    let response = call("PUT", "sys/leases/renew", Some(json!({"lease_id": lease.id, "increment": increment})));
    log.count(response, &log.renewed);
    log.leases().push(lease);
}

fn revoke(log: &LeaseLog, is_cluster: bool, rng: &mut Rng, call: Call<'_>) {
    let Some(mut lease) = log.take(rng, false) else { return create(log, rng, call) };
    let sync = rng.below(2) == 0;
    let response = call("PUT", "sys/leases/revoke", Some(json!({"lease_id": lease.id, "sync": sync})));
    // The database may refuse after the revocation was recorded; it is then retried later.
    lease.state = match &response {
        Some(response) if !is_cluster || response.status < 300 => LeaseState::Ended,
        Some(_) | None => LeaseState::Uncertain,
    };
    log.count(response, &log.revoked);
    log.leases().push(lease);
}
