//! `conformance`: runs, records and compares scenarios. See `README.md` beside it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a developer tool prints its results")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use conformance::balancer::{Balanced, Settings};
use conformance::one_node::OneNodeOnly;
use conformance::run::{Counts, Target};
use conformance::servers::{Make, Storage};
use conformance::{balancer, campaign, canary, compare, database, record, run, scenario, surface};

/// The allocator of the server: the simulators allocate much.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "Black-box scenarios for Vault-compatible servers")]
struct Arguments {
    /// The folder of scenarios
    #[arg(long, global = true)]
    scenarios: Option<PathBuf>,
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run scenarios on OpenBao and on Keepfast (started here), or on the server at --url
    Run {
        /// Parts of scenario names; default: all
        only: Vec<String>,
        /// The server to test instead of servers started here
        #[arg(long)]
        url: Option<String>,
        /// The root token for --url
        #[arg(long, default_value = "root")]
        token: String,
        /// The server to start, or the kind of the server at --url
        #[arg(long, value_enum)]
        on: Option<Make>,
        /// Storage of the servers started here
        #[arg(long, value_enum, default_value = "memory")]
        storage: Storage,
        /// Run on a cluster of Keepfast behind a load balancer
        #[arg(long, conflicts_with_all = ["url", "on", "storage"])]
        balanced: bool,
        /// Run the scenarios of a shared server on a Keepfast that two seals unseal
        #[arg(long, conflicts_with_all = ["url", "on", "storage", "balanced"])]
        sealed: bool,
        /// Kill the leader of the cluster each time this number of seconds has passed, and send requests again as clients
        /// of Vault do; only scenarios of the shared cluster run
        #[arg(long, requires = "balanced")]
        kill_leader_every: Option<u64>,
        /// Print a line for each scenario
        #[arg(short, long)]
        verbose: bool,
    },
    /// Write the responses of OpenBao as the expectations of steps that have none
    Record {
        /// Parts of scenario names
        only: Vec<String>,
    },
    /// Check which paths and operations of OpenBao Keepfast has
    Surface {
        /// Write the list of missing operations
        #[arg(long)]
        write: bool,
    },
    /// Start three nodes of a cluster behind a load balancer, print their addresses, keys and root token as JSON, and stop
    /// when standard input ends
    Cluster {
        #[command(flatten)]
        settings: Settings,
        /// A root token to create, as a development server has it; a KV engine is then mounted at `secret/`
        #[arg(long)]
        token: Option<String>,
        /// The server to start
        #[arg(long, value_enum, default_value = "keepfast")]
        on: Make,
    },
    /// Write Keepfast's OpenAPI document to target/openapi.json
    Openapi,
    /// Play all scenarios on a durable, audited server, then search all of its files for their secrets
    Canary {
        /// The server to run on
        #[arg(long, value_enum, default_value = "keepfast")]
        on: Make,
    },
    /// Long runs: abuse, cluster, consensus, disk, due, http, kill, leases, nodes, seals, snapshots, tokens
    #[command(subcommand)]
    Campaign(campaign::Campaign),
    /// Play scenarios on two servers and print the differences
    Compare {
        /// Parts of scenario names; default: all
        only: Vec<String>,
        /// The Keepfast server; default: started here
        #[arg(long)]
        ours: Option<String>,
        /// The OpenBao server; default: started here
        #[arg(long, alias = "peer")]
        openbao: Option<String>,
        /// The root token at --ours
        #[arg(long, default_value = "root")]
        ours_token: String,
        /// The root token at --openbao
        #[arg(long, alias = "peer-token", default_value = "root")]
        openbao_token: String,
        /// Also print the deliberate differences
        #[arg(long)]
        strict: bool,
    },
}

fn main() -> ExitCode {
    let outcome = perform(&Arguments::parse());
    database::stop();
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(arguments: &Arguments) -> Result<bool> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let folder = arguments.scenarios.as_deref().unwrap_or(&default);
    match &arguments.command {
        Task::Run { only, url, token, on, storage, balanced, sealed, kill_leader_every, verbose } => {
            let scenarios = scenario::load(folder, only)?;
            let pending = scenario::pending(&Path::new(env!("CARGO_MANIFEST_DIR")).join("pending.txt"))?;
            let matches = |part: &&String| scenarios.iter().any(|loaded| loaded.name.contains(part.as_str()));
            if let Some(stale) = pending.iter().find(|part| only.is_empty() && !matches(part)) {
                bail!("pending.txt: no scenario is called {stale}");
            }
            if *sealed {
                return run_sealed(&scenarios, &pending, *verbose);
            }
            if *balanced {
                return run_balanced(&scenarios, &pending, only.is_empty(), *kill_leader_every, *verbose);
            }
            run_task(&scenarios, &pending, url.as_deref(), token, *on, *storage, *verbose)
        }
        Task::Record { only } => record_task(folder, only),
        Task::Campaign(campaign) => campaign::run(campaign),
        Task::Surface { write } => surface::run(*write),
        Task::Cluster { settings, token, on } => balancer::serve(*on, settings, token.as_deref()),
        Task::Openapi => surface::write_document(),
        Task::Canary { on } => canary::run(*on, &scenario::load(folder, &[])?),
        Task::Compare { only, ours, openbao, ours_token, openbao_token, strict } => {
            let scenarios = scenario::load(folder, only)?;
            let ours = target(Make::Keepfast, ours.as_deref(), ours_token, Storage::Memory)?;
            let openbao = target(Make::OpenBao, openbao.as_deref(), openbao_token, Storage::Memory)?;
            let differing = compare::compare_all(&ours, &openbao, &scenarios, *strict)?;
            let steps: usize = scenarios.iter().map(|s| s.scenario.steps.len()).sum();
            println!("{differing} of {steps} steps differ");
            Ok(differing == 0)
        }
    }
}

fn target(make: Make, url: Option<&str>, token: &str, storage: Storage) -> Result<Target> {
    match url {
        Some(url) => Ok(Target::Running { make, url: url.to_owned(), root: token.to_owned() }),
        None => Target::start(make, storage).with_context(|| format!("starting {}", make.name())),
    }
}

fn run_task(
    scenarios: &[scenario::Loaded],
    pending: &[String],
    url: Option<&str>,
    token: &str,
    on: Option<Make>,
    storage: Storage,
    verbose: bool,
) -> Result<bool> {
    let makes = match (on, url) {
        (Some(on), _) => vec![on],
        (None, Some(_)) => vec![Make::Keepfast],
        (None, None) => vec![Make::OpenBao, Make::Keepfast],
    };
    let mut total = Counts::default();
    for make in makes {
        let pending = match make {
            Make::OpenBao => &[],
            Make::Keepfast => pending,
        };
        let counts = run::run_all(&target(make, url, token, storage)?, scenarios, pending, verbose)?;
        let Counts { passed, failed, skipped, .. } = counts;
        println!("scenarios on {}: {passed} steps passed, {failed} failed, {skipped} not run", make.name());
        total.add(counts);
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(total.failed == 0 && total.passed > 0)
}

fn run_sealed(scenarios: &[scenario::Loaded], pending: &[String], verbose: bool) -> Result<bool> {
    let Counts { passed, failed, skipped, .. } = run::run_all(&Target::start_sealed()?, scenarios, pending, verbose)?;
    println!("scenarios on a server with two seals: {skipped} need another server");
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0 && passed > 0)
}

/// The kills of the leader during which scenarios run again and again.
const LEAST_KILLS: u64 = 3;

fn run_balanced(
    scenarios: &[scenario::Loaded],
    pending: &[String],
    all: bool,
    kill_leader_every: Option<u64>,
    verbose: bool,
) -> Result<bool> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("balanced.txt");
    let one_node_only = OneNodeOnly::parse(&std::fs::read_to_string(file)?)?;
    let unknown = if all { one_node_only.unknown(scenarios) } else { Vec::new() };
    let settings = Settings { kill_leader_every, ..Settings::default() };
    let shared = Box::new(Balanced::start_with(Make::Keepfast, &settings)?);
    let mut target = Target::Balanced { shared, one_node_only, retries: kill_leader_every.is_some() };
    let mut counts = run::run_all(&target, scenarios, pending, verbose)?;
    let is_more_to_kill = |target: &Target| match target {
        Target::Balanced { shared, retries, .. } => *retries && shared.kills() < LEAST_KILLS,
        _ => false,
    };
    while counts.failed == 0 && is_more_to_kill(&target) {
        counts.add(run::run_all(&target, scenarios, pending, verbose)?);
    }
    let Counts { passed, failed, skipped, repeated } = counts;
    let Target::Balanced { shared, one_node_only, retries } = &mut target else { return Ok(false) };
    let kills = shared.stop_kills()?;
    let stale = if all && !*retries { one_node_only.stale() } else { Vec::new() };
    for line in unknown.iter().chain(&stale) {
        println!("FAIL {line}");
    }
    let failed = failed + unknown.len() + stale.len();
    println!(
        "scenarios on three nodes, {kills} kills of the leader, {repeated} requests sent again: {passed} steps passed, {failed} failed, {skipped} are for one node only"
    );
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0 && passed > 0)
}

fn record_task(folder: &Path, only: &[String]) -> Result<bool> {
    if only.is_empty() {
        bail!("say which scenarios to record");
    }
    let openbao = Target::start(Make::OpenBao, Storage::Memory)?;
    for loaded in scenario::load(folder, only)? {
        println!("{}: {} expectations written", loaded.name, record::record(&openbao, &loaded)?);
    }
    Ok(true)
}
