//! How calls are made: bounds, trust, proxies.

use std::path::PathBuf;
use std::time::Duration;

use keepfast_crypto::secret::SecretString;

use crate::Proxies;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_RESPONSE: usize = 1 << 20;

/// How calls are made.
#[derive(Clone)]
pub struct Settings {
    /// How long a connection may take to open, with those to proxies and TLS. `None` is as long as the whole call.
    pub connect_timeout: Option<Duration>,
    /// How long a call may take, from its start to the last byte of the response. `None` sets no limit.
    pub timeout: Option<Duration>,
    /// The longest body of a response in bytes.
    pub max_response: usize,
    /// The proxies in use.
    pub proxies: Proxies,
    /// Which certificates of servers are trusted.
    pub trust: Trust,
    /// The certificate that is presented to servers that ask for one.
    pub client_certificate: Option<ClientCertificate>,
    /// The host name that is sent in TLS and that the server's certificate must have, in place of the host of the URL.
    pub server_name: Option<String>,
    /// A Unix socket that all calls go to, whatever host their URL names.
    pub socket: Option<PathBuf>,
}

/// Which certificates of servers are trusted.
#[derive(Clone)]
pub enum Trust {
    /// Those of the system's authorities, and of these.
    System(Vec<Authorities>),
    /// Those of these authorities only; at least one certificate is required.
    Only(Vec<Authorities>),
    /// Any. The connection is then encrypted, and nobody knows to whom.
    Anything,
}

/// Certificates of authorities, as PEM.
#[derive(Clone)]
pub enum Authorities {
    /// The certificates of a file.
    File(PathBuf),
    /// Those of all files of a directory.
    Directory(PathBuf),
    /// Those of a text.
    Text {
        /// What errors call it.
        name: String,
        /// The text.
        pem: String,
    },
}

/// A certificate chain, leaf first, and its private key, as PEM.
#[derive(Clone)]
pub enum ClientCertificate {
    /// In files, which are read when the [`crate::Outbound`] is made.
    Files {
        /// The file of the chain.
        chain: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// As text.
    Text {
        /// The chain.
        chain: String,
        /// The key.
        key: SecretString,
    },
}

impl Default for Settings {
    /// 10 seconds to connect, 30 seconds and 1 MiB for a response, the system's authorities, no proxy.
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
        }
    }
}
