//! Three or five processes under concurrent clients and faults of processes, links, disks and clocks: every response is
//! linearizable, no acknowledged write is lost, a revoked token is refused by every node, and the cluster serves again
//! within seconds.

mod clients;
mod faults;
mod operations;
mod random_node;
mod slow_links;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use self::clients::Clients;
use self::faults::Fault;
use super::{Findings, Options};
use crate::nodes::Nodes;
use crate::rng::Rng;

/// The least number of nodes.
const NODES: usize = 3;

pub(super) fn run(options: &Options) -> Result<Findings> {
    println!("cluster on {}, seed {}", options.on.name(), options.seed);
    let mut nodes = Nodes::start_with_faults(options.on, options.nodes.max(NODES), options.seed)?;
    let clients = Clients::prepare(&nodes, options.connections)?;
    let mut found = Findings { passed: 0, failures: Vec::new(), numbers: String::new() };
    let mut gaps = Vec::new();
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    let (limit, started) = (Duration::from_secs(options.seconds), Instant::now());
    let counts = &clients.counts;
    let is_short = || counts.checked() < options.operations || counts.refused_uses() < options.revoked_uses;
    let (mut round, mut clock_elections) = (0, 0);
    while round < options.count || (is_short() && started.elapsed() < limit) {
        let (fault, mut rng) = (Fault::of(round), Rng::of(options.seed, round));
        *faults.entry(fault.name()).or_default() += 1;
        let (before, started) = (counts.checked(), Instant::now());
        let term = nodes.term()?;
        let gap = run_round(&mut nodes, &clients, round, fault, &mut rng);
        clients.report(&mut found);
        let gap = gap.with_context(|| {
            format!("round {round}, {}, seed {}; violations: {:?}", fault.name(), options.seed, found.failures)
        })?;
        let elections = nodes.term()? - term;
        if fault.is_of_a_clock() {
            clock_elections += elections;
        }
        println!(
            "round {round}: {}, {} checks in {} ms, {elections} elections{}",
            fault.name(),
            counts.checked() - before,
            started.elapsed().as_millis(),
            gap.map(|gap| format!(", writes again after {} ms", gap.as_millis())).unwrap_or_default()
        );
        gaps.extend(gap);
        clients.check_everywhere(&nodes, &mut found)?;
        round += 1;
    }
    let slow = slow_links::run(&nodes, &clients, options.short, &mut found)?;
    found.passed = counts.checked();
    if counts.refused_uses() < options.revoked_uses {
        let (uses, least) = (counts.refused_uses(), options.revoked_uses);
        found.failures.push(format!("{uses} uses of revoked tokens are too few: at least {least} have to be refused"));
    }
    if !found.failures.is_empty() {
        println!("{}", nodes.logs());
    }
    gaps.sort_unstable();
    let at = |share: usize| gaps.get(gaps.len() * share / 100).or(gaps.last()).map_or(0, Duration::as_millis);
    let faults: Vec<String> = faults.iter().map(|(name, times)| format!("{times} {name}")).collect();
    found.numbers = format!(
        "{} nodes, {}; {}, writes again after p50 {} ms, p99 {} ms; {clock_elections} elections at steps of clocks; {slow}",
        nodes.count(),
        faults.join(", "),
        counts.summary(),
        at(50),
        at(99)
    );
    Ok(found)
}

/// Causes a fault while all clients run, and recovers from it. Returns the time until a write succeeds, for a fault after
/// which another node must lead.
fn run_round(
    nodes: &mut Nodes,
    clients: &Clients,
    round: u64,
    fault: Fault,
    rng: &mut Rng,
) -> Result<Option<Duration>> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        clients.start(scope, &nodes.urls(), &over, round);
        let result = (|| {
            let pause = |least: u64, more: u64| std::thread::sleep(Duration::from_millis(least + more));
            pause(300, rng.below(700) as u64);
            let leader = nodes.leader()?;
            let victim = fault.victim(leader, nodes.count(), rng);
            let (leads, hit) = (nodes.url(leader), nodes.url(victim));
            clients.note(&format!("round {round}: {} at {hit}, the leader is {leads}", fault.name()));
            let struck = Instant::now();
            fault.strike(nodes, victim, rng)?;
            let gap = if fault.ends_leadership() { Some(clients.wait_for_write(struck)?) } else { None };
            pause(300, rng.below(700) as u64);
            clients.note(&format!("round {round}: recovery from {} at {}", fault.name(), nodes.url(victim)));
            fault.heal(nodes, victim, rng)?;
            nodes.wait_until_all_serve()?;
            clients.wait_for_write(Instant::now())?;
            Ok(gap)
        })();
        over.store(true, Ordering::Relaxed);
        result
    })
}
