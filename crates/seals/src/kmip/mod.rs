//! `seal "kmip"`: an AES key of a server that speaks KMIP 1.4, with AES-GCM.
//!
//! Sources: <https://openbao.org/docs/configuration/seal/kmip>, KMIP Specification version 1.4.

mod ttlv;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::random;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::seal::{Seal, SealError, WrappedKey};
use keepfast_outbound::{Authorities, ClientCertificate, Settings, Trust, tls_config};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::call::{denied, misconfigured, unreachable_because, wrong_key};
use crate::stanza::{Key, SealConfigError, Stanza};
use ttlv::{HEADER, Item, Tag, Writer, length_after};

/// The keys of the stanza.
pub(crate) const KEYS: &[Key] = &[
    ("endpoint", &["VAULT_KMIP_ENDPOINT"]),
    ("kms_key_id", &["VAULT_KMIP_WRAPPER_KEY_ID", "VAULT_KMIP_SEAL_KEY_ID"]),
    ("client_cert", &["VAULT_KMIP_CLIENT_CERT"]),
    ("client_key", &["VAULT_KMIP_CLIENT_KEY"]),
    ("ca_cert", &["VAULT_KMIP_CA_CERT"]),
    ("server_name", &["VAULT_KMIP_SERVER_NAME"]),
    ("encrypt_alg", &["VAULT_KMIP_ENCRYPT_ALG"]),
    ("tls12_ciphers", &["VAULT_KMIP_TLS12_CIPHERS"]),
];

const MECHANISM: &str = "AES_GCM";
/// The port where the endpoint has none.
const PORT: u16 = 5696;
const NONCE: usize = 12;
const TAG: usize = 16;
/// The longest id of a key.
const MAX_ID: usize = 512;

const BATCH_COUNT: Tag = 0x42_000d;
const BATCH_ITEM: Tag = 0x42_000f;
const BLOCK_CIPHER_MODE: Tag = 0x42_0011;
const CRYPTOGRAPHIC_ALGORITHM: Tag = 0x42_0028;
const CRYPTOGRAPHIC_PARAMETERS: Tag = 0x42_002b;
const NONCE_OF_IV: Tag = 0x42_003d;
const OPERATION: Tag = 0x42_005c;
const PROTOCOL_VERSION: Tag = 0x42_0069;
const PROTOCOL_VERSION_MAJOR: Tag = 0x42_006a;
const PROTOCOL_VERSION_MINOR: Tag = 0x42_006b;
const REQUEST_HEADER: Tag = 0x42_0077;
const REQUEST_MESSAGE: Tag = 0x42_0078;
const REQUEST_PAYLOAD: Tag = 0x42_0079;
const RESPONSE_MESSAGE: Tag = 0x42_007b;
const RESPONSE_PAYLOAD: Tag = 0x42_007c;
const RESULT_REASON: Tag = 0x42_007e;
const RESULT_STATUS: Tag = 0x42_007f;
const UNIQUE_IDENTIFIER: Tag = 0x42_0094;
const DATA: Tag = 0x42_00c2;
const TAG_LENGTH: Tag = 0x42_00ce;
const AUTHENTICATION_TAG: Tag = 0x42_00ff;

const ENCRYPT: u32 = 0x1f;
const DECRYPT: u32 = 0x20;
const GCM: u32 = 9;
const AES: u32 = 3;

/// The seal. Each call has a connection of its own.
struct Kmip {
    tls: TlsConnector,
    host: String,
    port: u16,
    server_name: ServerName<'static>,
    key_id: String,
    timeout: Duration,
}

/// Creates the seal of a stanza.
pub(crate) fn create(stanza: &Stanza<'_>) -> Result<Arc<dyn Seal>, SealConfigError> {
    let (host, port) = host_and_port(stanza, &stanza.required("endpoint")?)?;
    let key_id = stanza.required("kms_key_id")?;
    if key_id.len() > MAX_ID {
        return Err(stanza.refused(format!("kms_key_id is longer than {MAX_ID} bytes")));
    }
    if stanza.text("encrypt_alg").is_some_and(|algorithm| algorithm != MECHANISM) {
        return Err(stanza.refused("encrypt_alg must be AES_GCM"));
    }
    if stanza.text("tls12_ciphers").is_some() {
        stanza.warn("tls12_ciphers has no effect: all suites of TLS 1.2 with ECDHE and an AEAD are offered");
    }
    let (chain, key) = (stanza.required("client_cert")?.into(), stanza.required("client_key")?.into());
    let trust = match stanza.text("ca_cert") {
        Some(file) => Trust::Only(vec![Authorities::File(file.into())]),
        None => Trust::System(Vec::new()),
    };
    let client_certificate = Some(ClientCertificate::Files { chain, key });
    let settings = Settings { trust, client_certificate, ..Settings::default() };
    let tls = tls_config(&settings).map_err(|error| stanza.refused(error.to_string()))?;
    let server_name = stanza.text("server_name").unwrap_or_else(|| host.clone());
    let server_name =
        ServerName::try_from(server_name).map_err(|_| stanza.refused("server_name is not a host name"))?;
    let (tls, timeout) = (TlsConnector::from(Arc::new(tls)), stanza.timeout());
    Ok(Arc::new(Kmip { tls, host, port, server_name, key_id, timeout }))
}

fn host_and_port(stanza: &Stanza<'_>, endpoint: &str) -> Result<(String, u16), SealConfigError> {
    let authority: Result<http::uri::Authority, _> = endpoint.parse();
    let authority =
        authority.ok().filter(|authority| !authority.as_str().contains('@') && !authority.host().is_empty());
    let authority = authority.ok_or_else(|| stanza.refused("endpoint must be HOST:PORT"))?;
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    Ok((host, authority.port_u16().unwrap_or(PORT)))
}

/// The fields of a payload that are read.
struct Reply {
    data: SecretBytes,
    tag: Option<Bytes>,
}

impl Kmip {
    /// Runs an operation; the payload has the id of the key and the parameters of AES-GCM, then `more`.
    async fn operate(&self, operation: u32, key_id: &str, more: impl FnOnce(&mut Writer)) -> Result<Reply, SealError> {
        let request = request(operation, key_id, more);
        let exchange = tokio::time::timeout(self.timeout, self.exchange(request)).await;
        let response =
            exchange.map_err(|_| unreachable_because(format!("no response within {:?}", self.timeout)))??;
        read_response(response.expose(), operation)
    }

    async fn exchange(&self, request: SecretBytes) -> Result<SecretBytes, SealError> {
        let failed = |what: &str| {
            let place = format!("{}:{}", self.host, self.port);
            let what = what.to_owned();
            move |error: std::io::Error| unreachable_because(format!("{place}: {what}: {error}"))
        };
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed("connect"))?;
        let mut stream = self.tls.connect(self.server_name.clone(), stream).await.map_err(failed("tls"))?;
        stream.write_all(request.expose()).await.map_err(failed("write"))?;
        stream.flush().await.map_err(failed("write"))?;
        let mut header = [0; HEADER];
        stream.read_exact(&mut header).await.map_err(failed("read"))?;
        let length =
            length_after(header).ok_or_else(|| unreachable_because("the response is not KMIP, or too long"))?;
        let mut response = SecretBytes::new(vec![0; HEADER + length]);
        response.expose_mut()[..HEADER].copy_from_slice(&header);
        stream.read_exact(&mut response.expose_mut()[HEADER..]).await.map_err(failed("read"))?;
        Ok(response)
    }
}

fn request(operation: u32, key_id: &str, more: impl FnOnce(&mut Writer)) -> SecretBytes {
    let mut writer = Writer::new();
    writer.structure(REQUEST_MESSAGE, |message| {
        message.structure(REQUEST_HEADER, |header| {
            header.structure(PROTOCOL_VERSION, |version| {
                version.integer(PROTOCOL_VERSION_MAJOR, 1);
                version.integer(PROTOCOL_VERSION_MINOR, 4);
            });
            header.integer(BATCH_COUNT, 1);
        });
        message.structure(BATCH_ITEM, |item| {
            item.enumeration(OPERATION, operation);
            item.structure(REQUEST_PAYLOAD, |payload| {
                payload.text(UNIQUE_IDENTIFIER, key_id);
                payload.structure(CRYPTOGRAPHIC_PARAMETERS, |parameters| {
                    parameters.enumeration(BLOCK_CIPHER_MODE, GCM);
                    parameters.enumeration(CRYPTOGRAPHIC_ALGORITHM, AES);
                    parameters.integer(TAG_LENGTH, TAG as u32);
                });
                more(payload);
            });
        });
    });
    writer.finish()
}

fn read_response(bytes: &[u8], operation: u32) -> Result<Reply, SealError> {
    let unknown = || unreachable_because("the response has an unknown form");
    let (message, _) = Item::read(bytes).filter(|(item, _)| item.tag == RESPONSE_MESSAGE).ok_or_else(unknown)?;
    let item = message.child(BATCH_ITEM).ok_or_else(unknown)?;
    let status = item.child(RESULT_STATUS).and_then(Item::number).ok_or_else(unknown)?;
    if status != 0 {
        return Err(refusal(item.child(RESULT_REASON).and_then(Item::number).unwrap_or(0), operation));
    }
    let payload = item.child(RESPONSE_PAYLOAD).ok_or_else(unknown)?;
    let data = payload.child(DATA).and_then(Item::bytes).ok_or_else(unknown)?;
    let tag = payload.child(AUTHENTICATION_TAG).and_then(Item::bytes).map(Bytes::copy_from_slice);
    Ok(Reply { data: SecretBytes::new(data.to_vec()), tag })
}

/// The error of a result reason (section 9.1.3.2.29). The message of the server is not shown.
fn refusal(reason: u32, operation: u32) -> SealError {
    match reason {
        0x01 => wrong_key("item not found"),
        0x03 => denied("authentication not successful"),
        0x05 => misconfigured("operation not supported"),
        // Only the stored bytes differ from the request that wrapped.
        0x04 | 0x06 | 0x07 if operation == DECRYPT => wrong_key(format!("result reason {reason:#x}")),
        0x04 | 0x06 | 0x07 => misconfigured(format!("the server refuses the request: result reason {reason:#x}")),
        0x08 => misconfigured("feature not supported"),
        0x0a => wrong_key("cryptographic failure"),
        0x0b => wrong_key("illegal operation"),
        0x0c => denied("permission denied, or the key is not active"),
        0x0d => wrong_key("object archived"),
        _ => unreachable_because(format!("result reason {reason:#x}")),
    }
}

#[async_trait]
impl Seal for Kmip {
    fn kind(&self) -> &'static str {
        "kmip"
    }

    fn description(&self) -> Vec<(&'static str, String)> {
        vec![("endpoint", format!("{}:{}", self.host, self.port)), ("kms_key_id", self.key_id.clone())]
    }

    async fn wrap(&self, key: &Key256) -> Result<WrappedKey, SealError> {
        let iv = random::bytes::<NONCE>();
        let reply = self.operate(ENCRYPT, &self.key_id, |payload| {
            payload.bytes(DATA, key.expose());
            payload.bytes(NONCE_OF_IV, &iv);
        });
        let Reply { data, tag } = reply.await?;
        let tag = tag.filter(|tag| tag.len() == TAG);
        let tag = tag.ok_or_else(|| misconfigured("the server returns no tag: it does not do AES-GCM of KMIP 1.4"))?;
        if data.expose().len() != key.expose().len() || data.expose() == key.expose() {
            return Err(unreachable_because("the response is no ciphertext of AES-GCM"));
        }
        let (key_id, blob) = (self.key_id.clone(), Bytes::copy_from_slice(data.expose()));
        let iv = Some(Bytes::copy_from_slice(&iv));
        Ok(WrappedKey { key_id, mechanism: MECHANISM.to_owned(), blob, iv, tag: Some(tag) })
    }

    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<Key256, SealError> {
        let WrappedKey { key_id, mechanism, blob, iv, tag } = wrapped;
        let (Some(iv), Some(tag)) = (iv, tag) else { return Err(wrong_key("the wrapped key has no nonce or no tag")) };
        let is_ours = mechanism == MECHANISM && iv.len() == NONCE && tag.len() == TAG && blob.len() == 32;
        if !is_ours || key_id.len() > MAX_ID {
            return Err(wrong_key("the wrapped key has an unknown form"));
        }
        let reply = self.operate(DECRYPT, key_id, |payload| {
            payload.bytes(DATA, blob);
            payload.bytes(NONCE_OF_IV, iv);
            payload.bytes(AUTHENTICATION_TAG, tag);
        });
        let Reply { data, .. } = reply.await?;
        Key256::from_slice(data.expose()).ok_or_else(|| wrong_key("the unwrapped key does not have 32 bytes"))
    }

    async fn current_key(&self) -> Result<Option<String>, SealError> {
        Ok(Some(self.key_id.clone()))
    }
}

#[cfg(test)]
#[path = "kmip_tests.rs"]
mod tests;
