//! The grant of a rule, and the union of grants for the same path.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::control_group::ControlGroup;
use super::list_filter::KeysFilter;
use super::parameters::Constraints;

/// One capability of a policy rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capability {
    /// Creates a resource that does not exist.
    Create,
    /// Delete.
    Delete,
    /// Denies every operation, whatever other rules for the path grant.
    Deny,
    /// Lists the names one level below.
    List,
    /// Merges into an existing resource.
    Patch,
    /// Read.
    Read,
    /// Lists the names at every level below.
    Scan,
    /// Uses protected paths, in addition to the capability of the operation.
    Sudo,
    /// Writes an existing resource.
    Update,
}

impl Capability {
    /// All capabilities in the order of `sys/capabilities`.
    pub(crate) const ALL: [Self; 9] = [
        Self::Create,
        Self::Delete,
        Self::Deny,
        Self::List,
        Self::Patch,
        Self::Read,
        Self::Scan,
        Self::Sudo,
        Self::Update,
    ];

    /// The name in policy texts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Deny => "deny",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Read => "read",
            Self::Scan => "scan",
            Self::Sudo => "sudo",
            Self::Update => "update",
        }
    }

    /// The capability of this name; names are in lower case.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|capability| capability.name() == name)
    }
}

/// A set of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capabilities(u16);

impl Capabilities {
    /// No capability.
    pub(crate) const NONE: Self = Self(0);
    /// `deny` alone.
    pub(crate) const DENY: Self = Self(1 << Capability::Deny as u16);

    /// This set with one more capability.
    #[must_use]
    pub(crate) fn with(self, capability: Capability) -> Self {
        Self(self.0 | 1 << capability as u16)
    }

    /// Whether the set has the capability.
    pub(crate) fn has(self, capability: Capability) -> bool {
        self.0 & 1 << capability as u16 != 0
    }

    /// The union of both sets; `deny` in either leaves only `deny`.
    #[must_use]
    pub(crate) fn united(self, other: Self) -> Self {
        let both = Self(self.0 | other.0);
        if both.has(Capability::Deny) { Self::DENY } else { both }
    }

    /// The names in the order of `sys/capabilities`; `deny` for the empty set.
    pub(crate) fn names(self) -> Vec<&'static str> {
        if self.0 == 0 || self.has(Capability::Deny) {
            return vec![Capability::Deny.name()];
        }
        Capability::ALL.into_iter().filter(|capability| self.has(*capability)).map(Capability::name).collect()
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(iter: I) -> Self {
        iter.into_iter().fold(Self::NONE, Self::with)
    }
}

/// The grant of a rule on its path.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Grant {
    /// The capabilities.
    pub(crate) capabilities: Capabilities,
    /// The conditions, if any.
    pub(crate) conditions: Option<Box<Conditions>>,
}

/// The conditions of a grant.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Conditions {
    /// Constraints on the parameters of the request.
    pub(crate) parameters: Constraints,
    /// The response must be wrapped for at least this long.
    pub(crate) min_wrapping_ttl: Option<Duration>,
    /// The response must be wrapped for at most this long.
    pub(crate) max_wrapping_ttl: Option<Duration>,
    /// The most names in one response of a list.
    pub(crate) pagination_limit: Option<u64>,
    /// A list includes only the names that pass all of these filters.
    pub(crate) keys_filters: Vec<Arc<KeysFilter>>,
    /// The request runs only after the approvals of all of these.
    pub(crate) control_groups: Vec<Arc<ControlGroup>>,
}

impl Grant {
    /// A rule that denies.
    pub(crate) fn deny() -> Self {
        Self { capabilities: Capabilities::DENY, conditions: None }
    }

    /// Whether it is an explicit `deny`.
    pub(crate) fn is_deny(&self) -> bool {
        self.capabilities.has(Capability::Deny)
    }

    /// The JSON of `sys/internal/ui/resultant-acl`, in OpenBao's shape.
    pub(crate) fn describe(&self) -> Value {
        let mut shown = Map::new();
        shown.insert("capabilities".to_owned(), self.capabilities.names().into());
        if let Some(conditions) = &self.conditions {
            let parameters = &conditions.parameters;
            let seconds = |ttl: &Option<Duration>| ttl.map(|ttl| json!(ttl.as_secs()));
            let set = |any: bool, value: Value| any.then_some(value);
            let shown_conditions = [
                ("allowed_parameters", set(!parameters.allowed.is_empty(), json!(parameters.allowed))),
                ("denied_parameters", set(!parameters.denied.is_empty(), json!(parameters.denied))),
                ("required_parameters", set(!parameters.required.is_empty(), json!(parameters.required))),
                ("min_wrapping_ttl", seconds(&conditions.min_wrapping_ttl)),
                ("max_wrapping_ttl", seconds(&conditions.max_wrapping_ttl)),
            ];
            for (name, value) in shown_conditions {
                shown.extend(value.map(|value| (name.to_owned(), value)));
            }
        }
        shown.into()
    }

    /// Unites with another rule for the same path.
    pub(crate) fn unite(&mut self, other: &Self) {
        self.capabilities = self.capabilities.united(other.capabilities);
        if self.is_deny() {
            self.conditions = None;
        } else if let Some(theirs) = &other.conditions {
            match &mut self.conditions {
                Some(ours) => ours.unite(theirs),
                none => *none = Some(theirs.clone()),
            }
        }
    }
}

impl Conditions {
    /// Whether there are no conditions.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn unite(&mut self, other: &Self) {
        self.parameters.unite(&other.parameters);
        self.min_wrapping_ttl = least(self.min_wrapping_ttl, other.min_wrapping_ttl);
        self.max_wrapping_ttl = least(self.max_wrapping_ttl, other.max_wrapping_ttl);
        self.pagination_limit = least(self.pagination_limit, other.pagination_limit);
        for filter in &other.keys_filters {
            if !self.keys_filters.contains(filter) {
                self.keys_filters.push(Arc::clone(filter));
            }
        }
        for group in &other.control_groups {
            if !self.control_groups.contains(group) {
                self.control_groups.push(Arc::clone(group));
            }
        }
    }
}

/// The lesser of the bounds that are present.
fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
