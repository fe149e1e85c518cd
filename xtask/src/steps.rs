//! The steps of `cargo xtask test`, in their order, and how each one's counts are read from what it prints.

use anyhow::{Context, Result, bail};

use crate::install::{self, named_vault, python};
use crate::shell::{Ran, Shell, has, root};
use crate::tidy;

/// What a step counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Checks that held.
    pub(crate) passed: usize,
    /// Checks that did not.
    pub(crate) failed: usize,
}

/// One step.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    /// Its name for `--only`.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) run: fn(&Shell) -> Result<Outcome>,
}

const ALL: [Step; 21] = [
    Step { name: "install", run: |shell| install::prepare(shell).map(|()| one(true)) },
    Step { name: "fmt", run: |shell| Ok(one(shell.run("cargo", &["fmt", "--all", "--check"])?.ok)) },
    Step { name: "clippy", run: clippy },
    Step { name: "tidy", run: tidy::check },
    Step { name: "build", run: build },
    Step { name: "unit", run: unit },
    Step { name: "doc", run: doc },
    Step { name: "scenarios", run: scenarios },
    Step { name: "canary", run: canary },
    Step { name: "surface", run: surface },
    Step { name: "hvac", run: hvac },
    Step { name: "cross", run: cross },
    Step { name: "seed", run: seed },
    Step { name: "guide", run: guide },
    Step { name: "http", run: |shell| campaign(shell, &["http", "--count", "10000"]) },
    Step { name: "kill", run: |shell| campaign(shell, &["kill", "--count", "5"]) },
    Step { name: "disk", run: |shell| campaign(shell, &["disk", "--count", "8"]) },
    Step { name: "leases", run: |shell| campaign(shell, &["leases", "--count", "21"]) },
    Step { name: "due", run: |shell| campaign(shell, &["due", "--count", "2000"]) },
    Step { name: "tokens", run: |shell| campaign(shell, &["tokens", "--count", "5000"]) },
    Step { name: "fuzz", run: fuzz },
];

/// The names of all steps.
pub(crate) fn names() -> Vec<&'static str> {
    ALL.iter().map(|step| step.name).collect()
}

/// The steps of these names, in their own order.
pub(crate) fn select(names: &[&str]) -> Result<Vec<Step>> {
    if let Some(unknown) = names.iter().find(|name| ALL.iter().all(|step| step.name != **name)) {
        bail!("no step {unknown}; there are {}", self::names().join(" "));
    }
    Ok(ALL.iter().copied().filter(|step| names.contains(&step.name)).collect())
}

fn clippy(shell: &Shell) -> Result<Outcome> {
    Ok(one(shell.run("cargo", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?.ok))
}

/// Everything is built once here, so that the steps after it only run.
fn build(shell: &Shell) -> Result<Outcome> {
    let bins = shell.run("cargo", &["build", "-q", "-p", "keepfast-cli", "-p", "conformance"])?;
    Ok(one(bins.ok && named_vault("keepfast").exists()))
}

fn unit(shell: &Shell) -> Result<Outcome> {
    // The step before has installed the servers, so a test that misses one fails.
    let servers = [("KEEPFAST_SERVERS", "required")];
    if !has("cargo-nextest") {
        let arguments = ["test", "-q", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"];
        return Ok(sum_of_cargo(&shell.run_with("cargo", &arguments, &servers)?));
    }
    let arguments = ["nextest", "run", "--workspace", "--no-fail-fast", "--status-level", "fail"];
    let ran = shell.run_with("cargo", &arguments, &servers)?;
    let summary = ran.output.lines().rfind(|line| line.contains("tests run:") || line.contains("test run:"));
    Ok(counted(&ran, summary.unwrap_or_default()))
}

fn doc(shell: &Shell) -> Result<Outcome> {
    let ran = shell.run("cargo", &["test", "-q", "--workspace", "--doc", "--no-fail-fast"])?;
    Ok(sum_of_cargo(&ran))
}

fn scenarios(shell: &Shell) -> Result<Outcome> {
    last_line(&shell.run("cargo", &["run", "-q", "-p", "conformance", "--", "run"])?)
}

/// Looks on disk for the secrets of all scenarios (AL-01).
fn canary(shell: &Shell) -> Result<Outcome> {
    last_line(&shell.run("cargo", &["run", "-q", "-p", "conformance", "--", "canary"])?)
}

/// What we have of the peer's surface: nothing may be missing beyond the list.
fn surface(shell: &Shell) -> Result<Outcome> {
    last_line(&shell.run("cargo", &["run", "-q", "-p", "conformance", "--", "surface"])?)
}

/// hvac's tests on the peer, which is the measure, then on Keepfast.
fn hvac(shell: &Shell) -> Result<Outcome> {
    let on = |arguments: &[&str]| -> Result<Outcome> {
        let mut all = vec!["conformance/hvac/run.py"];
        all.extend(arguments);
        last_line(&shell.run(&python(), &all)?)
    };
    let peer = on(&["bao", &named_vault("bao").display().to_string()])?;
    let baseline = root().join(".cache/hvac/bao.json").display().to_string();
    let ours = on(&["keepfast", &named_vault("keepfast").display().to_string(), "--baseline", &baseline])?;
    Ok(sum(&[peer, ours]))
}

/// What one server encrypts, signs, wraps and backs up with transit, the other reads.
fn cross(shell: &Shell) -> Result<Outcome> {
    let [peer, ours] = ["bao", "keepfast"].map(|name| named_vault(name).display().to_string());
    last_line(&shell.run(&python(), &["conformance/cross/run.py", &peer, &ours])?)
}

/// The seed document's Python on both servers. The peer has every engine; ours has what `conformance/seed/engines.txt` names.
fn seed(shell: &Shell) -> Result<Outcome> {
    let ours = std::fs::read_to_string(root().join("conformance/seed/engines.txt"))?;
    let mut outcomes = Vec::new();
    for (server, engines) in [("bao", "database,transit"), ("keepfast", ours.trim())] {
        let named = named_vault(server);
        let folder = named.parent().context("no folder")?.display();
        let path = format!("{folder}:{}", std::env::var("PATH")?);
        let arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "conformance/seed", "--engines", engines];
        let ran = shell.run_with(&python(), &arguments, &[("PATH", &path)])?;
        outcomes.push(counted(&ran, ran.output.lines().last().unwrap_or_default()));
    }
    Ok(sum(&outcomes))
}

/// The commands of the user's guide, as they stand there.
fn guide(shell: &Shell) -> Result<Outcome> {
    let ours = named_vault("keepfast").display().to_string();
    last_line(&shell.run(&python(), &["conformance/guide/run.py", &ours, &python()])?)
}

/// The short form of a campaign.
fn campaign(shell: &Shell, arguments: &[&str]) -> Result<Outcome> {
    let mut all = vec!["run", "-q", "-p", "conformance", "--", "campaign"];
    all.extend(arguments);
    all.push("--short");
    last_line(&shell.run("cargo", &all)?)
}

fn fuzz(shell: &Shell) -> Result<Outcome> {
    let arguments = [
        "run",
        "-q",
        "--manifest-path",
        "fuzz/Cargo.toml",
        "--target-dir",
        "target",
        "--bin",
        "short",
        "--",
        "--seconds",
        "3",
    ];
    last_line(&shell.run("cargo", &arguments)?)
}

fn one(ok: bool) -> Outcome {
    Outcome { passed: usize::from(ok), failed: usize::from(!ok) }
}

fn sum(outcomes: &[Outcome]) -> Outcome {
    outcomes
        .iter()
        .fold(Outcome::default(), |a, b| Outcome { passed: a.passed + b.passed, failed: a.failed + b.failed })
}

/// Our own tools end with `N passed, N failed`.
fn last_line(ran: &Ran) -> Result<Outcome> {
    let line = ran.output.lines().rfind(|line| !line.trim().is_empty()).context("it said nothing")?;
    Ok(counted(ran, line))
}

/// Cargo says `test result: …` for each binary.
fn sum_of_cargo(ran: &Ran) -> Outcome {
    let each: Vec<_> = ran.output.lines().filter(|line| line.starts_with("test result:")).map(read_counts).collect();
    honest(ran, sum(&each))
}

fn counted(ran: &Ran, line: &str) -> Outcome {
    honest(ran, read_counts(line))
}

/// A program that failed without counting a failure has failed once.
fn honest(ran: &Ran, outcome: Outcome) -> Outcome {
    if ran.ok { outcome } else { Outcome { failed: outcome.failed.max(1), ..outcome } }
}

/// The numbers before `passed`, and before `failed`, `error` and `timed out`.
fn read_counts(line: &str) -> Outcome {
    let words: Vec<&str> =
        line.split(|c: char| c.is_whitespace() || c == ',' || c == ';').filter(|w| !w.is_empty()).collect();
    let before = |names: &[&str]| -> usize {
        let pairs = words.windows(2).filter(|pair| names.contains(&pair[1].trim_end_matches('.')));
        pairs.filter_map(|pair| pair[0].parse::<usize>().ok()).sum()
    };
    Outcome { passed: before(&["passed"]), failed: before(&["failed", "error", "errors", "timed"]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_counts_of_every_tool() {
        let counts = |passed, failed| Outcome { passed, failed };
        assert_eq!(read_counts("1170 passed, 3 failed"), counts(1170, 3));
        assert_eq!(
            read_counts("     Summary [   0.5s] 42 tests run: 41 passed (1 slow), 1 failed, 2 skipped"),
            counts(41, 1)
        );
        assert_eq!(read_counts("test result: ok. 8 passed; 0 failed; 0 ignored; 0 measured"), counts(8, 0));
        assert_eq!(read_counts("25 passed, 8 skipped, 1 error in 5.83s"), counts(25, 1));
    }

    #[test]
    fn a_failure_without_a_count_is_a_failure() {
        let ran = Ran { ok: false, output: String::new() };
        assert_eq!(counted(&ran, ""), Outcome { passed: 0, failed: 1 });
    }

    #[test]
    fn steps_keep_their_order_and_unknown_names_are_refused() {
        let names: Vec<_> = select(&["tidy", "fmt"]).into_iter().flatten().map(|step| step.name).collect();
        assert_eq!(names, ["fmt", "tidy"]);
        assert!(select(&["nonsense"]).is_err());
    }
}
