//! Calls through HTTP proxies: a tunnel for `https://`, whole URLs for `http://`.

use std::sync::Arc;

use bytes::Bytes;
use keepfast_outbound::{Authorities, Outbound, Proxies, Proxy, Settings, Trust};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::authority::Authority;
use crate::get;

/// The heads of the requests to a proxy.
type Heads = Arc<Mutex<Vec<String>>>;

/// A proxy that opens tunnels, and itself responds to requests for whole URLs.
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
    respond(stream.get_mut()).await;
}

async fn respond(stream: &mut TcpStream) {
    let body = "{\"data\":{\"by\":\"proxy\"}}";
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all((head + body).as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn through(proxy: &str) -> Settings {
    let proxies = Proxies::default().with_proxy_for_all(Proxy::parse(proxy).unwrap());
    Settings { proxies, ..Settings::default() }
}

#[tokio::test]
async fn tls_uses_a_tunnel_that_hides_the_headers_from_the_proxy() {
    let authority = Authority::new("127.0.0.1");
    let url = authority.serve().await;
    let (proxy, heads) = proxy().await;
    let trust = Trust::Only(vec![Authorities::File(authority.file("ca.pem"))]);
    let settings = Settings { trust, ..through(&format!("http://user:pass@{proxy}")) };
    let request = http::Request::get(format!("{url}/a")).header("x-vault-token", "hvs.secret");
    let response = Outbound::new(&settings).unwrap().call(request.body(Bytes::new()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let heads = heads.lock().clone();
    assert!(heads.len() == 1 && heads[0].starts_with(&format!("CONNECT {}", url.trim_start_matches("https://"))));
    assert!(heads[0].to_lowercase().contains("proxy-authorization: basic dxnlcjpwyxnz"), "{}", heads[0]);
    assert!(!heads[0].contains("hvs.secret"));
}

#[tokio::test]
async fn plain_http_names_the_whole_url_to_the_proxy() {
    let (proxy, heads) = proxy().await;
    let source = |name: &str| (name == "HTTP_PROXY").then(|| format!("user:pass@{proxy}"));
    let settings = Settings { proxies: Proxies::from_variables(&source).unwrap(), ..Settings::default() };
    let (_, body) = get(&settings, "http://vault.test:8200/v1/secret/a").await.unwrap();
    assert!(body.contains("proxy"), "{body}");
    let head = heads.lock()[0].to_lowercase();
    assert!(head.starts_with("get http://vault.test:8200/v1/secret/a "), "{head}");
    assert!(head.contains("proxy-authorization: basic dxnlcjpwyxnz"), "{head}");
}

#[tokio::test]
async fn hosts_of_no_proxy_and_loopback_addresses_are_reached_directly() {
    let (proxy, heads) = proxy().await;
    let (direct, served) = self::proxy().await;
    for (name, value) in [("NO_PROXY", "127.0.0.0/8"), ("no_proxy", "*"), ("UNRELATED", "")] {
        let pairs = [("HTTP_PROXY", proxy.as_str()), (name, value)];
        let source = |name: &str| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned());
        let settings = Settings { proxies: Proxies::from_variables(&source).unwrap(), ..Settings::default() };
        assert_eq!(get(&settings, &format!("http://{direct}/a")).await.unwrap().0, 200);
    }
    assert_eq!((heads.lock().len(), served.lock().len()), (0, 3));
}

#[tokio::test]
async fn an_unreachable_proxy_is_named_without_its_password() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for url in ["http://vault.test/hidden", "https://vault.test/hidden"] {
        let error = get(&through(&format!("http://user:hidden@{free}")), url).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains("proxyconnect tcp: ") && text.contains(&free.to_string()), "{text}");
        assert!(!text.contains("hidden"), "{text}");
    }
}
