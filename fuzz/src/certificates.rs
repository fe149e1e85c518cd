//! OpenPGP certificates.

use keepfast_crypto::secret::SecretString;
use keepfast_pgp::Certificate;

/// Certificates with Curve25519 and RSA keys, created in 2024.
pub(crate) const CERTIFICATES: &[&str] = &[
    "mDMEZZIAgBYJKwYBBAHaRw8BAQdAN9sl71qy/8rS7aWpGLwi+UkWCIxg2/hx4bf4V0P3r020GWN1cnZlIDxjdXJ2ZUBleGFtcGxlLmNvbT6IkAQTFggAOBYhBIfXU6QRHMtLn3gUL5vysBkD0xDHBQJlkgCAAhsDBQsJCAcCBhUKCQgLAgQWAgMBAh4BAheAAAoJEJvysBkD0xDHx1kA/35cIXu2KQeNjbk6QWIlllYn2WOxUj3LLyxOhMOK2c7yAQCQgP8TzDdC/TP2wYrjad6dK0qE1s9bhM2JIy4/6In9Dbg4BGWSAIASCisGAQQBl1UBBQEBB0AHjQzTZjB46M0owLbtLiDxIjf9iM+sgLEvLqQH8MBRdwMBCAeIeAQYFggAIBYhBIfXU6QRHMtLn3gUL5vysBkD0xDHBQJlkgCAAhsMAAoJEJvysBkD0xDHs/kBAKea/fqyaLFjiezoz3qrqdDdPPM17NL721dcuqomDramAQCzhviP/XQCnhlhoPNr4ee61ImKMCW3DPWsMamhAwW6Bw==",
    "mQENBGWSAIABCAC4ktGdSv+sOTymbta8dPD9Zv4fDXjLoC7HsF0Vg/SADyNhdObL26hliULZbBzZdNytgmhZsXaLitKgcWqirXu/fJkxBXG26OrQMyFslIP0NStuicEcfY339uaXdirMuS7hmNQI/P4gJwQv01lHovcjQzXJt1aSlHh9eND5HC4RhW6oU89MpZRSHXQK1YRb6oqhWKLe9PMMfMD/6ojvSYFBvLj3kFLJTeN57LkYYoCFUMHWoukbAMhKTPgyLp1uuIEkeeuJbOgJtTzs9gRRNYGLhyc6aXyjfrgdQoAXtWsn3STcewAwvVkbOrLai9j4kcVAuZRKg/ZBRmw+OFQBiEvtABEBAAG0FXJzYSA8cnNhQGV4YW1wbGUuY29tPokBTgQTAQoAOBYhBJk9nLWv9YE/qTpGoB33S4p80mu+BQJlkgCAAhsDBQsJCAcCBhUKCQgLAgQWAgMBAh4BAheAAAoJEB33S4p80mu+JaIH/jnwNjUF9GBzCgMgU3jyOsB7z+yQHWh85/arx/FzHcID9D6OaG0ZsnP8oHuUF6njvxCLpdeJ6oxd+NwfXNSg6+JX0k8r3oNLfrzHX/2/PiaJhfAVmJz2IPdPrJqJJoj/y2JvYlcpO1DeW6sptTWUzjRw7AwLS7Qbd5wyr/hnFH1qcD0vCDKdxgF4ca0lHgm5W+U5EBFa+Gi/TZzGTj3Si5SPv/XYLw/wy76UGmbW6R+c/2eJKJP+94QhtHOAu1Roul7aiOB78QB21dq35G13mZRSf1qgb0qfvh/TytS2t3lIlim/LnufiFw+I/y5fhSZnvEizJiHCFk6KUa8JMUl0gW5AQ0EZZIAgAEIAL25mb4V4SflvCLdhLd0oLo3OWYIP0Eo2apSLVvJO8KBAdEDnUmM/FAOeYgmLIyZDCfyj7mTRoyWfwPW5bJtYfFnBU/EgzSDUHqkf7RwRQmiCV64EZqYQuGQ/MfmCaK9FuxEd+vgyqViL6B/TLQV6WejUigt402aMnCTAjBA/aWA8B7aCavNGQ+RS/rGWvXLPYKDisf/95szdsVjXxUUJ7l8m8eFLlUCp/GZyUtC8dwOYFxkSNFYlqlWRuGUIrHj2b2m2kfY14wFEO24DehSirq6OFk4x15bzsdkC+QA4LDtx/izjjj6OAR99O6xiVb4NjZS4+iKcSmR2y2OtrieFLkAEQEAAYkBNgQYAQoAIBYhBJk9nLWv9YE/qTpGoB33S4p80mu+BQJlkgCAAhsMAAoJEB33S4p80mu+PXMH/1GXD6FQvMjVX225JLrKK/0fiGHqTcZjQRuOtUFj596EW7f/aZ+/P4DQCdfq+mmHQ6s9zMft08ZHBweMy1xgsuOTqTZBHVYHKSQzeGxuhDAEJfhX4ItKkUOsPMv2M8wsqqOUtwTMDo6gR6Hys4gK25dlM3X6NfVXnxdcQdLyVVWnBbw+Kd4TikjtPRJHC2q1jWqtQFn3ih92RU4h2FQPzZyVVsKGfUWdkCbTcQ2qwfqO51VjXxVm/d04dIawBBtph9UDtKsw625a+ZlaSEgR5maEaGspVzM0y0ItvCBtowNePNiSoJpZGgwVrFt1owK1A+MKHPQ4i81VCDd/JZ8nqL8=",
    "keybase:someone",
    "-----BEGIN PGP PUBLIC KEY BLOCK-----",
];

/// 2026-01-01T00:00:00Z.
const NOW: u64 = 1_767_225_600;

/// Certificates in base64 and as packets: never a panic; an accepted one has a fingerprint and encrypts.
pub fn certificate(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for certificate in [Certificate::from_base64(&text, NOW), Certificate::from_bytes(data, NOW)] {
        let certificate = match certificate {
            Ok(certificate) => certificate,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        let fingerprint = certificate.fingerprint();
        assert!(fingerprint.len() == 40 && fingerprint.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let message = certificate.encrypt(&SecretString::new("share".to_owned())).expect("it was checked");
        assert!(message.len() > 100 && !message.windows(5).any(|part| part == b"share"));
    }
}
