//! The stored record of a lease, and its id.

use keepfast_crypto::random;
use keepfast_framework::Timestamp;
use keepfast_framework::lease::BackOff;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::namespace::NamespaceId;
use crate::token::TokenKey;

const TIME: usize = 6;
const CHANCE: usize = 18;
/// The step of the coarse time at the start of an id, in seconds, as a power of two.
const COARSE_BITS: u32 = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The last part of a lease id: 24 characters of base62. The first six are a coarse time, so that records that are
/// created together are stored together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LeaseId(String);

impl LeaseId {
    /// A new id.
    pub(crate) fn new(now: Timestamp) -> Self {
        let mut coarse = now.unix().max(0).unsigned_abs() >> COARSE_BITS;
        let mut digits = [0u8; TIME];
        for digit in digits.iter_mut().rev() {
            *digit = BASE62[(coarse % 62) as usize];
            coarse /= 62;
        }
        let mut id: String = digits.iter().map(|d| char::from(*d)).collect();
        id.push_str(&random::base62(CHANCE));
        LeaseId(id)
    }

    /// Parses the last part of a lease id; `None` if it is invalid.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        (text.len() == TIME + CHANCE && text.bytes().all(|b| b.is_ascii_alphanumeric()))
            .then(|| LeaseId(text.to_owned()))
    }

    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The state of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// Stored before its engine runs; revoked unless it is confirmed.
    Pending,
    /// Valid.
    Live,
    /// To be revoked.
    Ending {
        /// The number of failed attempts.
        attempts: u32,
    },
    /// The revocation failed too often: an operator must handle it.
    Irrevocable {
        /// The error of the last attempt, without parts that must not be shown.
        error: String,
    },
}

/// The stored record of a lease.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    /// The namespace of the lease.
    #[serde(default, skip_serializing_if = "NamespaceId::is_root")]
    pub(crate) namespace: NamespaceId,
    /// The path in its namespace that issued it, such as `database/creds/readonly`.
    pub(crate) path: String,
    /// The name of the storage of its mount, which does not change with the path of the mount.
    pub(crate) mount: String,
    /// The time of issue.
    pub(crate) issued: Timestamp,
    /// The time of expiry.
    pub(crate) end: Timestamp,
    /// Its time in the expiry index: the expiry, or the next attempt.
    pub(crate) due: Timestamp,
    /// The time of the last renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_renewal: Option<Timestamp>,
    /// Whether it can be renewed.
    pub(crate) renewable: bool,
    /// The token that owns it: the lease is revoked with the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<TokenKey>,
    /// The latest expiry of any renewal: the expiry of the batch token that issued it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bound: Option<Timestamp>,
    /// The entity that issued it; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) entity_id: String,
    /// Its state.
    pub(crate) state: State,
    /// The work of its engine was not seen to complete and may still have an effect after a revocation, so the lease is
    /// revoked twice.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) unconfirmed: bool,
    /// The backoff of its revocation, if it differs from the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) back_off: Option<BackOff>,
    /// The counter of the lease count quota that has counted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) counter: Option<String>,
    /// Its claim, as a key of [`super::index::claim_key`]: no other lease of its mount can have the same one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) claim: Option<String>,
    /// The data that its engine needs to revoke an unconfirmed lease; null once the lease is confirmed.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(crate) until_confirmed: Value,
    /// The data of its engine.
    #[serde(default)]
    pub(crate) internal: Value,
}

impl LeaseRecord {
    /// The path within its mount.
    pub(crate) fn path_within<'a>(&'a self, mount: &str) -> &'a str {
        self.path.strip_prefix(mount).unwrap_or(&self.path)
    }

    /// The full lease id, which ends in the id of a namespace other than root.
    pub(crate) fn full_id(&self, id: &LeaseId) -> String {
        format!("{}/{}{}", self.path, id.as_str(), self.namespace.suffix())
    }
}
