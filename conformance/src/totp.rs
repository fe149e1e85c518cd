//! The TOTP code of a URL (`otpauth://totp/…`), as an authenticator shows it (RFC 6238).

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use keepfast_crypto::keys::digest::Hash;

/// The code of a URL now. `URL+1` and `URL-1` are the codes of the next and the former period.
pub fn code(url: &str) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    code_at(url, now)
}

fn code_at(url: &str, now: u64) -> Result<String> {
    let (url, offset) = match url.strip_suffix("+1") {
        Some(url) => (url, 1),
        None => url.strip_suffix("-1").map_or((url, 0), |url| (url, -1)),
    };
    let (_, query) = url.split_once('?').context("a URL without parameters")?;
    let parameter = |name: &str| {
        let found = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        found.with_context(|| format!("a URL without {name}"))
    };
    let hash = match parameter("algorithm")? {
        "SHA1" => Hash::Sha1,
        "SHA256" => Hash::Sha256,
        "SHA512" => Hash::Sha512,
        other => bail!("unknown algorithm {other}"),
    };
    let (digits, period): (u32, u64) = (parameter("digits")?.parse()?, parameter("period")?.parse()?);
    let step = (now / period).saturating_add_signed(offset);
    let mac = hash.hmac(&base32(parameter("secret")?)?, &step.to_be_bytes());
    let at = usize::from(mac.last().context("no MAC")? & 15);
    let bytes: [u8; 4] = mac[at..at + 4].try_into()?;
    let number = (u32::from_be_bytes(bytes) & 0x7fff_ffff) % 10_u32.pow(digits);
    Ok(format!("{number:0width$}", width = digits as usize))
}

/// The bytes of base32 (RFC 4648).
fn base32(text: &str) -> Result<Vec<u8>> {
    let (mut out, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for digit in text.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'2'..=b'7' => digit - b'2' + 26,
            _ => bail!("not base32"),
        };
        (bits, count) = (bits << 5 | u32::from(value), count + 5);
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 255) as u8);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 6238, appendix B.
    #[test]
    fn codes_are_those_of_the_rfc() {
        let url =
            "otpauth://totp/a:b?algorithm=SHA1&digits=8&issuer=a&period=30&secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
        assert_eq!(code_at(url, 59).unwrap(), "94287082");
        assert_eq!(code_at(&format!("{url}-1"), 89).unwrap(), "94287082");
        assert_eq!(code_at(&format!("{url}+1"), 29).unwrap(), "94287082");
        assert_eq!(code_at(url, 1_111_111_109).unwrap(), "07081804");
        assert!(code_at("otpauth://totp/a:b", 59).is_err());
    }
}
