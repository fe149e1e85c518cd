//! Signatures of version 4 (RFC 4880, section 5.2.3): their subpackets and what they sign.

use keepfast_crypto::keys::digest::Hash;

use crate::key::PublicKey;
use crate::packet::read_length;

/// The most subpackets of a signature.
const MAX_SUBPACKETS: usize = 128;

/// Flags of a key: it encrypts communications, and storage.
const ENCRYPTS: u8 = 0x04 | 0x08;

/// A signature that is not verified.
pub(crate) struct Signature<'a> {
    pub(crate) kind: u8,
    hash: Hash,
    /// From the version to the hashed subpackets.
    hashed: &'a [u8],
    /// The first bytes of the digest.
    check: [u8; 2],
    numbers: &'a [u8],
    pub(crate) properties: Properties,
}

/// What the hashed subpackets state.
#[derive(Clone, Default)]
pub(crate) struct Properties {
    /// Seconds since the epoch.
    pub(crate) created: u64,
    /// Seconds after `created` at which the signature expires; 0 is never.
    expires_after: u64,
    /// Seconds after the creation of the key at which the key expires; 0 is never.
    key_expires_after: u64,
    /// The flags of the key, when they are stated.
    flags: Option<u8>,
    /// The id of the issuer, from hashed or other subpackets.
    issuer: Option<[u8; 8]>,
}

impl Properties {
    /// Whether the signature is valid at this time.
    pub(crate) fn is_current(&self, now: u64) -> bool {
        self.created <= now && (self.expires_after == 0 || now < self.created + self.expires_after)
    }

    /// Whether the key that it describes is valid at this time.
    pub(crate) fn key_is_current(&self, key: &PublicKey<'_>, now: u64) -> bool {
        key.created <= now && (self.key_expires_after == 0 || now < key.created + self.key_expires_after)
    }

    /// Whether the key may encrypt; `unstated` where there are no flags.
    pub(crate) fn encrypts(&self, unstated: bool) -> bool {
        self.flags.map_or(unstated, |flags| flags & ENCRYPTS != 0)
    }

    /// Whether it can be of the key with this fingerprint.
    pub(crate) fn may_be_of(&self, fingerprint: &[u8]) -> bool {
        self.issuer.is_none_or(|issuer| fingerprint.ends_with(&issuer))
    }
}

impl<'a> Signature<'a> {
    /// Reads the body of a packet; `None` for other versions and hashes, for SHA-1 and MD5, and for a critical subpacket
    /// that is unknown: see [`Unread`].
    pub(crate) fn read(body: &'a [u8]) -> Option<Self> {
        let ([4, kind, _, hash, a, b], rest) = body.split_first_chunk::<6>()? else { return None };
        let hash = match hash {
            8 => Hash::Sha256,
            9 => Hash::Sha384,
            10 => Hash::Sha512,
            11 => Hash::Sha224,
            _ => return None,
        };
        let length = usize::from(u16::from_be_bytes([*a, *b]));
        let (subpackets, rest) = rest.split_at_checked(length)?;
        let (other, rest) = rest.split_first_chunk::<2>()?;
        let (other, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*other)))?;
        let (check, numbers) = rest.split_first_chunk::<2>()?;
        let mut properties = Properties::default();
        read_subpackets(subpackets, |kind, is_critical, value| properties.add(kind, is_critical, value))?;
        read_subpackets(other, |kind, _, value| {
            if kind == 16 && properties.issuer.is_none() {
                properties.issuer = value.try_into().ok();
            }
            Some(())
        })?;
        // A signature without a creation time is void (section 5.2.3.4).
        if properties.created == 0 {
            return None;
        }
        let hashed = &body[..6 + length];
        Some(Signature { kind: *kind, hash, hashed, check: *check, numbers, properties })
    }

    /// Whether a key has signed these parts.
    pub(crate) fn is_by(&self, key: &PublicKey<'_>, parts: &[&[u8]]) -> bool {
        let length = u32::try_from(self.hashed.len()).unwrap_or(u32::MAX).to_be_bytes();
        let mut signed = parts.concat();
        for part in [self.hashed, &[4, 0xff], &length] {
            signed.extend_from_slice(part);
        }
        let digest = self.hash.digest(&signed);
        digest.starts_with(&self.check) && key.verifies(self.hash, &digest, self.numbers)
    }
}

/// A signature that cannot be verified. A revocation of this kind counts: it may be valid.
pub(crate) struct Unread {
    pub(crate) kind: u8,
    issuer: Option<[u8; 8]>,
}

impl Unread {
    /// Reads what [`Signature::read`] did not; `None` without a type of signature.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        match body {
            // Section 5.2.2: a length, the type, the time, the id of the issuer.
            [2 | 3, _, kind, rest @ ..] => {
                let issuer = rest.get(4..12).and_then(|id| id.try_into().ok());
                Some(Unread { kind: *kind, issuer })
            }
            [_, kind, ..] => Some(Unread { kind: *kind, issuer: issuer_of(body) }),
            _ => None,
        }
    }

    /// Whether it can be of the key with this fingerprint.
    pub(crate) fn may_be_of(&self, fingerprint: &[u8]) -> bool {
        self.issuer.is_none_or(|issuer| fingerprint.ends_with(&issuer))
    }
}

/// The issuer that the subpackets of a signature of version 4 state; `None` where they are malformed or state several.
fn issuer_of(body: &[u8]) -> Option<[u8; 8]> {
    let ([4, _, _, _, a, b], rest) = body.split_first_chunk::<6>()? else { return None };
    let (hashed, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*a, *b])))?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (other, _) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let mut found: Vec<[u8; 8]> = Vec::new();
    for subpackets in [hashed, other] {
        read_subpackets(subpackets, |kind, _, value| {
            match kind {
                16 => found.push(value.try_into().ok()?),
                // The version of the key, and its fingerprint.
                33 => found.push(*value.strip_prefix(&[4])?.last_chunk()?),
                _ => {}
            }
            Some(())
        })?;
    }
    let first = *found.first()?;
    found.iter().all(|issuer| *issuer == first).then_some(first)
}

impl Properties {
    /// Adds a hashed subpacket; `None` for a critical one that is unknown, and for a malformed one.
    fn add(&mut self, kind: u8, is_critical: bool, value: &[u8]) -> Option<()> {
        let seconds = |value: &[u8]| value.try_into().ok().map(|digits| u64::from(u32::from_be_bytes(digits)));
        match kind {
            2 => self.created = seconds(value)?,
            3 => self.expires_after = seconds(value)?,
            9 => self.key_expires_after = seconds(value)?,
            16 => self.issuer = Some(value.try_into().ok()?),
            27 => self.flags = Some(value.first().copied().unwrap_or(0)),
            // Preferences, features, notices and the fingerprint of the issuer change nothing here.
            4 | 7 | 11 | 20..=26 | 28..=35 => {}
            _ if is_critical => return None,
            _ => {}
        }
        Some(())
    }
}

/// Passes each subpacket on: its type, whether it is critical, its value.
fn read_subpackets(mut bytes: &[u8], mut add: impl FnMut(u8, bool, &[u8]) -> Option<()>) -> Option<()> {
    let mut count = 0;
    while !bytes.is_empty() {
        count += 1;
        let (length, rest) = read_length(bytes)?;
        let (subpacket, rest) = rest.split_at_checked(length)?;
        let (kind, value) = subpacket.split_first().filter(|_| count <= MAX_SUBPACKETS)?;
        add(kind & 0x7f, kind & 0x80 != 0, value)?;
        bytes = rest;
    }
    Some(())
}
