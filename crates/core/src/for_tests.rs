//! The functions of this crate for fuzz targets, with the feature `test-support` only. They take bytes and texts, and
//! give access to no part of a running server.

use std::sync::LazyLock;

use keepfast_crypto::random;
use keepfast_framework::{CanonicalPath, Operation, Timestamp};
use serde_json::Value;

use crate::policy::denied_values::{self, Scope};
use crate::policy::explain::reference_decision;
use crate::policy::list_filter::KeysFilter;
use crate::policy::parameters::Parameters;
use crate::policy::template::Subject;
use crate::policy::{self, Acl, AclRequest, Decision, Policy, password};
use crate::token::batch::BatchCipher;
use crate::token::id::Ids;

/// A valid policy, compiled for a caller without an identity.
pub struct CompiledPolicy {
    acl: Acl,
    policy: Policy,
}

/// The decision of a policy for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Whether the request is allowed.
    pub allowed: bool,
    /// Whether the caller is root.
    pub root: bool,
}

impl CompiledPolicy {
    /// Parses and compiles a policy; `None` if it is invalid.
    pub fn parse(text: &str) -> Option<Self> {
        let parsed = policy::parse("fuzzed", text).ok()?;
        Some(CompiledPolicy { acl: Acl::compile([&parsed], &Subject::default()), policy: parsed })
    }

    /// Whether it has a rule.
    pub fn has_rules(&self) -> bool {
        !self.policy.paths.is_empty()
    }

    /// The decision for a request without parameters.
    pub fn decide(&self, path: &CanonicalPath, operation: Operation) -> Decided {
        decided(&self.acl.allow(&request(path, operation)))
    }

    /// The decision of the reference evaluator for the same request.
    pub fn decide_by_reference(&self, path: &CanonicalPath, operation: Operation) -> Decided {
        decided(&reference_decision(&self.policy, &request(path, operation)))
    }
}

const NO_PARAMETERS: fn() -> Option<Parameters> = || None;

fn request(path: &CanonicalPath, operation: Operation) -> AclRequest<'_> {
    AclRequest {
        path: path.as_str(),
        operation,
        creates: false,
        parameters: &NO_PARAMETERS,
        declared: None,
        wrap_ttl: None,
        now: Timestamp::default(),
    }
}

fn decided(decision: &Decision) -> Decided {
    Decided { allowed: decision.allowed, root: decision.root }
}

/// Whether a value of `denied_parameters` denies the value of a request. `is_declared` states whether the route
/// declares the parameter: its handler then parses texts as lists, pairs, JSON or base64.
pub fn is_denied(denied: &Value, given: &Value, is_declared: bool) -> bool {
    denied_values::reaches(denied, given, if is_declared { Scope::Declared } else { Scope::Data })
}

/// A template of `list_scan_response_keys_filter_path`.
pub struct FilterTemplate(KeysFilter);

impl FilterTemplate {
    /// Parses a template; `None` if it is invalid.
    pub fn parse(text: &str) -> Option<Self> {
        KeysFilter::parse(text).ok().map(FilterTemplate)
    }

    /// The path from the path of a list and one of its keys; `None` if it exceeds the limit.
    pub fn render(&self, path: &str, key: &str) -> Option<String> {
        self.0.render(path, key).ok()
    }
}

/// A password from a password policy; `None` if the policy is invalid.
pub fn password_after(policy: &str) -> Option<String> {
    password::parse(policy).ok().map(|policy| policy.generate().expose().clone())
}

/// Looks up the text of a token in every way. Panics unless its accessor leads to the same record, and if the text
/// decrypts as a batch token, which requires the key of the server.
pub fn check_token(text: &str) {
    static KEYS: LazyLock<(Ids, BatchCipher)> =
        LazyLock::new(|| (Ids::new(&random::bytes::<128>()), BatchCipher::new(&random::bytes::<32>())));
    let (ids, cipher) = &*KEYS;
    let located = ids.locate(text);
    assert_eq!(ids.place_of(&located.accessor), located.key, "the accessor leads to the same place");
    assert_eq!(ids.place_of(text).as_str().len(), 40, "every text has a place");
    assert!(cipher.open(text).is_none(), "no text that was not sealed opens");
}
