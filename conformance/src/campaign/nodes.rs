//! Simulated nodes (`keepfast_storage::sim`): consensus, log, state, barrier and snapshots on disks, clocks and links that
//! fail, one cluster for each seed.

use keepfast_storage::sim::{Plan, Report, run as simulate};

use super::{Findings, Options};

/// The simulated time with faults, in seconds.
const SECONDS: u64 = 8;
/// The least number of faults of a cluster, on average: with fewer, the simulation shows nothing.
const FAULTS: u64 = 50;
/// The least number of clusters for which that is checked.
const LEAST: u64 = 100;
/// Seeds of one run, which begin at a multiple of this. From here on, `--seed` is the first seed itself.
const SEEDS: u64 = 1_000_000_000;
/// The threads. A simulation has one.
const THREADS: usize = 2;

pub(super) fn run(options: &Options) -> Findings {
    let first = if options.seed < SEEDS { options.seed * SEEDS } else { options.seed };
    let part = |thread: u64| -> Vec<(u64, Report)> {
        let seeds = (first + thread..first + options.count).step_by(THREADS);
        seeds.map(|seed| (seed, simulate(Plan { seed, seconds: SECONDS, planted: None }))).collect()
    };
    let reports: Vec<(u64, Report)> = std::thread::scope(|scope| {
        let part = &part;
        let threads: Vec<_> = (0..THREADS as u64).map(|thread| scope.spawn(move || part(thread))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect()
    });
    let mut found = Findings { passed: 0, failures: Vec::new(), numbers: String::new() };
    for (seed, report) in &reports {
        match &report.broken {
            None => found.passed += 1,
            Some(broken) => found.failures.push(format!("seed {seed}: {broken}")),
        }
    }
    if reports.len() as u64 != options.count {
        found.failures.push(format!("{} of {} seeds were simulated", reports.len(), options.count));
    }
    let sum = |number: fn(&Report) -> u64| reports.iter().map(|(_, report)| number(report)).sum::<u64>();
    let faults = sum(|report| report.faults);
    if options.count >= LEAST && faults < options.count * FAULTS {
        found.failures.push(format!("{faults} faults are too few"));
    }
    found.numbers = format!(
        "{} clusters with {SECONDS} s of faults, {faults} faults, {} writes and {} reads checked, {} starts of nodes, {} snapshots, {} changes of members",
        options.count,
        sum(|report| report.writes),
        sum(|report| report.reads),
        sum(|report| report.starts),
        sum(|report| report.snapshots),
        sum(|report| report.changes),
    );
    found
}
