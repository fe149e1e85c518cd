//! The index of ends, and the index of lease ids by path. Both live under the token view.
//!
//! `expiry/<end>/<key>` is ordered by end, so that what is due is read from its beginning and nothing is loaded at
//! unseal. `lease/<path>/h<key>` lists the leases that a path made.

use bytes::Bytes;
use keepfast_framework::Timestamp;
use keepfast_storage::{Tx, View};

use crate::token::TokenKey;

/// The folder of ends.
pub const EXPIRY: &str = "expiry/";
/// The folder of lease ids.
pub const LEASES: &str = "lease/";

/// Notes a new token in both indexes.
pub fn add_token(tx: &mut Tx, view: &View, path: &str, key: &TokenKey, end: Timestamp) {
    tx.put(view, &expiry_key(second_of(end), key), Bytes::new());
    tx.put(view, &lease_key(path, key), Bytes::new());
}

/// Takes a token out of both.
pub fn remove_token(tx: &mut Tx, view: &View, path: &str, key: &TokenKey, end: Timestamp) {
    tx.delete(view, &expiry_key(second_of(end), key));
    tx.delete(view, &lease_key(path, key));
}

/// Moves a token's end.
pub fn move_token(tx: &mut Tx, view: &View, _path: &str, key: &TokenKey, old: Timestamp, end: Timestamp) {
    tx.delete(view, &expiry_key(second_of(old), key));
    tx.put(view, &expiry_key(second_of(end), key), Bytes::new());
}

/// The second under which an end is noted: rounded up, so that an entry is due when its second has passed in whole.
pub fn second_of(end: Timestamp) -> i64 {
    end.unix().max(0) + 1
}

/// Reads the name of an entry in the folder of ends.
pub fn parse_expiry(name: &str) -> Option<(i64, TokenKey)> {
    let second = i64::from_str_radix(name.get(..10)?, 16).ok()?;
    Some((second, TokenKey::parse(name.get(10..)?)?))
}

/// The key of an entry in the folder of ends: ten hex digits of seconds, then the token's key.
pub fn expiry_key(second: i64, key: &TokenKey) -> String {
    format!("{EXPIRY}{second:010x}{}", key.as_str())
}

fn lease_key(path: &str, key: &TokenKey) -> String {
    format!("{LEASES}{path}/h{}", key.as_str())
}

/// The lease id of a token, as `sys/leases` shows it.
pub fn lease_id(path: &str, key: &TokenKey) -> String {
    format!("{path}/h{}", key.as_str())
}

/// The path and key in a token's lease id.
pub fn parse_lease_id(id: &str) -> Option<(&str, TokenKey)> {
    let (path, name) = id.rsplit_once('/')?;
    Some((path, TokenKey::parse(name.strip_prefix('h')?)?))
}
