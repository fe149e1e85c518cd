//! Sets the commit and the build date of the program.
//!
//! They come from `KEEPFAST_COMMIT` and `SOURCE_DATE_EPOCH`
//! (<https://reproducible-builds.org/specs/source-date-epoch/>), else from git's last commit, so that a commit always
//! builds the same program. Without git both are unknown.

use std::process::Command;

fn main() {
    let commit = set("KEEPFAST_COMMIT").or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    let date = set("SOURCE_DATE_EPOCH")
        .and_then(|seconds| output("date", &["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%d"]))
        .or_else(|| git(&["log", "-1", "--format=%cd", "--date=format:%Y-%m-%d"]));
    println!("cargo::rustc-env=KEEPFAST_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    println!("cargo::rustc-env=KEEPFAST_BUILD_DATE={}", date.as_deref().unwrap_or("unknown"));
    println!("cargo::rerun-if-env-changed=KEEPFAST_COMMIT");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    // A new commit changes one of these files; uncommitted changes do not run this again.
    for path in git(&["rev-parse", "--git-path", "logs/HEAD"]).into_iter().chain(Some("build.rs".to_owned())) {
        println!("cargo::rerun-if-changed={path}");
    }
}

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty() && !value.contains(char::is_whitespace))
}

fn git(arguments: &[&str]) -> Option<String> {
    output("git", arguments)
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
