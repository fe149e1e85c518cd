//! RL-14: leases of three nodes that expire while the leader is killed: the next leader revokes all of them soon, and
//! each at most twice.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{Api, create, prepare, revoked, set_role};
use crate::campaign::{Findings, Options};
use crate::nodes::Nodes;
use crate::postgres::Postgres;

/// The time between the creation of a lease and its expiry, beside the time that all creations take.
const TTL: Duration = Duration::from_secs(15);
/// The time after the last expiry within which all must be revoked: an election, and the pace of revocations.
const LIMIT: Duration = Duration::from_secs(30);
/// The leases by which the speed of creations is measured.
const SAMPLE: u64 = 50;
/// The first kill of the leader is this long before the first expiry.
const BEFORE: Duration = Duration::from_millis(500);
/// The kills of the leader, after the first one.
const KILLS: [Duration; 2] = [Duration::ZERO, Duration::from_millis(4500)];

pub(super) fn run(options: &Options) -> Result<Findings> {
    let database = Postgres::start("-c fsync=off")?;
    let mut nodes = Nodes::start(options.on, options.nodes)?;
    let api = Api { url: nodes.url(nodes.leader()?).to_owned(), root: nodes.root().to_owned() };
    prepare(&api, &database)?;
    set_role(&api, "sample", 3600)?;
    let sample = SAMPLE.min(options.count);
    let started = Instant::now();
    create(&api, options.connections, sample, "sample")?;
    let rate = sample as f64 / started.elapsed().as_secs_f64();
    let making = Duration::from_secs_f64(options.count as f64 / rate * 1.5);
    let ttl = Duration::from_secs((making + TTL).as_secs());
    set_role(&api, "due", ttl.as_secs())?;
    let (before, started) = (revoked(&database)?, Instant::now());
    create(&api, options.connections, options.count, "due")?;
    let (first, last) = (started + ttl, Instant::now() + ttl);
    ensure!(Instant::now() + Duration::from_secs(2) < first, "creating the leases took longer than expected");
    kill_the_leader_while_leases_expire(&mut nodes, first)?;
    let mut left = usize::MAX;
    while left > 0 && Instant::now() < last + LIMIT {
        std::thread::sleep(Duration::from_millis(500));
        left = listed(&nodes)?.unwrap_or(left);
    }
    let (took, revocations) = (last.elapsed(), revoked(&database)?.saturating_sub(before));
    let mut found = Findings { passed: 0, failures: Vec::new(), numbers: String::new() };
    found.numbers = format!(
        "{} leases of {} nodes expired during {} kills of the leader; {left} left {:.1} s after the last expiry, {revocations} revocations",
        options.count,
        options.nodes,
        KILLS.len(),
        took.as_secs_f64()
    );
    let mut hold = |right: bool, passed: u64, what: &str| match right {
        true => found.passed += passed,
        false => found.failures.push(format!("{what}: {}", found.numbers)),
    };
    hold(left == 0, options.count, "leases remain");
    // A revocation is repeated when its leader is killed before it was recorded.
    hold(revocations >= options.count, 1, "a lease was deleted without its revocation");
    hold(revocations <= 2 * options.count, 1, "leases are revoked again and again");
    Ok(found)
}

fn kill_the_leader_while_leases_expire(nodes: &mut Nodes, first_expiry: Instant) -> Result<()> {
    for kill in KILLS {
        std::thread::sleep((first_expiry - BEFORE + kill).saturating_duration_since(Instant::now()));
        let leader = nodes.leader()?;
        nodes.kill(leader)?;
        nodes.restart(leader)?;
        nodes.wait_until_all_serve()?;
    }
    Ok(())
}

/// The number of leases that expire; `None` when a node does not know.
fn listed(nodes: &Nodes) -> Result<Option<usize>> {
    let path = "sys/leases/lookup/database/creds/due";
    let response = nodes.client_of_next()?.call(Some(nodes.root()), "LIST", path, None)?;
    let body: Value = response.json().unwrap_or_default();
    Ok(match response.status {
        200 => body["data"]["keys"].as_array().map(Vec::len),
        404 => Some(0),
        _ => None,
    })
}
