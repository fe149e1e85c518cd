//! Limits of calls, and the texts of their errors.

use std::time::Duration;

use keepfast_outbound::{Failure, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use crate::get;

/// A server that reads a request, sends this text and, if it `closes`, closes the connection.
async fn serve(text: &'static str, closes: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(text.as_bytes()).await;
            if !closes {
                open.push(stream);
            }
        }
    });
    address
}

fn within(millis: u64) -> Settings {
    Settings { timeout: Some(Duration::from_millis(millis)), ..Settings::default() }
}

#[tokio::test]
async fn a_body_has_at_most_the_bytes_of_the_settings() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n4\r\n6789\r\n0\r\n\r\n",
    ] {
        let url = format!("http://{}/", serve(text, true).await);
        let exact = Settings { max_response: 10, ..Settings::default() };
        assert_eq!(get(&exact, &url).await.unwrap(), (200, "0123456789".to_owned()));
        let less = Settings { max_response: 9, ..Settings::default() };
        let error = get(&less, &url).await.unwrap_err();
        assert!(matches!(error.failure, Failure::TooLarge(9)), "{error:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_returned_and_not_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("Location: http://{}/\r\n", elsewhere.local_addr().unwrap());
    for status in ["301 x", "302 x", "303 x", "307 x", "308 x"] {
        let text = format!("HTTP/1.1 {status}\r\n{location}Content-Length: 0\r\n\r\n");
        let url = format!("http://{}/", serve(text.leak(), true).await);
        assert_eq!(get(&Settings::default(), &url).await.unwrap().0.to_string(), status[..3]);
    }
    // There was no connection to the new address.
    elsewhere.into_std().unwrap().accept().expect_err("no connection");
}

#[tokio::test]
async fn a_call_fails_after_its_timeout() {
    for text in ["", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234"] {
        let url = format!("http://{}/", serve(text, false).await);
        let error = get(&within(20), &url).await.unwrap_err();
        assert!(matches!(error.failure, Failure::Timeout(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_connection_attempt_fails_after_its_timeout() {
    // The system accepts the connection, and no handshake begins.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = Settings { connect_timeout: Some(Duration::from_millis(20)), ..Settings::default() };
    let error = get(&settings, &format!("https://{}/", listener.local_addr().unwrap())).await.unwrap_err();
    assert!(matches!(error.failure, Failure::ConnectTimeout(_)), "{error:?}");
}

#[tokio::test]
async fn errors_name_the_host_and_no_user_path_or_query() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let silent = serve("", false).await;
    let large = serve("HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n", false).await;
    let broken = serve("not HTTP\r\n\r\n", true).await;
    for (scheme, address, cause) in [
        ("http", &free, "connect: connection refused"),
        ("http", &silent, "no response within 20ms"),
        ("http", &large, "no response within 20ms"),
        ("http", &broken, "invalid HTTP version parsed"),
        ("https", &broken, "tls: "),
    ] {
        let url = format!("{scheme}://us3r:hidden@{address}/hidden?hidden=hidden#hidden");
        let error = get(&within(20), &url).await.unwrap_err();
        assert_eq!(&error.host, address);
        let (text, debug) = (error.to_string(), format!("{error:?}"));
        assert!(text.starts_with(&format!("{address}: ")) && text.contains(cause), "{text}");
        assert!([text, debug].iter().all(|text| !text.contains("hidden") && !text.contains("us3r")), "{error:?}");
    }
}

#[tokio::test]
async fn calls_of_every_host_use_the_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        stream.write_all(b"HTTP/1.1 204 x\r\n\r\n").await.unwrap();
    });
    let settings = Settings { socket: Some(path.clone()), ..Settings::default() };
    assert_eq!(get(&settings, "http://localhost/").await.unwrap().0, 204);
    let missing = Settings { socket: Some(directory.path().join("none")), ..Settings::default() };
    let error = get(&missing, "http://localhost/hidden").await.unwrap_err();
    assert!(error.host.ends_with("/none") && matches!(error.failure, Failure::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn a_url_without_a_host_is_an_error() {
    let error = get(&Settings::default(), "/hidden").await.unwrap_err();
    assert!(!error.to_string().contains("hidden"), "{error}");
}
