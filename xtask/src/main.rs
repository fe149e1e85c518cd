//! `cargo xtask`: the developer commands of this repository. `cargo xtask help` lists them.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a developer tool prints its results")]
#![allow(clippy::disallowed_methods, reason = "it times the steps that it runs")]

mod counts;
mod install;
mod shell;
mod skips;
mod steps;
mod tidy;

use std::process::ExitCode;

use anyhow::{Result, bail};
use counts::Outcome;
use shell::{Shell, root};
use steps::Step;

const HELP: &str = "\
cargo xtask verify                  what every commit needs: fmt, clippy, tidy, unit and documentation tests
cargo xtask fix                     fixes what tools can fix: fmt, clippy --fix
cargo xtask test [--only A,B] [--skip A,B]
                                    everything; installs what it needs; the last line is `N passed, N failed`
cargo xtask campaign NAME [options] a long run, entered in conformance/ledger.md: abuse, cluster, consensus, disk, due, http, kill, leases, nodes, seals, snapshots, tokens, fuzz, mutants, vaultrs
cargo xtask campaign failover [SECONDS]
                                    scenarios and applications with hvac while the leader of a cluster is killed every ten seconds, and hvac's own tests with a kill every three
cargo xtask bench [options]         bench/compare.py on OpenBao and Keepfast
cargo xtask bench creds [options]   bench/creds.py: credentials of a PostgreSQL a second, on both
cargo xtask openapi                 the OpenAPI document of Keepfast, to target/openapi.json
cargo xtask surface [--write]       which paths and operations of OpenBao Keepfast has
cargo xtask tidy                    the house rules
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match perform(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(arguments: &[String]) -> Result<bool> {
    let (command, rest) = arguments.split_first().map_or(("help", &[][..]), |(c, rest)| (c.as_str(), rest));
    match command {
        "verify" => run_steps(&steps::select(&["fmt", "clippy", "tidy", "unit", "doc"])?),
        "fix" => fix(),
        "test" => run_steps(&chosen(rest)?),
        "tidy" => run_steps(&steps::select(&["tidy"])?),
        "campaign" => campaign(rest),
        "bench" => bench(rest),
        "openapi" => conformance_tool(&["openapi"], rest),
        "surface" => conformance_tool(&["surface"], rest),
        "help" | "--help" | "-h" => {
            print!("{HELP}\nSteps of test: {}\n", steps::names().join(" "));
            Ok(true)
        }
        other => bail!("no command {other}\n{HELP}"),
    }
}

/// The steps that `--only` and `--skip` select.
fn chosen(options: &[String]) -> Result<Vec<Step>> {
    let mut names = steps::names();
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        let (flag, value) = match option.split_once('=') {
            Some((flag, value)) => (flag, value.to_owned()),
            None => (option.as_str(), rest.next().cloned().unwrap_or_default()),
        };
        let given: Vec<&str> = value.split(',').filter(|name| !name.is_empty()).collect();
        steps::select(&given)?;
        match flag {
            "--only" => names.retain(|name| given.contains(name)),
            "--skip" => names.retain(|name| !given.contains(name)),
            _ => bail!("test takes --only and --skip, not {flag}"),
        }
    }
    steps::select(&names)
}

/// Runs steps, with one line per step, and prints the sum as the last line. The output of a step is in `.cache/log/`;
/// its last lines are printed when it fails.
fn run_steps(steps: &[Step]) -> Result<bool> {
    let mut total = Outcome::default();
    let mut broken = Vec::new();
    for step in steps {
        let started = std::time::Instant::now();
        let shell = Shell::for_step(step.name)?;
        let outcome = (step.run)(&shell).unwrap_or_else(|error| {
            shell.note(&format!("{error:#}"));
            Outcome { failed: 1, ..Outcome::default() }
        });
        let Outcome { passed, mut failed, skipped } = outcome;
        if failed == 0 && passed < step.at_least {
            shell.note(&format!(
                "{passed} checks passed, and this step has at least {}: tests are missing",
                step.at_least
            ));
            failed = 1;
        }
        let left_out = if skipped > 0 { format!("  {skipped} skipped (xtask/skips.txt)") } else { String::new() };
        println!(
            "{:<11}{passed:>6} passed {failed:>4} failed  {:>6.1} s{left_out}",
            step.name,
            started.elapsed().as_secs_f64()
        );
        if failed > 0 {
            println!("{}", shell.tail(80));
            broken.push(step.name);
        }
        total.passed += passed;
        total.failed += failed;
    }
    if !broken.is_empty() {
        println!("failed: {}; the logs are in .cache/log/", broken.join(" "));
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(total.failed == 0)
}

fn fix() -> Result<bool> {
    let clippy = ["clippy", "--workspace", "--all-targets", "--fix", "--allow-dirty", "--allow-staged"];
    Ok(shell::visible("cargo", &clippy)? && shell::visible("cargo", &["fmt", "--all"])?)
}

/// Scenarios, and applications with hvac, while the leader of a cluster is killed.
fn failover(seconds: &str) -> Result<bool> {
    shell::visible("cargo", &["build", "-p", "conformance"])?;
    let conformance = root().join("target/debug/conformance").display().to_string();
    let mut kills = vec!["run", "--balanced", "--kill-leader-every", "10"];
    kills.extend(steps::UNDER_KILLS);
    let scenarios = shell::visible(&conformance, &kills)?;
    let step = Shell::for_step("failover")?;
    let hvac = steps::hvac_balanced(&step, &conformance, &["--kill-leader-every", steps::KILL_OF_HVAC])?;
    println!("hvac: {} passed, {} failed", hvac.passed, hvac.failed);
    let applications = shell::visible(&install::python(), &["conformance/seed/failover.py", &conformance, seconds])?;
    Ok(scenarios && applications && hvac.failed == 0 && hvac.passed > 0)
}

/// Campaigns run on a release build, except for those without a server.
fn campaign(rest: &[String]) -> Result<bool> {
    match rest.first().map(String::as_str) {
        Some("mutants") => {
            let mut arguments = vec!["run", "-q", "-p", "mutants", "--"];
            arguments.extend(rest[1..].iter().map(String::as_str));
            return shell::visible("cargo", &arguments);
        }
        Some("consensus" | "nodes") => {
            let mut arguments = vec!["run", "-q", "--profile", "campaign", "-p", "conformance", "--", "campaign"];
            arguments.extend(rest.iter().map(String::as_str));
            return shell::visible("cargo", &arguments);
        }
        Some("fuzz") => {
            let mut arguments = vec!["test", "--profile", "campaign", "--workspace", "--test", "short", "--"];
            arguments.extend(rest[1..].iter().map(String::as_str));
            return shell::visible("cargo", &arguments);
        }
        _ => {}
    }
    install::prepare(&Shell::for_step("install")?)?;
    shell::visible("cargo", &["build", "--release", "-p", "keepfast-cli", "-p", "keepfast-pkcs11"])?;
    if rest.first().is_some_and(|name| name == "failover") {
        return failover(rest.get(1).map_or("600", String::as_str));
    }
    if rest.first().is_some_and(|name| name == "vaultrs") {
        let openbao = format!("bao={}", install::named_vault("bao").display());
        let ours = format!("keepfast={}", root().join("target/release/keepfast").display());
        return shell::visible(&install::python(), &["conformance/vaultrs/run.py", &openbao, &ours]);
    }
    conformance_tool(&["campaign"], rest)
}

/// Runs the `conformance` tool.
fn conformance_tool(first: &[&str], rest: &[String]) -> Result<bool> {
    let mut arguments = vec!["run", "-q", "-p", "conformance", "--"];
    arguments.extend(first);
    arguments.extend(rest.iter().map(String::as_str));
    shell::visible("cargo", &arguments)
}

fn bench(rest: &[String]) -> Result<bool> {
    if !shell::has("wrk") {
        bail!("bench needs wrk (apt install wrk)");
    }
    let shell = Shell::for_step("install")?;
    install::prepare(&shell)?;
    shell::visible("cargo", &["build", "--release", "-p", "keepfast-cli"])?;
    let openbao = format!("openbao={}", install::named_vault("bao").display());
    let ours = format!("keepfast={}", root().join("target/release/keepfast").display());
    let (script, rest) = match rest.split_first() {
        Some((first, rest)) if first == "creds" => ("bench/creds.py", rest),
        _ => ("bench/compare.py", rest),
    };
    let mut arguments = vec![script, "--server", &openbao, "--server", &ours];
    arguments.extend(rest.iter().map(String::as_str));
    shell::visible("python3", &arguments)
}
