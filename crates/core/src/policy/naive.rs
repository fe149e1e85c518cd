//! A second, plain implementation of the rules of precedence, to compare with the fast one.

use super::Policy;
use super::grant::Capability;
use super::parse::PathRule;

/// The rules that decide on a path together; none when no rule matches or a denial covers it. It follows the
/// documentation of the module: it tests every rule and sorts the matches.
pub(crate) fn deciding<'a>(policies: &'a [Policy], path: &str, list: bool) -> Option<Vec<&'a PathRule>> {
    let rules: Vec<_> = policies.iter().flat_map(|policy| &policy.paths).collect();
    let bare = if list { path.strip_suffix('/') } else { None };
    let best = |path: &str, exact: bool| {
        let patterns = rules.iter().map(|rule| rule.path.as_str());
        patterns
            .filter(|pattern| is_exact(pattern) == exact && matches(pattern, path))
            .max_by_key(|pattern| rank(pattern))
    };
    let order = [(Some(path), true), (bare, true), (Some(path), false), (bare, false)];
    let decides = order.iter().find_map(|(path, exact)| best((*path)?, *exact))?;
    let fold = |text: &str| text.to_uppercase().to_lowercase();
    let vetoes = |denial: &PathRule| {
        let (ours, theirs) = (rank(&denial.path), rank(decides));
        let more =
            is_exact(&denial.path) || (ours.0, ours.1, ours.2, ours.3) > (theirs.0, theirs.1, theirs.2, theirs.3);
        let covers = |path: &str| matches(&fold(&denial.path), &fold(path));
        denial.grant.is_deny() && more && (covers(path) || bare.is_some_and(covers))
    };
    let vetoed = !is_exact(decides) && rules.iter().any(|rule| vetoes(rule));
    let same: Vec<_> = rules.iter().copied().filter(|rule| rule.path == decides).collect();
    (!vetoed && !same.iter().any(|rule| rule.grant.is_deny())).then_some(same)
}

/// The response of `sys/capabilities`.
pub(crate) fn capabilities(policies: &[Policy], path: &str) -> Vec<&'static str> {
    let rules = deciding(policies, path, true).unwrap_or_default();
    let has = |capability: &Capability| rules.iter().any(|rule| rule.grant.capabilities.has(*capability));
    let names: Vec<_> = Capability::ALL.into_iter().filter(has).map(Capability::name).collect();
    if names.is_empty() { vec!["deny"] } else { names }
}

fn is_exact(pattern: &str) -> bool {
    !pattern.ends_with('*') && !pattern.split('/').any(|segment| segment == "+")
}

// recursion: bounded by the segments of a pattern that a test writes
fn matches(pattern: &str, path: &str) -> bool {
    match (pattern.split_once('/'), path.split_once('/')) {
        (None, _) if pattern.ends_with('*') => path.starts_with(&pattern[..pattern.len() - 1]),
        (None, None) => pattern == "+" || pattern == path,
        (Some((first, pattern)), Some((segment, path))) => (first == "+" || first == segment) && matches(pattern, path),
        _ => false,
    }
}

/// First wildcard, not ending in `*`, fewer `+`, length, bytes.
fn rank(pattern: &str) -> (usize, bool, std::cmp::Reverse<usize>, usize, &str) {
    let mut places = Vec::new();
    let mut at = 0;
    for segment in pattern.split('/') {
        if segment == "+" {
            places.push(at);
        }
        at += segment.len() + 1;
    }
    let star = pattern.ends_with('*').then(|| pattern.len() - 1);
    let first = places.first().copied().into_iter().chain(star).min().unwrap_or(usize::MAX);
    (first, star.is_none(), std::cmp::Reverse(places.len()), pattern.len(), pattern)
}
