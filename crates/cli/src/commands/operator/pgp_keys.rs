//! PGP public keys on the command line: files, or the base64 text itself. Servers take base64 without armor.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::args::{Flag, Kind};
use crate::command_error::CommandError;
use crate::cx::Cx;
use crate::data;

pub(super) const PGP_KEYS: Flag = Flag::new(
    "pgp-keys",
    Kind::Text,
    "Files with PGP public keys, with commas: each new key share is encrypted to one of them.",
);

/// The longest file, in bytes.
const MAX_FILE: u64 = 1 << 20;
const ARMOR: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const ARMOR_END: &str = "-----END PGP PUBLIC KEY BLOCK-----";

/// The keys of a flag in base64; none without the flag.
pub(super) fn list(cx: &Cx, flag: &str) -> Result<Vec<String>, CommandError> {
    let Some(text) = cx.words.text(flag).filter(|text| !text.trim().is_empty()) else { return Ok(Vec::new()) };
    text.split(',').map(|key| read(flag, key.trim())).collect()
}

/// The key of a flag in base64; empty without the flag.
pub(super) fn one(cx: &Cx, flag: &str) -> Result<String, CommandError> {
    let text = cx.words.text(flag).map(str::trim).filter(|text| !text.is_empty());
    text.map(|key| read(flag, key)).transpose().map(Option::unwrap_or_default)
}

/// The key that a part of a flag names.
fn read(flag: &str, key: &str) -> Result<String, CommandError> {
    let invalid = |why: String| CommandError::usage(format!("invalid value for flag -{flag}: {why}"));
    if key.starts_with("keybase:") {
        return Err(invalid(format!(
            "{key:?}: names of keybase are not looked up; name a file with the key, as \"gpg --export KEY > FILE\" writes it"
        )));
    }
    let path = key.strip_prefix('@').unwrap_or(key);
    if path.is_empty() {
        return Err(invalid("empty path".to_owned()));
    }
    let content = match std::fs::File::open(path) {
        Ok(file) => {
            let mut content = Vec::new();
            let read = file.take(MAX_FILE + 1).read_to_end(&mut content);
            read.map_err(|error| invalid(format!("{path}: {error}")))?;
            content
        }
        Err(_) if is_base64_of_a_key(key) => return Ok(key.to_owned()),
        Err(error) => return Err(invalid(data::opening(path, &error))),
    };
    if content.len() as u64 > MAX_FILE {
        return Err(invalid(format!("{path} is longer than 1 MiB")));
    }
    key_of(&content).map_err(|why| invalid(format!("{path}: {why}")))
}

/// Whether a text is base64 of bytes that begin as the packet of a public key does (RFC 4880, section 4.2), and no path.
fn is_base64_of_a_key(text: &str) -> bool {
    let is_key = |first: u8| first & 0xfc == 0x98 || first == 0xc6;
    STANDARD.decode(text).is_ok_and(|bytes| bytes.len() > 50 && bytes.first().is_some_and(|first| is_key(*first)))
}

/// The key in a file, which is armored, in base64, or binary.
fn key_of(content: &[u8]) -> Result<String, &'static str> {
    let Ok(text) = std::str::from_utf8(content) else { return Ok(STANDARD.encode(content)) };
    if text.contains("-----BEGIN PGP PRIVATE KEY BLOCK-----") {
        return Err("it is a private key; export the public key with \"gpg --export\"");
    }
    if let Some((_, armored)) = text.split_once(ARMOR) {
        return dearmored(armored).map(|bytes| STANDARD.encode(bytes));
    }
    let packed: String = text.split_ascii_whitespace().collect();
    if packed.is_empty() {
        return Err("it is empty");
    }
    if is_base64_of_a_key(&packed) { Ok(packed) } else { Ok(STANDARD.encode(content)) }
}

/// The bytes in ASCII armor after its first line (RFC 4880, section 6.2). A checksum must be right.
fn dearmored(text: &str) -> Result<Vec<u8>, &'static str> {
    let (block, _) = text.split_once(ARMOR_END).ok_or("its ASCII armor has no end")?;
    // Headers end at an empty line.
    let mut lines = block.lines().skip(1).map(str::trim).skip_while(|line| line.contains(':')).peekable();
    lines.next_if(|line| line.is_empty());
    let (mut packed, mut sum) = (String::new(), None);
    for line in lines.filter(|line| !line.is_empty()) {
        match line.strip_prefix('=') {
            Some(digits) if digits.len() == 4 => sum = Some(digits.to_owned()),
            _ => packed.push_str(line),
        }
    }
    let bytes = STANDARD.decode(packed).map_err(|_| "its ASCII armor is not base64")?;
    let expected = STANDARD.encode(&crc24(&bytes).to_be_bytes()[1..]);
    if sum.is_some_and(|sum| sum != expected) {
        return Err("the checksum of its ASCII armor is wrong");
    }
    Ok(bytes)
}

/// The checksum of ASCII armor (RFC 4880, section 6.1).
fn crc24(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x00b7_04ce, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte) << 16, |sum, _| {
            let shifted = sum << 1;
            if shifted & 0x0100_0000 == 0 { shifted } else { (shifted ^ 0x0186_4cfb) & 0x00ff_ffff }
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    /// Bytes that begin as a key does.
    const KEY: &[u8] = &{
        let mut key = [0xff; 53];
        key[0] = 0x98;
        key
    };

    fn armored(headers: &str, sum: &str) -> String {
        format!("{ARMOR}\n{headers}\n{}\n{sum}{ARMOR_END}\n", STANDARD.encode(KEY))
    }

    #[test]
    fn a_file_is_armored_or_base64_or_binary() {
        let expected = STANDARD.encode(KEY);
        let sum = format!("={}\n", STANDARD.encode(&crc24(KEY).to_be_bytes()[1..]));
        for content in [
            KEY.to_vec(),
            format!("{}\n", STANDARD.encode(KEY)).into_bytes(),
            format!("{}\r\n{}\n", &expected[..4], &expected[4..]).into_bytes(),
            armored("", "").into_bytes(),
            armored("", &sum).into_bytes(),
            armored("Version: x\nComment: y\n", &sum).replace('\n', "\r\n").into_bytes(),
            format!("a text before\n{}", armored("", &sum)).into_bytes(),
        ] {
            assert_eq!(key_of(&content), Ok(expected.clone()), "{}", String::from_utf8_lossy(&content));
        }
        assert_eq!(crc24(b"123456789"), 0x0021_cf02, "the published check value");
    }

    #[test]
    fn a_file_without_a_public_key_is_refused() {
        let cut = format!("{ARMOR}\n\nAAAA\n");
        for (content, why) in [
            (armored("", "=AAAA\n"), "the checksum of its ASCII armor is wrong"),
            (armored("", "!\n"), "its ASCII armor is not base64"),
            (cut, "its ASCII armor has no end"),
            (" \n".to_owned(), "it is empty"),
            (
                armored("", "").replace("PUBLIC", "PRIVATE"),
                "it is a private key; export the public key with \"gpg --export\"",
            ),
        ] {
            assert_eq!(key_of(content.as_bytes()), Err(why), "{content}");
        }
    }

    #[test]
    fn a_value_is_a_file_or_base64_and_no_name_of_keybase() {
        let text = STANDARD.encode(KEY);
        assert_eq!(read("pgp-key", &text).unwrap(), text);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), KEY).unwrap();
        let path = file.path().to_str().unwrap();
        for value in [path.to_owned(), format!("@{path}")] {
            assert_eq!(read("pgp-key", &value).unwrap(), text);
        }
        for (value, why) in [
            ("", "empty path"),
            ("@", "empty path"),
            ("keybase:someone", "names of keybase are not looked up"),
            // Also base64.
            ("/nonexistent/key", "open /nonexistent/key: no such file or directory"),
            ("AAAA", "open AAAA: no such file or directory"),
        ] {
            let error = read("pgp-key", value).unwrap_err();
            assert_eq!(error.code, 1);
            let message = error.message.unwrap();
            assert!(message.starts_with("invalid value for flag -pgp-key: ") && message.contains(why), "{message}");
        }
    }
}
