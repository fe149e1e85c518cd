//! The stages of a request and the mounts contain no engine names and no paths of rows: tables and engines declare their
//! special handling.

use std::collections::BTreeSet;

use anyhow::Result;

use super::{File, Findings, Repository};

/// Paths without literal names of engines, mounts and rows.
const NAMELESS: [&str; 5] = [
    "crates/core/src/request/",
    "crates/core/src/mount/",
    "crates/core/src/lifecycle.rs",
    "crates/core/src/unsealed.rs",
    "crates/core/src/node.rs",
];

/// What stands before a literal that is the name of a parameter, which may be that of an engine, too.
const PARAMETERS: [&str; 3] = ["field(", "get(", "field(out, "];

pub(super) fn none_in_the_stages(repository: &Repository) -> Result<Findings> {
    let known = Names::of(repository);
    let mut findings = Vec::new();
    for file in repository.rust().filter(|file| NAMELESS.iter().any(|place| file.path.starts_with(place))) {
        for (number, line) in file.production() {
            let named = literals(line).into_iter().filter(|(before, text)| known.forbids(before, text));
            findings.extend(named.map(|(_, text)| format!("{}:{number}: {text:?}", file.path)));
        }
    }
    Ok(findings)
}

/// What engines and tables are declared with.
struct Names {
    /// The types of engines.
    engines: BTreeSet<String>,
    /// The first segments of the paths of built-in mounts and of rows.
    segments: BTreeSet<String>,
}

impl Names {
    fn of(repository: &Repository) -> Self {
        let mut known = Names { engines: BTreeSet::new(), segments: BTreeSet::from(["auth".to_owned()]) };
        for file in repository.rust().filter(|file| file.path.starts_with("crates/")) {
            known.read(file);
        }
        known
    }

    fn read(&mut self, file: &File) {
        let lines: Vec<&str> = file.production().map(|(_, line)| line).collect();
        for (at, line) in lines.iter().enumerate() {
            let first = |call: &str| first_literal(line.split_once(call)?.1, &lines[at + 1..]).map(str::to_owned);
            let constant = ["const TYPE:", "const FORMER_TYPE:"].into_iter().find_map(first);
            self.engines.extend(constant);
            let paths = ["r.path(", "BuiltIn::at(", "_MOUNT: &str"].into_iter().filter_map(first);
            let segments = paths.filter_map(|path| path.split_once('/').map(|(segment, _)| segment.to_owned()));
            self.segments.extend(segments.filter(|segment| !segment.is_empty() && !segment.starts_with('{')));
        }
    }

    /// Whether a literal names an engine, or a path of a mount or a row.
    fn forbids(&self, before: &str, text: &str) -> bool {
        let is_engine = self.engines.contains(text) && !PARAMETERS.iter().any(|call| before.ends_with(call));
        is_engine || text.split_once('/').is_some_and(|(segment, _)| self.segments.contains(segment))
    }
}

/// The first text literal of a declaration, which may stand on a later line.
fn first_literal<'a>(rest: &'a str, later: &[&'a str]) -> Option<&'a str> {
    for line in std::iter::once(rest).chain(later.iter().copied()) {
        if let Some((_, text)) = literals(line).first() {
            return Some(text);
        }
        let code = line.split("//").next().unwrap_or_default();
        if code.contains([';', ')', '}']) {
            return None;
        }
    }
    None
}

/// The text literals of a line of code, each with what stands before it.
fn literals(line: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let (mut begin, mut is_escaped) = (None, false);
    for (at, c) in line.char_indices() {
        match (begin, c) {
            (None, '/') if line[at..].starts_with("//") => break,
            (None, '"') if !line[..at].ends_with('\'') => begin = Some(at + 1),
            (Some(start), '"') if !is_escaped => {
                found.push((&line[..start - 1], &line[start..at]));
                begin = None;
            }
            _ => {}
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(stages: &str) -> Repository {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let engine =
            "const TYPE: &'static str = \"kv\";\nr.path(\"mounts/{path...}\", HELP);\nBuiltIn::at(\"sys/\", \"\")\n";
        let long = "const TYPE: &'static str =\n    \"database\";\nr.path(\n    // The roles.\n    \"roles/{name}\",\n    HELP,\n);\n\
            r.path(PATTERN, HELP);\nlet text = \"other/x\";\nconst FORMER_TYPE: Option<&str>;\nlet text = \"former\";\n";
        let engines = [("kv", engine), ("database", long)];
        let mut files: Vec<_> = engines.map(|(name, text)| file(&format!("crates/engines/src/{name}.rs"), text)).into();
        files.push(file("crates/core/src/request/route.rs", stages));
        Repository { files }
    }

    #[test]
    fn names_of_engines_and_paths_are_found_in_the_stages() {
        for (line, found) in [
            ("if entry.engine == \"kv\" {", true),
            ("path.starts_with(\"auth/\")", true),
            ("[\"x\", \"mounts/\"]", true),
            ("format!(\"a\\\" {}\", \"sys/health\")", true),
            ("body.field(\"kv\")", false),
            ("entry.engine == \"database\"", true),
            ("[\"roles/x\"]", true),
            ("[\"other/x\", \"former\"]", false),
            ("/// At `kv`, \"sys/\".", false),
            ("let c = '\"'; // \"kv\"", false),
            ("\"application/json\"", false),
            ("#[cfg(test)]\nlet path = \"sys/x\";", false),
        ] {
            let findings = none_in_the_stages(&repository(line)).unwrap();
            assert_eq!(!findings.is_empty(), found, "{line}: {findings:?}");
        }
    }
}
