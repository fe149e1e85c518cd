//! Messages: a session key for the key of a certificate, and integrity-protected data of version 1 (RFC 4880, sections
//! 5.1 and 5.13), which GnuPG and OpenBao use.

use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::openpgp;
use keepfast_crypto::random;
use keepfast_crypto::secret::{SecretBytes, SecretString};

use crate::key::{Material, PublicKey, kdf_parameters};
use crate::packet::{header, number, tag};
use crate::{Certificate, CertificateError};

/// The number of AES-256.
const AES_256: u8 = 9;
/// Bytes of a block of AES.
const BLOCK: usize = 16;
/// Bytes to which a session key is padded for Curve25519: its length is hidden.
const PADDED: usize = 40;

impl Certificate {
    /// Encrypts a text: a binary message, without armor.
    ///
    /// # Errors
    /// [`CertificateError::Failed`] when the library fails, as for a point of low order.
    pub fn encrypt(&self, text: &SecretString) -> Result<Vec<u8>, CertificateError> {
        let session = random::key();
        let mut message = self.encrypted_session_key(session.expose())?;
        let data = encrypted_data(session.expose(), text.expose().as_bytes())?;
        message.extend_from_slice(&header(tag::INTEGRITY_PROTECTED, data.len()));
        message.extend_from_slice(&data);
        Ok(message)
    }

    /// The packet of the session key.
    fn encrypted_session_key(&self, session: &[u8; 32]) -> Result<Vec<u8>, CertificateError> {
        let key = PublicKey::read(&self.key).ok_or(CertificateError::CannotEncrypt)?;
        let fingerprint = key.fingerprint();
        let sum = session.iter().fold(0_u16, |sum, byte| sum.wrapping_add(u16::from(*byte)));
        let mut encoded = SecretBytes::new(Vec::with_capacity(PADDED));
        for part in [&[AES_256], session.as_slice(), &sum.to_be_bytes()] {
            encoded.expose_mut().extend_from_slice(part);
        }
        let failed = |_| CertificateError::Failed;
        let (algorithm, numbers) = match &key.material {
            Material::Rsa { spki, .. } => (1, number(&openpgp::rsa_encrypt(spki, encoded.expose()).map_err(failed)?)),
            Material::X25519 { public, hash, hash_id, cipher_id, kek_size } => {
                let padding = PADDED - encoded.expose().len();
                encoded.expose_mut().resize(PADDED, u8::try_from(padding).unwrap_or(0));
                let parameters = kdf_parameters(*hash_id, *cipher_id, &fingerprint);
                let wrapped = openpgp::x25519_wrap(public, *hash, &parameters, *kek_size, encoded.expose());
                let (ephemeral, wrapped) = wrapped.map_err(failed)?;
                let point = number(&[&[0x40], ephemeral.as_slice()].concat());
                let length = u8::try_from(wrapped.len()).map_err(|_| CertificateError::Failed)?;
                (18, [point.as_slice(), &[length], &wrapped].concat())
            }
            _ => return Err(CertificateError::CannotEncrypt),
        };
        let body = [&[3], &fingerprint[12..], &[algorithm], &numbers].concat();
        Ok([header(tag::ENCRYPTED_SESSION_KEY, body.len()), body].concat())
    }
}

/// The body of the packet of the data: version, then encrypted the prefix, a literal packet, and its SHA-1.
fn encrypted_data(session: &[u8; 32], text: &[u8]) -> Result<Vec<u8>, CertificateError> {
    // Binary, without a file name and a time.
    let literal = [&header(tag::LITERAL, text.len() + 6), [b'b', 0, 0, 0, 0, 0].as_slice()].concat();
    let prefix = random::nonce::<BLOCK>();
    let room = BLOCK + 2 + literal.len() + text.len() + 22;
    let mut plain = SecretBytes::new(Vec::with_capacity(room));
    for part in [&prefix, &prefix[BLOCK - 2..], &literal, text, &[0xd3, 0x14]] {
        plain.expose_mut().extend_from_slice(part);
    }
    let digest = Hash::Sha1.digest(plain.expose());
    plain.expose_mut().extend_from_slice(&digest);
    openpgp::cfb_from_zero(session, plain.expose_mut()).map_err(|_| CertificateError::Failed)?;
    Ok([&[1], plain.expose().as_slice()].concat())
}
