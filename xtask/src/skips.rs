//! Skipped tests and their reasons: `xtask/skips.txt`. A skip without a line fails its step.

use anyhow::{Result, bail};

use crate::counts::Outcome;
use crate::shell::{Shell, root};

/// A line of the list: the step, a part of the test's name or of its reason in the step's output, and the reason.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Skip {
    /// The step that skips the test.
    pub(crate) step: String,
    /// The part of the test's name or reason.
    pub(crate) test: String,
    /// Whether the step runs the test on some machines, so that the line may match no test.
    pub(crate) sometimes: bool,
}

/// Reads the list.
pub(crate) fn read() -> Result<Vec<Skip>> {
    parse(&std::fs::read_to_string(root().join("xtask/skips.txt"))?)
}

fn parse(text: &str) -> Result<Vec<Skip>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| match line.split("  ").map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>()[..] {
            [step, test, reason] if reason.len() > 8 => Ok(Skip {
                step: step.trim_end_matches('?').to_owned(),
                test: test.to_owned(),
                sometimes: step.ends_with('?'),
            }),
            _ => bail!("xtask/skips.txt: a line is a step, a test and a reason, two spaces apart: {line}"),
        })
        .collect()
}

/// Fails a step that skipped another number of tests than the list has lines for it.
pub(crate) fn require_count(step: &str, outcome: Outcome, shell: &Shell) -> Result<Outcome> {
    let listed = read()?.iter().filter(|skip| skip.step == step).count();
    if outcome.skipped == listed {
        return Ok(outcome);
    }
    shell.note(&format!("{} tests were skipped and xtask/skips.txt has {listed} lines for {step}", outcome.skipped));
    Ok(Outcome { failed: outcome.failed + 1, ..outcome })
}

/// Fails a step whose pytest (`-rs`) skipped a test without a line in the list, or ran a listed test.
pub(crate) fn require_listed(step: &str, outcome: Outcome, output: &str, shell: &Shell) -> Result<Outcome> {
    let complaints = complaints(&read()?, step, outcome, output);
    for complaint in &complaints {
        shell.note(complaint);
    }
    Ok(Outcome { failed: outcome.failed + complaints.len(), ..outcome })
}

fn complaints(list: &[Skip], step: &str, outcome: Outcome, output: &str) -> Vec<String> {
    let list: Vec<&Skip> = list.iter().filter(|skip| skip.step == step).collect();
    let skipped: Vec<&str> = output.lines().filter(|line| line.starts_with("SKIPPED ")).collect();
    let mut found: Vec<String> = skipped
        .iter()
        .filter(|line| !list.iter().any(|skip| line.contains(&skip.test)))
        .map(|line| format!("skipped without a line in xtask/skips.txt: {line}"))
        .collect();
    if skipped.is_empty() && outcome.skipped > 0 {
        found.push(format!("{} tests were skipped without a reason", outcome.skipped));
    }
    let stale = list.iter().filter(|skip| !skip.sometimes && !skipped.iter().any(|line| line.contains(&skip.test)));
    found.extend(stale.map(|skip| format!("xtask/skips.txt: nothing is skipped for {:?}", skip.test)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_skips_has_three_columns() {
        let list = parse("# why\nunit  a_test  it writes a file\nseed?  the document  not in every clone\n").unwrap();
        assert_eq!((list.len(), list[0].step.as_str(), list[1].sometimes), (2, "unit", true));
        assert!(parse("unit  a_test").is_err() && parse("unit a_test it writes a file").is_err());
    }

    #[test]
    fn a_skip_without_a_line_is_a_failure() {
        let list = parse("seed  needs the moon  there is no moon here").unwrap();
        let outcome = Outcome { passed: 1, failed: 0, skipped: 1 };
        let count = |output: &str| complaints(&list, "seed", outcome, output).len();
        assert_eq!(count("SKIPPED [1] conftest.py:27: needs the moon"), 0);
        assert_eq!(count("SKIPPED [11] conftest.py:27: needs the database engine"), 2, "unexplained, and a stale line");
        assert_eq!(count(""), 2, "no reason given, and a stale line");
        assert_eq!(complaints(&[], "seed", Outcome { skipped: 0, ..outcome }, "25 passed").len(), 0);
    }
}
