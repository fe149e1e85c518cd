//! Values of a connection string with the placeholders `{{username}}` and `{{password}}`.
//!
//! A value is split at its placeholders before its escapes are decoded, so an escaped brace never becomes a
//! placeholder, and the value of a placeholder never becomes syntax.

use keepfast_crypto::secret::SecretString;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Replaces a secret in responses, as in Go's `url.URL.Redacted`.
pub(super) const MASK: &str = "xxxxx";

const USERNAME: &str = "{{username}}";
const PASSWORD: &str = "{{password}}";

/// The maximum length of a user name and a password in bytes; the longest ones are tokens that serve as passwords.
const MAX_BYTES: usize = 16 * 1024;
/// The maximum number of placeholders in a connection string, each of which may be replaced by that many bytes.
const MAX_PLACEHOLDERS: usize = 16;

/// The administrator's credentials in the settings beside the connection string.
pub(super) struct Credentials {
    username: String,
    password: SecretString,
}

impl Credentials {
    /// The credentials of a connection.
    ///
    /// # Errors
    /// When one of them exceeds 16 KiB.
    pub(super) fn new(username: String, password: &str) -> Result<Self, &'static str> {
        if username.len() > MAX_BYTES || password.len() > MAX_BYTES {
            return Err("username or password is longer than 16 KiB");
        }
        Ok(Credentials { username, password: SecretString::new(password.to_owned()) })
    }

    pub(super) fn username(&self) -> &str {
        &self.username
    }

    pub(super) fn password(&self) -> &SecretString {
        &self.password
    }
}

/// Whether a connection string has more than 16 placeholders.
pub(super) fn has_too_many(text: &str) -> bool {
    text.matches(USERNAME).chain(text.matches(PASSWORD)).count() > MAX_PLACEHOLDERS
}

/// A decoded value with its placeholders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Username,
    Password,
}

impl Template {
    /// Splits a raw value at its placeholders and decodes the rest.
    ///
    /// # Errors
    /// Those of `decode`.
    pub(super) fn parse<E>(raw: &str, decode: impl Fn(&str) -> Result<String, E>) -> Result<Self, E> {
        let (mut parts, mut rest) = (Vec::new(), raw);
        let next = |text: &str| {
            let of = |name: &'static str, part: Part| text.find(name).map(|at| (at, name.len(), part));
            [of(USERNAME, Part::Username), of(PASSWORD, Part::Password)]
                .into_iter()
                .flatten()
                .min_by_key(|found| found.0)
        };
        while let Some((at, length, placeholder)) = next(rest) {
            if at > 0 {
                parts.push(Part::Text(decode(&rest[..at])?));
            }
            parts.push(placeholder);
            rest = &rest[at + length..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(decode(rest)?));
        }
        Ok(Template(parts))
    }

    /// Whether it has the placeholder of the password. Only the password may: a database quotes other values in its
    /// errors.
    pub(super) fn has_password(&self) -> bool {
        self.0.contains(&Part::Password)
    }

    /// A value without placeholders.
    pub(super) fn literal(text: &str) -> Self {
        Template(Some(text).filter(|t| !t.is_empty()).map(|t| Part::Text(t.to_owned())).into_iter().collect())
    }

    /// Several values, separated by commas.
    pub(super) fn joined(values: impl IntoIterator<Item = Template>) -> Self {
        let mut parts = Vec::new();
        for (at, value) in values.into_iter().enumerate() {
            parts.extend((at > 0).then(|| Part::Text(",".to_owned())));
            parts.extend(value.0);
        }
        Template(parts)
    }

    /// The value with the credentials inserted.
    pub(super) fn fill(&self, credentials: &Credentials) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Username => credentials.username.clone(),
            Part::Password => credentials.password.expose().clone(),
        };
        self.0.iter().map(text).collect()
    }

    /// The same for a value that is split further, such as hosts; `None` if a credential has a character that could
    /// split it.
    pub(super) fn fill_word(&self, credentials: &Credentials) -> Option<String> {
        let is_word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        let fits = self.0.iter().all(|part| match part {
            Part::Text(_) => true,
            Part::Username => is_word(&credentials.username),
            Part::Password => is_word(credentials.password.expose()),
        });
        fits.then(|| self.fill(credentials))
    }

    /// The value with its placeholders unchanged and the rest encoded.
    pub(super) fn encoded(&self, encode: impl Fn(&str) -> String) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => encode(text),
            Part::Username => USERNAME.to_owned(),
            Part::Password => PASSWORD.to_owned(),
        };
        self.0.iter().map(text).collect()
    }

    /// Whether it is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it has text besides its placeholders, which may be a secret in a password.
    pub(super) fn has_text(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Text(_)))
    }
}

/// Decodes percent-encoding (RFC 3986, section 2.1).
///
/// # Errors
/// For an incomplete escape, NUL, or bytes that are not UTF-8.
pub(super) fn percent_decode(text: &str) -> Result<String, &'static str> {
    let is_hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = text.as_bytes();
    let broken =
        (0..bytes.len()).any(|at| bytes[at] == b'%' && !(is_hex(bytes.get(at + 1)) && is_hex(bytes.get(at + 2))));
    if broken {
        return Err("a percent sign is not followed by two hexadecimal digits");
    }
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| "percent-encoded bytes are not UTF-8")?;
    if decoded.contains('\0') { Err("it contains a NUL") } else { Ok(decoded.into_owned()) }
}

/// Decodes a part of a query, where a plus sign is a blank, as Go's `url.QueryUnescape`.
///
/// # Errors
/// As [`percent_decode`].
pub(super) fn query_decode(text: &str) -> Result<String, &'static str> {
    percent_decode(&text.replace('+', " "))
}

/// The characters that stay unencoded in a path or a query of a URL.
const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b',').remove(b':');
/// The characters that stay unencoded in the credentials and the host of a URL.
const PLAIN_AUTHORITY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes text for a path or a query.
pub(super) fn percent_encode(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// Percent-encodes text for the credentials or the host.
pub(super) fn percent_encode_authority(text: &str) -> String {
    utf8_percent_encode(text, PLAIN_AUTHORITY).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_placeholders_have_limits() {
        assert!(Credentials::new("u".repeat(16 * 1024), "").is_ok());
        assert!(Credentials::new("u".repeat(16 * 1024 + 1), "").is_err());
        assert!(Credentials::new(String::new(), &"p".repeat(16 * 1024 + 1)).is_err());
        assert!(!has_too_many(&"{{username}}{{password}}".repeat(8)));
        assert!(has_too_many(&"{{username}}".repeat(17)));
        let credentials = Credentials::new("a,b".to_owned(), "db-1.x").unwrap();
        let word = |raw: &str| Template::parse(raw, percent_decode).unwrap().fill_word(&credentials);
        assert_eq!(word("h,{{password}}"), Some("h,db-1.x".to_owned()));
        assert_eq!(word("h,{{username}}"), None);
    }

    #[test]
    fn placeholders_are_found_before_escapes_are_decoded() {
        let credentials = Credentials::new("{{password}}%41".to_owned(), "{{username}}").unwrap();
        for (raw, expected, has_text) in [
            ("{{username}}", "{{password}}%41", false),
            ("%41{{password}}%42", "A{{username}}B", true),
            ("%7B%7Bpassword%7D%7D", "{{password}}", true),
            ("{{username}}{{password}}", "{{password}}%41{{username}}", false),
            ("{{ username }}", "{{ username }}", true),
            ("", "", false),
        ] {
            let template = Template::parse(raw, percent_decode).unwrap();
            assert_eq!((template.fill(&credentials).as_str(), template.has_text()), (expected, has_text), "{raw}");
        }
        for broken in ["%", "%4", "%zz", "a%00b", "%ff"] {
            assert!(percent_decode(broken).is_err(), "{broken}");
        }
        assert_eq!(query_decode("a+b%2Bc"), Ok("a b+c".to_owned()));
    }
}
