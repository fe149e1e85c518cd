//! Many leases: their cost in memory and at unseal. Then a tenth of them more expires within one minute, while secrets
//! are read.
//!
//! The leases are real leases of the database engine whose statements only count: `nextval` of a sequence at creation
//! and at revocation. A million of them is created quickly, and the database knows the number of revocations.

mod cluster;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::tokens::{resident, restart};
use super::{Findings, Options};
use crate::http::Client;
use crate::postgres::Postgres;
use crate::servers::{Make, Server, Storage};

/// The time in seconds within which the leases expire.
const WINDOW: u64 = 60;
/// The time after the first expiry within which all must be revoked.
const LIMIT: Duration = Duration::from_secs(120);
/// How long reads are measured before the first expiry.
const CALM: Duration = Duration::from_secs(15);
/// The number of concurrent readers, and the interval of their reads.
const READERS: u64 = 4;
const PACE: Duration = Duration::from_millis(4);
const KEYS: u64 = 1000;

/// The address and the root token of a server, or of a node of a cluster.
struct Api {
    url: String,
    root: String,
}

impl Api {
    fn client(&self) -> Result<Client> {
        Client::new(&self.url)
    }
}

pub(super) fn run(options: &Options) -> Result<Findings> {
    if options.nodes > 1 {
        return cluster::run(options);
    }
    let database = Postgres::start("-c fsync=off")?;
    let mut server = Server::start_unsealed(options.on, Storage::Durable)?;
    let empty_unseal = restart(&mut server)?;
    let empty_rss = resident(&server)?;
    let api = Api { url: server.url.clone(), root: server.root.clone() };
    prepare(&api, &database)?;
    set_role(&api, "many", 100 * 3600)?;
    let started = Instant::now();
    create(&api, options.connections, options.count, "many")?;
    let rate = options.count as f64 / started.elapsed().as_secs_f64();
    let full_rss = resident(&server)?;
    let full_unseal = restart(&mut server)?;
    let after_rss = resident(&server)?;
    if options.pause {
        println!("{} leases exist; press Enter to continue", options.count);
        std::io::stdin().read_line(&mut String::new())?;
    }
    let fall = fall_due(&api, &database, options, rate)?;
    let each = |rss: u64| rss.saturating_sub(empty_rss) as f64 / options.count as f64;
    let mut found = Findings { passed: fall.reads, failures: Vec::new(), numbers: String::new() };
    found.numbers = format!(
        "made at {rate:.0}/s; memory {} KB empty, {} KB full ({:.0} bytes each), {} KB after a restart ({:.0} each); start \
         to unsealed {} ms empty, {} ms full; {} due within {WINDOW} s, all revoked after {:.1} s; kv2-read p99 {:.2} ms \
         before and {:.2} ms meanwhile (p50 {:.2} and {:.2}, {} reads a second)",
        empty_rss / 1024,
        full_rss / 1024,
        each(full_rss),
        after_rss / 1024,
        each(after_rss),
        empty_unseal.as_millis(),
        full_unseal.as_millis(),
        fall.due,
        fall.took.as_secs_f64(),
        fall.calm.p99,
        fall.busy.p99,
        fall.calm.p50,
        fall.busy.p50,
        READERS * 1000 / PACE.as_millis() as u64,
    );
    if options.on == Make::Keepfast {
        let mut hold = |right: bool, what: &str| match right {
            true => found.passed += 1,
            false => found.failures.push(format!("{what}: {}", found.numbers)),
        };
        hold(fall.took <= LIMIT, "revoked too late");
        hold(fall.left == 0, "leases remain");
        hold(full_unseal <= empty_unseal + Duration::from_secs(1), "unseal takes more than a second longer");
        // Small numbers of leases do not show these.
        hold(options.short || each(full_rss) <= 100.0, "more than 100 bytes a lease");
        hold(options.short || fall.busy.p99 <= 2.0 * fall.calm.p99, "reads are slower than twice");
    }
    Ok(found)
}

/// The measurements while leases expire.
struct Fall {
    due: u64,
    took: Duration,
    calm: Times,
    busy: Times,
    reads: u64,
    left: usize,
}

/// Latencies in milliseconds.
struct Times {
    p50: f64,
    p99: f64,
}

fn fall_due(server: &Api, database: &Postgres, options: &Options, rate: f64) -> Result<Fall> {
    let due = (options.due.unwrap_or(options.count / 10) / WINDOW).max(1) * WINDOW;
    let before: u64 = revoked(database)?;
    // Time to create all leases, to measure before they expire, and to be late.
    let making = Duration::from_secs_f64(due as f64 / rate * 1.5);
    let first = Instant::now() + making + CALM + Duration::from_secs(20);
    for second in 0..WINDOW {
        let end = first + Duration::from_secs(second);
        set_role(server, "due", end.saturating_duration_since(Instant::now()).as_secs().max(1))?;
        create(server, options.connections, due / WINDOW, "due")?;
    }
    if Instant::now() + CALM > first {
        bail!("creating {due} leases took longer than expected");
    }
    let (calm, calm_reads) = read_while(server, || Ok(Instant::now() + Duration::from_millis(500) < first))?;
    std::thread::sleep(first.saturating_duration_since(Instant::now()));
    let (busy, busy_reads) = read_while(server, || {
        let done = revoked(database)? >= before + due;
        Ok(!done && first.elapsed() < 5 * LIMIT)
    })?;
    let took = first.elapsed();
    let listed = server.client()?.call(Some(&server.root), "LIST", "sys/leases/lookup/database/creds/due", None)?;
    let left = listed.json().and_then(|b| b["data"]["keys"].as_array().map(Vec::len)).unwrap_or(0);
    Ok(Fall { due, took, calm, busy, reads: calm_reads + busy_reads, left })
}

/// Reads secrets at a steady pace while `goes_on` returns true.
fn read_while(server: &Api, goes_on: impl Fn() -> Result<bool>) -> Result<(Times, u64)> {
    let over = AtomicBool::new(false);
    let read = |reader: u64| -> Result<Vec<f64>> {
        let mut client = server.client()?;
        let (mut taken, mut next) = (Vec::new(), Instant::now());
        while !over.load(Ordering::Relaxed) {
            let path = format!("kv/data/k{}", (taken.len() as u64 * READERS + reader) % KEYS);
            let started = Instant::now();
            let response = client.call(Some(&server.root), "GET", &path, None)?;
            if response.status != 200 {
                bail!("{path}: {}", response.status);
            }
            taken.push(started.elapsed().as_secs_f64() * 1000.0);
            next += PACE;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(taken)
    };
    let mut all = std::thread::scope(|scope| -> Result<Vec<f64>> {
        let readers: Vec<_> = (0..READERS).map(|reader| scope.spawn(move || read(reader))).collect();
        let outcome = loop {
            match goes_on() {
                Ok(true) => std::thread::sleep(Duration::from_millis(250)),
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        over.store(true, Ordering::Relaxed);
        outcome?;
        let mut all = Vec::new();
        for reader in readers {
            all.extend(reader.join().unwrap_or_else(|_| bail!("a reader panicked"))?);
        }
        Ok(all)
    })?;
    all.sort_by(f64::total_cmp);
    let at = |part: f64| all.get((all.len() as f64 * part) as usize).copied().unwrap_or_default();
    Ok((Times { p50: at(0.5), p99: at(0.99) }, all.len() as u64))
}

fn prepare(server: &Api, database: &Postgres) -> Result<()> {
    database.sql("CREATE ROLE vault_root SUPERUSER LOGIN PASSWORD 'first_password'")?;
    database.sql("CREATE SEQUENCE created; CREATE SEQUENCE revoked MINVALUE 0 START 0; SELECT nextval('revoked')")?;
    post(server, "sys/mounts/database", &json!({"type": "database"}))?;
    post(server, "sys/mounts/database/tune", &json!({"max_lease_ttl": "2000h"}))?;
    let url =
        format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres?sslmode=disable", database.port);
    let config = json!({
        "plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "connection_url": url,
        "username": "vault_root", "password": "first_password",
    });
    post(server, "database/config/pg", &config)?;
    post(server, "sys/mounts/kv", &json!({"type": "kv", "options": {"version": "2"}}))?;
    // A fresh mount of OpenBao is not ready at once.
    let started = Instant::now();
    while post(server, "kv/data/k0", &json!({"data": {"v": 0}})).is_err() && started.elapsed().as_secs() < 10 {
        std::thread::sleep(Duration::from_millis(50));
    }
    (0..KEYS).try_for_each(|key| post(server, &format!("kv/data/k{key}"), &json!({"data": {"v": "x".repeat(200)}})))
}

/// Writes a role whose leases have a TTL of `seconds`.
fn set_role(server: &Api, role: &str, seconds: u64) -> Result<()> {
    let body = json!({
        "db_name": "pg", "default_ttl": seconds, "max_ttl": "1000h",
        "creation_statements": ["SELECT nextval('created')"],
        "revocation_statements": ["SELECT nextval('revoked')"],
    });
    post(server, &format!("database/roles/{role}"), &body)
}

/// The number of revocations that the database executed.
fn revoked(database: &Postgres) -> Result<u64> {
    Ok(database.sql("SELECT last_value FROM revoked")?.parse()?)
}

/// Creates leases over all connections.
fn create(server: &Api, connections: u64, count: u64, role: &str) -> Result<()> {
    let next = AtomicU64::new(0);
    let path = format!("database/creds/{role}");
    let make = || -> Result<()> {
        let mut client = server.client()?;
        while next.fetch_add(1, Ordering::Relaxed) < count {
            let response = client.call(Some(&server.root), "GET", &path, None)?;
            if response.status != 200 {
                bail!("{path}: {} {}", response.status, String::from_utf8_lossy(&response.body));
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(make)).collect();
        threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| bail!("a thread panicked")))
    })
}

fn post(server: &Api, path: &str, body: &Value) -> Result<()> {
    let response = server.client()?.call(Some(&server.root), "POST", path, Some(body)).context(path.to_owned())?;
    if response.status >= 300 {
        bail!("{path}: {} {}", response.status, String::from_utf8_lossy(&response.body));
    }
    Ok(())
}
