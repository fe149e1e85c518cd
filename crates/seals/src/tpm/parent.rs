//! The storage key of the TPM below which keys are wrapped: a persistent one, or the primary key of the owner hierarchy.

use keepfast_crypto::hash::sha256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_crypto::{random, tpm};
use keepfast_framework::seal::SealError;

use super::device::{Device, malformed};
use super::failure::{Failure, Meaning};
use super::session::{Protect, Session, SessionKind, Target, kdfe};
use super::wire::{ALG_NULL, ALG_SHA256, Command, NO_SESSIONS, Reader, Writer};
use crate::call::{misconfigured, wrong_key};

/// `TPM_RH_OWNER`.
const OWNER: u32 = 0x4000_0001;
/// `TPM_ALG_RSA`, `TPM_ALG_ECC`, `TPM_ECC_NIST_P256`.
const ALG_RSA: u16 = 0x0001;
const ALG_ECC: u16 = 0x0023;
const NIST_P256: u16 = 0x0003;
/// `fixedTPM | fixedParent | sensitiveDataOrigin | userWithAuth | noDA | restricted | decrypt`: those of a storage root key.
const STORAGE_KEY: u32 = 0x0003_0472;
/// `fixedTPM | restricted | decrypt`: what a parent of keys that do not leave the TPM has.
const REQUIRED: u32 = 0x0003_0002;
/// The label of a salt.
const LABEL: &[u8] = b"SECRET\0";

/// A storage key.
pub(super) struct Parent {
    /// Its handle in this connection.
    pub(super) handle: u32,
    /// Its name: the algorithm and the digest of its public area.
    pub(super) name: Vec<u8>,
    key: PublicKey,
}

enum PublicKey {
    Rsa { modulus: Vec<u8>, exponent: u32 },
    P256 { x: Vec<u8>, y: Vec<u8> },
}

impl Parent {
    /// Finds the key of this persistent handle, or with 0 creates the primary key of the owner hierarchy, which is the same
    /// until the TPM is cleared. `auth` is the authorization value of the hierarchy.
    pub(super) fn open(device: &mut Device, handle: u32, auth: &[u8]) -> Result<Self, Failure> {
        if handle != 0 {
            return Self::persistent(device, handle);
        }
        // Without a salt, since there is no key for it yet. The response has nothing secret; its name is compared later.
        let mut session = Session::start(device, None, SessionKind::Hmac)?;
        let public = Writer::new().u16(ALG_ECC).u16(ALG_SHA256).u32(STORAGE_KEY).sized(&[]).aes_128_cfb();
        let public = public.u16(ALG_NULL).u16(NIST_P256).u16(ALG_NULL).sized(&[]).sized(&[]).finish();
        // No authorization value and no data; no outside data, no PCRs of the creation.
        let parameters = Writer::new().sized(&[0; 4]).sized(public.expose()).sized(&[]).u32(0).finish();
        let target = Target { handle: Some((OWNER, &OWNER.to_be_bytes())), auth };
        let (handle, created) = session.run(device, Command::CreatePrimary, &target, parameters, Protect::Hmac)?;
        device.flush(session.handle);
        let public = Reader::new(created.expose()).sized();
        let (Some(handle), Some(public)) = (handle, public) else {
            return Err(malformed(Command::CreatePrimary).into());
        };
        Ok(Self::of_public(handle, public)?)
    }

    fn persistent(device: &mut Device, handle: u32) -> Result<Self, Failure> {
        let response = match device.call(NO_SESSIONS, Command::ReadPublic, &handle.to_be_bytes()) {
            Err(failure) if failure.meaning() == Some(Meaning::NoHandle) => {
                let cause = format!("the TPM has no key at {handle:#010x}; it may have been cleared");
                return Err(wrong_key(cause).into());
            }
            other => other?,
        };
        let public = Reader::new(response.expose()).sized().ok_or_else(|| malformed(Command::ReadPublic))?;
        Ok(Self::of_public(handle, public)?)
    }

    /// The key of a public area, `TPMT_PUBLIC`.
    fn of_public(handle: u32, public: &[u8]) -> Result<Self, SealError> {
        let invalid = || misconfigured("the key of the TPM has an invalid public area");
        let mut reader = Reader::new(public);
        let kind = reader.u16().ok_or_else(invalid)?;
        let (name_alg, attributes) = reader.u16().zip(reader.u32()).ok_or_else(invalid)?;
        reader.sized().ok_or_else(invalid)?;
        if attributes & REQUIRED != REQUIRED {
            return Err(misconfigured("the key of the TPM is no storage key, or may leave the TPM"));
        }
        if name_alg != ALG_SHA256 {
            return Err(misconfigured("the name of the key of the TPM is not of SHA-256"));
        }
        // The cipher of its children, then no scheme, as a storage key has it.
        let cipher = (reader.u16(), reader.u16(), reader.u16(), reader.u16());
        if !matches!(cipher, (Some(_), Some(_), Some(_), Some(ALG_NULL))) {
            return Err(invalid());
        }
        let key = match kind {
            ALG_RSA => {
                let (_, exponent) = reader.u16().zip(reader.u32()).ok_or_else(invalid)?;
                let modulus = reader.sized().ok_or_else(invalid)?.to_vec();
                // 0 is the usual exponent.
                PublicKey::Rsa { modulus, exponent: if exponent == 0 { 65537 } else { exponent } }
            }
            ALG_ECC => {
                let curve = (reader.u16(), reader.u16());
                if curve != (Some(NIST_P256), Some(ALG_NULL)) {
                    return Err(misconfigured("the key of the TPM is on another curve than P-256"));
                }
                let (x, y) = reader.sized().zip(reader.sized()).ok_or_else(invalid)?;
                PublicKey::P256 { x: x.to_vec(), y: y.to_vec() }
            }
            _ => return Err(misconfigured("the key of the TPM is neither RSA nor on P-256")),
        };
        if !reader.is_empty() {
            return Err(invalid());
        }
        let name = [&ALG_SHA256.to_be_bytes()[..], &sha256(public)].concat();
        Ok(Parent { handle, name, key })
    }

    /// A new salt of a session: as the key decrypts it, and itself.
    pub(super) fn encrypted_salt(&self) -> Result<(Vec<u8>, SecretBytes), SealError> {
        let invalid = || misconfigured("the public key of the TPM is invalid");
        match &self.key {
            PublicKey::Rsa { modulus, exponent } => {
                let salt = SecretBytes::new(random::bytes::<32>().to_vec());
                let encrypted = tpm::rsa_oaep_encrypt(modulus, &exponent.to_be_bytes(), LABEL, salt.expose());
                Ok((encrypted.map_err(|_| invalid())?, salt))
            }
            PublicKey::P256 { x, y } => {
                let (full_x, full_y) = padded(x).zip(padded(y)).ok_or_else(invalid)?;
                let (own_x, own_y, shared) = tpm::p256_agree(&full_x, &full_y).map_err(|_| invalid())?;
                let point = [&[0, 32], own_x.as_slice(), &[0, 32], &own_y].concat();
                Ok((point, kdfe(shared.expose(), LABEL, &own_x, x)))
            }
        }
    }
}

/// A coordinate with leading zeros.
fn padded(number: &[u8]) -> Option<[u8; 32]> {
    let mut full = [0; 32];
    let start = full.len().checked_sub(number.len())?;
    full.get_mut(start..)?.copy_from_slice(number);
    Some(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(kind: u16, name_alg: u16, attributes: u32, curve: u16) -> Vec<u8> {
        let start = Writer::new().u16(kind).u16(name_alg).u32(attributes).sized(&[]).aes_128_cfb().u16(ALG_NULL);
        start.u16(curve).u16(ALG_NULL).sized(&[1; 32]).sized(&[2; 31]).finish().expose().clone()
    }

    #[test]
    fn only_a_storage_key_that_stays_in_the_tpm_is_a_parent() {
        let valid = public(ALG_ECC, ALG_SHA256, STORAGE_KEY, NIST_P256);
        let parent = Parent::of_public(1, &valid).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(parent.name, [&[0, 0x0b][..], &sha256(&valid)].concat());
        for refused in [
            public(ALG_ECC, ALG_SHA256, STORAGE_KEY & !0x2, NIST_P256),
            public(ALG_ECC, ALG_SHA256, STORAGE_KEY & !0x1_0000, NIST_P256),
            public(ALG_ECC, 0x0004, STORAGE_KEY, NIST_P256),
            public(ALG_ECC, ALG_SHA256, STORAGE_KEY, 4),
            public(0x0008, ALG_SHA256, STORAGE_KEY, NIST_P256),
            [&valid[..], &[0]].concat(),
        ] {
            assert!(Parent::of_public(1, &refused).is_err());
        }
        for length in 0..valid.len() {
            assert!(Parent::of_public(1, &valid[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn coordinates_are_padded_and_bounded() {
        assert_eq!(padded(&[7; 31]).unwrap()[..2], [0, 7]);
        assert!(padded(&[7; 33]).is_none() && padded(&[]).is_some());
    }
}
