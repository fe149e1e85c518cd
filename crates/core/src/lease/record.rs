//! What is stored of a lease, and its id.

use keepfast_crypto::random;
use keepfast_framework::Timestamp;
use keepfast_framework::lease::BackOff;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::namespace::NamespaceId;
use crate::token::TokenKey;

const TIME: usize = 6;
const CHANCE: usize = 18;
/// One step of the coarse time that ids begin with, in seconds as a power of two.
const COARSE_BITS: u32 = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The last part of a lease's id: 24 characters of base62, of which the first six are a coarse time, so that records
/// that are made together are stored together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LeaseId(String);

impl LeaseId {
    /// A fresh one.
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

    /// Reads the last part of a lease's id; `None` for what is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        (text.len() == TIME + CHANCE && text.bytes().all(|b| b.is_ascii_alphanumeric()))
            .then(|| LeaseId(text.to_owned()))
    }

    /// As text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a lease stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// Made known before its engine acts; taken back if it is not confirmed.
    Pending,
    /// In force.
    Live,
    /// To be taken back; what was tried so far.
    Ending {
        /// How often.
        attempts: u32,
    },
    /// Taking it back failed too often: an operator has to look.
    Irrevocable {
        /// What the last try failed with, as far as it may be shown.
        error: String,
    },
}

/// What is stored of a lease.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    /// The namespace that it belongs to.
    #[serde(default, skip_serializing_if = "NamespaceId::is_root")]
    pub(crate) namespace: NamespaceId,
    /// The full path that made it, such as `database/creds/readonly`.
    pub(crate) path: String,
    /// The name of its mount's storage, which outlives a change of the mount's path.
    pub(crate) mount: String,
    /// When it was made.
    pub(crate) issued: Timestamp,
    /// When it ends.
    pub(crate) end: Timestamp,
    /// Where it stands in the index of ends: its end, or the next try.
    pub(crate) due: Timestamp,
    /// When it was last renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_renewal: Option<Timestamp>,
    /// Whether it can be renewed.
    pub(crate) renewable: bool,
    /// The token with which it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<TokenKey>,
    /// What no renewal passes: the end of the batch token that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bound: Option<Timestamp>,
    /// The entity that made it; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) entity_id: String,
    /// Where it stands.
    pub(crate) state: State,
    /// Nobody has seen its engine's work come to its end: that may still do something after it was taken back, so it is
    /// taken back twice.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) unconfirmed: bool,
    /// How taking it back is tried again, where that is not as for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) back_off: Option<BackOff>,
    /// What it claims, as [`super::index::claim_key`] has it: no other lease of its mount may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) claim: Option<String>,
    /// What its engine needs to undo it; null once it was confirmed.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(crate) until_confirmed: Value,
    /// What its engine needs.
    #[serde(default)]
    pub(crate) internal: Value,
}

impl LeaseRecord {
    /// The path within its mount.
    pub(crate) fn path_within<'a>(&'a self, mount: &str) -> &'a str {
        self.path.strip_prefix(mount).unwrap_or(&self.path)
    }

    /// The whole id of the lease.
    pub(crate) fn full_id(&self, id: &LeaseId) -> String {
        format!("{}/{}", self.path, id.as_str())
    }
}
