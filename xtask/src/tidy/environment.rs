//! The environment variables that the code reads, compared with the documented ones.

use std::collections::BTreeSet;

use anyhow::Result;

use super::{File, Findings, Repository};

/// Crates that read variables, and the page that documents them.
const PAGES: [(&str, &str); 4] = [
    ("crates/server/src/", "docs/configuration.md"),
    ("crates/client/src/", "docs/cli.md"),
    ("crates/outbound/src/", "docs/cli.md"),
    ("crates/cli/src/", "docs/cli.md"),
];

/// Calls with a name in capitals that is not read from the environment.
const OTHER_CALLS: [&str; 3] = [".env(", "env!(", ".join("];

/// Every variable that is read is on the page of its crate, and every `VAULT_` variable of a page is read.
pub(super) fn documented(repository: &Repository) -> Result<Findings> {
    let mut findings = Vec::new();
    let mut all = BTreeSet::new();
    for (folder, page) in PAGES {
        let named = quoted(repository, page);
        for file in repository.rust().filter(|file| file.path.starts_with(folder) && reads_variables(file)) {
            for (line, name) in names(file) {
                if !named.contains(&format!("VAULT_{name}")) && !named.contains(name) {
                    findings.push(format!("{}:{line}: {page} does not name the variable {name}", file.path));
                }
                all.insert(name.to_owned());
            }
        }
    }
    if all.is_empty() {
        findings.push("no variable was found in the code: the rule is broken".to_owned());
    }
    for page in BTreeSet::from(PAGES.map(|(_, page)| page)) {
        let named = quoted(repository, page);
        let unread = named.iter().filter_map(|name| name.strip_prefix("VAULT_")).filter(|name| !all.contains(*name));
        findings.extend(unread.map(|name| format!("{page}: nothing reads VAULT_{name}")));
    }
    findings.extend(unnamed_test_variables(repository, &all));
    Ok(findings)
}

/// Variables of tests are documented in `CONTRIBUTING.md`.
fn unnamed_test_variables(repository: &Repository, all: &BTreeSet<String>) -> Findings {
    let named = quoted(repository, "CONTRIBUTING.md");
    let tests = repository.rust().filter(|file| !file.path.starts_with("xtask/"));
    let read = tests.flat_map(|file| {
        let literals = file.text.match_indices("\"KEEPFAST_").filter_map(|(at, opening)| {
            let name = file.text[at + opening.len()..].split('"').next()?;
            // `env!` reads variables of a build script.
            (is_name(name) && !file.text[..at].ends_with("env!(")).then_some(name)
        });
        literals.map(move |name| (&file.path, name))
    });
    read.filter(|(_, name)| !all.contains(*name) && !named.contains(&format!("KEEPFAST_{name}")))
        .map(|(path, name)| format!("{path}: CONTRIBUTING.md does not name the variable KEEPFAST_{name}"))
        .collect()
}

fn reads_variables(file: &File) -> bool {
    file.production().any(|(_, line)| line.contains("environment") || line.contains("env::var"))
}

/// Names in capitals that are the first argument of a call, with their lines.
fn names(file: &File) -> impl Iterator<Item = (usize, &str)> {
    file.production().flat_map(|(number, line)| {
        let calls = line.match_indices("(\"").filter_map(move |(at, opening)| {
            let name = line[at + opening.len()..].split('"').next()?;
            let other = OTHER_CALLS.iter().any(|call| line[..=at].ends_with(call));
            (!other && is_name(name)).then_some(name)
        });
        calls.map(move |name| (number, name))
    })
}

fn is_name(text: &str) -> bool {
    text.len() > 2
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// Names in capitals in backticks, without a value after `=`.
fn quoted(repository: &Repository, page: &str) -> BTreeSet<String> {
    let text = repository.file(page).map_or("", |file| file.text.as_str());
    let quoted = text.split('`').skip(1).step_by(2).filter_map(|word| word.split('=').next());
    quoted.filter(|word| is_name(word) && !word.ends_with('_')).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(code: &str, page: &str, contributing: &str) -> Repository {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        Repository {
            files: vec![
                file("crates/server/src/a.rs", code),
                file("docs/configuration.md", page),
                file("docs/cli.md", ""),
                file("CONTRIBUTING.md", contributing),
            ],
        }
    }

    #[test]
    fn variables_of_code_and_pages_are_the_same() {
        let code =
            "let a = environment.setting(\"API_ADDR\"); command.env(\"SET\", a);\nlet b = std::env::var(\"HOME\");\n";
        let found =
            |page: &str| documented(&repository(code, page, "")).map(|found| found.join("\n")).unwrap_or_default();
        assert_eq!(found("| `VAULT_API_ADDR` | `HOME` |"), "");
        assert!(found("`HOME`").contains("a.rs:1: docs/configuration.md does not name the variable API_ADDR"));
        assert!(found("`VAULT_API_ADDR` `HOME` `VAULT_OLD`").ends_with("nothing reads VAULT_OLD"));
        let none = documented(&repository("", "", "")).unwrap_or_default();
        assert_eq!(none, ["no variable was found in the code: the rule is broken"]);
    }

    #[test]
    fn variables_of_tests_are_in_contributing_md() {
        let code = "let environment = variable(\"ADDR\");\n#[cfg(test)]\nmod tests { read(\"KEEPFAST_SEED\", \"KEEPFAST_ADDR\") }";
        let found =
            |page: &str| documented(&repository(code, "`VAULT_ADDR`", page)).map(|found| found.len()).unwrap_or(9);
        assert_eq!((found(""), found("`KEEPFAST_SEED=7`")), (1, 0));
    }
}
