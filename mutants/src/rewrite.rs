//! Writes all mutants of a file into one text, each behind a switch.
//!
//! The parts of the syntax tree that mutants replace are nested or disjoint. The active mutant's text is its branch of
//! a conditional expression, and the original text, with the mutants of its parts, is the last branch:
//! `(if is(5) { a != b } else if is(6) { true } else { a == b })`.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::{Context, Result};

use crate::list::{Genre, Mutant};
use crate::syntax::{Lines, Node, Shape, Syntax};

/// Bytes of a text, each with the number of their mutant.
pub(crate) type Regions = Vec<(Range<usize>, u32)>;

/// A source file with its mutants behind switches.
#[derive(Default)]
pub(crate) struct Rewritten {
    /// The text.
    pub(crate) text: String,
    /// The bytes of `text` that belong to one mutant alone, with its number.
    pub(crate) inserted: Regions,
    /// The bytes of `text` that stand in a conditional expression of a mutant, with its number.
    pub(crate) wrapped: Regions,
    /// Mutants that no switch can select: those in constants and constant functions, and values of an opaque type.
    pub(crate) alone: Vec<u32>,
    /// Mutants that cannot compile.
    pub(crate) unviable: Vec<u32>,
}

/// Writes the mutants of a file into its text. `skip` selects the mutants to leave out.
///
/// Fails when the text is no Rust, or has no syntax at the place of a mutant.
pub(crate) fn rewrite(text: &str, mutants: &[Mutant], skip: &dyn Fn(u32) -> bool) -> Result<Rewritten> {
    let lines = Lines::of(text);
    let syntax = Syntax::parse(text, &lines)?;
    let mut out = Rewritten::default();
    let mut edits: Vec<Edit> = Vec::new();
    let mut places: HashMap<(usize, usize, bool), usize> = HashMap::new();
    for mutant in mutants.iter().filter(|mutant| !skip(mutant.number)) {
        let node = syntax.node(mutant, &lines).with_context(|| format!("no syntax for {}", mutant.name))?;
        if node.is_constant || mutant.has_opaque_type() {
            out.alone.push(mutant.number);
            continue;
        }
        if node.is_let_chain {
            out.unviable.push(mutant.number);
            continue;
        }
        let place = edit_of(text, node, mutant, &lines);
        let key = (place.range.start, place.range.end, matches!(place.kind, Kind::Guard { .. }));
        match places.get(&key) {
            Some(&at) => edits[at].absorb(place),
            None => {
                places.insert(key, edits.len());
                edits.push(place);
            }
        }
    }
    edits.sort_by_key(|edit| (edit.range.start, std::cmp::Reverse(edit.range.end), edit.order()));
    let mut rest = edits.as_slice();
    render(text, 0..text.len(), &mut rest, &mut out);
    Ok(out)
}

/// The text of a file with one mutant, without a switch.
pub(crate) fn mutated(text: &str, mutant: &Mutant) -> String {
    let lines = Lines::of(text);
    let span = lines.range(&mutant.span);
    format!("{}{}{}", &text[..span.start], mutant.replacement, &text[span.end..])
}

/// A change of the text of one node.
struct Edit {
    range: Range<usize>,
    kind: Kind,
}

enum Kind {
    /// Alternatives to an expression.
    Expression(Vec<(u32, String)>),
    /// Conditions of a match arm: the guard is always true, it is always false (or the arm is gone).
    Guard { when: Vec<u32>, never: Vec<u32> },
    /// Statements before the body of a function.
    Prefix(Vec<(u32, String)>),
}

impl Edit {
    /// Of edits of the same range, the guard is outside.
    fn order(&self) -> u8 {
        u8::from(!matches!(self.kind, Kind::Guard { .. }))
    }

    fn absorb(&mut self, other: Edit) {
        match (&mut self.kind, other.kind) {
            (Kind::Expression(mine), Kind::Expression(more)) | (Kind::Prefix(mine), Kind::Prefix(more)) => {
                mine.extend(more);
            }
            (Kind::Guard { when, never }, Kind::Guard { when: more_when, never: more_never }) => {
                when.extend(more_when);
                never.extend(more_never);
            }
            _ => {}
        }
    }
}

fn edit_of(text: &str, node: &Node, mutant: &Mutant, lines: &Lines) -> Edit {
    let number = mutant.number;
    match (&mutant.genre, node.shape) {
        (Genre::FnValue, _) => {
            let at = node.range.start..node.range.start;
            Edit { range: at, kind: Kind::Prefix(vec![(number, mutant.replacement.clone())]) }
        }
        (Genre::MatchArm, _) => {
            Edit { range: node.range.clone(), kind: Kind::Guard { when: Vec::new(), never: vec![number] } }
        }
        (Genre::MatchArmGuard, _) => {
            let (when, never) = match mutant.replacement.as_str() {
                "true" => (vec![number], Vec::new()),
                _ => (Vec::new(), vec![number]),
            };
            Edit { range: node.range.clone(), kind: Kind::Guard { when, never } }
        }
        (_, Shape::Struct) => {
            let span = lines.range(&mutant.span);
            let mut end = span.end;
            let after = &text[end..];
            if let Some(comma) = after.find(',').filter(|at| after[..*at].trim().is_empty()) {
                end += comma + 1;
            }
            let without = format!("{}{}", &text[node.range.start..span.start], &text[end..node.range.end]);
            Edit { range: node.range.clone(), kind: Kind::Expression(vec![(number, without)]) }
        }
        _ => {
            let span = lines.range(&mutant.span);
            let (before, after) = (&text[node.range.start..span.start], &text[span.end..node.range.end]);
            let other = format!("{before}{}{after}", mutant.replacement);
            Edit { range: node.range.clone(), kind: Kind::Expression(vec![(number, other)]) }
        }
    }
}

/// Renders a range of the text with the edits in it, which are sorted: outer before inner, left before right.
fn render(text: &str, range: Range<usize>, edits: &mut &[Edit], out: &mut Rewritten) {
    let mut at = range.start;
    while let Some((edit, rest)) = edits.split_first().filter(|(edit, _)| edit.range.start <= range.end) {
        if edit.range.end > range.end {
            break;
        }
        *edits = rest;
        out.text.push_str(&text[at..edit.range.start]);
        at = edit.range.end;
        apply(text, edit, edits, out);
    }
    out.text.push_str(&text[at..range.end]);
}

fn apply(text: &str, edit: &Edit, edits: &mut &[Edit], out: &mut Rewritten) {
    let begin = out.text.len();
    let numbers: Vec<u32> = match &edit.kind {
        Kind::Prefix(values) => {
            for (number, value) in values {
                insert(out, *number, &format!(" if {} {{ return {value}; }} ", switch(*number)));
            }
            return;
        }
        Kind::Expression(alternatives) => {
            out.text.push('(');
            for (number, alternative) in alternatives {
                out.text.push_str(&format!("if {} {{ ", switch(*number)));
                insert(out, *number, alternative);
                out.text.push_str(" } else ");
            }
            out.text.push_str("{ ");
            render(text, edit.range.clone(), edits, out);
            out.text.push_str(" })");
            alternatives.iter().map(|(number, _)| *number).collect()
        }
        Kind::Guard { when, never } => {
            let without: String = never.iter().map(|number| format!("!{} && ", switch(*number))).collect();
            if edit.range.is_empty() {
                out.text.push_str(&format!(" if {without}true "));
            } else {
                let always: String = when.iter().map(|number| format!("{} || ", switch(*number))).collect();
                out.text.push_str(&format!("({without}({always}("));
                render(text, edit.range.clone(), edits, out);
                out.text.push_str(")))");
            }
            when.iter().chain(never).copied().collect()
        }
    };
    let end = out.text.len();
    out.wrapped.extend(numbers.into_iter().map(|number| (begin..end, number)));
}

fn insert(out: &mut Rewritten, number: u32, text: &str) {
    let begin = out.text.len();
    out.text.push_str(text);
    out.inserted.push((begin..out.text.len(), number));
}

fn switch(number: u32) -> String {
    format!("crate::mutant_switch::is({number})")
}

#[cfg(test)]
mod tests;
