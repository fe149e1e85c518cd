//! The mutants that did not compile in an earlier run, so that a repeated run builds once.

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;

use anyhow::Result;

use crate::list::Mutant;
use crate::scope::Scope;
use crate::tree::Tree;

/// Identities of mutants that do not compile, each with a hash of the text of its file.
pub(crate) struct KnownUnviable {
    path: PathBuf,
    lines: BTreeSet<String>,
    hashes: Vec<(String, u64)>,
}

impl KnownUnviable {
    /// Those that are known from an earlier run.
    pub(crate) fn read(tree: &Tree, scope: &Scope, mutants: &[Mutant]) -> Result<Self> {
        let path = tree.root.with_file_name(format!("{}.unviable", scope.package));
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let mut hashes: Vec<(String, u64)> = Vec::new();
        for mutant in mutants {
            if hashes.last().is_none_or(|(file, _)| *file != mutant.file) {
                let mut hasher = DefaultHasher::new();
                tree.original(&mutant.file)?.hash(&mut hasher);
                hashes.push((mutant.file.clone(), hasher.finish()));
            }
        }
        Ok(KnownUnviable { path, lines: text.lines().map(str::to_owned).collect(), hashes })
    }

    /// Their numbers.
    pub(crate) fn numbers(&self, mutants: &[Mutant]) -> BTreeSet<u32> {
        let known = mutants.iter().filter(|mutant| self.lines.contains(&self.line(mutant)));
        known.map(|mutant| mutant.number).collect()
    }

    /// Stores what a run has found.
    pub(crate) fn write(&self, mutants: &[Mutant], unviable: &BTreeSet<u32>) -> Result<()> {
        let found = mutants.iter().filter(|mutant| unviable.contains(&mutant.number));
        let lines: Vec<String> = found.map(|mutant| self.line(mutant)).collect();
        Ok(std::fs::write(&self.path, lines.join("\n"))?)
    }

    fn line(&self, mutant: &Mutant) -> String {
        let hash = self.hashes.iter().find(|(file, _)| *file == mutant.file).map_or(0, |(_, hash)| *hash);
        format!("{hash:016x} {}", mutant.identity)
    }
}
