//! The copy of the repository into which the mutants are written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::list::Mutant;
use crate::rewrite::{Rewritten, rewrite};
use crate::scope::Scope;

/// The module with the switch.
const SWITCH: &str = include_str!("switch.txt");

/// The copy.
pub(crate) struct Tree {
    /// The original texts of the files with mutants, and of the root of their crate, as they were at the start.
    originals: BTreeMap<String, String>,
    /// The root of the copy.
    pub(crate) root: PathBuf,
    /// The target directory of the copy.
    pub(crate) target: PathBuf,
}

impl Tree {
    /// Copies the repository, except the files of `scope` that get mutants and what has not changed since the last
    /// copy: cargo builds a file that is written again.
    pub(crate) fn copy(origin: &Path, scope: &Scope, mutants: &[Mutant]) -> Result<Self> {
        let lib = lib_of(scope);
        let mut originals = BTreeMap::new();
        for name in files_of(mutants).into_iter().chain([lib.as_str()]) {
            originals.insert(name.to_owned(), std::fs::read_to_string(origin.join(name))?);
        }
        let tree = Tree {
            originals,
            root: origin.join(".cache/mutants/source"),
            target: origin.join(".cache/mutants/target"),
        };
        let output = Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
            .current_dir(origin)
            .output()?;
        if !output.status.success() {
            bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr));
        }
        let names = String::from_utf8(output.stdout)?;
        let mut files: Vec<&str> = names.split('\0').filter(|name| !name.is_empty()).collect();
        files.retain(|name| origin.join(name).is_file() && !tree.originals.contains_key(*name));
        for name in &files {
            let bytes = std::fs::read(origin.join(name))?;
            tree.write(name, &bytes)?;
        }
        Ok(tree)
    }

    /// Writes a file of the copy if it differs.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.root.join(name);
        if std::fs::read(&path).is_ok_and(|present| present == bytes) {
            return Ok(());
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, bytes).with_context(|| path.display().to_string())
    }

    /// The original text of a file.
    pub(crate) fn original(&self, name: &str) -> Result<&str> {
        self.originals.get(name).map(String::as_str).with_context(|| name.to_owned())
    }

    /// Writes the mutants of a crate into its files, except those in `skip`; returns each file with its name.
    pub(crate) fn instrument(
        &self,
        scope: &Scope,
        mutants: &[Mutant],
        skip: &dyn Fn(u32) -> bool,
    ) -> Result<Vec<(String, Rewritten)>> {
        let mut out = Vec::new();
        for name in files_of(mutants) {
            let own: Vec<Mutant> = mutants.iter().filter(|mutant| mutant.file == name).cloned().collect();
            let rewritten = rewrite(self.original(name)?, &own, skip).with_context(|| name.to_owned())?;
            self.write(name, rewritten.text.as_bytes())?;
            out.push((name.to_owned(), rewritten));
        }
        let last = mutants.iter().map(|mutant| mutant.number).max().unwrap_or_default();
        let switch = SWITCH.replace("COUNT", &(last + 1).to_string());
        self.write(&format!("{}/src/mutant_switch.rs", scope.folder), switch.as_bytes())?;
        let lib = lib_of(scope);
        self.write(&lib, format!("{}\nmod mutant_switch;\n", self.original(&lib)?).as_bytes())?;
        Ok(out)
    }

    /// Writes the original text of all files with mutants, or, for one of them, this text.
    pub(crate) fn restore(&self, mutants: &[Mutant], replaced: Option<(&str, &str)>) -> Result<()> {
        for name in files_of(mutants) {
            let text = match replaced {
                Some((file, text)) if file == name => text.to_owned(),
                _ => self.original(name)?.to_owned(),
            };
            self.write(name, text.as_bytes())?;
        }
        Ok(())
    }
}

fn lib_of(scope: &Scope) -> String {
    format!("{}/src/lib.rs", scope.folder)
}

fn files_of(mutants: &[Mutant]) -> BTreeSet<&str> {
    mutants.iter().map(|mutant| mutant.file.as_str()).collect()
}
