//! What fuzz targets reach of this crate, with the feature `test-support` only: functions from bytes and texts, no proofs and no
//! part of a running server.

use std::sync::LazyLock;

use keepfast_crypto::random;
use keepfast_framework::{CanonicalPath, Operation, Timestamp};
use serde_json::Value;

use crate::policy::filter::KeysFilter;
use crate::policy::reading::{self, Scope};
use crate::policy::template::Subject;
use crate::policy::{self, Acl, AclRequest, password};
use crate::token::batch::BatchCipher;
use crate::token::id::Ids;

/// A policy that was accepted, compiled for a caller without an identity.
pub struct CompiledPolicy {
    acl: Acl,
    has_rules: bool,
}

/// What a policy says of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Whether the request is allowed.
    pub allowed: bool,
    /// Whether the caller is root.
    pub root: bool,
}

impl CompiledPolicy {
    /// Parses and compiles a policy; `None` for what is no policy.
    pub fn parse(text: &str) -> Option<Self> {
        let parsed = policy::parse("fuzzed", text).ok()?;
        Some(CompiledPolicy { acl: Acl::compile([&parsed], &Subject::default()), has_rules: !parsed.paths.is_empty() })
    }

    /// Whether it has a rule.
    pub fn has_rules(&self) -> bool {
        self.has_rules
    }

    /// What it says of a request without parameters.
    pub fn decide(&self, path: &CanonicalPath, operation: Operation) -> Decided {
        let none = || None;
        let decision = self.acl.allow(&AclRequest {
            path: path.as_str(),
            operation,
            creates: false,
            parameters: &none,
            declared: None,
            wrap_ttl: None,
            now: Timestamp::default(),
        });
        Decided { allowed: decision.allowed, root: decision.root }
    }
}

/// Whether a value of `denied_parameters` denies the value of a request. `is_declared` says whether the route declares the
/// parameter: its handler then reads texts as lists, pairs, JSON or base64.
pub fn is_denied(denied: &Value, given: &Value, is_declared: bool) -> bool {
    reading::reaches(denied, given, if is_declared { Scope::Declared } else { Scope::Data })
}

/// A template of `list_scan_response_keys_filter_path`.
pub struct FilterTemplate(KeysFilter);

impl FilterTemplate {
    /// Parses a template; `None` for what is none.
    pub fn parse(text: &str) -> Option<Self> {
        KeysFilter::parse(text).ok().map(FilterTemplate)
    }

    /// The path that it makes of a list's path and one key; `None` for one beyond its limit.
    pub fn render(&self, path: &str, key: &str) -> Option<String> {
        self.0.render(path, key).ok()
    }
}

/// A password after a password policy; `None` for what is no policy.
pub fn password_after(policy: &str) -> Option<String> {
    password::parse(policy).ok().map(|policy| policy.generate().expose().clone())
}

/// Looks a token's text up in every way. Panics unless its accessor leads to the same record, and if it opens as a batch
/// token, which nobody can make without the server's key.
pub fn check_token(text: &str) {
    static KEYS: LazyLock<(Ids, BatchCipher)> =
        LazyLock::new(|| (Ids::new(&random::bytes::<128>()), BatchCipher::new(&random::bytes::<32>())));
    let (ids, cipher) = &*KEYS;
    let located = ids.locate(text);
    assert_eq!(ids.place_of(&located.accessor), located.key, "the accessor leads to the same place");
    assert_eq!(ids.place_of(text).as_str().len(), 40, "every text has a place");
    assert!(cipher.open(text).is_none(), "no text that was not sealed opens");
}
