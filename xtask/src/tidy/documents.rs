//! Rules on documents.

use anyhow::Result;

use super::sources::ignored_tests;
use super::{Findings, Repository};

/// Each numbered invariant of `docs/invariants.md` names at least one test in backticks, and every test it names exists.
pub(super) fn invariants(repository: &Repository) -> Result<Findings> {
    let Some(page) = repository.file("docs/invariants.md") else {
        return Ok(vec!["docs/invariants.md is missing".to_owned()]);
    };
    let invariants = numbered(&page.text);
    if invariants.is_empty() {
        return Ok(vec!["docs/invariants.md has no numbered invariants".to_owned()]);
    }
    let mut findings = Vec::new();
    for (number, text) in invariants {
        let quoted: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
        let tests: Vec<&str> = quoted.into_iter().filter(|word| looks_like_a_test(word)).collect();
        if tests.is_empty() {
            findings.push(format!("invariant {number} names no test"));
        }
        for test in tests {
            let name = test.rsplit("::").next().unwrap_or(test);
            if !exists(repository, name) {
                findings.push(format!("invariant {number}: there is no test {name}"));
            }
        }
    }
    Ok(findings)
}

/// Each row of `docs/security-rows.md` names tests that exist or says why there is none.
pub(super) fn security_rows(repository: &Repository) -> Result<Findings> {
    let Some(page) = repository.file("docs/security-rows.md") else {
        return Ok(vec!["docs/security-rows.md is missing".to_owned()]);
    };
    let ignored: Vec<&str> = repository.rust().flat_map(|file| ignored_tests(&file.text)).collect();
    let mut findings = Vec::new();
    for row in page.text.lines().filter(|line| is_row(line)) {
        let quoted: Vec<&str> = row.split('`').skip(1).step_by(2).filter(|word| looks_like_a_test(word)).collect();
        let explained = ["feature absent", "not held", "by type", "doctests"].iter().any(|words| row.contains(words));
        if quoted.is_empty() && !explained {
            findings.push(format!("a row names no test: {row}"));
        }
        findings.extend(quoted.iter().filter(|t| !exists(repository, t)).map(|t| format!("there is no test {t}")));
        findings.extend(quoted.iter().filter(|t| ignored.contains(*t)).map(|t| format!("the test {t} is ignored")));
    }
    Ok(findings)
}

/// A table row that begins with an id, such as `| AC-01 |`.
fn is_row(line: &str) -> bool {
    let first = line.strip_prefix("| ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    first.trim_end_matches(',').split_once('-').is_some_and(|(family, number)| {
        family.len() == 2
            && family.bytes().all(|b| b.is_ascii_uppercase())
            && number.bytes().all(|b| b.is_ascii_digit())
    })
}

/// The items of the numbered list under the heading with "invariants", each with its following lines.
fn numbered(page: &str) -> Vec<(usize, String)> {
    let mut items: Vec<(usize, String)> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if line.starts_with('#') {
            inside = line.to_lowercase().contains("invariant");
        }
        let number = line.split_once(". ").and_then(|(n, rest)| Some((n.trim().parse().ok()?, rest)));
        match (inside, number) {
            (true, Some((number, rest))) => items.push((number, rest.to_owned())),
            (true, None) if line.starts_with(' ') => {
                if let Some((_, text)) = items.last_mut() {
                    text.push('\n');
                    text.push_str(line);
                }
            }
            _ => {}
        }
    }
    items
}

/// A function name of several words, with an optional module path; a `compile_fail` doctest is named by its file.
fn looks_like_a_test(word: &str) -> bool {
    let name = word.rsplit("::").next().unwrap_or(word);
    name.contains('_') && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn exists(repository: &Repository, name: &str) -> bool {
    let declared = [format!("fn {name}("), format!("def {name}(")];
    repository.files.iter().any(|file| declared.iter().any(|d| file.text.contains(d.as_str())))
        || repository.files.iter().any(|file| file.text.contains(&format!("$name:ident, {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_not_headings_or_rules() {
        assert!(is_row("| AC-01 | x |") && is_row("| NS-01, NS-04 to NS-08 | x |"));
        assert!(!is_row("|---|---|") && !is_row("| row | rule |") && !is_row("AC-01"));
    }

    #[test]
    fn reads_the_numbered_list_of_invariants_only() {
        let page =
            "# Rooms\n1. no\n## Invariants\n1. One thing. `a_test`\n   and `b::c_test`\n2. Two\n## Else\n3. no\n";
        let items = numbered(page);
        assert_eq!(items.len(), 2);
        assert!(items[0].1.contains("c_test"));
        assert!(
            looks_like_a_test("b::c_test") && !looks_like_a_test("Authorized") && !looks_like_a_test("authorize.rs")
        );
    }
}
