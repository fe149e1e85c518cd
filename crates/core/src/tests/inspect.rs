//! The inspection of the router and of the requests in flight.

use keepfast_framework::Clock;
use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, RequestOptions, TestServer, incoming};

const TAGS: [&str; 4] = ["root", "uuid", "accessor", "storage"];

fn path(tag: &str) -> String {
    format!("sys/internal/inspect/router/{tag}")
}

#[tokio::test]
async fn the_router_tables_need_introspection_endpoint() {
    let server = TestServer::with(|settings, _| settings.introspection_endpoint = true, keepfast_engines::all()).await;
    for tag in TAGS {
        let answer = server.get(&path(tag), ROOT).await.ok();
        let entries = answer.data()[tag].as_array().unwrap();
        let token = entries.iter().find(|entry| entry["mount_type"] == "token").unwrap();
        assert_eq!((&token["mount_path"], &token["mount_namespace"]), (&json!("token/"), &json!("")));
        let is_whole = matches!(tag, "root" | "storage");
        assert_eq!(token["storage_prefix"], if is_whole { json!("token/") } else { json!(null) }, "{tag}");
        assert_eq!(token["tainted"], if is_whole { json!(false) } else { json!(null) }, "{tag}");
        if !is_whole {
            let keys: Vec<&str> = entries.iter().map(|entry| entry[tag].as_str().unwrap()).collect();
            assert!(keys.is_sorted(), "{keys:?}");
        }
    }
    server.get(&path("nope"), ROOT).await.is(404);
}

#[tokio::test]
async fn without_the_setting_only_unknown_tables_differ() {
    let server = TestServer::new().await;
    let refused = server.get(&path("root"), ROOT).await.is(400);
    assert!(refused.error().contains("introspection_endpoint"), "{refused:?}");
    server.get(&path("nope"), ROOT).await.is(404);
}

#[tokio::test]
async fn a_request_in_flight_is_listed_without_its_token() {
    let server = TestServer::new().await;
    let shown = server.get("sys/in-flight-req", ROOT).await.ok();
    let requests: Vec<_> = shown.body.as_object().unwrap().values().collect();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0]["request_path"], "/v1/sys/in-flight-req");
    // The hash of the policies of a root token, as OpenBao computes it.
    assert_eq!(requests[0]["client_id"], "0DHqvq2D77kL2/JTPSZkTMJbkFVmUu0TzMi0jiXcFy8=");
    assert!(!shown.body.to_string().contains(ROOT));
    assert_eq!(server.node.lifecycle.unsealed().unwrap().observability.in_flight.count(), 0);
}

/// The path of a request in flight, for a caller with a token and for one without.
async fn seen(server: &TestServer, path: &str) -> (Vec<String>, Vec<String>) {
    let unsealed = server.unsealed();
    let (method, path) = path.split_once(' ').unwrap();
    let under_way =
        unsealed.observability.in_flight.begin(&incoming(method, path, RequestOptions::default()), server.clock.now());
    let probe = incoming("GET", "sys/in-flight-req", RequestOptions::default());
    let open = server.node.monitoring().open_in_flight(&probe).into_body();
    let known = server.get("sys/in-flight-req", ROOT).await.ok().body;
    drop(under_way);
    let paths = |body: &Value| {
        let mut paths: Vec<String> = body
            .as_object()
            .unwrap()
            .values()
            .map(|request| request["request_path"].as_str().unwrap().to_owned())
            .filter(|path| path != "/v1/sys/in-flight-req")
            .collect();
        paths.sort();
        paths
    };
    (paths(&known), paths(&serde_json::from_slice(&open).unwrap()))
}

#[tokio::test]
async fn sec_kf51_paths_of_requests_in_flight_contain_no_token() {
    let server = TestServer::new().await;
    for (path, known, open) in [
        // A custom token and forms with a prefix, where no route has a segment.
        ("GET auth/token/lookup/my-custom-root", "auth/token/***", "auth/token/***"),
        ("POST auth/token/revoke/my-custom-root", "auth/token/***", "auth/token/***"),
        ("GET auth/token/lookup/token=hvs.BBBB", "auth/token/***", "auth/token/***"),
        ("GET auth/token/lookup/hvs.AAAA", "auth/token/***", "auth/token/***"),
        ("GET my-custom-root/a", "***", "***"),
        ("GET sys/my-custom-root", "sys/***", "sys/***"),
        // Only callers that may read the path see names.
        ("GET secret/data/team/app", "secret/data/team/app", "secret/data/***/***"),
        ("LIST secret/metadata/team", "secret/metadata/team", "secret/metadata/***"),
        ("GET secret/data/hvs.AAAA", "secret/data/***", "secret/data/***"),
        ("GET cubbyhole/a", "cubbyhole/a", "cubbyhole/***"),
        ("GET sys/mounts/secret/tune", "sys/mounts/secret/tune", "sys/mounts/***/tune"),
        ("DELETE sys/mounts/secret/", "sys/mounts/secret", "sys/mounts/***"),
        ("POST sys/leases/renew/a/b/", "sys/leases/renew/a/b", "sys/leases/renew/***/***"),
        ("POST sys/tools/random", "sys/tools/random", "sys/tools/random"),
        ("GET sys/mounts", "sys/mounts", "sys/mounts"),
        ("LIST secret", "secret", "secret"),
        ("POST sys/tools/hash/sha2-256", "sys/tools/hash/sha2-256", "sys/tools/hash/***"),
    ] {
        let expected = |path: &str| vec![format!("/v1/{path}")];
        assert_eq!(seen(&server, path).await, (expected(known), expected(open)), "{path}");
    }
    let unsealed = server.unsealed();
    let _under_way = unsealed
        .observability
        .in_flight
        .begin(&incoming("GET", "sys/mounts", RequestOptions::default()), server.clock.now());
    server.node.lifecycle.seal().await;
    let probe = incoming("GET", "sys/in-flight-req", RequestOptions::default());
    let shown: Value = serde_json::from_slice(&server.node.monitoring().open_in_flight(&probe).into_body()).unwrap();
    assert_eq!(shown[&probe.id]["request_path"], "/v1/sys/in-flight-req");
    assert_eq!(shown.to_string().matches("/v1/***").count(), 1, "{shown}");
}
