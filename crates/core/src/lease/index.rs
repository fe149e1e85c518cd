//! The indexes of tokens and leases, all under the token view. Unseal loads none of them.
//!
//! ```text
//! expiry/<end><token>            tokens in the order of their expiry
//! ends/<mount>/<end><lease>      leases in the order of their expiry, for each mount
//! lease/<path>/h<token>          the tokens that a path issued
//! lease/<path>/<lease>           the leases that a path issued
//! lease-of/<namespace>/<path>/   the same of a namespace other than root
//! held/<token>/<lease>           the leases that a token owns
//! irrevocable/<mount>/<lease>    the leases that an operator must handle
//! counted/<token>                the counter of a lease count quota that has counted the token
//! claim/<mount>/<claim>          a claim that only one lease of a mount can have, such as a reused name
//! ```
//!
//! `<end>` is ten hex digits of seconds, so that expired entries sort first.

use bytes::Bytes;
use keepfast_crypto::hash::sha256;
use keepfast_framework::Timestamp;
use keepfast_storage::{Tx, View};

use super::record::{LeaseId, LeaseRecord, State};
use crate::namespace::NamespaceId;
use crate::token::{TokenKey, TokenRecord};

/// The folder of tokens by expiry.
pub(crate) const EXPIRY: &str = "expiry/";
/// The folder of leases by expiry.
pub(crate) const ENDS: &str = "ends/";
/// The folder of lease ids of the root namespace.
const LEASES: &str = "lease/";
/// The folder of the lease ids of all other namespaces, with a folder for each.
pub(crate) const LEASES_OF_NAMESPACES: &str = "lease-of/";
/// The folder of leases by their token.
pub(crate) const HELD: &str = "held/";
/// The folder of irrevocable leases.
pub(crate) const IRREVOCABLE: &str = "irrevocable/";

/// The folder of the lease ids of a namespace.
pub(crate) fn leases_of(namespace: &NamespaceId) -> String {
    if namespace.is_root() { LEASES.to_owned() } else { format!("{LEASES_OF_NAMESPACES}{}/", namespace.as_str()) }
}

/// Adds a token to both of its indexes.
pub(crate) fn add_token(tx: &mut Tx, view: &View, record: &TokenRecord, key: &TokenKey, end: Timestamp) {
    tx.put(view, &expiry_key(second_of(end), key), Bytes::new());
    tx.put(view, &token_path_key(record, key), Bytes::new());
}

/// Removes a token from both of its indexes.
pub(crate) fn remove_token(tx: &mut Tx, view: &View, record: &TokenRecord, key: &TokenKey, end: Timestamp) {
    tx.delete(view, &expiry_key(second_of(end), key));
    tx.delete(view, &token_path_key(record, key));
}

/// Changes the expiry of a token.
pub(crate) fn move_token(tx: &mut Tx, view: &View, key: &TokenKey, old: Timestamp, end: Timestamp) {
    // An entry is written only where none exists, because commits change the count of entries.
    if second_of(old) != second_of(end) {
        tx.delete(view, &expiry_key(second_of(old), key));
        tx.put(view, &expiry_key(second_of(end), key), Bytes::new());
    }
}

/// Adds a lease to all of its indexes, as its record states.
pub(crate) fn add_lease(tx: &mut Tx, view: &View, id: &LeaseId, record: &LeaseRecord) {
    tx.put(view, &lease_path_key(record, id), Bytes::new());
    if let Some(owner) = &record.owner {
        tx.put(view, &held_key(owner, id), Bytes::new());
    }
    if let Some(claim) = &record.claim {
        tx.put(view, claim, Bytes::copy_from_slice(id.as_str().as_bytes()));
    }
    place_lease(tx, view, id, record);
}

/// Removes a lease from all of its indexes.
pub(crate) fn remove_lease(tx: &mut Tx, view: &View, id: &LeaseId, record: &LeaseRecord) {
    tx.delete(view, &lease_path_key(record, id));
    if let Some(owner) = &record.owner {
        tx.delete(view, &held_key(owner, id));
    }
    if let Some(claim) = &record.claim {
        tx.delete(view, claim);
    }
    tx.delete(view, &place_of(id, record));
}

/// Adds a lease to the folder of its state: by expiry, or irrevocable.
pub(crate) fn place_lease(tx: &mut Tx, view: &View, id: &LeaseId, record: &LeaseRecord) {
    tx.put(view, &place_of(id, record), Bytes::new());
}

/// Moves a lease from the key `before` to the folder of its changed state.
pub(crate) fn move_lease(tx: &mut Tx, view: &View, id: &LeaseId, record: &LeaseRecord, before: &str) {
    if place_of(id, record) != before {
        tx.delete(view, before);
        place_lease(tx, view, id, record);
    }
}

/// The key of a lease by its state.
pub(crate) fn place_of(id: &LeaseId, record: &LeaseRecord) -> String {
    match record.state {
        State::Irrevocable { .. } => irrevocable_key(&record.mount, id),
        _ => format!("{ENDS}{}/{}", record.mount, end_name(id, record)),
    }
}

/// The name of a lease in the expiry folder of its mount.
pub(crate) fn end_name(id: &LeaseId, record: &LeaseRecord) -> String {
    format!("{:010x}{}", second_of(record.due), id.as_str())
}

/// The key of an irrevocable lease.
pub(crate) fn irrevocable_key(mount: &str, id: &LeaseId) -> String {
    format!("{IRREVOCABLE}{mount}/{}", id.as_str())
}

/// Notes which counter has counted a new token: it is released also when the record of the token cannot be read.
pub(crate) fn note_counter(tx: &mut Tx, view: &View, key: &TokenKey, counter: Option<&str>) {
    if let Some(counter) = counter {
        tx.put(view, &counted_key(key), Bytes::copy_from_slice(counter.as_bytes()));
    }
}

/// The key of the counter that has counted a token.
pub(crate) fn counted_key(key: &TokenKey) -> String {
    format!("counted/{}", key.as_str())
}

/// The key of a claim of a lease of this mount; a claim may have any characters and any length.
pub(crate) fn claim_key(mount: &str, claimed: &str) -> String {
    format!("claim/{mount}/{}", hex::encode(&sha256(claimed.as_bytes())[..16]))
}

/// The key of a lease under its token.
pub(crate) fn held_key(owner: &TokenKey, id: &LeaseId) -> String {
    format!("{HELD}{}/{}", owner.as_str(), id.as_str())
}

/// Parses a name in the expiry folder of tokens.
pub(crate) fn parse_expiry(name: &str) -> Option<(i64, TokenKey)> {
    let second = i64::from_str_radix(name.get(..10)?, 16).ok()?;
    Some((second, TokenKey::parse(name.get(10..)?)?))
}

/// Parses a name in the expiry folder of the leases of a mount.
pub(crate) fn parse_end(name: &str) -> Option<(i64, LeaseId)> {
    let second = i64::from_str_radix(name.get(..10)?, 16).ok()?;
    Some((second, LeaseId::parse(name.get(10..)?)?))
}

/// The second of an expiry, rounded up, so that an entry is due when its whole second has passed.
pub(crate) fn second_of(end: Timestamp) -> i64 {
    end.unix().max(0) + 1
}

/// The key of an entry in the expiry folder of tokens.
pub(crate) fn expiry_key(second: i64, key: &TokenKey) -> String {
    format!("{EXPIRY}{second:010x}{}", key.as_str())
}

fn lease_path_key(record: &LeaseRecord, id: &LeaseId) -> String {
    format!("{}{}/{}", leases_of(&record.namespace), record.path, id.as_str())
}

fn token_path_key(record: &TokenRecord, key: &TokenKey) -> String {
    // A wrapped list request created its token at a path with a trailing slash.
    format!("{}{}/h{}", leases_of(&record.namespace), record.path.trim_end_matches('/'), key.as_str())
}

/// The last part of a lease id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LeaseName {
    /// A token.
    Token(TokenKey),
    /// A lease of an engine.
    Lease(LeaseId),
}

impl LeaseName {
    /// Parses the last part of a lease id.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name.strip_prefix('h').and_then(TokenKey::parse) {
            Some(key) => Some(LeaseName::Token(key)),
            None => LeaseId::parse(name).map(LeaseName::Lease),
        }
    }
}

/// Splits a lease id into its path and its last part.
pub(crate) fn parse_lease_id(id: &str) -> Option<(&str, LeaseName)> {
    let (path, name) = id.rsplit_once('/')?;
    Some((path, LeaseName::parse(name)?))
}
