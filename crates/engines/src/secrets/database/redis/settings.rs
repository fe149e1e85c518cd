//! The settings of a Valkey or Redis connection.

use keepfast_crypto::secret::SecretString;
use rustls::ClientConfig;

use super::super::connection::OpenError;
use super::super::details::{self, Details, SettingType, flag, integer, text};
use super::super::pool::Limits;
use super::super::tls::{self, Material, Verify};
use super::url::Url;

/// Where the server keeps users over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Persistence {
    /// Nowhere.
    None,
    /// In the server's ACL file.
    AclFile,
    /// In the server's configuration.
    Rewrite,
}

/// The type of each setting.
const TYPES: &[(&str, SettingType)] = &[
    ("host", SettingType::Text),
    ("port", SettingType::Integer),
    ("username", SettingType::Text),
    ("connection_url", SettingType::Text),
    ("ca_cert", SettingType::Text),
    ("tls", SettingType::Flag),
    ("insecure_tls", SettingType::Flag),
];

/// The settings in responses.
pub(in super::super) const PUBLIC: &[&str] = &[
    "ca_cert",
    "connection_url",
    "host",
    "insecure_tls",
    "max_connection_lifetime",
    "max_idle_connections",
    "max_open_connections",
    "persistence_mode",
    "port",
    "tls",
    "username",
    "username_template",
];

/// The validated settings of a connection.
pub(super) struct Settings {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) username: String,
    pub(super) password: SecretString,
    pub(super) tls: Option<ClientConfig>,
    pub(super) persistence: Persistence,
    pub(super) limits: Limits,
}

impl Settings {
    /// Parses them.
    ///
    /// # Errors
    /// The invalid setting, without its value.
    pub(super) fn read(details: &Details, password: &SecretString) -> Result<Self, OpenError> {
        details::check(details, TYPES)?;
        let limits = Limits::read(details)?;
        let persistence = persistence(details);
        if let Some(url) = text(details, "connection_url") {
            let named = ["host", "port", "username"].iter().any(|name| text(details, name).is_some());
            if named || !password.expose().is_empty() {
                return Err("cannot specify both connection_url and individual connection parameters".into());
            }
            return Self::from_url(&url, details, persistence, limits);
        }
        let (port, is_encrypted) = (integer(details, "port")?, flag(details, "tls")?);
        let required = |name: &str| text(details, name).ok_or_else(|| format!("{name} cannot be empty"));
        let host = required("host")?;
        let port = port.filter(|port| *port != 0).ok_or("port cannot be empty")?;
        let username = required("username")?;
        if password.expose().is_empty() {
            return Err("password cannot be empty".into());
        }
        if is_encrypted {
            required("ca_cert")?;
        }
        Ok(Settings {
            host,
            port: u16::try_from(port).map_err(|_| "port is out of range")?,
            username,
            password: SecretString::new(password.expose().clone()),
            tls: is_encrypted.then(|| encryption(details)).transpose()?,
            persistence,
            limits,
        })
    }

    fn from_url(url: &str, details: &Details, persistence: Persistence, limits: Limits) -> Result<Self, OpenError> {
        let url = Url::parse(url).map_err(OpenError::Url)?;
        url.check_parameters().map_err(OpenError::Url)?;
        // Placeholders would need credentials beside the URL.
        if url.username.is_empty() || url.username.contains("{{") || url.password.is_empty() || url.host.is_empty() {
            return Err(OpenError::Url("unable to parse connection url".to_owned()));
        }
        let tls = url.is_encrypted().then(|| encryption(details)).transpose()?;
        let port = url.port();
        let password = SecretString::new(url.password);
        Ok(Settings { host: url.host, port, username: url.username, password, tls, persistence, limits })
    }
}

/// The URL in responses; `None` if it cannot be parsed.
pub(in super::super) fn masked_url(url: &str) -> Option<String> {
    Url::parse(url).ok().map(|url| url.masked())
}

/// Whether the URL contains a password.
pub(in super::super) fn has_password(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| !url.password.is_empty())
}

/// An unknown mode means none, as in OpenBao.
fn persistence(details: &Details) -> Persistence {
    match text(details, "persistence_mode").map(|mode| mode.to_ascii_lowercase()).as_deref() {
        Some("aclfile") => Persistence::AclFile,
        Some("rewrite") => Persistence::Rewrite,
        _ => Persistence::None,
    }
}

fn encryption(details: &Details) -> Result<ClientConfig, String> {
    let insecure = flag(details, "insecure_tls")?;
    if insecure {
        tracing::warn!("the settings of a connection disable the verification of the database's certificate");
    }
    let verify = if insecure { Verify::Nothing } else { Verify::Everything };
    let authorities = text(details, "ca_cert");
    if let Some(pem) = &authorities {
        tls::certificates(pem, "ca_cert")
            .map_err(|_| "error verifying connection: failed to parse root certificate")?;
    }
    tls::client(&Material { authorities, ..Material::default() }, verify)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn invalid_settings_have_the_errors_of_openbao() {
        let good = json!({"host": "h", "port": "6379", "username": "u", "password": "p"});
        let read = |change: serde_json::Value| {
            let mut details = details::of_json(&good);
            details.extend(details::of_json(&change));
            let password = text(&details, "password").unwrap_or_default();
            Settings::read(&details, &SecretString::new(password)).map(|s| (s.host, s.port, s.username))
        };
        assert_eq!(read(json!({})), Ok(("h".to_owned(), 6379, "u".to_owned())));
        let url = json!({"host": null, "port": null, "username": null, "password": null, "connection_url": "valkey://a:b:c@d:1"});
        assert_eq!(read(url), Ok(("d".to_owned(), 1, "a".to_owned())));
        for (change, expected) in [
            (json!({"host": ""}), "host cannot be empty"),
            (json!({"port": null}), "port cannot be empty"),
            (json!({"username": null}), "username cannot be empty"),
            (json!({"password": null}), "password cannot be empty"),
            (json!({"tls": true}), "ca_cert cannot be empty"),
            (json!({"tls": true, "ca_cert": "x"}), "error verifying connection: failed to parse root certificate"),
            (
                json!({"port": "abc"}),
                "decoding failed due to the following error(s):\n\n'port' cannot parse value as 'int': strconv.ParseInt: invalid syntax",
            ),
            (
                json!({"connection_url": "redis://a:b@c:1"}),
                "cannot specify both connection_url and individual connection parameters",
            ),
        ] {
            assert_eq!(read(change).unwrap_err().text(), expected);
        }
    }
}
