//! Certificates and messages with GnuPG: what it creates is accepted or refused, and it decrypts what is encrypted.

use keepfast_crypto::secret::SecretString;

use super::*;
use crate::gnupg::{CURVE, Gpg, RSA, SIGN_ONLY, START};

/// The time of the checks.
const NOW: u64 = START + 60;

fn refused(bytes: &[u8], now: u64) -> Option<CertificateError> {
    Certificate::from_bytes(bytes, now).err()
}

#[test]
fn gnupg_decrypts_messages_to_rsa_and_curve25519_keys() {
    for parameters in [RSA, CURVE, "Key-Type: RSA\nKey-Length: 2048\nKey-Usage: sign,encrypt"] {
        let Some(gpg) = Gpg::new() else { return };
        let bytes = gpg.generate(parameters);
        let certificate = Certificate::from_base64(&STANDARD.encode(&bytes), NOW).unwrap();
        assert_eq!(certificate.fingerprint(), gpg.fingerprint());
        for text in ["", "a", &"share ".repeat(100)] {
            let secret = SecretString::new(text.to_owned());
            let message = certificate.encrypt(&secret).unwrap();
            assert_ne!(message, certificate.encrypt(&secret).unwrap());
            assert_eq!(gpg.run(&["--decrypt"], &message), text.as_bytes());
        }
        // A changed message is not decrypted.
        let mut changed = certificate.encrypt(&SecretString::new("secret".to_owned())).unwrap();
        let last = changed.len() - 1;
        changed[last] ^= 1;
        assert!(!gpg.output(&["--decrypt"], &changed).status.success());
    }
}

#[test]
fn a_key_that_only_signs_is_refused() {
    let Some(gpg) = Gpg::new() else { return };
    let bytes = gpg.generate(SIGN_ONLY);
    assert_eq!(refused(&bytes, NOW), Some(CertificateError::CannotEncrypt));
}

#[test]
fn expired_and_revoked_keys_are_refused() {
    let Some(gpg) = Gpg::new() else { return };
    let bytes = gpg.generate(CURVE);
    assert_eq!(refused(&bytes, START), Some(CertificateError::Unbound), "of the future");
    let fingerprint = gpg.fingerprint();
    gpg.run(&["--quick-set-expire", &fingerprint, "30d"], b"");
    let expiring = gpg.run(&["--export", "a@example.com"], b"");
    assert_eq!(refused(&expiring, NOW + 29 * 86_400), None);
    assert_eq!(refused(&expiring, NOW + 31 * 86_400), Some(CertificateError::Expired));
    gpg.run(&["--quick-set-expire", &fingerprint, "0"], b"");
    gpg.run(&["--quick-set-expire", &fingerprint, "10d", "*"], b"");
    let subkey_expires = gpg.run(&["--export", "a@example.com"], b"");
    assert_eq!(refused(&subkey_expires, NOW + 11 * 86_400), Some(CertificateError::CannotEncrypt));
    let revocation =
        std::fs::read_to_string(gpg.home().join(format!("openpgp-revocs.d/{}.rev", fingerprint.to_uppercase())));
    let revocation = revocation.unwrap().replace(":-----BEGIN", "-----BEGIN");
    gpg.run(&["--import"], revocation.as_bytes());
    let revoked = gpg.run(&["--export", "a@example.com"], b"");
    assert_eq!(refused(&revoked, NOW), Some(CertificateError::Revoked));
    assert_eq!(refused(&revoked, START + 2), Some(CertificateError::Revoked), "before the revocation");
}

#[test]
fn the_newest_subkey_for_encryption_is_used() {
    let Some(gpg) = Gpg::new() else { return };
    gpg.generate(CURVE);
    gpg.run(&["--quick-add-key", &gpg.fingerprint(), "rsa2048", "encr", "0"], b"");
    gpg.run(&["--quick-add-key", &gpg.fingerprint(), "rsa2048", "sign", "0"], b"");
    let bytes = gpg.run(&["--export", "a@example.com"], b"");
    let certificate = Certificate::from_bytes(&bytes, NOW).unwrap();
    assert_eq!(certificate.key[5], 1, "RSA");
    let message = certificate.encrypt(&SecretString::new("text".to_owned())).unwrap();
    assert_eq!(gpg.run(&["--decrypt"], &message), b"text");
}

#[test]
fn no_byte_of_a_certificate_can_change_and_bind_a_key() {
    let Some(gpg) = Gpg::new() else { return };
    let whole = gpg.generate(CURVE);
    let key = Certificate::from_bytes(&whole, NOW).unwrap().key;
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        // Bytes that no signature covers, such as headers of unhashed subpackets, may change; the key may not.
        if let Ok(certificate) = Certificate::from_bytes(&changed, NOW) {
            assert_eq!(certificate.key, key, "{at}");
        }
        assert!(Certificate::from_bytes(&whole[..at], NOW).is_err_and(|error| error != CertificateError::Failed));
    }
}

/// The certificate with a signature after the first packet of a type.
fn with_signature(bytes: &[u8], after: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut is_added = false;
    for packet in packets(bytes).unwrap() {
        out.extend_from_slice(&crate::packet::header(packet.tag, packet.body.len()));
        out.extend_from_slice(packet.body);
        if packet.tag == after && !is_added {
            is_added = true;
            out.extend_from_slice(&crate::packet::header(tag::SIGNATURE, body.len()));
            out.extend_from_slice(body);
        }
    }
    out
}

#[test]
fn a_revocation_that_cannot_be_verified_counts() {
    let Some(gpg) = Gpg::new() else { return };
    let whole = gpg.generate(CURVE);
    let own: [u8; 8] = *hex::decode(gpg.fingerprint()).unwrap().last_chunk().unwrap();
    let (sha1, sha256) = (2, 8);
    let version_4 = |kind: u8, hash: u8, hashed: &[u8], issuer: &[u8]| {
        let issuer = if issuer.is_empty() { Vec::new() } else { [&[9, 16], issuer].concat() };
        let lengths = [hashed.len(), issuer.len()].map(|length| u16::try_from(length).unwrap().to_be_bytes());
        [&[4, kind, 22, hash], &lengths[0][..], hashed, &lengths[1], &issuer, &[0, 0]].concat()
    };
    let version_3 = |kind: u8, issuer: &[u8]| [&[3, 5, kind, 0x69, 0x55, 0xb9, 0], issuer, &[1, 2, 0, 0]].concat();
    let created = [5, 2, 0x69, 0x55, 0xb9, 0];
    let critical = [&created[..], &[2, 0x80 | 100, 0]].concat();
    for (kind, after, error) in [
        (KEY_REVOCATION, tag::PUBLIC_KEY, CertificateError::Revoked),
        (KEY_REVOCATION, tag::PUBLIC_SUBKEY, CertificateError::Revoked),
        (SUBKEY_REVOCATION, tag::PUBLIC_SUBKEY, CertificateError::CannotEncrypt),
        (CERTIFICATION_REVOCATION, tag::USER_ID, CertificateError::Unbound),
    ] {
        for body in [
            version_4(kind, sha1, &created, &own),
            version_4(kind, sha1, &created, &[]),
            version_4(kind, sha256, &critical, &own),
            version_3(kind, &own),
        ] {
            assert_eq!(refused(&with_signature(&whole, after, &body), NOW), Some(error), "{kind:#x} {body:?}");
        }
        // Those of other keys, and one that is verified and is by another key, do not.
        for body in [
            version_4(kind, sha1, &created, &[7; 8]),
            version_3(kind, &[7; 8]),
            version_4(kind, sha256, &created, &own),
        ] {
            assert_eq!(refused(&with_signature(&whole, after, &body), NOW), None, "{kind:#x} {body:?}");
        }
    }
}

#[test]
fn a_key_of_low_order_is_no_certificate() {
    let Some(gpg) = Gpg::new() else { return };
    let bytes = gpg.generate(CURVE);
    let mut certificate = Certificate::from_bytes(&bytes, NOW).unwrap();
    // The point after the curve's identifier, the length in bits and the native octet.
    let at = certificate.key.len() - 36;
    certificate.key[at..at + 32].fill(0);
    assert_eq!(certificate.proven().err(), Some(CertificateError::CannotEncrypt));
}

#[test]
fn the_work_of_a_certificate_is_bounded() {
    let Some(gpg) = Gpg::new() else { return };
    let whole = gpg.generate(CURVE);
    let found = packets(&whole).unwrap();
    let signature = found.iter().find(|packet| packet.tag == tag::SIGNATURE).unwrap();
    let framed = |tag: u8, body: &[u8]| [crate::packet::header(tag, body.len()), body.to_vec()].concat();
    let primary = framed(found[0].tag, found[0].body);
    // A long user id is hashed by none of its signatures.
    let signatures = framed(tag::SIGNATURE, signature.body).repeat(MAX_VERIFIED + 1);
    let long = [primary.clone(), framed(tag::USER_ID, &[b'a'; MAX_USER_ID + 1]), signatures.clone()].concat();
    assert_eq!(refused(&long, NOW), Some(CertificateError::Unbound));
    let short = [primary, framed(tag::USER_ID, &[b'a'; MAX_USER_ID]), signatures].concat();
    assert_eq!(refused(&short, NOW), Some(CertificateError::TooLong));
}

#[test]
fn a_primary_key_of_an_unknown_algorithm_is_refused_at_once() {
    let framed = |tag: u8, body: &[u8]| [crate::packet::header(tag, body.len()), body.to_vec()].concat();
    let key = [&[4, 0x69, 0x55, 0xb9, 0, 17][..], &[7; 20_000]].concat();
    let user = framed(tag::USER_ID, b"a@example.com").repeat(4000);
    let bytes = [framed(tag::PUBLIC_KEY, &key), user].concat();
    assert_eq!(refused(&bytes, NOW), Some(CertificateError::Unbound));
}

#[test]
fn a_subkey_of_another_certificate_is_not_used() {
    let Some((one, other)) = Gpg::new().zip(Gpg::new()) else { return };
    let (signer, encrypting) = (one.generate(SIGN_ONLY), other.generate(CURVE));
    let foreign = packets(&encrypting).unwrap();
    let at = foreign.iter().position(|packet| packet.tag == tag::PUBLIC_SUBKEY).unwrap();
    let mut mixed = signer;
    for packet in &foreign[at..] {
        mixed.extend_from_slice(&crate::packet::header(packet.tag, packet.body.len()));
        mixed.extend_from_slice(packet.body);
    }
    assert_eq!(refused(&mixed, NOW), Some(CertificateError::CannotEncrypt));
}

#[test]
fn other_texts_are_refused_with_a_hint() {
    for (text, error) in [
        ("keybase:someone", CertificateError::Keybase),
        ("-----BEGIN PGP PUBLIC KEY BLOCK-----", CertificateError::Armored),
        ("not base64!", CertificateError::NotBase64),
        ("", CertificateError::Malformed),
        ("AAAA", CertificateError::Malformed),
    ] {
        assert_eq!(Certificate::from_base64(text, NOW).err(), Some(error), "{text}");
    }
    let Some(gpg) = Gpg::new() else { return };
    gpg.generate(CURVE);
    let secret = gpg.run(&["--export-secret-keys", "a@example.com"], b"");
    assert_eq!(refused(&secret, NOW), Some(CertificateError::Private));
    assert_eq!(refused(&vec![0; MAX_BYTES + 1], NOW), Some(CertificateError::TooLong));
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes: Vec<u8>, tag in 0_u8..64) {
        let _ = Certificate::from_bytes(&bytes, NOW);
        let framed = [crate::packet::header(tag, bytes.len()), bytes].concat();
        proptest::prop_assert!(Certificate::from_bytes(&framed, NOW).is_err());
    }
}
