//! Root token generation: a quorum of the shares creates a root token, which the response holds under the one-time pad
//! of the caller that began the attempt.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use keepfast_crypto::random;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::{Error, Result};

use super::shares::Unsealing;
use crate::token::id::SERVICE_LENGTH;

/// A root token generation in progress. Holds at most as many shares as the threshold.
pub(crate) struct RootGeneration {
    /// The nonce, which each request with a share must have.
    pub(crate) nonce: String,
    /// The shares so far.
    pub(crate) submitted: Unsealing,
    /// As long as the token.
    pad: SecretString,
}

impl RootGeneration {
    /// Begins with the pad of the caller, or with a fresh one.
    ///
    /// Fails with 400 when the pad is not as long as the token.
    pub(crate) fn new(pad: Option<SecretString>) -> Result<Self> {
        let pad = pad.unwrap_or_else(|| SecretString::new(random::base62(SERVICE_LENGTH)));
        if pad.expose().len() != SERVICE_LENGTH {
            return Err(Error::invalid("OTP string has incorrect length"));
        }
        Ok(RootGeneration { nonce: random::uuid(), submitted: Unsealing::default(), pad })
    }

    /// The pad, for the caller that begins.
    pub(crate) fn pad(&self) -> &SecretString {
        &self.pad
    }

    /// The token under the pad, as base64 without padding.
    pub(crate) fn encode(&self, token: &SecretString) -> String {
        STANDARD_NO_PAD.encode(xor(token.expose().as_bytes(), self.pad.expose().as_bytes()).expose())
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
        let generation = RootGeneration::new(None).unwrap();
        let encoded = generation.encode(&token);
        assert!(!encoded.contains('='));
        let encoded = STANDARD_NO_PAD.decode(encoded).unwrap();
        assert_eq!(decode(&encoded, generation.pad().expose()).unwrap().expose(), token.expose());
        assert_eq!(decode(&encoded, &"x".repeat(3)).err().unwrap().status().0, 400);
        assert!(RootGeneration::new(Some(SecretString::new("short".into()))).is_err());
    }
}
