//! The reference evaluator: a second, plain implementation of the rules of precedence. It tests every rule, sorts the
//! matches, and keeps where each rule comes from. Tests compare the fast one with it; explanations show its steps.

use std::borrow::Cow;

use keepfast_framework::{Operation, Timestamp};

use super::Policy;
use super::acl::{AclRequest, Decision, Unsatisfied, needed};
use super::grant::{Capability, Grant};
use super::parse::PathRule;
use super::template::{Rendered, Subject};

/// A rule for one subject.
pub(crate) struct Candidate<'a> {
    /// Its policy.
    pub(crate) policy: &'a Policy,
    /// The rule as written.
    pub(crate) rule: &'a PathRule,
    /// Its path with the values of the subject, without a leading slash.
    pub(crate) path: String,
    /// Its grant: a denial where a value of the subject is no literal.
    pub(crate) grant: Cow<'a, Grant>,
    /// The end of its validity.
    until: Option<Timestamp>,
}

impl Candidate<'_> {
    /// Whether it applies at this time.
    pub(crate) fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// The rules of policies for a subject, in their order. Rules whose values the subject does not have are left out.
pub(crate) fn candidates<'a>(policies: impl IntoIterator<Item = &'a Policy>, subject: &Subject) -> Vec<Candidate<'a>> {
    let all = policies.into_iter().flat_map(|policy| policy.paths.iter().map(move |rule| (policy, rule)));
    let candidate = |(policy, rule): (&'a Policy, &'a PathRule)| {
        let (path, grant) = match rule.template.render(subject, policy.templates) {
            Rendered::Path(path) => (path, Cow::Borrowed(&rule.grant)),
            Rendered::Forbidden(head) => (format!("{head}*"), Cow::Owned(Grant::deny())),
            Rendered::Absent => return None,
        };
        let path = path.strip_prefix('/').map(str::to_owned).unwrap_or(path);
        let until = policy.expiration.into_iter().chain(rule.expiration).min();
        Some(Candidate { policy, rule, path, grant, until })
    };
    all.filter_map(candidate).collect()
}

/// The rules for the path that has precedence, and the more specific denial that overrules them.
pub(crate) struct Deciding<'c, 'a> {
    /// The rules, which decide together.
    pub(crate) rules: Vec<&'c Candidate<'a>>,
    /// The denial.
    pub(crate) veto: Option<&'c Candidate<'a>>,
}

/// The rules that decide on a path; none when no rule matches. It follows the documentation of the module `policy`.
pub(crate) fn deciding<'c, 'a>(
    candidates: &'c [Candidate<'a>],
    path: &str,
    list: bool,
    now: Timestamp,
) -> Option<Deciding<'c, 'a>> {
    let rules: Vec<_> = candidates.iter().filter(|candidate| candidate.holds(now)).collect();
    let bare = if list { path.strip_suffix('/') } else { None };
    let best = |path: &str, exact: bool| {
        let patterns = rules.iter().map(|rule| rule.path.as_str());
        patterns
            .filter(|pattern| is_exact(pattern) == exact && matches(pattern, path))
            .max_by_key(|pattern| rank(pattern))
    };
    let order = [(Some(path), true), (bare, true), (Some(path), false), (bare, false)];
    let decides = order.iter().find_map(|(path, exact)| best((*path)?, *exact))?;
    let theirs = rank(decides);
    let folded = [Some(path), bare].map(|path| path.map(fold));
    let vetoes = |denial: &Candidate<'_>| {
        if !denial.grant.is_deny() {
            return false;
        }
        let ours = rank(&denial.path);
        let more =
            is_exact(&denial.path) || (ours.0, ours.1, ours.2, ours.3) > (theirs.0, theirs.1, theirs.2, theirs.3);
        let pattern = fold(&denial.path);
        more && folded.iter().flatten().any(|path| matches(&pattern, path))
    };
    let veto = if is_exact(decides) { None } else { rules.iter().copied().find(|rule| vetoes(rule)) };
    Some(Deciding { rules: rules.iter().copied().filter(|rule| rule.path == decides).collect(), veto })
}

/// What decided on a request.
pub(crate) enum Cause<'c, 'a> {
    /// The rules grant the request.
    Granted,
    /// The operation is help, which needs no rule.
    Help,
    /// The operation is one that no policy grants.
    Ungrantable,
    /// No rule matches the path.
    NoRule,
    /// A rule for the path denies.
    Deny,
    /// A more specific rule denies.
    Veto(&'c Candidate<'a>),
    /// The rules lack the capability.
    Missing(Capability),
    /// The request does not satisfy a condition of the rules.
    Unsatisfied(Unsatisfied),
}

/// The decision on a request with the rules that decided.
pub(crate) struct Evaluation<'c, 'a> {
    /// The decision.
    pub(crate) decision: Decision,
    /// The rules for the path that has precedence.
    pub(crate) rules: Vec<&'c Candidate<'a>>,
    /// What decided.
    pub(crate) cause: Cause<'c, 'a>,
}

/// Decides on a request.
pub(crate) fn decide<'c, 'a>(candidates: &'c [Candidate<'a>], request: &AclRequest<'_>) -> Evaluation<'c, 'a> {
    let is_help = request.operation == Operation::Help;
    let refused = |rules, cause| Evaluation {
        decision: Decision { allowed: is_help, ..Decision::default() },
        rules,
        cause: if is_help { Cause::Help } else { cause },
    };
    let list = request.operation.lists();
    let path = policy_path(request.path, list);
    let Some(Deciding { rules, veto }) = deciding(candidates, &path, list, request.now) else {
        return refused(Vec::new(), Cause::NoRule);
    };
    if rules.iter().any(|rule| rule.grant.is_deny()) {
        return refused(rules, Cause::Deny);
    }
    if let Some(veto) = veto {
        return refused(rules, Cause::Veto(veto));
    }
    let Some(needed) = needed(request.operation, request.creates) else {
        return refused(rules, Cause::Ungrantable);
    };
    let mut grant = Grant::default();
    rules.iter().for_each(|rule| grant.unite(&rule.grant));
    let sudo = grant.capabilities.has(Capability::Sudo);
    let mut decision = Decision { sudo, ..Decision::default() };
    if !grant.capabilities.has(needed) {
        return Evaluation { decision, rules, cause: Cause::Missing(needed) };
    }
    let unsatisfied = grant.conditions.and_then(|conditions| conditions.apply(request, &mut decision));
    decision.allowed = unsatisfied.is_none();
    Evaluation { decision, rules, cause: unsatisfied.map_or(Cause::Granted, Cause::Unsatisfied) }
}

/// The path that rules are compared with: that of a list ends in a slash.
pub(crate) fn policy_path(path: &str, list: bool) -> Cow<'_, str> {
    if list && !path.ends_with('/') { Cow::Owned(format!("{path}/")) } else { Cow::Borrowed(path) }
}

/// Whether a pattern has no wildcard.
pub(crate) fn is_exact(pattern: &str) -> bool {
    !pattern.ends_with('*') && !pattern.split('/').any(|segment| segment == "+")
}

/// Whether a pattern matches a path.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern, path);
    loop {
        match (pattern.split_once('/'), path.split_once('/')) {
            (None, rest) => {
                return match pattern.strip_suffix('*') {
                    Some(prefix) => path.starts_with(prefix),
                    None => rest.is_none() && (pattern == "+" || pattern == path),
                };
            }
            (Some((first, pattern_rest)), Some((segment, path_rest))) if first == "+" || first == segment => {
                (pattern, path) = (pattern_rest, path_rest);
            }
            _ => return false,
        }
    }
}

/// The text without differences of case.
fn fold(text: &str) -> String {
    text.to_uppercase().to_lowercase()
}

/// First wildcard, not ending in `*`, fewer `+`, length, bytes.
pub(crate) fn rank(pattern: &str) -> (usize, bool, std::cmp::Reverse<usize>, usize, &str) {
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
