//! The settings of a PostgreSQL connection: the driver's configuration is built from the parsed connection string.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use keepfast_crypto::secret::SecretString;
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslMode};

use super::super::connection::Unusable;
use super::super::details::{self, Details, Form, flag, only_text, text};
use super::super::files::{FileDirectories, LocalPath};
use super::super::placeholders::Credentials;
use super::super::pool::Limits;
use super::connect::{Host, Session, Target};
use super::conninfo::{ConnInfo, unescaped};
use super::encryption::Encryption;
use super::parameters::{Parameters, is_public};

/// How long connecting to one host takes at most, where the connection string has no `connect_timeout`, and in any case.
const CONNECT: Duration = Duration::from_secs(10);
const LONGEST_CONNECT: Duration = Duration::from_secs(30);
/// The most hosts, each of which has a copy of the settings.
const MOST_HOSTS: usize = 32;

/// The type of each setting.
const FORMS: &[(&str, Form)] = &[
    ("connection_url", Form::Text),
    ("username", Form::Text),
    ("max_open_connections", Form::Integer),
    ("max_idle_connections", Form::Integer),
    ("disable_escaping", Form::Flag),
];

/// The settings that reads show.
pub(in super::super) const PUBLIC: &[&str] = &[
    "connection_url",
    "disable_escaping",
    "max_connection_lifetime",
    "max_idle_connections",
    "max_open_connections",
    "password_authentication",
    "tls_ca",
    "tls_certificate",
    "username",
    "username_template",
];

/// A connection's settings, checked.
pub(super) struct Settings {
    pub(super) target: Target,
    pub(super) limits: Limits,
    /// Whether passwords are sent as verifiers.
    pub(super) scram: bool,
}

impl Settings {
    /// Reads them. The user name and the password are filled into parsed values, so they cannot change the meaning of the text.
    ///
    /// # Errors
    /// What is wrong with them; values are not quoted.
    pub(super) fn read(details: &Details, password: &SecretString, files: &FileDirectories) -> Result<Self, Unusable> {
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
        let info = ConnInfo::parse(&url).map_err(unreadable)?;
        let credentials = credentials(details, password, &info)?;
        let parameters = Parameters::read(&info, &credentials).map_err(unreadable)?;
        let encryption = Encryption::read(details, &parameters, files)?;
        let session =
            Session::named(parameters.get("target_session_attrs").unwrap_or_default()).map_err(Unusable::Url)?;
        let shared = shared(&parameters, &credentials, &encryption).map_err(unreadable)?;
        let hosts = hosts(&shared, &parameters, files)?;
        Ok(Settings { target: Target { hosts, session, encryption: Arc::new(encryption) }, limits, scram })
    }
}

/// The connection string for answers; `None` where it cannot be parsed.
pub(in super::super) fn masked_url(url: &str) -> Option<String> {
    ConnInfo::parse(url).ok()?.masked(is_public)
}

/// Whether a password is written in the connection string.
pub(in super::super) fn has_password(url: &str) -> bool {
    ConnInfo::parse(url).is_ok_and(|info| info.has_password())
}

fn unreadable(why: impl std::fmt::Display) -> Unusable {
    Unusable::Url(format!("cannot parse connection url: {why}"))
}

/// The user name and the password; with `disable_escaping` they are written in the escapes of the connection string.
fn credentials(details: &Details, password: &SecretString, info: &ConnInfo) -> Result<Credentials, Unusable> {
    let username = text(details, "username").unwrap_or_default();
    if !flag(details, "disable_escaping")? {
        return Credentials::new(username, password.expose()).map_err(Unusable::from);
    }
    let unescaped = |name: &str, value: &str| {
        unescaped(value, info.is_uri()).map_err(|why| format!("disable_escaping: {name}: {why}"))
    };
    let username = unescaped("username", &username).map_err(Unusable::Url)?;
    let password = unescaped("password", password.expose()).map_err(Unusable::Url)?;
    Credentials::new(username, &password).map_err(Unusable::from)
}

/// Everything but the hosts.
fn shared(parameters: &Parameters, credentials: &Credentials, encryption: &Encryption) -> Result<Config, String> {
    let seconds = |name: &str| Ok::<_, String>(parameters.number::<u32>(name)?.filter(|s| *s > 0));
    let duration = |name: &str| Ok::<_, String>(seconds(name)?.map(|s| Duration::from_secs(s.into())));
    let mut config = Config::new();
    config.user(parameters.get("user").unwrap_or(credentials.username()));
    config.password(parameters.get("password").unwrap_or(credentials.password().expose()));
    if let Some(name) = parameters.get("dbname") {
        config.dbname(name);
    }
    if let Some(options) = parameters.options() {
        config.options(options);
    }
    let name = parameters.get("application_name").or(parameters.get("fallback_application_name"));
    config.application_name(name.unwrap_or("keepfast"));
    // Negative is without a bound in libpq.
    let connect = parameters.number::<i32>("connect_timeout")?.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
    config.connect_timeout(connect.map_or(CONNECT, Duration::from_secs).min(LONGEST_CONNECT));
    config.keepalives(parameters.one_of("keepalives", &[("1", true), ("0", false)], true)?);
    if let Some(idle) = duration("keepalives_idle")? {
        config.keepalives_idle(idle);
    }
    if let Some(interval) = duration("keepalives_interval")? {
        config.keepalives_interval(interval);
    }
    if let Some(count) = seconds("keepalives_count")? {
        config.keepalives_retries(count);
    }
    if let Some(milliseconds) = seconds("tcp_user_timeout")? {
        config.tcp_user_timeout(Duration::from_millis(milliseconds.into()));
    }
    let bindings = [
        ("disable", ChannelBinding::Disable),
        ("prefer", ChannelBinding::Prefer),
        ("require", ChannelBinding::Require),
    ];
    config.channel_binding(parameters.one_of("channel_binding", &bindings, ChannelBinding::Prefer)?);
    config.ssl_mode(encryption.mode).ssl_negotiation(encryption.negotiation);
    Ok(config)
}

/// One configuration for each host, in the order in which they are tried.
fn hosts(shared: &Config, parameters: &Parameters, files: &FileDirectories) -> Result<Vec<Host>, Unusable> {
    let list = |name: &str| -> Vec<&str> { parameters.get(name).map(|v| v.split(',').collect()).unwrap_or_default() };
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = names.len().max(addresses.len());
    if count == 0 {
        return Err(unreadable("it names no host"));
    }
    if count > MOST_HOSTS {
        return Err(unreadable("it names more than 32 hosts"));
    }
    let fits = |length: usize| matches!(length, 0 | 1) || length == count;
    if !fits(ports.len()) || (!names.is_empty() && !addresses.is_empty() && names.len() != addresses.len()) {
        return Err(unreadable("host, hostaddr and port have different numbers of entries"));
    }
    let port = |at: usize| match ports.get(at).or(ports.first()).map(|p| p.trim()) {
        None | Some("") => Ok(5432),
        Some(port) => port.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(|| unreadable("a port is no port")),
    };
    (0..count)
        .map(|at| {
            let mut config = shared.clone();
            config.port(port(at)?);
            if let Some(address) = addresses.get(at) {
                config.hostaddr(address.parse::<IpAddr>().map_err(|_| unreadable("hostaddr is no IP address"))?);
            }
            // The address would be used, without TLS.
            if !addresses.is_empty() && names.get(at).is_some_and(|name| is_socket(name)) {
                return Err(unreadable("hostaddr is given for a host that is a directory of sockets"));
            }
            let socket = names.get(at).map(|name| name_host(&mut config, name, files)).transpose()?.flatten();
            Ok(Host { config, socket })
        })
        .collect()
}

/// Whether a host is the directory of a Unix socket, or, with an at sign, an abstract socket.
fn is_socket(name: &str) -> bool {
    name.starts_with(['/', '@'])
}

/// Sets a host; a directory of Unix sockets has to be allowed, and has no TLS, as in libpq.
fn name_host(config: &mut Config, name: &str, files: &FileDirectories) -> Result<Option<LocalPath>, Unusable> {
    if name.is_empty() {
        return Err(unreadable("a host is empty"));
    }
    if !is_socket(name) {
        config.host(name);
        return Ok(None);
    }
    let path = files.locate("host", name, "connect over TCP")?;
    config.host_path(path.path()).ssl_mode(SslMode::Disable);
    Ok(Some(path))
}

#[cfg(test)]
mod tests;
