//! Mutation testing: `cargo xtask campaign mutants`.
//!
//! `cargo-mutants` lists the mutants of the code in `scope.rs`. Instead of building the tests once per mutant, all
//! mutants of a crate are written into one copy of it, each behind a switch that an environment variable sets; the
//! tests are built once, one run records which test reaches which mutant, and each mutant runs the tests that reach it
//! until one fails. Survivors need a line with a reason in `accepted.txt`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a developer tool prints its results")]
#![allow(clippy::disallowed_methods, reason = "it times the tests that it runs")]

mod accepted;
mod campaign;
mod compile;
mod list;
mod program;
mod report;
mod rewrite;
mod scope;
mod syntax;
mod tree;
mod viable;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use accepted::Accepted;
use anyhow::{Context, Result};
use campaign::Selection;
use clap::Parser;

/// Which mutants to test; without options all of them, and the result is entered in the ledger.
#[derive(Parser)]
#[command(name = "mutants")]
struct Options {
    /// Only crates whose name contains this text
    #[arg(long)]
    package: Option<String>,
    /// Only mutants whose line contains this text (repeatable)
    #[arg(long)]
    only: Vec<String>,
    /// Keep the verdicts of the last run on the mutants that it caught, and test the others
    #[arg(long)]
    resume: bool,
    /// Only tests whose name contains this text
    #[arg(long)]
    tests: Option<String>,
    /// The seconds that the tests of one mutant may take in all
    #[arg(long)]
    budget: Option<u64>,
    /// The number of tests that run at a time; default: the number of processors
    #[arg(long)]
    jobs: Option<usize>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mutants: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no repository")?;
    let accepted = Accepted::parse(&std::fs::read_to_string(root.join("mutants/accepted.txt"))?)?;
    std::fs::create_dir_all(root.join(".cache/mutants"))?;
    let (mut all, mut is_all) = (Vec::new(), true);
    for scope in &scope::SCOPES {
        if options.package.as_ref().is_some_and(|text| !scope.package.contains(text)) {
            is_all = false;
            continue;
        }
        let jobs = options.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let selection = Selection {
            mutants: options.only.clone(),
            resume: options.resume,
            tests: options.tests.clone(),
            budget: options.budget.map(Duration::from_secs),
            jobs,
        };
        let tested = campaign::run(root, scope, &selection)?;
        is_all &= selection.is_all();
        all.extend(tested);
    }
    let counts = report::print(&all);
    let failures = report::failures(&all, &accepted, is_all);
    failures.iter().for_each(|failure| println!("FAIL mutants: {failure}"));
    if is_all {
        report::enter(root, &counts, failures.len())?;
    }
    println!("{} passed, {} failed", all.len() - failures.len().min(all.len()), failures.len());
    Ok(failures.is_empty())
}
