//! JSON texts that may hold secrets: each buffer has its final size from the start, so that all of it is wiped.

use keepfast_crypto::secret::SecretString;
use keepfast_json::{Piece, Pieces};

/// The pieces of a JSON text.
#[derive(Default)]
pub(super) struct Pieced(Vec<SecretString>);

impl Pieced {
    pub(super) fn push(&mut self, piece: SecretString) {
        self.0.push(piece);
    }

    pub(super) fn punctuation(&mut self, text: &str) {
        self.0.push(SecretString::new(text.to_owned()));
    }

    /// The whole text.
    pub(super) fn joined(self) -> SecretString {
        let length = self.0.iter().map(|piece| piece.expose().len()).sum();
        let mut whole = SecretString::new(String::with_capacity(length));
        self.0.iter().for_each(|piece| whole.expose_mut().push_str(piece.expose()));
        whole
    }
}

/// The JSON string with this content.
pub(super) fn quoted(text: &str) -> SecretString {
    let escaped = |c: char| match c {
        '"' | '\\' => 2,
        '\0'..='\x1f' => 6,
        c => c.len_utf8(),
    };
    let mut out = SecretString::new(String::with_capacity(2 + text.chars().map(escaped).sum::<usize>()));
    let to = out.expose_mut();
    to.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => to.extend(['\\', c]),
            '\0'..='\x1f' => {
                to.push_str("\\u00");
                let digit = |at: u32| char::from_digit(u32::from(c) >> at & 15, 16).unwrap_or('0');
                to.extend([digit(4), digit(0)]);
            }
            c => to.push(c),
        }
    }
    to.push('"');
    out
}

/// The content of a valid JSON string; `None` for another JSON text.
pub(super) fn unquoted(json: &str) -> Option<SecretString> {
    let inside = json.strip_prefix('"')?.strip_suffix('"')?;
    // An escaped text is never shorter than its content.
    let mut out = SecretString::new(String::with_capacity(inside.len()));
    let to = out.expose_mut();
    let mut half = None;
    for piece in Pieces::new(inside.as_bytes()) {
        let before = half.take();
        if let (Some(high), Piece::Unit(low @ 0xdc00..0xe000)) = (before, piece) {
            to.extend(char::decode_utf16([high, low]).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
            continue;
        }
        to.extend(before.map(|_| char::REPLACEMENT_CHARACTER));
        match piece {
            Piece::Unit(high @ 0xd800..0xdc00) => half = Some(high),
            Piece::Unit(unit) => to.push(char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER)),
            Piece::Plain(bytes) => to.push_str(std::str::from_utf8(bytes).ok()?),
            Piece::Byte(byte) => to.push(char::from(byte)),
            Piece::Invalid(_) => return None,
        }
    }
    to.extend(half.map(|_| char::REPLACEMENT_CHARACTER));
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_text_is_json_and_comes_back() {
        for text in ["", "plain", "a\"b\\c", "line\nend\u{1}\u{7f}", "ü€😀"] {
            let json = quoted(text);
            assert_eq!(serde_json::from_str::<String>(json.expose()).unwrap(), text);
            assert_eq!(unquoted(json.expose()).unwrap().expose(), text);
        }
        for (json, text) in [
            (r#""\u00e9\ud83d\ude00\/\b""#, "é😀/\u{8}"),
            (r#""\ud83d""#, "\u{fffd}"),
            (r#""\ud83d\u0041\ud83dx""#, "\u{fffd}A\u{fffd}x"),
            (r#""a\ude00b""#, "a\u{fffd}b"),
        ] {
            assert_eq!(unquoted(json).unwrap().expose(), text, "{json}");
        }
        assert!(unquoted("5").is_none() && unquoted("{}").is_none());
    }

    #[test]
    fn pieces_join_to_one_text_of_their_size() {
        let mut pieces = Pieced::default();
        pieces.punctuation("[");
        pieces.push(quoted("x"));
        pieces.punctuation("]");
        let joined = pieces.joined();
        assert_eq!((joined.expose().as_str(), joined.expose().capacity()), ("[\"x\"]", 5));
    }
}
