//! What a PostgreSQL connection is told.

use std::time::Duration;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::fields::parse_duration;
use serde_json::{Map, Value};
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::connection::text;
use super::tls;

/// Connections at most, as the peer has it.
const MAX_OPEN: usize = 4;
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// What stands for the administrator's name while the URL is read.
const NAME: &str = "keepfast-name";
const PASSWORD: &str = "keepfast-password";

/// A connection's settings, checked.
pub(super) struct Settings {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
    pub(super) max_open: usize,
    /// How long a connection is used; `None` for as long as it works.
    pub(super) max_lifetime: Option<Duration>,
}

impl Settings {
    /// Reads them.
    ///
    /// The name and the password never become part of the text of the URL, so no character of theirs can change it.
    pub(super) fn read(details: &Map<String, Value>, password: &SecretString) -> Result<Self, String> {
        let url = text(details, "connection_url").ok_or("connection_url cannot be empty")?;
        let url = url.replace("{{username}}", NAME).replace("{{password}}", PASSWORD);
        let (url, mode) = split_mode(&url);
        let mut config: Config =
            url.parse().map_err(|_| "connection_url cannot be read as a PostgreSQL URL or DSN".to_owned())?;
        if config.get_user().is_none_or(|u| u == NAME) {
            config.user(text(details, "username").unwrap_or_default());
        }
        if config.get_password().is_none_or(|p| p == PASSWORD.as_bytes()) {
            config.password(password.expose());
        }
        config.ssl_mode(match mode.as_deref() {
            Some("disable") => SslMode::Disable,
            // The server decides whether there is TLS, as with every client of PostgreSQL; but where there is, it is verified.
            None | Some("prefer" | "allow" | "") => SslMode::Prefer,
            Some("require" | "verify-ca" | "verify-full") => SslMode::Require,
            Some(other) => return Err(format!("sslmode {other:?} is not known")),
        });
        config.connect_timeout(CONNECT).application_name("keepfast");
        if config.get_hosts().is_empty() {
            return Err("connection_url names no host".to_owned());
        }
        Ok(Settings {
            config,
            tls: MakeRustlsConnect::new(tls::client(details)?),
            max_open: number(details, "max_open_connections")?.filter(|n| *n > 0).unwrap_or(MAX_OPEN),
            max_lifetime: lifetime(details)?,
        })
    }

    /// The same server as somebody else.
    pub(super) fn as_user(&self, name: &str, password: &SecretString) -> Config {
        let mut config = self.config.clone();
        config.user(name).password(password.expose());
        config
    }
}

/// Takes `sslmode` out of a URL or a DSN: the driver knows fewer modes than there are.
fn split_mode(url: &str) -> (String, Option<String>) {
    let Some(at) = url.find("sslmode=") else { return (url.to_owned(), None) };
    let value: String = url[at + 8..].chars().take_while(|c| !matches!(c, '&' | ' ')).collect();
    let rest = &url[at + 8 + value.len()..];
    let rest = rest.strip_prefix('&').unwrap_or(rest);
    let mut front = url[..at].to_owned();
    if rest.is_empty() {
        front.truncate(front.trim_end_matches(['?', '&', ' ']).len());
    }
    (front + rest, Some(value.trim_matches('\'').to_owned()))
}

fn number(details: &Map<String, Value>, name: &str) -> Result<Option<usize>, String> {
    text(details, name).map(|t| t.parse().map_err(|_| format!("{name} must be a whole number"))).transpose()
}

fn lifetime(details: &Map<String, Value>) -> Result<Option<Duration>, String> {
    let Some(text) = text(details, "max_connection_lifetime") else { return Ok(None) };
    let seconds = parse_duration(&text).map_err(|_| "max_connection_lifetime must be a duration".to_owned())?;
    Ok(u64::try_from(seconds).ok().filter(|s| *s > 0).map(Duration::from_secs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(url: &str) -> Result<Settings, String> {
        let details = json!({ "connection_url": url, "username": "ad'min@x:/", });
        Settings::read(details.as_object().unwrap(), &SecretString::new("p'w@/?sslmode=disable".to_owned()))
    }

    #[test]
    fn sec_se04_name_and_password_are_never_part_of_the_urls_text() {
        let settings = read("postgresql://{{username}}:{{password}}@db.internal:5432/myapp").unwrap();
        assert_eq!(settings.config.get_user(), Some("ad'min@x:/"));
        assert_eq!(settings.config.get_password(), Some(b"p'w@/?sslmode=disable".as_slice()));
        assert_eq!(settings.config.get_ssl_mode(), SslMode::Prefer);
        assert!(read("postgresql://u:p@h/d?sslmode=what").is_err());
        assert!(read("").is_err());
    }

    #[test]
    fn every_mode_but_disable_verifies_and_dsns_are_read() {
        for (mode, expected) in
            [("disable", SslMode::Disable), ("require", SslMode::Require), ("verify-full", SslMode::Require)]
        {
            let dsn = format!("host=a port=5 sslmode={mode} user={{{{username}}}} password={{{{password}}}} dbname=d");
            for url in [format!("postgres://u:p@h:1/d?sslmode={mode}&application_name=x"), dsn] {
                assert_eq!(read(&url).unwrap().config.get_ssl_mode(), expected, "{url}");
            }
        }
        let several = read("postgresql://{{username}}:{{password}}@a:1,b:2/d?sslmode=disable").unwrap();
        assert_eq!(several.config.get_hosts().len(), 2);
    }
}
