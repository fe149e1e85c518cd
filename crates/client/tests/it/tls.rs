//! The certificates that a client trusts and presents.

use keepfast_client::{Client, Config, Error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::authority::Authority;

async fn presented(address: &str, set: impl FnOnce(&mut Config)) -> Result<u64, Error> {
    let mut config = Config::new(address).unwrap();
    config.max_retries = 0;
    set(&mut config);
    let secret = Client::new(config)?.read("a").await?.unwrap();
    Ok(secret.data_field("certificates").unwrap().as_u64().unwrap())
}

#[tokio::test]
async fn only_the_configured_ca_is_trusted() {
    let authority = Authority::new("127.0.0.1");
    let address = authority.serve().await;
    assert_eq!(presented(&address, |config| config.ca_cert = Some(authority.file("ca.pem"))).await.unwrap(), 0);
    let other = Authority::new("127.0.0.1");
    for set in [None, Some(other.file("ca.pem"))] {
        let error = presented(&address, |config| config.ca_cert = set).await.unwrap_err();
        assert!(error.to_string().contains("give its CA with -ca-cert or VAULT_CACERT"), "{error}");
    }
}

#[tokio::test]
async fn a_ca_can_be_given_as_pem_text() {
    let authority = Authority::new("127.0.0.1");
    let address = authority.serve().await;
    let pem = std::fs::read_to_string(authority.file("ca.pem")).unwrap();
    assert_eq!(presented(&address, |config| config.ca_pem = Some(pem)).await.unwrap(), 0);
    for text in ["", "no PEM", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
        let error = presented(&address, |config| config.ca_pem = Some(text.to_owned())).await.unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{text}: {error}");
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused_with_its_date() {
    let authority = Authority::with_end("127.0.0.1", 2020);
    let address = authority.serve().await;
    let error = presented(&address, |config| config.ca_cert = Some(authority.file("ca.pem"))).await.unwrap_err();
    assert!(error.to_string().contains("it expired on 2020-01-01T00:00:00Z"), "{error}");
}

#[tokio::test]
async fn a_missing_client_certificate_is_named_in_the_error() {
    let authority = Authority::new("127.0.0.1");
    let address = authority.serve_to(true).await;
    let error = presented(&address, |config| config.ca_cert = Some(authority.file("ca.pem"))).await.unwrap_err();
    assert!(error.to_string().contains("VAULT_CLIENT_CERT"), "{error}");
}

/// A server that speaks plain HTTP, with an `https://` address.
async fn serve_plainly() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 400 x\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    address
}

#[tokio::test]
async fn a_wrong_scheme_is_named_in_the_error() {
    let authority = Authority::new("127.0.0.1");
    let address = authority.serve().await;
    let error = presented(&address.replace("https", "http"), |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("https://") || error.to_string().contains("closed"), "{error}");
    let error = presented(&serve_plainly().await, |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("server gave HTTP response to HTTPS client"), "{error}");
}

#[tokio::test]
async fn a_ca_can_be_given_as_a_directory() {
    let authority = Authority::new("127.0.0.1");
    let address = authority.serve().await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(authority.file("ca.pem"), directory.path().join("ca.pem")).unwrap();
    assert_eq!(presented(&address, |config| config.ca_path = Some(directory.path().to_owned())).await.unwrap(), 0);
}

#[tokio::test]
async fn the_certificate_must_match_the_host_or_the_configured_name() {
    let authority = Authority::new("vault.example");
    let address = authority.serve().await;
    let trust = |config: &mut Config| config.ca_cert = Some(authority.file("ca.pem"));
    let error = presented(&address, trust).await.unwrap_err().to_string();
    assert!(error.contains("it is valid for vault.example, not for 127.0.0.1"), "{error}");
    let named = presented(&address, |config| {
        trust(config);
        config.server_name = Some("vault.example".to_owned());
    });
    assert_eq!(named.await.unwrap(), 0);
}

#[tokio::test]
async fn verification_can_be_switched_off() {
    let authority = Authority::new("elsewhere.example");
    let address = authority.serve().await;
    assert_eq!(presented(&address, |config| config.skip_verify = true).await.unwrap(), 0);
}

#[tokio::test]
async fn a_client_certificate_is_presented() {
    let authority = Authority::new("127.0.0.1");
    let address = authority.serve().await;
    let trust = |config: &mut Config| config.ca_cert = Some(authority.file("ca.pem"));
    let with_certificate = presented(&address, |config| {
        trust(config);
        config.client_cert = Some(authority.file("client.pem"));
        config.client_key = Some(authority.file("client.key"));
    });
    assert_eq!(with_certificate.await.unwrap(), 1);
    let half = presented(&address, |config| config.client_cert = Some(authority.file("client.pem")));
    assert!(matches!(half.await.unwrap_err(), Error::Config(_)));
}
