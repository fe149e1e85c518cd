//! Trusted servers and the client certificate.

use keepfast_crypto::secret::SecretString;
use keepfast_outbound::{Authorities, ClientCertificate, Failure, Outbound, Settings, Trust};

use crate::authority::Authority;
use crate::get;

fn trusting(trust: Trust) -> Settings {
    Settings { trust, ..Settings::default() }
}

fn text_of(authority: &Authority, file: &str) -> String {
    std::fs::read_to_string(authority.file(file)).unwrap()
}

/// The number of client certificates that a server of this CA receives, with these settings.
async fn presented(authority: &Authority, settings: Settings) -> u64 {
    let trust = Trust::Only(vec![Authorities::File(authority.file("ca.pem"))]);
    let (_, body) = get(&Settings { trust, ..settings }, &authority.serve().await).await.unwrap();
    body.chars().filter_map(|c| c.to_digit(10)).map(u64::from).sum()
}

#[tokio::test]
async fn only_servers_of_the_configured_cas_are_trusted() {
    let (ours, others) = (Authority::new("127.0.0.1"), Authority::new("127.0.0.1"));
    let url = ours.serve().await;
    let file = |authority: &Authority| Authorities::File(authority.file("ca.pem"));
    let text = Authorities::Text { name: "ca".to_owned(), pem: text_of(&ours, "ca.pem") };
    for (trust, is_trusted) in [
        (Trust::Only(vec![file(&ours)]), true),
        (Trust::Only(vec![file(&others), text]), true),
        (Trust::System(vec![file(&ours)]), true),
        (Trust::Anything, true),
        (Trust::Only(vec![file(&others)]), false),
        (Trust::System(vec![file(&others)]), false),
        (Trust::System(Vec::new()), false),
    ] {
        match get(&trusting(trust), &url).await {
            Ok(response) => assert!(is_trusted, "{response:?}"),
            Err(error) => assert!(!is_trusted && matches!(error.failure, Failure::Tls(_)), "{error:?}"),
        }
    }
}

#[tokio::test]
async fn cas_without_a_certificate_are_an_error() {
    let text = |pem: &str| Authorities::Text { name: "setting ca_pem".to_owned(), pem: pem.to_owned() };
    let broken = "-----BEGIN CERTIFICATE-----\nhidden\n-----END CERTIFICATE-----\n";
    for (trust, cause) in [
        (Trust::Only(Vec::new()), "no CA certificate"),
        (Trust::Only(vec![text("hidden")]), "no CA certificate"),
        (Trust::Only(vec![text(broken)]), "setting ca_pem"),
        (Trust::System(vec![text(broken)]), "setting ca_pem"),
        (Trust::System(vec![Authorities::File("/none/ca.pem".into())]), "/none/ca.pem"),
    ] {
        let error = Outbound::new(&trusting(trust)).err().unwrap().to_string();
        assert!(error.contains(cause) && !error.contains("hidden"), "{error}");
    }
}

#[tokio::test]
async fn a_client_certificate_is_presented_from_files_and_from_text() {
    let authority = Authority::new("127.0.0.1");
    let files = ClientCertificate::Files { chain: authority.file("client.pem"), key: authority.file("client.key") };
    let key = SecretString::new(text_of(&authority, "client.key"));
    let text = ClientCertificate::Text { chain: text_of(&authority, "client.pem"), key };
    assert_eq!(presented(&authority, Settings::default()).await, 0);
    for certificate in [files, text] {
        let settings = Settings { client_certificate: Some(certificate), ..Settings::default() };
        assert_eq!(presented(&authority, settings).await, 1);
    }
}

#[tokio::test]
async fn an_invalid_client_key_is_an_error_without_its_text() {
    let authority = Authority::new("127.0.0.1");
    let other = text_of(&Authority::new("127.0.0.1"), "client.key");
    for key in ["hidden", "-----BEGIN PRIVATE KEY-----\nhidden!\n-----END PRIVATE KEY-----\n", &other] {
        let chain = text_of(&authority, "client.pem");
        let certificate = ClientCertificate::Text { chain, key: SecretString::new(key.to_owned()) };
        let settings = Settings { client_certificate: Some(certificate), ..Settings::default() };
        let error = Outbound::new(&settings).err().unwrap().to_string();
        assert!(!error.contains("hidden") && !error.contains("BEGIN"), "{error}");
    }
}

#[tokio::test]
async fn the_server_name_of_the_settings_replaces_the_host() {
    let authority = Authority::new("issuer.example");
    let url = authority.serve().await;
    let trust = Trust::Only(vec![Authorities::File(authority.file("ca.pem"))]);
    let error = get(&trusting(trust.clone()), &url).await.unwrap_err();
    assert!(matches!(error.failure, Failure::Tls(_)), "{error:?}");
    let named = Settings { server_name: Some("issuer.example".to_owned()), trust, ..Settings::default() };
    assert_eq!(get(&named, &url).await.unwrap().0, 200);
    let not_a_name = Settings { server_name: Some("a b".to_owned()), ..Settings::default() };
    assert!(Outbound::new(&not_a_name).is_err());
}
