//! The compiled policies of a caller, and the decision on a request.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::rows::OperationInfo;
use keepfast_framework::{Operation, Timestamp};
use serde_json::{Map, Value, json};

use super::control_group::RequiredApprovals;
use super::grant::{Capabilities, Capability, Conditions, Grant};
use super::list_filter::KeysFilter;
use super::parameters::{Constraints, Parameters, Refusal};
use super::parse::{PathRule, Policy};
use super::pattern::{Pattern, Rank, fold, is_folded};
use super::pattern_table::{Found, Table};
use super::template::{Rendered, Subject};

/// What a caller may do.
#[derive(Debug)]
pub(crate) enum Acl {
    /// All capabilities. Only a root token has it; no policy text or name leads here.
    Root,
    /// What policies grant.
    Rules(Box<Rules>),
}

/// Compiled rules.
#[derive(Debug)]
pub(crate) struct Rules {
    grants: Table<Entry>,
    /// The rules that deny, case-folded.
    denials: Table<Expiry>,
}

/// The parts of a request that policies use.
pub(crate) struct AclRequest<'a> {
    /// The canonical path, relative to the namespace of the policies.
    pub(crate) path: &'a str,
    /// The operation.
    pub(crate) operation: Operation,
    /// For [`Operation::Update`]: whether it creates the resource.
    pub(crate) creates: bool,
    /// Returns the fields of the body or the query; called only if a rule constrains them. None when they cannot be
    /// read, which denies the request.
    pub(crate) parameters: &'a dyn Fn() -> Option<Parameters>,
    /// The declaration of the operation with its parameters; none without a route.
    pub(crate) declared: Option<&'a OperationInfo>,
    /// The wrap TTL that the client requests; zero counts as none.
    pub(crate) wrap_ttl: Option<Duration>,
    /// The current time, for rules that expire.
    pub(crate) now: Timestamp,
}

/// The decision on a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Decision {
    /// Whether the policies allow the request.
    pub(crate) allowed: bool,
    /// Whether the caller has `sudo` on the path, which protected routes require in addition.
    pub(crate) sudo: bool,
    /// Whether the caller is root.
    pub(crate) root: bool,
    /// For lists: the most names in the response; the requested limit or that of the policy.
    pub(crate) limit: Option<u64>,
    /// For lists: filters of the names in the response, see [`Acl::lists_name`].
    pub(crate) keys_filters: Vec<Arc<KeysFilter>>,
    /// The approvals without which the allowed request does not run.
    pub(crate) required: Option<Box<RequiredApprovals>>,
}

/// A condition of a grant that a request does not satisfy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unsatisfied {
    /// The requested wrap TTL is outside of the bounds.
    WrapTtl,
    /// The parameters cannot be read.
    Unreadable,
    /// A parameter.
    Parameter(Refusal),
    /// The requested page is larger than allowed.
    PageSize,
}

/// The rules for one path.
#[derive(Debug, Default)]
struct Entry {
    lasting: Option<Grant>,
    expiring: Vec<(Timestamp, Grant)>,
    sources: Vec<Source>,
}

/// The grant of one policy, for audit entries.
#[derive(Debug)]
struct Source {
    policy: Arc<str>,
    capabilities: Capabilities,
    until: Expiry,
}

/// The end of the validity of a rule; `None` for no end.
type Expiry = Option<Timestamp>;

impl Acl {
    /// Compiles the policies of a caller; `subject` has the values of templates.
    pub(crate) fn compile<'a>(policies: impl IntoIterator<Item = &'a Policy>, subject: &Subject) -> Self {
        let rules: Vec<_> = policies
            .into_iter()
            .flat_map(|policy| {
                let name: Arc<str> = policy.name.as_str().into();
                let rules = policy.paths.iter().filter_map(|rule| compile(policy, rule, subject));
                rules.map(move |(pattern, until, grant)| (pattern, until, grant, name.clone()))
            })
            .collect();
        let denials = rules.iter().filter(|(_, _, grant, _)| grant.is_deny());
        let denials = Table::new(denials.map(|(pattern, until, ..)| (pattern.folded(), *until)), |ours, theirs| {
            *ours = ours.zip(theirs).map(|(a, b)| a.max(b));
        });
        let grants = Table::new(
            rules.into_iter().map(|(pattern, until, grant, policy)| (pattern, Entry::new(until, grant, policy))),
            Entry::unite,
        );
        Self::Rules(Box::new(Rules { grants, denials }))
    }

    /// Decides on a request.
    pub(crate) fn allow(&self, request: &AclRequest<'_>) -> Decision {
        match self {
            Self::Root => Decision { allowed: true, sudo: true, root: true, ..Decision::default() },
            Self::Rules(rules) => rules.allow(request),
        }
    }

    /// The names of the policies that grant an allowed operation, sorted: those that add the capability to the deciding
    /// rule.
    pub(crate) fn granting(&self, path: &str, operation: Operation, creates: bool, now: Timestamp) -> Vec<Arc<str>> {
        let Self::Rules(rules) = self else { return vec![super::builtin::ROOT.into()] };
        let Some(needed) = needed(operation, creates) else { return Vec::new() };
        let list = operation.lists();
        let path = if list && !path.ends_with('/') { Cow::Owned(format!("{path}/")) } else { Cow::Borrowed(path) };
        let Some(found) = rules.grants.find(&path, list, |entry| entry.holds(now)) else { return Vec::new() };
        let holds = |source: &&Source| source.until.is_none_or(|until| now < until) && source.capabilities.has(needed);
        let mut names: Vec<Arc<str>> =
            found.value.sources.iter().filter(holds).map(|source| source.policy.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The capabilities of the caller on a path, in the terms and the order of `sys/capabilities`.
    pub(crate) fn capabilities(&self, path: &str, now: Timestamp) -> Vec<&'static str> {
        match self {
            Self::Root => vec![super::builtin::ROOT],
            Self::Rules(rules) => {
                rules.grant(path, true, now).map_or(Capabilities::NONE, |grant| grant.capabilities).names()
            }
        }
    }

    /// Whether a rule denies every operation on a path in any letter case, and not merely no rule allows one.
    pub(crate) fn denies(&self, path: &str, now: Timestamp) -> bool {
        match self {
            Self::Root => false,
            Self::Rules(rules) => rules.denies(path, now),
        }
    }

    /// The constraints on parameters that the deciding rule has.
    pub(super) fn constraints(&self, path: &str, list: bool, now: Timestamp) -> Option<Constraints> {
        let Self::Rules(rules) = self else { return None };
        let grant = rules.grant(path, list, now)?;
        grant.conditions.as_ref().map(|conditions| conditions.parameters.clone())
    }

    /// The whole ACL as the response of `sys/internal/ui/resultant-acl`: paths with their grants; those of `glob_paths`
    /// are prefixes. Paths with `+` are left out, as on OpenBao.
    pub(crate) fn resultant(&self, namespace: &str, now: Timestamp) -> Value {
        let Self::Rules(rules) = self else { return json!({ "root": true }) };
        let shown = |(path, entry): (&str, &Entry)| {
            entry.holds(now).then(|| (format!("{namespace}{path}"), entry.at(now).describe()))
        };
        let exact: Map<_, _> = rules.grants.exact_paths().filter_map(shown).collect();
        let globs: Map<_, _> = rules.grants.prefixes().filter_map(shown).collect();
        json!({ "exact_paths": exact, "glob_paths": globs, "root": false })
    }

    /// Whether the caller has a capability on `folder` (ending in `/`) or below it, so that a mount there is visible.
    pub(crate) fn reaches(&self, folder: &str, now: Timestamp) -> bool {
        match self {
            Self::Root => true,
            Self::Rules(rules) => rules.grants.touches(folder, |entry| entry.holds(now) && !entry.at(now).is_deny()),
        }
    }

    /// Whether a list of `path` that `decision` allowed may include a name.
    pub(crate) fn lists_name(&self, decision: &Decision, path: &str, key: &str, now: Timestamp) -> bool {
        let Self::Rules(rules) = self else { return true };
        let needed = if key.ends_with('/') { Capability::List } else { Capability::Read };
        decision.keys_filters.iter().all(|filter| {
            // No caller may read a path that is too long.
            let Ok(path) = filter.render(path, key) else { return false };
            rules.grant(&path, needed == Capability::List, now).is_some_and(|grant| grant.capabilities.has(needed))
        })
    }
}

impl Rules {
    fn allow(&self, request: &AclRequest<'_>) -> Decision {
        let list = request.operation.lists();
        let path = if list && !request.path.ends_with('/') {
            Cow::Owned(format!("{}/", request.path))
        } else {
            Cow::Borrowed(request.path)
        };
        let Some(grant) = self.grant(&path, list, request.now) else {
            return Decision { allowed: request.operation == Operation::Help, ..Decision::default() };
        };
        let Some(needed) = needed(request.operation, request.creates) else {
            // Help describes a path and not its data: every accepted token may read it, as on OpenBao.
            return Decision { allowed: request.operation == Operation::Help, ..Decision::default() };
        };
        let sudo = grant.capabilities.has(Capability::Sudo);
        let mut decision = Decision { allowed: grant.capabilities.has(needed), sudo, ..Decision::default() };
        if let Some(conditions) = grant.conditions.as_deref().filter(|_| decision.allowed) {
            decision.allowed = conditions.apply(request, &mut decision).is_none();
        }
        decision
    }

    /// The grant of the deciding rules; none when no rule matches or a denial covers the path.
    fn grant(&self, path: &str, list: bool, now: Timestamp) -> Option<Cow<'_, Grant>> {
        let found = self.grants.find(path, list, |entry| entry.holds(now))?;
        let grant = found.value.at(now);
        if grant.is_deny() || self.denied(path, list, found.rank, now) {
            return None;
        }
        Some(grant)
    }

    fn denies(&self, path: &str, now: Timestamp) -> bool {
        match self.grants.find(path, true, |entry| entry.holds(now)) {
            Some(_) => self.grant(path, true, now).is_none(),
            // A denial of another spelling of the path.
            None => {
                let folded = fold(path);
                let holds = |until: &Expiry| until.is_none_or(|until| now < until);
                self.denials.find(&folded, true, holds).is_some()
            }
        }
    }

    /// Whether a denial more specific than `rank` covers the path in any letter case.
    fn denied(&self, path: &str, list: bool, rank: Option<&Rank>, now: Timestamp) -> bool {
        // No pattern is more specific than an exact rule.
        let Some(rank) = rank.filter(|_| !self.denials.is_empty()) else { return false };
        let path = if is_folded(path) { Cow::Borrowed(path) } else { Cow::Owned(fold(path)) };
        let holds = |until: &Expiry| until.is_none_or(|until| now < until);
        let covers = |path: &str| {
            let more = |found: Found<'_, _>| found.rank.is_some_and(|denial| denial.cmp_form(rank).is_gt());
            self.denials.exact(path, holds).is_some() || self.denials.wild(path, holds).is_some_and(more)
        };
        covers(&path) || list && path.strip_suffix('/').is_some_and(covers)
    }
}

impl Conditions {
    /// The condition that a request does not satisfy; sets the bounds of a list.
    pub(super) fn apply(&self, request: &AclRequest<'_>, decision: &mut Decision) -> Option<Unsatisfied> {
        let wrap_ttl = request.wrap_ttl.filter(|ttl| !ttl.is_zero());
        let is_wrapped = self.min_wrapping_ttl.is_none_or(|min| wrap_ttl.is_some_and(|ttl| ttl >= min))
            && self.max_wrapping_ttl.is_none_or(|max| wrap_ttl.is_some_and(|ttl| ttl <= max));
        let mut unsatisfied = (!is_wrapped).then_some(Unsatisfied::WrapTtl);
        match request.operation {
            Operation::Read | Operation::Update | Operation::Patch if !self.parameters.is_empty() => {
                let refusal = match (request.parameters)() {
                    Some(given) => self.parameters.refusal(&given, request.declared).map(Unsatisfied::Parameter),
                    None => Some(Unsatisfied::Unreadable),
                };
                unsatisfied = unsatisfied.or(refusal);
            }
            Operation::List | Operation::Scan => {
                if let Some(most) = self.pagination_limit {
                    decision.limit = (request.parameters)().and_then(|given| page_size(&given, most));
                    unsatisfied = unsatisfied.or_else(|| decision.limit.is_none().then_some(Unsatisfied::PageSize));
                }
                decision.keys_filters.clone_from(&self.keys_filters);
            }
            _ => {}
        }
        if unsatisfied.is_none() && !self.control_groups.is_empty() {
            let groups = self.control_groups.iter().map(Arc::as_ref);
            let capability = needed(request.operation, request.creates);
            decision.required = capability.and_then(|capability| RequiredApprovals::of(groups, capability));
        }
        unsatisfied
    }
}

/// The requested page size, or else `most`; none for a larger or an invalid size. Zero requests no limit, so `most`
/// applies.
fn page_size(parameters: &Parameters, most: u64) -> Option<u64> {
    let page_size =
        parameters.iter().filter(|(name, _)| name.eq_ignore_ascii_case("limit")).map(|(_, value)| match value {
            Value::Null => Some(0),
            Value::Number(number) => number.as_u64(),
            Value::String(text) if text.is_empty() => Some(0),
            Value::String(text) => text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?,
            _ => None,
        });
    let page_size = page_size.collect::<Option<Vec<u64>>>()?.into_iter().max().unwrap_or(0);
    match page_size {
        0 => Some(most),
        page_size => Some(page_size).filter(|page_size| *page_size <= most),
    }
}

/// The capability that an operation needs; `None` for help, which needs none, and for operations that no policy grants.
pub(super) fn needed(operation: Operation, creates: bool) -> Option<Capability> {
    Some(match operation {
        Operation::Read => Capability::Read,
        Operation::Update if creates => Capability::Create,
        Operation::Update => Capability::Update,
        Operation::Patch => Capability::Patch,
        Operation::Delete => Capability::Delete,
        Operation::List => Capability::List,
        Operation::Scan => Capability::Scan,
        Operation::Head | Operation::Help => return None,
    })
}

/// The operation that has this name in audit entries, and whether it creates the resource; none if no policy grants it.
pub(crate) fn operation_named(name: &str) -> Option<(Operation, bool)> {
    if name == Capability::Create.name() {
        return Some((Operation::Update, true));
    }
    let operation = Operation::ALL.into_iter().find(|operation| operation.name() == name)?;
    needed(operation, false).map(|_| (operation, false))
}

/// Compiles a rule for one subject.
fn compile(policy: &Policy, rule: &PathRule, subject: &Subject) -> Option<(Pattern, Expiry, Grant)> {
    let until = match (policy.expiration, rule.expiration) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    match rule.template.render(subject, policy.templates) {
        Rendered::Path(path) => Some((Pattern::new(&path), until, rule.grant.clone())),
        Rendered::Forbidden(head) => Some((Pattern::new(&format!("{head}*")), until, Grant::deny())),
        Rendered::Absent => None,
    }
}

impl Entry {
    fn new(until: Expiry, grant: Grant, policy: Arc<str>) -> Self {
        let sources = vec![Source { policy, capabilities: grant.capabilities, until }];
        match until {
            None => Self { lasting: Some(grant), expiring: Vec::new(), sources },
            Some(until) => Self { lasting: None, expiring: vec![(until, grant)], sources },
        }
    }

    fn unite(&mut self, other: Self) {
        match (&mut self.lasting, other.lasting) {
            (Some(ours), Some(theirs)) => ours.unite(&theirs),
            (none @ None, theirs) => *none = theirs,
            (Some(_), None) => {}
        }
        self.expiring.extend(other.expiring);
        self.sources.extend(other.sources);
    }

    fn holds(&self, now: Timestamp) -> bool {
        self.lasting.is_some() || self.expiring.iter().any(|(until, _)| now < *until)
    }

    /// The grant at a given time.
    fn at(&self, now: Timestamp) -> Cow<'_, Grant> {
        let mut grant = match &self.lasting {
            Some(grant) if self.expiring.is_empty() => return Cow::Borrowed(grant),
            lasting => lasting.clone().unwrap_or_default(),
        };
        for (_, expiring) in self.expiring.iter().filter(|(until, _)| now < *until) {
            grant.unite(expiring);
        }
        Cow::Owned(grant)
    }
}
