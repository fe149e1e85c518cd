//! Import cycles within a crate.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::{Findings, Repository};

/// The directory of the checked crate.
pub(super) const SOURCES: &str = "crates/core/src/";
/// The maximum number of files in a cycle.
const LARGEST: usize = 3;
/// The maximum number of re-exports from an import to its file.
const HOPS: usize = 8;

/// The path of a module or of an item in it, from the crate's root.
pub(super) type ItemPath = Vec<String>;

/// The imports of one file.
#[derive(Default)]
struct Module {
    file: String,
    /// The paths of its `use` declarations, as written.
    uses: Vec<ItemPath>,
    /// Other paths with `::` in its code.
    named: Vec<ItemPath>,
}

/// The modules of a crate by their paths.
pub(super) struct Modules(BTreeMap<ItemPath, Module>);

pub(super) fn short(repository: &Repository) -> Result<Findings> {
    let modules = Modules::read(repository);
    let cycles = modules.cycles().into_iter().filter(|files| files.len() > LARGEST);
    Ok(cycles.map(|files| format!("{} files import each other: {}", files.len(), files.join(", "))).collect())
}

impl Modules {
    pub(super) fn read(repository: &Repository) -> Self {
        let production = repository.rust().filter(|file| !file.is_test());
        let modules = production.filter_map(|file| {
            let within = file.path.strip_prefix(SOURCES)?.strip_suffix(".rs")?;
            let mut path: ItemPath = within.split('/').map(str::to_owned).collect();
            if matches!(path.last().map(String::as_str), Some("mod" | "lib")) {
                path.pop();
            }
            Some((path, Module::read(&file.path, &file.text)))
        });
        Self(modules.collect())
    }

    /// The module that declares the item `path`, written in the code of the module `at`; `None` for items that no import names.
    pub(super) fn declaring(&self, at: &ItemPath, path: &[String]) -> Option<&ItemPath> {
        let used = self.0.get(at)?.uses.iter().find(|used| used.last() == path.first());
        let full: ItemPath =
            used.map_or_else(|| path.to_vec(), |used| used.iter().chain(&path[1..]).cloned().collect());
        self.module_of(at, &full)
    }

    /// The module of the item `path`, written in the module `at`; `None` for items of other crates.
    fn module_of(&self, at: &ItemPath, path: &[String]) -> Option<&ItemPath> {
        let mut full = self.full(at, path)?;
        for _ in 0..HOPS {
            let (module, rest) = self.longest(&full)?;
            let reexported = rest.first().and_then(|name| {
                let used = self.0[module].uses.iter().find(|used| used.last() == Some(name))?;
                self.full(module, used).filter(|target| *target != full)
            });
            match reexported {
                Some(target) => full = target,
                None => return Some(module),
            }
        }
        None
    }

    /// A path from the crate's root.
    fn full(&self, at: &ItemPath, path: &[String]) -> Option<ItemPath> {
        let mut base = at.clone();
        let mut rest = path;
        while let Some((first, after)) = rest.split_first() {
            match first.as_str() {
                "crate" => base.clear(),
                "super" => drop(base.pop()),
                "self" => {}
                _ => break,
            }
            rest = after;
        }
        let is_explicit = rest.len() < path.len();
        let full = |base: ItemPath| base.into_iter().chain(rest.iter().cloned()).collect::<ItemPath>();
        let child: ItemPath = at.iter().chain(rest.first()).cloned().collect();
        (is_explicit || self.0.contains_key(&child)).then(|| full(base))
    }

    /// The longest prefix of a path that is a module, and the rest.
    fn longest<'p>(&self, path: &'p [String]) -> Option<(&ItemPath, &'p [String])> {
        (0..=path.len()).rev().find_map(|n| {
            let (module, _) = self.0.get_key_value(&path[..n])?;
            Some((module, &path[n..]))
        })
    }

    /// The modules that a module imports. The crate's root only declares modules, so it counts as a file that imports
    /// nothing.
    fn imports(&self, at: &ItemPath) -> BTreeSet<&ItemPath> {
        let module = &self.0[at];
        let through_use = module.named.iter().map(|path| {
            let used = module.uses.iter().find(|used| used.last() == path.first());
            used.map_or_else(|| path.clone(), |used| used.iter().chain(&path[1..]).cloned().collect())
        });
        let paths = module.uses.iter().cloned().chain(through_use);
        let mut imported: BTreeSet<&ItemPath> = paths.filter_map(|path| self.module_of(at, &path)).collect();
        imported.retain(|module| *module != at && !module.is_empty());
        imported
    }

    /// The files that import each other, directly or indirectly, largest cycle first.
    fn cycles(&self) -> Vec<Vec<&str>> {
        let edges: BTreeMap<&ItemPath, BTreeSet<&ItemPath>> =
            self.0.keys().filter(|at| !at.is_empty()).map(|at| (at, self.imports(at))).collect();
        let reached = |from: &ItemPath| {
            let mut open: Vec<&ItemPath> = edges[from].iter().copied().collect();
            let mut seen: BTreeSet<&ItemPath> = BTreeSet::new();
            while let Some(next) = open.pop() {
                if seen.insert(next) {
                    open.extend(edges[next].iter().copied());
                }
            }
            seen
        };
        let reach: BTreeMap<&ItemPath, BTreeSet<&ItemPath>> = edges.keys().map(|at| (*at, reached(at))).collect();
        let mut cycles: Vec<Vec<&str>> = Vec::new();
        let mut left: BTreeSet<&ItemPath> = edges.keys().copied().collect();
        while let Some(first) = left.pop_first() {
            let others: Vec<&ItemPath> =
                left.iter().copied().filter(|at| reach[first].contains(at) && reach[at].contains(first)).collect();
            left.retain(|at| !others.contains(at));
            if !others.is_empty() {
                cycles.push([first].into_iter().chain(others).map(|at| self.0[at].file.as_str()).collect());
            }
        }
        cycles.sort_by_key(|files| std::cmp::Reverse(files.len()));
        cycles
    }
}

impl Module {
    fn read(file: &str, text: &str) -> Self {
        let production = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code = production.lines().map(|line| line.split("//").next().unwrap_or_default());
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        let mut declaration = String::new();
        for line in code {
            let start = line.trim_start();
            let start = start
                .strip_prefix("pub")
                .map_or(start, |rest| rest.trim_start_matches("(crate)").trim_start_matches("(super)").trim_start());
            if declaration.is_empty() && !start.starts_with("use ") {
                module.named.extend(paths_in(line));
                continue;
            }
            declaration.push_str(if declaration.is_empty() { &start[4..] } else { start });
            if declaration.ends_with(';') {
                module.uses.extend(used_paths(&declaration));
                declaration.clear();
            }
        }
        module
    }
}

/// The paths with `::` in a line of code.
fn paths_in(line: &str) -> impl Iterator<Item = ItemPath> + '_ {
    let words = line.split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | ':')));
    words.filter(|word| word.contains("::") && !word.starts_with(':')).map(segments)
}

/// The paths of a `use` declaration with its braces expanded.
fn used_paths(declaration: &str) -> Vec<ItemPath> {
    let mut paths = Vec::new();
    let (mut prefixes, mut path) = (vec![String::new()], String::new());
    for c in declaration.chars() {
        match c {
            '{' => prefixes.push(std::mem::take(&mut path)),
            ',' | '}' | ';' => {
                let prefix = prefixes.last().cloned().unwrap_or_default();
                if !path.trim().is_empty() && path.trim() != prefix.trim() {
                    paths.push(segments(path.split(" as ").next().unwrap_or_default()));
                }
                if c == '}' {
                    prefixes.pop();
                }
                path = if c == '}' { String::new() } else { prefix };
                continue;
            }
            c => path.push(c),
        }
        if c == '{' {
            path = prefixes.last().cloned().unwrap_or_default();
        }
    }
    paths
}

pub(super) fn segments(path: &str) -> ItemPath {
    let mut segments: ItemPath = path.split("::").map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect();
    if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
        segments.pop();
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::File;

    fn repository(files: &[(&str, &str)]) -> Repository {
        let file = |&(path, text): &(&str, &str)| File { path: format!("{SOURCES}{path}"), text: text.to_owned() };
        Repository { files: files.iter().map(file).collect() }
    }

    #[test]
    fn braces_of_imports_are_expanded() {
        let joined: Vec<String> =
            used_paths("crate::{a::{self, B, c::D as E}, f};").iter().map(|p| p.join("::")).collect();
        assert_eq!(joined, ["crate::a", "crate::a::B", "crate::a::c::D", "crate::f"]);
    }

    #[test]
    fn cycles_are_found_through_imports_reexports_and_paths() {
        let files = [
            ("lib.rs", "mod a;\nmod b;\nuse a::A;\n"),
            ("a/mod.rs", "mod inner;\npub(crate) use inner::Inner;\n"),
            ("a/inner.rs", "use crate::b::B;\n"),
            ("b.rs", "fn f() { crate::c::f() }\n"),
            ("c.rs", "use crate::d;\nfn f() { d::f() }\n"),
            ("d.rs", "use crate::a::Inner;\n"),
            ("e.rs", "use crate::d;\n#[cfg(test)]\nmod tests {\n    use crate::b::B;\n}\n"),
        ];
        let found = short(&repository(&files)).unwrap();
        let named = ["a/inner.rs", "b.rs", "c.rs", "d.rs"].map(|file| format!("{SOURCES}{file}")).join(", ");
        assert_eq!(found, [format!("4 files import each other: {named}")]);
        let without = files.map(|(path, text)| (path, if path == "d.rs" { "" } else { text }));
        assert!(short(&repository(&without)).unwrap().is_empty());
    }

    #[test]
    fn three_files_may_import_each_other() {
        let files = [("a.rs", "use crate::b::B;\n"), ("b.rs", "use crate::c::C;\n"), ("c.rs", "use super::a::A;\n")];
        assert_eq!(Modules::read(&repository(&files)).cycles().len(), 1);
        assert!(short(&repository(&files)).unwrap().is_empty());
    }
}
