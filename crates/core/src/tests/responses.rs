//! Warnings and indexes of responses, and empty lists.

use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, RequestOptions, TestServer, incoming};

const UNKNOWN: &str = "Endpoint ignored these unrecognized parameters: [x y]";
const REPLACED: &str =
    "Endpoint replaced the value of these parameters with the values captured from the endpoint's path: [path]";

#[tokio::test]
async fn a_response_names_unknown_and_replaced_parameters() {
    let server = TestServer::new().await;
    server.post("secret/data/a", ROOT, json!({ "data": {} })).await.ok();
    let warnings = |path: &'static str| {
        let server = &server;
        async move { server.get(path, ROOT).await.ok().body["warnings"].clone() }
    };
    assert_eq!(warnings("secret/data/a").await, Value::Null);
    assert_eq!(warnings("secret/data/a?x=1&y=2").await, json!([UNKNOWN]));
    assert_eq!(warnings("secret/data/a?path=b").await, json!([REPLACED]));
    // A response without content has no place for warnings.
    let empty = server.post("sys/mounts/secret/tune?x=1", ROOT, json!({ "description": "d" })).await;
    assert_eq!((empty.status, empty.body), (204, Value::Null));
}

#[tokio::test]
async fn an_empty_list_with_warnings_is_no_error() {
    let server = TestServer::new().await;
    assert_eq!(server.list("cubbyhole/none", ROOT).await.status, 404);
    let warned = server.list("cubbyhole/none?x=1&y=1", ROOT).await.ok();
    assert_eq!((&warned.body["data"], &warned.body["warnings"]), (&json!({}), &json!([UNKNOWN])));
    let wrapped = server.wrapped("LIST", "cubbyhole/none", ROOT, Value::Null, 60).await.is(404);
    assert_eq!(wrapped.error(), "unsupported path");
    let not_wrapped = server.wrapped("LIST", "cubbyhole/none", ROOT, Value::Null, 0).await.is(404);
    assert_eq!(not_wrapped.error(), "");
    // Only lists: a read of nothing stays an error, and so does an error with a text.
    assert_eq!(server.get("cubbyhole/none?x=1", ROOT).await.status, 404);
}

#[tokio::test]
async fn a_response_has_the_index_of_its_commit() {
    let server = TestServer::new().await;
    let options = |body: &str| RequestOptions {
        token: Some(ROOT.to_owned()),
        body: (!body.is_empty()).then(|| body.to_owned()),
        ..RequestOptions::default()
    };
    let mut last = None;
    for _ in 0..2 {
        let written = server.node.handle(incoming("POST", "secret/data/a", options(r#"{"data":{}}"#))).await;
        assert!(written.committed() > last && written.is_json());
        last = written.committed();
    }
    assert_eq!(server.node.handle(incoming("GET", "secret/data/a", options(""))).await.committed(), None);
    let metrics = server.node.handle(incoming("GET", "sys/metrics?format=prometheus", options(""))).await;
    assert!(!metrics.is_json());
}

#[tokio::test]
async fn a_wrapping_token_reads_its_response_once_with_a_warning() {
    let server = TestServer::new().await;
    let wrapping = server.wrapped("POST", "sys/wrapping/wrap", ROOT, json!({ "k": "v" }), 60).await.ok().wrapping();
    let read = server.get("cubbyhole/response", &wrapping).await.ok();
    assert!(read.body["warnings"][0].as_str().unwrap().starts_with("Reading from 'cubbyhole/response' is deprecated"));
    server.get("cubbyhole/response", &wrapping).await.is(403);
    // Any other token reads a path of its own, without a warning.
    server.post("cubbyhole/response", ROOT, json!({ "response": "mine" })).await.is(204);
    assert_eq!(server.get("cubbyhole/response", ROOT).await.ok().body["warnings"], Value::Null);
}
