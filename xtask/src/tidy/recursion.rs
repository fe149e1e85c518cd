//! Every recursive function has a comment with the bound of its depth: nested text from a client must not overflow the
//! stack, which ends the process.
//!
//! The rule reads one file at a time and resolves calls by name: `name(` to free functions, `self.name(` and
//! `Self::name(` to the same type, `value.name(` in a method of that name to the methods of the inherent blocks of the
//! file. Recursion over several files is not found.

use anyhow::Result;

use super::sources::begins_function;
use super::{File, Findings, Repository};

/// The start of the comment above a recursive function.
const MARKER: &str = "// recursion:";
/// The complete start of the comment, before the bound.
const BOUNDED: &str = "// recursion: bounded by ";

/// Calls that run a function argument.
const HANDED_TO: [&str; 8] =
    ["map(", "all(", "any(", "for_each(", "and_then(", "flat_map(", "filter_map(", "map_or_else("];

/// A function of a file.
struct Function {
    /// The line, from 1.
    line: usize,
    name: String,
    /// The type of its `impl` block.
    of: Option<String>,
    /// Whether a value of unknown type can have this method.
    is_method: bool,
    /// Whether it is in no block, or in an inherent block.
    is_inherent: bool,
    is_async: bool,
    body: String,
    marker: Option<String>,
}

pub(super) fn bounded(repository: &Repository) -> Result<Findings> {
    let production = |file: &&File| file.path.starts_with("crates/") && file.path.contains("/src/");
    Ok(repository.rust().filter(production).flat_map(of_file).collect())
}

fn of_file(file: &File) -> Findings {
    let functions = functions(&file.production().map(|(_, line)| line).collect::<Vec<_>>());
    let calls: Vec<Vec<usize>> = functions.iter().map(|caller| callees(caller, &functions)).collect();
    let mut findings = Vec::new();
    for (at, function) in functions.iter().enumerate() {
        let place = || format!("{}:{}: {}", file.path, function.line, function.name);
        let is_bounded = function.marker.as_deref().is_some_and(|m| m.len() > BOUNDED.len() && m.starts_with(BOUNDED));
        match (reaches(at, &calls), &function.marker) {
            (true, None) => findings.push(format!("{} calls itself without `{BOUNDED}…`", place())),
            (true, Some(_)) if !is_bounded => findings.push(format!("{} does not say what bounds it", place())),
            (false, Some(_)) => findings.push(format!("{} does not call itself", place())),
            _ => {}
        }
    }
    findings
}

/// Whether a chain of calls leads from a function back to it.
fn reaches(from: usize, calls: &[Vec<usize>]) -> bool {
    let mut seen = vec![false; calls.len()];
    let mut left = calls[from].clone();
    while let Some(next) = left.pop() {
        if next == from {
            return true;
        }
        if !std::mem::replace(&mut seen[next], true) {
            left.extend(&calls[next]);
        }
    }
    false
}

fn callees(caller: &Function, all: &[Function]) -> Vec<usize> {
    let found: Vec<usize> = (0..all.len()).filter(|at| calls(caller, &all[*at])).collect();
    let of_another = |at: &usize| all[*at].is_method && all[*at].of != caller.of;
    let is_shadowed = |at: &usize| {
        let callee = &all[*at];
        // An inherent method takes precedence over a trait's.
        let own = all.iter().any(|f| f.is_inherent && f.name == callee.name && f.of == callee.of);
        // When another type of the file has this method, `value.name(` is a call to that type.
        let by_value = callee.name == caller.name && callee.of == caller.of && !names_own(caller);
        (own && !callee.is_inherent) || (by_value && found.iter().any(of_another))
    };
    found.iter().filter(|at| !is_shadowed(at)).copied().collect()
}

/// Whether a function certainly calls its own name on its own type.
fn names_own(function: &Function) -> bool {
    ["self.", "Self::"].iter().any(|prefix| function.body.contains(&format!("{prefix}{}(", function.name)))
}

fn calls(caller: &Function, callee: &Function) -> bool {
    let body = caller.body.as_str();
    let same_type = callee.of.is_some() && caller.of == callee.of;
    body.match_indices(callee.name.as_str()).any(|(at, name)| {
        let (before, after) = (&body[..at], &body[at + name.len()..]);
        let is_call = after.starts_with('(') || after.starts_with("::<");
        let is_handed_on = after.starts_with(')') && HANDED_TO.iter().any(|adaptor| before.ends_with(adaptor));
        if before.ends_with(is_word) {
            return false;
        }
        if let Some(path) = before.strip_suffix("::") {
            return path.ends_with("Self") && same_type && (is_call || after.starts_with(')'));
        }
        let Some(value) = before.strip_suffix('.') else { return callee.of.is_none() && (is_call || is_handed_on) };
        let receiver = value.rsplit(|c: char| !is_word(c)).next().unwrap_or_default();
        let is_field = value[..value.len() - receiver.len()].ends_with('.');
        match receiver {
            "self" => same_type && is_call,
            "" => false,
            _ => {
                is_call
                    && !is_field
                    && callee.is_method
                    && caller.name == callee.name
                    && descends(caller, callee, receiver)
            }
        }
    })
}

/// Whether a value of unknown type may be a part of the caller's own. A call to the method of another type always
/// may; a call that may be a delegation counts only where the value is one of many.
fn descends(caller: &Function, callee: &Function, receiver: &str) -> bool {
    // An async function cannot wait for itself unless it is boxed.
    if caller.is_async || caller.of != callee.of {
        return !caller.is_async;
    }
    let bindings = [format!("for {receiver} in "), format!("|{receiver}|"), format!("|&{receiver}|")];
    bindings.iter().any(|binding| caller.body.contains(binding.as_str()))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The functions of production code in rustfmt's layout.
fn functions(lines: &[&str]) -> Vec<Function> {
    let mut functions = Vec::new();
    let (mut of, mut is_inherent) = (None, false);
    for (start, line) in lines.iter().enumerate() {
        match block(line) {
            Some((name, inherent)) => (of, is_inherent) = (Some(name), inherent),
            None if *line == "}" => of = None,
            None => {}
        }
        if !begins_function(line.trim_start()) {
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let close = format!("{indent}}}");
        let end = lines[start..].iter().position(|l| *l == close).filter(|_| !line.ends_with('}'));
        let text = lines[start..=start + end.unwrap_or(0)].iter().map(|line| code(line)).collect::<Vec<_>>().join("\n");
        let Some((name, rest)) = text.split_once("fn ").and_then(|(_, rest)| rest.split_once(['(', '<'])) else {
            continue;
        };
        let (signature, body) = rest.split_once('{').unwrap_or((rest, ""));
        functions.push(Function {
            line: start + 1,
            name: name.to_owned(),
            of: of.clone().filter(|_| !indent.is_empty()),
            is_method: is_inherent && !indent.is_empty() && signature.contains("self"),
            is_inherent: is_inherent || indent.is_empty(),
            is_async: text[..text.len() - rest.len()].contains("async fn "),
            body: body.to_owned(),
            marker: marker(&lines[..start]),
        });
    }
    functions
}

/// The type of an `impl` or `trait` that begins here, and whether the block is inherent.
fn block(line: &str) -> Option<(String, bool)> {
    let rest = line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub ")).unwrap_or(line);
    let rest = rest.strip_prefix("impl").or_else(|| rest.strip_prefix("trait"))?;
    let (name, is_inherent) = match rest.split_once(" for ") {
        Some((_, name)) => (name, false),
        // The name after the parameters of the block.
        None if rest.starts_with('<') => (rest.split_once("> ").map_or(rest, |(_, name)| name), true),
        None => (rest, !line.contains("trait ")),
    };
    let name: String = name.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    Some((name, is_inherent))
}

/// The marker above a function, among its attributes and documentation.
fn marker(above: &[&str]) -> Option<String> {
    let own =
        above.iter().rev().map(|line| line.trim()).take_while(|line| line.starts_with("//") || line.starts_with('#'));
    own.filter(|line| line.starts_with(MARKER)).map(str::to_owned).next()
}

/// A line without its comment and without quoted text.
fn code(line: &str) -> String {
    let mut out = String::new();
    let mut is_quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\\' if is_quoted => drop(characters.next()),
            '"' => is_quoted = !is_quoted,
            '/' if !is_quoted && characters.peek() == Some(&'/') => break,
            c if !is_quoted => out.push(c),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Findings {
        of_file(&File { path: "crates/x/src/y.rs".to_owned(), text: text.to_owned() })
    }

    #[test]
    fn recursion_of_every_form_needs_its_bound() {
        for text in [
            "fn walk(x: &T) {\n    walk(x);\n}",
            "fn walk(x: &T) { walk(x) }",
            "pub(crate) fn sorted(x: &T) {\n    x.iter().map(sorted)\n}",
            "fn a() {\n    b();\n}\n\nfn b() {\n    c::<T>();\n}\n\nfn c() {\n    a();\n}",
            "impl<'a> P<'a> {\n    fn value(&self) {\n        self.value();\n    }\n}",
            "impl P {\n    fn depth(&self) {\n        self.all.iter().map(|p| p.depth()).max()\n    }\n}",
            "impl P {\n    fn make() {\n        Self::make();\n    }\n}",
            "impl P<'_> {\n    fn value(&self) {\n        w.value(1);\n    }\n}\n\nimpl W<'_> {\n    fn value(&self) {\n        p.value(1);\n    }\n}",
        ] {
            assert!(!found(text).is_empty(), "{text}");
            let marked = text.replace("fn ", "FN ").replace("pub(crate) FN ", "pub(crate) fn ").replace("FN ", "fn ");
            let marked: Vec<String> = marked
                .lines()
                .map(|line| {
                    if begins_function(line.trim_start()) {
                        format!("{BOUNDED}its depth\n{line}")
                    } else {
                        line.to_owned()
                    }
                })
                .collect();
            assert_eq!(found(&marked.join("\n")), Findings::new(), "{marked:?}");
        }
    }

    #[test]
    fn calls_of_other_functions_need_no_bound() {
        for text in [
            "fn walk() {\n    // walk()\n    call(\"walk()\");\n    rewalk();\n}",
            "fn new() {\n    Other::new();\n    x.new();\n}",
            "impl P {\n    fn truth(&self) {\n        truth(self);\n    }\n}\n\nfn truth(p: &P) {\n    p.x()\n}",
            "impl Get for P {\n    fn get(&self) {\n        self.inner.get();\n        inner.get();\n    }\n}",
            "fn a() {\n    b();\n}\n\nfn b() {}",
            "impl P {\n    fn sign(&self) {\n        let key = self.key();\n        key.sign();\n    }\n}",
        ] {
            assert_eq!(found(text), Findings::new(), "{text}");
        }
    }

    #[test]
    fn a_marker_names_a_bound_and_is_only_on_recursion() {
        let with =
            |marker: &str| found(&format!("/// Walks.\n{marker}\n#[inline]\nfn walk() {{\n    walk();\n}}")).len();
        assert_eq!(with("// recursion: bounded by DEPTH"), 0);
        assert_eq!([with("// recursion: bounded by "), with("// recursion: fine"), with("// Recurs.")], [1, 1, 1]);
        assert_eq!(found("// recursion: bounded by DEPTH\nfn walk() {\n    run();\n}").len(), 1);
    }
}
