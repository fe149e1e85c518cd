//! Where the server is, how to trust it, and what to send along.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use keepfast_crypto::secret::SecretString;
use keepfast_outbound::Proxies;

use crate::{Error, RateLimit, duration, environment, transport};

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `http://host:port` or `https://host:port`, perhaps with a path in front of `/v1`.
    Http(http::Uri),
    /// `unix:///path/to/socket`.
    Unix(PathBuf),
}

/// All that a [`Client`](crate::Client) needs to know.
#[derive(Clone)]
pub struct Config {
    /// The server.
    pub address: Address,
    /// The token to present, if any.
    pub token: Option<SecretString>,
    /// The namespace to work in; empty is the root namespace.
    pub namespace: String,
    /// A PEM file with the authorities to trust instead of the system's.
    pub ca_cert: Option<PathBuf>,
    /// The same authorities as PEM text; `ca_cert` takes precedence.
    pub ca_pem: Option<String>,
    /// A directory of such files; `ca_cert` and `ca_pem` take precedence.
    pub ca_path: Option<PathBuf>,
    /// A PEM certificate chain to show the server, with [`Config::client_key`].
    pub client_cert: Option<PathBuf>,
    /// The key of [`Config::client_cert`].
    pub client_key: Option<PathBuf>,
    /// Trusts whatever certificate the server shows. Never in production.
    pub skip_verify: bool,
    /// The name to ask for and expect in the server's certificate, instead of the address's host.
    pub server_name: Option<String>,
    /// Asks for answers to be wrapped for so long; as the server reads it (`60s`, `5m`).
    pub wrap_ttl: Option<String>,
    /// How long a call may take, retries apart; `None` is as long as it takes.
    pub timeout: Option<Duration>,
    /// How often a failed call is tried again.
    pub max_retries: u32,
    /// The pause before the first new attempt; later ones wait longer.
    pub retry_wait: Duration,
    /// How often the client may call; `None` is as often as it likes.
    pub rate_limit: Option<RateLimit>,
    /// Whether a redirection (a standby naming its leader) is followed, once.
    pub follow_redirects: bool,
    /// The HTTP proxies to go through.
    pub proxies: Proxies,
    /// Further headers for every call.
    pub headers: HeaderMap<HeaderValue>,
}

/// Where Vault's clients look when nobody tells them.
pub const DEFAULT_ADDRESS: &str = "https://127.0.0.1:8200";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_RETRIES: u32 = 2;
const DEFAULT_RETRY_WAIT: Duration = Duration::from_secs(1);

impl Config {
    /// A client of the server at `address`, everything else at its default, the environment unread.
    ///
    /// # Errors
    /// The address is none.
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

    /// What the environment says, under the prefixes `KEEPFAST_`, `BAO_` and `VAULT_` in this order: `ADDR`,
    /// `TOKEN`, `CACERT`, `CACERT_BYTES`, `CAPATH`, `CLIENT_CERT`, `CLIENT_KEY`, `SKIP_VERIFY`, `TLS_SERVER_NAME`,
    /// `NAMESPACE`, `WRAP_TTL`, `CLIENT_TIMEOUT`, `MAX_RETRIES`, `RATE_LIMIT`, `DISABLE_REDIRECTS`, `PROXY_ADDR`,
    /// `HTTP_PROXY`; and without a prefix `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`.
    ///
    /// # Errors
    /// A variable does not hold what it should, or asks for what is not built (`SRV_LOOKUP`); the message names it.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// [`Config::from_env`] over any source of variables, each asked by its full name.
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
    /// Reads `http://…`, `https://…` or `unix:///…`.
    ///
    /// # Errors
    /// It is none of these.
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

    /// The scheme, host, port and leading path that stand before `/v1/…` in a URL.
    pub fn base(&self) -> String {
        match self {
            Self::Unix(_) => "http://localhost".to_owned(),
            Self::Http(uri) => uri.to_string().trim_end_matches('/').to_owned(),
        }
    }
}

/// Reads a variable's value, naming the variable but not its value when it cannot be read.
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
    fn each_prefix_in_its_order() {
        let config =
            from(&[("VAULT_ADDR", "http://v:1"), ("BAO_ADDR", "http://b:1/"), ("VAULT_TOKEN", " t\n")]).unwrap();
        assert_eq!(config.address.base(), "http://b:1");
        assert_eq!(config.token.unwrap().expose(), "t");
        let config = from(&[("VAULT_ADDR", "http://v:1"), ("KEEPFAST_ADDR", "http://k:1/pre")]).unwrap();
        assert_eq!(config.address.base(), "http://k:1/pre");
        assert_eq!(from(&[]).unwrap().address.base(), DEFAULT_ADDRESS);
    }

    #[test]
    fn numbers_times_and_truths() {
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
    fn what_is_not_built_is_refused_by_name() {
        let message = from(&[("VAULT_SRV_LOOKUP", "true")]).err().unwrap().to_string();
        assert!(message.starts_with("VAULT_SRV_LOOKUP is set"), "{message}");
        assert!(from(&[("VAULT_SRV_LOOKUP", "false")]).is_ok());
    }

    #[test]
    fn addresses() {
        assert_eq!(Address::parse("unix:///run/k.sock").unwrap(), Address::Unix("/run/k.sock".into()));
        for text in ["", "127.0.0.1:8200", "ftp://h", "unix://", "http://", "h"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
