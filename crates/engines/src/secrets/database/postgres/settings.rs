//! What a PostgreSQL connection is told.

use std::time::Duration;

use keepfast_crypto::secret::SecretString;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::connection::Unusable;
use super::super::details::{self, Details, Form, only_text, text};
use super::super::pool::Limits;
use super::super::tls::{self, Material, Verify};
use super::connect::{Session, Target};

/// How long connecting to one host may take.
const CONNECT: Duration = Duration::from_secs(10);
/// What stands for the administrator's name while the URL is read.
const NAME: &str = "keepfast-name";
const PASSWORD: &str = "keepfast-password";

/// What is given in which form.
const FORMS: &[(&str, Form)] = &[
    ("connection_url", Form::Text),
    ("username", Form::Text),
    ("max_open_connections", Form::Integer),
    ("max_idle_connections", Form::Integer),
    ("disable_escaping", Form::Flag),
];

/// A connection's settings, checked.
pub(super) struct Settings {
    pub(super) target: Target,
    pub(super) limits: Limits,
    /// Whether passwords are sent as verifiers.
    pub(super) scram: bool,
}

impl Settings {
    /// Reads them.
    ///
    /// The name and the password never become part of the text of the URL, so no character of theirs can change it, and
    /// there is nothing that `disable_escaping` would have to switch off.
    pub(super) fn read(details: &Details, password: &SecretString) -> Result<Self, Unusable> {
        details::check(details, FORMS)?;
        let url = text(details, "connection_url").ok_or("connection_url cannot be empty")?;
        let limits = Limits::read(details)?;
        for name in ["username_template", "password_authentication"] {
            only_text(details, name).map_err(|why| format!("failed to retrieve {name}: {why}"))?;
        }
        let scram = match text(details, "password_authentication").as_deref() {
            None | Some("password") => false,
            Some("scram-sha-256") => true,
            Some(other) => return Err(format!("'{other}' is not a valid password authentication type").into()),
        };
        let mut url = url.replace("{{username}}", NAME).replace("{{password}}", PASSWORD);
        let mut take = |name: &str| take_parameter(&mut url, name);
        let mode = take("sslmode");
        let session = Session::named(&take("target_session_attrs").unwrap_or_default()).map_err(Unusable::Url)?;
        let material = material(details, &mut take)?;
        let mut config: Config = url.parse().map_err(|_| unreadable("it is no URL or DSN of PostgreSQL"))?;
        if config.get_user().is_none_or(|u| u == NAME) {
            config.user(text(details, "username").unwrap_or_default());
        }
        if config.get_password().is_none_or(|p| p == PASSWORD.as_bytes()) {
            config.password(password.expose());
        }
        let (ssl_mode, verify) = modes(mode.as_deref())?;
        config.ssl_mode(ssl_mode).connect_timeout(CONNECT).application_name("keepfast");
        let tls = match ssl_mode {
            SslMode::Disable => tls::client(&Material::default(), verify)?,
            _ => tls::client(&material, verify)?,
        };
        let hosts = one_by_one(&config).ok_or_else(|| unreadable("it names no host"))?;
        Ok(Settings { target: Target { hosts, session, tls: MakeRustlsConnect::new(tls) }, limits, scram })
    }
}

fn unreadable(why: &str) -> Unusable {
    Unusable::Url(format!("cannot parse connection url: {why}"))
}

/// The server decides whether there is TLS, as with every client of PostgreSQL, unless the mode does; but where there is, it
/// is verified.
fn modes(mode: Option<&str>) -> Result<(SslMode, Verify), Unusable> {
    match mode {
        Some("disable") => Ok((SslMode::Disable, Verify::Everything)),
        None | Some("prefer" | "allow" | "") => Ok((SslMode::Prefer, Verify::Everything)),
        Some("verify-ca") => Ok((SslMode::Require, Verify::ChainOnly)),
        Some("require" | "verify-full") => Ok((SslMode::Require, Verify::Everything)),
        Some(_) => Err(unreadable("sslmode is invalid")),
    }
}

/// Certificates and key: as PEM in settings of their own, or in the files that the URL names.
fn material(details: &Details, take: &mut impl FnMut(&str) -> Option<String>) -> Result<Material, Unusable> {
    let mut either = |setting: &str, parameter: &str, what: &str| -> Result<Option<String>, Unusable> {
        let path = take(parameter).filter(|path| parameter != "sslrootcert" || path != "system");
        let file = path.map(|path| {
            std::fs::read_to_string(&path)
                .map_err(|error| unreadable(&format!("unable to read {what}: {}", error.kind())))
        });
        Ok(text(details, setting).or(file.transpose()?))
    };
    Ok(Material {
        authorities: either("tls_ca", "sslrootcert", "CA file")?,
        certificate: either("tls_certificate", "sslcert", "cert")?,
        key: either("private_key", "sslkey", "sslkey")?,
    })
}

/// The same settings for each host alone, in the order in which they are tried; `None` when there is no host.
fn one_by_one(all: &Config) -> Option<Vec<Config>> {
    let (hosts, addresses, ports) = (all.get_hosts(), all.get_hostaddrs(), all.get_ports());
    let count = hosts.len().max(addresses.len());
    let one = |at: usize| {
        let mut one = Config::new();
        match hosts.get(at) {
            Some(Host::Tcp(host)) => drop(one.host(host.as_str())),
            Some(Host::Unix(path)) => drop(one.host_path(path)),
            None => {}
        }
        if let Some(address) = addresses.get(at) {
            one.hostaddr(*address);
        }
        one.port(ports.get(at).or(ports.first()).copied().unwrap_or(5432));
        one.user(all.get_user().unwrap_or_default()).password(all.get_password().unwrap_or_default());
        if let Some(name) = all.get_dbname() {
            one.dbname(name);
        }
        if let Some(options) = all.get_options() {
            one.options(options);
        }
        one.ssl_mode(all.get_ssl_mode()).ssl_negotiation(all.get_ssl_negotiation());
        one.channel_binding(all.get_channel_binding());
        one.connect_timeout(all.get_connect_timeout().copied().unwrap_or(CONNECT));
        one.application_name(all.get_application_name().unwrap_or("keepfast"));
        one
    };
    (count > 0).then(|| (0..count).map(one).collect())
}

/// Takes a parameter out of a URL or a DSN: the driver knows fewer of them, and fewer values, than there are.
fn take_parameter(url: &mut String, name: &str) -> Option<String> {
    let key = format!("{name}=");
    let at = url
        .match_indices(&key)
        .map(|(at, _)| at)
        .find(|at| url[..*at].chars().next_back().is_none_or(|before| matches!(before, '?' | '&' | ' ')))?;
    let from = at + key.len();
    let value: String = url[from..].chars().take_while(|c| !matches!(c, '&' | ' ')).collect();
    let rest = url[from + value.len()..].to_owned();
    let rest = rest.strip_prefix(['&', ' ']).unwrap_or(&rest);
    url.truncate(at);
    if rest.is_empty() {
        url.truncate(url.trim_end_matches(['?', '&', ' ']).len());
    }
    url.push_str(rest);
    Some(value.trim_matches('\'').replace("%2F", "/").replace("%2f", "/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_with(url: &str, more: serde_json::Value) -> Result<Settings, Unusable> {
        let mut details = json!({ "connection_url": url, "username": "ad'min@x:/", });
        details.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Settings::read(details.as_object().unwrap(), &SecretString::new("p'w@/?sslmode=disable".to_owned()))
    }

    fn read(url: &str) -> Result<Settings, Unusable> {
        read_with(url, json!({}))
    }

    #[test]
    fn sec_se04_name_and_password_are_never_part_of_the_urls_text() {
        let settings = read("postgresql://{{username}}:{{password}}@db.internal:5432/myapp").unwrap();
        let config = &settings.target.hosts[0];
        assert_eq!(config.get_user(), Some("ad'min@x:/"));
        assert_eq!(config.get_password(), Some(b"p'w@/?sslmode=disable".as_slice()));
        assert_eq!(config.get_ssl_mode(), SslMode::Prefer);
        for (url, expected) in [
            ("postgresql://u:p@h/d?sslmode=what", "cannot parse connection url: sslmode is invalid"),
            ("", "connection_url cannot be empty"),
            ("postgresql://u:geheim@h:x/d", "cannot parse connection url: it is no URL or DSN of PostgreSQL"),
            (
                "postgresql://u:p@h/d?sslrootcert=/nowhere",
                "cannot parse connection url: unable to read CA file: entity not found",
            ),
        ] {
            assert_eq!(read(url).err().unwrap().text(), expected);
        }
        for (setting, value, expected) in [
            ("password_authentication", "md5", "'md5' is not a valid password authentication type"),
            ("max_connection_lifetime", "x", "invalid max_connection_lifetime: time: invalid duration \"x\""),
        ] {
            let refused = read_with("postgresql://u:p@h/d", json!({setting: value}));
            assert_eq!(refused.err().unwrap().text(), expected);
        }
        for setting in ["disable_escaping", "max_open_connections"] {
            let refused = read_with("postgresql://u:p@h/d", json!({setting: "maybe"})).err().unwrap().text();
            assert!(refused.contains(&format!("'{setting}' cannot parse value")), "{refused}");
        }
    }

    #[test]
    fn every_mode_but_disable_verifies_and_dsns_are_read() {
        for (mode, expected) in
            [("disable", SslMode::Disable), ("require", SslMode::Require), ("verify-full", SslMode::Require)]
        {
            let dsn = format!("host=a port=5 sslmode={mode} user={{{{username}}}} password={{{{password}}}} dbname=d");
            for url in [format!("postgres://u:p@h:1/d?sslmode={mode}&application_name=x"), dsn] {
                assert_eq!(read(&url).unwrap().target.hosts[0].get_ssl_mode(), expected, "{url}");
            }
        }
    }

    #[test]
    fn several_hosts_are_tried_one_by_one() {
        let several =
            read("postgresql://{{username}}:{{password}}@a:1,b:2/d?sslmode=disable&target_session_attrs=primary");
        let ports: Vec<_> = several.unwrap().target.hosts.iter().map(|h| h.get_ports().to_vec()).collect();
        assert_eq!(ports, [[1], [2]]);
        let unknown = read("postgresql://h/d?target_session_attrs=x").err().unwrap().text();
        assert_eq!(unknown, "cannot parse connection url: unknown target_session_attrs value: x");
    }
}
