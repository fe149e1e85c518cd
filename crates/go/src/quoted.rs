//! Quoted texts as Go's `%q` and `strconv.Quote` write them in error texts.

use std::fmt::{Display, Formatter, Result, Write as _};

/// Displays a text in double quotes: with `\"`, `\\`, `\n` and the like, and with the code of every other
/// character that does not print (`\x00`, `\u200b`).
#[derive(Clone, Copy)]
pub struct Quoted<'a>(pub &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}"),
                '\u{7}' => f.write_str("\\a"),
                '\u{8}' => f.write_str("\\b"),
                '\u{b}' => f.write_str("\\v"),
                '\u{c}' => f.write_str("\\f"),
                '\n' => f.write_str("\\n"),
                '\r' => f.write_str("\\r"),
                '\t' => f.write_str("\\t"),
                c if is_printed(c) => f.write_char(c),
                c if c.is_ascii() => write!(f, "\\x{:02x}", u32::from(c)),
                c if u32::from(c) < 0x1_0000 => write!(f, "\\u{:04x}", u32::from(c)),
                c => write!(f, "\\U{:08x}", u32::from(c)),
            }?;
        }
        f.write_char('"')
    }
}

/// Whether a character prints. Rust also escapes combining marks, which print.
fn is_printed(c: char) -> bool {
    let marks = matches!(c, '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe2f}');
    c == '\'' || marks || c.escape_debug().len() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_like_go() {
        for (text, quoted) in [
            ("", r#""""#),
            ("it's", r#""it's""#),
            (r#"a"b\c"#, r#""a\"b\\c""#),
            ("a\0b\u{7f}", r#""a\x00b\x7f""#),
            ("\u{7}\u{8}\t\n\u{b}\u{c}\r", r#""\a\b\t\n\v\f\r""#),
            ("é☃ e\u{301}", "\"é☃ e\u{301}\""),
            ("\u{200b}\u{202e}\u{a0}", r#""\u200b\u202e\u00a0""#),
            ("\u{e0001}", r#""\U000e0001""#),
        ] {
            assert_eq!(Quoted(text).to_string(), quoted);
        }
    }
}
