//! The negotiated parameters of a TLS connection, and the certificates that its client presented, with the result of the
//! listener's check. Handlers read it in `cx.request().tls`.

use std::fmt;

/// The TLS session of a connection. The requests of the connection share one.
pub struct TlsSession {
    /// The protocol version.
    pub version: TlsVersion,
    /// The IANA number of the cipher suite, such as `0x1301` for `TLS_AES_128_GCM_SHA256`.
    pub cipher_suite: u16,
    /// The application protocol (ALPN, RFC 7301): `h2` or `http/1.1`; `None` when the client offered none.
    pub alpn: Option<&'static str>,
    /// The host name that the client requested (SNI, RFC 6066 section 3).
    pub server_name: Option<Box<str>>,
    /// The certificates that the client presented; `None` when it presented none.
    pub client_chain: Option<ClientChain>,
}

/// A version of TLS that listeners offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// The certificates that a client presented, as DER.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientChain {
    /// The client's own certificate. The handshake proved that the client holds its private key.
    pub leaf: Box<[u8]>,
    /// The other certificates, in the order of the client.
    pub intermediates: Vec<Box<[u8]>>,
    /// The checks of the listener, in addition to the key.
    pub check: ChainCheck,
}

/// The checks of a listener on a client's certificates, in addition to the possession of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainCheck {
    /// None: the auth method checks issuer, dates and purpose.
    KeyOnly,
    /// The chain leads to an authority of `tls_client_ca_file` and was valid at the handshake.
    Authorities,
}

impl ClientChain {
    /// The size of the certificates in bytes.
    pub fn size(&self) -> usize {
        self.leaf.len() + self.intermediates.iter().map(|certificate| certificate.len()).sum::<usize>()
    }
}

/// Omits the certificates: they name people, and an error or a log line must not repeat them.
impl fmt::Debug for ClientChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificates = 1 + self.intermediates.len();
        f.debug_struct("ClientChain")
            .field("certificates", &certificates)
            .field("check", &self.check)
            .finish_non_exhaustive()
    }
}

/// Omits the host name, which the client chooses.
impl fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSession")
            .field("version", &self.version)
            .field("cipher_suite", &format_args!("{:#06x}", self.cipher_suite))
            .field("alpn", &self.alpn)
            .field("client_chain", &self.client_chain)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_has_no_certificate_and_no_host_name() {
        let chain = ClientChain {
            leaf: (*b"leaf-canary").into(),
            intermediates: vec![(*b"issuer-canary").into()],
            check: ChainCheck::KeyOnly,
        };
        assert_eq!(chain.size(), 24);
        let session = TlsSession {
            version: TlsVersion::Tls13,
            cipher_suite: 0x1301,
            alpn: Some("h2"),
            server_name: Some("host-canary".into()),
            client_chain: Some(chain),
        };
        let text = format!("{session:?}");
        let bytes = format!("{:?}", b"leaf-canary");
        assert!(!text.contains("canary") && !text.contains(bytes.trim_matches(['[', ']'])), "{text}");
        assert!(text.contains("Tls13") && text.contains("0x1301") && text.contains("certificates: 2"), "{text}");
    }
}
