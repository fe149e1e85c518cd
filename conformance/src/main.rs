//! `conformance`: runs, records and compares scenarios. See `README.md` beside it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for developers: its output is its product")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use conformance::run::{Counts, Ground};
use conformance::servers::{Make, Storage};
use conformance::{campaign, canary, compare, database, record, run, scenario, surface};

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
    /// Run scenarios on the peer and on Keepfast (started here), or on the server at --url
    Run {
        /// Parts of scenario names; all when none is given
        only: Vec<String>,
        /// The server to test instead of those started here
        #[arg(long)]
        url: Option<String>,
        /// The root token for --url
        #[arg(long, default_value = "root")]
        token: String,
        /// Which server to start, or which one --url is
        #[arg(long, value_enum)]
        on: Option<Make>,
        /// Storage of the servers started here
        #[arg(long, value_enum, default_value = "memory")]
        storage: Storage,
        /// A line for each scenario
        #[arg(short, long)]
        verbose: bool,
    },
    /// Write down the peer's answers as the expectations of steps that have none
    Record {
        /// Parts of scenario names
        only: Vec<String>,
    },
    /// Which of the peer's paths and operations we have
    Surface {
        /// Write the list of what is missing anew
        #[arg(long)]
        write: bool,
    },
    /// Write our server's OpenAPI document to target/openapi.json
    Openapi,
    /// Play all scenarios on a durable, audited server, then look for their secrets in everything it wrote
    Canary {
        /// The server to run on
        #[arg(long, value_enum, default_value = "keepfast")]
        on: Make,
    },
    /// Long runs: disk, due, http, kill, leases, tokens
    #[command(subcommand)]
    Campaign(campaign::Campaign),
    /// Play scenarios on two servers and print what differs
    Compare {
        /// Parts of scenario names; all when none is given
        only: Vec<String>,
        /// Our server; started here when not given
        #[arg(long)]
        ours: Option<String>,
        /// The peer; started here when not given
        #[arg(long)]
        peer: Option<String>,
        /// The root token at --ours
        #[arg(long, default_value = "root")]
        ours_token: String,
        /// The root token at --peer
        #[arg(long, default_value = "root")]
        peer_token: String,
        /// Show the differences that are on purpose, too
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
        Task::Run { only, url, token, on, storage, verbose } => {
            let scenarios = scenario::load(folder, only)?;
            let pending = scenario::pending(&Path::new(env!("CARGO_MANIFEST_DIR")).join("pending.txt"))?;
            let matches = |part: &&String| scenarios.iter().any(|loaded| loaded.name.contains(part.as_str()));
            if let Some(stale) = pending.iter().find(|part| only.is_empty() && !matches(part)) {
                bail!("pending.txt: no scenario is called {stale}");
            }
            run_task(&scenarios, &pending, url.as_deref(), token, *on, *storage, *verbose)
        }
        Task::Record { only } => record_task(folder, only),
        Task::Campaign(campaign) => campaign::run(campaign),
        Task::Surface { write } => surface::run(*write),
        Task::Openapi => surface::write_document(),
        Task::Canary { on } => canary::run(*on, &scenario::load(folder, &[])?),
        Task::Compare { only, ours, peer, ours_token, peer_token, strict } => {
            let scenarios = scenario::load(folder, only)?;
            let ours = ground(Make::Keepfast, ours.as_deref(), ours_token, Storage::Memory)?;
            let peer = ground(Make::Peer, peer.as_deref(), peer_token, Storage::Memory)?;
            let differing = compare::compare_all(&ours, &peer, &scenarios, *strict)?;
            let steps: usize = scenarios.iter().map(|s| s.scenario.steps.len()).sum();
            println!("{differing} of {steps} steps differ");
            Ok(differing == 0)
        }
    }
}

fn ground(make: Make, url: Option<&str>, token: &str, storage: Storage) -> Result<Ground> {
    match url {
        Some(url) => Ok(Ground::Given { make, url: url.to_owned(), root: token.to_owned() }),
        None => Ground::start(make, storage).with_context(|| format!("starting {}", make.name())),
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
        (None, None) => vec![Make::Peer, Make::Keepfast],
    };
    let mut total = Counts::default();
    for make in makes {
        let pending = match make {
            Make::Peer => &[],
            Make::Keepfast => pending,
        };
        let counts = run::run_all(&ground(make, url, token, storage)?, scenarios, pending, verbose)?;
        let Counts { passed, failed, skipped } = counts;
        println!("scenarios on {}: {passed} steps passed, {failed} failed, {skipped} not run", make.name());
        total.add(counts);
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(total.failed == 0 && total.passed > 0)
}

fn record_task(folder: &Path, only: &[String]) -> Result<bool> {
    if only.is_empty() {
        bail!("say which scenarios to record");
    }
    let peer = Ground::start(Make::Peer, Storage::Memory)?;
    for loaded in scenario::load(folder, only)? {
        println!("{}: {} expectations written", loaded.name, record::record(&peer, &loaded)?);
    }
    Ok(true)
}
