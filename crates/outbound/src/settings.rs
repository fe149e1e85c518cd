//! The settings of calls: limits, trust, proxies.

use std::path::PathBuf;
use std::time::Duration;

use keepfast_crypto::secret::SecretString;

use crate::Proxies;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_RESPONSE: usize = 1 << 20;

/// The settings of calls.
#[derive(Clone)]
pub struct Settings {
    /// The timeout of the connection, including a proxy and TLS. `None` leaves it to `timeout`.
    pub connect_timeout: Option<Duration>,
    /// The timeout of a call, from its start to the last byte of the response. `None` sets no limit.
    pub timeout: Option<Duration>,
    /// The longest response body in bytes.
    pub max_response: usize,
    /// The proxies.
    pub proxies: Proxies,
    /// The trusted server certificates.
    pub trust: Trust,
    /// The client certificate, sent to servers that request one.
    pub client_certificate: Option<ClientCertificate>,
    /// The host name for SNI and for the check of the server's certificate, instead of the host of the URL.
    pub server_name: Option<String>,
    /// The Unix socket of all calls, whatever host their URLs contain.
    pub socket: Option<PathBuf>,
    /// The addresses to which connections are established.
    pub addresses: AllowedAddresses,
}

/// The addresses to which connections are established, checked after the host name is resolved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AllowedAddresses {
    /// Every address: the operator of the server has configured the host.
    #[default]
    All,
    /// No link-local or multicast address, and none of a metadata service of a cloud: a caller has configured the host.
    NoMetadata,
}

/// The trusted server certificates.
#[derive(Clone)]
pub enum Trust {
    /// Certificates of the system's CAs and of these.
    System(Vec<Authorities>),
    /// Certificates of these CAs only; at least one CA is required.
    Only(Vec<Authorities>),
    /// Any certificate. The connection is encrypted, but the server is not authenticated.
    Anything,
}

/// CA certificates in PEM format.
#[derive(Clone)]
pub enum Authorities {
    /// The certificates of a file.
    File(PathBuf),
    /// The certificates of all files of a directory.
    Directory(PathBuf),
    /// The certificates of a text.
    Text {
        /// The name for errors.
        name: String,
        /// The PEM text.
        pem: String,
    },
}

/// A certificate chain, leaf first, and its private key, in PEM format.
#[derive(Clone)]
pub enum ClientCertificate {
    /// Files, which are read when the [`crate::Outbound`] is created.
    Files {
        /// The file of the chain.
        chain: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// Texts.
    Text {
        /// The chain.
        chain: String,
        /// The key.
        key: SecretString,
    },
}

impl Default for Settings {
    /// A connect timeout of 10 seconds, a timeout of 30 seconds, 1 MiB of response, the system's CAs, no proxy.
    fn default() -> Self {
        Settings {
            connect_timeout: Some(CONNECT_TIMEOUT),
            timeout: Some(TIMEOUT),
            max_response: MAX_RESPONSE,
            proxies: Proxies::default(),
            trust: Trust::System(Vec::new()),
            client_certificate: None,
            server_name: None,
            socket: None,
            addresses: AllowedAddresses::All,
        }
    }
}
