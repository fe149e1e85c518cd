//! PEM (RFC 7468) encoding of keys.

use crate::secret::SecretString;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroize;

/// Encodes `der` as PEM, ending in a newline like Go's `pem.Encode`.
#[must_use]
pub fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut out = String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 34);
    write(&mut out, label, &body);
    out
}

/// As [`encode`], for a secret.
#[must_use]
pub fn encode_secret(label: &str, der: &[u8]) -> SecretString {
    let mut body = STANDARD.encode(der);
    let mut out = SecretString::new(String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 34));
    write(out.expose_mut(), label, &body);
    body.zeroize();
    out
}

/// Label and content of the first PEM block in `text`. Text around it and headers inside are skipped.
#[must_use]
pub fn decode(text: &str) -> Option<(&str, Vec<u8>)> {
    decode_all(text).next()
}

/// All PEM blocks in `text`, up to the first malformed one.
pub fn decode_all(mut text: &str) -> impl Iterator<Item = (&str, Vec<u8>)> {
    std::iter::from_fn(move || {
        let (_, rest) = text.split_once("-----BEGIN ")?;
        let (label, rest) = rest.split_once("-----")?;
        let (body, rest) = rest.split_once("-----END ")?;
        text = rest.strip_prefix(label)?.strip_prefix("-----")?;
        let mut packed: Vec<u8> = body.lines().filter(|line| !line.contains(':')).flat_map(str::bytes).collect();
        packed.retain(|byte| !byte.is_ascii_whitespace());
        let content = STANDARD.decode(&packed).ok();
        packed.zeroize();
        Some((label, content?))
    })
}

fn write(out: &mut String, label: &str, body: &str) {
    out.extend(["-----BEGIN ", label, "-----\n"]);
    let mut rest = body;
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(64));
        out.extend([line, "\n"]);
        rest = next;
    }
    out.extend(["-----END ", label, "-----\n"]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_every_length() {
        for length in 0..200 {
            let der: Vec<u8> = (0..length).map(|i| u8::try_from(i).unwrap()).collect();
            let text = encode("A LABEL", &der);
            assert_eq!(decode(&text), Some(("A LABEL", der.clone())));
            assert_eq!(encode_secret("A LABEL", &der).expose(), &text);
            assert!(text.lines().all(|line| line.len() <= 64));
        }
    }

    #[test]
    fn refuses_truncated_blocks() {
        let text = encode("X", &[1; 100]);
        for cut in 0..text.len() - 1 {
            assert_eq!(decode(&text[..cut]), None, "cut at {cut}");
        }
        assert_eq!(decode("-----BEGIN A-----\nAAAA\n-----END B-----\n"), None);
    }
}
