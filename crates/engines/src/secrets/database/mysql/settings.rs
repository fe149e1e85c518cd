//! What a MySQL or MariaDB connection is told.

use std::time::Duration;

use keepfast_crypto::secret::SecretString;
use mysql_async::{ClientIdentity, Opts, OptsBuilder, SslOpts};

use super::super::connection::Unusable;
use super::super::details::{self, Details, Form, flag, only_text, text};
use super::super::pool::Limits;
use super::super::tls::{self, Material, Verify};
use super::dsn::{Dsn, Server};

/// What stands for the administrator's name while the URL is read.
const NAME: &str = "keepfast-name";
const PASSWORD: &str = "keepfast-password";
/// Parameters of Go's driver that mean nothing to another one. Every other parameter is a system variable of the session.
const OF_THE_DRIVER: &[&str] = &[
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
    "serverPubKey",
    "timeTruncate",
    "timeout",
    "writeTimeout",
];

/// What is given in which form.
const FORMS: &[(&str, Form)] = &[
    ("connection_url", Form::Text),
    ("username", Form::Text),
    ("max_open_connections", Form::Integer),
    ("max_idle_connections", Form::Integer),
    ("tls_ca", Form::Bytes),
    ("tls_certificate_key", Form::Bytes),
    ("tls_server_name", Form::Text),
    ("tls_skip_verify", Form::Flag),
];

/// A connection's settings, checked.
pub(super) struct Settings {
    pub(super) opts: Opts,
    /// The same without TLS, for a server that has none, where that was allowed.
    pub(super) plaintext: Option<Opts>,
    pub(super) address: String,
    pub(super) limits: Limits,
}

impl Settings {
    /// Reads them. The name and the password never become part of the text of the URL.
    ///
    /// # Errors
    /// What is wrong with them; values are not quoted.
    pub(super) fn read(details: &Details, password: &SecretString) -> Result<Self, Unusable> {
        details::check(details, FORMS)?;
        let url = text(details, "connection_url").ok_or("connection_url cannot be empty")?;
        let limits = Limits::read(details)?;
        only_text(details, "username_template")?;
        let custom = custom_tls(details)?;
        let url = url.replace("{{username}}", NAME).replace("{{password}}", PASSWORD);
        let Dsn { user, password: written, server, database, parameters } = Dsn::read(&url).map_err(unreadable)?;
        let user = if user == NAME { text(details, "username").unwrap_or_default() } else { user };
        let password = if written == PASSWORD { password.expose().clone() } else { written };
        let mut builder = OptsBuilder::default()
            .user(Some(user))
            .pass(Some(password))
            .db_name(Some(database).filter(|name| !name.is_empty()))
            .prefer_socket(false)
            .stmt_cache_size(0)
            .tcp_keepalive(Some(Duration::from_secs(60)));
        builder = match &server {
            Server::Tcp { host, port } => builder.ip_or_hostname(host.as_str()).tcp_port(*port),
            Server::Socket(path) => builder.socket(Some(path.as_str())),
        };
        let find = |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        if find("allowCleartextPasswords") == Some("true") {
            builder = builder.enable_cleartext_plugin(true);
        }
        builder = builder.setup(variables(&parameters)?);
        let plaintext: Opts = builder.clone().into();
        let (ssl, may_be_plaintext) = match (find("tls"), custom) {
            (None | Some("false" | "0" | ""), None) => (None, false),
            (Some("preferred"), custom) => (Some(custom.map_or_else(verified, Ok)?), true),
            (Some("skip-verify"), _) => (Some(unverified()), false),
            (Some("true" | "1"), None) => (Some(verified()?), false),
            (_, Some(custom)) => (Some(custom), false),
            (Some(_), None) => {
                return Err(unreadable("invalid value / unknown config name: the value of tls".to_owned()));
            }
        };
        let plaintext = may_be_plaintext.then_some(plaintext);
        Ok(Settings { opts: builder.ssl_opts(ssl).into(), plaintext, address: server.address(), limits })
    }
}

fn unreadable(why: String) -> Unusable {
    Unusable::Url(format!("error verifying - connection: unable to parse connectionURL: {why}"))
}

/// System variables of each session: `SET name = value`. A value is a number, a word or a text in single quotes.
fn variables(parameters: &[(String, String)]) -> Result<Vec<String>, Unusable> {
    let is_word =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.".contains(&b));
    let ours = |name: &str| matches!(name, "tls" | "allowCleartextPasswords") || OF_THE_DRIVER.contains(&name);
    let mut out = Vec::new();
    for (name, value) in parameters.iter().filter(|(name, _)| !ours(name)) {
        let value = value.replace("%27", "'").replace("%20", " ").replace("%2C", ",");
        let quoted = value.strip_prefix('\'').and_then(|v| v.strip_suffix('\''));
        let is_safe = is_word(&value) || quoted.is_some_and(|text| !text.contains(['\'', '\\']));
        if !is_word(name) || !is_safe {
            return Err(unreadable("a parameter is no system variable with a plain value".to_owned()));
        }
        out.push(format!("SET {name} = {value}"));
    }
    Ok(out)
}

/// TLS by the system's authorities.
fn verified() -> Result<SslOpts, String> {
    let roots = tls::system().into_iter().map(|c| c.to_vec().into()).collect();
    Ok(SslOpts::default().with_root_certs(roots).with_disable_built_in_roots(true))
}

fn unverified() -> SslOpts {
    tracing::warn!("a database's certificate is not verified, as its connection is set");
    SslOpts::default().with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true)
}

/// TLS by `tls_ca` and `tls_certificate_key`, either of which switches it on, as the peer has it.
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
        _ if skip => unverified(),
        None => verified()?,
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

    fn read(url: &str, more: Value) -> Result<Settings, Unusable> {
        let mut details = json!({"connection_url": url, "username": "ad'min@x:/("});
        details.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Settings::read(details.as_object().unwrap(), &SecretString::new("p@)/?tls=false".to_owned()))
    }

    #[test]
    fn sec_se04_a_dsn_takes_nothing_from_the_name_the_password_or_a_variable() {
        let settings =
            read("{{username}}:{{password}}@tcp(db:3307)/d?tls=true&sql_mode=%27ANSI%27&timeout=5s", json!({}));
        let settings = settings.unwrap();
        assert_eq!(settings.opts.user(), Some("ad'min@x:/("));
        assert_eq!(settings.opts.pass(), Some("p@)/?tls=false"));
        assert_eq!((settings.opts.ip_or_hostname(), settings.opts.tcp_port()), ("db", 3307));
        assert_eq!(settings.opts.setup(), ["SET sql_mode = 'ANSI'"]);
        assert!(settings.opts.ssl_opts().is_some_and(|ssl| !ssl.accept_invalid_certs()));
        for url in ["u@/?a=1;DROP", "u@/?a=%27x%27%27", "u@/?a;b=1", "u@/?a=%27\\%27"] {
            assert!(read(url, json!({})).is_err(), "{url}");
        }
    }

    #[test]
    fn sec_se05_tls_is_verified_unless_the_connection_says_otherwise() {
        let ssl =
            |parameter: &str| read(&format!("u@tcp(h)/?{parameter}"), json!({})).map(|s| s.opts.ssl_opts().cloned());
        assert_eq!(ssl(""), Ok(None));
        for verified in ["tls=true", "tls=preferred"] {
            assert!(!ssl(verified).unwrap().unwrap().accept_invalid_certs(), "{verified}");
        }
        assert!(ssl("tls=skip-verify").unwrap().unwrap().accept_invalid_certs());
        assert!(ssl("tls=nope").unwrap_err().text().contains("unknown config name"));
        assert!(read("u@tcp(h)/?tls=preferred", json!({})).unwrap().plaintext.is_some());
        for (setting, expected) in [
            ("tls_ca", "failed to append CA to client options"),
            ("tls_certificate_key", "unable to load tls_certificate_key_data: the private key is not PEM"),
        ] {
            assert_eq!(read("u@tcp(h)/", json!({setting: "garbage"})).err().unwrap().text(), expected);
        }
    }
}
