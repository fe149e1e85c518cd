//! Builds the tests of a crate with its mutants, and leaves out the mutants that do not compile.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::list::Mutant;
use crate::rewrite::{Regions, Rewritten};
use crate::scope::Scope;
use crate::tree::Tree;

/// The tests of a crate with its mutants.
pub(crate) struct Built {
    /// The test program.
    pub(crate) program: PathBuf,
    /// Mutants that do not compile.
    pub(crate) unviable: BTreeSet<u32>,
    /// Mutants that may compile, but not behind a switch.
    pub(crate) alone: BTreeSet<u32>,
}

/// Builds the tests of a crate with all its mutants, again and again without those that do not compile. `known` are
/// some of these from an earlier run; `remember` gets all that are found.
///
/// Fails when an error of the compiler is not at a mutant.
pub(crate) fn build(
    tree: &Tree,
    scope: &Scope,
    mutants: &[Mutant],
    known: BTreeSet<u32>,
    remember: &dyn Fn(&BTreeSet<u32>) -> Result<()>,
) -> Result<Built> {
    let (mut unviable, mut alone) = (known, BTreeSet::new());
    for attempt in 1.. {
        let left_out = |number: u32| unviable.contains(&number) || alone.contains(&number);
        let files = tree.instrument(scope, mutants, &left_out)?;
        let by_syntax: Vec<u32> = files.iter().flat_map(|(_, file)| file.alone.clone()).collect();
        let no_syntax: Vec<u32> = files.iter().flat_map(|(_, file)| file.unviable.clone()).collect();
        alone.extend(by_syntax);
        unviable.extend(no_syntax);
        match test_program(tree, scope)? {
            Ok(program) => return Ok(Built { program, unviable, alone }),
            Err(errors) => {
                let found = blame(&files, &errors)?;
                println!("{}: build {attempt}: {} mutants do not compile", scope.package, found.len());
                for (number, is_unviable) in found {
                    if is_unviable {
                        unviable.insert(number)
                    } else {
                        alone.insert(number)
                    };
                }
                remember(&unviable)?;
            }
        }
    }
    bail!("no build")
}

/// The mutants at which the errors are, each with whether the mutant itself is wrong, and not only its switch.
fn blame(files: &[(String, Rewritten)], errors: &[Value]) -> Result<BTreeMap<u32, bool>> {
    let mut found = BTreeMap::new();
    for error in errors {
        let mut spans: Vec<(&str, Range<usize>, bool)> = Vec::new();
        collect_spans(error, &mut spans);
        spans.sort_by_key(|(_, _, is_primary)| !is_primary);
        let narrowest = |of: fn(&Rewritten) -> &Regions| {
            spans.iter().find_map(|(name, span, _)| {
                let (_, file) = files.iter().find(|(file, _)| name.ends_with(file.as_str()))?;
                let around = of(file).iter().filter(|(range, _)| range.start <= span.start && span.end <= range.end);
                around.min_by_key(|(range, _)| range.len()).map(|(_, number)| *number)
            })
        };
        let (number, is_inserted) = match narrowest(|file| &file.inserted) {
            Some(number) => (number, true),
            None => match narrowest(|file| &file.wrapped) {
                Some(number) => (number, false),
                None => bail!("an error outside all mutants:\n{}", error["rendered"].as_str().unwrap_or_default()),
            },
        };
        found.insert(number, is_inserted);
    }
    Ok(found)
}

/// The spans of a diagnostic and of its notes.
fn collect_spans<'a>(diagnostic: &'a Value, out: &mut Vec<(&'a str, Range<usize>, bool)>) {
    for span in diagnostic["spans"].as_array().into_iter().flatten() {
        let byte = |name: &str| span[name].as_u64().unwrap_or_default() as usize;
        let name = span["file_name"].as_str().unwrap_or_default();
        out.push((name, byte("byte_start")..byte("byte_end"), span["is_primary"] == true));
    }
    for child in diagnostic["children"].as_array().into_iter().flatten() {
        collect_spans(child, out);
    }
}

/// Builds the unit tests of the copy; the path of the program, or the errors of the compiler.
pub(crate) fn test_program(tree: &Tree, scope: &Scope) -> Result<Result<PathBuf, Vec<Value>>> {
    let output = Command::new("cargo")
        .args(["test", "--lib", "--no-run", "--message-format=json", "--package", scope.package])
        .current_dir(&tree.root)
        .env("CARGO_TARGET_DIR", &tree.target)
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        // Each test starts a process, and its first random number would gather entropy for longer than the test runs.
        .env("AWS_LC_SYS_NO_JITTER_ENTROPY", "1")
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let messages: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if output.status.success() {
        let program = messages.iter().rev().find_map(|message| message["executable"].as_str());
        return Ok(Ok(program.context("cargo built no tests")?.into()));
    }
    let errors: Vec<Value> = messages
        .into_iter()
        .map(|mut message| message["message"].take())
        .filter(|message| message["level"] == "error" && !message["spans"].as_array().is_none_or(Vec::is_empty))
        .collect();
    if errors.is_empty() {
        bail!("cargo test --no-run: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(Err(errors))
}
