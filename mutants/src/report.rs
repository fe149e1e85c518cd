//! The result of a campaign: counts, survivors and the row of the ledger.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::accepted::Accepted;
use crate::campaign::{Tested, Verdict};
use crate::list::Mutant;
use crate::scope::module;

/// The part of the viable mutants that must be caught, in percent.
const REQUIRED: usize = 95;

/// How many mutants had which verdict.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    caught: usize,
    timed_out: usize,
    survived: usize,
    unviable: usize,
}

impl Counts {
    fn of<'a>(tested: impl Iterator<Item = &'a Tested>) -> Self {
        let mut counts = Counts::default();
        for one in tested {
            match one.verdict {
                Verdict::Caught(_) => counts.caught += 1,
                Verdict::TimedOut(_) => counts.timed_out += 1,
                Verdict::Survived(_) => counts.survived += 1,
                Verdict::Unviable => counts.unviable += 1,
            }
        }
        counts
    }

    fn viable(&self) -> usize {
        self.caught + self.timed_out + self.survived
    }

    /// Tenths of a percent of the viable mutants that were caught.
    fn per_mille(&self) -> usize {
        (self.caught + self.timed_out) * 1000 / self.viable().max(1)
    }

    fn text(&self) -> String {
        let (part, viable) = (self.per_mille(), self.viable());
        let caught = self.caught + self.timed_out;
        format!(
            "{caught} of {viable} caught ({}.{} %), {} of them by a timeout; {} survived, {} unviable",
            part / 10,
            part % 10,
            self.timed_out,
            self.survived,
            self.unviable
        )
    }
}

/// Prints the counts of each module; returns those of all.
pub(crate) fn print(tested: &[Tested]) -> Counts {
    let mut modules: BTreeMap<String, Vec<&Tested>> = BTreeMap::new();
    for one in tested {
        modules.entry(module(&one.mutant.file)).or_default().push(one);
    }
    for (name, tested) in &modules {
        println!("{name:<20} {}", Counts::of(tested.iter().copied()).text());
    }
    let all = Counts::of(tested.iter());
    println!("{:<20} {}", "all", all.text());
    all
}

/// What is wrong with the result: survivors that are not accepted, accepted ones that are caught, and too few caught.
pub(crate) fn failures(tested: &[Tested], accepted: &Accepted, is_all: bool) -> Vec<String> {
    let mut failures = Vec::new();
    for one in tested {
        let identity = &one.mutant.identity;
        match (&one.verdict, accepted.has(identity)) {
            (Verdict::Survived(tests), false) => failures.push(format!("survived {tests} tests: {identity}")),
            (Verdict::Survived(_), true) | (_, false) => {}
            (_, true) => failures.push(format!("listed as a survivor, and is none: {identity}")),
        }
    }
    if is_all {
        let gone = accepted.identities().filter(|identity| tested.iter().all(|one| one.mutant.identity != **identity));
        failures.extend(gone.map(|identity| format!("listed, and no mutant: {identity}")));
        let counts = Counts::of(tested.iter());
        if counts.per_mille() < REQUIRED * 10 {
            failures.push(format!("less than {REQUIRED} %: {}", counts.text()));
        }
    }
    failures
}

/// Adds a verdict to the file of a crate, which shows how far a run is and from which a later run continues.
pub(crate) fn append(path: &Path, mutant: &Mutant, verdict: &Verdict) -> Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    let (word, what) = match verdict {
        Verdict::Caught(test) => ("caught", test.clone()),
        Verdict::TimedOut(test) => ("timeout", test.clone()),
        Verdict::Survived(tests) => ("survived", format!("{tests} tests; {}", mutant.name)),
        Verdict::Unviable => ("unviable", String::new()),
    };
    Ok(file.write_all(format!("{word}\t{}\t{what}\n", mutant.identity).as_bytes())?)
}

/// The mutants that the last run caught, by identity.
pub(crate) fn caught(path: &Path) -> HashMap<String, Verdict> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut caught = HashMap::new();
    for line in text.lines() {
        let mut parts = line.split('\t');
        let (Some(word), Some(identity), Some(test)) = (parts.next(), parts.next(), parts.next()) else { continue };
        match word {
            "caught" => drop(caught.insert(identity.to_owned(), Verdict::Caught(test.to_owned()))),
            "timeout" => drop(caught.insert(identity.to_owned(), Verdict::TimedOut(test.to_owned()))),
            _ => drop(caught.remove(identity)),
        }
    }
    caught
}

/// Adds a row to the ledger.
pub(crate) fn enter(root: &Path, counts: &Counts, failures: usize) -> Result<()> {
    let output = |program: &str, arguments: &[&str]| -> Result<String> {
        let output = Command::new(program).args(arguments).current_dir(root).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let date = output("date", &["-u", "+%Y-%m-%d"])?;
    let commit = output("git", &["rev-parse", "--short", "HEAD"])?;
    let result = if failures == 0 { "held".to_owned() } else { format!("{failures} failures") };
    let mut ledger = std::fs::OpenOptions::new().append(true).open(root.join("conformance/ledger.md"))?;
    let (all, text) = (counts.viable() + counts.unviable, counts.text());
    writeln!(ledger, "| {date} | {commit} | mutants of crypto, storage, core | - | {all} | {result}: {text} |")?;
    Ok(())
}
