//! The configuration of a client: the address, trust and request headers of a server.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use keepfast_crypto::secret::SecretString;
use keepfast_outbound::Proxies;

use crate::{Error, RateLimit, duration, environment, transport};

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `http://host:port` or `https://host:port`, with an optional path in front of `/v1`.
    Http(http::Uri),
    /// `unix:///path/to/socket`.
    Unix(PathBuf),
}

/// The settings of a [`Client`](crate::Client).
#[derive(Clone)]
pub struct Config {
    /// The address of the server.
    pub address: Address,
    /// The client token; `None` for calls without one.
    pub token: Option<SecretString>,
    /// The namespace of the calls; empty is the root namespace.
    pub namespace: String,
    /// A PEM file with the CAs to trust instead of the system's.
    pub ca_cert: Option<PathBuf>,
    /// The CAs as PEM text; `ca_cert` takes precedence.
    pub ca_pem: Option<String>,
    /// A directory of PEM files with CAs; `ca_cert` and `ca_pem` take precedence.
    pub ca_path: Option<PathBuf>,
    /// A PEM certificate chain that the client presents, with [`Config::client_key`].
    pub client_cert: Option<PathBuf>,
    /// The key of [`Config::client_cert`].
    pub client_key: Option<PathBuf>,
    /// Accepts any certificate of the server. Not for production.
    pub skip_verify: bool,
    /// The name sent by SNI and required in the server's certificate, instead of the address's host.
    pub server_name: Option<String>,
    /// The wrapping TTL of all responses in the server's syntax (`60s`, `5m`); `None` wraps none.
    pub wrap_ttl: Option<String>,
    /// The timeout of a call without its retries; `None` means no timeout.
    pub timeout: Option<Duration>,
    /// The number of retries of a failed call.
    pub max_retries: u32,
    /// The backoff before the first retry; later ones are longer.
    pub retry_wait: Duration,
    /// The rate limit of the calls; `None` means no limit.
    pub rate_limit: Option<RateLimit>,
    /// Whether one redirect per call, as of a standby to its leader, is followed.
    pub follow_redirects: bool,
    /// The HTTP proxies.
    pub proxies: Proxies,
    /// More headers for every call.
    pub headers: HeaderMap<HeaderValue>,
}

/// The default address of Vault's clients.
pub const DEFAULT_ADDRESS: &str = "https://127.0.0.1:8200";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_RETRIES: u32 = 2;
const DEFAULT_RETRY_WAIT: Duration = Duration::from_secs(1);

impl Config {
    /// The defaults for the server at `address`. Does not read the environment.
    ///
    /// # Errors
    /// When the address is invalid.
    pub fn new(address: &str) -> Result<Self, Error> {
        Ok(Self {
            address: Address::parse(address)?,
            token: None,
            namespace: String::new(),
            ca_cert: None,
            ca_pem: None,
            ca_path: None,
            client_cert: None,
            client_key: None,
            skip_verify: false,
            server_name: None,
            wrap_ttl: None,
            timeout: Some(DEFAULT_TIMEOUT),
            max_retries: DEFAULT_RETRIES,
            retry_wait: DEFAULT_RETRY_WAIT,
            rate_limit: None,
            follow_redirects: true,
            proxies: Proxies::default(),
            headers: HeaderMap::new(),
        })
    }

    /// Reads the environment variables with the prefixes `KEEPFAST_`, `BAO_` and `VAULT_`, in this order: `ADDR`,
    /// `TOKEN`, `CACERT`, `CACERT_BYTES`, `CAPATH`, `CLIENT_CERT`, `CLIENT_KEY`, `SKIP_VERIFY`, `TLS_SERVER_NAME`,
    /// `NAMESPACE`, `WRAP_TTL`, `CLIENT_TIMEOUT`, `MAX_RETRIES`, `RATE_LIMIT`, `DISABLE_REDIRECTS`, `PROXY_ADDR`,
    /// `HTTP_PROXY`; and without a prefix `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`.
    ///
    /// # Errors
    /// When a variable has an invalid value or is not supported (`SRV_LOOKUP`); the message names it.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// [`Config::from_env`] over any source of variables, by full name.
    ///
    /// # Errors
    /// As [`Config::from_env`].
    pub fn from_variables(source: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let find = |name: &str| environment::find(name, &source);
        let text = |name: &str| find(name).map(|(_, value)| value);
        let mut config = Self::new(&text("ADDR").unwrap_or_else(|| DEFAULT_ADDRESS.to_owned()))?;
        config.token = text("TOKEN").map(|token| SecretString::new(token.trim().to_owned()));
        config.namespace = text("NAMESPACE").unwrap_or_default();
        config.ca_cert = text("CACERT").map(PathBuf::from);
        config.ca_pem = text("CACERT_BYTES");
        config.ca_path = text("CAPATH").map(PathBuf::from);
        config.client_cert = text("CLIENT_CERT").map(PathBuf::from);
        config.client_key = text("CLIENT_KEY").map(PathBuf::from);
        config.server_name = text("TLS_SERVER_NAME");
        config.wrap_ttl = text("WRAP_TTL");
        config.skip_verify = read(find("SKIP_VERIFY"), environment::truth)?.unwrap_or(false);
        config.follow_redirects = !read(find("DISABLE_REDIRECTS"), environment::truth)?.unwrap_or(false);
        config.proxies = transport::proxies(&source)?;
        if let Some((name, _)) = find("SRV_LOOKUP").filter(|(_, value)| environment::truth(value).unwrap_or(true)) {
            let why = "SRV records are not looked up: write host and port into the address";
            return Err(Error::Config(format!("{name} is set: {why}")));
        }
        config.rate_limit = read(find("RATE_LIMIT"), RateLimit::parse)?;
        if let Some(timeout) = read(find("CLIENT_TIMEOUT"), duration::parse)? {
            config.timeout = (!timeout.is_zero()).then_some(timeout);
        }
        if let Some(retries) = read(find("MAX_RETRIES"), |value| value.parse().ok())? {
            config.max_retries = retries;
        }
        Ok(config)
    }
}

impl Address {
    /// Parses `http://…`, `https://…` or `unix:///…`.
    ///
    /// # Errors
    /// When the text is none of these.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if let Some(path) = text.strip_prefix("unix://") {
            return match path {
                "" => Err(Error::Config(format!("invalid address {text:?}: a socket needs a path"))),
                path => Ok(Self::Unix(PathBuf::from(path))),
            };
        }
        let uri: http::Uri = text
            .trim_end_matches('/')
            .parse()
            .map_err(|error| Error::Config(format!("invalid address {text:?}: {error}")))?;
        match uri.scheme_str() {
            Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(Self::Http(uri)),
            _ => Err(Error::Config(format!("invalid address {text:?}: expected http://, https:// or unix://"))),
        }
    }

    /// The scheme, host, port and leading path in front of `/v1/…` in a URL.
    pub fn base(&self) -> String {
        match self {
            Self::Unix(_) => "http://localhost".to_owned(),
            Self::Http(uri) => uri.to_string().trim_end_matches('/').to_owned(),
        }
    }
}

/// Parses the value of a variable. The error names the variable without its value.
fn read<T>(found: Option<(String, String)>, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Error> {
    found.map(|(name, value)| parse(&value).ok_or_else(|| Error::Config(format!("could not parse {name}")))).transpose()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn from(pairs: &[(&str, &str)]) -> Result<Config, Error> {
        let pairs: Vec<(String, String)> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::from_variables(|name| pairs.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
    }

    #[test]
    fn prefixes_apply_in_their_order() {
        let config =
            from(&[("VAULT_ADDR", "http://v:1"), ("BAO_ADDR", "http://b:1/"), ("VAULT_TOKEN", " t\n")]).unwrap();
        assert_eq!(config.address.base(), "http://b:1");
        assert_eq!(config.token.unwrap().expose(), "t");
        let config = from(&[("VAULT_ADDR", "http://v:1"), ("KEEPFAST_ADDR", "http://k:1/pre")]).unwrap();
        assert_eq!(config.address.base(), "http://k:1/pre");
        assert_eq!(from(&[]).unwrap().address.base(), DEFAULT_ADDRESS);
    }

    #[test]
    fn parses_numbers_durations_and_booleans() {
        let config =
            from(&[("VAULT_CLIENT_TIMEOUT", "5"), ("VAULT_MAX_RETRIES", "7"), ("BAO_SKIP_VERIFY", "TRUE")]).unwrap();
        assert_eq!((config.timeout, config.max_retries, config.skip_verify), (Some(Duration::from_secs(5)), 7, true));
        for (name, value) in [
            ("VAULT_CLIENT_TIMEOUT", "soon"),
            ("VAULT_MAX_RETRIES", "-1"),
            ("VAULT_SKIP_VERIFY", "maybe"),
            ("VAULT_RATE_LIMIT", "fast"),
        ] {
            let message = from(&[(name, value)]).err().unwrap().to_string();
            assert!(message.contains(name) && !message.contains(value), "{message}");
        }
    }

    #[test]
    fn an_unsupported_variable_is_refused_by_name() {
        let message = from(&[("VAULT_SRV_LOOKUP", "true")]).err().unwrap().to_string();
        assert!(message.starts_with("VAULT_SRV_LOOKUP is set"), "{message}");
        assert!(from(&[("VAULT_SRV_LOOKUP", "false")]).is_ok());
    }

    #[test]
    fn parses_http_and_unix_addresses() {
        assert_eq!(Address::parse("unix:///run/k.sock").unwrap(), Address::Unix("/run/k.sock".into()));
        for text in ["", "127.0.0.1:8200", "ftp://h", "unix://", "http://", "h"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
