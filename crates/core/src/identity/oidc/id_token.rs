//! The claims that every signed token has.

use std::time::Duration;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Result, Timestamp};
use serde_json::json;

use super::jws::{self, Claims};
use super::ring::SigningKey;

/// The claims that the server sets.
pub(super) struct IdToken<'a> {
    /// `iss`
    pub(super) issuer: &'a str,
    /// `aud`
    pub(super) audience: &'a str,
    /// `sub`
    pub(super) subject: &'a str,
    /// `namespace`
    pub(super) namespace: &'a str,
    /// Seconds until `exp`.
    pub(super) ttl: u64,
}

/// Signs a token with further claims, which cannot replace those of the server.
pub(super) fn sign(key: &SigningKey, token: IdToken<'_>, further: Claims, now: Timestamp) -> Result<SecretString> {
    let mut claims = further;
    claims.insert("iss".to_owned(), json!(token.issuer));
    claims.insert("aud".to_owned(), json!(token.audience));
    claims.insert("sub".to_owned(), json!(token.subject));
    claims.insert("namespace".to_owned(), json!(token.namespace));
    claims.insert("iat".to_owned(), json!(now.unix()));
    claims.insert("exp".to_owned(), json!(now.after(Duration::from_secs(token.ttl)).unix()));
    jws::sign(key, &claims)
}
