//! JSON web signatures in the compact form (RFC 7515).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::Result;
use keepfast_framework::fields::Quoted;
use serde::Deserialize;
use serde_json::Value;

use super::algorithm::{self, Algorithm};
use super::claims::RENDERED_BYTES;
use super::ring::SigningKey;

/// Claims by name, sorted.
pub(super) type Claims = BTreeMap<String, Value>;

/// The longest token that is read, in bytes: in base64 the longest rendered claims, and those of the server.
const LONGEST: usize = RENDERED_BYTES / 3 * 4 + (16 << 10);

/// The bytes of the longest signature, of a key of 4096 bits.
const LONGEST_SIGNATURE: usize = 512;

/// Signs claims.
pub(super) fn sign(key: &SigningKey, claims: &Claims) -> Result<SecretString> {
    let header = format!("{{\"alg\":\"{}\",\"kid\":\"{}\"}}", key.algorithm().name(), key.id);
    let claims = serde_json::to_vec(claims)?;
    // Filled within its capacity: a growing string would leave copies of the token.
    let mut token = String::with_capacity((header.len() + claims.len() + LONGEST_SIGNATURE) / 3 * 4 + 16);
    URL_SAFE_NO_PAD.encode_string(header, &mut token);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(claims, &mut token);
    let signature = key.sign(token.as_bytes())?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(SecretString::new(token))
}

/// A parsed token whose signature was not verified.
pub(super) struct Unverified<'a> {
    /// The algorithm of the header.
    pub(super) algorithm: Algorithm,
    /// The key id of the header.
    pub(super) key_id: String,
    /// The signed part.
    pub(super) message: &'a str,
    /// The signature.
    pub(super) signature: Vec<u8>,
    payload: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    alg: String,
    #[serde(default)]
    kid: String,
}

impl<'a> Unverified<'a> {
    /// Parses a token. The error text is that of OpenBao.
    pub(super) fn parse(token: &'a str) -> Result<Self, String> {
        if token.len() > LONGEST {
            return Err(format!("a token has at most {LONGEST} bytes"));
        }
        let parts: Vec<&str> = token.split('.').take(4).collect();
        let [header, payload, signature] = parts.as_slice() else {
            return Err("go-jose/go-jose: compact JWS format must have three parts".to_owned());
        };
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| "illegal base64 data".to_owned());
        let (header_json, payload_json, signature_bytes) = (decode(header)?, decode(payload)?, decode(signature)?);
        let found: Header =
            serde_json::from_slice(&header_json).map_err(|_| "the header is no JSON object".to_owned())?;
        let Ok(algorithm) = Algorithm::named(&found.alg) else {
            let found: String = found.alg.chars().take(16).collect();
            let expected = algorithm::names().map(|name| format!("\"{name}\"")).join(" ");
            return Err(format!("unexpected signature algorithm {}; expected [{expected}]", Quoted(&found)));
        };
        Ok(Unverified {
            algorithm,
            key_id: found.kid,
            message: &token[..header.len() + 1 + payload.len()],
            signature: signature_bytes,
            payload: payload_json,
        })
    }

    /// The claims, for a caller that has verified the signature.
    pub(super) fn claims(&self) -> Option<Claims> {
        serde_json::from_slice(&self.payload).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signed_token_is_parsed_and_an_altered_one_does_not_verify() {
        let key = SigningKey::generate(Algorithm::Es256).await.unwrap();
        let claims = Claims::from([("sub".to_owned(), "me".into()), ("aud".to_owned(), "you".into())]);
        let token = sign(&key, &claims).unwrap();
        let parsed = Unverified::parse(token.expose()).unwrap();
        assert_eq!((parsed.algorithm, &parsed.key_id, parsed.claims()), (Algorithm::Es256, &key.id, Some(claims)));
        for bad in ["", "a.b", "a.b.c.d", "!.b.c", "YQ.YQ.YQ", &"x".repeat(LONGEST + 1)] {
            assert!(Unverified::parse(bad).is_err());
        }
        for alg in ["none", "HS256", "PS256", ""] {
            let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"{alg}\"}}"));
            assert!(Unverified::parse(&format!("{header}.e30.")).is_err(), "{alg}");
        }
    }
}
