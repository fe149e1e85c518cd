//! The house rules that rustfmt and clippy do not check. Each finding names a place and a rule.

mod cycles;
mod documents;
mod environment;
mod graph;
mod names;
mod owners;
mod recursion;
mod sources;
mod words;

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::counts::Outcome;
use crate::shell::{Shell, root};

/// The findings of a rule: lines that name place and error.
type Findings = Vec<String>;

/// The name of a rule and its function.
type Rule = (&'static str, fn(&Repository) -> Result<Findings>);

const RULES: [Rule; 20] = [
    ("files begin with a //! line", sources::headed),
    ("files are at most 600 lines", sources::short_files),
    ("functions are at most 80 lines", sources::short_functions),
    ("no util, common, helper, misc, types", sources::descriptive_names),
    ("one clock, one source of randomness", sources::clock_and_randomness),
    ("no markers of unfinished work", sources::nothing_left_open),
    ("every recursion names its bound", recursion::bounded),
    ("tests do not sleep", sources::tests_do_not_sleep),
    ("every ignored test has its reason in xtask/skips.txt", sources::ignored_tests_are_listed),
    ("no paths of a machine", sources::no_machine_paths),
    ("each permit is made in one file", sources::permits_have_one_maker),
    ("the stages and the mounts name no engine and no path", names::none_in_the_stages),
    ("no import cycle of core has more than three files", cycles::short),
    ("owners of core have at most 8 fields and 10 methods", owners::small),
    ("crates depend in one direction", graph::direction),
    ("every direct dependency has its reason", graph::reasons),
    ("every invariant names its tests", documents::invariants),
    ("every security row names its tests", documents::security_rows),
    ("pages name the environment variables that are read", environment::documented),
    ("no refused words in comments, names and pages", words::plain),
];

/// A file of the repository: its path from the root, and its text.
struct File {
    path: String,
    text: String,
}

/// The text files under version control, but for `vendor/`.
struct Repository {
    files: Vec<File>,
}

impl Repository {
    fn read() -> Result<Self> {
        let listing = ["ls-files", "--cached", "--others", "--exclude-standard"];
        let listed = Command::new("git").args(listing).current_dir(root()).output()?.stdout;
        let listed = String::from_utf8_lossy(&listed);
        let read = |path: &str| {
            let text = std::fs::read_to_string(root().join(path)).ok()?;
            Some(File { path: path.to_owned(), text })
        };
        let is_own = |path: &&str| !path.starts_with("vendor/");
        Ok(Self { files: listed.lines().filter(is_own).filter_map(read).collect() })
    }

    fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }
}

impl File {
    /// The lines of production code with their numbers: no test files, and no lines after `#[cfg(test)]` in the first
    /// column.
    fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test = self.is_test();
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.take_while(move |(_, line)| !is_test && *line != "#[cfg(test)]")
    }

    /// Whether the file contains only tests.
    fn is_test(&self) -> bool {
        let stem = Path::new(&self.path).file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        stem == "tests" || stem.ends_with("_tests") || self.path.contains("/tests/") || self.path.contains("/benches/")
    }
}

/// Checks every rule; a rule counts as one.
pub(crate) fn check(shell: &Shell) -> Result<Outcome> {
    let repository = Repository::read()?;
    let mut outcome = Outcome::default();
    for (name, rule) in RULES {
        let findings = rule(&repository)?;
        if findings.is_empty() {
            outcome.passed += 1;
            continue;
        }
        outcome.failed += 1;
        shell.note(&format!("rule broken: {name}"));
        for finding in findings {
            shell.note(&format!("  {finding}"));
        }
    }
    Ok(outcome)
}
