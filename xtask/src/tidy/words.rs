//! The words that `CONTRIBUTING.md` refuses under "Words": in comments, names of functions and types, pages, and titles
//! and notes of scenarios.

use anyhow::Result;

use super::{File, Findings, Repository};

/// Refused phrases in comments, names of functions and pages, and the words to write instead.
const PHRASES: [(&str, &str); 16] = [
    ("whoever", "caller, operator, reader"),
    ("who asks", "caller"),
    ("take back", "revoke"),
    ("takes back", "revokes"),
    ("taken back", "revoked"),
    ("is told", "gets, reads"),
    ("are told", "get, read"),
    ("a fault in", "an error in"),
    ("the peer", "OpenBao"),
    ("anew", "again"),
    ("for ever", "forever"),
    ("in force", "applies"),
    ("in the making", "in progress"),
    ("says so", "states it"),
    ("taken away", "removed, unmounted"),
    ("takes away", "removes, unmounts"),
];

/// Refused names of types, and the names to use instead.
const TYPES: [(&str, &str); 17] = [
    ("Named", "the path parameter, such as RolePath"),
    ("Shown", "…Response"),
    ("Told", "…Response"),
    ("Said", "…Response"),
    ("How", "…Mode or …Kind"),
    ("Desk", "LeaseIssuer"),
    ("Halt", "CommandError"),
    ("Ear", "BoundListener"),
    ("Asked", "…Request"),
    ("Custody", "CurrentSeal"),
    ("Duties", "BackgroundTasks"),
    ("Given", "EffectiveTtl"),
    ("HandedOut", "…Response"),
    ("House", "TestServer"),
    ("Standing", "…Progress"),
    ("Watched", "…Guard, or the watched thing"),
    ("Who", "Caller, LoginIdentity"),
];

/// Refused names of variables, and the names to use instead.
const VARIABLES: [(&str, &str); 4] =
    [("asked", "requested, request"), ("begun", "started"), ("house", "server"), ("told", "the name of the value")];

/// Files in which a refused phrase is the right term: file, phrase, reason.
const TERMS: [(&str, &str, &str); 2] = [
    ("crates/edge/src/http/headers.rs", "the peer", "the other end of a connection"),
    ("crates/crypto/src/keys/evp.rs", "the peer", "the owner of the other key of a key agreement"),
];

/// The length in characters from which the name of a function is too long.
const TOO_LONG: usize = 70;

pub(super) fn plain(repository: &Repository) -> Result<Findings> {
    Ok(repository.files.iter().flat_map(of_file).collect())
}

/// The findings in a file: each begins with path and line.
fn of_file(file: &File) -> Findings {
    if file.path.ends_with(".rs") {
        let mut findings = phrases_in(file, &comments(&file.text));
        findings.extend(file.text.lines().enumerate().flat_map(|(index, line)| names_in(file, index + 1, line)));
        findings
    } else if file.path.ends_with(".md") {
        phrases_in(file, &page(&file.path, &file.text))
    } else if file.path.starts_with("conformance/scenarios/") {
        phrases_in(file, &titles(&file.text))
    } else {
        Vec::new()
    }
}

/// The refused phrases in a text that has the lines of the file. A line break counts as a space.
fn phrases_in(file: &File, text: &str) -> Findings {
    // ASCII only, so that offsets stay those of the text.
    let words = text.to_ascii_lowercase().replace('\n', " ");
    let mut findings = Vec::new();
    for (phrase, instead) in PHRASES {
        if TERMS.iter().any(|(path, term, _)| file.path == *path && *term == phrase) {
            continue;
        }
        let found = words.match_indices(phrase).filter(|(at, _)| is_separate(&words, *at, phrase.len()));
        findings.extend(found.map(|(at, _)| {
            let line = text[..at].matches('\n').count() + 1;
            format!("{}:{line}: \"{phrase}\"; write {instead}", file.path)
        }));
    }
    findings
}

/// Whether the bytes around a match are not part of a word.
fn is_separate(text: &str, at: usize, length: usize) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    !text[..at].ends_with(is_word) && !text[at + length..].starts_with(is_word)
}

/// The comments of a Rust file without their slashes; lines without a comment are empty.
fn comments(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(comment).collect();
    lines.join("\n")
}

fn comment(line: &str) -> &str {
    let whole = line.trim_start();
    if whole.starts_with("//") {
        return whole.trim_start_matches(['/', '!']).trim_start();
    }
    // An odd number of quotes before the slashes: they are in a string.
    let is_code = |before: &str| (before.matches('"').count() - before.matches("\\\"").count()).is_multiple_of(2);
    let mut ends = line.match_indices(" // ");
    ends.find(|(at, _)| is_code(&line[..*at])).map_or("", |(at, _)| &line[at + 4..])
}

/// A page without the table of words, which lists the refused ones; the lines stay.
fn page(path: &str, text: &str) -> String {
    let is_listed = |line: &str| path == "CONTRIBUTING.md" && line.starts_with("| ");
    let lines: Vec<&str> = text.lines().map(|line| if is_listed(line) { "" } else { line }).collect();
    lines.join("\n")
}

/// The titles, notes and reasons of a scenario; the other lines are empty.
fn titles(text: &str) -> String {
    let is_title = |line: &str| ["about: ", "note: ", "reason: "].iter().any(|key| line.contains(key));
    let lines: Vec<&str> = text.lines().map(|line| if is_title(line) { line } else { "" }).collect();
    lines.join("\n")
}

/// The refused names that a line of Rust declares.
fn names_in(file: &File, number: usize, line: &str) -> Findings {
    let mut findings = Vec::new();
    if line.trim_start().starts_with("//") {
        return findings;
    }
    // No declaration follows a string on its line.
    let code = line.split('"').next().unwrap_or_default();
    let words: Vec<&str> = code.split_whitespace().filter(|word| *word != "mut").collect();
    for [keyword, name] in words.array_windows() {
        let name = name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        let refused = match *keyword {
            "struct" | "enum" | "trait" | "type" => TYPES.iter().find(|(refused, _)| name == *refused),
            "let" => VARIABLES.iter().find(|(refused, _)| name == *refused),
            "fn" if name.len() >= TOO_LONG => {
                findings.push(format!("{}:{number}: {name} has {TOO_LONG} characters or more", file.path));
                None
            }
            "fn" => {
                let spoken = name.replace('_', " ");
                PHRASES.iter().find(|(phrase, _)| {
                    spoken.match_indices(phrase).any(|(at, _)| is_separate(&spoken, at, phrase.len()))
                })
            }
            _ => None,
        };
        findings.extend(refused.map(|(_, instead)| format!("{}:{number}: {name}; write {instead}", file.path)));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Findings {
        of_file(&File { path: path.to_owned(), text: text.to_owned() })
    }

    #[test]
    fn refused_phrases_are_found_in_comments_and_pages() {
        let rust =
            "fn a() {}\n    /// A lease that is taken\n    /// back. Whoever reads it.\nlet x = 1; // the peer\n";
        assert_eq!(
            found("a.rs", rust),
            [
                "a.rs:3: \"whoever\"; write caller, operator, reader",
                "a.rs:2: \"taken back\"; write revoked",
                "a.rs:4: \"the peer\"; write OpenBao"
            ]
        );
        assert_eq!(
            found("docs/a.md", "# Title\n\nThe server is told.\n"),
            ["docs/a.md:3: \"is told\"; write gets, reads"]
        );
    }

    #[test]
    fn code_strings_and_longer_words_are_not_phrases() {
        let rust = "// the peers, unmistaken back\nlet whoever = \"https: // the peer\";\n";
        assert_eq!(found("a.rs", rust), Findings::new());
        assert_eq!(found("CONTRIBUTING.md", "| OpenBao | the peer |\n"), Findings::new());
        assert_eq!(found("crates/edge/src/http/headers.rs", "// the peer of a connection\n"), Findings::new());
    }

    #[test]
    fn refused_variables_are_found_where_they_are_declared() {
        let rust = "let told = 1;\nlet mut asked = told;\nlet asked_for = \"let house = 1\";\nbegun.len();\n";
        let findings = found("a.rs", rust);
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings[0].starts_with("a.rs:1: told; ") && findings[1].starts_with("a.rs:2: asked; "));
    }

    #[test]
    fn refused_names_are_found_where_they_are_declared() {
        let long = format!("fn {}() {{}}\n", "a".repeat(TOO_LONG));
        let rust = "pub(crate) struct Named<'a>(&'a str);\nstruct NamedValue;\nfn as_the_peer_does() {}\nasync fn peers() {}\n";
        let findings = found("a.rs", &(rust.to_owned() + &long));
        assert_eq!(findings.len(), 3, "{findings:?}");
        assert!(findings[0].starts_with("a.rs:1: Named; ") && findings[1].starts_with("a.rs:3: as_the_peer_does; "));
        assert!(findings[2].ends_with("has 70 characters or more"), "{findings:?}");
        assert_eq!(found("a.rs", &long.replacen('a', "", 1)), Findings::new());
    }
}
