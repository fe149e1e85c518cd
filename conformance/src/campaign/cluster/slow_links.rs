//! RL-08: slow and lossy links do not change the leader without end: at most a few elections, and writes go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;

use super::clients::Clients;
use crate::campaign::Findings;
use crate::links::Slowness;
use crate::nodes::Nodes;

/// The time for each kind of link in the short form, and in the long one.
const TIMES: [Duration; 2] = [Duration::from_secs(8), Duration::from_secs(60)];
/// The most elections of a time, and the number of seconds for each more. An endless change of the leader has one a
/// second.
const ELECTIONS: (u64, u64) = (2, 8);
/// The least writes, of all clients.
const WRITES_IN_TEN_SECONDS: u64 = 5;
/// Numbers of rounds which no other client uses for its choices.
const FIRST_ROUND: u64 = 1 << 32;

/// Links between distant places, and links that lose packets.
const KINDS: [(&str, Slowness); 2] = [
    ("far", Slowness { delay: Duration::from_millis(30), spread: Duration::from_millis(30), lost: 0 }),
    ("lossy", Slowness { delay: Duration::from_millis(5), spread: Duration::from_millis(20), lost: 20 }),
];

/// Runs all clients on each kind of links. Returns the numbers for the ledger.
pub(super) fn run(nodes: &Nodes, clients: &Clients, is_short: bool, found: &mut Findings) -> Result<String> {
    let mut numbers = Vec::new();
    for (round, (name, slowness)) in (FIRST_ROUND..).zip(KINDS) {
        let time = TIMES[usize::from(!is_short)];
        clients.note(&format!("{name} links"));
        let (elections, writes) = measure(nodes, clients, round, slowness, time)?;
        let (base, each) = ELECTIONS;
        if elections > base + time.as_secs() / each {
            found.failures.push(format!("{elections} elections in {} s on {name} links", time.as_secs()));
        }
        if writes * 10 < WRITES_IN_TEN_SECONDS * time.as_secs() {
            found.failures.push(format!("{writes} writes in {} s on {name} links", time.as_secs()));
        }
        clients.check_everywhere(nodes, found)?;
        numbers.push(format!("{elections} elections and {writes} writes in {} s on {name} links", time.as_secs()));
    }
    Ok(numbers.join(", "))
}

/// The elections and the writes while all links are slow.
fn measure(nodes: &Nodes, clients: &Clients, round: u64, slowness: Slowness, time: Duration) -> Result<(u64, u64)> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        clients.start_patient(scope, &nodes.urls(), &over, round);
        let result = (|| {
            let links = &nodes.faults()?.links;
            let writes = || clients.counts.writes.load(Ordering::SeqCst);
            let (term, before) = (nodes.term()?, writes());
            links.slow(slowness);
            std::thread::sleep(time);
            let writes = writes() - before;
            links.heal();
            nodes.wait_until_all_serve()?;
            Ok((nodes.term()? - term, writes))
        })();
        over.store(true, Ordering::Relaxed);
        result
    })
}
