//! TOTP codes (RFC 6238, on HOTP of RFC 4226), and the URL from which an authenticator reads a secret.

use keepfast_crypto::compare;
use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::Timestamp;
use serde::{Deserialize, Serialize};

/// The alphabet of base32 (RFC 4648).
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The hash function of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Algorithm {
    /// SHA-1, the only one that all authenticators have.
    #[serde(rename = "SHA1")]
    Sha1,
    /// SHA-256.
    #[serde(rename = "SHA256")]
    Sha256,
    /// SHA-512.
    #[serde(rename = "SHA512")]
    Sha512,
}

impl Algorithm {
    /// The name in the API.
    pub(super) fn name(self) -> &'static str {
        match self {
            Algorithm::Sha1 => "SHA1",
            Algorithm::Sha256 => "SHA256",
            Algorithm::Sha512 => "SHA512",
        }
    }

    /// The algorithm of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512].into_iter().find(|algorithm| algorithm.name() == name)
    }

    fn hash(self) -> Hash {
        match self {
            Algorithm::Sha1 => Hash::Sha1,
            Algorithm::Sha256 => Hash::Sha256,
            Algorithm::Sha512 => Hash::Sha512,
        }
    }
}

/// The form of the codes of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CodeForm {
    /// The hash function of the HMAC.
    pub(super) algorithm: Algorithm,
    /// The number of digits.
    pub(super) digits: u32,
    /// The seconds of a time step.
    pub(super) period: u64,
    /// The time steps before and after the current one whose codes are accepted.
    pub(super) skew: u64,
}

impl CodeForm {
    /// The time step at `now`.
    pub(super) fn step_at(&self, now: Timestamp) -> u64 {
        u64::try_from(now.unix()).unwrap_or_default() / self.period.max(1)
    }

    /// The seconds until the next time step.
    pub(super) fn seconds_to_next(&self, now: Timestamp) -> u64 {
        let period = self.period.max(1);
        period - u64::try_from(now.unix()).unwrap_or_default() % period
    }

    /// The code of a time step (RFC 4226, 5.3).
    pub(super) fn code(&self, key: &[u8], step: u64) -> SecretString {
        let mac = self.algorithm.hash().hmac(key, &step.to_be_bytes());
        let offset = usize::from(mac.last().map_or(0, |last| last & 0x0f));
        let bytes = mac.get(offset..offset + 4).unwrap_or_default();
        let number = bytes.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte)) & 0x7fff_ffff;
        let number = u64::from(number) % 10_u64.pow(self.digits.min(10));
        SecretString::new(format!("{number:0width$}", width = self.digits as usize))
    }

    /// The time step whose code this is: one within the skew that is later than `last`. A code is exactly its digits: with
    /// anything around them it is wrong.
    pub(super) fn step_of(&self, key: &[u8], code: &str, now: Timestamp, last: u64) -> Option<u64> {
        let current = self.step_at(now);
        let mut found = None;
        // All steps are compared, so that the time does not show which one has the code.
        for step in current.saturating_sub(self.skew)..=current.saturating_add(self.skew) {
            let is_equal = compare::equal(self.code(key, step).expose().as_bytes(), code.as_bytes());
            if is_equal && step > last {
                found = Some(step);
            }
        }
        found
    }

    /// The URL of a secret for authenticators.
    pub(super) fn url(&self, key: &[u8], issuer: &str, account: &str) -> SecretString {
        let CodeForm { algorithm, digits, period, .. } = self;
        let (issuer, account, algorithm) = (escape(issuer), escape(account), algorithm.name());
        let secret = SecretString::new(base32(key));
        // Written to its final size: a text that grows leaves copies of the secret behind.
        let mut url = String::with_capacity(128 + 2 * issuer.len() + account.len() + secret.expose().len());
        url.extend(["otpauth://totp/", &issuer, ":", &account, "?algorithm=", algorithm, "&digits="]);
        url.extend([digits.to_string().as_str(), "&issuer=", &issuer, "&period=", &period.to_string(), "&secret="]);
        url.push_str(secret.expose());
        SecretString::new(url)
    }
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(3 * text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Base32 without padding (RFC 4648).
fn base32(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 8 / 5 + 2);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in bytes {
        (bits, count) = (bits << 8 | u32::from(*byte), count + 8);
        while count >= 5 {
            count -= 5;
            out.push(char::from(BASE32[(bits >> count & 31) as usize]));
        }
        bits &= (1 << count) - 1;
    }
    if count > 0 {
        out.push(char::from(BASE32[(bits << (5 - count) & 31) as usize]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA1_KEY: &[u8] = b"12345678901234567890";

    fn form(algorithm: Algorithm, digits: u32) -> CodeForm {
        CodeForm { algorithm, digits, period: 30, skew: 1 }
    }

    // RFC 6238, appendix B.
    #[test]
    fn rfc_6238() {
        let keys: [(Algorithm, &[u8]); 3] = [
            (Algorithm::Sha1, SHA1_KEY),
            (Algorithm::Sha256, b"12345678901234567890123456789012"),
            (Algorithm::Sha512, b"1234567890123456789012345678901234567890123456789012345678901234"),
        ];
        let rows = [
            (59, ["94287082", "46119246", "90693936"]),
            (1_111_111_109, ["07081804", "68084774", "25091201"]),
            (1_111_111_111, ["14050471", "67062674", "99943326"]),
            (1_234_567_890, ["89005924", "91819424", "93441116"]),
            (2_000_000_000, ["69279037", "90698825", "38618901"]),
            (20_000_000_000, ["65353130", "77737706", "47863826"]),
        ];
        for (time, codes) in rows {
            for ((algorithm, key), expected) in keys.into_iter().zip(codes) {
                let code = form(algorithm, 8).code(key, time / 30);
                assert_eq!(code.expose(), expected, "{algorithm:?} at {time}");
            }
        }
    }

    #[test]
    fn a_code_is_found_within_the_skew_and_after_the_last_accepted_step() {
        let form = form(Algorithm::Sha1, 6);
        let now = Timestamp::from_unix(3000);
        let current = form.step_at(now);
        let found = |step: u64, last: u64| form.step_of(SHA1_KEY, form.code(SHA1_KEY, step).expose(), now, last);
        for step in current - 1..=current + 1 {
            assert_eq!(found(step, 0), Some(step));
            assert_eq!(found(step, step), None, "a code is accepted once");
            assert_eq!(found(step, step - 1), Some(step));
        }
        assert_eq!(found(current - 2, 0), None);
        assert_eq!(found(current + 2, 0), None);
        assert_eq!(form.seconds_to_next(now), 30);
        assert_eq!(form.seconds_to_next(Timestamp::from_unix(3029)), 1);
    }

    #[test]
    fn only_the_exact_digits_are_a_code() {
        let form = form(Algorithm::Sha1, 6);
        let now = Timestamp::from_unix(59);
        let code = form.code(SHA1_KEY, form.step_at(now));
        let code = code.expose();
        assert!(form.step_of(SHA1_KEY, code, now, 0).is_some());
        let wide: String = code.chars().filter_map(|c| char::from_u32(u32::from(c) - 0x30 + 0xff10)).collect();
        for other in [
            format!(" {code}"),
            format!("{code} "),
            format!("{code}\n"),
            format!("0{code}"),
            wide,
            code[..5].to_owned(),
        ] {
            assert!(form.step_of(SHA1_KEY, &other, now, 0).is_none(), "{other:?}");
        }
    }

    // RFC 4648, section 10, without padding.
    #[test]
    fn rfc_4648() {
        let rows =
            [("", ""), ("f", "MY"), ("fo", "MZXQ"), ("foo", "MZXW6"), ("foob", "MZXW6YQ"), ("fooba", "MZXW6YTB")];
        for (bytes, text) in rows {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
        assert_eq!(base32(b"foobar"), "MZXW6YTBOI");
    }

    #[test]
    fn the_url_has_the_secret_and_its_form() {
        let url = form(Algorithm::Sha256, 8).url(b"foobar", "My Corp", "id-1");
        assert_eq!(
            url.expose(),
            "otpauth://totp/My%20Corp:id-1?algorithm=SHA256&digits=8&issuer=My%20Corp&period=30&secret=MZXW6YTBOI"
        );
    }
}
