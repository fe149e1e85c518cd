//! Three or five processes under concurrent clients and kill -9: every response is linearizable, no acknowledged write is
//! lost, a revoked token is refused by every node, and the cluster serves again within seconds.

mod clients;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use self::clients::{Clients, Totals};
use super::{Findings, Options};
use crate::nodes::Nodes;
use crate::rng::Rng;

/// The number of nodes.
const NODES: usize = 3;

pub(super) fn run(options: &Options) -> Result<Findings> {
    let mut nodes = Nodes::start(options.on, NODES)?;
    let clients = Clients::prepare(&nodes, options.connections)?;
    let mut found = Findings { passed: 0, failures: Vec::new(), numbers: String::new() };
    let mut gaps = Vec::new();
    for round in 0..options.count {
        let mut rng = Rng::of(options.seed, round);
        let gap = run_round(&mut nodes, &clients, round, &mut rng).with_context(|| format!("round {round}"))?;
        gaps.extend(gap);
        clients.check_everywhere(&nodes, &mut found)?;
    }
    let totals = clients.totals(&mut found);
    if !found.failures.is_empty() {
        println!("{}", nodes.logs());
    }
    let Totals { writes, reads, refused_uses, retries } = totals;
    gaps.sort_unstable();
    let at = |share: usize| gaps.get(gaps.len() * share / 100).or(gaps.last()).map_or(0, Duration::as_millis);
    found.numbers = format!(
        "{NODES} nodes, {} kills, {writes} writes, {reads} reads and {refused_uses} uses of revoked tokens checked, {retries} retries, writes again after p50 {} ms, p99 {} ms",
        options.count,
        at(50),
        at(99)
    );
    Ok(found)
}

/// Kills one node, the leader in two of three rounds, while all clients run. Returns the time until a write succeeds after
/// the leader was killed.
fn run_round(nodes: &mut Nodes, clients: &Clients, round: u64, rng: &mut Rng) -> Result<Option<Duration>> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        clients.start(scope, nodes.urls(), &over, round);
        let result = (|| {
            std::thread::sleep(Duration::from_millis(300 + rng.below(700) as u64));
            let leader = nodes.leader()?;
            let kills_leader = rng.below(3) != 0;
            let victim = if kills_leader { leader } else { (leader + 1 + rng.below(NODES - 1)) % NODES };
            let killed = Instant::now();
            clients.note(&format!("round {round}: kills {}, the leader is {}", nodes.url(victim), nodes.url(leader)));
            nodes.kill(victim)?;
            let gap = if kills_leader { Some(clients.wait_for_write(killed)?) } else { None };
            std::thread::sleep(Duration::from_millis(200 + rng.below(500) as u64));
            clients.note(&format!("round {round}: restarts {}", nodes.url(victim)));
            nodes.restart(victim)?;
            nodes.wait_until_all_serve()?;
            std::thread::sleep(Duration::from_millis(200));
            Ok(gap)
        })();
        over.store(true, Ordering::Relaxed);
        result
    })
}
