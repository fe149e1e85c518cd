//! The certificates of the cluster port: who this node is, and which certificates of other nodes it accepts.
//!
//! A certificate names a node by one URI, `keepfast:<cluster>:<node>:<incarnation>`. It is issued by an authority that
//! every unsealed node derives, lives in memory for a day, and is replaced by a handshake after half of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use keepfast_core::cluster::port::PortIdentity;
use keepfast_crypto::x509::{NodeAuthority, node_uri};
use keepfast_framework::clock::{Clock, Timestamp};
use keepfast_framework::{Error, Result};
use keepfast_storage::Origin;
use parking_lot::Mutex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, PeerIncompatible, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};

use super::certificates::{Certificates, MAX_NAMED};
use super::frames::ALPN;

/// The validity of a certificate from its creation.
const VALIDITY: Duration = Duration::from_secs(24 * 3600);
/// The time by which it is valid before its creation: clocks differ.
const BACKDATED: Duration = Duration::from_secs(3600);
/// The characters that need no escape in a part of the URI.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The identity of this node, and what it demands of other nodes.
pub(super) struct Identity {
    cluster_id: String,
    node: Origin,
    /// The newest authorities, the newest first.
    issuers: Vec<NodeAuthority>,
    trusted: Trusted,
    clock: Arc<dyn Clock>,
    current: Mutex<Option<Current>>,
}

/// The authorities of the cluster, for both ends of a connection.
struct Trusted {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    /// The names of the newest ones, which the other node gets to choose its certificate.
    names: Arc<[DistinguishedName]>,
    dialling: Arc<dyn ClientCertVerifier>,
}

/// The TLS settings with the present certificate.
#[derive(Clone)]
pub(super) struct Configs {
    pub(super) accepting: Arc<ServerConfig>,
    pub(super) dialling: Arc<ClientConfig>,
}

struct Current {
    configs: Configs,
    issued: Timestamp,
}

impl Identity {
    /// Derives the authorities and issues the first certificate. The seeds are erased with `identity`.
    ///
    /// # Errors
    /// When there is no authority, or the library fails.
    pub(super) fn new(identity: PortIdentity, clock: Arc<dyn Clock>) -> Result<Self> {
        let authorities: std::result::Result<Vec<_>, _> =
            identity.authorities.iter().map(NodeAuthority::derive).collect();
        let authorities = authorities.map_err(Error::internal)?;
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots.add(authority.certificate().to_vec().into()).map_err(Error::internal)?;
        }
        if authorities.is_empty() {
            return Err(Error::internal("the cluster has no authority"));
        }
        let issuers = authorities.into_iter().take(MAX_NAMED).collect();
        let trusted = Trusted::new(Arc::new(roots)).map_err(Error::internal)?;
        let (cluster_id, node) = (identity.cluster_id, identity.node);
        let created = Self { cluster_id, node, issuers, trusted, clock, current: Mutex::new(None) };
        created.configs()?;
        Ok(created)
    }

    /// The TLS settings, with a new certificate when the present one is older than half of its validity.
    ///
    /// # Errors
    /// When no certificate can be issued.
    pub(super) fn configs(&self) -> Result<Configs> {
        let now = self.clock.now();
        let mut current = self.current.lock();
        // The clock of the machine may also have been set back.
        let is_fresh = |issued: Timestamp| now < issued.after(VALIDITY / 2) && issued < now.after(BACKDATED / 2);
        if let Some(current) = current.as_ref().filter(|current| is_fresh(current.issued)) {
            return Ok(current.configs.clone());
        }
        let configs = self.issue(now)?;
        *current = Some(Current { configs: configs.clone(), issued: now });
        Ok(configs)
    }

    /// The node that a verified certificate names, if it is of this cluster.
    pub(super) fn origin(&self, certificate: &CertificateDer<'_>) -> Option<Origin> {
        let (cluster_id, origin) = parse(&node_uri(certificate)?)?;
        (cluster_id == self.cluster_id).then_some(origin)
    }

    /// Whether a certificate that was valid at `time` names this node and has one of the present authorities.
    pub(super) fn accepts(&self, certificate: &CertificateDer<'_>, origin: &Origin, time: UnixTime) -> bool {
        self.trusted.dialling.verify_client_cert(certificate, &[], time).is_ok()
            && self.origin(certificate).as_ref() == Some(origin)
    }

    /// The time of the clock.
    pub(super) fn now(&self) -> UnixTime {
        unix_time(self.clock.now())
    }

    fn issue(&self, now: Timestamp) -> Result<Configs> {
        let seconds = |time: Timestamp| u64::try_from(time.unix()).unwrap_or(0);
        let (begins, ends) = (seconds(now).saturating_sub(BACKDATED.as_secs()), seconds(now.after(VALIDITY)));
        let uri = uri(&self.cluster_id, &self.node);
        let mut certificates = Vec::with_capacity(self.issuers.len());
        // The trusted authorities have the same order.
        for (issuer, name) in self.issuers.iter().zip(self.trusted.roots.subjects()) {
            let issued = issuer.issue(&uri, begins, ends).map_err(Error::internal)?;
            let key = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(issued.key.expose().as_slice()));
            let key = CertifiedKey::new(vec![issued.certificate.into()], key.map_err(Error::internal)?);
            certificates.push((name, Arc::new(key)));
        }
        let time: Arc<dyn TimeProvider> = Arc::new(ClockTime(self.clock.clone()));
        self.trusted.configs(Arc::new(Certificates(certificates)), time).map_err(Error::internal)
    }
}

impl Trusted {
    fn new(roots: Arc<RootCertStore>) -> std::result::Result<Self, rustls::server::VerifierBuilderError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let dialling = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let names: Vec<DistinguishedName> = roots.subjects().into_iter().take(MAX_NAMED).collect();
        let dialling = dialling.clear_root_hint_subjects().add_root_hint_subjects(names.clone()).build()?;
        Ok(Self { provider, roots, names: names.into(), dialling })
    }

    /// Sessions are not resumed: each connection is verified.
    fn configs(
        &self,
        certificates: Arc<Certificates>,
        time: Arc<dyn TimeProvider>,
    ) -> std::result::Result<Configs, rustls::Error> {
        let mut accepting = ServerConfig::builder_with_details(self.provider.clone(), time.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(self.dialling.clone())
            .with_cert_resolver(certificates.clone());
        accepting.alpn_protocols = vec![ALPN.to_vec()];
        accepting.session_storage = Arc::new(NoServerSessionStorage {});
        accepting.send_tls13_tickets = 0;
        let (roots, names, provider) = (self.roots.clone(), self.names.clone(), self.provider.clone());
        let verifier = AcceptingNode { roots, names, provider };
        let mut dialling = ClientConfig::builder_with_details(self.provider.clone(), time)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(certificates);
        dialling.alpn_protocols = vec![ALPN.to_vec()];
        dialling.resumption = Resumption::disabled();
        dialling.enable_sni = false;
        Ok(Configs { accepting: Arc::new(accepting), dialling: Arc::new(dialling) })
    }
}

/// Verifies the chain of the node that accepts. Its name is compared after the handshake, with the member that was
/// dialled.
#[derive(Debug)]
struct AcceptingNode {
    roots: Arc<RootCertStore>,
    names: Arc<[DistinguishedName]>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AcceptingNode {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, &[], now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        Some(&self.names)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

struct ClockTime(Arc<dyn Clock>);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.now()))
    }
}

impl fmt::Debug for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClockTime")
    }
}

fn unix_time(time: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(time.since(Timestamp::EPOCH))
}

fn uri(cluster_id: &str, node: &Origin) -> String {
    let escaped = |text| utf8_percent_encode(text, ESCAPED);
    format!("keepfast:{}:{}:{}", escaped(cluster_id), escaped(&node.node), hex::encode(node.incarnation))
}

/// The cluster and the node of a URI in exactly the form of [`uri`].
fn parse(text: &str) -> Option<(String, Origin)> {
    let parts: Vec<&str> = text.split(':').collect();
    let ["keepfast", cluster_id, node, incarnation] = parts[..] else { return None };
    let decoded = |text| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
    let incarnation = hex::decode(incarnation).ok()?.try_into().ok()?;
    let (cluster_id, origin) = (decoded(cluster_id)?, Origin { node: decoded(node)?, incarnation });
    (uri(&cluster_id, &origin) == text).then_some((cluster_id, origin))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use keepfast_crypto::locked::Key256;
    use keepfast_framework::clock::TestClock;
    use proptest::prelude::*;

    use super::*;

    fn origin(node: &str) -> Origin {
        Origin { node: node.to_owned(), incarnation: [0xab; 16] }
    }

    #[test]
    fn a_uri_has_one_form_and_names_that_need_escapes_come_back() {
        let text = "keepfast:c1:a%3Ab%25%20%C3%A4:abababababababababababababababab";
        assert_eq!(uri("c1", &origin("a:b% ä")), text);
        assert_eq!(parse(text), Some(("c1".to_owned(), origin("a:b% ä"))));
        for other in [
            text.replace("%3A", "%3a"),
            text.replace("%3A", ":"),
            text.replace("c1", "%63%31"),
            text.replace("abab", "ABAB"),
            text.replace("keepfast", "spiffe"),
            text[..text.len() - 2].to_owned(),
            format!("{text}:"),
            text.replace("%C3%A4", "%C3"),
        ] {
            assert_eq!(parse(&other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn every_name_comes_back(cluster in ".{0,20}", node in ".{0,40}", incarnation: [u8; 16]) {
            let origin = Origin { node, incarnation };
            prop_assert_eq!(parse(&uri(&cluster, &origin)), Some((cluster, origin)));
        }
    }

    #[test]
    fn a_certificate_is_replaced_after_half_of_its_validity() {
        let clock = TestClock::default();
        let authorities = vec![Key256::new([1; 32])];
        let identity =
            PortIdentity { cluster_id: "c".to_owned(), node: origin("n"), cluster_addr: String::new(), authorities };
        let identity = Identity::new(identity, Arc::new(clock.clone())).unwrap();
        let accepting = || identity.configs().unwrap().accepting;
        let first = accepting();
        clock.advance(VALIDITY / 2 - Duration::from_secs(1));
        assert!(Arc::ptr_eq(&first, &accepting()));
        clock.advance(Duration::from_secs(1));
        assert!(!Arc::ptr_eq(&first, &accepting()));
    }
}
