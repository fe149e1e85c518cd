//! Patterns with values, arranged to find the most specific match without testing every pattern.

use std::collections::{BTreeMap, HashMap};

use super::pattern::{Pattern, Rank, Segments};

/// Patterns and their values.
#[derive(Debug)]
pub(crate) struct Table<T> {
    exact: HashMap<Box<str>, T>,
    /// In byte order.
    prefixes: Vec<Prefix<T>>,
    /// The most specific first.
    segments: Vec<(Segments, T)>,
}

#[derive(Debug)]
struct Prefix<T> {
    text: Box<str>,
    /// The longest other prefix of this one.
    parent: Option<usize>,
    rank: Rank,
    value: T,
}

/// A match: the value, and the rank of its pattern. An exact match has no rank, and no pattern is more specific.
#[derive(Debug)]
pub(crate) struct Found<'a, T> {
    pub(crate) rank: Option<&'a Rank>,
    pub(crate) value: &'a T,
}

impl<T> Table<T> {
    /// Arranges patterns; `unite` joins the values of equal ones.
    pub(crate) fn new(rules: impl IntoIterator<Item = (Pattern, T)>, unite: impl Fn(&mut T, T)) -> Self {
        let mut exact: HashMap<Box<str>, T> = HashMap::new();
        let mut prefixes: BTreeMap<String, T> = BTreeMap::new();
        let mut segments: BTreeMap<Rank, (Segments, T)> = BTreeMap::new();
        for (pattern, value) in rules {
            match pattern {
                Pattern::Exact(path) => match exact.get_mut(path.as_str()) {
                    Some(old) => unite(old, value),
                    None => drop(exact.insert(path.into(), value)),
                },
                Pattern::Prefix(prefix) => match prefixes.get_mut(&prefix) {
                    Some(old) => unite(old, value),
                    None => drop(prefixes.insert(prefix, value)),
                },
                Pattern::Segments(pattern) => match segments.get_mut(&pattern.rank) {
                    Some((_, old)) => unite(old, value),
                    None => drop(segments.insert(pattern.rank.clone(), (pattern, value))),
                },
            }
        }
        let segments = segments.into_values().rev().collect();
        Self { exact, prefixes: with_parents(prefixes), segments }
    }

    /// Whether a pattern with a value that `counts` covers `folder` (ending in `/`), a path below it, or a prefix of
    /// it.
    pub(crate) fn touches(&self, folder: &str, counts: impl Fn(&T) -> bool) -> bool {
        let near = |text: &str| text.starts_with(folder) || folder.starts_with(text);
        self.exact.iter().any(|(path, value)| path.starts_with(folder) && counts(value))
            || self.prefixes.iter().any(|prefix| near(&prefix.text) && counts(&prefix.value))
            || self.segments.iter().any(|(segments, value)| near(segments.head()) && counts(value))
    }

    /// Whether there are no patterns.
    pub(crate) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty() && self.segments.is_empty()
    }

    /// The exact paths, unordered.
    pub(crate) fn exact_paths(&self) -> impl Iterator<Item = (&str, &T)> {
        self.exact.iter().map(|(path, value)| (&**path, value))
    }

    /// The prefixes in byte order.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = (&str, &T)> {
        self.prefixes.iter().map(|prefix| (&*prefix.text, &prefix.value))
    }

    /// The most specific match with a value that `counts`. The path of a list has its trailing slash, and also matches
    /// a pattern for the path without it.
    pub(crate) fn find(&self, path: &str, list: bool, counts: impl Fn(&T) -> bool) -> Option<Found<'_, T>> {
        let bare = if list { path.strip_suffix('/') } else { None };
        self.exact(path, &counts)
            .or_else(|| self.exact(bare?, &counts))
            .or_else(|| self.wild(path, &counts))
            .or_else(|| self.wild(bare?, &counts))
    }

    /// The match of exactly this path.
    pub(crate) fn exact(&self, path: &str, counts: impl Fn(&T) -> bool) -> Option<Found<'_, T>> {
        let value = self.exact.get(path).filter(|value| counts(value))?;
        Some(Found { rank: None, value })
    }

    /// The most specific match among the patterns with wildcards.
    pub(crate) fn wild(&self, path: &str, counts: impl Fn(&T) -> bool) -> Option<Found<'_, T>> {
        let prefix = self.prefix(path, &counts);
        let segments = self.segments.iter().find(|(pattern, value)| pattern.matches(path) && counts(value));
        let segments = segments.map(|(pattern, value)| Found { rank: Some(&pattern.rank), value });
        match (prefix, segments) {
            (Some(a), Some(b)) => Some(if a.rank > b.rank { a } else { b }),
            (a, b) => a.or(b),
        }
    }

    /// The longest prefix of the path. It is the last prefix not after the path in byte order, or an ancestor of that
    /// one: every text between a prefix and the path begins with that prefix.
    fn prefix(&self, path: &str, counts: impl Fn(&T) -> bool) -> Option<Found<'_, T>> {
        let mut next = self.prefixes.partition_point(|prefix| *prefix.text <= *path).checked_sub(1);
        while let Some(prefix) = next.and_then(|index| self.prefixes.get(index)) {
            if path.starts_with(&*prefix.text) && counts(&prefix.value) {
                return Some(Found { rank: Some(&prefix.rank), value: &prefix.value });
            }
            next = prefix.parent;
        }
        None
    }
}

fn with_parents<T>(sorted: BTreeMap<String, T>) -> Vec<Prefix<T>> {
    let mut prefixes: Vec<Prefix<T>> = Vec::with_capacity(sorted.len());
    for (text, value) in sorted {
        let mut parent = prefixes.len().checked_sub(1);
        while let Some(candidate) = parent.and_then(|index| prefixes.get(index)) {
            if text.starts_with(&*candidate.text) {
                break;
            }
            parent = candidate.parent;
        }
        let rank = Rank::of(&format!("{text}*"));
        prefixes.push(Prefix { text: text.into(), parent, rank, value });
    }
    prefixes
}
