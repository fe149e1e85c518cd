//! Quotas on a server: rate limits in namespaces.

use std::net::IpAddr;

use serde_json::json;

use crate::tests::fixture::{ROOT, TestServer};

const SOMEBODY: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

/// The namespaces `a/`, `a/b/` and `c/`, each with the mount `kv/`.
async fn with_namespaces() -> TestServer {
    let server = TestServer::new().await;
    for (path, above) in [("", ""), ("a/", ""), ("a/b/", "a/"), ("c/", "")] {
        if !path.is_empty() {
            let name = path.strip_prefix(above).unwrap().trim_end_matches('/');
            server.post(&format!("{above}sys/namespaces/{name}"), ROOT, json!({})).await.ok();
        }
        server.post(&format!("{path}sys/mounts/kv"), ROOT, json!({ "type": "kv" })).await.ok();
    }
    server
}

async fn limit(server: &TestServer, header: &str, path: &str) -> u64 {
    let result = server.node.preliminaries().check_quota(header, path, SOMEBODY).await;
    result.map_or(0, |result| result.limit)
}

#[tokio::test]
async fn a_rate_limit_applies_in_namespaces_by_header_and_by_path() {
    let mut server = with_namespaces().await;
    for (name, path, rate, inheritable) in [
        ("all", "", 9, true),
        ("a", "a", 8, true),
        ("b", "a/b/", 7, false),
        ("m", "a/kv", 6, true),
        ("p", "a/b/kv/x/", 5, false),
    ] {
        let body = json!({ "path": path, "rate": rate, "inheritable": inheritable });
        server.post(&format!("sys/quotas/rate-limit/{name}"), ROOT, body).await.is(204);
    }
    let path_of =
        async |name: &str| server.get(&format!("sys/quotas/rate-limit/{name}"), ROOT).await.ok().data()["path"].clone();
    assert_eq!(path_of("a").await, "a/");
    assert_eq!(path_of("m").await, "a/kv/");
    assert_eq!(path_of("p").await, "a/b/kv/x");
    for _ in 0..2 {
        for (header, path, expected) in [
            ("", "kv/x", 9),
            ("", "c/kv/x", 9),
            ("a", "sys/mounts", 8),
            ("", "a/sys/mounts", 8),
            ("a/b", "kv/y", 7),
            ("a", "b/kv/y", 7),
            ("", "a/kv/x", 6),
            ("a", "kv/x", 6),
            ("a/b", "kv/x", 5),
            ("", "a/b/kv/x", 5),
            ("nope", "a/kv/x", 9),
        ] {
            assert_eq!(limit(&server, header, path).await, expected, "[{header}] {path}");
        }
        server.restarted().await;
    }
    for (path, unknown) in [("nope/kv", "nope/kv/"), ("a/nope", "nope/"), ("a/*", "*/"), ("A", "A/")] {
        let refused = server.post("sys/quotas/rate-limit/z", ROOT, json!({ "path": path, "rate": 1 })).await.is(400);
        assert_eq!(refused.error(), format!("invalid mount path {unknown:?}"));
    }
    let twice = server.post("sys/quotas/rate-limit/z", ROOT, json!({ "path": "a/", "rate": 1 })).await.is(400);
    assert_eq!(twice.error(), "quota rule with similar properties exists under the name \"a\"");
    server.list("a/sys/quotas/rate-limit", ROOT).await.is(400);
}

#[tokio::test]
async fn an_inheritable_rate_limit_has_one_counter() {
    let server = with_namespaces().await;
    let write = async |path: &str, inheritable: bool| {
        let body = json!({ "path": path, "rate": 2, "interval": "1h", "inheritable": inheritable });
        server.post("sys/quotas/rate-limit/q", ROOT, body).await.is(204);
    };
    let refused = async |header: &str, path: &str| {
        let result = server.node.preliminaries().check_quota(header, path, SOMEBODY).await;
        result.is_some_and(|result| result.refused)
    };
    write("a", true).await;
    assert!(!refused("a", "kv/x").await && !refused("", "a/b/kv/x").await);
    assert!(refused("a/b", "kv/x").await && refused("", "a/sys/mounts").await && !refused("", "kv/x").await);
    write("a", false).await;
    assert!(!refused("a", "kv/x").await && !refused("", "a/kv/x").await && refused("a", "kv/y").await);
    assert!(!refused("", "a/b/kv/x").await, "a child is free");
    write("", false).await;
    for _ in 0..3 {
        assert!(!refused("a", "kv/x").await);
    }
    assert!(!refused("", "kv/x").await && !refused("nope", "kv/x").await && refused("", "sys/mounts").await);
}

#[tokio::test]
async fn quotas_follow_mounts_and_namespaces() {
    let server = with_namespaces().await;
    for (name, path) in [("m", "a/kv"), ("p", "a/kv/x"), ("n", "a"), ("b", "a/b"), ("bm", "a/b/kv"), ("k", "kv")] {
        let body = json!({ "path": path, "rate": 1 });
        server.post(&format!("sys/quotas/rate-limit/{name}"), ROOT, body).await.ok();
    }
    let path_of =
        async |name: &str| server.get(&format!("sys/quotas/rate-limit/{name}"), ROOT).await.ok().data()["path"].clone();
    server.post("a/sys/remount", ROOT, json!({ "from": "kv", "to": "moved" })).await.ok();
    assert_eq!(path_of("m").await, "a/moved/");
    assert_eq!(path_of("p").await, "a/moved/x");
    assert_eq!(path_of("k").await, "kv/");
    assert_eq!(limit(&server, "a", "moved/x").await, 1);
    server.delete("a/sys/mounts/moved", ROOT).await.ok();
    server.delete("a/sys/namespaces/b", ROOT).await.ok();
    crate::namespace::background::run(&server.unsealed(), false).await.unwrap();
    assert_eq!(server.list("sys/quotas/rate-limit", ROOT).await.ok().data()["keys"], json!(["k", "n"]));
}
