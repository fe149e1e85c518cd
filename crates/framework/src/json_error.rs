//! Describes the error in an invalid JSON text with the messages of Go's parser, which users of Vault know.
//!
//! Only used after a text was refused. A message contains the wrong character and nothing else of the text.

use keepfast_json::{Kind, Piece, Pieces, Token, Tokens};

const EOF: &str = "unexpected EOF";
/// The message for a number that is larger than any float; it does not contain the number.
pub(crate) const ENDLESS: &str = "json: cannot unmarshal number into Go value of type float64";
const NO_VALUE: &str = "looking for beginning of value";
/// Maximum nesting depth. It exceeds the default depth limit of the server and does not endanger the stack of a thread.
const DEEPEST: usize = 512;

/// Describes the error in a text that should be one JSON object.
pub(crate) fn of(text: &[u8]) -> String {
    let mut check = Check { text, tokens: Tokens::new(text) };
    if let Err(fault) = check.value() {
        return fault;
    }
    if check.tokens.peek().is_some()
        && let Err(fault) = check.value()
    {
        return fault;
    }
    let kind = match text.trim_ascii().first() {
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "bool",
        Some(b'{') => return "there is more than one JSON object".to_owned(),
        _ => "number",
    };
    format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}")
}

/// Whether a JSON text contains a number larger than any float, which Go's parser refuses at any position.
pub(crate) fn has_endless_number(text: &[u8]) -> bool {
    Tokens::new(text).any(|token| matches!(token.kind, Kind::Word) && is_endless(token.text))
}

fn is_endless(word: &[u8]) -> bool {
    // A number with fewer digits and without an exponent cannot be that large.
    let is_number = matches!(word.first(), Some(b'-' | b'0'..=b'9'));
    if !is_number || word.len() < 300 && !word.iter().any(|b| matches!(b, b'e' | b'E')) {
        return false;
    }
    std::str::from_utf8(word).is_ok_and(|text| text.parse::<f64>().is_ok_and(f64::is_infinite))
}

/// Finds the first error of a text.
struct Check<'a> {
    text: &'a [u8],
    tokens: Tokens<'a>,
}

type Step<T = ()> = Result<T, String>;

impl<'a> Check<'a> {
    fn peek(&mut self) -> Step<u8> {
        self.tokens.peek().ok_or_else(|| EOF.to_owned())
    }

    fn token(&mut self) -> Step<Token<'a>> {
        self.tokens.next().ok_or_else(|| EOF.to_owned())
    }

    /// Takes one of two punctuation marks, or reports the place of another character.
    fn take(&mut self, marks: [u8; 2], place: &str) -> Step<u8> {
        let c = self.peek()?;
        if !marks.contains(&c) {
            return Err(invalid(c, place));
        }
        self.tokens.next();
        Ok(c)
    }

    // recursion: bounded by DEEPEST
    fn value(&mut self) -> Step {
        if self.tokens.depth() > DEEPEST {
            return Err("exceeded max depth".to_owned());
        }
        let token = self.token()?;
        match (token.kind, token.text) {
            (Kind::BeginObject, _) => self.object(),
            (Kind::BeginArray, _) => self.array(),
            (Kind::String { .. }, _) => self.string(&token),
            (Kind::Word, [b'-' | b'0'..=b'9', ..]) => self.part_of(&token, |word| word.number()),
            (Kind::Word, [b't', ..]) => self.part_of(&token, |word| word.literal("true")),
            (Kind::Word, [b'f', ..]) => self.part_of(&token, |word| word.literal("false")),
            (Kind::Word, [b'n', ..]) => self.part_of(&token, |word| word.literal("null")),
            _ => Err(invalid_start(&token)),
        }
    }

    /// Reads an object after its brace.
    // recursion: bounded by DEEPEST, which `value` checks
    fn object(&mut self) -> Step {
        if self.peek()? == b'}' {
            self.tokens.next();
            return Ok(());
        }
        loop {
            let name = self.token()?;
            match (name.kind, name.text) {
                (Kind::String { .. }, _) => self.string(&name)?,
                // OpenBao reports a comma without a following value.
                (Kind::EndObject, _) => return Err(invalid(b',', NO_VALUE)),
                (Kind::Word, [b't', ..]) => return self.misnamed(&name, "true"),
                (Kind::Word, [b'f', ..]) => return self.misnamed(&name, "false"),
                (Kind::Word, [b'n', ..]) => return self.misnamed(&name, "null"),
                (Kind::Word, [b'-' | b'0'..=b'9', ..]) | (Kind::BeginObject | Kind::BeginArray, _) => {
                    return Err(misnamed());
                }
                _ => return Err(invalid_start(&name)),
            }
            self.take([b':'; 2], "after object key")?;
            if self.peek()? == b'}' {
                return Err("missing value after object key".to_owned());
            }
            self.value()?;
            if self.take([b',', b'}'], "after object key:value pair")? == b'}' {
                return Ok(());
            }
        }
    }

    /// A literal in place of a name: it is read first.
    fn misnamed(&mut self, token: &Token<'_>, literal: &str) -> Step {
        self.part_of(token, |word| word.literal(literal))?;
        Err(misnamed())
    }

    /// Reads an array after its bracket.
    // recursion: bounded by DEEPEST, which `value` checks
    fn array(&mut self) -> Step {
        if self.peek()? == b']' {
            self.tokens.next();
            return Ok(());
        }
        loop {
            if self.peek()? == b']' {
                return Err(invalid(b',', NO_VALUE));
            }
            self.value()?;
            if self.take([b',', b']'], "after array element")? == b']' {
                return Ok(());
            }
        }
    }

    fn string(&self, token: &Token<'_>) -> Step {
        let mut pieces = Pieces::new(token.inside());
        loop {
            let at = token.start + 1 + pieces.offset();
            match pieces.next() {
                Some(Piece::Plain(bytes)) => {
                    if let Some(control) = bytes.iter().find(|byte| **byte < b' ') {
                        return Err(invalid(*control, "in string"));
                    }
                }
                Some(Piece::Invalid(_)) => return Err(self.invalid_escape(at)),
                Some(Piece::Byte(_) | Piece::Unit(_)) => {}
                None if token.is_terminated() => return Ok(()),
                None => return Err(EOF.to_owned()),
            }
        }
    }

    /// Shows an escape sequence that begins with a backslash, and no more of the text.
    fn invalid_escape(&self, at: usize) -> String {
        let length = if self.text.get(at + 1) == Some(&b'u') { 6 } else { 2 };
        match self.text.get(at..at + length) {
            Some(escape) => format!("invalid escape sequence `{}` in string", String::from_utf8_lossy(escape)),
            None => EOF.to_owned(),
        }
    }

    /// Reads a word as far as it matches; the rest of it is the next token.
    fn part_of(&mut self, token: &Token<'_>, read: impl FnOnce(&mut Word<'_>) -> Step) -> Step {
        let mut word = Word { text: self.text, at: token.start };
        read(&mut word)?;
        self.tokens.resume_at(word.at);
        Ok(())
    }
}

/// A number or literal that is being read.
struct Word<'a> {
    text: &'a [u8],
    at: usize,
}

impl Word<'_> {
    /// Takes one byte that matches, or reports the place of another one.
    fn take(&mut self, fits: impl Fn(u8) -> bool, place: &str) -> Step {
        let c = self.text.get(self.at).copied().ok_or_else(|| EOF.to_owned())?;
        if !fits(c) {
            return Err(invalid(c, place));
        }
        self.at += 1;
        Ok(())
    }

    fn takes_any(&mut self, bytes: &[u8]) -> bool {
        let fits = self.text.get(self.at).is_some_and(|byte| bytes.contains(byte));
        self.at += usize::from(fits);
        fits
    }

    fn digits(&mut self) -> Step {
        self.take(|c| c.is_ascii_digit(), "in numeric literal")?;
        while self.takes_any(b"0123456789") {}
        Ok(())
    }

    fn number(&mut self) -> Step {
        self.takes_any(b"-");
        if !self.takes_any(b"0") {
            self.digits()?;
        }
        if self.takes_any(b".") {
            self.digits()?;
        }
        if self.takes_any(b"eE") {
            self.takes_any(b"+-");
            self.digits()?;
        }
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Step {
        for expected in word.bytes() {
            let place = format!("in literal {word} (expecting {})", quoted(expected));
            self.take(|c| c == expected, &place)?;
        }
        Ok(())
    }
}

fn invalid_start(token: &Token<'_>) -> String {
    token.text.first().map_or_else(|| EOF.to_owned(), |c| invalid(*c, NO_VALUE))
}

fn misnamed() -> String {
    "object member name must be a string".to_owned()
}

fn invalid(c: u8, place: &str) -> String {
    format!("invalid character {} {place}", quoted(c))
}

fn quoted(c: u8) -> String {
    match c {
        b'\'' => "'\\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        0x80.. => format!("'\\x{c:02x}'"),
        _ => format!("'{}'", char::from(c).escape_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::{has_endless_number, of};

    #[test]
    fn numbers_beyond_every_float_are_found_at_any_position() {
        let digits = format!("[{}]", "9".repeat(400));
        for endless in ["{\"a\":1e400}", "[-1e400]", "{\"a\":[{\"b\\\"\":1E309}]}", digits.as_str()] {
            assert!(has_endless_number(endless.as_bytes()), "{endless}");
        }
        let long = format!("[{}.5]", "9".repeat(305));
        for fine in ["{}", "{\"1e400\":\"1e400\"}", "[1e-400,0e999,1e308]", "[\"\\", "\"a\\\"1e400", "-", long.as_str()]
        {
            assert!(!has_endless_number(fine.as_bytes()), "{fine}");
        }
    }

    #[test]
    fn sec_kf02_endlessly_nested_texts_are_an_error() {
        for opening in ["{\"a\":", "{\"a\":["] {
            for length in [64 * 1024, 1_000_000] {
                assert_eq!(of(opening.repeat(length / opening.len()).as_bytes()), "exceeded max depth");
            }
        }
    }

    #[test]
    fn errors_have_openbaos_texts() {
        for (text, expected) in [
            ("[]", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
            ("\"x\"", "json: cannot unmarshal string into Go value of type map[string]interface {}"),
            ("5", "json: cannot unmarshal number into Go value of type map[string]interface {}"),
            ("true", "json: cannot unmarshal bool into Go value of type map[string]interface {}"),
            ("{", "unexpected EOF"),
            ("{\"a\":\"b", "unexpected EOF"),
            ("{}x", "invalid character 'x' looking for beginning of value"),
            ("not json", "invalid character 'o' in literal null (expecting 'u')"),
            ("{bad", "invalid character 'b' looking for beginning of value"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":}", "missing value after object key"),
            ("{\"a\":1 \"b\":2}", "invalid character '\"' after object key:value pair"),
            ("{\"a\":[1 2]}", "invalid character '2' after array element"),
            ("{\"a\":\"b\",}", "invalid character ',' looking for beginning of value"),
            ("{\"a\":[1,]}", "invalid character ',' looking for beginning of value"),
            ("{1:2}", "object member name must be a string"),
            ("{\"a\":\"\n\"}", "invalid character '\\n' in string"),
            ("{\"a\":\"\\q\"}", "invalid escape sequence `\\q` in string"),
            ("{\"a\":1.}", "invalid character '}' in numeric literal"),
            ("{\"a\":NaN}", "invalid character 'N' looking for beginning of value"),
            ("{\"a\":01}", "invalid character '1' after object key:value pair"),
            ("{\"a\":-}", "invalid character '}' in numeric literal"),
            ("{\"a\":1e+", "unexpected EOF"),
            ("{\"a\":nullx}", "invalid character 'x' after object key:value pair"),
            ("{true:1}", "object member name must be a string"),
            ("{truth:1}", "invalid character 't' in literal true (expecting 'e')"),
            ("{\"a\":\"\\u12\"}", "invalid escape sequence `\\u12\"}` in string"),
            ("{\"a\":\"\\", "unexpected EOF"),
            ("{\"a\":1]", "invalid character ']' after object key:value pair"),
            ("{,}", "invalid character ',' looking for beginning of value"),
            ("{\"a\"", "unexpected EOF"),
            ("{'a':1}", "invalid character '\\'' looking for beginning of value"),
        ] {
            assert_eq!(of(text.as_bytes()), expected, "{text}");
        }
    }
}
