//! Root token generation: a quorum of the shares creates a root token, which the response holds under the one-time pad
//! of the caller that began the attempt, or encrypted to the certificate of that caller.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use keepfast_crypto::random;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::{Error, Result};
use keepfast_pgp::Certificate;

use super::pgp::encrypt;
use super::shares::Unsealing;
use crate::token::id::SERVICE_LENGTH;

/// A root token generation in progress. Holds at most as many shares as the threshold.
pub(crate) struct RootGeneration {
    /// The nonce, which each request with a share must have.
    pub(crate) nonce: String,
    /// The shares so far.
    pub(crate) submitted: Unsealing,
    delivery: Delivery,
}

/// How the response contains the token.
pub(crate) enum Delivery {
    /// Under a one-time pad, which is as long as the token.
    Otp(SecretString),
    /// Encrypted to a certificate.
    Pgp(Certificate),
}

impl RootGeneration {
    /// Begins a generation.
    ///
    /// Fails with 400 when the pad is not as long as the token.
    pub(crate) fn to(delivery: Delivery) -> Result<Self> {
        if matches!(&delivery, Delivery::Otp(pad) if pad.expose().len() != SERVICE_LENGTH) {
            return Err(Error::invalid("OTP string has incorrect length"));
        }
        Ok(RootGeneration { nonce: random::uuid(), submitted: Unsealing::default(), delivery })
    }

    /// The fingerprint of the certificate; empty with a one-time pad.
    pub(crate) fn fingerprint(&self) -> &str {
        match &self.delivery {
            Delivery::Otp(_) => "",
            Delivery::Pgp(certificate) => certificate.fingerprint(),
        }
    }

    /// The token under the pad, as base64 without padding, or encrypted, as base64.
    ///
    /// Fails with 500 when the cryptography fails.
    pub(crate) fn encode(&self, token: &SecretString) -> Result<String> {
        Ok(match &self.delivery {
            Delivery::Otp(pad) => {
                STANDARD_NO_PAD.encode(xor(token.expose().as_bytes(), pad.expose().as_bytes()).expose())
            }
            Delivery::Pgp(certificate) => STANDARD.encode(encrypt(certificate, token)?),
        })
    }
}

/// Decodes a token that [`RootGeneration::encode`] has encoded, after its base64.
///
/// Fails with 400 when token and pad differ in length.
pub(crate) fn decode(encoded: &[u8], pad: &str) -> Result<SecretString> {
    if encoded.len() != pad.len() {
        let why = format!("length of byte slices is not equivalent: {} != {}", encoded.len(), pad.len());
        return Err(Error::invalid(format!("error xoring token: {why}")));
    }
    let plain = xor(encoded, pad.as_bytes());
    Ok(SecretString::new(String::from_utf8_lossy(plain.expose()).into_owned()))
}

fn xor(left: &[u8], right: &[u8]) -> SecretBytes {
    SecretBytes::new(left.iter().zip(right).map(|(a, b)| a ^ b).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_decodes_with_its_pad_only() {
        let token = SecretString::new(format!("hvs.{}", "a".repeat(SERVICE_LENGTH - 4)));
        let pad = "p".repeat(SERVICE_LENGTH);
        let generation = RootGeneration::to(Delivery::Otp(SecretString::new(pad.clone()))).unwrap();
        let encoded = generation.encode(&token).unwrap();
        assert!(!encoded.contains('='));
        let encoded = STANDARD_NO_PAD.decode(encoded).unwrap();
        assert_eq!(decode(&encoded, &pad).unwrap().expose(), token.expose());
        assert_eq!(decode(&encoded, &"x".repeat(3)).err().unwrap().status().0, 400);
        assert!(RootGeneration::to(Delivery::Otp(SecretString::new("short".into()))).is_err());
    }
}
