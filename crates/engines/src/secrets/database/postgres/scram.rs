//! The verifier of SCRAM-SHA-256 (RFC 5803, RFC 7677), computed here so that the server never receives the password.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::hash::sha256;
use keepfast_crypto::hmac::HmacKey;
use keepfast_crypto::secret::SecretString;
use keepfast_crypto::{kdf, random};

/// The default of PostgreSQL.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();

/// The verifier that PostgreSQL stores and accepts instead of a password:
/// `SCRAM-SHA-256$4096:salt$StoredKey:ServerKey`.
///
/// An ASCII password is its own normal form; any other one is used unchanged, as PostgreSQL does with text that
/// SASLprep refuses.
pub(super) fn verifier(password: &SecretString) -> SecretString {
    SecretString::new(verifier_with(password, &random::bytes::<16>()))
}

fn verifier_with(password: &SecretString, salt: &[u8]) -> String {
    let key = HmacKey::new(&kdf::pbkdf2_sha256(password.expose().as_bytes(), salt, ITERATIONS));
    let stored = sha256(&key.mac(b"Client Key"));
    let server = key.mac(b"Server Key");
    let [salt, stored, server] = [salt, &stored, &server].map(|part| STANDARD.encode(part));
    format!("SCRAM-SHA-256${ITERATIONS}:{salt}${stored}:{server}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_equals_that_of_postgresql() {
        // Stored by PostgreSQL 15 for `ALTER ROLE x PASSWORD 'pencil'`.
        let salt = STANDARD.decode("SuHO33HznrhVrzOzx2WRNw==").unwrap();
        let expected = "SCRAM-SHA-256$4096:SuHO33HznrhVrzOzx2WRNw==$uPHSpr47xkbK0Uas4L6l5E9Wx7kBRhC5qOvy0zVXC1k=:F8EYTl+PV01BlRA/dvZoo6XtY0HeXwIK9yB/vZxYZpE=";
        assert_eq!(verifier_with(&SecretString::new("pencil".to_owned()), &salt), expected);
        assert_ne!(
            *verifier(&SecretString::new("a".to_owned())).expose(),
            *verifier(&SecretString::new("a".to_owned())).expose()
        );
    }
}
