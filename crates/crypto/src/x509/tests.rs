//! Tests with OpenSSL, which creates the CAs and verifies the certificates.

use std::path::Path;
use std::process::Command;

use super::*;
use crate::keys::ecdsa::Curve;

/// The current time in seconds since the Unix epoch.
fn now() -> u64 {
    // The clock of the machine, which OpenSSL used for the CAs.
    let done = Command::new("date").arg("+%s").output().unwrap();
    String::from_utf8(done.stdout).unwrap().trim().parse().unwrap()
}

fn openssl(directory: &Path, arguments: &str) -> Result<String, String> {
    let done = Command::new("openssl").args(arguments.split_whitespace()).current_dir(directory).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    if done.status.success() { Ok(text) } else { Err(text) }
}

/// A directory with CAs of every kind from OpenSSL: the certificate `X.crt` and its key `X.key`.
fn authorities() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, kind) in [
        ("rsa", "RSA -pkeyopt rsa_keygen_bits:2048"),
        ("other", "RSA -pkeyopt rsa_keygen_bits:2048"),
        ("small", "RSA -pkeyopt rsa_keygen_bits:1024"),
        ("ec", "EC -pkeyopt ec_paramgen_curve:prime256v1"),
        ("ec384", "EC -pkeyopt ec_paramgen_curve:secp384r1"),
        ("ed", "ED25519"),
    ] {
        openssl(directory.path(), &format!("genpkey -algorithm {kind} -out {name}.key")).unwrap();
        openssl(directory.path(), &format!("req -x509 -new -key {name}.key -days 30 -subj /CN={name} -addext keyUsage=critical,keyCertSign -out {name}.crt"))
            .unwrap();
    }
    openssl(
        directory.path(),
        "req -x509 -new -key ec.key -days 30 -subj /CN=leaf -addext basicConstraints=CA:FALSE -out leaf.crt",
    )
    .unwrap();
    openssl(directory.path(), "rsa -in rsa.key -traditional -out rsa1.key").unwrap();
    openssl(directory.path(), "ec -in ec384.key -out ec1.key").unwrap();
    openssl(directory.path(), "rsa -in rsa.key -aes128 -passout pass:x -out locked.key").unwrap();
    directory
}

fn file(directory: &Path, name: &str) -> String {
    std::fs::read_to_string(directory.join(name)).unwrap()
}

#[test]
fn openssl_accepts_certificates_of_every_key_and_ca_kind() {
    let directory = authorities();
    let at = directory.path();
    let made = now();
    let kinds = [
        (KeyKind::Rsa(2048), "rsa"),
        (KeyKind::Ecdsa(Curve::P224), "ec"),
        (KeyKind::Ecdsa(Curve::P256), "ec"),
        (KeyKind::Ecdsa(Curve::P384), "ec"),
        (KeyKind::Ecdsa(Curve::P521), "ec"),
        (KeyKind::Ed25519, "ed25519"),
    ];
    let keys = kinds.map(|(kind, name)| (ClientKey::generate(kind).unwrap(), name));
    for (authority, key_file) in
        [("rsa", "rsa.key"), ("rsa", "rsa1.key"), ("ec384", "ec1.key"), ("ec", "ec.key"), ("ed", "ed.key")]
    {
        let root = Authority::read(&file(at, &format!("{authority}.crt")), &file(at, key_file)).unwrap();
        for ((key, name), hash) in keys.iter().zip([Hash::Sha256, Hash::Sha384, Hash::Sha512].into_iter().cycle()) {
            let wanted = ClientCertificate { common_name: "v-x@y.z", key, made, ends: made + 3600, hash };
            std::fs::write(at.join("client.crt"), root.issue(&wanted).unwrap()).unwrap();
            std::fs::write(at.join("client.key"), key.pem().unwrap().expose()).unwrap();
            assert_eq!(key.type_name(), *name);
            let verified =
                openssl(at, &format!("verify -x509_strict -purpose sslclient -CAfile {authority}.crt client.crt"));
            assert!(verified.is_ok(), "{authority} {name} {hash:?}: {verified:?}");
            assert!(openssl(at, &format!("verify -purpose sslserver -CAfile {authority}.crt client.crt")).is_err());
            assert!(openssl(at, "verify -CAfile other.crt client.crt").is_err());
            let public = openssl(at, "x509 -in client.crt -noout -pubkey").unwrap();
            assert_eq!(openssl(at, "pkey -in client.key -pubout").unwrap(), public);
        }
    }
    let text = openssl(at, "x509 -in client.crt -noout -subject -text").unwrap();
    assert!(text.contains("CN = v-x@y.z") && text.contains("TLS Web Client Authentication"), "{text}");
    assert!(text.contains("X509v3 Key Usage: critical\n                Digital Signature\n"), "{text}");
}

#[test]
fn a_certificate_has_the_requested_times_within_those_of_its_ca() {
    let directory = authorities();
    let at = directory.path();
    let (made, day) = (now(), 86_400);
    let root = Authority::read(&file(at, "ec.crt"), &file(at, "ec.key")).unwrap();
    let key = ClientKey::generate(KeyKind::Ed25519).unwrap();
    let issue = |common_name: &str, made: u64, ends: u64| {
        root.issue(&ClientCertificate { common_name, key: &key, made, ends, hash: Hash::Sha256 })
    };
    std::fs::write(at.join("client.crt"), issue("x", made + day, made + 2 * day).unwrap()).unwrap();
    // Invalid before its start and after its expiry.
    for (moment, is_valid) in
        [(made + day - 31, false), (made + day - 30, true), (made + 2 * day - 1, true), (made + 2 * day + 1, false)]
    {
        let verified = openssl(at, &format!("verify -attime {moment} -CAfile ec.crt client.crt"));
        assert_eq!(verified.is_ok(), is_valid, "{moment}: {verified:?}");
    }
    assert_eq!(issue("x", made, made + 31 * day), Err(X509Error::Outlives));
    assert_eq!(issue("", made, made + day), Err(X509Error::CommonName));
    assert_eq!(issue(&"x".repeat(65), made, made + day), Err(X509Error::CommonName));
    let serials = [issue("x", made, made + day).unwrap(), issue("x", made, made + day).unwrap()];
    assert_ne!(serials[0], serials[1]);
    assert!(matches!(time(2_524_607_999), Ok(Time::UtcTime(_))), "1949 to 2049");
    assert!(matches!(time(2_524_608_000), Ok(Time::GeneralTime(_))), "2050");
}

#[test]
fn an_invalid_ca_fails_with_the_text_of_vault() {
    let directory = authorities();
    let read = |certificate: &str, key: &str| {
        let text = |names: &str| -> String {
            names
                .split_whitespace()
                .map(|name| if name.contains('.') { file(directory.path(), name) } else { name.to_owned() })
                .collect()
        };
        Authority::read(&text(certificate), &text(key)).err()
    };
    let mismatch = X509Error::KeyTypes("*rsa.PublicKey", "*ecdsa.PublicKey");
    for (certificate, key, expected) in [
        ("rsa.crt", "rsa.key", None),
        ("text rsa.crt", "rsa1.key", None),
        ("rsa.crt", "other.key", Some(X509Error::OtherKey)),
        ("ec.crt", "ec384.key", Some(X509Error::OtherKey)),
        ("rsa.crt", "ec.key", Some(mismatch)),
        ("x", "rsa.key", Some(X509Error::NoCertificate)),
        ("rsa.crt", "x", Some(X509Error::NotPem)),
        ("rsa.crt", "rsa.key x", Some(X509Error::NotPem)),
        ("rsa.crt", "rsa.crt", Some(X509Error::NoPrivateKey)),
        ("rsa.crt rsa.key", "rsa.key", Some(X509Error::SeveralPrivateKeys)),
        ("rsa.crt", "locked.key", Some(X509Error::Encrypted)),
        ("small.crt", "small.key", Some(X509Error::UnsupportedKey)),
        ("rsa.crt ec.crt", "rsa.key", Some(X509Error::Chain(1))),
        ("leaf.crt", "ec.key", Some(X509Error::NotAuthority)),
    ] {
        assert_eq!(read(certificate, key), expected, "{certificate}, {key}");
    }
    let unreadable = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert_eq!(Authority::read(&file(directory.path(), "rsa.crt"), unreadable).err(), Some(X509Error::NoPrivateKey));
    assert_eq!(
        mismatch.to_string(),
        "verification of parsed bundle failed: could not compare public and private keys: key types do not match: *rsa.PublicKey and *ecdsa.PublicKey"
    );
}

#[test]
fn no_changed_byte_of_a_ca_panics() {
    let directory = authorities();
    let at = directory.path();
    let (label, certificate) = {
        let text = file(at, "ec.crt");
        let (label, der) = pem::decode(&text).unwrap();
        (label.to_owned(), der)
    };
    let (text, private) = (file(at, "ec.crt"), file(at, "ec.key"));
    let (_, private_der) = pem::decode(&private).unwrap();
    let key = ClientKey::generate(KeyKind::Ed25519).unwrap();
    let made = now();
    let wanted = ClientCertificate { common_name: "x", key: &key, made, ends: made + 60, hash: Hash::Sha256 };
    for bit in [0x01, 0x80, 0xff] {
        for place in 0..certificate.len() {
            let mut changed = certificate.clone();
            changed[place] ^= bit;
            if let Ok(authority) = Authority::read(&pem::encode(&label, &changed), &private) {
                let _ = authority.issue(&wanted);
            }
            let _ = Authority::read(&pem::encode(&label, &certificate[..place]), &private);
        }
        for place in 0..private_der.len() {
            let mut changed = private_der.clone();
            changed[place] ^= bit;
            for label in ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"] {
                let _ = Authority::read(&text, &pem::encode(label, &changed));
            }
        }
    }
}
