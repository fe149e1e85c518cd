//! The numbers of checks of a step, parsed from the output of its program.

use anyhow::{Context, Result};

use crate::shell::Ran;

/// The result of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Checks that passed.
    pub(crate) passed: usize,
    /// Checks that failed.
    pub(crate) failed: usize,
    /// Skipped tests. Each needs a line in `xtask/skips.txt`.
    pub(crate) skipped: usize,
}

/// The result of a step with one check.
pub(crate) fn one(ok: bool) -> Outcome {
    Outcome { passed: usize::from(ok), failed: usize::from(!ok), skipped: 0 }
}

/// The sum of several results.
pub(crate) fn sum(outcomes: &[Outcome]) -> Outcome {
    outcomes.iter().fold(Outcome::default(), |a, b| Outcome {
        passed: a.passed + b.passed,
        failed: a.failed + b.failed,
        skipped: a.skipped + b.skipped,
    })
}

/// The counts of our own tools, which end with `N passed, N failed`.
pub(crate) fn last_line(ran: &Ran) -> Result<Outcome> {
    let line = ran.output.lines().rfind(|line| !line.trim().is_empty()).context("it printed nothing")?;
    Ok(counted(ran, line))
}

/// The counts of `cargo test`, which prints `test result: …` for each binary.
pub(crate) fn sum_of_cargo(ran: &Ran) -> Outcome {
    let each: Vec<_> = ran.output.lines().filter(|line| line.starts_with("test result:")).map(read_counts).collect();
    with_exit_code(ran, sum(&each))
}

/// The counts in one line of a program's output.
pub(crate) fn counted(ran: &Ran, line: &str) -> Outcome {
    with_exit_code(ran, read_counts(line))
}

/// A program that fails without counting a failure counts one.
fn with_exit_code(ran: &Ran, outcome: Outcome) -> Outcome {
    if ran.ok { outcome } else { Outcome { failed: outcome.failed.max(1), ..outcome } }
}

/// The numbers before `passed`; before `failed`, `error` and `timed out`; before `skipped` and `ignored`.
fn read_counts(line: &str) -> Outcome {
    let words: Vec<&str> =
        line.split(|c: char| c.is_whitespace() || c == ',' || c == ';').filter(|w| !w.is_empty()).collect();
    let before = |names: &[&str]| -> usize {
        let pairs = words.windows(2).filter(|pair| names.contains(&pair[1].trim_end_matches('.')));
        pairs.filter_map(|pair| pair[0].parse::<usize>().ok()).sum()
    };
    Outcome {
        passed: before(&["passed"]),
        failed: before(&["failed", "error", "errors", "timed"]),
        skipped: before(&["skipped", "ignored"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_counts_of_every_tool() {
        let counts = |passed, failed, skipped| Outcome { passed, failed, skipped };
        assert_eq!(read_counts("1170 passed, 3 failed"), counts(1170, 3, 0));
        assert_eq!(
            read_counts("     Summary [   0.5s] 42 tests run: 41 passed (1 slow), 1 failed, 2 skipped"),
            counts(41, 1, 2)
        );
        assert_eq!(read_counts("test result: ok. 8 passed; 0 failed; 3 ignored; 0 measured"), counts(8, 0, 3));
        assert_eq!(read_counts("25 passed, 8 skipped, 1 error in 5.83s"), counts(25, 1, 8));
    }

    #[test]
    fn a_failure_without_a_count_is_a_failure() {
        let ran = Ran { ok: false, output: String::new() };
        assert_eq!(counted(&ran, ""), Outcome { failed: 1, ..Outcome::default() });
    }
}
