//! Explains a decision: the rules that decided, with their places in the texts, and the rules that came close.
//!
//! An [`Explanation`] depends on the policies that its reader may read and on the decision, and on nothing else: a rule
//! of another policy shows only by its effect on the decision. So two servers that differ only in what the reader may
//! not read explain in equal words.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use keepfast_framework::Operation;
use keepfast_framework::routes::Access;
use serde::Serialize;
use serde_json::{Map, Value};

use super::acl::{AclRequest, Decision, Unsatisfied, needed};
use super::grant::Capability;
use super::naive::{self, Candidate, Cause, Evaluation};
use super::parameters::Refusal;
use super::pattern::fold;
use super::template::Subject;
use super::{Acl, Policy};

/// The most rules in each list of an explanation.
const MOST_RULES: usize = 20;
/// The most leading segments of a path before which a missing or an additional `data/` is looked for.
const MOST_SEGMENTS: usize = 8;

/// What the reader of an explanation may know of the route of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KnownRoute {
    /// The reader may not read the mounts.
    Hidden,
    /// There is no mount.
    Absent,
    /// The access rule of the path.
    Access(Access),
}

/// A request to explain.
pub(crate) struct Question<'q> {
    /// The policies of the subject that the reader may read.
    pub(crate) readable: &'q [Arc<Policy>],
    /// Whether the subject has other policies.
    pub(crate) has_hidden: bool,
    /// The ACL of all policies.
    pub(crate) acl: &'q Acl,
    /// The values of templates.
    pub(crate) subject: &'q Subject,
    /// The request.
    pub(crate) request: AclRequest<'q>,
    /// The route of its path.
    pub(crate) route: KnownRoute,
}

/// Why a request is allowed or denied.
#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    /// Whether it is allowed.
    pub(crate) allowed: bool,
    /// What decided, as a word for programs.
    pub(crate) cause: &'static str,
    /// The same as a sentence.
    pub(crate) explanation: String,
    /// The path.
    pub(crate) path: String,
    /// The operation.
    pub(crate) operation: &'static str,
    /// The capability that the operation needs.
    pub(crate) capability: Option<&'static str>,
    /// Whether the subject has `sudo` on the path.
    pub(crate) sudo: bool,
    /// Whether the path requires it; null where the reader may not know.
    pub(crate) sudo_required: Option<bool>,
    /// The parameter that is refused.
    pub(crate) parameter: Option<String>,
    /// The rules that decided.
    pub(crate) rules: Vec<Value>,
    /// Rules that came close, each with the reason why it did not decide.
    pub(crate) near: Vec<Value>,
    /// Whether there are more rules than the lists have.
    pub(crate) truncated: bool,
    /// What else the reader should know.
    pub(crate) notes: Vec<&'static str>,
}

/// The cause of a decision for its reader, with the rules to show.
struct CauseResponse<'c, 'a> {
    cause: &'static str,
    explanation: String,
    parameter: Option<String>,
    rules: Vec<&'c Candidate<'a>>,
    /// Whether rules that came close help.
    has_near: bool,
}

/// Explains the decision on a request.
pub(crate) fn explain(question: &Question<'_>) -> Explanation {
    let Question { request, route, .. } = question;
    let decision = question.acl.allow(request);
    let candidates = naive::candidates(question.readable.iter().map(Arc::as_ref), question.subject);
    let evaluation = naive::decide(&candidates, request);
    let is_open = *route == KnownRoute::Access(Access::Unauthenticated);
    let sudo_required = match route {
        KnownRoute::Hidden => None,
        KnownRoute::Absent => Some(false),
        KnownRoute::Access(access) => Some(*access == Access::Sudo),
    };
    let lacks_sudo = sudo_required == Some(true) && !decision.sudo;
    let allowed = is_open || decision.allowed && !lacks_sudo;
    let shown = cause(question, &decision, evaluation, sudo_required);
    let near = if shown.has_near { near(&candidates, &shown.rules, request, allowed) } else { Vec::new() };
    let truncated = shown.rules.len() > MOST_RULES || near.len() > MOST_RULES;
    let near = near.into_iter().take(MOST_RULES).map(|(reason, rule)| {
        let mut response = Map::from_iter([("reason".to_owned(), Value::from(reason))]);
        response.append(&mut described(rule));
        Value::Object(response)
    });
    Explanation {
        allowed,
        cause: shown.cause,
        explanation: shown.explanation,
        path: request.path.to_owned(),
        operation: if request.creates { Capability::Create.name() } else { request.operation.name() },
        capability: needed(request.operation, request.creates).map(Capability::name),
        sudo: decision.sudo,
        sudo_required,
        parameter: shown.parameter,
        rules: shown.rules.iter().take(MOST_RULES).map(|rule| Value::Object(described(rule))).collect(),
        near: near.collect(),
        truncated,
        notes: notes(question, &decision),
    }
}

/// The decision of the reference evaluator for a caller without an identity.
#[cfg(feature = "test-support")]
pub(crate) fn reference_decision(policy: &Policy, request: &AclRequest<'_>) -> Decision {
    naive::decide(&naive::candidates([policy], &Subject::default()), request).decision
}

fn cause<'c, 'a>(
    question: &Question<'_>,
    decision: &Decision,
    evaluation: Evaluation<'c, 'a>,
    sudo_required: Option<bool>,
) -> CauseResponse<'c, 'a> {
    let bare = |cause, explanation: &str| CauseResponse {
        cause,
        explanation: explanation.to_owned(),
        parameter: None,
        rules: Vec::new(),
        has_near: false,
    };
    if question.route == KnownRoute::Access(Access::Unauthenticated) {
        return bare("unauthenticated", "the path needs no token, so no policy decides");
    }
    if decision.root {
        return bare("root", "the subject is a root token, which no policy limits");
    }
    let Evaluation { decision: reference, rules, cause } = evaluation;
    let is_same = reference.allowed == decision.allowed
        && (!decision.allowed || reference.required.is_some() == decision.required.is_some())
        && (sudo_required != Some(true) || reference.sudo == decision.sudo || !decision.allowed);
    if !is_same {
        return bare("hidden_policy", "a policy that you may not read decides");
    }
    if decision.allowed && sudo_required == Some(true) && !decision.sudo {
        let explanation = "the path requires the capability \"sudo\" too, which the rule does not grant".to_owned();
        return CauseResponse { cause: "missing_sudo", explanation, parameter: None, rules, has_near: true };
    }
    if decision.allowed && decision.required.is_some() {
        let explanation =
            "the rule grants it, and its control group requires approvals before the request runs".to_owned();
        return CauseResponse { cause: "control_group", explanation, parameter: None, rules, has_near: true };
    }
    let (name, explanation, parameter) = in_words(&cause);
    let rules = if let Cause::Veto(veto) = cause { vec![veto] } else { rules };
    CauseResponse { cause: name, explanation, parameter, rules, has_near: true }
}

/// A cause as a word and as a sentence, with the parameter that is refused.
fn in_words(cause: &Cause<'_, '_>) -> (&'static str, String, Option<String>) {
    let (name, text) = match cause {
        Cause::Granted => ("granted", "the rule grants it"),
        Cause::Help => ("help", "help needs no rule"),
        Cause::Ungrantable => ("ungrantable", "no policy grants this operation"),
        Cause::NoRule => ("no_rule", "no rule matches the path, and what no rule grants is denied"),
        Cause::Deny => ("deny", "a rule for the path denies it, whatever other rules for the same path grant"),
        Cause::Veto(_) => ("specific_deny", "a rule that denies is more specific than the one that grants"),
        Cause::Missing(needed) => {
            let text = format!("the rule for the path does not grant the capability {:?}", needed.name());
            return ("missing_capability", text, None);
        }
        Cause::Unsatisfied(Unsatisfied::WrapTtl) => {
            ("wrap_ttl", "the rule requires that the response is wrapped, with a TTL within its bounds")
        }
        Cause::Unsatisfied(Unsatisfied::Unreadable) => ("unreadable_parameters", "the parameters cannot be read"),
        Cause::Unsatisfied(Unsatisfied::PageSize) => ("page_size", "the rule allows smaller pages only"),
        Cause::Unsatisfied(Unsatisfied::Parameter(refusal)) => {
            let (name, text, parameter) = match refusal {
                Refusal::Required(name) => ("parameter_required", "the rule requires the parameter", name),
                Refusal::Denied(name) => ("parameter_denied", "the rule denies this value of the parameter", name),
                Refusal::NotAllowed(name) => {
                    ("parameter_not_allowed", "the rule does not allow the parameter with this value:", name)
                }
                Refusal::NoObject(name) => {
                    ("parameter_no_object", "the rule requires an object in the parameter", name)
                }
            };
            return (name, format!("{text} {name:?}", name = parameter.as_str()), Some(parameter.clone()));
        }
    };
    (name, text.to_owned(), None)
}

/// A rule with its place and its grant.
fn described(candidate: &Candidate<'_>) -> Map<String, Value> {
    let rule = candidate.rule;
    let mut response = Map::new();
    response.insert("policy".to_owned(), candidate.policy.name.as_str().into());
    response.insert("path".to_owned(), rule.path.as_str().into());
    if rule.template.is_templated() {
        response.insert("rendered_path".to_owned(), candidate.path.as_str().into());
    }
    response.insert("line".to_owned(), rule.position.line.into());
    response.insert("column".to_owned(), rule.position.column.into());
    if let Value::Object(grant) = candidate.grant.describe() {
        response.extend(grant);
    }
    let groups = candidate.grant.conditions.iter().flat_map(|conditions| &conditions.control_groups);
    if let Some(group) = groups.map(|group| group.describe()).next() {
        response.insert("control_group".to_owned(), group);
    }
    response
}

/// Rules that came close to deciding, the closest first, with the reason why they did not.
fn near<'c, 'a>(
    candidates: &'c [Candidate<'a>],
    decided: &[&'c Candidate<'a>],
    request: &AclRequest<'_>,
    allowed: bool,
) -> Vec<(&'static str, &'c Candidate<'a>)> {
    let list = request.operation.lists();
    let path = naive::policy_path(request.path, list);
    let variants = Variants::of(&path, list);
    // By address: two policies may have equal rules.
    let decided: HashSet<*const Candidate<'a>> = decided.iter().map(|rule| std::ptr::from_ref(*rule)).collect();
    let mut near: Vec<_> = candidates
        .iter()
        .filter(|candidate| !decided.contains(&std::ptr::from_ref(*candidate)))
        .filter_map(|candidate| Some((variants.distance(candidate, request, allowed)?, candidate)))
        .collect();
    near.sort_by_cached_key(|&((distance, _), candidate)| (distance, Reverse(naive::rank(&candidate.path))));
    near.into_iter().map(|((_, reason), candidate)| (reason, candidate)).collect()
}

/// A path and the paths that are easily taken for it.
struct Variants<'p> {
    path: &'p str,
    /// The path without its final slash, for a list.
    bare: Option<&'p str>,
    folded: String,
    /// With or without its final slash.
    slash: String,
    /// With `data/` inserted or removed at a segment.
    data: Vec<String>,
}

impl<'p> Variants<'p> {
    fn of(path: &'p str, list: bool) -> Self {
        let slash = path.strip_suffix('/').map_or_else(|| format!("{path}/"), str::to_owned);
        let cuts = path.match_indices('/').map(|(at, _)| at + 1).take(MOST_SEGMENTS);
        let data = cuts.map(|at| {
            let (mount, rest) = path.split_at(at);
            rest.strip_prefix("data/").map_or_else(|| format!("{mount}data/{rest}"), |rest| format!("{mount}{rest}"))
        });
        let bare = if list { path.strip_suffix('/') } else { None };
        Variants { path, bare, folded: fold(path), slash, data: data.collect() }
    }

    /// How far a rule is from deciding, and why it does not decide; none for a rule about other paths.
    fn distance(
        &self,
        candidate: &Candidate<'_>,
        request: &AclRequest<'_>,
        allowed: bool,
    ) -> Option<(u8, &'static str)> {
        let pattern = candidate.path.as_str();
        if naive::matches(pattern, self.path) || self.bare.is_some_and(|bare| naive::matches(pattern, bare)) {
            return Some(if candidate.holds(request.now) { (0, "less_specific") } else { (1, "expired") });
        }
        if allowed {
            return None;
        }
        if naive::matches(&fold(pattern), &self.folded) {
            return Some((2, "letter_case"));
        }
        if naive::matches(pattern, &self.slash) {
            return Some((3, "final_slash"));
        }
        if self.data.iter().any(|path| naive::matches(pattern, path)) {
            return Some((4, "kv_data_prefix"));
        }
        let below = pattern.strip_suffix('/').unwrap_or(pattern);
        let is_below = self.path.strip_prefix(below).is_some_and(|rest| rest.starts_with('/'));
        (naive::is_exact(pattern) && is_below).then_some((5, "no_final_wildcard"))
    }
}

fn notes(question: &Question<'_>, decision: &Decision) -> Vec<&'static str> {
    let mut notes = Vec::new();
    if decision.root {
        return notes;
    }
    if question.has_hidden {
        notes.push("the subject has a policy that you may not read; a rule of it may lead to the same decision");
    }
    match question.route {
        KnownRoute::Hidden => notes.push(
            "you may not read the mounts: whether the path requires sudo, and how its engine reads parameters, is left out",
        ),
        KnownRoute::Absent => notes.push("no mount is at the path: an allowed request fails with 404"),
        KnownRoute::Access(_) => {}
    }
    let request = &question.request;
    if request.operation == Operation::Update && !request.creates {
        let creating = question.acl.allow(&AclRequest { creates: true, ..*request });
        if creating.allowed != decision.allowed {
            notes.push(if creating.allowed {
                "a write that creates the resource is allowed: see the operation \"create\""
            } else {
                "a write that creates the resource is denied: see the operation \"create\""
            });
        }
    }
    notes
}
