//! One operation of the campaign, and the book of what was acknowledged.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::STATIC;
use crate::dice::Dice;
use crate::http::{Answer, Client};

/// How a lease stands, as far as answers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Acknowledged and never revoked.
    Held,
    /// Its revocation was acknowledged, or noted before it failed.
    Ended,
    /// Its revocation was cut off: either is right.
    Uncertain,
}

/// A lease whose creation was acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) id: String,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) is_short: bool,
    pub(super) standing: Standing,
}

/// What all workers know.
#[derive(Default)]
pub(super) struct Book {
    leases: Mutex<Vec<Lease>>,
    created: AtomicU64,
    renewed: AtomicU64,
    revoked: AtomicU64,
    rotated: AtomicU64,
    rotated_root: AtomicU64,
    failed: AtomicU64,
    cut_off: AtomicU64,
}

impl Book {
    /// All leases that were acknowledged.
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

    /// Counts an answer; the answer if it was a good one.
    fn count(&self, answer: Option<Answer>, good: &AtomicU64) -> Option<Answer> {
        match answer {
            None => drop(self.cut_off.fetch_add(1, Ordering::Relaxed)),
            Some(answer) if answer.status >= 300 => drop(self.failed.fetch_add(1, Ordering::Relaxed)),
            Some(answer) => {
                good.fetch_add(1, Ordering::Relaxed);
                return Some(answer);
            }
        }
        None
    }

    /// Takes a lease that is held out of the book, so that nobody else works on it.
    fn take(&self, dice: &mut Dice, long_only: bool) -> Option<Lease> {
        let mut leases = self.leases();
        let held: Vec<usize> = (0..leases.len())
            .filter(|at| leases[*at].standing == Standing::Held && !(long_only && leases[*at].is_short))
            .collect();
        let at = *held.get(dice.below(held.len()))?;
        Some(leases.swap_remove(at))
    }
}

/// Does one thing by chance.
pub(super) fn operate(book: &Book, url: &str, root: &str, dice: &mut Dice) {
    // Each on a connection of its own: nothing is sent twice.
    let call = |method: &str, path: &str, body: Option<Value>| -> Option<Answer> {
        Client::new(url).and_then(|mut client| client.call(Some(root), method, path, body.as_ref())).ok()
    };
    match dice.below(100) {
        0..45 => create(book, dice, &call),
        45..60 => renew(book, dice, &call),
        60..80 => revoke(book, dice, &call),
        80..91 => {
            let path = format!("database/rotate-role/svc{}", dice.below(STATIC));
            book.count(call("POST", &path, Some(json!({}))), &book.rotated);
        }
        _ => drop(book.count(call("POST", "database/rotate-root/pg", Some(json!({}))), &book.rotated_root)),
    }
}

type Call<'a> = &'a dyn Fn(&str, &str, Option<Value>) -> Option<Answer>;

fn create(book: &Book, dice: &mut Dice, call: Call<'_>) {
    let is_short = dice.below(10) < 3;
    let role = if is_short { "short" } else { "long" };
    let answer = book.count(call("GET", &format!("database/creds/{role}"), None), &book.created);
    let Some(body) = answer.and_then(|answer| answer.json()) else { return };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    book.leases().push(Lease {
        id: text(&body["lease_id"]),
        user: text(&body["data"]["username"]),
        password: text(&body["data"]["password"]),
        is_short,
        standing: Standing::Held,
    });
}

fn renew(book: &Book, dice: &mut Dice, call: Call<'_>) {
    let Some(lease) = book.take(dice, true) else { return create(book, dice, call) };
    let increment = 3600 * (5 + dice.below(10));
    let answer = call("PUT", "sys/leases/renew", Some(json!({"lease_id": lease.id, "increment": increment})));
    book.count(answer, &book.renewed);
    book.leases().push(lease);
}

fn revoke(book: &Book, dice: &mut Dice, call: Call<'_>) {
    let Some(mut lease) = book.take(dice, false) else { return create(book, dice, call) };
    let sync = dice.below(2) == 0;
    let answer = call("PUT", "sys/leases/revoke", Some(json!({"lease_id": lease.id, "sync": sync})));
    // A refusal of the database comes after the revocation was noted: it is done later.
    lease.standing = if answer.is_some() { Standing::Ended } else { Standing::Uncertain };
    book.count(answer, &book.revoked);
    book.leases().push(lease);
}
