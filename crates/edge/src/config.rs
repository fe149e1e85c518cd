//! The settings of a listener: where it listens, its TLS, what a request may cost, and the headers that responses get.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use keepfast_framework::OpenCeremonies;

/// One listener, checked.
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// Where it listens.
    pub bind: Bind,
    /// Its certificate; `None` is plain HTTP.
    pub tls: Option<TlsConfig>,
    /// What a request may cost.
    pub limits: Limits,
    /// How `X-Forwarded-For` is judged.
    pub forwarded: Forwarded,
    /// Headers that the operator adds to answers.
    pub headers: Vec<CustomHeader>,
    /// Whether metrics are given to whoever asks.
    pub open_metrics: bool,
    /// Whether the requests under way are given to whoever asks.
    pub open_in_flight: bool,
    /// Ceremonies with shares that need no token.
    pub open: OpenCeremonies,
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// A host and port.
    Tcp(String),
    /// A socket in the file system.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Permission bits; only the owner may connect when absent.
        mode: Option<u32>,
        /// Name or number of the owner.
        user: Option<String>,
        /// Name or number of the group.
        group: Option<String>,
    },
}

/// Certificate, key and what is asked of clients.
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
    /// What is asked of clients.
    pub clients: ClientCertificates,
}

/// What the handshake asks of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Not even asked for.
    Disabled,
    /// Asked for, not demanded; possession of the key is proved, the chain is for an auth method to judge.
    Requested,
    /// Demanded and verified against these authorities (PEM file).
    Required(PathBuf),
}

/// What one request, and one connection, may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest body in bytes (`max_request_size`).
    pub body: usize,
    /// How long a request may take (`max_request_duration`).
    pub duration: Duration,
    /// How JSON bodies are bounded.
    pub json: JsonLimits,
    /// The longest token header in bytes (`max_token_header_size`).
    pub token: usize,
    /// How long the head of a request may take (`http_read_header_timeout`).
    pub header_timeout: Duration,
    /// How long head and body may take together (`http_read_timeout`).
    pub read_timeout: Duration,
    /// How long a connection may be idle between requests (`http_idle_timeout`).
    pub idle_timeout: Duration,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How many connections one source address may have (`max_connections_per_source`); 0 is a quarter of all.
    pub connections_per_source: usize,
}

/// Bounds on a JSON body, checked in one pass over its bytes before it is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonLimits {
    /// Estimated bytes of memory of a JSON body, every value counted (`max_request_json_memory`); also the longest text.
    pub memory: usize,
    /// Strings in all, names included (`max_request_json_strings`).
    pub strings: usize,
    /// Nesting (`max_json_depth`).
    pub depth: usize,
    /// The longest string in decoded bytes (`max_json_string_value_length`).
    pub string_length: usize,
    /// Entries of one object (`max_json_object_entry_count`).
    pub object_entries: usize,
    /// Elements of one array (`max_json_array_element_count`).
    pub array_elements: usize,
}

/// How `X-Forwarded-For` is judged. With no authorized address the header is ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// The proxies whose header is believed.
    pub authorized: Vec<IpNet>,
    /// How many addresses at the end of the list are further proxies.
    pub hop_skips: usize,
    /// Refuse requests without the header.
    pub reject_not_present: bool,
    /// Refuse the header from others than the authorized.
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
    /// A listener on a TCP address with the defaults, without TLS.
    pub fn plain(address: impl Into<String>) -> Self {
        ListenerConfig {
            bind: Bind::Tcp(address.into()),
            tls: None,
            limits: Limits::default(),
            forwarded: Forwarded::default(),
            headers: Vec::new(),
            open_metrics: false,
            open_in_flight: false,
            open: OpenCeremonies::default(),
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

/// A header that the operator adds to answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomHeader {
    /// On which answers.
    pub when: Statuses,
    /// Its name; never one of Vault's own.
    pub name: HeaderName,
    /// Its value; several are joined by `; `.
    pub value: HeaderValue,
}

/// Which statuses a header is for. A narrower rule replaces a wider one's value of the same name.
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
    /// Whether an answer of this status is meant.
    pub fn include(self, status: u16) -> bool {
        match self {
            Statuses::All => true,
            Statuses::Class(class) => status / 100 == class,
            Statuses::One(one) => status == one,
        }
    }

    /// Reads `default`, a class such as `4xx`, or a status; `None` for any other text.
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
