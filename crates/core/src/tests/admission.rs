//! The admission rules: effective when they are acknowledged, also after a restart, and none on a sealed server.

use std::net::IpAddr;

use serde_json::json;

use crate::tests::fixture::{ROOT, TestServer};

const SOMEBODY: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

#[tokio::test]
async fn rules_hold_at_once_after_a_restart_and_not_when_sealed() {
    let mut server = TestServer::new().await;
    let limit =
        |server: &TestServer| server.node.admission().check_quota_of_root("secret/data/a", SOMEBODY).map(|v| v.limit);
    assert_eq!(limit(&server), None);
    server.post("sys/quotas/rate-limit/all", ROOT, json!({ "rate": 7 })).await.is(204);
    server.post("sys/quotas/rate-limit/kv", ROOT, json!({ "rate": 3, "path": "secret" })).await.is(204);
    server.post("sys/config/cors", ROOT, json!({ "allowed_origins": "http://a.com" })).await.is(204);
    server.post("sys/config/auditing/request-headers/X-Own", ROOT, json!({})).await.is(204);
    let hold = |server: &TestServer| {
        let rules = server.node.admission().rules();
        let cors = rules.cors.as_ref().is_some_and(|c| c.allows("http://a.com") && !c.allows("http://b.com"));
        (limit(server), cors, rules.audited_headers.contains_key("x-own"))
    };
    assert_eq!(hold(&server), (Some(3), true, true));
    server.restarted().await;
    assert_eq!(hold(&server), (Some(3), true, true));
    server.node.lifecycle.seal().await;
    assert_eq!(hold(&server), (None, false, false));
    assert!(server.node.lifecycle.unseal(&server.shares).await.unwrap());
    server.delete("sys/quotas/rate-limit/kv", ROOT).await.is(204);
    server.delete("sys/config/cors", ROOT).await.is(204);
    assert_eq!(hold(&server), (Some(7), false, true));
}

#[tokio::test]
async fn the_version_is_noted_once() {
    let mut server = TestServer::new().await;
    let keys = async |server: &TestServer| server.list("sys/version-history", ROOT).await.ok().data()["keys"].clone();
    let first = keys(&server).await;
    server.restarted().await;
    assert_eq!(keys(&server).await, first);
    server.settings.version = "99.0.0".to_owned();
    server.restarted().await;
    let shown = server.list("sys/version-history", ROOT).await.ok();
    assert_eq!(shown.data()["key_info"]["99.0.0"]["previous_version"], first[0]);
}
