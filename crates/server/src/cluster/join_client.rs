//! Calls the leader of a cluster that this node joins, on its API address.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use keepfast_core::cluster::join::client::{JoinClient, JoinError, JoinStep, JoinTarget, PemSource, SecretPemSource};
use keepfast_outbound::{Authorities, ClientCertificate, Outbound, Settings, Trust};
use serde::Deserialize;

/// How long a leader may take for a connection, and for a response: a change of the members needs a quorum.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(20);
/// The longest text of a refusal, in characters, that is logged or returned.
const MAX_TEXT: usize = 300;

/// Calls leaders. It has no connection between two calls: they are rare, and certificates are read again.
#[derive(Debug)]
pub(crate) struct HttpJoinClient;

#[async_trait]
impl JoinClient for HttpJoinClient {
    async fn send(&self, to: &JoinTarget, step: JoinStep, body: Vec<u8>) -> Result<Bytes, JoinError> {
        let request = request(&to.api_addr, step, body)?;
        let outbound = Outbound::new(&settings(to)?).map_err(|error| JoinError::Settings(error.to_string()))?;
        let response = outbound.call(request).await.map_err(|error| JoinError::Call(error.to_string()))?;
        let (status, body) = (response.status(), response.into_body());
        if status == StatusCode::OK { Ok(body) } else { Err(refusal(status, &body)) }
    }
}

fn request(address: &str, step: JoinStep, body: Vec<u8>) -> Result<Request<Bytes>, JoinError> {
    let url = format!("{}/v1/{}", address.trim_end_matches('/'), step.path());
    let uri: Uri = url.parse().map_err(|_| JoinError::Settings("leader_api_addr is no URL".to_owned()))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err(JoinError::Settings("leader_api_addr is no URL with https:// or http://".to_owned()));
    }
    let request = Request::builder().method(Method::PUT).uri(uri).header("Content-Type", "application/json");
    request.body(Bytes::from(body)).map_err(|error| JoinError::Settings(error.to_string()))
}

/// The connection to a leader. Proxies of the environment are not used: members reach each other directly.
fn settings(to: &JoinTarget) -> Result<Settings, JoinError> {
    let trust = match &to.ca {
        _ if to.any_certificate => Trust::Anything,
        None => Trust::System(Vec::new()),
        Some(PemSource::File(path)) => Trust::Only(vec![Authorities::File(path.clone())]),
        Some(PemSource::Text(pem)) => {
            Trust::Only(vec![Authorities::Text { name: "leader_ca_cert".to_owned(), pem: pem.clone() }])
        }
    };
    let client_certificate = match (&to.client_certificate, &to.client_key) {
        (None, None) => None,
        (Some(PemSource::File(chain)), Some(SecretPemSource::File(key))) => {
            Some(ClientCertificate::Files { chain: chain.clone(), key: key.clone() })
        }
        (Some(PemSource::Text(chain)), Some(SecretPemSource::Text(key))) => {
            Some(ClientCertificate::Text { chain: chain.clone(), key: key.clone() })
        }
        _ => return Err(JoinError::Settings("a client certificate and its key are set together".to_owned())),
    };
    Ok(Settings {
        connect_timeout: Some(CONNECT_TIMEOUT),
        timeout: Some(TIMEOUT),
        trust,
        client_certificate,
        server_name: to.tls_servername.clone(),
        ..Settings::default()
    })
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<String>,
}

/// The error of a response, which anything may have sent.
fn refusal(status: StatusCode, body: &[u8]) -> JoinError {
    let texts = serde_json::from_slice::<Errors>(body).map(|body| body.errors).unwrap_or_default();
    let is_plain = |c: &char| !c.is_control();
    let text: String = texts.join("; ").chars().filter(is_plain).take(MAX_TEXT).collect();
    JoinError::Refused { status: status.as_u16(), text }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use keepfast_crypto::secret::SecretString;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn target(api_addr: impl Into<String>) -> JoinTarget {
        JoinTarget { api_addr: api_addr.into(), ..JoinTarget::default() }
    }

    /// Sends a challenge to a server that responds with this. Returns the outcome and the request that it got.
    async fn exchange(status: &str, body: &str) -> (Result<Bytes, JoinError>, String) {
        let response = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut text = vec![0; 4096];
            let mut length = 0;
            while !text[..length].ends_with(b"{\"a\":1}") {
                length += stream.read(&mut text[length..]).await.unwrap();
            }
            stream.write_all(response.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&text[..length]).into_owned()
        });
        let outcome = HttpJoinClient.send(&target(address), JoinStep::Challenge, b"{\"a\":1}".to_vec()).await;
        (outcome, server.await.unwrap())
    }

    #[tokio::test]
    async fn a_request_goes_to_the_path_of_the_step() {
        let (outcome, sent) = exchange("200 OK", "{}").await;
        assert_eq!(&outcome.unwrap()[..], b"{}");
        assert!(sent.starts_with("PUT /v1/sys/storage/raft/bootstrap/challenge HTTP/1.1\r\n"), "{sent}");
    }

    #[tokio::test]
    async fn the_texts_of_a_refusal_are_kept_without_control_characters() {
        let (outcome, _) = exchange("409 Conflict", "{\"errors\":[\"one\\u001b[2J\",\"b\"]}").await;
        let Err(JoinError::Refused { status, text }) = outcome else { panic!("{outcome:?}") };
        assert_eq!((status, text.as_str()), (409, "one[2J; b"));
        let (outcome, _) = exchange("503 x", "html").await;
        assert!(matches!(outcome, Err(JoinError::Refused { status: 503, text }) if text.is_empty()));
    }

    #[tokio::test]
    async fn settings_that_cannot_be_used_are_named() {
        for (to, expected) in [
            (target("not a url"), "leader_api_addr is no URL"),
            (target("ftp://host"), "leader_api_addr is no URL with https:// or http://"),
            (target("/x"), "leader_api_addr is no URL with https:// or http://"),
            (
                JoinTarget { ca: Some(PemSource::Text("x".to_owned())), ..target("https://127.0.0.1:1") },
                "no CA certificate found in the file, text or directory given",
            ),
            (
                JoinTarget {
                    client_key: Some(SecretPemSource::Text(SecretString::new("k".to_owned()))),
                    ..target("https://127.0.0.1:1")
                },
                "a client certificate and its key are set together",
            ),
        ] {
            let refused = HttpJoinClient.send(&to, JoinStep::Answer, Vec::new()).await.unwrap_err();
            assert_eq!(refused.to_string(), expected);
        }
    }
}
