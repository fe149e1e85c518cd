//! The values of strings, heredocs and numbers.

use crate::ValueKind;

/// The value of a quoted string whose escapes the scanner has checked. An escape without a character becomes
/// U+FFFD. `${…}` stays as written, with its escapes.
pub(crate) fn unquote(raw: &str) -> String {
    let inner = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')).unwrap_or(raw);
    if !inner.contains('\\') {
        return inner.to_owned();
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut braces = 0_usize;
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '$' if braces == 0 && chars.as_str().starts_with('{') => {
                chars.next();
                bytes.extend_from_slice(b"${");
                braces = 1;
                continue;
            }
            '{' if braces > 0 => braces += 1,
            '}' if braces > 0 => braces -= 1,
            '\\' if braces == 0 => {
                escape(&mut chars, &mut bytes);
                continue;
            }
            _ => {}
        }
        push(&mut bytes, c);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The value of a heredoc from `<<` to its closing anchor. `<<-` removes the indentation of the closing anchor from
/// every line, if every line has it. Line ends become `\n`.
pub(crate) fn heredoc(raw: &str) -> String {
    let raw = &*raw.replace("\r\n", "\n");
    let Some((opening, rest)) = raw.split_once('\n') else { return String::new() };
    let (text, closing) = match rest.rfind('\n') {
        Some(end) => rest.split_at(end + 1),
        None => ("", rest),
    };
    if !opening.starts_with("<<-") {
        return text.to_owned();
    }
    let indent = &closing[..closing.len() - closing.trim_start().len()];
    let lines = text.split_inclusive('\n');
    if lines.clone().all(|line| line.starts_with(indent)) {
        return lines.map(|line| &line[indent.len()..]).collect();
    }
    text.to_owned()
}

/// The value of a scanned number; `None` when it is out of range.
pub(crate) fn number(raw: &str) -> Option<ValueKind> {
    let (negative, digits) = raw.strip_prefix('-').map_or((false, raw), |digits| (true, digits));
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    let magnitude = i128::from(u64::from_str_radix(digits, radix).ok()?);
    i64::try_from(if negative { -magnitude } else { magnitude }).ok().map(ValueKind::Integer)
}

/// The value of a number with a point or exponent; `None` when it is not finite.
pub(crate) fn float(raw: &str) -> Option<ValueKind> {
    raw.parse().ok().filter(|value: &f64| value.is_finite()).map(ValueKind::Float)
}

fn push(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

fn escape(chars: &mut std::str::Chars<'_>, bytes: &mut Vec<u8>) {
    let (radix, skip, count) = match chars.as_str().as_bytes().first() {
        Some(b'0'..=b'7') => (8, 0, 3),
        Some(b'x') => (16, 1, 2),
        Some(b'u') => (16, 1, 4),
        Some(b'U') => (16, 1, 8),
        _ => {
            let c = chars.next().unwrap_or('\\');
            let named = match c {
                'a' => '\u{7}',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\u{b}',
                other => other,
            };
            return push(bytes, named);
        }
    };
    let digits: String = chars.by_ref().take(skip + count).skip(skip).collect();
    let code = u32::from_str_radix(&digits, radix).unwrap_or(u32::MAX);
    match u8::try_from(code) {
        // Octal and `\x` escapes are a byte, `\u` and `\U` a character.
        Ok(byte) if count <= 3 => bytes.push(byte),
        _ => push(bytes, char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)),
    }
}
