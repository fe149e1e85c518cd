//! The steps of `cargo xtask test`, in order, with the minimum number of their checks.

use anyhow::{Context, Result, bail};

use crate::counts::{Outcome, counted, last_line, one, sum, sum_of_cargo};
use crate::install::{self, named_vault, python};
use crate::shell::{Shell, has, root};
use crate::{skips, tidy};

/// A step.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    /// Its name for `--only`.
    pub(crate) name: &'static str,
    /// The minimum number of passed checks. A step with fewer has lost tests and fails.
    pub(crate) at_least: usize,
    /// The function that runs it.
    pub(crate) run: fn(&Shell) -> Result<Outcome>,
}

const fn step(name: &'static str, at_least: usize, run: fn(&Shell) -> Result<Outcome>) -> Step {
    Step { name, at_least, run }
}

const ALL: [Step; 31] = [
    step("install", 1, |shell| install::prepare(shell).map(|()| one(true))),
    step("fmt", 1, |shell| Ok(one(shell.run("cargo", &["fmt", "--all", "--check"])?.ok))),
    step("clippy", 1, clippy),
    step("tidy", 20, tidy::check),
    step("build", 1, build),
    step("unit", 2600, unit),
    step("doc", 29, doc),
    step("scenarios", 13_300, scenarios),
    step("sealed", 1150, sealed),
    step("canary", 640, canary),
    step("surface", 455, surface),
    step("hvac", 700, hvac),
    step("cross", 1800, cross),
    step("oidc", 62, oidc),
    step("self-init", 85, self_init),
    step("generated", 2500, generated),
    step("seed", 66, seed),
    step("balanced", 6000, balanced),
    step("guide", 34, guide),
    step("http", 10_000, |shell| campaign(shell, &["http", "--count", "10000"])),
    step("abuse", 27, |shell| campaign(shell, &["abuse", "--count", "150"])),
    step("kill", 300, |shell| campaign(shell, &["kill", "--count", "5"])),
    step("disk", 2000, |shell| campaign(shell, &["disk", "--count", "8"])),
    step("consensus", 500, |shell| campaign(shell, &["consensus", "--count", "500"])),
    step("nodes", 400, |shell| campaign(shell, &["nodes", "--count", "400"])),
    step("cluster", 140_000, |shell| campaign(shell, &CLUSTER)),
    step("leases", 21, |shell| campaign(shell, &["leases", "--count", "21"])),
    step("due", 20_000, due),
    step("seals", 911, |shell| campaign(shell, &["seals", "--count", "105"])),
    step("tokens", 5000, |shell| campaign(shell, &["tokens", "--count", "5000"])),
    step("fuzz", 21, fuzz),
];

/// The names of all steps.
pub(crate) fn names() -> Vec<&'static str> {
    ALL.iter().map(|step| step.name).collect()
}

/// The steps with these names, in their own order.
pub(crate) fn select(names: &[&str]) -> Result<Vec<Step>> {
    if let Some(unknown) = names.iter().find(|name| ALL.iter().all(|step| step.name != **name)) {
        bail!("no step {unknown}; there are {}", self::names().join(" "));
    }
    Ok(ALL.iter().copied().filter(|step| names.contains(&step.name)).collect())
}

fn clippy(shell: &Shell) -> Result<Outcome> {
    Ok(one(shell.run("cargo", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?.ok))
}

/// Builds everything once, so that the later steps only run.
fn build(shell: &Shell) -> Result<Outcome> {
    let bins =
        shell.run("cargo", &["build", "-q", "-p", "keepfast-cli", "-p", "keepfast-pkcs11", "-p", "conformance"])?;
    Ok(one(bins.ok && named_vault("keepfast").exists()))
}

fn unit(shell: &Shell) -> Result<Outcome> {
    // The install step has installed the servers, so a test without its server fails.
    let servers = [("KEEPFAST_SERVERS", "required")];
    if !has("cargo-nextest") {
        let arguments = ["test", "-q", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"];
        return skips::require_count("unit", sum_of_cargo(&shell.run_with("cargo", &arguments, &servers)?), shell);
    }
    let arguments = ["nextest", "run", "--workspace", "--no-fail-fast", "--status-level", "fail"];
    let ran = shell.run_with("cargo", &arguments, &servers)?;
    let summary = ran.output.lines().rfind(|line| line.contains("tests run:") || line.contains("test run:"));
    skips::require_count("unit", counted(&ran, summary.unwrap_or_default()), shell)
}

fn doc(shell: &Shell) -> Result<Outcome> {
    let ran = shell.run("cargo", &["test", "-q", "--workspace", "--doc", "--no-fail-fast"])?;
    skips::require_count("doc", sum_of_cargo(&ran), shell)
}

fn scenarios(shell: &Shell) -> Result<Outcome> {
    last_line(&shell.run("cargo", &["run", "-q", "-p", "conformance", "--", "run"])?)
}

/// The scenarios of [`UNDER_KILLS`] on a server that two seals unseal.
fn sealed(shell: &Shell) -> Result<Outcome> {
    let mut arguments = vec!["run", "-q", "-p", "conformance", "--", "run", "--sealed"];
    arguments.extend(UNDER_KILLS);
    last_line(&shell.run("cargo", &arguments)?)
}

/// Searches the disk for the secrets of all scenarios (AL-01), and for those of seals.
fn canary(shell: &Shell) -> Result<Outcome> {
    last_line(&shell.run("cargo", &["run", "-q", "-p", "conformance", "--", "canary"])?)
}

/// The coverage of OpenBao's API: no operation beyond the list may be missing.
fn surface(shell: &Shell) -> Result<Outcome> {
    last_line(&shell.run("cargo", &["run", "-q", "-p", "conformance", "--", "surface"])?)
}

/// The tests of hvac on OpenBao, as the reference, then on Keepfast.
fn hvac(shell: &Shell) -> Result<Outcome> {
    let on = |arguments: &[&str]| -> Result<Outcome> {
        let mut all = vec!["conformance/hvac/run.py"];
        all.extend(arguments);
        last_line(&shell.run(&python(), &all)?)
    };
    let openbao = on(&["bao", &named_vault("bao").display().to_string()])?;
    let baseline = root().join(".cache/hvac/bao.json").display().to_string();
    let ours = on(&["keepfast", &named_vault("keepfast").display().to_string(), "--baseline", &baseline])?;
    Ok(sum(&[openbao, ours]))
}

/// Each server reads what the other encrypts, signs, wraps and backs up with transit.
fn cross(shell: &Shell) -> Result<Outcome> {
    let [openbao, ours] = ["bao", "keepfast"].map(|name| named_vault(name).display().to_string());
    last_line(&shell.run(&python(), &["conformance/cross/run.py", &openbao, &ours])?)
}

/// A relying party of the OIDC provider of both servers.
fn oidc(shell: &Shell) -> Result<Outcome> {
    let [openbao, ours] = ["bao", "keepfast"].map(|name| named_vault(name).display().to_string());
    last_line(&shell.run(&python(), &["conformance/oidc/run.py", &openbao, &ours])?)
}

/// The `initialize` stanzas of a page, on processes of both servers.
fn self_init(shell: &Shell) -> Result<Outcome> {
    let [openbao, ours] = ["bao", "keepfast"].map(|name| named_vault(name).display().to_string());
    last_line(&shell.run(&python(), &["conformance/self_init/run.py", &openbao, &ours])?)
}

/// Generated requests on both servers: no difference beyond the accepted ones.
fn generated(shell: &Shell) -> Result<Outcome> {
    let [openbao, ours] = ["bao", "keepfast"].map(|name| named_vault(name).display().to_string());
    last_line(&shell.run(&python(), &["conformance/generated/run.py", &openbao, &ours, "--count", "2500"])?)
}

/// The Python code of the seed document on both servers. OpenBao has every engine; Keepfast has those in
/// `conformance/seed/engines.txt`.
fn seed(shell: &Shell) -> Result<Outcome> {
    let openbao = seed_on(shell, "bao", &["--engines", "database,transit"])?;
    Ok(sum(&[openbao, seed_on(shell, "keepfast", &["--engines", &seed_engines()?])?]))
}

/// The engines of the seed document that Keepfast has.
fn seed_engines() -> Result<String> {
    let ours = std::fs::read_to_string(root().join("conformance/seed/engines.txt"))?;
    Ok(ours.split_whitespace().collect::<Vec<_>>().join(","))
}

fn seed_on(shell: &Shell, server: &str, options: &[&str]) -> Result<Outcome> {
    let named = named_vault(server);
    let folder = named.parent().context("no folder")?.display();
    let path = format!("{folder}:{}", std::env::var("PATH")?);
    let mut arguments = vec!["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "conformance/seed"];
    arguments.extend(options);
    let ran = shell.run_with(&python(), &arguments, &[("PATH", &path)])?;
    let counts = counted(&ran, ran.output.lines().last().unwrap_or_default());
    skips::require_listed("seed", counts, &ran.output, shell)
}

/// The scenarios, hvac's tests and the Python code of the seed document on three nodes behind a load balancer, which sends
/// each request to the next node. OpenBao is the reference of the step `hvac`. Then some of them while the leader is killed
/// every ten seconds, with clients that retry.
fn balanced(shell: &Shell) -> Result<Outcome> {
    let conformance = root().join("target/debug/conformance").display().to_string();
    let scenarios = last_line(&shell.run(&conformance, &["run", "--balanced"])?)?;
    let ours = named_vault("keepfast").display().to_string();
    let hvac = hvac_balanced(shell, &conformance, &[])?;
    let killed_hvac = ["--kill-leader-every", KILL_OF_HVAC, "--select", HVAC_UNDER_KILLS];
    let killed_hvac = hvac_balanced(shell, &conformance, &killed_hvac)?;
    let seed = seed_on(shell, "keepfast", &["--engines", &seed_engines()?, "--balanced", &conformance])?;
    let mut kills = vec!["run", "--balanced", "--kill-leader-every", "10"];
    kills.extend(UNDER_KILLS);
    let killed = last_line(&shell.run(&conformance, &kills)?)?;
    let failover = ["conformance/seed/failover.py", &conformance, "25"];
    let failover = last_line(&shell.run_with(&python(), &failover, &[("KEEPFAST", &ours)])?)?;
    Ok(sum(&[scenarios, hvac, killed_hvac, seed, killed, failover]))
}

/// hvac's own tests on clusters behind a load balancer.
pub(crate) fn hvac_balanced(shell: &Shell, conformance: &str, options: &[&str]) -> Result<Outcome> {
    let reference = root().join(".cache/hvac/bao.json");
    if !reference.exists() {
        let openbao = named_vault("bao").display().to_string();
        shell.require(&python(), &["conformance/hvac/run.py", "bao", &openbao])?;
    }
    let (ours, reference) = (named_vault("keepfast").display().to_string(), reference.display().to_string());
    let mut arguments =
        vec!["conformance/hvac/run.py", "keepfast", &ours, "--baseline", &reference, "--balanced", conformance];
    arguments.extend(options);
    last_line(&shell.run(&python(), &arguments)?)
}

/// The seconds between two kills of a leader under hvac's tests: each of their classes has a cluster of its own, for some
/// seconds only.
pub(crate) const KILL_OF_HVAC: &str = "3";

/// The classes of hvac's tests that run while leaders are killed: a minute.
const HVAC_UNDER_KILLS: &str = "approle or kv_v2 or transit";

/// Each fault once, then again until the operations are checked, and the uses of revoked tokens, or the time is over.
const CLUSTER: [&str; 11] = [
    "cluster",
    "--count",
    "26",
    "--connections",
    "6",
    "--operations",
    "200000",
    "--revoked-uses",
    "5000",
    "--seconds",
    "120",
];

/// The scenarios that run while the leader is killed, again and again on the same cluster, and on a server with two seals.
pub(crate) const UNDER_KILLS: [&str; 7] = ["approle/", "kv1/", "kv2/", "policy/", "token/re", "token/uses", "transit/"];

/// The commands of the guides.
fn guide(shell: &Shell) -> Result<Outcome> {
    let ours = named_vault("keepfast").display().to_string();
    let on =
        |document: &str| last_line(&shell.run(&python(), &["conformance/guide/run.py", &ours, &python(), document])?);
    Ok(sum(&[on("guide.md")?, on("cluster.md")?]))
}

/// The short form of a campaign.
fn campaign(shell: &Shell, arguments: &[&str]) -> Result<Outcome> {
    let mut all = vec!["run", "-q", "-p", "conformance", "--", "campaign"];
    all.extend(arguments);
    all.push("--short");
    last_line(&shell.run("cargo", &all)?)
}

/// Leases that expire on one node, and on three whose leader is killed.
fn due(shell: &Shell) -> Result<Outcome> {
    let one = campaign(shell, &["due", "--count", "2500"])?;
    Ok(sum(&[one, campaign(shell, &["due", "--count", "300", "--nodes", "3"])?]))
}

/// The fuzz targets, in the build of the step `unit`.
fn fuzz(shell: &Shell) -> Result<Outcome> {
    last_line(&shell.run("cargo", &["test", "--workspace", "--test", "short", "--", "--seconds", "3"])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_keep_their_order_and_unknown_names_are_refused() {
        let names: Vec<_> = select(&["tidy", "fmt"]).into_iter().flatten().map(|step| step.name).collect();
        assert_eq!(names, ["fmt", "tidy"]);
        assert!(select(&["nonsense"]).is_err());
    }

    #[test]
    fn every_step_expects_at_least_one_check() {
        assert!(ALL.iter().all(|step| step.at_least > 0));
    }
}
