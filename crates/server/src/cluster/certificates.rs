//! The certificates of this node, one of each authority. A connection uses the newest one whose authority the other node
//! knows: for a minute after a rotation of the keyring, until all have applied it, the authority of the term before is
//! accepted. A member that was away longer receives the new one when it joins again (`core/src/cluster/join/rejoin.rs`).

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DistinguishedName, SignatureScheme};

/// The number of authorities, from the newest, that a node names to others and has certificates of: more than core
/// accepts at a time.
pub(super) const MAX_NAMED: usize = 16;

/// The certificates by the names of their authorities, the newest first.
#[derive(Debug)]
pub(super) struct Certificates(pub(super) Vec<(DistinguishedName, Arc<CertifiedKey>)>);

impl Certificates {
    /// The newest one whose authority is known; without any the newest.
    fn pick(&self, is_known: impl Fn(&[u8]) -> bool) -> Option<Arc<CertifiedKey>> {
        let known = self.0.iter().find(|(name, _)| is_known(name.as_ref()));
        known.or(self.0.first()).map(|(_, certificate)| certificate.clone())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let names = hello.certificate_authorities().unwrap_or_default();
        self.pick(|name| names.iter().any(|known| known.as_ref() == name))
    }
}

impl ResolvesClientCert for Certificates {
    fn resolve(&self, names: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.pick(|name| names.contains(&name))
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}
