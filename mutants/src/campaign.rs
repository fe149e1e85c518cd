//! The campaign on one crate: lists its mutants, builds them into one test program, and runs for each mutant the tests
//! that reach it until one fails.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::compile;
use crate::list::{self, Mutant};
use crate::program::{Ended, Program, in_parallel, numbers};
use crate::report;
use crate::rewrite;
use crate::scope::Scope;
use crate::tree::Tree;
use crate::viable::KnownUnviable;

/// The time for all tests of a crate.
const TIMEOUT_OF_ALL: Duration = Duration::from_secs(900);

/// Which mutants and tests to run.
pub(crate) struct Selection {
    /// Only mutants whose identity contains one of these texts; all if there is none.
    pub(crate) mutants: Vec<String>,
    /// Whether mutants that the last run caught keep their verdicts.
    pub(crate) resume: bool,
    /// Only tests whose name contains this text.
    pub(crate) tests: Option<String>,
    /// The time for the tests of one mutant: one that no test has caught until then survives.
    pub(crate) budget: Option<Duration>,
    /// The number of tests that run at a time.
    pub(crate) jobs: usize,
}

impl Selection {
    fn has(&self, mutant: &Mutant) -> bool {
        self.mutants.is_empty() || self.mutants.iter().any(|text| mutant.identity.contains(text))
    }

    /// Whether all mutants run all tests now.
    pub(crate) fn is_all(&self) -> bool {
        self.mutants.is_empty() && !self.resume && self.tests.is_none() && self.budget.is_none()
    }
}

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This test fails.
    Caught(String),
    /// This test does not end.
    TimedOut(String),
    /// This number of tests reach it, and none fails.
    Survived(usize),
    /// It does not compile.
    Unviable,
}

/// A mutant and its verdict.
pub(crate) struct Tested {
    pub(crate) mutant: Mutant,
    pub(crate) verdict: Verdict,
}

/// A test, as it runs without a mutant.
struct Test {
    name: String,
    takes: Duration,
    /// The number of mutants that it reaches: a test that reaches few is the likeliest to notice one.
    reaches: usize,
}

/// The tests that pass without a mutant.
struct Recorded {
    tests: Vec<Test>,
    /// For each mutant the tests that reach it.
    reached: HashMap<u32, Vec<usize>>,
}

/// Tests the selected mutants of a crate.
///
/// Fails when the tests cannot be built, or fail without a mutant.
pub(crate) fn run(root: &Path, scope: &Scope, selection: &Selection) -> Result<Vec<Tested>> {
    let mutants = list::mutants(root, scope)?;
    let tree = Tree::copy(root, scope, &mutants)?;
    let known = KnownUnviable::read(&tree, scope, &mutants)?;
    let remember = |unviable: &BTreeSet<u32>| known.write(&mutants, unviable);
    let built = compile::build(&tree, scope, &mutants, known.numbers(&mutants), &remember)?;
    let program = Program { path: built.program.clone(), folder: tree.root.join(scope.folder) };
    let selected: Vec<Mutant> = mutants.iter().filter(|mutant| selection.has(mutant)).cloned().collect();
    let recorded = record(&tree, &program, selection)?;
    let (count, tests) = (selected.len(), recorded.tests.len());
    println!("{}: {} mutants, {count} of them selected, {tests} tests", scope.package, mutants.len());
    let log = tree.root.with_file_name(format!("{}.verdicts", scope.package));
    let earlier = if selection.resume { report::caught(&log) } else { HashMap::new() };
    if !selection.resume {
        std::fs::write(&log, "")?;
    }
    let budget = selection.budget.unwrap_or(Duration::MAX);
    let switched = Switched { program, recorded, budget, catchers: Mutex::default() };
    let mut verdicts = in_parallel(&selected, selection.jobs, |mutant| {
        if let Some(verdict) = earlier.get(&mutant.identity) {
            return Ok(verdict.clone());
        }
        let verdict = match () {
            () if built.unviable.contains(&mutant.number) => Verdict::Unviable,
            () if built.alone.contains(&mutant.number) => Verdict::Survived(0),
            () => switched.verdict(mutant)?,
        };
        report::append(&log, mutant, &verdict)?;
        Ok(verdict)
    })?;
    let of_own_build = |(mutant, verdict): &(&Mutant, &mut Verdict)| {
        built.alone.contains(&mutant.number) && matches!(verdict, Verdict::Survived(_))
    };
    for (mutant, verdict) in selected.iter().zip(&mut verdicts).filter(of_own_build) {
        *verdict = alone(&tree, scope, &mutants, mutant)?;
        report::append(&log, mutant, verdict)?;
    }
    Ok(selected.into_iter().zip(verdicts).map(|(mutant, verdict)| Tested { mutant, verdict }).collect())
}

/// Runs each test without a mutant.
fn record(tree: &Tree, program: &Program, selection: &Selection) -> Result<Recorded> {
    let folder = tree.root.with_file_name("reached");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    let mut names: Vec<(usize, String)> = program.tests()?.into_iter().enumerate().collect();
    names.retain(|(_, name)| selection.tests.as_ref().is_none_or(|text| name.contains(text)));
    let results = in_parallel(&names, selection.jobs, |(number, name)| {
        let file = folder.join(number.to_string());
        let started = Instant::now();
        let variables = [("MUTANT", "record"), ("MUTANT_REACHED", &file.display().to_string())];
        let ended = program.run(&[name], &variables, Duration::from_secs(20))?.ended;
        Ok((ended, started.elapsed(), numbers(&file)))
    })?;
    let (mut tests, mut reached, mut failing) = (Vec::new(), HashMap::<u32, Vec<usize>>::new(), Vec::new());
    for ((_, name), (ended, takes, mutants)) in names.into_iter().zip(results) {
        if ended != Ended::Passed {
            failing.push(name);
            continue;
        }
        for mutant in &mutants {
            reached.entry(*mutant).or_default().push(tests.len());
        }
        tests.push(Test { name, takes, reaches: mutants.len() });
    }
    if !failing.is_empty() {
        println!("without a mutant these tests fail, and are left out: {}", failing.join(" "));
    }
    if tests.is_empty() || failing.len() > 5 {
        bail!("the tests fail without a mutant");
    }
    Ok(Recorded { tests, reached })
}

/// The test program with all mutants behind switches.
struct Switched {
    program: Program,
    recorded: Recorded,
    budget: Duration,
    /// The tests that caught the last mutants of each file.
    catchers: Mutex<HashMap<String, Vec<usize>>>,
}

impl Switched {
    fn verdict(&self, mutant: &Mutant) -> Result<Verdict> {
        let order = self.order(mutant);
        let number = mutant.number.to_string();
        let started = Instant::now();
        let (mut rest, mut done) = (order.as_slice(), 0);
        while !rest.is_empty() && started.elapsed() <= self.budget {
            // A process with several tests starts once; the likeliest tests run alone, because one failure is enough.
            let (batch, after) = rest.split_at(rest.len().min(if done < 2 { 1 } else { 2 * done }));
            (rest, done) = (after, done + batch.len());
            let tests: Vec<&Test> = batch.iter().map(|at| &self.recorded.tests[*at]).collect();
            let names: Vec<&str> = tests.iter().map(|test| test.name.as_str()).collect();
            let takes = tests.iter().map(|test| test.takes).sum();
            let ran = self.program.run(&names, &[("MUTANT", &number)], takes)?;
            if ran.ended == Ended::Passed {
                continue;
            }
            let which = batch.iter().find(|at| Some(&self.recorded.tests[**at].name) == ran.failed.as_ref());
            let at = *which.unwrap_or(&batch[0]);
            if let Ok(mut catchers) = self.catchers.lock() {
                let recent = catchers.entry(mutant.file.clone()).or_default();
                recent.retain(|other| *other != at);
                recent.insert(0, at);
            }
            let name = self.recorded.tests[at].name.clone();
            return Ok(if ran.ended == Ended::TimedOut { Verdict::TimedOut(name) } else { Verdict::Caught(name) });
        }
        Ok(Verdict::Survived(done))
    }

    /// The tests that reach a mutant, the likeliest to fail first: those that caught another mutant of the file, then
    /// those named like the file, then quick tests that reach few.
    fn order(&self, mutant: &Mutant) -> Vec<usize> {
        let mut tests = self.recorded.reached.get(&mutant.number).cloned().unwrap_or_default();
        let recent = self.catchers.lock().map(|catchers| catchers.get(&mutant.file).cloned()).ok().flatten();
        let recent = recent.unwrap_or_default();
        let words = words(&mutant.file);
        tests.sort_by_cached_key(|at| {
            let test = &self.recorded.tests[*at];
            let rank = recent.iter().take(4).position(|other| other == at).unwrap_or(usize::MAX);
            let named = words.iter().filter(|word| test.name.contains(**word)).count();
            (rank, std::cmp::Reverse(named), test.takes.as_millis() * test.reaches as u128)
        });
        tests
    }
}

/// The beginnings of the words of the path of a file, which may be in the names of its tests: `polic` is in `policy` and
/// in `policies`.
fn words(file: &str) -> Vec<&str> {
    let path = file.rsplit_once("src/").map_or(file, |(_, path)| path).trim_end_matches(".rs");
    let words = path.split(['/', '_']).filter(|word| word.len() > 2 && *word != "mod");
    words.map(|word| word.get(..5).unwrap_or(word)).collect()
}

/// The verdict of a mutant that no switch can select: it is built alone, and all tests run.
fn alone(tree: &Tree, scope: &Scope, mutants: &[Mutant], mutant: &Mutant) -> Result<Verdict> {
    let text = rewrite::mutated(tree.original(&mutant.file)?, mutant);
    tree.restore(mutants, Some((&mutant.file, &text)))?;
    let Ok(path) = compile::test_program(tree, scope)? else { return Ok(Verdict::Unviable) };
    let program = Program { path, folder: tree.root.join(scope.folder) };
    let all = "all tests".to_owned();
    Ok(match program.run_all(&[], &[], TIMEOUT_OF_ALL)?.ended {
        Ended::Passed => Verdict::Survived(program.tests()?.len()),
        Ended::Failed => Verdict::Caught(all),
        Ended::TimedOut => Verdict::TimedOut(all),
    })
}
