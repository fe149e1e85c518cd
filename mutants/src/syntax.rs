//! The parts of a source file that mutants replace, with their places.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::{Context, Result};
use proc_macro2::LineColumn;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::list::{Genre, Mutant, Span};

/// The byte at which each line of a text starts.
pub(crate) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// Those of this text.
    pub(crate) fn of(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Lines { text, starts }
    }

    /// The bytes of a span, whose lines and columns count from 1; columns are characters.
    pub(crate) fn range(&self, span: &Span) -> Range<usize> {
        self.byte(span.start.line, span.start.column - 1)..self.byte(span.end.line, span.end.column - 1)
    }

    /// The byte of a line, from 1, and a column, from 0.
    fn byte(&self, line: usize, column: usize) -> usize {
        let start = self.starts[line - 1];
        let rest = &self.text[start..];
        start + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at)
    }

    fn of_span(&self, span: proc_macro2::Span) -> Range<usize> {
        let byte = |place: LineColumn| self.byte(place.line, place.column);
        byte(span.start())..byte(span.end())
    }
}

/// The kind of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// An expression with one operator.
    Operator,
    /// A struct expression with a base.
    Struct,
    /// The place of the guard of a match arm: the guard, or, when there is none, the empty range before the arrow.
    Guard,
    /// The statements of a function.
    Body,
}

/// A part of the syntax that a mutant replaces.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Its bytes.
    pub(crate) range: Range<usize>,
    /// Its kind.
    pub(crate) shape: Shape,
    /// Whether the compiler evaluates it, or the exhaustiveness of its match: the compiler knows no switch.
    pub(crate) is_constant: bool,
    /// Whether it joins conditions that bind variables (`let … && …`), for which there is no other operator.
    pub(crate) is_let_chain: bool,
}

/// The nodes of a file.
pub(crate) struct Syntax {
    /// By the first byte of what the mutant's span covers: an operator, an arm, a guard, a field, a body.
    nodes: HashMap<(Genre, usize), Node>,
}

impl Syntax {
    /// Fails when the text is no Rust.
    pub(crate) fn parse(text: &str, lines: &Lines) -> Result<Self> {
        let file = syn::parse_file(text).context("it does not parse")?;
        let mut finder = Finder { lines, nodes: HashMap::new(), constants: 0 };
        finder.visit_file(&file);
        Ok(Syntax { nodes: finder.nodes })
    }

    /// The node that a mutant replaces.
    pub(crate) fn node(&self, mutant: &Mutant, lines: &Lines) -> Option<&Node> {
        self.nodes.get(&(mutant.genre, lines.range(&mutant.span).start))
    }
}

struct Finder<'a> {
    lines: &'a Lines<'a>,
    nodes: HashMap<(Genre, usize), Node>,
    /// The number of surrounding constants.
    constants: usize,
}

impl Finder<'_> {
    fn add(&mut self, genre: Genre, at: usize, range: Range<usize>, shape: Shape, is_let_chain: bool) {
        let node = Node { range, shape, is_constant: self.constants > 0, is_let_chain };
        self.nodes.insert((genre, at), node);
    }

    fn constant(&mut self, is_constant: bool, visit: impl FnOnce(&mut Self)) {
        self.constants += usize::from(is_constant);
        visit(self);
        self.constants -= usize::from(is_constant);
    }

    fn body(&mut self, block: &syn::Block) {
        if let (Some(first), Some(last)) = (block.stmts.first(), block.stmts.last()) {
            let range = self.lines.of_span(first.span()).start..self.lines.of_span(last.span()).end;
            self.add(Genre::FnValue, range.start, range, Shape::Body, false);
        }
    }
}

/// Whether a condition is or joins a binding (`let`).
fn binds(expression: &syn::Expr) -> bool {
    match expression {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(binary) if matches!(binary.op, syn::BinOp::And(_)) => {
            binds(&binary.left) || binds(&binary.right)
        }
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.constant(true, |finder| visit::visit_item_const(finder, item));
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.constant(true, |finder| visit::visit_item_static(finder, item));
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.constant(true, |finder| visit::visit_impl_item_const(finder, item));
    }

    fn visit_trait_item_const(&mut self, item: &'ast syn::TraitItemConst) {
        self.constant(true, |finder| visit::visit_trait_item_const(finder, item));
    }

    fn visit_expr_const(&mut self, item: &'ast syn::ExprConst) {
        self.constant(true, |finder| visit::visit_expr_const(finder, item));
    }

    fn visit_variant(&mut self, item: &'ast syn::Variant) {
        self.constant(true, |finder| visit::visit_variant(finder, item));
    }

    fn visit_type(&mut self, item: &'ast syn::Type) {
        self.constant(true, |finder| visit::visit_type(finder, item));
    }

    fn visit_pat(&mut self, item: &'ast syn::Pat) {
        self.constant(true, |finder| visit::visit_pat(finder, item));
    }

    fn visit_expr_repeat(&mut self, item: &'ast syn::ExprRepeat) {
        self.visit_expr(&item.expr);
        self.constant(true, |finder| finder.visit_expr(&item.len));
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.constant(item.sig.constness.is_some(), |finder| {
            finder.body(&item.block);
            visit::visit_item_fn(finder, item);
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.constant(item.sig.constness.is_some(), |finder| {
            finder.body(&item.block);
            visit::visit_impl_item_fn(finder, item);
        });
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.constant(item.sig.constness.is_some(), |finder| {
            if let Some(block) = &item.default {
                finder.body(block);
            }
            visit::visit_trait_item_fn(finder, item);
        });
    }

    fn visit_expr_binary(&mut self, item: &'ast syn::ExprBinary) {
        let (operator, whole) = (self.lines.of_span(item.op.span()), self.lines.of_span(item.span()));
        let is_let_chain = binds(&item.left) || binds(&item.right);
        self.add(Genre::BinaryOperator, operator.start, whole, Shape::Operator, is_let_chain);
        visit::visit_expr_binary(self, item);
    }

    fn visit_expr_unary(&mut self, item: &'ast syn::ExprUnary) {
        let (operator, whole) = (self.lines.of_span(item.op.span()), self.lines.of_span(item.span()));
        self.add(Genre::UnaryOperator, operator.start, whole, Shape::Operator, false);
        visit::visit_expr_unary(self, item);
    }

    fn visit_expr_match(&mut self, item: &'ast syn::ExprMatch) {
        let has_rest = item.arms.iter().any(|arm| arm.guard.is_none() && matches!(arm.pat, syn::Pat::Wild(_)));
        visit::visit_expr_match(self, item);
        if !has_rest {
            // Arms with guards leave the match without an arm for the rest.
            for arm in &item.arms {
                let at = self.lines.of_span(arm.span()).start;
                self.nodes.entry((Genre::MatchArm, at)).and_modify(|node| node.is_constant = true);
            }
        }
    }

    fn visit_arm(&mut self, item: &'ast syn::Arm) {
        let arrow = self.lines.of_span(item.fat_arrow_token.span()).start;
        let guard = item.guard.as_ref().map(|(_, guard)| guard);
        let place = guard.map_or(arrow..arrow, |guard| self.lines.of_span(guard.span()));
        let is_let_chain = guard.is_some_and(|guard| binds(guard));
        let whole = self.lines.of_span(item.span());
        self.add(Genre::MatchArm, whole.start, place.clone(), Shape::Guard, is_let_chain);
        self.add(Genre::MatchArmGuard, place.start, place, Shape::Guard, is_let_chain);
        visit::visit_arm(self, item);
    }

    fn visit_expr_struct(&mut self, item: &'ast syn::ExprStruct) {
        let whole = self.lines.of_span(item.span());
        for field in &item.fields {
            let at = self.lines.of_span(field.span()).start;
            self.add(Genre::StructField, at, whole.clone(), Shape::Struct, false);
        }
        visit::visit_expr_struct(self, item);
    }
}
