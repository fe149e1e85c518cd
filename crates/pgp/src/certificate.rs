//! Certificates (RFC 4880, section 11.1): which key of a certificate may encrypt now.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::secret::SecretString;

use crate::CertificateError;
use crate::key::PublicKey;
use crate::packet::{MAX_BYTES, Packet, packets, tag};
use crate::signature::{Properties, Signature, Unread};

/// The most signatures that are verified.
const MAX_VERIFIED: usize = 64;
/// The longest user id in bytes, as in GnuPG.
const MAX_USER_ID: usize = 2048;

/// Types of signatures.
const CERTIFICATIONS: std::ops::RangeInclusive<u8> = 0x10..=0x13;
const SUBKEY_BINDING: u8 = 0x18;
const DIRECT: u8 = 0x1f;
const KEY_REVOCATION: u8 = 0x20;
const SUBKEY_REVOCATION: u8 = 0x28;
const CERTIFICATION_REVOCATION: u8 = 0x30;

/// A certificate that was checked, with the key that encrypts.
///
/// A revocation by the key itself counts also where it cannot be verified, with SHA-1 or of version 3. Revocations by
/// another key that the certificate names (designated revokers, section 5.2.3.15) are not followed.
pub struct Certificate {
    fingerprint: String,
    /// The body of the packet of the key that encrypts.
    pub(crate) key: Vec<u8>,
}

impl Certificate {
    /// Reads a certificate in base64, without armor, as `pgp_keys` has it; `now` is in seconds since the epoch.
    ///
    /// # Errors
    /// [`CertificateError`] with the check that failed.
    pub fn from_base64(text: &str, now: u64) -> Result<Self, CertificateError> {
        let text = text.trim();
        if text.starts_with("keybase:") {
            return Err(CertificateError::Keybase);
        }
        if text.starts_with("-----BEGIN PGP") {
            return Err(CertificateError::Armored);
        }
        if text.len() > MAX_BYTES * 2 {
            return Err(CertificateError::TooLong);
        }
        let packed: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        Self::from_bytes(&STANDARD.decode(packed).map_err(|_| CertificateError::NotBase64)?, now)
    }

    /// Reads a certificate from its packets; `now` is in seconds since the epoch.
    ///
    /// # Errors
    /// [`CertificateError`] with the check that failed.
    pub fn from_bytes(bytes: &[u8], now: u64) -> Result<Self, CertificateError> {
        let packets = packets(bytes)?;
        let (first, rest) = packets.split_first().ok_or(CertificateError::Malformed)?;
        if first.tag == tag::SECRET_KEY {
            return Err(CertificateError::Private);
        }
        let primary = PublicKey::read(first.body).filter(|_| first.tag == tag::PUBLIC_KEY);
        let primary = primary.ok_or(CertificateError::Malformed)?;
        if rest.iter().any(|packet| packet.tag == tag::PUBLIC_KEY) {
            return Err(CertificateError::Malformed);
        }
        // Before anything is copied: no signature of such a key can be verified.
        if !primary.can_verify() {
            return Err(CertificateError::Unbound);
        }
        let mut check = Check { fingerprint: primary.fingerprint(), primary: &primary, now, verified: 0 };
        let parts = parts(rest);
        let described = check.primary(&parts)?;
        let mut best: Option<PublicKey<'_>> = None;
        for part in parts.iter().filter(|part| part.tag == tag::PUBLIC_SUBKEY && !part.signatures.is_empty()) {
            let Some(subkey) = check.subkey(part)? else { continue };
            if best.as_ref().is_none_or(|best| subkey.created >= best.created) {
                best = Some(subkey);
            }
        }
        let key = match best {
            Some(subkey) => subkey.body,
            None if primary.can_encrypt() && described.encrypts(true) => primary.body,
            None => return Err(CertificateError::CannotEncrypt),
        };
        Certificate { fingerprint: hex::encode(check.fingerprint), key: key.to_vec() }.proven()
    }

    /// The certificate, if an encryption to it succeeds.
    fn proven(self) -> Result<Self, CertificateError> {
        self.encrypt(&SecretString::new(String::new())).map_err(|_| CertificateError::CannotEncrypt)?;
        Ok(self)
    }

    /// The fingerprint of the certificate, 40 digits of hexadecimal in lower case.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// A user id, a user attribute, a subkey, or the primary key itself, with the signatures after it.
struct Part<'a> {
    tag: u8,
    body: &'a [u8],
    signatures: Vec<Signature<'a>>,
    /// Signatures that cannot be verified.
    unread: Vec<Unread>,
}

impl<'a> Part<'a> {
    fn new(tag: u8, body: &'a [u8]) -> Self {
        Part { tag, body, signatures: Vec::new(), unread: Vec::new() }
    }
}

/// The parts of a certificate, the primary key first. Packets of other types are skipped.
fn parts<'a>(packets: &[Packet<'a>]) -> Vec<Part<'a>> {
    let mut parts = vec![Part::new(tag::PUBLIC_KEY, &[])];
    for packet in packets {
        match packet.tag {
            tag::USER_ID | tag::USER_ATTRIBUTE | tag::PUBLIC_SUBKEY => {
                parts.push(Part::new(packet.tag, packet.body));
            }
            tag::SIGNATURE => {
                let signature = Signature::read(packet.body);
                let unread = if signature.is_none() { Unread::read(packet.body) } else { None };
                let kind = signature.as_ref().map(|signature| signature.kind).or(unread.as_ref().map(|one| one.kind));
                // A revocation of the primary key is that wherever it is.
                let part = if kind == Some(KEY_REVOCATION) { parts.first_mut() } else { parts.last_mut() };
                if let Some(part) = part {
                    part.signatures.extend(signature);
                    part.unread.extend(unread);
                }
            }
            _ => {}
        }
    }
    parts
}

/// The check of a certificate at a time.
struct Check<'a> {
    primary: &'a PublicKey<'a>,
    fingerprint: Vec<u8>,
    now: u64,
    verified: usize,
}

impl Check<'_> {
    /// Checks the primary key; returns what its newest self-signature states.
    fn primary(&mut self, parts: &[Part<'_>]) -> Result<Properties, CertificateError> {
        let hashed = self.primary.hashed();
        let mut newest: Option<Properties> = None;
        let mut is_bound = false;
        for part in parts {
            let (signed, is_own): (Vec<u8>, fn(u8) -> bool) = match part.tag {
                tag::PUBLIC_KEY => (hashed.clone(), |kind| kind == DIRECT),
                tag::USER_ID if part.body.len() <= MAX_USER_ID && !part.signatures.is_empty() => {
                    (user_id(&hashed, part.body), |kind| CERTIFICATIONS.contains(&kind))
                }
                _ => continue,
            };
            if part.tag == tag::PUBLIC_KEY && self.is_revoked(part, KEY_REVOCATION, &[&hashed])? {
                return Err(CertificateError::Revoked);
            }
            let Some(found) = self.newest(part, is_own, &[&signed])? else { continue };
            let revoked = self.newest(part, |kind| kind == CERTIFICATION_REVOCATION, &[&signed])?;
            if part.tag == tag::USER_ID {
                let is_doubtful = self.is_doubtful(part, CERTIFICATION_REVOCATION);
                if is_doubtful || revoked.is_some_and(|revoked| revoked.created >= found.created) {
                    continue;
                }
                is_bound = true;
            }
            if newest.as_ref().is_none_or(|newest| newest.created <= found.created) {
                newest = Some(found);
            }
        }
        let newest = newest.filter(|_| is_bound).ok_or(CertificateError::Unbound)?;
        if newest.key_is_current(self.primary, self.now) { Ok(newest) } else { Err(CertificateError::Expired) }
    }

    /// A subkey, if the primary key binds it for encryption now.
    fn subkey<'a>(&mut self, part: &Part<'a>) -> Result<Option<PublicKey<'a>>, CertificateError> {
        let Some(subkey) = PublicKey::read(part.body).filter(PublicKey::can_encrypt) else { return Ok(None) };
        let hashed = [self.primary.hashed(), subkey.hashed()].concat();
        if self.is_revoked(part, SUBKEY_REVOCATION, &[&hashed])? {
            return Ok(None);
        }
        let Some(binding) = self.newest(part, |kind| kind == SUBKEY_BINDING, &[&hashed])? else { return Ok(None) };
        let is_valid = binding.encrypts(false) && binding.key_is_current(&subkey, self.now);
        Ok(is_valid.then_some(subkey))
    }

    /// What the newest valid signature of these types by the primary key states.
    fn newest(
        &mut self,
        part: &Part<'_>,
        is_of_kind: impl Fn(u8) -> bool,
        signed: &[&[u8]],
    ) -> Result<Option<Properties>, CertificateError> {
        let is_candidate = |signature: &&Signature<'_>| {
            let properties = &signature.properties;
            is_of_kind(signature.kind) && properties.may_be_of(&self.fingerprint) && properties.is_current(self.now)
        };
        // Of two that are as new, the later one in the certificate counts.
        let mut candidates: Vec<_> = part.signatures.iter().rev().filter(is_candidate).collect();
        candidates.sort_by_key(|signature| std::cmp::Reverse(signature.properties.created));
        for signature in candidates {
            if self.is_valid(signature, signed)? {
                return Ok(Some(signature.properties.clone()));
            }
        }
        Ok(None)
    }

    /// Whether a part has a revocation of this type that cannot be verified and may be by the primary key.
    fn is_doubtful(&self, part: &Part<'_>, kind: u8) -> bool {
        part.unread.iter().any(|unread| unread.kind == kind && unread.may_be_of(&self.fingerprint))
    }

    /// Whether the primary key has revoked a key, at whatever time.
    fn is_revoked(&mut self, part: &Part<'_>, kind: u8, signed: &[&[u8]]) -> Result<bool, CertificateError> {
        if self.is_doubtful(part, kind) {
            return Ok(true);
        }
        for signature in part.signatures.iter().filter(|signature| signature.kind == kind) {
            if signature.properties.may_be_of(&self.fingerprint) && self.is_valid(signature, signed)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a signature is by the primary key. The number of verifications is bounded.
    fn is_valid(&mut self, signature: &Signature<'_>, signed: &[&[u8]]) -> Result<bool, CertificateError> {
        self.verified += 1;
        if self.verified > MAX_VERIFIED {
            return Err(CertificateError::TooLong);
        }
        Ok(signature.is_by(self.primary, signed))
    }
}

/// The primary key and a user id as certifications hash them.
fn user_id(primary: &[u8], id: &[u8]) -> Vec<u8> {
    let length = u32::try_from(id.len()).unwrap_or(u32::MAX).to_be_bytes();
    [primary, &[0xb4], &length, id].concat()
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
