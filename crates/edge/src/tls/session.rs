//! The properties of a completed TLS handshake, for the requests of the connection.

use keepfast_framework::tls_session::{ChainCheck, ClientChain, TlsSession, TlsVersion};
use rustls::{ProtocolVersion, ServerConnection};
use rustls_pki_types::CertificateDer;

/// The application protocols that listeners offer, the preferred one first.
pub(crate) const ALPN: [&str; 2] = ["h2", "http/1.1"];

/// The TLS session of a connection; `None` before the end of the handshake. `check` is the listener's check of client
/// certificates.
pub(crate) fn session(connection: &ServerConnection, check: ChainCheck) -> Option<TlsSession> {
    let version = match connection.protocol_version()? {
        ProtocolVersion::TLSv1_2 => TlsVersion::Tls12,
        ProtocolVersion::TLSv1_3 => TlsVersion::Tls13,
        _ => return None,
    };
    let alpn = connection.alpn_protocol();
    Some(TlsSession {
        version,
        cipher_suite: connection.negotiated_cipher_suite()?.suite().into(),
        alpn: ALPN.into_iter().find(|protocol| Some(protocol.as_bytes()) == alpn),
        server_name: connection.server_name().map(Into::into),
        client_chain: connection.peer_certificates().and_then(|chain| client_chain(chain, check)),
    })
}

fn client_chain(chain: &[CertificateDer<'_>], check: ChainCheck) -> Option<ClientChain> {
    let (leaf, intermediates) = chain.split_first()?;
    let intermediates = intermediates.iter().map(|certificate| certificate.as_ref().into()).collect();
    Some(ClientChain { leaf: leaf.as_ref().into(), intermediates, check })
}
