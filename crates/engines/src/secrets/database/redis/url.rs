//! A `connection_url` of Valkey or Redis: `redis://user:password@host:port/database`, with TLS as `rediss://`.

use super::super::placeholders::{MASK, percent_decode, percent_encode, percent_encode_authority, query_decode};

/// The maximum length of a URL in bytes.
const MAX_BYTES: usize = 16 * 1024;
/// Parameters without a meaning here, whose absence weakens nothing. All others are refused.
const IGNORED: &[&str] = &[
    "client_cache",
    "conn_write_timeout",
    "db",
    "dial_timeout",
    "max_retries",
    "protocol",
    "read_timeout",
    "write_timeout",
];

/// A parsed URL.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url {
    scheme: &'static str,
    pub(super) username: String,
    pub(super) password: String,
    pub(super) host: String,
    /// `None` if the text has none.
    port: Option<u16>,
    /// The number of the database, which does not matter for users.
    database: Option<u32>,
    parameters: Vec<(String, String)>,
}

impl Url {
    /// Parses a URL. As in Go, the scheme is case-insensitive.
    ///
    /// # Errors
    /// The error; it quotes no value.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let invalid = || "unable to parse connection url".to_owned();
        if text.len() > MAX_BYTES || text.contains('#') || text.chars().any(char::is_control) {
            return Err(invalid());
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
        let schemes = ["redis", "rediss", "valkey", "valkeys"];
        let scheme = schemes.into_iter().find(|known| known.eq_ignore_ascii_case(scheme)).ok_or_else(invalid)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        // The at sign may be part of a password.
        if query.contains('@') {
            return Err(invalid());
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, address) = authority.rsplit_once('@').ok_or_else(invalid)?;
        let (username, password) = credentials.split_once(':').ok_or_else(invalid)?;
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().map_err(|_| invalid())?)),
            _ => (address, None),
        };
        let decoded = |raw: &str| percent_decode(raw).map_err(|_| invalid());
        let database = Some(path).filter(|p| !p.is_empty()).map(|p| p.parse().map_err(|_| invalid())).transpose()?;
        let mut parameters = Vec::new();
        for parameter in query.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let queried = |raw: &str| query_decode(raw).map_err(|_| invalid());
            parameters.push((queried(name)?, queried(value)?));
        }
        Ok(Url {
            scheme,
            username: decoded(username)?,
            password: decoded(password)?,
            host: host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host).to_owned(),
            port,
            database,
            parameters,
        })
    }

    /// Whether TLS is used.
    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self.scheme, "rediss" | "valkeys")
    }

    pub(super) fn port(&self) -> u16 {
        self.port.unwrap_or(6379)
    }

    /// Refuses unknown parameters, which may require something.
    ///
    /// # Errors
    /// The first unknown parameter.
    pub(super) fn check_parameters(&self) -> Result<(), String> {
        match self.parameters.iter().find(|(name, _)| !IGNORED.contains(&name.as_str())) {
            Some((name, _)) if name.len() < 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => {
                Err(format!("unable to parse connection url: {name} is not supported"))
            }
            Some(_) => Err("unable to parse connection url: the name of a parameter is invalid".to_owned()),
            None => Ok(()),
        }
    }

    /// The URL in responses: rebuilt from its parsed form, with [`MASK`] for the password and for unknown parameters.
    pub(super) fn masked(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { percent_encode_authority(&self.host) };
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        let database = self.database.map(|number| format!("/{number}")).unwrap_or_default();
        let parameter = |(name, value): &(String, String)| {
            if IGNORED.contains(&name.as_str()) {
                format!("{name}={}", percent_encode(value))
            } else {
                format!("{MASK}={MASK}")
            }
        };
        let parameters: Vec<String> = self.parameters.iter().map(parameter).collect();
        let query = if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) };
        let username = percent_encode_authority(&self.username);
        format!("{}://{username}:{MASK}@{host}{port}{database}{query}", self.scheme)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed_with_escapes_and_case_insensitive_schemes() {
        let read = |text: &str| {
            Url::parse(text)
                .map(|u| (u.is_encrypted(), u.username.clone(), u.password.clone(), u.host.clone(), u.port()))
        };
        let expected = |tls, password: &str, host: &str, port| {
            Ok((tls, "u".to_owned(), password.to_owned(), host.to_owned(), port))
        };
        assert_eq!(read("redis://u:p:q@h"), expected(false, "p:q", "h", 6379));
        assert_eq!(read("REDISS://%75:p%40w@h:1/0?db=2"), expected(true, "p@w", "h", 1));
        assert_eq!(read("valkeys://u:p@x@[::1]:5"), expected(true, "p@x", "::1", 5));
        for text in [
            "unix://u:p@/run/redis.sock",
            "redis+unix://u:p@h",
            "redis:u:p@h",
            "redis://h",
            "redis://u@h",
            "redis://u:p@h:x",
            "redis://u:p@h/x",
            "redis://u:p%zz@h",
            "redis://u:p@h#x",
            "redis://u:p@h?db=x@h",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        let error = Url::parse("redis://u:p@h?db=0&skip_verify=1").unwrap().check_parameters().unwrap_err();
        assert_eq!(error, "unable to parse connection url: skip_verify is not supported");
    }

    #[test]
    fn sec_kf08_no_spelling_of_a_url_password_is_returned() {
        for (text, expected) in [
            ("valkey://u:geheim@h:1", "valkey://u:xxxxx@h:1"),
            ("REDIS://u:geh@eim:geheim@h", "redis://u:xxxxx@h"),
            (
                "redis://u:geheim@[::1]:1/2?password=geheim&db=1&geheim",
                "redis://u:xxxxx@[::1]:1/2?xxxxx=xxxxx&db=1&xxxxx=xxxxx",
            ),
        ] {
            assert_eq!(Url::parse(text).unwrap().masked(), expected, "{text}");
        }
    }
}
