//! The seal against a stand-in that speaks TLS and TTLV. `tests/it/kmip.rs` uses a server of its own.

use std::collections::HashMap;

use keepfast_crypto::keys::symmetric::{Cipher, SymmetricKey};
use keepfast_framework::seal::SealErrorClass;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::suite::{build, build_within, seal_suite};

/// A CA, a certificate of the server and one of the client, in files.
struct Certificates {
    directory: tempfile::TempDir,
    server: ServerConfig,
}

fn certificates() -> Certificates {
    let directory = tempfile::tempdir().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertifiedIssuer::self_signed(parameters, key).unwrap();
    let issue = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (parameters.signed_by(&key, &ca).unwrap(), key)
    };
    let ((server, server_key), (client, client_key)) = (issue(), issue());
    for (name, text) in [("ca.pem", ca.pem()), ("client.pem", client.pem()), ("client.key", client_key.serialize_pem())]
    {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let server = builder.with_client_cert_verifier(verifier).with_single_cert(vec![server.der().clone()], key).unwrap();
    Certificates { directory, server }
}

/// A server of keys by their id.
struct Server {
    keys: HashMap<String, SymmetricKey>,
    /// The nonce of each tag: the keys of the library choose their own nonces, and bind that of the caller.
    nonces: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    /// Responds with this result reason.
    refuses: Mutex<Option<u32>>,
    /// Responds with these bytes.
    raw: Mutex<Option<Vec<u8>>>,
}

impl Server {
    fn respond(&self, bytes: &[u8]) -> Vec<u8> {
        if let Some(raw) = self.raw.lock().clone() {
            return raw;
        }
        let (message, _) = Item::read(bytes).unwrap();
        let item = message.child(BATCH_ITEM).unwrap();
        let operation = item.child(OPERATION).and_then(Item::number).unwrap();
        let payload = item.child(REQUEST_PAYLOAD).unwrap();
        let id = payload.child(UNIQUE_IDENTIFIER).and_then(Item::text).unwrap();
        let field = |tag| payload.child(tag).and_then(Item::bytes).unwrap_or_default().to_vec();
        let result = match (*self.refuses.lock(), self.keys.get(id)) {
            (Some(reason), _) => Err(reason),
            (None, None) => Err(1),
            (None, Some(key)) if operation == ENCRYPT => {
                let sealed = key.seal(&field(NONCE_OF_IV), &field(DATA)).unwrap();
                let (nonce_and_text, tag) = sealed.split_at(sealed.len() - TAG);
                self.nonces.lock().insert(tag.to_vec(), nonce_and_text[..NONCE].to_vec());
                Ok((nonce_and_text[NONCE..].to_vec(), Some(tag.to_vec())))
            }
            (None, Some(key)) => {
                let nonce = self.nonces.lock().get(&field(AUTHENTICATION_TAG)).cloned().unwrap_or(vec![0; NONCE]);
                let sealed = [nonce, field(DATA), field(AUTHENTICATION_TAG)].concat();
                key.open(&field(NONCE_OF_IV), &sealed).map(|opened| (opened, None)).map_err(|_| 0x0a)
            }
        };
        let mut writer = Writer::new();
        writer.structure(RESPONSE_MESSAGE, |message| {
            message.structure(BATCH_ITEM, |item| match result {
                Err(reason) => {
                    item.enumeration(RESULT_STATUS, 1);
                    item.enumeration(RESULT_REASON, reason);
                }
                Ok((data, tag)) => {
                    item.enumeration(RESULT_STATUS, 0);
                    item.structure(RESPONSE_PAYLOAD, |payload| {
                        payload.bytes(DATA, &data);
                        tag.iter().for_each(|tag| payload.bytes(AUTHENTICATION_TAG, tag));
                    });
                }
            });
        });
        writer.finish().expose().clone()
    }
}

struct Case {
    server: Arc<Server>,
    certificates: Certificates,
    endpoint: String,
}

async fn case() -> Case {
    let certificates = certificates();
    let acceptor = TlsAcceptor::from(Arc::new(certificates.server.clone()));
    let key = || SymmetricKey::new(Cipher::Aes256Gcm, random::key().expose()).unwrap();
    let keys = HashMap::from([("one".to_owned(), key()), ("two".to_owned(), key())]);
    let server = Arc::new(Server { keys, refuses: Mutex::default(), raw: Mutex::default(), nonces: Mutex::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let serving = server.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, serving) = (acceptor.clone(), serving.clone());
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.ok()?;
                let mut header = [0; HEADER];
                stream.read_exact(&mut header).await.ok()?;
                let mut message = header.to_vec();
                message.resize(HEADER + length_after(header)?, 0);
                stream.read_exact(&mut message[HEADER..]).await.ok()?;
                stream.write_all(&serving.respond(&message)).await.ok()?;
                stream.shutdown().await.ok()
            });
        }
    });
    Case { server, certificates, endpoint }
}

impl Case {
    fn seal(&self, key_id: &str) -> Arc<dyn Seal> {
        let file = |name: &str| self.certificates.directory.path().join(name).display().to_string();
        let (ca, chain, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
        let keys = [
            ("endpoint", self.endpoint.as_str()),
            ("kms_key_id", key_id),
            ("server_name", "localhost"),
            ("ca_cert", &ca),
            ("client_cert", &chain),
            ("client_key", &key),
        ];
        build_within(Duration::from_secs(5), "kmip", &keys, &[]).unwrap()
    }
}

async fn kept() -> Arc<dyn Seal> {
    case().await.seal("one")
}

seal_suite!(cases, kept, kept);

#[tokio::test]
async fn another_key_of_the_server_is_unwrapped_by_its_id() {
    let case = case().await;
    let key = random::key();
    let old = case.seal("one").wrap(&key).await.unwrap();
    let new = case.seal("two");
    assert_eq!(new.unwrap(&old).await.unwrap().expose(), key.expose());
    let mixed = WrappedKey { key_id: "two".to_owned(), ..old.clone() };
    assert_eq!(new.unwrap(&mixed).await.err().unwrap().class, SealErrorClass::WrongKey);
    for (iv, tag) in
        [(None, old.tag.clone()), (old.iv.clone(), None), (Some(Bytes::from_static(b"short")), old.tag.clone())]
    {
        let damaged = WrappedKey { iv, tag, ..old.clone() };
        assert_eq!(new.unwrap(&damaged).await.err().unwrap().class, SealErrorClass::WrongKey);
    }
}

#[tokio::test]
async fn failures_of_the_server_have_their_class() {
    let case = case().await;
    let seal = case.seal("one");
    let wrapped = seal.wrap(&random::key()).await.unwrap();
    for (reason, class) in [
        (0x01, SealErrorClass::WrongKey),
        (0x03, SealErrorClass::Denied),
        (0x0c, SealErrorClass::Denied),
        (0x0a, SealErrorClass::WrongKey),
        (0x100, SealErrorClass::Unreachable),
    ] {
        *case.server.refuses.lock() = Some(reason);
        assert_eq!(seal.unwrap(&wrapped).await.err().unwrap().class, class, "{reason:#x}");
        assert_eq!(seal.wrap(&random::key()).await.err().unwrap().class, class, "{reason:#x}");
    }
    for (reason, unwrap) in [
        (0x04, SealErrorClass::WrongKey),
        (0x06, SealErrorClass::WrongKey),
        (0x07, SealErrorClass::WrongKey),
        (0x05, SealErrorClass::Misconfigured),
        (0x08, SealErrorClass::Misconfigured),
    ] {
        *case.server.refuses.lock() = Some(reason);
        assert_eq!(seal.unwrap(&wrapped).await.err().unwrap().class, unwrap, "{reason:#x}");
        assert_eq!(seal.wrap(&random::key()).await.err().unwrap().class, SealErrorClass::Misconfigured, "{reason:#x}");
    }
    for raw in [&b""[..], b"HTTP/1.1 400", &[0x42, 0, 0x7b, 1, 0xff, 0xff, 0xff, 0xff], &[0x42, 0, 0x7b, 1, 0, 0, 0, 0]]
    {
        *case.server.raw.lock() = Some(raw.to_vec());
        assert_eq!(seal.unwrap(&wrapped).await.err().unwrap().class, SealErrorClass::Unreachable, "{raw:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_trusted_gets_no_key() {
    let (one, other) = (case().await, case().await);
    let mixed = Case { endpoint: other.endpoint.clone(), ..one };
    let error = mixed.seal("one").wrap(&random::key()).await.err().unwrap();
    assert!(error.class == SealErrorClass::Unreachable && error.cause.contains("tls"), "{error}");
}

#[test]
fn the_stanza_needs_endpoint_key_and_certificate() {
    let all = [("endpoint", "h:1"), ("kms_key_id", "k"), ("client_cert", "/none"), ("client_key", "/none")];
    for missing in 0..all.len() {
        let keys: Vec<_> = all.iter().copied().filter(|(key, _)| *key != all[missing].0).collect();
        let error = build("kmip", &keys, &[]).err().unwrap().to_string();
        assert!(error.contains(all[missing].0), "{error}");
    }
    for change in [("endpoint", "https://h:1/x"), ("encrypt_alg", "RSA_OAEP_SHA256")] {
        let mut keys: Vec<_> = all.iter().copied().filter(|(key, _)| *key != change.0).collect();
        keys.push(change);
        assert!(build("kmip", &keys, &[]).err().unwrap().to_string().contains(change.0));
    }
}
