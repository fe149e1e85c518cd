//! Control groups of rules: a controlled request runs only after members of groups have approved it.
//!
//! ```hcl
//! control_group {
//!   ttl = "4h"
//!   factor "managers" {
//!     controlled_capabilities = ["update"]
//!     identity { group_names = ["managers"] approvals = 2 }
//!   }
//! }
//! ```
//!
//! Sources: OpenBao's documentation, "Control groups", and Vault's page of the same name. The texts of errors are those of
//! OpenBao 2.7.2.

use std::time::Duration;

use keepfast_framework::fields::parse_duration;
use keepfast_hcl::{Body, Item, Value, ValueKind};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::grant::{Capabilities, Capability};
use super::parse::{Origin, PolicyError, after, list, no_repetition, string, word, wrong_kind};

/// The capabilities that a factor may control.
const CONTROLLABLE: [Capability; 7] = [
    Capability::Create,
    Capability::Update,
    Capability::Read,
    Capability::Delete,
    Capability::List,
    Capability::Patch,
    Capability::Scan,
];

/// The control group of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ControlGroup {
    /// How long a stored request waits for approvals.
    ttl: Option<Duration>,
    factors: Vec<ControlledFactor>,
}

/// A factor with the capabilities that it controls.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ControlledFactor {
    /// None for all.
    controlled: Option<Capabilities>,
    factor: Factor,
}

/// Who must approve a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Factor {
    /// Its name in the policy.
    pub(crate) name: String,
    /// The names of the groups whose members may approve.
    pub(crate) group_names: Vec<String>,
    /// The ids of further groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) group_ids: Vec<String>,
    /// The number of different members that must approve.
    pub(crate) approvals: u32,
    /// The seconds for which an approval counts; none for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ttl: Option<u64>,
    /// Whether the requester may approve too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) self_authorization: bool,
}

/// The approvals that a request needs, of all rules that decide on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequiredApprovals {
    /// The least TTL of the control groups.
    pub(crate) ttl: Option<Duration>,
    /// The factors, each of which must be satisfied.
    pub(crate) factors: Vec<Factor>,
}

impl RequiredApprovals {
    /// What a request with this capability needs; `None` when no factor controls it.
    pub(super) fn of<'g>(
        groups: impl IntoIterator<Item = &'g ControlGroup>,
        capability: Capability,
    ) -> Option<Box<RequiredApprovals>> {
        let mut required = RequiredApprovals { ttl: None, factors: Vec::new() };
        for group in groups {
            let controls = |factor: &&ControlledFactor| factor.controlled.is_none_or(|all| all.has(capability));
            let before = required.factors.len();
            required.factors.extend(group.factors.iter().filter(controls).map(|factor| factor.factor.clone()));
            if required.factors.len() > before {
                required.ttl = required.ttl.into_iter().chain(group.ttl).min();
            }
        }
        // In whatever order rules are united, and once if several policies have the same factor.
        required.factors.sort();
        required.factors.dedup();
        (!required.factors.is_empty()).then(|| Box::new(required))
    }
}

impl ControlGroup {
    /// The control group as explanations show it.
    pub(super) fn describe(&self) -> serde_json::Value {
        let factors = self.factors.iter().map(|ControlledFactor { controlled, factor }| {
            let mut shown = json!({ "name": factor.name, "identity": factor });
            if let Some(identity) = shown["identity"].as_object_mut() {
                identity.remove("name");
            }
            if let Some(controlled) = controlled {
                shown["controlled_capabilities"] = controlled.names().into();
            }
            shown
        });
        let factors: Vec<_> = factors.collect();
        json!({ "ttl": self.ttl.map(|ttl| ttl.as_secs()), "factors": factors })
    }
}

/// Reads the control group of a rule with these capabilities; none for the empty list of an old text.
pub(super) fn parse(item: &Item, granted: Capabilities, origin: Origin) -> Result<Option<ControlGroup>, PolicyError> {
    let value = &item.value;
    if origin == Origin::Stored && value.as_list().is_some_and(<[_]>::is_empty) {
        return Ok(None);
    }
    let body = value.as_object().ok_or_else(|| of_group(after(value.position, &unkeyed(value))))?;
    if let Some(error) = unknown_key(body, &["ttl", "factor"], "") {
        return Err(of_group(error));
    }
    no_repetition(body.items.iter().filter(|item| item.name() != "factor"))?;
    let ttl = body.get("ttl").map_or(Ok(None), |item| duration(&item.value, "path control_group: invalid ttl"));
    let ttl = ttl.map_err(of_group)?;
    let mut factors = Vec::new();
    for item in body.all("factor") {
        for (name, value) in named(item).map_err(of_factor)? {
            factors.push(factor(name, value).map_err(of_factor)?);
        }
    }
    if factors.is_empty() {
        return Err(of_group(after(value.position, "requires at least one factor but had none")));
    }
    let mut read = Vec::new();
    for (at, written) in factors.iter().enumerate() {
        read.push(written.read(at, granted, origin).map_err(of_group)?);
    }
    Ok(Some(ControlGroup { ttl, factors: read }))
}

/// A factor as written.
struct WrittenFactor<'v> {
    name: &'v str,
    value: &'v Value,
    controlled: Option<&'v Value>,
    factor: Factor,
}

impl WrittenFactor<'_> {
    /// The factor, if it can be satisfied and controls something that its rule grants.
    fn read(&self, at: usize, granted: Capabilities, origin: Origin) -> Result<ControlledFactor, PolicyError> {
        let fault = |text: &str| after(self.value.position, &format!("factor {at}: {text}"));
        let mut controlled = Capabilities::NONE;
        for value in self.controlled.map_or(Ok(&[][..]), list)? {
            let name = word(value)?;
            let capability = CONTROLLABLE.into_iter().find(|capability| capability.name() == name);
            let invalid = || after(value.position, &format!("path control_group Operation(s) not valid: {name}"));
            let capability = capability.ok_or_else(invalid)?;
            // A factor for what the path does not grant is probably an error for another capability, which no factor
            // then controls. Earlier texts are read as they are: it only adds approvals.
            if origin == Origin::Written && !granted.has(capability) {
                let text = format!("the controlled capability {name:?} is not one of the capabilities of the path");
                return Err(PolicyError {
                    check: NOT_GRANTED,
                    ..after(value.position, &format!("factor {at}: {text}"))
                });
            }
            controlled = controlled.with(capability);
        }
        if self.controlled.is_some() && controlled == Capabilities::NONE {
            return Err(fault("missing controlled capabilities"));
        }
        if self.factor.approvals == 0 {
            return Err(fault("missing required approvals"));
        }
        let mut groups = self.factor.group_names.iter().chain(&self.factor.group_ids).peekable();
        if groups.peek().is_none() || groups.any(String::is_empty) {
            return Err(fault("missing approving groups"));
        }
        let factor = Factor { name: self.name.to_owned(), ..self.factor.clone() };
        Ok(ControlledFactor { controlled: self.controlled.map(|_| controlled), factor })
    }
}

/// The check of `policy lint` for a controlled capability that the rule does not grant.
const NOT_GRANTED: &str = "control_group_capability";

/// The factors of one item: a block with a label, or an object of factors by name, as JSON has them.
fn named(item: &Item) -> Result<Vec<(&str, &Value)>, PolicyError> {
    if let [_, name] = item.keys.as_slice() {
        return Ok(vec![(name.name.as_str(), &item.value)]);
    }
    let fault = |value: &Value, text: &str| after(value.position, &format!("path control_group factor: {text}"));
    let mut factors = Vec::new();
    for value in item.value.as_list().unwrap_or(std::slice::from_ref(&item.value)) {
        let body = value.as_object().ok_or_else(|| fault(value, &unkeyed(value)))?;
        no_repetition(&body.items)?;
        factors.extend(body.items.iter().map(|item| (item.name(), &item.value)));
    }
    match factors.is_empty() {
        true => Err(fault(&item.value, "require name key")),
        false => Ok(factors),
    }
}

fn factor<'v>(name: &'v str, value: &'v Value) -> Result<WrittenFactor<'v>, PolicyError> {
    let body = value.as_object().ok_or_else(|| wrong_kind(value, "an object"))?;
    check(body, &["controlled_capabilities", "identity"])?;
    let mut factor = Factor {
        name: String::new(),
        group_names: Vec::new(),
        group_ids: Vec::new(),
        approvals: 0,
        ttl: None,
        self_authorization: false,
    };
    if let Some(item) = body.get("identity") {
        identity(&item.value, &mut factor)?;
    }
    let controlled = body.get("controlled_capabilities").map(|item| &item.value);
    if let Some(value) = controlled {
        list(value)?;
    }
    Ok(WrittenFactor { name, value, controlled, factor })
}

fn identity(value: &Value, factor: &mut Factor) -> Result<(), PolicyError> {
    let value = match value.as_list() {
        Some([single]) => single,
        _ => value,
    };
    let body = value.as_object().ok_or_else(|| wrong_kind(value, "an object"))?;
    check(body, &["group_names", "group_ids", "approvals", "ttl", "self_authorization"])?;
    let texts = |value: &Value| -> Result<Vec<String>, PolicyError> {
        list(value)?.iter().map(|text| string(text).map(str::to_owned)).collect()
    };
    for item in &body.items {
        let value = &item.value;
        match item.name() {
            "group_names" => factor.group_names = texts(value)?,
            "group_ids" => factor.group_ids = texts(value)?,
            "approvals" => factor.approvals = approvals(value)?,
            "ttl" => factor.ttl = duration(value, "path control_group factor: invalid ttl")?.map(|ttl| ttl.as_secs()),
            _ => match value.kind {
                ValueKind::Bool(allowed) => factor.self_authorization = allowed,
                _ => return Err(wrong_kind(value, "a boolean")),
            },
        }
    }
    Ok(())
}

/// A number of approvals; zero for one that is negative.
fn approvals(value: &Value) -> Result<u32, PolicyError> {
    let number = match &value.kind {
        ValueKind::Integer(number) => Some(*number),
        ValueKind::String(text) => text.parse().ok(),
        _ => None,
    };
    let number = number.ok_or_else(|| wrong_kind(value, "a number"))?;
    u32::try_from(number.max(0)).map_err(|_| wrong_kind(value, "a smaller number"))
}

/// A duration; none for zero and the empty text.
fn duration(value: &Value, of: &str) -> Result<Option<Duration>, PolicyError> {
    let fault = |text: &str| after(value.position, &format!("{of}: {text}"));
    let seconds = match &value.kind {
        ValueKind::Integer(seconds) => *seconds,
        ValueKind::String(text) => parse_duration(text).map_err(|text| fault(&text))?,
        _ => return Err(fault("could not parse duration from input")),
    };
    let seconds = u64::try_from(seconds).map_err(|_| fault("must not be negative"))?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

fn check(body: &Body, known: &[&str]) -> Result<(), PolicyError> {
    if let Some(error) = unknown_key(body, known, "path control_group factor: ") {
        return Err(error);
    }
    if let Some(item) = body.items.iter().find(|item| item.keys.len() > 1) {
        return Err(after(item.position(), "path control_group factor: unexpected label"));
    }
    no_repetition(&body.items)
}

/// The error of the first unknown key.
fn unknown_key(body: &Body, known: &[&str], of: &str) -> Option<PolicyError> {
    let item = body.items.iter().find(|item| !known.contains(&item.name()))?;
    let position = item.position();
    Some(after(position, &format!("{of}invalid key {:?} on line {}", item.name(), position.line)))
}

/// OpenBao's text for a value without keys.
fn unkeyed(value: &Value) -> String {
    let kind = if value.as_list().is_some() { "ListType" } else { "LiteralType" };
    format!("cannot check HCL keys of type *ast.{kind}")
}

/// The error in the frame that OpenBao writes around an error of a control group.
fn of_group(error: PolicyError) -> PolicyError {
    let message = format!("error handling control_group: 1 error occurred:\n\t* {}\n\n", error.message);
    PolicyError { message, ..error }
}

/// The same for an error of a factor.
fn of_factor(error: PolicyError) -> PolicyError {
    let message = format!("error handling control_group factor: 1 error occurred:\n\t* {}\n\n", error.message);
    of_group(PolicyError { message, ..error })
}
