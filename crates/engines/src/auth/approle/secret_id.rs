//! The stored secret id with its accessor and its expiry record; all are written and removed together.

use std::collections::BTreeMap;

use keepfast_framework::{Cx, Records, Result, Timestamp};
use serde::{Deserialize, Serialize};

/// Secret ids by `<store>/<keyed hash>`.
const SECRET_IDS: Records<SecretId> = Records::at("secret-id/");
/// Keyed hashes of secret ids by `<store>/<accessor>`.
pub(super) const ACCESSORS: Records<Accessor> = Records::at("accessor/");
/// Secret ids by `<moment>.<keyed hash>`; the moment is in nanoseconds, as 16 hexadecimal digits, so names sort by
/// time.
pub(super) const EXPIRIES: Records<Expiry> = Records::at("expiry/");

/// Limits and metadata of a secret id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SecretId {
    /// Identifies the secret id without revealing it.
    pub(super) accessor: String,
    /// The time of its creation.
    pub(super) created: Timestamp,
    /// The time of the last change of the record.
    pub(super) updated: Timestamp,
    /// The time of its expiry; `None` for never.
    pub(super) expires: Option<Timestamp>,
    /// The requested TTL in seconds; zero means no expiry.
    pub(super) ttl: u64,
    /// How many logins are left; zero means no limit.
    pub(super) num_uses: u64,
    /// The networks from which logins are allowed.
    pub(super) cidr_list: Vec<String>,
    /// The networks from which its tokens can be used, instead of those of the role.
    pub(super) token_bound_cidrs: Vec<String>,
    /// The metadata of its tokens.
    pub(super) metadata: BTreeMap<String, String>,
}

/// The secret id of an accessor.
#[derive(Serialize, Deserialize)]
pub(super) struct Accessor {
    /// The keyed hash of the secret id.
    pub(super) hash: String,
    /// The time of its expiry.
    pub(super) expires: Option<Timestamp>,
}

/// A secret id that expires.
#[derive(Serialize, Deserialize)]
pub(super) struct Expiry {
    /// The store of its role.
    pub(super) store: String,
    /// Its keyed hash.
    pub(super) hash: String,
    /// Its accessor.
    pub(super) accessor: String,
}

impl SecretId {
    /// Whether it has not expired at `now`.
    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// The secret id with this keyed hash, expired or not.
pub(super) async fn get(cx: &mut Cx, store: &str, hash: &str) -> Result<Option<SecretId>> {
    SECRET_IDS.get(cx, &key(store, hash)).await
}

/// Writes a new secret id with its accessor and its expiry record.
pub(super) fn add(cx: &mut Cx, store: &str, hash: &str, secret_id: &SecretId) -> Result<()> {
    update(cx, store, hash, secret_id)?;
    let accessor = Accessor { hash: hash.to_owned(), expires: secret_id.expires };
    ACCESSORS.put(cx, &key(store, &secret_id.accessor), &accessor)?;
    if let Some(expires) = secret_id.expires {
        let expiry = Expiry { store: store.to_owned(), hash: hash.to_owned(), accessor: secret_id.accessor.clone() };
        EXPIRIES.put(cx, &expiry_name(expires, hash), &expiry)?;
    }
    Ok(())
}

/// Writes a secret id whose accessor and expiry are unchanged.
pub(super) fn update(cx: &mut Cx, store: &str, hash: &str, secret_id: &SecretId) -> Result<()> {
    SECRET_IDS.put(cx, &key(store, hash), secret_id)
}

/// Removes a secret id with its accessor and its expiry record.
pub(super) fn remove(cx: &mut Cx, store: &str, hash: &str, accessor: &str, expires: Option<Timestamp>) {
    SECRET_IDS.delete(cx, &key(store, hash));
    ACCESSORS.delete(cx, &key(store, accessor));
    if let Some(expires) = expires {
        EXPIRIES.delete(cx, &expiry_name(expires, hash));
    }
}

/// The secret id of an accessor in this store; `None` for an accessor that cannot be a name in storage.
pub(super) async fn of_accessor(cx: &mut Cx, store: &str, accessor: &str) -> Result<Option<Accessor>> {
    if accessor.is_empty() || !accessor.bytes().all(|c| c.is_ascii_hexdigit() || c == b'-') {
        return Ok(None);
    }
    ACCESSORS.get(cx, &key(store, accessor)).await
}

/// The moment in the name of an expiry record.
pub(super) fn moment(name: &str) -> Option<Timestamp> {
    let (moment, _) = name.split_once('.')?;
    i64::from_str_radix(moment, 16).ok().map(Timestamp::from_nanos)
}

fn expiry_name(expires: Timestamp, hash: &str) -> String {
    format!("{:016x}.{hash}", expires.nanos().max(0))
}

fn key(store: &str, name: &str) -> String {
    let mut key = String::with_capacity(store.len() + 1 + name.len());
    key.push_str(store);
    key.push('/');
    key.push_str(name);
    key
}
