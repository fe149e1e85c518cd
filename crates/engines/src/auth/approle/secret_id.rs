//! A secret id as it is stored, with its accessor and its place in the order of expiry: written and removed together.

use std::collections::BTreeMap;

use keepfast_framework::{Cx, Records, Result, Timestamp};
use serde::{Deserialize, Serialize};

/// Secret ids by `<store>/<keyed hash>`.
const SECRET_IDS: Records<SecretId> = Records::at("secret-id/");
/// Keyed hashes of secret ids by `<store>/<accessor>`.
pub(super) const ACCESSORS: Records<Accessor> = Records::at("accessor/");
/// Secret ids by `<moment>.<keyed hash>`; the moment is in nanoseconds, as 16 hexadecimal digits, so names sort by time.
pub(super) const EXPIRIES: Records<Expiry> = Records::at("expiry/");

/// What a secret id is good for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SecretId {
    /// Names it to whoever must not know it.
    pub(super) accessor: String,
    /// When it was made.
    pub(super) created: Timestamp,
    /// When its record last changed.
    pub(super) updated: Timestamp,
    /// When it stops to be good; `None` for never.
    pub(super) expires: Option<Timestamp>,
    /// The life that was asked for, in seconds; zero for ever.
    pub(super) ttl: u64,
    /// How many logins are left; zero for any number.
    pub(super) num_uses: u64,
    /// Where a login with it may come from.
    pub(super) cidr_list: Vec<String>,
    /// Where its tokens may be used from, instead of the role's.
    pub(super) token_bound_cidrs: Vec<String>,
    /// What its tokens carry.
    pub(super) metadata: BTreeMap<String, String>,
}

/// What an accessor means.
#[derive(Serialize, Deserialize)]
pub(super) struct Accessor {
    /// The keyed hash of the secret id.
    pub(super) hash: String,
    /// When it expires.
    pub(super) expires: Option<Timestamp>,
}

/// What expires.
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
    /// Whether it is still good at `now`.
    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// The secret id with this keyed hash, expired or not.
pub(super) async fn get(cx: &mut Cx, store: &str, hash: &str) -> Result<Option<SecretId>> {
    SECRET_IDS.get(cx, &place(store, hash)).await
}

/// Writes a new secret id with all that leads to it.
pub(super) fn add(cx: &mut Cx, store: &str, hash: &str, secret_id: &SecretId) -> Result<()> {
    update(cx, store, hash, secret_id)?;
    let accessor = Accessor { hash: hash.to_owned(), expires: secret_id.expires };
    ACCESSORS.put(cx, &place(store, &secret_id.accessor), &accessor)?;
    if let Some(expires) = secret_id.expires {
        let expiry = Expiry { store: store.to_owned(), hash: hash.to_owned(), accessor: secret_id.accessor.clone() };
        EXPIRIES.put(cx, &expiry_name(expires, hash), &expiry)?;
    }
    Ok(())
}

/// Writes a secret id whose accessor and expiry have not changed.
pub(super) fn update(cx: &mut Cx, store: &str, hash: &str, secret_id: &SecretId) -> Result<()> {
    SECRET_IDS.put(cx, &place(store, hash), secret_id)
}

/// Removes a secret id with all that leads to it.
pub(super) fn remove(cx: &mut Cx, store: &str, hash: &str, accessor: &str, expires: Option<Timestamp>) {
    SECRET_IDS.delete(cx, &place(store, hash));
    ACCESSORS.delete(cx, &place(store, accessor));
    if let Some(expires) = expires {
        EXPIRIES.delete(cx, &expiry_name(expires, hash));
    }
}

/// What an accessor of this store means. An accessor that could be no name in storage means nothing.
pub(super) async fn of_accessor(cx: &mut Cx, store: &str, accessor: &str) -> Result<Option<Accessor>> {
    if accessor.is_empty() || !accessor.bytes().all(|c| c.is_ascii_hexdigit() || c == b'-') {
        return Ok(None);
    }
    ACCESSORS.get(cx, &place(store, accessor)).await
}

/// The moment in the name of an expiry.
pub(super) fn moment(name: &str) -> Option<Timestamp> {
    let (moment, _) = name.split_once('.')?;
    i64::from_str_radix(moment, 16).ok().map(Timestamp::from_nanos)
}

fn expiry_name(expires: Timestamp, hash: &str) -> String {
    format!("{:016x}.{hash}", expires.nanos().max(0))
}

fn place(store: &str, name: &str) -> String {
    let mut place = String::with_capacity(store.len() + 1 + name.len());
    place.push_str(store);
    place.push('/');
    place.push_str(name);
    place
}
