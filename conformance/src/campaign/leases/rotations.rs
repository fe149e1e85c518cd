//! Passwords that are changed on time, by a period and by a schedule, while the server is killed in the middle of it.
//!
//! Engines look at what is due five seconds after the server was opened. So the server is killed about then, again and
//! again: each kill falls into some step of the rotations, or beside them. Afterwards the rotations are slowed down, so
//! that none covers up a password that was lost, and each password must let its user in.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Post, faults, hold};
use crate::campaign::Found;
use crate::dice::Dice;
use crate::http::Client;
use crate::postgres::Postgres;
use crate::servers::{Make, Server};

/// Users with a period of five seconds.
const PERIODIC: usize = 8;
/// Users whose passwords change with every minute; the peer has no schedules.
const SCHEDULED: usize = 2;
/// When engines look, after the server was opened.
const LOOK: Duration = Duration::from_secs(5);
/// How long the rotations at one look take, and a little before.
const SPAN_MS: usize = 400;
const BEFORE: Duration = Duration::from_millis(30);
/// How long a rotation that was cut off may take to be taken up.
const RECOVERY: Duration = Duration::from_secs(40);

/// What was seen of the rotations.
#[derive(Default)]
pub(super) struct Seen {
    kills: u64,
    /// Kills after which the database had a password that was not yet the one shown.
    in_the_middle: u64,
    /// Each password's user and time.
    rotations: BTreeSet<(String, String)>,
}

impl Seen {
    pub(super) fn summary(&self) -> String {
        let Seen { kills, in_the_middle, rotations } = self;
        format!("{} rotations on time, {kills} kills at them, {in_the_middle} in the middle", rotations.len())
    }
}

fn roles(make: Make) -> Vec<(String, Value)> {
    let periodic = (0..PERIODIC).map(|n| (format!("often{n}"), json!({"rotation_period": 5})));
    let scheduled = (0..SCHEDULED).map(|n| (format!("minute{n}"), json!({"rotation_schedule": "* * * * *"})));
    periodic.chain(scheduled.filter(|_| make == Make::Keepfast)).collect()
}

/// Makes the users and their roles.
pub(super) fn prepare(make: Make, database: &Postgres, post: Post<'_>) -> Result<()> {
    for (user, mut rhythm) in roles(make) {
        database.sql(&format!("CREATE ROLE {user} LOGIN PASSWORD 'before'"))?;
        rhythm["db_name"] = "pg".into();
        rhythm["username"] = user.as_str().into();
        post(&format!("database/static-roles/{user}"), rhythm)?;
    }
    Ok(())
}

/// Kills the server at so many looks of its engines, and at as many more as it takes until a minute is over.
pub(super) fn cut_off(
    make: Make,
    server: &mut Server,
    database: &Postgres,
    dice: &mut Dice,
    least: u64,
) -> Result<Seen> {
    let mut seen = Seen::default();
    let minute = || database.sql("SELECT extract(epoch FROM now())::bigint / 60");
    let begun = minute()?;
    server.kill()?;
    faults::open(server)?;
    while seen.kills < least || minute()? == begun {
        let opened = Instant::now();
        let mut client = server.client()?;
        let mut middle = false;
        for (user, _) in roles(make) {
            let (password, at) = shown(server, &mut client, &user)?;
            middle |= !database.accepts(&user, &password)?;
            seen.rotations.insert((user, at));
        }
        seen.in_the_middle += u64::from(middle);
        let moment = LOOK - BEFORE + Duration::from_millis(dice.below(SPAN_MS) as u64);
        std::thread::sleep(moment.saturating_sub(opened.elapsed()));
        server.kill()?;
        faults::open(server)?;
        seen.kills += 1;
    }
    Ok(seen)
}

/// Every password that is shown lets its user in.
pub(super) fn judge(
    make: Make,
    server: &Server,
    client: &mut Client,
    database: &Postgres,
    found: &mut Found,
) -> Result<()> {
    for (user, _) in roles(make) {
        let slow = json!({"username": user, "rotation_period": "24h"});
        let path = format!("database/static-roles/{user}");
        let until = Instant::now() + RECOVERY;
        let slowed = loop {
            // A rotation that is just under way comes between.
            let answer = client.call(Some(&server.root), "POST", &path, Some(&slow))?;
            if answer.status < 300 || Instant::now() > until {
                break answer;
            }
        };
        ensure!(slowed.status < 300, "{path}: {} {}", slowed.status, String::from_utf8_lossy(&slowed.body));
        let works = loop {
            let (password, _) = shown(server, client, &user)?;
            if database.accepts(&user, &password)? {
                break true;
            }
            if Instant::now() > until {
                break false;
            }
            std::thread::sleep(Duration::from_millis(200));
        };
        hold(found, works, || format!("the password of {user}, which is changed on time, is lost"));
    }
    Ok(())
}

/// The password that the server shows, and when it was made.
fn shown(server: &Server, client: &mut Client, user: &str) -> Result<(String, String)> {
    let answer = client.call(Some(&server.root), "GET", &format!("database/static-creds/{user}"), None)?;
    let body = answer.json().context("no JSON")?;
    let text = |name: &str| body["data"][name].as_str().unwrap_or_default().to_owned();
    ensure!(answer.status == 200, "static-creds/{user}: {} {body}", answer.status);
    Ok((text("password"), text("last_vault_rotation")))
}
