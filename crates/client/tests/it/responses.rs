//! The requests that the client sends, and its results for each kind of response.

use std::time::Duration;

use keepfast_client::{Client, Config, Error, Method, Request, SecretString};
use serde_json::json;

use crate::server::{response, start, start_unix};

fn config(address: &str) -> Config {
    let mut config = Config::new(address).unwrap();
    config.token = Some(SecretString::new("hvs.test".to_owned()));
    config.retry_wait = Duration::from_millis(1);
    config
}

fn client(address: &str) -> Client {
    Client::new(config(address)).unwrap()
}

fn map(value: serde_json::Value) -> serde_json::Map<String, serde_json::Value> {
    value.as_object().cloned().unwrap()
}

#[tokio::test]
async fn a_request_carries_the_configured_headers() {
    let (address, seen) = start(vec![response(204, "", ""), response(200, "", r#"{"data":{"a":1}}"#)]);
    let mut config = config(&address);
    config.namespace = "/team/".to_owned();
    config.wrap_ttl = Some("60s".to_owned());
    let client = Client::new(config).unwrap();
    assert!(client.write("secret/a b", map(json!({"x": "y"}))).await.unwrap().is_none());
    client.patch("secret/a", map(json!({"x": null}))).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0].line, "PUT /v1/secret/a%20b HTTP/1.1");
    for header in [
        "x-vault-token: hvs.test",
        "x-vault-request: true",
        "x-vault-namespace: team/",
        "x-vault-wrap-ttl: 60s",
        "content-type: application/json",
    ] {
        assert!(seen[0].has(header), "{header} is not among {:?}", seen[0].headers);
    }
    assert_eq!(seen[0].body, r#"{"x":"y"}"#);
    assert!(seen[1].has("content-type: application/merge-patch+json"));
}

#[tokio::test]
async fn an_error_names_the_namespace_of_its_request() {
    let (address, seen) = start(vec![response(404, "", r#"{"errors":["namespace not found"]}"#)]);
    let mut config = config(&address);
    config.namespace = "équipe".to_owned();
    let error = Client::new(config.clone()).unwrap().read("a").await.unwrap_err();
    assert!(error.to_string().contains("\n\nNamespace: équipe/\nURL: GET http://"), "{error}");
    assert!(seen.lock().unwrap()[0].has("x-vault-namespace: équipe/"));
    // Without its header, the request would go to the root namespace.
    config.namespace = "a\r\nb".to_owned();
    assert!(matches!(Client::new(config).err(), Some(Error::Config(_))));
}

#[tokio::test]
async fn a_list_is_a_get_with_a_parameter() {
    let (address, seen) = start(vec![response(200, "", r#"{"data":{"keys":["a"]}}"#)]);
    let secret = client(&address).list("secret/metadata").await.unwrap().unwrap();
    assert_eq!(secret.data_field("keys"), Some(&json!(["a"])));
    assert_eq!(seen.lock().unwrap()[0].line, "GET /v1/secret/metadata?list=true HTTP/1.1");
}

#[tokio::test]
async fn a_404_is_none_unless_it_has_warnings() {
    let deleted = r#"{"data":{"data":null,"metadata":{"version":1}}}"#;
    let (address, _) =
        start(vec![response(404, "", r#"{"errors":[]}"#), response(404, "", deleted), response(404, "", "")]);
    let client = client(&address);
    assert!(client.read("a").await.unwrap().is_none());
    assert!(client.read("a").await.unwrap().unwrap().data_field("metadata").is_some());
    let error = client.patch("a", map(json!({}))).await.unwrap_err();
    assert_eq!((error.status(), error.errors().len()), (Some(404), 0));
}

#[tokio::test]
async fn an_error_has_the_messages_of_the_server() {
    let (address, _) = start(vec![response(403, "", r#"{"errors":["permission denied"]}"#)]);
    let error = client(&address).read("a").await.unwrap_err();
    assert_eq!((error.status(), error.errors()), (Some(403), &["permission denied".to_owned()][..]));
    assert!(!format!("{error:?} {error}").contains("hvs.test"));
}

#[tokio::test]
async fn a_5xx_is_retried_and_a_4xx_is_not() {
    let ok = response(200, "", r#"{"data":{}}"#);
    let (address, seen) = start(vec![response(503, "", ""), response(412, "", ""), ok.clone()]);
    assert!(client(&address).read("a").await.is_ok());
    assert_eq!(seen.lock().unwrap().len(), 3);
    let (address, seen) = start(vec![response(501, "", ""), ok.clone()]);
    assert_eq!(client(&address).read("a").await.unwrap_err().status(), Some(501));
    assert_eq!(seen.lock().unwrap().len(), 1);
    let (address, seen) = start(vec![response(503, "", ""), ok.clone()]);
    let once = Request { may_retry: false, ..Request::new(Method::Post, "a") };
    assert_eq!(client(&address).raw(&once).await.err().unwrap().status(), Some(503));
    assert_eq!(seen.lock().unwrap().len(), 1);
    let (address, _) = start(vec![response(500, "", ""), response(500, "", ""), response(502, "", "last"), ok]);
    assert_eq!(client(&address).read("a").await.unwrap_err().status(), Some(502));
}

#[tokio::test]
async fn the_redirect_of_a_standby_is_followed_once() {
    let (leader, seen) = start(vec![response(200, "", r#"{"data":{"from":"leader"}}"#)]);
    let (standby, _) = start(vec![response(307, &format!("Location: {leader}/v1/a\r\n"), "")]);
    let secret = client(&standby).read("a").await.unwrap().unwrap();
    assert_eq!(secret.text("from"), Some("leader"));
    assert!(seen.lock().unwrap()[0].has("x-vault-token: hvs.test"));
    let (standby, _) = start(vec![response(307, "Location: http://127.0.0.1:1/\r\n", "")]);
    let mut config = config(&standby);
    config.follow_redirects = false;
    let stays = Client::new(config).unwrap().read("a").await;
    assert!(stays.unwrap().is_none());
}

#[tokio::test]
async fn unwrap_sends_the_wrapping_token() {
    let (address, seen) = start(vec![response(200, "", r#"{"data":{}}"#), response(200, "", r#"{"data":{}}"#)]);
    let wrapping = SecretString::new("hvs.wrapped".to_owned());
    client(&address).unwrap(Some(&wrapping)).await.unwrap();
    client(&address).with_token(None).unwrap(Some(&wrapping)).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!((seen[0].body.as_str(), seen[0].has("x-vault-token: hvs.test")), (r#"{"token":"hvs.wrapped"}"#, true));
    assert_eq!((seen[1].body.as_str(), seen[1].has("x-vault-token: hvs.wrapped")), ("", true));
}

#[tokio::test]
async fn a_unix_socket_is_an_address() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keepfast.sock");
    let seen = start_unix(&path, response(200, "", r#"{"data":{"via":"socket"}}"#));
    let secret = client(&format!("unix://{}", path.display())).read("a").await.unwrap().unwrap();
    assert_eq!(secret.text("via"), Some("socket"));
    assert_eq!(seen.lock().unwrap()[0].line, "GET /v1/a HTTP/1.1");
}

#[tokio::test]
async fn a_silent_server_fails_after_the_timeout() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(&format!("http://{}", listener.local_addr().unwrap()));
    config.timeout = Some(Duration::from_millis(20));
    config.max_retries = 0;
    let error = Client::new(config).unwrap().read("a").await.unwrap_err();
    assert!(matches!(error, Error::Transport { .. }) && error.to_string().contains("VAULT_CLIENT_TIMEOUT"), "{error}");
}

#[tokio::test]
async fn a_refused_connection_names_the_address() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut config = config(&format!("http://{address}"));
    config.max_retries = 0;
    let error = Client::new(config).unwrap().read("a").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("Get \"http://{address}/v1/a\": dial tcp {address}: connect: connection refused")
    );
}
