//! Ids of tokens, and the keyed hashes by which their records are found.
//!
//! A service token is `hvs.` and 92 characters of base64url: a version byte, a coarse time of issue, 64 random bytes.
//! Its accessor is derived from it with a key, and its record is stored under the time and a keyed hash of the
//! accessor. So token and accessor lead to the same record, a login needs no accessor index, and writes go to the end
//! of the storage tree, because new keys begin with the current time. No stored data reveals the token. A token of a
//! namespace other than root, and its accessor, end in `.` and the id of the namespace.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keepfast_crypto::hmac::HmacKey;
use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::Timestamp;
use serde::{Deserialize, Serialize};

use crate::namespace::{NamespaceId, split_suffix};

/// The prefix of service tokens.
pub(crate) const SERVICE: &str = "hvs.";
/// The prefix of batch tokens.
pub(crate) const BATCH: &str = "hvb.";

/// The length of a service token.
pub(crate) const SERVICE_LENGTH: usize = SERVICE.len() + ID_BYTES / 3 * 4;

const VERSION: u8 = 1;
const ID_BYTES: usize = 69;
/// The step of the coarse time at the start of a key, in seconds, as a power of two.
const COARSE_BITS: u32 = 6;
const ACCESSOR_TIME: usize = 6;
const ACCESSOR_HASH: usize = 18;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The storage key of a token's record: eight hex digits of coarse time, then a keyed hash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct TokenKey(String);

impl TokenKey {
    /// The key as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses a key that is part of a lease id or of an index entry; `None` if it is invalid.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        (text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
            .then(|| TokenKey(text.to_owned()))
    }
}

/// The keyed hashes of one cluster. Their keys are created at init and stored behind the barrier.
pub(crate) struct Ids {
    identity: HmacKey,
    accessor: HmacKey,
    place: HmacKey,
    store: HmacKey,
}

/// The values that are derived from the text of a token.
pub(crate) struct Located {
    /// The key of its record.
    pub(crate) key: TokenKey,
    /// Its accessor.
    pub(crate) accessor: String,
    /// A keyed hash of the whole text, which is compared with that of the record.
    pub(crate) hash: [u8; 32],
}

impl Ids {
    /// Keyed hashes from 128 random bytes, 32 for each hash.
    pub(crate) fn new(secret: &[u8; 128]) -> Self {
        let part = |n: usize| HmacKey::new(&secret[n * 32..(n + 1) * 32]);
        Ids { identity: part(0), accessor: part(1), place: part(2), store: part(3) }
    }

    /// A new service token of a namespace.
    pub(crate) fn service(&self, now: Timestamp, namespace: &NamespaceId) -> SecretString {
        let mut raw = zeroed();
        random::fill(&mut raw[5..]);
        raw[0] = VERSION;
        raw[1..5].copy_from_slice(&coarse(now).to_be_bytes());
        let text = format!("{SERVICE}{}{}", URL_SAFE_NO_PAD.encode(raw), namespace.suffix());
        SecretString::new(text)
    }

    /// The key of the record of a token, if it has one. Any text has a key, so an invalid token costs the same time.
    pub(crate) fn locate(&self, token: &str) -> Located {
        let mac = self.accessor.mac(token.as_bytes());
        let mut hash = 0u128;
        for byte in &mac[..13] {
            hash = hash << 8 | u128::from(*byte);
        }
        let mut accessor = String::with_capacity(ACCESSOR_TIME + ACCESSOR_HASH);
        base62(u128::from(issue_time(token)), ACCESSOR_TIME, &mut accessor);
        base62(hash, ACCESSOR_HASH, &mut accessor);
        if let (_, Some(namespace)) = split_suffix(token) {
            accessor.push('.');
            accessor.push_str(namespace);
        }
        let key = self.place_of(&accessor);
        Located { key, accessor, hash: self.hash(token) }
    }

    /// The keyed hash of the whole text of a token, as its record has it.
    pub(crate) fn hash(&self, token: &str) -> [u8; 32] {
        self.identity.mac(token.as_bytes())
    }

    /// The key of the record of the token with this accessor. Any text has a key.
    pub(crate) fn place_of(&self, accessor: &str) -> TokenKey {
        let time = accessor.get(..ACCESSOR_TIME).map_or(0, unbase62);
        let mac = self.place.mac(accessor.as_bytes());
        let mut key = format!("{time:08x}");
        for byte in &mac[..16] {
            key.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
            key.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        }
        TokenKey(key)
    }

    /// The unguessable name of the cubbyhole of a token, from the hash in its record.
    pub(crate) fn store_of(&self, hash: &[u8; 32]) -> String {
        hex::encode(&self.store.mac(hash)[..20])
    }
}

fn zeroed() -> [u8; ID_BYTES] {
    [0; ID_BYTES]
}

fn coarse(now: Timestamp) -> u32 {
    u32::try_from(now.unix().max(0) >> COARSE_BITS).unwrap_or(u32::MAX)
}

/// The coarse time in a generated token; zero for a chosen id.
fn issue_time(token: &str) -> u32 {
    let Some(text) = split_suffix(token).0.strip_prefix(SERVICE) else { return 0 };
    let mut raw = zeroed();
    match URL_SAFE_NO_PAD.decode_slice(text, &mut raw) {
        Ok(ID_BYTES) if raw[0] == VERSION => u32::from_be_bytes([raw[1], raw[2], raw[3], raw[4]]),
        _ => 0,
    }
}

fn base62(mut value: u128, width: usize, out: &mut String) {
    let mut digits = [0u8; 24];
    for digit in digits[..width].iter_mut().rev() {
        *digit = BASE62[(value % 62) as usize];
        value /= 62;
    }
    out.extend(digits[..width].iter().map(|d| char::from(*d)));
}

fn unbase62(text: &str) -> u32 {
    let value = text.bytes().try_fold(0u64, |value, byte| {
        let digit = BASE62.iter().position(|b| *b == byte)?;
        Some(value * 62 + digit as u64)
    });
    value.and_then(|v| u32::try_from(v).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_and_accessor_lead_to_one_time_ordered_place() {
        let ids = Ids::new(&random::bytes::<128>());
        let early = ids.service(Timestamp::from_unix(1_795_000_000), &NamespaceId::root());
        let late = ids.service(Timestamp::from_unix(1_795_100_000), &NamespaceId::root());
        assert_eq!(early.expose().len(), SERVICE.len() + 92);
        let (a, b) = (ids.locate(early.expose()), ids.locate(late.expose()));
        assert!(a.key < b.key);
        assert_eq!(ids.place_of(&a.accessor), a.key);
        assert_eq!(a.accessor.len(), 24);
        assert_eq!(TokenKey::parse(a.key.as_str()), Some(a.key));
    }

    #[test]
    fn token_and_accessor_of_a_namespace_end_in_its_id() {
        let (ids, namespace) = (Ids::new(&random::bytes::<128>()), NamespaceId::parse("aB3dE6").unwrap());
        let token = ids.service(Timestamp::from_unix(1_795_000_000), &namespace);
        let located = ids.locate(token.expose());
        assert!(token.expose().ends_with(".aB3dE6") && located.accessor.ends_with(".aB3dE6"));
        assert_eq!(ids.place_of(&located.accessor), located.key);
        let own = ids.locate(namespace.own(token.expose()).unwrap());
        assert!(own.key != located.key && own.hash != located.hash, "it is no token without the id");
        assert_eq!(located.key.as_str()[..8], own.key.as_str()[..8], "both begin with the time");
    }

    #[test]
    fn any_text_has_a_place_and_none_fails() {
        let ids = Ids::new(&random::bytes::<128>());
        for token in ["", "root", "hvs.", "hvs.!!", "s.abc", "hvs.AQ", "ä"] {
            assert_eq!(ids.locate(token).key.as_str().len(), 40, "{token}");
            assert_eq!(ids.place_of(token).as_str().len(), 40, "{token}");
        }
    }
}
