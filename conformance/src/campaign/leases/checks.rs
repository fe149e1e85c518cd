//! Checks of the server and the database after all work has finished.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::work::{Lease, LeaseLog, LeaseState};
use super::{STATIC, hold};
use crate::campaign::Findings;
use crate::http::Client;
use crate::postgres::Postgres;
use crate::served::Served;

/// The maximum time to settle: the timeout of intents, the backoff between retries, the TTL of short leases.
const SETTLE: Duration = Duration::from_secs(400);
/// The time without a change that counts as settled.
const REST: Duration = Duration::from_secs(35);

/// Waits until leases and users are stable and equally many; returns the time that it took.
pub(super) fn settle(server: &Served, database: &Postgres, found: &mut Findings) -> Result<Duration> {
    let started = Instant::now();
    let (mut last, mut since) = ((BTreeSet::new(), BTreeSet::new()), Instant::now());
    loop {
        let now = (leases(server)?, users(database)?);
        let is_even = now.0.len() == now.1.len();
        if now != last || !is_even {
            (last, since) = (now, Instant::now());
        }
        if since.elapsed() > REST {
            return Ok(started.elapsed().saturating_sub(REST));
        }
        if started.elapsed() > SETTLE {
            let text = format!("{} leases and {} users after {SETTLE:?}", last.0.len(), last.1.len());
            found.failures.push(text);
            return Ok(started.elapsed());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Compares the log with the server and the database.
pub(super) fn check(server: &Served, database: &Postgres, log: &LeaseLog, found: &mut Findings) -> Result<()> {
    let (ids, users_there) = (leases(server)?, users(database)?);
    let mut client = server.client()?;
    let known = log.leases();
    for lease in known.iter() {
        let (listed, exists) = (ids.contains(&lease.id), users_there.contains(&lease.user));
        let right = match lease.state {
            LeaseState::Ended => !listed && !exists,
            LeaseState::Held if lease.is_short => !listed && !exists,
            LeaseState::Held => listed && exists,
            LeaseState::Uncertain => listed == exists,
        };
        hold(found, right, || format!("{} ({:?}): lease {listed}, user {exists}", lease.user, lease.state));
        if exists && listed {
            hold(found, database.accepts(&lease.user, &lease.password)?, || format!("{} cannot log in", lease.user));
            hold(found, outlives(server, &mut client, database, lease)?, || {
                format!("{}: the user expires before its lease", lease.user)
            });
        }
    }
    let mut unclaimed: BTreeSet<String> = users_there.clone();
    let mut unanswered: BTreeSet<String> = ids.clone();
    for lease in known.iter() {
        unclaimed.remove(&lease.user);
        unanswered.remove(&lease.id);
    }
    // A creation with a lost response may have succeeded: then there is one user for one lease.
    hold(found, unclaimed.len() == unanswered.len(), || format!("users {unclaimed:?}, leases {unanswered:?}"));
    for id in unanswered {
        put(server, &mut client, "sys/leases/revoke", &json!({"lease_id": id, "sync": true}))?;
        let left: BTreeSet<String> = users(database)?.intersection(&unclaimed).cloned().collect();
        hold(found, left.len() + 1 == unclaimed.len(), || format!("{id} did not delete exactly one user"));
        unclaimed = left;
    }
    passwords(server, &mut client, database, found)?;
    let put = put(server, &mut client, "sys/leases/revoke-prefix/database", &json!({"sync": true}));
    hold(found, put.is_ok(), || format!("revoke-prefix: {put:?}"));
    let (ids, users_there) = (leases(server)?, users(database)?);
    hold(found, ids.is_empty() && users_there.is_empty(), || format!("left at the end: {ids:?} {users_there:?}"));
    Ok(())
}

/// Checks that every rotated password works on a new connection, including the administrator's.
fn passwords(server: &Served, client: &mut Client, database: &Postgres, found: &mut Findings) -> Result<()> {
    for user in (0..STATIC).map(|n| format!("svc{n}")) {
        let shown = client.call(Some(server.root()), "GET", &format!("database/static-creds/{user}"), None)?;
        let body = shown.json().unwrap_or_default();
        let password = body["data"]["password"].as_str().unwrap_or_default();
        hold(found, database.accepts(&user, password)?, || format!("the password of {user} is lost: {}", shown.status));
    }
    put(server, client, "database/reset/pg", &json!({}))?;
    let made = client.call(Some(server.root()), "GET", "database/creds/long", None)?;
    let body = made.json().unwrap_or_default();
    let text = |name: &str| body["data"][name].as_str().unwrap_or_default().to_owned();
    let works = made.status == 200 && database.accepts(&text("username"), &text("password"))?;
    hold(found, works, || format!("the administrator's password is lost: {} {body}", made.status));
    let again = put(server, client, "database/rotate-root/pg", &json!({}));
    hold(found, again.is_ok(), || format!("rotate-root after settling: {again:?}"));
    let listed = client.call(Some(server.root()), "GET", "sys/leases?type=irrevocable", None)?;
    let irrevocable = listed.json().unwrap_or_default()["data"]["lease_count"].as_u64();
    hold(found, irrevocable == Some(0), || format!("{irrevocable:?} irrevocable leases"));
    Ok(())
}

/// Whether the database accepts a user until its lease expires.
fn outlives(server: &Served, client: &mut Client, database: &Postgres, lease: &Lease) -> Result<bool> {
    let body = json!({"lease_id": lease.id});
    let looked = client.call(Some(server.root()), "PUT", "sys/leases/lookup", Some(&body))?;
    let ttl = looked.json().unwrap_or_default()["data"]["ttl"].as_i64().context("no ttl")?;
    let statement = format!(
        "SELECT extract(epoch FROM rolvaliduntil - now())::bigint FROM pg_roles WHERE rolname = '{}'",
        lease.user
    );
    // Seconds are rounded, and the request takes time.
    Ok(database.sql(&statement)?.parse::<i64>()? >= ttl - 3)
}

/// The ids of all leases of credentials.
fn leases(server: &Served) -> Result<BTreeSet<String>> {
    let mut client = server.client()?;
    let mut ids = BTreeSet::new();
    for role in ["long", "short"] {
        let path = format!("database/creds/{role}");
        let response = client.call(Some(server.root()), "LIST", &format!("sys/leases/lookup/{path}"), None)?;
        let body = response.json().unwrap_or_default();
        let keys = body["data"]["keys"].as_array().cloned().unwrap_or_default();
        ids.extend(keys.iter().filter_map(Value::as_str).map(|key| format!("{path}/{key}")));
    }
    Ok(ids)
}

/// The database users of the server.
fn users(database: &Postgres) -> Result<BTreeSet<String>> {
    let names = database.sql("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'")?;
    Ok(names.lines().filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

fn put(server: &Served, client: &mut Client, path: &str, body: &Value) -> Result<()> {
    let response = client.call(Some(server.root()), "PUT", path, Some(body))?;
    anyhow::ensure!(response.status < 300, "{path}: {} {}", response.status, String::from_utf8_lossy(&response.body));
    Ok(())
}
