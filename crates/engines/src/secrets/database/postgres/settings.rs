//! The settings of a PostgreSQL connection: builds the driver's configuration from the parsed connection string.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use keepfast_crypto::secret::SecretString;
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslMode};

use super::super::connection::OpenError;
use super::super::details::{self, Details, SettingType, flag, only_text, text};
use super::super::files::{FileDirectories, LocalPath};
use super::super::placeholders::Credentials;
use super::super::pool::Limits;
use super::connect::{Host, Session, Target};
use super::conninfo::{ConnInfo, unescaped};
use super::encryption::Encryption;
use super::parameters::{Parameters, is_public};

/// The default and the maximum of `connect_timeout`, the timeout of connecting to one host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The maximum number of hosts, each of which has a copy of the settings.
const MAX_HOSTS: usize = 32;

/// The type of each setting.
const TYPES: &[(&str, SettingType)] = &[
    ("connection_url", SettingType::Text),
    ("username", SettingType::Text),
    ("max_open_connections", SettingType::Integer),
    ("max_idle_connections", SettingType::Integer),
    ("disable_escaping", SettingType::Flag),
];

/// The settings in responses.
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

/// The validated settings of a connection.
pub(super) struct Settings {
    pub(super) target: Target,
    pub(super) limits: Limits,
    /// Whether passwords are sent as verifiers.
    pub(super) scram: bool,
}

impl Settings {
    /// Parses them. User name and password are inserted into parsed values, so they cannot change the meaning of the
    /// text.
    ///
    /// # Errors
    /// The invalid setting, without its value.
    pub(super) fn read(details: &Details, password: &SecretString, files: &FileDirectories) -> Result<Self, OpenError> {
        details::check(details, TYPES)?;
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
        let info = ConnInfo::parse(&url).map_err(url_error)?;
        let credentials = credentials(details, password, &info)?;
        let parameters = Parameters::read(&info, &credentials).map_err(url_error)?;
        let encryption = Encryption::read(details, &parameters, files)?;
        let session =
            Session::parse(parameters.get("target_session_attrs").unwrap_or_default()).map_err(OpenError::Url)?;
        let shared = shared(&parameters, &credentials, &encryption).map_err(url_error)?;
        let hosts = hosts(&shared, &parameters, files)?;
        Ok(Settings { target: Target { hosts, session, encryption: Arc::new(encryption) }, limits, scram })
    }
}

/// The connection string in responses; `None` if it cannot be parsed.
pub(in super::super) fn masked_url(url: &str) -> Option<String> {
    ConnInfo::parse(url).ok()?.masked(is_public)
}

/// Whether the connection string contains a password.
pub(in super::super) fn has_password(url: &str) -> bool {
    ConnInfo::parse(url).is_ok_and(|info| info.has_password())
}

fn url_error(why: impl std::fmt::Display) -> OpenError {
    OpenError::Url(format!("cannot parse connection url: {why}"))
}

/// The user name and the password; with `disable_escaping` they are in the syntax of the connection string.
fn credentials(details: &Details, password: &SecretString, info: &ConnInfo) -> Result<Credentials, OpenError> {
    let username = text(details, "username").unwrap_or_default();
    if !flag(details, "disable_escaping")? {
        return Credentials::new(username, password.expose()).map_err(OpenError::from);
    }
    let unescaped = |name: &str, value: &str| {
        unescaped(value, info.is_uri()).map_err(|why| format!("disable_escaping: {name}: {why}"))
    };
    let username = unescaped("username", &username).map_err(OpenError::Url)?;
    let password = unescaped("password", password.expose()).map_err(OpenError::Url)?;
    Credentials::new(username, &password).map_err(OpenError::from)
}

/// The configuration without hosts.
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
    // A negative value means no timeout in libpq.
    let connect = parameters.number::<i32>("connect_timeout")?.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
    config.connect_timeout(connect.map_or(CONNECT_TIMEOUT, Duration::from_secs).min(MAX_CONNECT_TIMEOUT));
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

/// One configuration per host, in the order of attempts.
fn hosts(shared: &Config, parameters: &Parameters, files: &FileDirectories) -> Result<Vec<Host>, OpenError> {
    let list = |name: &str| -> Vec<&str> { parameters.get(name).map(|v| v.split(',').collect()).unwrap_or_default() };
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = names.len().max(addresses.len());
    if count == 0 {
        return Err(url_error("it has no host"));
    }
    if count > MAX_HOSTS {
        return Err(url_error("it has more than 32 hosts"));
    }
    let fits = |length: usize| matches!(length, 0 | 1) || length == count;
    if !fits(ports.len()) || (!names.is_empty() && !addresses.is_empty() && names.len() != addresses.len()) {
        return Err(url_error("host, hostaddr and port have different numbers of entries"));
    }
    let port = |at: usize| match ports.get(at).or(ports.first()).map(|p| p.trim()) {
        None | Some("") => Ok(5432),
        Some(port) => port.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(|| url_error("a port is invalid")),
    };
    (0..count)
        .map(|at| {
            let mut config = shared.clone();
            config.port(port(at)?);
            if let Some(address) = addresses.get(at) {
                config.hostaddr(address.parse::<IpAddr>().map_err(|_| url_error("hostaddr is not an IP address"))?);
            }
            // The driver would use the address, without TLS.
            if !addresses.is_empty() && names.get(at).is_some_and(|name| is_socket(name)) {
                return Err(url_error("hostaddr is given for a host that is a directory of sockets"));
            }
            let socket = names.get(at).map(|name| set_host(&mut config, name, files)).transpose()?.flatten();
            Ok(Host { config, socket })
        })
        .collect()
}

/// Whether a host is the directory of a Unix socket or, with an at sign, an abstract socket.
fn is_socket(name: &str) -> bool {
    name.starts_with(['/', '@'])
}

/// Sets a host. A directory of Unix sockets must be allowed, and has no TLS, as in libpq.
fn set_host(config: &mut Config, name: &str, files: &FileDirectories) -> Result<Option<LocalPath>, OpenError> {
    if name.is_empty() {
        return Err(url_error("a host is empty"));
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
