//! Rules on source files, line by line.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Findings, Repository};
use crate::shell::root;
use crate::skips;

/// The only files that may read the time, sleep or create random numbers: the clock, the generator, and tools that
/// measure from outside.
const CLOCK_AND_RANDOMNESS: [&str; 9] = [
    "crates/framework/src/clock.rs",
    "crates/crypto/src/random.rs",
    "crates/client/src/timer.rs",
    "crates/edge/src/timeouts.rs",
    "conformance/",
    "mutants/",
    "xtask/",
    "bench/",
    "fuzz/",
];

/// File names that do not describe the content.
const EMPTY_NAMES: [&str; 8] = ["util", "utils", "common", "helper", "helpers", "misc", "types", "shared"];

/// The one file that creates each permit of `core/src/mount/permit.rs`.
const PERMITS: [(&str, &str); 5] = [
    ("ExistencePermit", "crates/core/src/request/authorize.rs"),
    ("RequestPermit", "crates/core/src/request/authorize.rs"),
    ("TickPermit", "crates/core/src/background.rs"),
    ("RevocationPermit", "crates/core/src/lease/revoke.rs"),
    ("UsagePermit", "crates/core/src/metrics/usage.rs"),
];

pub(super) fn permits_have_one_maker(repository: &Repository) -> Result<Findings> {
    let mut findings = Vec::new();
    for file in repository.rust() {
        for (number, line) in file.production() {
            let strangers = PERMITS
                .iter()
                .filter(|(permit, maker)| file.path != *maker && line.contains(&format!("{permit}::new(")));
            findings.extend(strangers.map(|(permit, _)| format!("{}:{number}: {permit}", file.path)));
        }
    }
    Ok(findings)
}

pub(super) fn headed(repository: &Repository) -> Result<Findings> {
    let bare = repository.rust().filter(|file| !file.text.starts_with("//!"));
    Ok(bare.map(|file| file.path.clone()).collect())
}

pub(super) fn short_files(repository: &Repository) -> Result<Findings> {
    let long = repository.rust().map(|file| (file, file.text.lines().count())).filter(|(_, lines)| *lines > 600);
    Ok(long.map(|(file, lines)| format!("{}: {lines} lines", file.path)).collect())
}

/// In rustfmt's layout, a function ends at the first brace in the column of its start.
pub(super) fn short_functions(repository: &Repository) -> Result<Findings> {
    let mut findings = Vec::new();
    for file in repository.rust() {
        // Tests can be long tables.
        let lines: Vec<&str> = file.production().map(|(_, line)| line).collect();
        for (start, line) in lines.iter().enumerate() {
            if !begins_function(line.trim_start()) {
                continue;
            }
            let close = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            let length = lines[start..].iter().position(|l| *l == close).map_or(0, |end| end + 1);
            if length > 80 {
                findings.push(format!("{}:{}: {length} lines", file.path, start + 1));
            }
        }
    }
    Ok(findings)
}

/// Whether a function begins in a line without its indentation.
pub(super) fn begins_function(line: &str) -> bool {
    let mut rest = line;
    for word in ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "unsafe "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    rest.starts_with("fn ") && !line.ends_with(';')
}

pub(super) fn descriptive_names(repository: &Repository) -> Result<Findings> {
    let mut findings = Vec::new();
    for file in repository.rust() {
        let parts = file.path.trim_end_matches(".rs").split('/');
        findings.extend(parts.filter(|part| EMPTY_NAMES.contains(part)).map(|part| format!("{}: {part}", file.path)));
        for (number, line) in file.text.lines().enumerate() {
            let name = line
                .trim()
                .trim_start_matches("pub(crate) ")
                .trim_start_matches("pub ")
                .strip_prefix("mod ")
                .map(|rest| rest.trim_end_matches([';', '{', ' ']));
            if name.is_some_and(|name| EMPTY_NAMES.contains(&name)) {
                findings.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    Ok(findings)
}

pub(super) fn clock_and_randomness(repository: &Repository) -> Result<Findings> {
    const FORBIDDEN: [&str; 9] = [
        "SystemTime::now(",
        "Instant::now(",
        "thread_rng(",
        "rand::rng(",
        "getrandom(",
        "thread::sleep(",
        "time::sleep(",
        "time::sleep_until(",
        "time::interval(",
    ];
    let mut findings = Vec::new();
    for file in
        repository.rust().filter(|file| !CLOCK_AND_RANDOMNESS.iter().any(|allowed| file.path.starts_with(allowed)))
    {
        for (number, line) in file.production() {
            let code = line.split("//").next().unwrap_or_default();
            if FORBIDDEN.iter().any(|word| code.contains(word)) {
                findings.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    Ok(findings)
}

pub(super) fn nothing_left_open(repository: &Repository) -> Result<Findings> {
    // Split, so that this file is not a finding.
    let marks = [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X:"), concat!("not yet ", "implemented")];
    let mut findings = Vec::new();
    for file in repository.files.iter().filter(|file| file.path.ends_with(".rs") || file.path.ends_with(".py")) {
        for (number, line) in file.text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                findings.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    Ok(findings)
}

pub(super) fn tests_do_not_sleep(repository: &Repository) -> Result<Findings> {
    let mut findings = Vec::new();
    for file in repository.rust().filter(|file| file.path.starts_with("crates/")) {
        let production = file.production().count();
        for (index, line) in file.text.lines().enumerate().skip(production) {
            if line.contains("thread::sleep(") || line.contains("time::sleep(") {
                findings.push(format!("{}:{}: {}", file.path, index + 1, line.trim()));
            }
        }
    }
    Ok(findings)
}

/// An `#[ignore]`d test must be in the list of skips.
pub(super) fn ignored_tests_are_listed(repository: &Repository) -> Result<Findings> {
    let ignored: Vec<(String, &str)> = repository
        .rust()
        .filter(|file| !file.path.starts_with("xtask/"))
        .flat_map(|file| ignored_tests(&file.text).into_iter().map(|name| (file.path.clone(), name)))
        .collect();
    let listed: Vec<String> = skips::read()?.into_iter().filter(|s| s.step == "unit").map(|s| s.test).collect();
    let unlisted = ignored.iter().filter(|(_, name)| !listed.iter().any(|l| l == name));
    let stale = listed.iter().filter(|test| !ignored.iter().any(|(_, name)| name == test));
    Ok(unlisted
        .map(|(path, name)| format!("{path}: {name} is ignored"))
        .chain(stale.map(|test| format!("xtask/skips.txt: no test {test} is ignored")))
        .collect())
}

/// The names of the test functions after `#[ignore]`.
pub(super) fn ignored_tests(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    let marked = lines.iter().enumerate().filter(|(_, line)| line.trim_start().starts_with("#[ignore"));
    let function = |(at, _): (usize, &&str)| {
        let declaration = lines[at..].iter().find(|line| line.contains("fn "))?;
        declaration.split("fn ").nth(1)?.split('(').next()
    };
    marked.filter_map(function).collect()
}

/// Directories of every machine: they reveal nothing about one machine.
const OF_EVERY_MACHINE: [&str; 9] = ["/tmp", "/var", "/etc", "/usr", "/opt", "/srv", "/mnt", "/run", "/dev"];

/// No file contains a directory of its author's machine.
pub(super) fn no_machine_paths(repository: &Repository) -> Result<Findings> {
    let home = std::env::var("HOME").ok().map(PathBuf::from);
    let clone = root().canonicalize()?;
    let temporary = std::env::temp_dir();
    let marks = machine_paths(home.as_deref(), &clone, &temporary);
    let mut findings = Vec::new();
    for file in &repository.files {
        for (number, line) in file.text.lines().enumerate() {
            if marks.iter().any(|mark| begins_a_path(line, mark)) {
                findings.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    Ok(findings)
}

/// The directories of this machine: the home directory, and the directory of the clone.
fn machine_paths(home: Option<&Path>, clone: &Path, temporary: &Path) -> Vec<String> {
    let ordinary = |path: &Path| path.starts_with(temporary) || OF_EVERY_MACHINE.iter().any(|d| path.starts_with(d));
    let own = home.into_iter().chain(clone.parent()).filter(|path| path.components().count() > 1 && !ordinary(path));
    own.map(|path| format!("{}/", path.display())).collect()
}

/// Whether a line contains a folder from its root, and not as the end of another path.
fn begins_a_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder)
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || "._-}".contains(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_in_a_temporary_directory_is_no_machine_path() {
        let paths = |home: &str, clone: &str| machine_paths(Some(Path::new(home)), Path::new(clone), Path::new("/tmp"));
        assert_eq!(paths("/home/ann", "/home/ann/keepfast"), ["/home/ann/", "/home/ann/"]);
        assert_eq!(paths("/homes/bob", "/builds/7/keepfast"), ["/homes/bob/", "/builds/7/"]);
        for clone in ["/tmp/keepfast", "/tmp/a/b/keepfast", "/opt/keepfast", "/keepfast", "/var/tmp/x/keepfast"] {
            assert_eq!(paths("/", clone), [""; 0], "{clone}");
        }
    }

    #[test]
    fn ignored_tests_are_found_by_their_attribute() {
        let text = "#[test]\n#[ignore = \"why\"]\nasync fn a_test() {}\n#[test]\nfn other() {}\n    #[ignore]\n    fn b_test() {}\n";
        assert_eq!(ignored_tests(text), ["a_test", "b_test"]);
    }
}
