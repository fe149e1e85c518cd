//! Compares the decisions in an audit log with those of a proposed policy.
//!
//! The parameters in an audit log are hashed. Names are not, so rules about names are decided; a rule that compares a
//! value is not decidable.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::routes::Access;
use keepfast_framework::rows::{OperationInfo, RowInfo};
use keepfast_framework::{Operation, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Policy;
use super::acl::{Acl, AclRequest, operation_named};
use super::engine_tables::{EngineTables, KnownMount};
use super::parameters::{ANY, BATCH, Constraints};
use super::pattern::fold;
use super::template::Subject;
use crate::audit::redact;

/// The most policies and the most compiled sets of policies in memory.
const MOST_CACHED: usize = 1000;

/// The text of a policy that is not among the proposed ones.
pub enum PolicySource {
    /// The text.
    Text(String),
    /// There is no policy of this name: it grants nothing.
    Absent,
    /// The text is not known.
    Unknown,
}

/// The result of one line of an audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Simulated {
    /// Not the entry of an audit log.
    Unreadable,
    /// Not the entry of a request on which policies decided.
    Other,
    /// The token has none of the proposed policies.
    Unaffected,
    /// The decision stays the same.
    Unchanged(PastRequest),
    /// The decision changes: whether the request is allowed after the change.
    Changed(PastRequest, bool),
    /// The log does not have what the decision depends on: the reason.
    Undecidable(PastRequest, &'static str),
}

/// A request of an audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastRequest {
    /// Its id.
    pub id: String,
    /// Its time as in the log.
    pub time: String,
    /// Its operation.
    pub operation: String,
    /// Its path.
    pub path: String,
}

#[derive(Deserialize)]
struct AuditEntry {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    time: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    auth: AuditedToken,
    request: AuditedRequest,
}

#[derive(Default, Deserialize)]
struct AuditedToken {
    policies: Option<Vec<String>>,
    policy_results: Option<AuditedDecision>,
}

impl AuditedToken {
    fn policies(&self) -> &[String] {
        self.policies.as_deref().unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct AuditedDecision {
    allowed: Option<bool>,
}

#[derive(Deserialize)]
struct AuditedRequest {
    #[serde(default)]
    id: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    mount_point: String,
    #[serde(default)]
    mount_type: String,
    data: Option<Value>,
    data_hmac: Option<String>,
    wrap_ttl: Option<u64>,
}

/// The proposed policies, with those that tokens have besides.
pub struct Simulation {
    tables: EngineTables,
    proposed: HashMap<String, Arc<Policy>>,
    others: HashMap<String, Option<Arc<Policy>>>,
    compiled: HashMap<Vec<String>, Arc<Acl>>,
}

impl Simulation {
    /// A simulation of no policies yet.
    pub fn new(tables: EngineTables) -> Self {
        Simulation { tables, proposed: HashMap::new(), others: HashMap::new(), compiled: HashMap::new() }
    }

    /// Adds a proposed policy.
    ///
    /// # Errors
    /// The error of the text with its position.
    pub fn propose(&mut self, name: &str, text: &str) -> Result<(), String> {
        let policy = super::parse(name, text).map_err(|error| error.to_string())?;
        self.proposed.insert(name.to_owned(), Arc::new(policy));
        Ok(())
    }

    /// Simulates one line. `source` returns the texts of policies that are not among the proposed ones, which are
    /// cached.
    pub fn line(&mut self, line: &str, source: &mut dyn FnMut(&str) -> PolicySource) -> Simulated {
        // A device may write a prefix before each line.
        let json = line.find('{').and_then(|at| line.get(at..)).unwrap_or_default();
        let Ok(entry) = serde_json::from_str::<AuditEntry>(json) else { return Simulated::Unreadable };
        let Some((operation, creates)) = operation_named(&entry.request.operation) else { return Simulated::Other };
        let Some(before) = recorded(&entry).filter(|_| entry.kind == "request") else { return Simulated::Other };
        if !entry.auth.policies().iter().any(|name| self.proposed.contains_key(name)) {
            return Simulated::Unaffected;
        }
        let AuditedRequest { id, path, operation: name, .. } = &entry.request;
        let request =
            PastRequest { id: id.clone(), time: entry.time.clone(), operation: name.clone(), path: path.clone() };
        match self.decide(&entry, operation, creates, source) {
            Ok(after) if after == before => Simulated::Unchanged(request),
            Ok(after) => Simulated::Changed(request, after),
            Err(reason) => Simulated::Undecidable(request, reason),
        }
    }

    fn decide(
        &mut self,
        entry: &AuditEntry,
        operation: Operation,
        creates: bool,
        source: &mut dyn FnMut(&str) -> PolicySource,
    ) -> Result<bool, &'static str> {
        let acl = self.acl(entry.auth.policies(), &entry.request.path, source)?;
        let row = self.row(&entry.request, operation);
        let now = Timestamp::parse_rfc3339(&entry.time).ok_or("the entry has no time")?;
        let decided = |creates: bool| past_decision(&acl, &entry.request, row, (operation, creates), now);
        let decision = decided(creates)?;
        // Some servers do not log whether a write created the resource.
        if operation == Operation::Update && !creates && decided(true)? != decision {
            return Err("the log does not show whether the write created the resource");
        }
        Ok(decision)
    }

    /// The row of the path, where the engine of the mount is known.
    fn row(&self, request: &AuditedRequest, operation: Operation) -> Option<&RowInfo> {
        let within = request.path.strip_prefix(request.mount_point.as_str())?;
        let engine = match self.tables.find(&request.path) {
            Some((_, engine)) => engine,
            None => {
                // The log has no options: a path of KV version 2 shows itself.
                let version = if within.starts_with("data/") || within.starts_with("metadata/") { "2" } else { "1" };
                let options = BTreeMap::from([("version".to_owned(), version.to_owned())]);
                let path = request.mount_point.clone();
                self.tables.engine_of(&KnownMount { path, engine: request.mount_type.clone(), options })?
            }
        };
        let found = engine.table().find(operation, within)?;
        engine.table().rows().get(found.row)
    }

    /// The ACL of a token with these policies.
    fn acl(
        &mut self,
        names: &[String],
        path: &str,
        source: &mut dyn FnMut(&str) -> PolicySource,
    ) -> Result<Arc<Acl>, &'static str> {
        let mut names = names.to_vec();
        names.sort();
        names.dedup();
        let mut policies = Vec::new();
        for name in &names {
            policies.extend(self.policy(name, source)?);
        }
        let templates = policies.iter().flat_map(|policy| &policy.paths).filter(|rule| rule.template.is_templated());
        let mut heads = templates.map(|rule| rule.path.trim_start_matches('/').split("{{").next().unwrap_or_default());
        if heads.any(|head| could_match(head, path)) {
            return Err("a rule depends on the identity of the caller");
        }
        if let Some(acl) = self.compiled.get(&names) {
            return Ok(acl.clone());
        }
        // The subject has no values, so rules with templates match nothing.
        let acl = Arc::new(Acl::compile(policies.iter().map(Arc::as_ref), &Subject::default()));
        if self.compiled.len() >= MOST_CACHED {
            self.compiled.clear();
        }
        self.compiled.insert(names, acl.clone());
        Ok(acl)
    }

    fn policy(
        &mut self,
        name: &str,
        source: &mut dyn FnMut(&str) -> PolicySource,
    ) -> Result<Option<Arc<Policy>>, &'static str> {
        const UNKNOWN: &str = "the token has a policy whose text is not known";
        if let Some(policy) = self.proposed.get(name) {
            return Ok(Some(policy.clone()));
        }
        if self.others.len() >= MOST_CACHED && !self.others.contains_key(name) {
            self.others.clear();
            self.compiled.clear();
        }
        if let Some(known) = self.others.get(name) {
            return known.as_ref().map(|policy| Some(policy.clone())).ok_or(UNKNOWN);
        }
        let policy = match source(name) {
            PolicySource::Text(text) => super::parse_stored(name, &text).ok(),
            PolicySource::Absent => Some(Policy::empty(name)),
            PolicySource::Unknown => None,
        };
        let policy = policy.map(Arc::new);
        self.others.insert(name.to_owned(), policy.clone());
        policy.map(Some).ok_or(UNKNOWN)
    }
}

/// The decision in the log; none for an entry without one.
fn recorded(entry: &AuditEntry) -> Option<bool> {
    let is_limited = !entry.auth.policies().is_empty() && !entry.auth.policies().iter().any(|name| name == "root");
    let results = entry.auth.policy_results.as_ref().and_then(|results| results.allowed);
    // Older servers log the decision by the error alone.
    let by_error = || match entry.error.as_str() {
        "" => Some(true),
        error => error.contains("permission denied").then_some(false),
    };
    results.or_else(by_error).filter(|_| is_limited)
}

/// Whether a rule with this text before its first expression could match a path.
fn could_match(head: &str, path: &str) -> bool {
    // Rules with wildcards before the expression are few: all of them count.
    head.contains('+') || fold(path).starts_with(&fold(head))
}

/// The decision on a past request with the operation and whether it creates the resource.
fn past_decision(
    acl: &Acl,
    past: &AuditedRequest,
    row: Option<&RowInfo>,
    (operation, creates): (Operation, bool),
    now: Timestamp,
) -> Result<bool, &'static str> {
    let declared = row.and_then(|row| row.operation(operation));
    let data = past.data.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
    let is_read = Cell::new(false);
    let parameters = || {
        is_read.set(true);
        Some(data.clone())
    };
    let request = AclRequest {
        path: &past.path,
        operation,
        creates,
        parameters: &parameters,
        declared,
        wrap_ttl: past.wrap_ttl.map(Duration::from_secs),
        now,
    };
    let decision = acl.allow(&request);
    let is_complete = past.data_hmac.is_none() && !data.values().any(has_hashed);
    let allowed = if !is_read.get() || is_complete {
        decision.allowed
    } else {
        let constraints = acl.constraints(&past.path, operation.lists(), now).unwrap_or_default();
        let by_names = if past.data_hmac.is_some() || operation.lists() {
            None
        } else {
            decided_by_names(&constraints, &data, declared)
        };
        by_names.ok_or("a rule compares a parameter whose value is hashed in the log")?
    };
    let is_sudo = row.is_some_and(|row| row.access == Access::Sudo);
    let is_open = row.is_some_and(|row| row.access == Access::Unauthenticated);
    Ok(is_open || allowed && (!is_sudo || decision.sudo))
}

// recursion: bounded by serde_json, which reads 128 levels
fn has_hashed(value: &Value) -> bool {
    match value {
        Value::String(text) => text.starts_with(redact::PREFIX),
        Value::Array(list) => list.iter().any(has_hashed),
        Value::Object(map) => map.values().any(has_hashed),
        _ => false,
    }
}

/// The decision of constraints where the names of the parameters are enough for it.
fn decided_by_names(
    constraints: &Constraints,
    data: &Map<String, Value>,
    declared: Option<&OperationInfo>,
) -> Option<bool> {
    if declared.is_none_or(|operation| operation.nested().is_some()) && constraints.has_dotted_names() {
        return None;
    }
    let is_missing = constraints.required.iter().any(|name| !data.contains_key(name));
    // Whether each rule that denies the parameter denies every value of it.
    let denials = |name: &String| -> Vec<bool> {
        all_names(name, declared).iter().filter_map(|name| constraints.denied.get(name)).map(Vec::is_empty).collect()
    };
    let allowed = |name: &String| constraints.allowed.get(&name.to_lowercase());
    let is_unlisted =
        |name: &String| !constraints.allowed.is_empty() && allowed(name).or(constraints.allowed.get(ANY)).is_none();
    let denies_all = !data.is_empty() && constraints.denied.contains_key(ANY);
    if is_missing || denies_all || data.keys().any(|name| denials(name).contains(&true) || is_unlisted(name)) {
        return Some(false);
    }
    // The items of a batch have parameters of their own.
    let is_batch = data.contains_key(BATCH) && !constraints.denied.is_empty();
    let is_compared =
        |name: &String| !denials(name).is_empty() || allowed(name).is_some_and(|values| !values.is_empty());
    (!is_batch && !data.keys().any(is_compared)).then_some(true)
}

/// The names of a parameter in lower case: a denial covers all of them.
fn all_names(name: &str, declared: Option<&OperationInfo>) -> Vec<String> {
    let mut names = vec![name.to_lowercase()];
    names.extend(declared.into_iter().flat_map(|operation| operation.other_names(name)).map(str::to_owned));
    names
}
