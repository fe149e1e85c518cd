//! Long runs against a server of our own: malformed HTTP, floods, kill -9 under writes, disks and databases that fail, a million
//! leases and tokens. Each is decided by a seed and enters its result in `ledger.md`.

mod abuse;
mod diary;
mod disk;
mod due;
mod http;
mod kill;
mod leases;
mod mutation;
mod tokens;

use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::servers::Make;

/// Which campaign.
#[derive(Subcommand)]
pub enum Campaign {
    /// Floods of unauthenticated bytes: memory and audit log stay within 4 bytes for each byte sent, and others are served
    Abuse(Options),
    /// Full and failing disks under concurrent writes: refused with an error, and no acknowledged write is lost
    Disk(Options),
    /// Many leases, and a tenth of them due within a minute: memory, time to unseal, speed of revocation, latency of reads
    Due(Options),
    /// Malformed requests: no 5xx, no exit
    Http(Options),
    /// kill -9 under concurrent writes: no acknowledged write is lost, and it always opens
    Kill(Options),
    /// Leases of a database under kill -9 and stops of the database: its users are the live leases, exactly
    Leases(Options),
    /// Many live tokens: memory, time to unseal, look-ups
    Tokens(Options),
}

/// What every campaign takes.
#[derive(Args, Clone)]
pub struct Options {
    /// Requests, kills, faults, operations, leases, tokens or connections of each attack
    #[arg(long)]
    pub count: u64,
    /// What decides the run; printed, and entered in the ledger
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Connections at once
    #[arg(long, default_value_t = 8)]
    pub connections: u64,
    /// The server to run on
    #[arg(long, value_enum, default_value = "keepfast")]
    pub on: Make,
    /// A short form, as a test: not entered in the ledger
    #[arg(long)]
    pub short: bool,
    /// How many fall due within a minute; a tenth of all when not given (`due`)
    #[arg(long)]
    pub due: Option<u64>,
    /// Wait for Enter before times are measured (`due`)
    #[arg(long)]
    pub pause: bool,
}

/// What a campaign found.
pub struct Found {
    /// Checks that held.
    pub passed: u64,
    /// Checks that did not, in words.
    pub failures: Vec<String>,
    /// Numbers for the ledger.
    pub numbers: String,
}

/// Runs a campaign, prints what it found and enters it in the ledger.
pub fn run(campaign: &Campaign) -> Result<bool> {
    let (name, options, found) = match campaign {
        Campaign::Abuse(options) => ("abuse", options, abuse::run(options)?),
        Campaign::Disk(options) => ("disk", options, disk::run(options)?),
        Campaign::Due(options) => ("due", options, due::run(options)?),
        Campaign::Http(options) => ("http", options, http::run(options)?),
        Campaign::Kill(options) => ("kill", options, kill::run(options)?),
        Campaign::Leases(options) => ("leases", options, leases::run(options)?),
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
fn enter(name: &str, options: &Options, found: &Found) -> Result<()> {
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
