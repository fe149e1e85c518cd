//! Base64 as in Go (newlines are skipped, non-zero trailing bits pass), and `vault:vN:` texts.

use base64::Engine as _;
use base64::alphabet::{STANDARD as ALPHABET, URL_SAFE};
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD, URL_SAFE_NO_PAD};

/// Standard base64 that accepts non-zero trailing bits.
static LENIENT: GeneralPurpose =
    GeneralPurpose::new(&ALPHABET, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// Base64 of the URL alphabet without padding that accepts non-zero trailing bits.
static LENIENT_URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// The error of invalid base64: the position at which Go's decoder stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Base64Error(pub usize);

impl std::fmt::Display for Base64Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "illegal base64 data at input byte {}", self.0)
    }
}

/// Decodes standard base64.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, Base64Error> {
    if let Ok(bytes) = LENIENT.decode(text) {
        return Ok(bytes);
    }
    if text.bytes().any(|byte| matches!(byte, b'\r' | b'\n')) {
        let packed: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
        if let Ok(bytes) = LENIENT.decode(packed) {
            return Ok(bytes);
        }
    }
    Err(Base64Error(error_position(text.as_bytes())))
}

/// The position that Go's decoder reports for invalid base64.
fn error_position(text: &[u8]) -> usize {
    let mut in_quantum = 0;
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        at += 1;
        match byte {
            b'\r' | b'\n' => {}
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => in_quantum = (in_quantum + 1) % 4,
            b'=' if in_quantum == 3 => return skip_newlines(text, at),
            b'=' if in_quantum == 2 => {
                let second = skip_newlines(text, at);
                return match text.get(second) {
                    Some(b'=') => skip_newlines(text, second + 1),
                    Some(_) => second - 1,
                    None => text.len(),
                };
            }
            _ => return at - 1,
        }
    }
    text.len() - in_quantum
}

fn skip_newlines(text: &[u8], from: usize) -> usize {
    from + text[from..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()
}

/// Standard base64 of `bytes`.
pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Decodes base64 of the URL alphabet without padding, the encoding of JWS.
pub(super) fn decode_url(text: &str) -> Option<Vec<u8>> {
    LENIENT_URL.decode(text).ok()
}

/// `vault:vN:` and standard base64 of `bytes`.
pub(super) fn tagged(version: u32, bytes: &[u8]) -> String {
    let mut out = header(version, bytes.len());
    STANDARD.encode_string(bytes, &mut out);
    out
}

/// `vault:vN:` and base64 of the URL alphabet without padding.
pub(super) fn tagged_url(version: u32, bytes: &[u8]) -> String {
    let mut out = header(version, bytes.len());
    URL_SAFE_NO_PAD.encode_string(bytes, &mut out);
    out
}

fn header(version: u32, length: usize) -> String {
    let mut out = String::with_capacity(20 + length.div_ceil(3) * 4);
    out.push_str(PREFIX);
    out.push_str(&version.to_string());
    out.push(':');
    out
}

const PREFIX: &str = "vault:v";

/// Why a text is not `vault:vN:...`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TagError {
    /// It does not begin with `vault:v`.
    NoPrefix,
    /// There is nothing after the version.
    WrongFields,
    /// The version is not a number.
    NoVersion,
}

/// The version and the text after it.
pub(super) fn parse_tagged(text: &str) -> Result<(i64, &str), TagError> {
    let rest = text.strip_prefix(PREFIX).ok_or(TagError::NoPrefix)?;
    let (version, body) = rest.split_once(':').ok_or(TagError::WrongFields)?;
    Ok((version.parse().map_err(|_| TagError::NoVersion)?, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Results of Go 1.25's encoding/base64, recorded through OpenBao's `hash`.
    #[test]
    fn base64_errors_have_the_position_that_go_reports() {
        for (text, position) in [
            ("#", 0),
            ("A", 0),
            ("AAA", 0),
            ("AAAAAAA", 4),
            ("AAAA#", 4),
            ("A===", 1),
            ("AA=A", 2),
            ("AA=", 3),
            ("AAA=A", 4),
            ("A\nAA", 1),
            ("AAAA=", 4),
            ("AA==A", 4),
        ] {
            assert_eq!(decode(text), Err(Base64Error(position)), "{text}");
        }
        for (text, bytes) in [
            ("", ""),
            ("aGVsbG8=", "hello"),
            ("aGVs\nbG8=\r\n", "hello"),
            ("aGVsbG8\n=", "hello"),
            ("aGVsbG9=", "hello"),
        ] {
            assert_eq!(decode(text), Ok(bytes.as_bytes().to_vec()), "{text}");
        }
    }

    #[test]
    fn tagged_texts_round_trip() {
        assert_eq!(tagged(12, b"hello"), "vault:v12:aGVsbG8=");
        assert_eq!(tagged_url(1, &[0xff, 0xfe]), "vault:v1:__4");
        assert_eq!(parse_tagged("vault:v12:aGVsbG8="), Ok((12, "aGVsbG8=")));
        assert_eq!(parse_tagged("vault:v-1:x"), Ok((-1, "x")));
        assert_eq!(parse_tagged("vault:1:x"), Err(TagError::NoPrefix));
        assert_eq!(parse_tagged("vault:v1"), Err(TagError::WrongFields));
        assert_eq!(parse_tagged("vault:vx:y"), Err(TagError::NoVersion));
    }
}
