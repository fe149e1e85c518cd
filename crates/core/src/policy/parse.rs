//! Parses policy texts in HCL or JSON to rules; every error has its position.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::Timestamp;
use keepfast_framework::fields::parse_duration;
use keepfast_hcl::{Body, HclError, Item, Key, Position, Syntax, Value, ValueKind};
use serde_json::Value as Json;

use super::control_group;
use super::grant::{Capabilities, Capability, Conditions, Grant};
use super::list_filter::KeysFilter;
use super::template::{Template, TemplateOptions};

/// A parsed policy.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// The name under which the policy is stored.
    pub(crate) name: String,
    /// Its rules in source order.
    pub(crate) paths: Vec<PathRule>,
    /// The expiration of the whole policy, from its record: the text cannot contain it.
    pub(crate) expiration: Option<Timestamp>,
    /// The options of its templates, from its record.
    pub(crate) templates: TemplateOptions,
    /// Whether its stored text cannot be read: then a token with it has no capabilities, because the text may hold
    /// denials.
    pub(crate) unreadable: bool,
}

/// The origin of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A write request: every limit applies.
    Written,
    /// Storage: the text may be older than a limit. A long template is used unchanged; a filter beyond the limits
    /// excludes every name.
    Stored,
}

/// A `path` block.
#[derive(Clone, Debug)]
pub(crate) struct PathRule {
    /// The path as written, for explanations.
    pub(crate) path: String,
    /// The position of the path in the text.
    pub(crate) position: Position,
    /// The grant.
    pub(crate) grant: Grant,
    /// The expiration.
    pub(crate) expiration: Option<Timestamp>,
    pub(crate) template: Template,
}

/// A policy text that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse policy: {message}")]
pub(crate) struct PolicyError {
    /// The position of the first error.
    pub(crate) position: Position,
    /// The error with its position.
    pub(crate) message: String,
    /// The check of `policy lint` that reports it.
    pub(crate) check: &'static str,
}

/// The keys that a `path` block may have.
const KEYS: [&str; 13] = [
    "allowed_parameters",
    "capabilities",
    "comment",
    "control_group",
    "denied_parameters",
    "expiration",
    "list_scan_response_keys_filter_path",
    "max_wrapping_ttl",
    "mfa_methods",
    "min_wrapping_ttl",
    "pagination_limit",
    "policy",
    "required_parameters",
];

/// Beginnings of the errors that have the path of their block once.
const SAID_ONCE: [&str; 6] = [
    "error parsing ",
    "max_wrapping_ttl ",
    "failed to validate policy templating",
    "list_scan_response_keys_filter_path ",
    "unable to compile template for list_scan_response_keys_filter_path",
    "error handling control_group",
];

impl Policy {
    /// A policy without rules.
    pub(crate) fn empty(name: &str) -> Self {
        let (expiration, templates) = (None, TemplateOptions::default());
        Policy { name: name.to_owned(), paths: Vec::new(), expiration, templates, unreadable: false }
    }

    /// Whether its grants depend on the identity of the caller.
    pub(crate) fn is_templated(&self) -> bool {
        self.paths.iter().any(|rule| rule.template.is_templated())
    }
}

/// Parses a policy text in HCL or JSON.
///
/// # Errors
/// [`PolicyError`] for an invalid policy, and for ambiguous ones: unknown and repeated keys.
pub(crate) fn parse(name: &str, text: &str) -> Result<Policy, PolicyError> {
    read(name, text, Origin::Written)
}

/// Parses a stored text, which may exceed newer limits. It never grants more than [`parse`] does.
///
/// # Errors
/// [`PolicyError`] for an invalid policy.
pub(crate) fn parse_stored(name: &str, text: &str) -> Result<Policy, PolicyError> {
    read(name, text, Origin::Stored)
}

fn read(name: &str, text: &str, origin: Origin) -> Result<Policy, PolicyError> {
    let document = keepfast_hcl::parse(text).map_err(|error| error_at(error.position, error.to_string()))?;
    known_keys(&document.body, &["name", "path"], "")?;
    let once = |item: &&Item| document.syntax == Syntax::Json || item.name() != "path";
    no_repetition(document.body.items.iter().filter(once))?;
    let mut paths = Vec::new();
    for item in document.body.all("path") {
        match (document.syntax, item.keys.as_slice(), &item.value.kind) {
            (Syntax::Hcl, [_, path], ValueKind::Object(body)) => paths.push(path_rule(path, body, origin)?),
            (Syntax::Json, _, _) => json_paths(&item.value, &mut paths, origin)?,
            _ => return Err(error_at(item.position(), at(item.position(), "expected a block: path \"…\" { … }"))),
        }
    }
    Ok(Policy { paths, ..Policy::empty(name) })
}

/// Reads the paths of `{"path": {"a": {…}}}` and `{"path": [{"a": {…}}]}`.
// recursion: bounded by keepfast_hcl::MAX_DEPTH
fn json_paths(value: &Value, paths: &mut Vec<PathRule>, origin: Origin) -> Result<(), PolicyError> {
    match &value.kind {
        ValueKind::List(list) => list.iter().try_for_each(|value| json_paths(value, paths, origin)),
        ValueKind::Object(body) => {
            no_repetition(&body.items)?;
            for item in &body.items {
                let rules = item.value.as_list().unwrap_or(std::slice::from_ref(&item.value));
                for rule in rules {
                    let body = rule.as_object().ok_or_else(|| wrong_kind(rule, "an object"))?;
                    paths.extend(item.keys.first().map(|path| path_rule(path, body, origin)).transpose()?);
                }
            }
            Ok(())
        }
        _ => Err(wrong_kind(value, "an object")),
    }
}

fn path_rule(path: &Key, body: &Body, origin: Origin) -> Result<PathRule, PolicyError> {
    let name = path.name.as_str();
    let of_path = |error: PolicyError| {
        // Most errors of OpenBao within a block have its path twice.
        let path = if SAID_ONCE.iter().any(|words| error.message.starts_with(words)) { 1 } else { 2 };
        let path = format!("path {name:?}: ").repeat(path);
        PolicyError { message: format!("{path}{}", error.message), ..error }
    };
    known_keys(body, &KEYS, &format!("path {name:?}: "))?;
    no_repetition(&body.items).map_err(of_path)?;
    if let Some(item) = body.items.iter().find(|item| item.keys.len() > 1) {
        return Err(of_path(error_at(item.position(), at(item.position(), "unexpected label"))));
    }
    if name.contains("+*") {
        return Err(of_path(after(path.position, "invalid use of wildcards ('+*' is forbidden)")));
    }
    let template = match origin {
        Origin::Written => Template::parse(name),
        Origin::Stored => Template::parse_stored(name),
    };
    let template = template
        .map_err(|fault| of_path(after(path.position, &format!("failed to validate policy templating: {fault}"))))?;
    let grant = grant(body, origin).map_err(of_path)?;
    let expiration = body.get("expiration").map_or(Ok(None), |item| expiration(&item.value)).map_err(of_path)?;
    Ok(PathRule { path: path.name.clone(), position: path.position, grant, expiration, template })
}

fn grant(body: &Body, origin: Origin) -> Result<Grant, PolicyError> {
    let mut capabilities = body.get("policy").map_or(Ok(Capabilities::NONE), |item| shorthand(&item.value))?;
    if let Some(item) = body.get("capabilities") {
        for value in list(&item.value)? {
            let name = word(value)?;
            let name = name.as_ref();
            let capability = Capability::named(name)
                .ok_or_else(|| after(value.position, &format!("invalid capability {name:?}")))?;
            capabilities = capabilities.with(capability);
        }
    }
    refuse_unenforced(body)?;
    let mut conditions = conditions(body, origin)?;
    if let Some(item) = body.get("control_group") {
        conditions.control_groups.extend(control_group::parse(item, capabilities, origin)?.map(Arc::new));
    }
    let filter = body.get("list_scan_response_keys_filter_path").filter(|_| !conditions.keys_filters.is_empty());
    if let Some(item) = filter.filter(|_| !capabilities.has(Capability::List) && !capabilities.has(Capability::Scan)) {
        let fault = "list_scan_response_keys_filter_path needs to be used on a path with the list capability";
        return Err(after(item.position(), fault));
    }
    if capabilities.has(Capability::Deny) {
        return Ok(Grant::deny());
    }
    Ok(Grant { capabilities, conditions: (!conditions.is_empty()).then(|| Box::new(conditions)) })
}

/// The deprecated `policy = "read"`.
fn shorthand(value: &Value) -> Result<Capabilities, PolicyError> {
    use Capability::{Create, Delete, Deny, List, Read, Sudo, Update};
    let granted: &[Capability] = match word(value)?.as_ref() {
        "" => &[],
        "deny" => &[Deny],
        "read" => &[Read, List],
        "write" => &[Create, Read, Update, Delete, List],
        "sudo" => &[Create, Read, Update, Delete, List, Sudo],
        other => return Err(after(value.position, &format!("invalid policy {other:?}"))),
    };
    Ok(granted.iter().copied().collect())
}

/// Refuses conditions that this server does not enforce: authors of policies rely on them.
fn refuse_unenforced(body: &Body) -> Result<(), PolicyError> {
    let item = body.get("mfa_methods").filter(|item| item.value.as_list().is_none_or(|list| !list.is_empty()));
    match item {
        Some(item) => Err(after(item.position(), "mfa_methods is not supported")),
        None => Ok(()),
    }
}

fn conditions(body: &Body, origin: Origin) -> Result<Conditions, PolicyError> {
    let mut conditions = Conditions::default();
    if let Some(item) = body.get("required_parameters") {
        let names = list(&item.value)?.iter().map(|name| string(name).map(str::to_lowercase));
        conditions.parameters.required = names.collect::<Result<BTreeSet<_>, _>>()?;
    }
    if let Some(item) = body.get("allowed_parameters") {
        conditions.parameters.allowed = parameters(&item.value)?;
    }
    if let Some(item) = body.get("denied_parameters") {
        conditions.parameters.denied = parameters(&item.value)?;
    }
    if let Some(item) = body.get("min_wrapping_ttl") {
        conditions.min_wrapping_ttl = duration("min_wrapping_ttl", &item.value)?;
    }
    if let Some(item) = body.get("max_wrapping_ttl") {
        conditions.max_wrapping_ttl = duration("max_wrapping_ttl", &item.value)?;
        if conditions.max_wrapping_ttl.is_some_and(|max| conditions.min_wrapping_ttl.is_some_and(|min| max < min)) {
            return Err(after(item.position(), "max_wrapping_ttl cannot be less than min_wrapping_ttl"));
        }
    }
    if let Some(item) = body.get("pagination_limit") {
        conditions.pagination_limit = Some(count(&item.value)?).filter(|limit| *limit > 0);
    }
    if let Some(item) = body.get("list_scan_response_keys_filter_path") {
        let text = string(&item.value)?;
        if !text.is_empty() {
            let filter = match origin {
                Origin::Written => KeysFilter::parse(text),
                Origin::Stored => KeysFilter::parse_stored(text),
            };
            let filter = filter.map_err(|fault| after(item.value.position, &fault))?;
            conditions.keys_filters.push(Arc::new(filter));
        }
    }
    Ok(conditions)
}

/// Reads a map of names to lists of values.
fn parameters(value: &Value) -> Result<BTreeMap<String, Vec<Json>>, PolicyError> {
    let body = value.as_object().ok_or_else(|| wrong_kind(value, "an object"))?;
    let mut parameters = BTreeMap::new();
    for item in &body.items {
        let values = list(&item.value)?.iter().map(json).collect::<Result<Vec<_>, _>>()?;
        // Names are compared without regard to case, so `a` and `A` would be one name with two meanings.
        if item.keys.len() > 1 || parameters.insert(item.name().to_lowercase(), values).is_some() {
            return Err(repeated(item));
        }
    }
    Ok(parameters)
}

// recursion: bounded by keepfast_hcl::MAX_DEPTH
fn json(value: &Value) -> Result<Json, PolicyError> {
    Ok(match &value.kind {
        ValueKind::Null => Json::Null,
        ValueKind::Bool(value) => (*value).into(),
        ValueKind::Integer(value) => (*value).into(),
        ValueKind::Float(value) => (*value).into(),
        ValueKind::String(text) => text.as_str().into(),
        ValueKind::List(list) => list.iter().map(json).collect::<Result<_, _>>()?,
        ValueKind::Object(body) => {
            no_repetition(&body.items)?;
            let items = body.items.iter().map(|item| Ok((item.name().to_owned(), json(&item.value)?)));
            Json::Object(items.collect::<Result<_, PolicyError>>()?)
        }
    })
}

/// A duration in seconds or in Go's notation; zero and the empty text mean no bound.
fn duration(name: &str, value: &Value) -> Result<Option<Duration>, PolicyError> {
    let fault = |fault: &str| after(value.position, &format!("error parsing {name}: {fault}"));
    let seconds = match &value.kind {
        ValueKind::Integer(seconds) => *seconds,
        ValueKind::String(text) => parse_duration(text).map_err(|message| fault(&message))?,
        _ => return Err(fault("could not parse duration from input")),
    };
    let seconds = u64::try_from(seconds).map_err(|_| fault("must not be negative"))?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

fn count(value: &Value) -> Result<u64, PolicyError> {
    let count = match &value.kind {
        ValueKind::Integer(count) => u64::try_from(*count).ok(),
        ValueKind::String(text) => text.parse().ok(),
        _ => None,
    };
    count.ok_or_else(|| wrong_kind(value, "a number that is not negative"))
}

/// A time in RFC 3339 or in seconds since the epoch; the empty text means none.
fn expiration(value: &Value) -> Result<Option<Timestamp>, PolicyError> {
    let moment = match &value.kind {
        ValueKind::Integer(seconds) => Some(Timestamp::from_unix(*seconds)),
        ValueKind::String(text) if text.is_empty() => return Ok(None),
        ValueKind::String(text) => {
            text.parse().ok().map(Timestamp::from_unix).or_else(|| Timestamp::parse_rfc3339(text))
        }
        _ => None,
    };
    let fault = "invalid expiration time: could not parse string as date and time";
    moment.map(Some).ok_or_else(|| after(value.position, fault))
}

pub(super) fn list(value: &Value) -> Result<&[Value], PolicyError> {
    value.as_list().ok_or_else(|| wrong_kind(value, "a list"))
}

/// A text, or a number as text.
pub(super) fn word(value: &Value) -> Result<Cow<'_, str>, PolicyError> {
    match &value.kind {
        ValueKind::Integer(number) => Ok(number.to_string().into()),
        _ => string(value).map(Cow::Borrowed),
    }
}

pub(super) fn string(value: &Value) -> Result<&str, PolicyError> {
    value.as_str().ok_or_else(|| wrong_kind(value, "a string"))
}

fn known_keys(body: &Body, known: &[&str], of: &str) -> Result<(), PolicyError> {
    let unknown: Vec<_> = body.items.iter().filter(|item| !known.contains(&item.name())).collect();
    let Some(first) = unknown.first() else { return Ok(()) };
    let count = if unknown.len() == 1 { "1 error".to_owned() } else { format!("{} errors", unknown.len()) };
    let each = unknown.iter().map(|item| {
        // OpenBao counts from the equals sign, which a block with a label does not have.
        let line = if item.keys.len() > 1 { 0 } else { item.position().line };
        format!("\t* invalid key {:?} on line {line}\n", item.name())
    });
    Err(error_at(first.position(), format!("{of}{count} occurred:\n{}\n", each.collect::<String>())))
}

pub(super) fn no_repetition<'a>(items: impl IntoIterator<Item = &'a Item>) -> Result<(), PolicyError> {
    let mut seen = BTreeSet::new();
    match items.into_iter().find(|item| !seen.insert(item.name())) {
        Some(item) => Err(repeated(item)),
        None => Ok(()),
    }
}

fn repeated(item: &Item) -> PolicyError {
    let message = format!(
        "The argument {:?} at {} was already set. Each argument can only be defined once",
        item.name(),
        item.position()
    );
    error_at(item.position(), message)
}

pub(super) fn wrong_kind(value: &Value, wanted: &str) -> PolicyError {
    error_at(value.position, at(value.position, &format!("expected {wanted}, got {}", value.type_name())))
}

/// An error in OpenBao's wording, which has no position.
pub(super) fn after(position: Position, message: &str) -> PolicyError {
    error_at(position, message.to_owned())
}

fn at(position: Position, message: &str) -> String {
    HclError::new(position, message).to_string()
}

fn error_at(position: Position, message: String) -> PolicyError {
    PolicyError { position, message, check: "syntax" }
}
