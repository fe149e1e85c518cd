//! PKCE (RFC 7636): the proof that the code is exchanged by the client that requested it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keepfast_crypto::compare;
use keepfast_crypto::hash::sha256;
use serde::{Deserialize, Serialize};

/// The transformation of a code verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Method {
    /// The challenge is the verifier.
    #[serde(rename = "plain")]
    Plain,
    /// The challenge is the SHA-256 of the verifier.
    S256,
}

/// A code challenge.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Challenge {
    method: Method,
    challenge: String,
}

impl Challenge {
    /// A challenge of an authorization request; an empty method is `plain`. The error text is that of OpenBao.
    pub(super) fn new(challenge: &str, method: &str) -> Result<Self, &'static str> {
        let method = match method {
            "" | "plain" => Method::Plain,
            "S256" => Method::S256,
            _ => return Err("invalid code_challenge_method"),
        };
        if !is_valid(challenge) {
            return Err("invalid code_challenge");
        }
        Ok(Challenge { method, challenge: challenge.to_owned() })
    }

    /// Whether this is the verifier of the challenge.
    pub(super) fn accepts(&self, verifier: &str) -> bool {
        let transformed = match self.method {
            Method::Plain => verifier.to_owned(),
            Method::S256 => URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes())),
        };
        is_valid(verifier) && compare::equal(transformed.as_bytes(), self.challenge.as_bytes())
    }
}

/// 43 to 128 unreserved characters (RFC 7636, 4.1).
fn is_valid(text: &str) -> bool {
    (43..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636, appendix B.
    #[test]
    fn the_example_of_the_rfc_verifies() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let challenge = Challenge::new("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", "S256").unwrap();
        assert!(challenge.accepts(verifier));
        assert!(!challenge.accepts("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"));
        assert!(!challenge.accepts(""));
        let plain = Challenge::new(verifier, "").unwrap();
        assert!(plain.accepts(verifier) && !plain.accepts(&verifier.to_uppercase()));
    }

    #[test]
    fn challenges_out_of_the_bounds_of_the_rfc_are_refused() {
        for (length, valid) in [(42, false), (43, true), (128, true), (129, false)] {
            assert_eq!(Challenge::new(&"a".repeat(length), "plain").is_ok(), valid, "{length}");
        }
        for bad in ["é".repeat(43), "a b".repeat(20)] {
            assert_eq!(Challenge::new(&bad, "S256").err(), Some("invalid code_challenge"));
        }
        assert_eq!(Challenge::new(&"a".repeat(43), "s256").err(), Some("invalid code_challenge_method"));
    }
}
