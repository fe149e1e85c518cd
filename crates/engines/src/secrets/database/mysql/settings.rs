//! The settings of a MySQL or MariaDB connection.

use std::time::Duration;

use keepfast_crypto::secret::SecretString;
use mysql_async::{ClientIdentity, Opts, OptsBuilder, SslOpts};

use super::super::connection::OpenError;
use super::super::details::{self, Details, SettingType, flag, only_text, text};
use super::super::files::{FileDirectories, LocalPath};
use super::super::placeholders::{Credentials, Template};
use super::super::pool::Limits;
use super::super::tls::{self, Material, Verify};
use super::dsn::{Dsn, Server};

/// The parameters with an effect here.
const SUPPORTED: &[&str] = &["allowCleartextPasswords", "tls"];
/// Parameters of Go's driver without a meaning here, whose absence weakens nothing. Every other parameter is a system
/// variable of the session.
const IGNORED: &[&str] = &[
    "allowAllFiles",
    "allowFallbackToPlaintext",
    "allowNativePasswords",
    "allowOldPasswords",
    "charset",
    "checkConnLiveness",
    "clientFoundRows",
    "collation",
    "columnsWithAlias",
    "compress",
    "connectionAttributes",
    "interpolateParams",
    "loc",
    "maxAllowedPacket",
    "multiStatements",
    "parseTime",
    "readTimeout",
    "rejectReadOnly",
    "timeTruncate",
    "timeout",
    "writeTimeout",
];
/// Parameters that require features which the driver lacks.
const REFUSED: &[(&str, &str)] = &[("serverPubKey", "use TLS")];
/// System variables in responses.
const PUBLIC_VARIABLES: &[&str] =
    &["autocommit", "innodb_lock_wait_timeout", "lock_wait_timeout", "sql_mode", "time_zone", "wait_timeout"];

/// The settings in responses.
pub(in super::super) const PUBLIC: &[&str] = &[
    "connection_url",
    "disable_escaping",
    "max_connection_lifetime",
    "max_idle_connections",
    "max_open_connections",
    "tls_ca",
    "tls_server_name",
    "tls_skip_verify",
    "username",
    "username_template",
];

/// The type of each setting.
const TYPES: &[(&str, SettingType)] = &[
    ("connection_url", SettingType::Text),
    ("username", SettingType::Text),
    ("max_open_connections", SettingType::Integer),
    ("max_idle_connections", SettingType::Integer),
    ("tls_ca", SettingType::Bytes),
    ("tls_certificate_key", SettingType::Bytes),
    ("tls_server_name", SettingType::Text),
    ("tls_skip_verify", SettingType::Flag),
];

/// The validated settings of a connection.
pub(super) struct Settings {
    pub(super) opts: Opts,
    /// The same without TLS, for a server without it, if that is allowed.
    pub(super) plaintext: Option<Opts>,
    pub(super) address: String,
    /// The socket of the server, if it is local.
    pub(super) socket: Option<LocalPath>,
    pub(super) limits: Limits,
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
        only_text(details, "username_template")?;
        let custom = custom_tls(details)?;
        let dsn = Dsn::parse(&url).map_err(url_error)?;
        if dsn.has_misplaced_password() {
            return Err(url_error("invalid DSN: only the password may contain {{password}}".to_owned()));
        }
        let username = text(details, "username").unwrap_or_default();
        let credentials = Credentials::new(username, password.expose())?;
        let fill = |template: &Template| template.fill(&credentials);
        let server = dsn.server(&credentials).map_err(url_error)?;
        let parameters: Vec<(&str, String)> = dsn.parameters().map(|(name, value)| (name, fill(value))).collect();
        let mut builder = OptsBuilder::default()
            .user(Some(fill(&dsn.user)))
            .pass(Some(fill(&dsn.password)))
            .db_name(Some(fill(&dsn.database)).filter(|name| !name.is_empty()))
            .prefer_socket(false)
            .stmt_cache_size(0)
            .tcp_keepalive(Some(Duration::from_secs(60)));
        let mut socket = None;
        builder = match &server {
            Server::Tcp { host, port } => builder.ip_or_hostname(host.as_str()).tcp_port(*port),
            Server::Socket(path) => {
                let allowed = files.locate("unix", path, "connect over tcp")?;
                let builder = builder.socket(Some(allowed.path().display().to_string()));
                socket = Some(allowed);
                builder
            }
        };
        let find = |name: &str| parameters.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
        if find("allowCleartextPasswords").and_then(truth) == Some(true) {
            builder = builder.enable_cleartext_plugin(true);
        }
        builder = builder.setup(variables(&parameters)?);
        let plaintext: Opts = builder.clone().into();
        let (ssl, may_be_plaintext) = encryption(find("tls"), custom)?;
        let plaintext = may_be_plaintext.then_some(plaintext);
        Ok(Settings { opts: builder.ssl_opts(ssl).into(), plaintext, address: server.address(), socket, limits })
    }
}

/// The DSN in responses; `None` if it cannot be parsed.
pub(in super::super) fn masked_url(url: &str) -> Option<String> {
    let is_public = |name: &str, value: &Template| match name {
        // Any other value would be the name of a configuration, which does not exist here.
        "tls" => {
            let value = value.encoded(str::to_owned).to_ascii_lowercase();
            matches!(value.as_str(), "" | "0" | "1" | "true" | "false" | "skip-verify" | "preferred")
        }
        "connectionAttributes" => false,
        name => SUPPORTED.contains(&name) || IGNORED.contains(&name) || PUBLIC_VARIABLES.contains(&name),
    };
    Dsn::parse(url).ok()?.masked(is_public)
}

fn url_error(why: String) -> OpenError {
    OpenError::Url(format!("error verifying - connection: unable to parse connectionURL: {why}"))
}

/// As the driver's `readBool`.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "true" | "TRUE" | "True" => Some(true),
        "0" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// TLS, and whether the connection may continue without it if the server has none. `tls_ca` and the related settings
/// replace the parameter, as in OpenBao.
fn encryption(parameter: Option<&str>, custom: Option<SslOpts>) -> Result<(Option<SslOpts>, bool), OpenError> {
    if custom.is_some() {
        return Ok((custom, false));
    }
    let value = parameter.unwrap_or_default();
    match (truth(value), value.to_ascii_lowercase().as_str()) {
        (Some(false), _) | (None, "") => Ok((None, false)),
        (Some(true), _) => Ok((Some(verified_tls()?), false)),
        (None, "preferred") => Ok((Some(verified_tls()?), true)),
        (None, "skip-verify") => Ok((Some(unverified_tls()), false)),
        _ => Err(url_error("invalid value / unknown config name: the value of tls".to_owned())),
    }
}

/// The system variables of each session: `SET name = value`. A value is a number, a word or a quoted text.
fn variables(parameters: &[(&str, String)]) -> Result<Vec<String>, OpenError> {
    let is_word =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.".contains(&b));
    let ours = |name: &str| SUPPORTED.contains(&name) || IGNORED.contains(&name);
    let mut out = Vec::new();
    for (name, value) in parameters.iter().filter(|(name, _)| !ours(name)) {
        if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| refused == name) {
            return Err(url_error(format!("{name} is not supported: {why}")));
        }
        if !is_word(name) {
            return Err(url_error("the name of a parameter is invalid".to_owned()));
        }
        let is = |known: &&str| known.eq_ignore_ascii_case(name);
        if SUPPORTED.iter().chain(IGNORED).any(is) || REFUSED.iter().any(|(refused, _)| is(refused)) {
            return Err(url_error(format!("{name} is not a parameter: its name differs in case")));
        }
        // `SET PASSWORD = ...` changes the password of the administrator.
        if is(&"password") {
            return Err(url_error(format!("{name} is not supported")));
        }
        let quoted = |quote: char| value.strip_prefix(quote).and_then(|v| v.strip_suffix(quote));
        let is_safe = is_word(value.strip_prefix('-').unwrap_or(value))
            || quoted('\'').or(quoted('"')).is_some_and(|text| !text.contains(['\'', '"', '\\']));
        if !is_safe {
            return Err(url_error(format!("the value of {name} is not a number, word or quoted text")));
        }
        out.push(format!("SET {name} = {value}"));
    }
    Ok(out)
}

/// TLS with the system's CAs.
fn verified_tls() -> Result<SslOpts, String> {
    let roots = tls::system().into_iter().map(|c| c.to_vec().into()).collect();
    Ok(SslOpts::default().with_root_certs(roots).with_disable_built_in_roots(true))
}

fn unverified_tls() -> SslOpts {
    tracing::warn!("the settings of a connection disable the verification of the database's certificate");
    SslOpts::default().with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true)
}

/// TLS with `tls_ca` and `tls_certificate_key`; one of them enables it, as in OpenBao.
fn custom_tls(details: &Details) -> Result<Option<SslOpts>, String> {
    let (authorities, pair) = (text(details, "tls_ca"), text(details, "tls_certificate_key"));
    let skip = flag(details, "tls_skip_verify")?;
    if let Some(pem) = &authorities {
        tls::certificates(pem, "tls_ca").map_err(|_| "failed to append CA to client options")?;
    }
    if pair.is_some() {
        let material = Material { authorities: None, certificate: pair.clone(), key: pair.clone() };
        tls::client(&material, Verify::Everything)
            .map_err(|why| format!("unable to load tls_certificate_key_data: {why}"))?;
    }
    if authorities.is_none() && pair.is_none() {
        return Ok(None);
    }
    let mut ssl = match &authorities {
        _ if skip => unverified_tls(),
        None => verified_tls()?,
        Some(pem) => {
            SslOpts::default().with_root_certs(vec![pem.clone().into_bytes().into()]).with_disable_built_in_roots(true)
        }
    };
    if let Some(pair) = pair {
        let pem = || pair.clone().into_bytes();
        ssl = ssl.with_client_identity(Some(ClientIdentity::new(pem().into(), pem().into())));
    }
    if let Some(name) = text(details, "tls_server_name") {
        ssl = ssl.with_danger_tls_hostname_override(Some(name));
    }
    Ok(Some(ssl))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(url: &str, more: Value) -> Result<Settings, OpenError> {
        let mut details = json!({"connection_url": url, "username": "ad'min@x:/("});
        details.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let password = SecretString::new("p@)/?tls=false".to_owned());
        Settings::read(&details::of_json(&details), &password, &FileDirectories::default())
    }

    #[test]
    fn sec_kf06_only_the_password_has_the_passwords_placeholder() {
        for url in [
            "{{password}}:x@tcp(db)/d",
            "{{username}}:{{password}}@tcp(db)/{{password}}",
            "{{username}}:{{password}}@tcp({{password}})/d",
            "{{username}}:{{password}}@tcp(db)/d?sql_mode={{password}}",
        ] {
            assert!(read(url, json!({})).is_err(), "{url}");
        }
        assert!(read("{{username}}:{{password}}@tcp(db)/d", json!({})).is_ok());
    }

    #[test]
    fn sec_se04_no_credential_or_variable_changes_the_meaning_of_a_dsn() {
        let settings =
            read("{{username}}:{{password}}@tcp(db:3307)/d?tls=true&sql_mode=%27ANSI%27&timeout=5s", json!({}));
        let settings = settings.unwrap();
        assert_eq!(settings.opts.user(), Some("ad'min@x:/("));
        assert_eq!(settings.opts.pass(), Some("p@)/?tls=false"));
        assert_eq!((settings.opts.ip_or_hostname(), settings.opts.tcp_port()), ("db", 3307));
        assert_eq!(settings.opts.setup(), ["SET sql_mode = 'ANSI'"]);
        assert!(settings.opts.ssl_opts().is_some_and(|ssl| !ssl.accept_invalid_certs()));
        for url in
            ["u@/?a=1;DROP", "u@/?a=%27x%27%27", "u@/?a;b=1", "u@/?a=%27\\%27", "u@/?a=%27%5C%27", "u@/?Password=1"]
        {
            assert!(read(url, json!({})).is_err(), "{url}");
        }
        let whole = read("u@/?time_zone=%27%2B01%3A00%27&a=-1&a=2", json!({})).unwrap();
        assert_eq!(whole.opts.setup(), ["SET time_zone = '+01:00'", "SET a = 2"]);
    }

    #[test]
    fn sec_se05_tls_is_verified_unless_the_settings_disable_it() {
        let ssl =
            |parameter: &str| read(&format!("u@tcp(h)/?{parameter}"), json!({})).map(|s| s.opts.ssl_opts().cloned());
        assert_eq!(ssl(""), Ok(None));
        for verified_tls in ["tls=true", "tls=preferred"] {
            assert!(!ssl(verified_tls).unwrap().unwrap().accept_invalid_certs(), "{verified_tls}");
        }
        assert!(ssl("tls=skip-verify").unwrap().unwrap().accept_invalid_certs());
        assert!(ssl("tls=nope").unwrap_err().text().contains("unknown config name"));
        assert!(read("u@tcp(h)/?tls=preferred", json!({})).unwrap().plaintext.is_some());
        for required in ["tls=%74rue", "tls=false&tls=true", "tls=TRUE", "tls=1", "a=1&tls=true"] {
            let read = read(&format!("u@tcp(h)/?{required}"), json!({})).unwrap();
            assert!(read.opts.ssl_opts().is_some() && read.plaintext.is_none(), "{required}");
        }
        for refused in ["TLS=true", "%74ls=true", "tls=tRUE", "serverPubKey=x", "Tls=skip-verify", "tls=true;a=1"] {
            assert!(read(&format!("u@tcp(h)/?{refused}"), json!({})).is_err(), "{refused}");
        }
        for (setting, expected) in [
            ("tls_ca", "failed to append CA to client options"),
            ("tls_certificate_key", "unable to load tls_certificate_key_data: the private key is not PEM"),
        ] {
            assert_eq!(read("u@tcp(h)/", json!({setting: "garbage"})).err().unwrap().text(), expected);
        }
    }
}
