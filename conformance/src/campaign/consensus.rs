//! Simulated clusters of Raft nodes (`keepfast_consensus::sim`), one for each seed.

use keepfast_consensus::sim::{Plan, Report, Scene, run as simulate};
use rustix::time::{ClockId, clock_gettime};

use super::{Findings, Options};

/// The simulated time of a cluster in seconds.
const SECONDS: u64 = 60;
/// The least number of faults of a cluster, on average: with fewer, the simulation shows nothing.
const FAULTS: u64 = 50;
/// Seeds of one run, which begin at a multiple of this.
const SEEDS: u64 = 1_000_000_000;

pub(super) fn run(options: &Options) -> Findings {
    let begin = processor_seconds();
    let mut found = Findings { passed: 0, failures: Vec::new(), numbers: String::new() };
    let mut sum = Report::default();
    for item in 0..options.count {
        let seed = options.seed * SEEDS + item;
        let report = simulate(Plan { seed, seconds: SECONDS, scene: Scene::Any, planted: None });
        match &report.broken {
            None => found.passed += 1,
            Some(broken) => found.failures.push(format!("seed {seed}: {broken}")),
        }
        sum.faults += report.faults;
        sum.commits += report.commits;
        sum.reads += report.reads;
        sum.elections += report.elections;
        sum.changes += report.changes;
    }
    if sum.faults < options.count * FAULTS {
        found.failures.push(format!("{} faults are too few", sum.faults));
    }
    found.numbers = format!(
        "{} clusters for {SECONDS} s, {} faults, {} commits, {} reads, {} elections, {} changes of members, {} s of processor time",
        options.count,
        sum.faults,
        sum.commits,
        sum.reads,
        sum.elections,
        sum.changes,
        processor_seconds() - begin
    );
    found
}

fn processor_seconds() -> i64 {
    clock_gettime(ClockId::ThreadCPUTime).tv_sec
}
