//! What must be true once everything has come to rest.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::work::{Book, Lease, Standing};
use super::{STATIC, hold};
use crate::campaign::Found;
use crate::http::Client;
use crate::postgres::Postgres;
use crate::servers::Server;

/// How long what was begun may take: the patience for intents, the pauses between tries, the life of short leases.
const SETTLE: Duration = Duration::from_secs(400);
/// How long nothing may change before it counts as rest.
const REST: Duration = Duration::from_secs(35);

/// Waits until leases and users stay the same and as many as each other; how long that took.
pub(super) fn settle(server: &Server, database: &Postgres, found: &mut Found) -> Result<Duration> {
    let begun = Instant::now();
    let (mut last, mut since) = ((BTreeSet::new(), BTreeSet::new()), Instant::now());
    loop {
        let now = (leases(server)?, users(database)?);
        let is_even = now.0.len() == now.1.len();
        if now != last || !is_even {
            (last, since) = (now, Instant::now());
        }
        if since.elapsed() > REST {
            return Ok(begun.elapsed().saturating_sub(REST));
        }
        if begun.elapsed() > SETTLE {
            let text = format!("{} leases and {} users after {SETTLE:?}", last.0.len(), last.1.len());
            found.failures.push(text);
            return Ok(begun.elapsed());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Holds the book against the server and the database.
pub(super) fn judge(server: &Server, database: &Postgres, book: &Book, found: &mut Found) -> Result<()> {
    let (ids, users_there) = (leases(server)?, users(database)?);
    let mut client = server.client()?;
    let known = book.leases();
    for lease in known.iter() {
        let (listed, exists) = (ids.contains(&lease.id), users_there.contains(&lease.user));
        let right = match lease.standing {
            Standing::Ended => !listed && !exists,
            Standing::Held if lease.is_short => !listed && !exists,
            Standing::Held => listed && exists,
            Standing::Uncertain => listed == exists,
        };
        hold(found, right, || format!("{} ({:?}): lease {listed}, user {exists}", lease.user, lease.standing));
        if exists && listed {
            hold(found, database.accepts(&lease.user, &lease.password)?, || format!("{} cannot log in", lease.user));
            hold(found, outlives(server, &mut client, database, lease)?, || {
                format!("{}: the database ends it before its lease", lease.user)
            });
        }
    }
    let mut unclaimed: BTreeSet<String> = users_there.clone();
    let mut unanswered: BTreeSet<String> = ids.clone();
    for lease in known.iter() {
        unclaimed.remove(&lease.user);
        unanswered.remove(&lease.id);
    }
    // A creation whose answer was cut off may have come to its end: then there is one user for one lease.
    hold(found, unclaimed.len() == unanswered.len(), || format!("users {unclaimed:?}, leases {unanswered:?}"));
    for id in unanswered {
        put(server, &mut client, "sys/leases/revoke", &json!({"lease_id": id, "sync": true}))?;
        let left: BTreeSet<String> = users(database)?.intersection(&unclaimed).cloned().collect();
        hold(found, left.len() + 1 == unclaimed.len(), || format!("{id} did not end exactly one user"));
        unclaimed = left;
    }
    passwords(server, &mut client, database, found)?;
    let put = put(server, &mut client, "sys/leases/revoke-prefix/database", &json!({"sync": true}));
    hold(found, put.is_ok(), || format!("revoke-prefix: {put:?}"));
    let (ids, users_there) = (leases(server)?, users(database)?);
    hold(found, ids.is_empty() && users_there.is_empty(), || format!("left at the end: {ids:?} {users_there:?}"));
    Ok(())
}

/// Every rotated password works, that of the administrator too, on a connection that is made anew.
fn passwords(server: &Server, client: &mut Client, database: &Postgres, found: &mut Found) -> Result<()> {
    for user in (0..STATIC).map(|n| format!("svc{n}")) {
        let shown = client.call(Some(&server.root), "GET", &format!("database/static-creds/{user}"), None)?;
        let body = shown.json().unwrap_or_default();
        let password = body["data"]["password"].as_str().unwrap_or_default();
        hold(found, database.accepts(&user, password)?, || format!("the password of {user} is lost: {}", shown.status));
    }
    put(server, client, "database/reset/pg", &json!({}))?;
    let made = client.call(Some(&server.root), "GET", "database/creds/long", None)?;
    let body = made.json().unwrap_or_default();
    let text = |name: &str| body["data"][name].as_str().unwrap_or_default().to_owned();
    let works = made.status == 200 && database.accepts(&text("username"), &text("password"))?;
    hold(found, works, || format!("the administrator's password is lost: {} {body}", made.status));
    let again = put(server, client, "database/rotate-root/pg", &json!({}));
    hold(found, again.is_ok(), || format!("rotate-root at rest: {again:?}"));
    let listed = client.call(Some(&server.root), "GET", "sys/leases?type=irrevocable", None)?;
    let irrevocable = listed.json().unwrap_or_default()["data"]["lease_count"].as_u64();
    hold(found, irrevocable == Some(0), || format!("{irrevocable:?} irrevocable leases"));
    Ok(())
}

/// Whether the database lets a user in for as long as its lease says.
fn outlives(server: &Server, client: &mut Client, database: &Postgres, lease: &Lease) -> Result<bool> {
    let body = json!({"lease_id": lease.id});
    let looked = client.call(Some(&server.root), "PUT", "sys/leases/lookup", Some(&body))?;
    let ttl = looked.json().unwrap_or_default()["data"]["ttl"].as_i64().context("no ttl")?;
    let statement = format!(
        "SELECT extract(epoch FROM rolvaliduntil - now())::bigint FROM pg_roles WHERE rolname = '{}'",
        lease.user
    );
    // Seconds are rounded, and the question takes a moment.
    Ok(database.sql(&statement)?.parse::<i64>()? >= ttl - 3)
}

/// The ids of all leases of credentials.
fn leases(server: &Server) -> Result<BTreeSet<String>> {
    let mut client = server.client()?;
    let mut ids = BTreeSet::new();
    for role in ["long", "short"] {
        let path = format!("database/creds/{role}");
        let answer = client.call(Some(&server.root), "LIST", &format!("sys/leases/lookup/{path}"), None)?;
        let body = answer.json().unwrap_or_default();
        let keys = body["data"]["keys"].as_array().cloned().unwrap_or_default();
        ids.extend(keys.iter().filter_map(Value::as_str).map(|key| format!("{path}/{key}")));
    }
    Ok(ids)
}

/// The users that the server has made.
fn users(database: &Postgres) -> Result<BTreeSet<String>> {
    let names = database.sql("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'")?;
    Ok(names.lines().filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

fn put(server: &Server, client: &mut Client, path: &str, body: &Value) -> Result<()> {
    let answer = client.call(Some(&server.root), "PUT", path, Some(body))?;
    anyhow::ensure!(answer.status < 300, "{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
    Ok(())
}
