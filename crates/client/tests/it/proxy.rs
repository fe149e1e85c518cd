//! Calls through HTTP proxies: a tunnel for `https://`, whole URLs for `http://`.

use std::sync::Arc;

use keepfast_client::{Client, Config};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::tls::Authority;

/// The heads that a proxy was sent.
type Heads = Arc<Mutex<Vec<String>>>;

/// A proxy that opens tunnels, or answers requests for whole URLs itself.
async fn proxy() -> (String, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heads = Heads::default();
    let seen = heads.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, seen.clone()));
        }
    });
    (address, heads)
}

async fn serve(stream: TcpStream, heads: Heads) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    heads.lock().push(head.clone());
    if let Some(rest) = head.strip_prefix("CONNECT ") {
        let Ok(mut target) = TcpStream::connect(rest.split(' ').next().unwrap()).await else { return };
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut target).await;
        return;
    }
    answer(stream.get_mut()).await;
}

async fn answer(stream: &mut TcpStream) {
    let body = "{\"data\":{\"by\":\"proxy\"}}";
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all((head + body).as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// A server that speaks plain HTTP.
pub(crate) async fn serve_plainly() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            answer(&mut stream).await;
        }
    });
    address
}

fn config(pairs: &[(&str, String)]) -> Config {
    let pairs: Vec<(String, String)> = pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let mut config =
        Config::from_variables(|name| pairs.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone())).unwrap();
    config.max_retries = 0;
    config
}

#[tokio::test]
async fn tls_goes_through_a_tunnel_and_the_proxy_never_sees_the_token() {
    let authority = Authority::new("127.0.0.1");
    let address = authority.serve().await;
    let (proxy, heads) = proxy().await;
    let config = config(&[
        ("VAULT_ADDR", address.clone()),
        ("VAULT_TOKEN", "hvs.secret".to_owned()),
        ("VAULT_PROXY_ADDR", format!("http://user:pass@{proxy}")),
        ("VAULT_CACERT", authority.file("ca.pem").display().to_string()),
    ]);
    let secret = Client::new(config).unwrap().read("a").await.unwrap().unwrap();
    assert_eq!(secret.data_field("shown").unwrap(), 0);
    let heads = heads.lock().clone();
    assert!(heads.len() == 1 && heads[0].starts_with(&format!("CONNECT {}", address.trim_start_matches("https://"))));
    assert!(heads[0].to_lowercase().contains("proxy-authorization: basic dxnlcjpwyxnz"), "{}", heads[0]);
    assert!(!heads[0].contains("hvs.secret"));
}

#[tokio::test]
async fn plain_http_names_the_whole_url_to_the_proxy() {
    let (proxy, heads) = proxy().await;
    let config =
        config(&[("VAULT_ADDR", "http://vault.test:8200".to_owned()), ("HTTP_PROXY", format!("user:pass@{proxy}"))]);
    let secret = Client::new(config).unwrap().read("secret/a").await.unwrap().unwrap();
    assert_eq!(secret.text("by"), Some("proxy"));
    let head = heads.lock()[0].to_lowercase();
    assert!(head.starts_with("get http://vault.test:8200/v1/secret/a "), "{head}");
    assert!(head.contains("proxy-authorization: basic "), "{head}");
}

#[tokio::test]
async fn what_no_proxy_lists_is_reached_directly() {
    let (proxy, heads) = proxy().await;
    let address = serve_plainly().await;
    for (name, value) in [("NO_PROXY", "127.0.0.0/8"), ("no_proxy", "*"), ("UNRELATED", "")] {
        let pairs = [("VAULT_ADDR", address.clone()), ("HTTP_PROXY", proxy.clone()), (name, value.to_owned())];
        assert!(Client::new(config(&pairs)).unwrap().read("a").await.unwrap().is_some());
    }
    assert_eq!(heads.lock().len(), 0, "the loopback interface needs no proxy either");
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for address in ["http://vault.test", "https://vault.test"] {
        let pairs = [("VAULT_ADDR", address.to_owned()), ("VAULT_HTTP_PROXY", format!("http://{free}"))];
        let error = Client::new(config(&pairs)).unwrap().read("a").await.unwrap_err().to_string();
        assert!(error.contains("proxyconnect tcp: ") && error.contains(&free.to_string()), "{error}");
    }
}
