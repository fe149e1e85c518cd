//! Says what is wrong with a JSON text, as Go's reader says it: clients show this to people who know it.
//!
//! Only asked once a text was refused. It names the character that is wrong and no more of the text.

const EOF: &str = "unexpected EOF";
/// Deeper than any text that the server's own limit lets through by default, and no danger to the stack of a thread.
const DEEPEST: usize = 512;

/// What is wrong with a text that should be one JSON object.
pub(crate) fn of(text: &[u8]) -> String {
    let mut scan = Scan { text, at: 0 };
    if let Err(fault) = scan.value(0) {
        return fault;
    }
    scan.blanks();
    if scan.at < text.len()
        && let Err(fault) = scan.value(0)
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

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

type Step<T = ()> = Result<T, String>;

impl Scan<'_> {
    fn peek(&self) -> Step<u8> {
        self.text.get(self.at).copied().ok_or_else(|| EOF.to_owned())
    }

    fn blanks(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn next_visible(&mut self) -> Step<u8> {
        self.blanks();
        self.peek()
    }

    /// Takes one character that fits, or says where it stands.
    fn take(&mut self, fits: impl Fn(u8) -> bool, place: &str) -> Step {
        let c = self.peek()?;
        if !fits(c) {
            return Err(invalid(c, place));
        }
        self.at += 1;
        Ok(())
    }

    // recursion: bounded by DEEPEST
    fn value(&mut self, depth: usize) -> Step {
        if depth > DEEPEST {
            return Err("exceeded max depth".to_owned());
        }
        match self.next_visible()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            c => Err(invalid(c, "looking for beginning of value")),
        }
    }

    // recursion: bounded by DEEPEST, which `value` checks
    fn object(&mut self, depth: usize) -> Step {
        self.at += 1;
        if self.next_visible()? == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            match self.next_visible()? {
                b'"' => self.string()?,
                // The peer names the comma that nothing follows.
                b'}' => return Err(invalid(b',', "looking for beginning of value")),
                b't' => return Err(self.literal("true").err().unwrap_or_else(misnamed)),
                b'f' => return Err(self.literal("false").err().unwrap_or_else(misnamed)),
                b'n' => return Err(self.literal("null").err().unwrap_or_else(misnamed)),
                b'-' | b'0'..=b'9' | b'{' | b'[' => return Err(misnamed()),
                c => return Err(invalid(c, "looking for beginning of value")),
            }
            self.blanks();
            self.take(|c| c == b':', "after object key")?;
            if self.next_visible()? == b'}' {
                return Err("missing value after object key".to_owned());
            }
            self.value(depth + 1)?;
            let end = self.next_visible()?;
            self.take(|c| matches!(c, b',' | b'}'), "after object key:value pair")?;
            if end == b'}' {
                return Ok(());
            }
        }
    }

    // recursion: bounded by DEEPEST, which `value` checks
    fn array(&mut self, depth: usize) -> Step {
        self.at += 1;
        if self.next_visible()? == b']' {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.next_visible()? == b']' {
                return Err(invalid(b',', "looking for beginning of value"));
            }
            self.value(depth + 1)?;
            let end = self.next_visible()?;
            self.take(|c| matches!(c, b',' | b']'), "after array element")?;
            if end == b']' {
                return Ok(());
            }
        }
    }

    fn string(&mut self) -> Step {
        self.at += 1;
        loop {
            let c = self.peek()?;
            self.take(|c| c >= b' ', "in string")?;
            match c {
                b'"' => return Ok(()),
                b'\\' => {
                    self.escape()?;
                }
                _ => {}
            }
        }
    }

    /// What follows a backslash; a fault shows the escape and no more of the text.
    fn escape(&mut self) -> Step {
        let start = self.at - 1;
        let length = if self.peek()? == b'u' { 6 } else { 2 };
        let escape = self.text.get(start..start + length).ok_or_else(|| EOF.to_owned())?;
        let hexadecimal = escape.get(2..).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        if !(b"bfnrtu\\/\"".contains(&escape[1]) && hexadecimal) {
            return Err(format!("invalid escape sequence `{}` in string", String::from_utf8_lossy(escape)));
        }
        self.at = start + length;
        Ok(())
    }

    fn digits(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn number(&mut self) -> Step {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        let zero = self.peek()? == b'0';
        self.take(|c| c.is_ascii_digit(), "in numeric literal")?;
        if !zero {
            self.digits();
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.take(|c| c.is_ascii_digit(), "in numeric literal")?;
            self.digits();
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.text.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.take(|c| c.is_ascii_digit(), "in numeric literal")?;
            self.digits();
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
    use super::of;

    #[test]
    fn sec_kf02_texts_that_nest_without_end_are_a_fault() {
        for opening in ["{\"a\":", "{\"a\":["] {
            for length in [64 * 1024, 1_000_000] {
                assert_eq!(of(opening.repeat(length / opening.len()).as_bytes()), "exceeded max depth");
            }
        }
    }

    #[test]
    fn faults_are_worded_as_the_peer_words_them() {
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
            ("{'a':1}", "invalid character '\\'' looking for beginning of value"),
        ] {
            assert_eq!(of(text.as_bytes()), expected, "{text}");
        }
    }
}
