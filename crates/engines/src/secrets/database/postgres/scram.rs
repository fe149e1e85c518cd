//! The verifier of SCRAM-SHA-256 (RFC 5803, RFC 7677), made here so that a password is never sent to a server that only
//! has to check it.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::hash::sha256;
use keepfast_crypto::hmac::HmacKey;
use keepfast_crypto::secret::SecretString;
use keepfast_crypto::{kdf, random};

/// As PostgreSQL itself has it.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();

/// What PostgreSQL stores of a password and takes in its place: `SCRAM-SHA-256$4096:salt$StoredKey:ServerKey`.
///
/// A password of ASCII is its own normal form; another one is used as it is, as PostgreSQL does with what SASLprep refuses.
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
    fn it_is_what_postgresql_computes() {
        // As `ALTER ROLE x PASSWORD 'pencil'` stored it in PostgreSQL 15.
        let salt = STANDARD.decode("SuHO33HznrhVrzOzx2WRNw==").unwrap();
        let expected = "SCRAM-SHA-256$4096:SuHO33HznrhVrzOzx2WRNw==$uPHSpr47xkbK0Uas4L6l5E9Wx7kBRhC5qOvy0zVXC1k=:F8EYTl+PV01BlRA/dvZoo6XtY0HeXwIK9yB/vZxYZpE=";
        assert_eq!(verifier_with(&SecretString::new("pencil".to_owned()), &salt), expected);
        assert_ne!(
            *verifier(&SecretString::new("a".to_owned())).expose(),
            *verifier(&SecretString::new("a".to_owned())).expose()
        );
    }
}
