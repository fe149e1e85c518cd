//! RL-13: leases of a real PostgreSQL while the server is killed and the database is stopped at every step. Afterwards the
//! users of the database are those of the live leases, exactly, and every password that was rotated still works.

mod faults;
mod judge;
mod rotations;
mod work;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;

use self::faults::Fault;
use self::work::Book;
use super::{Found, Options};
use crate::dice::Dice;
use crate::postgres::Postgres;
use crate::servers::{Make, Server, Storage};

/// Users whose passwords are rotated.
const STATIC: usize = 3;
/// Kills at rotations that are due by themselves, for each operation of the campaign; and at least.
const KILLS_AT_ROTATIONS: (u64, u64) = (10, 3);
/// Operations at once.
const TOGETHER: u64 = 3;
/// The life of a lease of the role `short`.
const SHORT: &str = "20s";

pub(super) fn run(options: &Options) -> Result<Found> {
    let mut database = Postgres::start("-c fsync=off")?;
    let mut server = Server::start_unsealed(options.on, Storage::Durable)?;
    prepare(options.on, &server, &database)?;
    let book = Book::default();
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    let rounds = options.count.div_ceil(TOGETHER);
    for round in 0..rounds {
        let mut dice = Dice::of(options.seed, round);
        let fault = Fault::draw(&mut dice, options.short);
        *faults.entry(fault.name()).or_default() += 1;
        let items = round * TOGETHER..((round + 1) * TOGETHER).min(options.count);
        let (url, root) = (server.url.clone(), server.root.clone());
        std::thread::scope(|scope| -> Result<()> {
            for item in items {
                let (book, url, root) = (&book, &url, &root);
                scope.spawn(move || work::operate(book, url, root, &mut Dice::of(options.seed, item + 1_000_000)));
            }
            // An operation takes some ten milliseconds: this falls into any of its steps, or behind them.
            std::thread::sleep(Duration::from_micros(dice.below(80_000) as u64));
            fault.strike(&mut server, &mut database, &mut dice)
        })?;
    }
    let (each, least) = KILLS_AT_ROTATIONS;
    let mut dice = Dice::of(options.seed, rounds);
    let kills = (options.count / each).max(least);
    let seen = rotations::cut_off(options.on, &mut server, &database, &mut dice, kills)?;
    let mut found = Found { passed: 0, failures: Vec::new(), numbers: String::new() };
    let settled = judge::settle(&server, &database, &mut found)?;
    rotations::judge(options.on, &server, &mut server.client()?, &database, &mut found)?;
    judge::judge(&server, &database, &book, &mut found)?;
    let faults: Vec<String> = faults.iter().map(|(name, times)| format!("{times} {name}")).collect();
    let (book, settled) = (book.summary(), settled.as_secs());
    found.numbers = format!("{book}; {}; {}; settled after {settled} s", faults.join(", "), seen.summary());
    Ok(found)
}

/// The administrator, the rotated users, the roles.
fn prepare(make: Make, server: &Server, database: &Postgres) -> Result<()> {
    database.sql("CREATE ROLE vault_root SUPERUSER LOGIN PASSWORD 'first_password'")?;
    database.sql("CREATE TABLE orders (id int PRIMARY KEY)")?;
    let mut client = server.client()?;
    let mut post = |path: &str, body: serde_json::Value| -> Result<()> {
        let answer = client.call(Some(&server.root), "POST", path, Some(&body))?;
        if answer.status >= 300 {
            bail!("{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
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

fn hold(found: &mut Found, right: bool, what: impl FnOnce() -> String) {
    match right {
        true => found.passed += 1,
        false => found.failures.push(what()),
    }
}
