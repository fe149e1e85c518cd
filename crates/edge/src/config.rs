//! The settings of a listener: address, TLS, limits of requests, and headers of responses.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use keepfast_framework::UnauthedEndpoints;

/// The checked settings of one listener.
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// The address.
    pub bind: Bind,
    /// The certificate; `None` is plain HTTP.
    pub tls: Option<TlsConfig>,
    /// The limits of requests and connections.
    pub limits: Limits,
    /// The rules for `X-Forwarded-For`.
    pub forwarded: Forwarded,
    /// Headers that the operator adds to responses.
    pub headers: Vec<CustomHeader>,
    /// Whether metrics need no token.
    pub open_metrics: bool,
    /// Whether the list of in-flight requests needs no token.
    pub open_in_flight: bool,
    /// Operations with key shares that need no token.
    pub open: UnauthedEndpoints,
}

/// The address of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// A host and port.
    Tcp(String),
    /// A Unix socket.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Permission bits; without them only the owner may connect.
        mode: Option<u32>,
        /// Name or uid of the owner.
        user: Option<String>,
        /// Name or gid of the group.
        group: Option<String>,
    },
}

/// Certificate, key and the handling of client certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM file with the chain, leaf first.
    pub cert_file: PathBuf,
    /// PEM file with the private key.
    pub key_file: PathBuf,
    /// Whether TLS 1.2 is offered beside 1.3.
    pub tls12: bool,
    /// Whether TLS 1.3 is offered.
    pub tls13: bool,
    /// The handling of client certificates.
    pub clients: ClientCertificates,
}

/// The handling of client certificates in the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Not requested.
    Disabled,
    /// Requested, not required. The handshake proves possession of the key; an auth method checks the chain.
    Requested,
    /// Required and verified against these CAs (PEM file).
    Required(PathBuf),
}

/// Limits of one request and of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest body in bytes (`max_request_size`).
    pub body: usize,
    /// The timeout of a request (`max_request_duration`).
    pub duration: Duration,
    /// The limits of JSON bodies.
    pub json: JsonLimits,
    /// The longest token header in bytes (`max_token_header_size`).
    pub token: usize,
    /// The timeout of the head of a request (`http_read_header_timeout`).
    pub header_timeout: Duration,
    /// The timeout of head and body together (`http_read_timeout`).
    pub read_timeout: Duration,
    /// The timeout of an idle connection (`http_idle_timeout`).
    pub idle_timeout: Duration,
    /// The timeout of a TLS handshake.
    pub handshake_timeout: Duration,
    /// The most connections of one source address (`max_connections_per_source`); 0 is a quarter of all.
    pub connections_per_source: usize,
}

/// Limits of a JSON body, checked in one pass over its bytes before it is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonLimits {
    /// Estimated bytes of memory of a JSON body, with every value (`max_request_json_memory`); also the longest text.
    pub memory: usize,
    /// All strings, names included (`max_request_json_strings`).
    pub strings: usize,
    /// Nesting depth (`max_json_depth`).
    pub depth: usize,
    /// The longest string in decoded bytes (`max_json_string_value_length`).
    pub string_length: usize,
    /// Entries of one object (`max_json_object_entry_count`).
    pub object_entries: usize,
    /// Elements of one array (`max_json_array_element_count`).
    pub array_elements: usize,
}

/// The rules for `X-Forwarded-For`. Without an authorized address the header is ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// The proxies whose header is used.
    pub authorized: Vec<IpNet>,
    /// The number of further proxies at the end of the list.
    pub hop_skips: usize,
    /// Whether a request without the header is refused.
    pub reject_not_present: bool,
    /// Whether the header is refused from unauthorized addresses.
    pub reject_not_authorized: bool,
}

impl Default for JsonLimits {
    fn default() -> Self {
        JsonLimits {
            memory: 34_078_720,
            strings: 1000,
            depth: 300,
            string_length: 1 << 20,
            object_entries: 10_000,
            array_elements: 10_000,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body: 32 << 20,
            duration: Duration::from_secs(90),
            json: JsonLimits::default(),
            token: 8192,
            header_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(300),
            handshake_timeout: Duration::from_secs(10),
            connections_per_source: 0,
        }
    }
}

impl ListenerConfig {
    /// A listener on a TCP address with the defaults and without TLS.
    pub fn plain(address: impl Into<String>) -> Self {
        ListenerConfig {
            bind: Bind::Tcp(address.into()),
            tls: None,
            limits: Limits::default(),
            forwarded: Forwarded::default(),
            headers: Vec::new(),
            open_metrics: false,
            open_in_flight: false,
            open: UnauthedEndpoints::default(),
        }
    }

    /// `tcp` or `unix`.
    pub fn kind(&self) -> &'static str {
        match self.bind {
            Bind::Tcp(_) => "tcp",
            Bind::Unix { .. } => "unix",
        }
    }

    /// The address or socket path as text.
    pub fn address(&self) -> String {
        match &self.bind {
            Bind::Tcp(address) => address.clone(),
            Bind::Unix { path, .. } => path.display().to_string(),
        }
    }
}

/// A header that the operator adds to responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomHeader {
    /// The statuses of those responses.
    pub when: Statuses,
    /// Its name; never one of Vault's own.
    pub name: HeaderName,
    /// Its value; several are joined by `; `.
    pub value: HeaderValue,
}

/// The statuses of a header. A narrower rule replaces the value of a wider one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Statuses {
    /// `"default"`
    All,
    /// `"4xx"`: the first digit.
    Class(u16),
    /// `"404"`
    One(u16),
}

impl Statuses {
    /// Whether this rule includes a status.
    pub fn include(self, status: u16) -> bool {
        match self {
            Statuses::All => true,
            Statuses::Class(class) => status / 100 == class,
            Statuses::One(one) => status == one,
        }
    }

    /// Parses `default`, a class such as `4xx`, or a status; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "default" {
            return Some(Statuses::All);
        }
        if let Some(class) = text.strip_suffix("xx") {
            return class.parse().ok().filter(|c| (1..=5).contains(c)).map(Statuses::Class);
        }
        text.parse().ok().filter(|s| (100..600).contains(s)).map(Statuses::One)
    }
}
