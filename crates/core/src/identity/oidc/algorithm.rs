//! The signature algorithms of identity tokens (RFC 7518, RFC 8037): keys, signatures and JSON web keys.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use keepfast_crypto::keys::der;
use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::keys::ecdsa::{Curve, Marshaling};
use keepfast_crypto::keys::rsa::RsaScheme;
use keepfast_crypto::keys::{Key, KeyError, KeyKind};
use keepfast_framework::fields::Quoted;
use keepfast_framework::{Error, Result};
use serde::{Deserialize, Serialize};

/// A signature algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[default]
    #[serde(rename = "RS256")]
    Rs256,
    /// The same with SHA-384.
    #[serde(rename = "RS384")]
    Rs384,
    /// The same with SHA-512.
    #[serde(rename = "RS512")]
    Rs512,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// ECDSA on P-384 with SHA-384.
    #[serde(rename = "ES384")]
    Es384,
    /// ECDSA on P-521 with SHA-512.
    #[serde(rename = "ES512")]
    Es512,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// Every algorithm with its name, in the order of the discovery documents.
pub(super) const ALL: [(Algorithm, &str); 7] = [
    (Algorithm::Rs256, "RS256"),
    (Algorithm::Rs384, "RS384"),
    (Algorithm::Rs512, "RS512"),
    (Algorithm::Es256, "ES256"),
    (Algorithm::Es384, "ES384"),
    (Algorithm::Es512, "ES512"),
    (Algorithm::EdDsa, "EdDSA"),
];

/// The names of all algorithms.
pub(super) fn names() -> [&'static str; 7] {
    ALL.map(|(_, name)| name)
}

/// A public key (RFC 7517). The members are in the order of OpenBao.
#[derive(Serialize)]
pub(super) struct Jwk<'a> {
    #[serde(rename = "use")]
    usage: &'static str,
    kty: &'static str,
    kid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<&'static str>,
    alg: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
}

impl Algorithm {
    /// The algorithm of this name.
    ///
    /// # Errors
    /// 400 for another name.
    pub(super) fn named(name: &str) -> Result<Self> {
        let found = ALL.into_iter().find(|(_, known)| *known == name).map(|(algorithm, _)| algorithm);
        found.ok_or_else(|| Error::invalid(format!("unknown signing algorithm {}", Quoted(name))))
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        ALL.into_iter().find(|(known, _)| *known == self).map_or("", |(_, name)| name)
    }

    /// The kind of its keys.
    pub(super) fn kind(self) -> KeyKind {
        match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 => KeyKind::Rsa(2048),
            Self::Es256 => KeyKind::Ecdsa(Curve::P256),
            Self::Es384 => KeyKind::Ecdsa(Curve::P384),
            Self::Es512 => KeyKind::Ecdsa(Curve::P521),
            Self::EdDsa => KeyKind::Ed25519,
        }
    }

    /// The hash function of its signatures, and of `at_hash` and `c_hash`. Ed25519 hashes with SHA-512.
    fn hash(self) -> Hash {
        match self {
            Self::Rs256 | Self::Es256 => Hash::Sha256,
            Self::Rs384 | Self::Es384 => Hash::Sha384,
            Self::Rs512 | Self::Es512 | Self::EdDsa => Hash::Sha512,
        }
    }

    /// The left half of the hash of a text (OpenID Connect Core, 3.3.2.11).
    pub(super) fn half_hash(self, text: &str) -> String {
        let digest = self.hash().digest(text.as_bytes());
        URL_SAFE_NO_PAD.encode(&digest[..digest.len() / 2])
    }

    /// Signs a message with the private key in `material`.
    pub(super) fn sign(self, material: &[u8], message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let digest = || self.hash().digest(message);
        match Key::load(self.kind(), material)? {
            Key::Rsa(key) => key.sign(RsaScheme::Pkcs1(Some(self.hash())), &digest()),
            Key::Ecdsa(key) => key.sign(&digest(), Marshaling::Jws),
            Key::Ed25519(key) => key.sign(message),
            _ => Err(KeyError::Unsupported),
        }
    }

    /// Whether a signature of a message is by the key with this public key.
    pub(super) fn verifies(self, public: &str, message: &[u8], signature: &[u8]) -> bool {
        let Some(key) = STANDARD.decode(public).ok().and_then(|spki| Key::load_public(self.kind(), &spki).ok()) else {
            return false;
        };
        let digest = || self.hash().digest(message);
        match key {
            Key::Rsa(key) => key.verify(RsaScheme::Pkcs1(Some(self.hash())), &digest(), signature).unwrap_or(false),
            Key::Ecdsa(key) => key.verify(&digest(), signature, Marshaling::Jws).unwrap_or(false),
            Key::Ed25519(key) => key.verify(message, signature),
            _ => false,
        }
    }

    /// The JSON web key of a public key; `None` when it is not one of this algorithm.
    pub(super) fn jwk<'a>(self, id: &'a str, public: &str) -> Option<Jwk<'a>> {
        let spki = STANDARD.decode(public).ok()?;
        let parts = der::children(der::whole(&spki, der::SEQUENCE)?.content)?;
        // A BIT STRING, whose first byte is the number of unused bits.
        let key = parts.last()?.content.get(1..)?;
        let text = |bytes: &[u8]| Some(URL_SAFE_NO_PAD.encode(bytes));
        let mut jwk =
            Jwk { usage: "sig", kty: "", kid: id, crv: None, alg: self.name(), x: None, y: None, n: None, e: None };
        match self.kind() {
            KeyKind::Rsa(_) => {
                let numbers = der::children(der::whole(key, der::SEQUENCE)?.content)?;
                let number = |at: usize| {
                    let digits = numbers.get(at)?.content;
                    text(&digits[digits.iter().take_while(|digit| **digit == 0).count()..])
                };
                (jwk.kty, jwk.n, jwk.e) = ("RSA", number(0), number(1));
            }
            KeyKind::Ecdsa(curve) => {
                let (x, y) = key.strip_prefix(&[4])?.split_at_checked(curve.size())?;
                (jwk.kty, jwk.crv, jwk.x, jwk.y) = ("EC", Some(curve.name()), text(x), text(y));
            }
            _ => (jwk.kty, jwk.crv, jwk.x) = ("OKP", Some("Ed25519"), text(key)),
        }
        Some(jwk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_algorithm_signs_and_verifies_with_its_own_key_only() {
        for (algorithm, name) in ALL {
            let material = Key::generate(algorithm.kind(), 0).unwrap();
            let public = STANDARD.encode(Key::load(algorithm.kind(), material.expose()).unwrap().spki().unwrap());
            let signature = algorithm.sign(material.expose(), b"message").unwrap();
            assert!(algorithm.verifies(&public, b"message", &signature), "{name}");
            assert!(!algorithm.verifies(&public, b"massage", &signature), "{name}");
            assert!(!algorithm.verifies(&public, b"message", &signature[1..]), "{name}");
            for (other, _) in ALL.into_iter().filter(|(other, _)| *other != algorithm) {
                assert!(!other.verifies(&public, b"message", &signature), "{name} as {}", other.name());
            }
            let jwk = serde_json::to_value(algorithm.jwk("id", &public).unwrap()).unwrap();
            assert_eq!((&jwk["alg"], &jwk["kid"], &jwk["use"]), (&name.into(), &"id".into(), &"sig".into()));
            assert_eq!(Algorithm::named(name).unwrap(), algorithm);
        }
        assert_eq!(Algorithm::named("none").unwrap_err().public(), "unknown signing algorithm \"none\"");
    }

    /// The example of OpenID Connect Core, A.3 and A.4.
    #[test]
    fn hashes_of_tokens_and_codes_are_those_of_the_specification() {
        let hash = Algorithm::Rs256.half_hash("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y");
        assert_eq!(hash, "77QmUPtjPfzWtF2AnpK9RQ");
        assert_eq!(
            Algorithm::Rs256.half_hash("Qcb0Orv1zh30vL1MPRsbm-diHiMwcLyZvn1arpZv-Jxf_11jnpEX3Tgfvk"),
            "LDktKdoQak3Pk0cnXxCltA"
        );
    }
}
