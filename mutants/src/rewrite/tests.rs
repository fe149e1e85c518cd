//! Tests of the rewriting.

use super::*;
use crate::list::{Place, Span};

/// A mutant of the `occurrence`th `what` in the text.
fn mutant(number: u32, genre: Genre, text: &str, what: &str, occurrence: usize, replacement: &str) -> Mutant {
    let at = text.match_indices(what).nth(occurrence).unwrap().0;
    let place = |byte: usize| {
        let before = &text[..byte];
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        Place { line: before.matches('\n').count() + 1, column }
    };
    Mutant {
        number,
        identity: String::new(),
        name: String::new(),
        file: "a.rs".to_owned(),
        function: None,
        span: Span { start: place(at), end: place(at + what.len()) },
        replacement: replacement.to_owned(),
        genre,
    }
}

/// The text with its mutants, with `is(…)` for the switch.
fn rewritten(text: &str, mutants: &[Mutant]) -> String {
    let out = rewrite(text, mutants, &|_| false).unwrap();
    assert!(syn::parse_file(&out.text).is_ok(), "no Rust: {}", out.text);
    out.text.replace("crate::mutant_switch::", "")
}

#[test]
fn nested_expressions_keep_their_mutants_in_the_branch_without_a_mutant() {
    let text = "fn f() -> bool { a == b && !c }";
    let mutants = [
        mutant(1, Genre::BinaryOperator, text, "==", 0, "!="),
        mutant(2, Genre::BinaryOperator, text, "&&", 0, "||"),
        mutant(3, Genre::UnaryOperator, text, "!", 0, ""),
    ];
    let expected = "fn f() -> bool { (if is(2) { a == b || !c } else { \
                    (if is(1) { a != b } else { a == b }) && (if is(3) { c } else { !c }) }) }";
    assert_eq!(rewritten(text, &mutants), expected);
}

#[test]
fn mutants_of_the_same_expression_are_branches_of_one_condition() {
    let text = "fn f() -> bool { é < b }";
    let mutants = [("==", 1), ("<=", 2)].map(|(other, n)| mutant(n, Genre::BinaryOperator, text, "<", 0, other));
    let expected = "fn f() -> bool { (if is(1) { é == b } else if is(2) { é <= b } else { é < b }) }";
    assert_eq!(rewritten(text, &mutants), expected);
}

#[test]
fn the_value_of_a_function_is_returned_before_its_body() {
    let text = "async fn f() -> u8 {\n    let x = 1;\n    x\n}";
    let mutants = [mutant(7, Genre::FnValue, text, "let x = 1;\n    x", 0, "0")];
    let expected = "async fn f() -> u8 {\n     if is(7) { return 0; } let x = 1;\n    x\n}";
    assert_eq!(rewritten(text, &mutants), expected);
}

#[test]
fn arms_are_deleted_and_guards_replaced_by_guards() {
    let text = "fn f() { match x { A => 1, B if c > d => 2, _ => 3 } }";
    let mutants = [
        mutant(1, Genre::MatchArm, text, "A => 1,", 0, ""),
        mutant(2, Genre::MatchArm, text, "B if c > d => 2,", 0, ""),
        mutant(3, Genre::MatchArmGuard, text, "c > d", 0, "true"),
        mutant(4, Genre::MatchArmGuard, text, "c > d", 0, "false"),
        mutant(5, Genre::BinaryOperator, text, ">", 1, "<"),
    ];
    // The first `>` is that of the arrow.
    let expected = "fn f() { match x { A  if !is(1) && true => 1, \
                    B if (!is(2) && !is(4) && (is(3) || ((if is(5) { c < d } else { c > d })))) => 2, _ => 3 } }";
    assert_eq!(rewritten(text, &mutants), expected);
}

#[test]
fn an_arm_of_a_match_without_a_plain_wildcard_is_deleted_alone() {
    let text = "fn f() { match x { A => 1, _ if c => 2, B => 3 } }";
    let out = rewrite(text, &[mutant(1, Genre::MatchArm, text, "A => 1,", 0, "")], &|_| false).unwrap();
    assert_eq!((out.text.as_str(), out.alone), (text, vec![1]));
}

#[test]
fn a_field_is_left_out_of_a_struct_expression() {
    let text = "fn f() { S { a: 1, b, ..base } }";
    let mutants = [mutant(1, Genre::StructField, text, "a: 1", 0, ""), mutant(2, Genre::StructField, text, "b", 0, "")];
    let expected = "fn f() { (if is(1) { S {  b, ..base } } else if is(2) { S { a: 1,  ..base } } \
                    else { S { a: 1, b, ..base } }) }";
    assert_eq!(rewritten(text, &mutants), expected);
}

#[test]
fn constants_are_built_alone_and_bindings_have_no_other_operator() {
    let text = "const A: u8 = 1 + 2;\nconst fn f() -> u8 { 3 * 4 }\nfn g() { if let B = c && d {} }";
    let mutants = [
        mutant(1, Genre::BinaryOperator, text, "+", 0, "-"),
        mutant(2, Genre::BinaryOperator, text, "*", 0, "/"),
        mutant(3, Genre::FnValue, text, "3 * 4", 0, "0"),
        mutant(4, Genre::BinaryOperator, text, "&&", 0, "||"),
    ];
    let out = rewrite(text, &mutants, &|_| false).unwrap();
    assert_eq!((out.text.as_str(), out.alone, out.unviable), (text, vec![1, 2, 3], vec![4]));
    assert!(mutated(text, &mutants[1]).contains("{ 3 / 4 }"));
}

#[test]
fn each_mutant_is_found_at_its_bytes_and_a_skipped_one_is_not_written() {
    let text = "fn f() -> bool { a == b || c }";
    let mutants =
        [mutant(1, Genre::BinaryOperator, text, "==", 0, "!="), mutant(2, Genre::BinaryOperator, text, "||", 0, "&&")];
    let out = rewrite(text, &mutants, &|_| false).unwrap();
    let inserted: Vec<(&str, u32)> = out.inserted.iter().map(|(range, n)| (&out.text[range.clone()], *n)).collect();
    assert_eq!(inserted, [("a == b && c", 2), ("a != b", 1)]);
    let out = rewrite(text, &mutants, &|number| number == 2).unwrap();
    assert_eq!(out.inserted.len(), 1);
    assert!(out.text.ends_with(" || c }"), "{}", out.text);
}
