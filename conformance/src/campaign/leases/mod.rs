//! RL-13: leases of a real PostgreSQL while the server, or the leader of a cluster, is killed and the database is stopped
//! at every step. Afterwards the database users are exactly those of the live leases, and every rotated password still
//! works.

mod checks;
mod faults;
mod rotations;
mod work;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;

use self::faults::Fault;
use self::work::{Caller, LeaseLog};
use super::{Findings, Options};
use crate::postgres::Postgres;
use crate::rng::Rng;
use crate::served::Served;
use crate::servers::Make;

/// The number of static roles, whose passwords are rotated.
const STATIC: usize = 3;
/// Kills during scheduled rotations: one per this number of operations, and the minimum.
const KILLS_AT_ROTATIONS: (u64, u64) = (10, 3);
/// The number of concurrent operations.
const TOGETHER: u64 = 3;
/// The TTL of leases of the role `short`.
const SHORT: &str = "20s";

pub(super) fn run(options: &Options) -> Result<Findings> {
    let mut database = Postgres::start("-c fsync=off")?;
    let mut server = Served::start(options.on, options.nodes)?;
    prepare(options.on, &server, &database)?;
    let log = LeaseLog::default();
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    let rounds = options.count.div_ceil(TOGETHER);
    for round in 0..rounds {
        let mut rng = Rng::of(options.seed, round);
        let fault = Fault::draw(&mut rng, options.short);
        *faults.entry(fault.name()).or_default() += 1;
        let items = round * TOGETHER..((round + 1) * TOGETHER).min(options.count);
        let (urls, root, is_cluster) = (server.urls(), server.root().to_owned(), server.is_cluster());
        std::thread::scope(|scope| -> Result<()> {
            for item in items {
                let (log, root) = (&log, &root);
                let mut rng = Rng::of(options.seed, item + 1_000_000);
                // The operations of one node do not depend on the choice.
                let node = if is_cluster { rng.below(urls.len()) } else { 0 };
                let caller = Caller { url: urls[node].clone(), root, is_cluster };
                scope.spawn(move || work::operate(log, &caller, &mut rng));
            }
            // An operation takes some ten milliseconds: the fault happens during any of its steps, or after them.
            std::thread::sleep(Duration::from_micros(rng.below(80_000) as u64));
            fault.strike(&mut server, &mut database, &mut rng)
        })?;
    }
    let (each, least) = KILLS_AT_ROTATIONS;
    let mut rng = Rng::of(options.seed, rounds);
    let kills = (options.count / each).max(least);
    let seen = rotations::cut_off(options.on, &mut server, &database, &mut rng, kills)?;
    let mut found = Findings { passed: 0, failures: Vec::new(), numbers: String::new() };
    let settled = checks::settle(&server, &database, &mut found)?;
    rotations::check(options.on, &server, &mut server.client()?, &database, &mut found)?;
    checks::check(&server, &database, &log, &mut found)?;
    let faults: Vec<String> = faults.iter().map(|(name, times)| format!("{times} {name}")).collect();
    for (refusal, times) in log.refusals().iter() {
        println!("{times} times {refusal}");
    }
    let (log, settled) = (log.summary(), settled.as_secs());
    found.numbers = format!("{log}; {}; {}; settled after {settled} s", faults.join(", "), seen.summary());
    Ok(found)
}

/// Creates the administrator, the static users and the roles.
fn prepare(make: Make, server: &Served, database: &Postgres) -> Result<()> {
    database.sql("CREATE ROLE vault_root SUPERUSER LOGIN PASSWORD 'first_password'")?;
    database.sql("CREATE TABLE orders (id int PRIMARY KEY)")?;
    let mut client = server.client()?;
    let mut post = |path: &str, body: serde_json::Value| -> Result<()> {
        let response = client.call(Some(server.root()), "POST", path, Some(&body))?;
        if response.status >= 300 {
            bail!("{path}: {} {}", response.status, String::from_utf8_lossy(&response.body));
        }
        Ok(())
    };
    post("sys/mounts/database", json!({"type": "database"}))?;
    let url =
        format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres?sslmode=disable", database.port);
    post(
        "database/config/pg",
        json!({
            "plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "connection_url": url,
            "username": "vault_root", "password": "first_password",
        }),
    )?;
    for (role, ttl) in [("long", "4h"), ("short", SHORT)] {
        post(
            &format!("database/roles/{role}"),
            json!({
                "db_name": "pg", "default_ttl": ttl, "max_ttl": "24h",
                "creation_statements": [
                    "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';",
                    "GRANT SELECT ON orders TO \"{{name}}\";",
                ],
            }),
        )?;
    }
    for user in 0..STATIC {
        database.sql(&format!("CREATE ROLE svc{user} LOGIN PASSWORD 'before'"))?;
        post(
            &format!("database/static-roles/svc{user}"),
            json!({"db_name": "pg", "username": format!("svc{user}"), "rotation_period": "24h"}),
        )?;
    }
    rotations::prepare(make, database, &mut post)
}

/// Sends a body to a path.
type Post<'a> = &'a mut dyn FnMut(&str, serde_json::Value) -> Result<()>;

fn hold(found: &mut Findings, right: bool, what: impl FnOnce() -> String) {
    match right {
        true => found.passed += 1,
        false => found.failures.push(what()),
    }
}
