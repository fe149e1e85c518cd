//! Long runs against our own server: malformed HTTP, floods, kill -9 under writes, failing disks, databases
//! and seals, a million leases and tokens. A seed determines each run, and its result is entered in `ledger.md`.

mod abuse;
mod cluster;
mod consensus;
mod disk;
mod due;
mod http;
mod kill;
mod leases;
mod mutation;
mod nodes;
pub(crate) mod seals;
mod snapshots;
mod tokens;
mod write_log;

use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::servers::Make;

/// A campaign.
#[derive(Subcommand)]
pub enum Campaign {
    /// Floods of unauthenticated bytes: memory and audit log stay within 4 bytes per byte sent, and others are served
    Abuse(Options),
    /// Faults of processes, links, disks and clocks of a cluster under concurrent clients: every response is linearizable,
    /// revoked tokens are refused
    Cluster(Options),
    /// Simulated clusters of Raft nodes under faults: no property of Raft is broken, and they serve again afterwards
    Consensus(Options),
    /// Full and failing disks under concurrent writes: refused with an error, and no acknowledged write is lost
    Disk(Options),
    /// Many leases, and a tenth of them expiring within a minute: memory, unseal time, speed of revocation, read
    /// latency
    Due(Options),
    /// Malformed requests: no 5xx, no exit
    Http(Options),
    /// kill -9 under concurrent writes: no acknowledged write is lost, and the store always opens
    Kill(Options),
    /// Leases of a database under kill -9 and stops of the database: its users are exactly the live leases
    Leases(Options),
    /// Simulated nodes on failing disks, clocks and links: every read is linearizable, no acknowledged write is lost, all
    /// nodes apply the same, and they serve again afterwards
    Nodes(Options),
    /// kill -9 during changes of the seals and migrations of a cluster, and seals that fail under load: exactly the listed
    /// slots open, nothing is lost, no request waits for a seal
    Seals(Options),
    /// A large snapshot on request: saved and restored whole, while the memory of the server does not grow with it
    Snapshots(Options),
    /// Many live tokens: memory, unseal time, look-ups
    Tokens(Options),
}

/// The options of every campaign.
#[derive(Args, Clone)]
pub struct Options {
    /// Simulated clusters, requests, kills, faults, operations, leases, tokens, MiB of records or connections of each attack
    #[arg(long)]
    pub count: u64,
    /// The seed of the run; printed, and entered in the ledger
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Concurrent connections
    #[arg(long, default_value_t = 8)]
    pub connections: u64,
    /// The server to run on
    #[arg(long, value_enum, default_value = "keepfast")]
    pub on: Make,
    /// A short form, as a test: not entered in the ledger
    #[arg(long)]
    pub short: bool,
    /// The number of leases that expire within a minute; default: a tenth of all (`due`)
    #[arg(long)]
    pub due: Option<u64>,
    /// Go on with faults until this number of operations was checked, for at most `seconds` (`cluster`); the least number of
    /// requests while seals fail (`seals`)
    #[arg(long, default_value_t = 0)]
    pub operations: u64,
    /// Go on as for `operations` until this number of uses of revoked tokens was refused, and fail with fewer (`cluster`)
    #[arg(long, default_value_t = 0)]
    pub revoked_uses: u64,
    /// See `operations`
    #[arg(long, default_value_t = 120)]
    pub seconds: u64,
    /// The number of nodes: 1, or 3 and more for a cluster (`cluster`, which has at least 3, `due`, `leases`)
    #[arg(long, default_value_t = 1)]
    pub nodes: usize,
    /// Wait for Enter before the measurement (`due`)
    #[arg(long)]
    pub pause: bool,
}

/// What a campaign found.
pub struct Findings {
    /// Checks that held.
    pub passed: u64,
    /// Checks that did not, in words.
    pub failures: Vec<String>,
    /// Numbers for the ledger.
    pub numbers: String,
}

impl Findings {
    /// Counts a check that holds, or notes what does not.
    fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        match holds {
            true => self.passed += 1,
            false => self.failures.push(what()),
        }
    }
}

/// Runs a campaign, prints what it found and enters it in the ledger.
pub fn run(campaign: &Campaign) -> Result<bool> {
    let (name, options, found) = match campaign {
        Campaign::Abuse(options) => ("abuse", options, abuse::run(options)?),
        Campaign::Cluster(options) => ("cluster", options, cluster::run(options)?),
        Campaign::Consensus(options) => ("consensus", options, consensus::run(options)),
        Campaign::Disk(options) => ("disk", options, disk::run(options)?),
        Campaign::Due(options) => ("due", options, due::run(options)?),
        Campaign::Http(options) => ("http", options, http::run(options)?),
        Campaign::Kill(options) => ("kill", options, kill::run(options)?),
        Campaign::Leases(options) => ("leases", options, leases::run(options)?),
        Campaign::Nodes(options) => ("nodes", options, nodes::run(options)),
        Campaign::Seals(options) => ("seals", options, seals::run(options)?),
        Campaign::Snapshots(options) => ("snapshots", options, snapshots::run(options)?),
        Campaign::Tokens(options) => ("tokens", options, tokens::run(options)?),
    };
    for failure in found.failures.iter().take(20) {
        println!("FAIL {name}: {failure}");
    }
    println!("{name} on {}, seed {}: {}", options.on.name(), options.seed, found.numbers);
    if !options.short {
        enter(name, options, &found)?;
    }
    println!("{} passed, {} failed", found.passed, found.failures.len());
    Ok(found.failures.is_empty() && found.passed > 0)
}

/// Adds a row to the ledger.
fn enter(name: &str, options: &Options, found: &Findings) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = |program: &str, arguments: &[&str]| -> Result<String> {
        let output = Command::new(program).args(arguments).current_dir(root).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let date = output("date", &["-u", "+%Y-%m-%d"])?;
    let commit = output("git", &["rev-parse", "--short", "HEAD"])?;
    let result =
        if found.failures.is_empty() { "held".to_owned() } else { format!("{} failures", found.failures.len()) };
    let mut ledger = std::fs::OpenOptions::new().append(true).open(root.join("ledger.md"))?;
    let (server, Options { seed, count, .. }) = (options.on.name(), options);
    writeln!(ledger, "| {date} | {commit} | {name} on {server} | {seed} | {count} | {result}: {} |", found.numbers)?;
    Ok(())
}
