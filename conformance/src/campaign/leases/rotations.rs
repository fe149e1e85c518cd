//! Scheduled password rotations, by period and by cron schedule, while the server is killed during them.
//!
//! Engines tick five seconds after unseal. The server is killed at about that time, again and again: each kill happens
//! during some step of the rotations, or outside them. Afterwards the rotations are slowed down, so that no later
//! rotation hides a lost password, and each password must be accepted.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Post, hold};
use crate::campaign::Findings;
use crate::http::Client;
use crate::postgres::Postgres;
use crate::rng::Rng;
use crate::served::Served;
use crate::servers::Make;

/// The number of users with a period of five seconds.
const PERIODIC: usize = 8;
/// The number of users whose passwords rotate every minute; OpenBao has no schedules.
const SCHEDULED: usize = 2;
/// The time from unseal to the first tick of the engines.
const TICK: Duration = Duration::from_secs(5);
/// The duration of the rotations of one tick in milliseconds, and the lead before it.
const SPAN_MS: usize = 400;
const BEFORE: Duration = Duration::from_millis(30);
/// The time within which an interrupted rotation must be resumed.
const RECOVERY: Duration = Duration::from_secs(40);

/// The observed rotations.
#[derive(Default)]
pub(super) struct Observed {
    kills: u64,
    /// Kills after which the database already had a password that the server did not return yet.
    in_the_middle: u64,
    /// The user and time of each password.
    rotations: BTreeSet<(String, String)>,
}

impl Observed {
    pub(super) fn summary(&self) -> String {
        let Observed { kills, in_the_middle, rotations } = self;
        format!("{} rotations on time, {kills} kills at them, {in_the_middle} in the middle", rotations.len())
    }
}

fn roles(make: Make) -> Vec<(String, Value)> {
    let periodic = (0..PERIODIC).map(|n| (format!("often{n}"), json!({"rotation_period": 5})));
    let scheduled = (0..SCHEDULED).map(|n| (format!("minute{n}"), json!({"rotation_schedule": "* * * * *"})));
    periodic.chain(scheduled.filter(|_| make == Make::Keepfast)).collect()
}

/// Creates the users and their roles.
pub(super) fn prepare(make: Make, database: &Postgres, post: Post<'_>) -> Result<()> {
    for (user, mut rhythm) in roles(make) {
        database.sql(&format!("CREATE ROLE {user} LOGIN PASSWORD 'before'"))?;
        rhythm["db_name"] = "pg".into();
        rhythm["username"] = user.as_str().into();
        post(&format!("database/static-roles/{user}"), rhythm)?;
    }
    Ok(())
}

/// Kills the server at `kills` ticks, and at as many more as needed until a minute is over.
pub(super) fn cut_off(
    make: Make,
    server: &mut Served,
    database: &Postgres,
    rng: &mut Rng,
    least: u64,
) -> Result<Observed> {
    let mut seen = Observed::default();
    let minute = || database.sql("SELECT extract(epoch FROM now())::bigint / 60");
    let started = minute()?;
    server.kill()?;
    server.open()?;
    while seen.kills < least || minute()? == started {
        let opened = Instant::now();
        let mut client = server.client()?;
        let mut middle = false;
        for (user, _) in roles(make) {
            let (password, at) = read_password(server, &mut client, &user)?;
            middle |= !database.accepts(&user, &password)?;
            seen.rotations.insert((user, at));
        }
        seen.in_the_middle += u64::from(middle);
        let moment = TICK - BEFORE + Duration::from_millis(rng.below(SPAN_MS) as u64);
        std::thread::sleep(moment.saturating_sub(opened.elapsed()));
        server.kill()?;
        server.open()?;
        seen.kills += 1;
    }
    Ok(seen)
}

/// Checks that every returned password is accepted.
pub(super) fn check(
    make: Make,
    server: &Served,
    client: &mut Client,
    database: &Postgres,
    found: &mut Findings,
) -> Result<()> {
    for (user, _) in roles(make) {
        let slow = json!({"username": user, "rotation_period": "24h"});
        let path = format!("database/static-roles/{user}");
        let until = Instant::now() + RECOVERY;
        let slowed = loop {
            // A rotation in progress may conflict.
            let response = client.call(Some(server.root()), "POST", &path, Some(&slow))?;
            if response.status < 300 || Instant::now() > until {
                break response;
            }
        };
        ensure!(slowed.status < 300, "{path}: {} {}", slowed.status, String::from_utf8_lossy(&slowed.body));
        let works = loop {
            let (password, _) = read_password(server, client, &user)?;
            if database.accepts(&user, &password)? {
                break true;
            }
            if Instant::now() > until {
                break false;
            }
            std::thread::sleep(Duration::from_millis(200));
        };
        hold(found, works, || format!("the password of {user}, which is rotated on schedule, is lost"));
    }
    Ok(())
}

/// The password that the server returns, and the time of its rotation.
fn read_password(server: &Served, client: &mut Client, user: &str) -> Result<(String, String)> {
    let response = client.call(Some(server.root()), "GET", &format!("database/static-creds/{user}"), None)?;
    let body = response.json().context("no JSON")?;
    let text = |name: &str| body["data"][name].as_str().unwrap_or_default().to_owned();
    ensure!(response.status == 200, "static-creds/{user}: {} {body}", response.status);
    Ok((text("password"), text("last_vault_rotation")))
}
