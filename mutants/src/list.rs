//! The mutants of a crate, as `cargo-mutants` lists them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::scope::Scope;

/// The version of `cargo-mutants` whose list is used: another one may have other mutants.
const VERSION: &str = "27.1.0";

/// What a mutant replaces.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash)]
pub(crate) enum Genre {
    /// The body of a function, by a value.
    FnValue,
    /// An operator with two operands.
    BinaryOperator,
    /// An operator with one operand.
    UnaryOperator,
    /// A match arm, by nothing.
    MatchArm,
    /// The guard of a match arm, by `true` or `false`.
    MatchArmGuard,
    /// A field of a struct expression with a base, by nothing.
    StructField,
}

/// A place in a text; line and column count from 1.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// What a mutant replaces, without its end.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Span {
    pub(crate) start: Place,
    pub(crate) end: Place,
}

/// The function of a mutant.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Function {
    pub(crate) return_type: String,
}

/// One mutant.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Mutant {
    /// Its number in this run, from 1.
    #[serde(skip)]
    pub(crate) number: u32,
    /// Its identity, which does not change when other code does: the file, what is replaced by what, the function, and
    /// which of several it is.
    #[serde(skip)]
    pub(crate) identity: String,
    /// The name that `cargo-mutants` gives it, with line and column.
    pub(crate) name: String,
    /// The file, from the root of the repository.
    pub(crate) file: String,
    /// The function, if it is in one.
    pub(crate) function: Option<Function>,
    pub(crate) span: Span,
    /// The text that replaces the span.
    pub(crate) replacement: String,
    pub(crate) genre: Genre,
}

impl Mutant {
    /// Whether it is the value of a function that returns `impl …`: all values of one body have the same type.
    pub(crate) fn has_opaque_type(&self) -> bool {
        let function = self.function.as_ref();
        self.genre == Genre::FnValue && function.is_some_and(|function| function.return_type.contains("impl "))
    }
}

/// The mutants of a crate below `root`.
///
/// Fails when `cargo-mutants` is missing and cannot be installed.
pub(crate) fn mutants(root: &Path, scope: &Scope) -> Result<Vec<Mutant>> {
    let mut command = Command::new(installed(root)?);
    command.current_dir(root).args(["mutants", "--list", "--json", "--no-config", "--package", scope.package]);
    for file in scope.files {
        command.arg("--file").arg(format!("{}/{file}", scope.folder));
    }
    let output = command.output().context("cargo-mutants")?;
    if !output.status.success() {
        bail!("cargo mutants --list: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mut mutants: Vec<Mutant> = serde_json::from_slice(&output.stdout)?;
    mutants.sort_by_key(|mutant| (mutant.file.clone(), mutant.span.start.line, mutant.span.start.column));
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (number, mutant) in (1..).zip(&mut mutants) {
        mutant.number = number;
        let stable = without_place(&mutant.name);
        let occurrence = seen.entry(stable.clone()).and_modify(|count| *count += 1).or_insert(1);
        mutant.identity = if *occurrence == 1 { stable } else { format!("{stable} #{occurrence}") };
    }
    Ok(mutants)
}

/// A name without line and column: `file:12:8: replace …` becomes `file: replace …`.
fn without_place(name: &str) -> String {
    let mut parts = name.splitn(4, ':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(file), Some(_), Some(_), Some(what)) => format!("{file}:{what}"),
        _ => name.to_owned(),
    }
}

/// The program `cargo-mutants`, installed below `.cache/tools/` when it is missing.
fn installed(root: &Path) -> Result<PathBuf> {
    let folder = root.join(".cache/tools");
    let program = folder.join("bin/cargo-mutants");
    if !program.exists() {
        let mut command = Command::new("cargo");
        command.args(["install", "cargo-mutants", "--locked", "--version", VERSION, "--root"]).arg(&folder);
        if !command.status()?.success() {
            bail!("cargo-mutants {VERSION} cannot be installed");
        }
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_has_no_line_and_no_column() {
        let name = "crates/core/src/a.rs:12:8: replace Fail::is_on -> bool with true";
        assert_eq!(without_place(name), "crates/core/src/a.rs: replace Fail::is_on -> bool with true");
    }
}
