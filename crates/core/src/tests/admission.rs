//! The admission rules: effective when they are acknowledged, also after a restart, and none on a sealed server.

use std::net::IpAddr;

use serde_json::json;

use crate::tests::fixture::{House, ROOT};

const SOMEBODY: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

#[tokio::test]
async fn rules_hold_at_once_after_a_restart_and_not_when_sealed() {
    let mut house = House::new().await;
    let limit = |house: &House| house.node.admission().judge("secret/data/a", SOMEBODY).map(|v| v.limit);
    assert_eq!(limit(&house), None);
    house.post("sys/quotas/rate-limit/all", ROOT, json!({ "rate": 7 })).await.is(204);
    house.post("sys/quotas/rate-limit/kv", ROOT, json!({ "rate": 3, "path": "secret" })).await.is(204);
    house.post("sys/config/cors", ROOT, json!({ "allowed_origins": "http://a.com" })).await.is(204);
    house.post("sys/config/auditing/request-headers/X-Own", ROOT, json!({})).await.is(204);
    let hold = |house: &House| {
        let rules = house.node.admission().rules();
        let cors = rules.cors.as_ref().is_some_and(|c| c.allows("http://a.com") && !c.allows("http://b.com"));
        (limit(house), cors, rules.recorded_headers.contains_key("x-own"))
    };
    assert_eq!(hold(&house), (Some(3), true, true));
    house.restarted().await;
    assert_eq!(hold(&house), (Some(3), true, true));
    house.node.lifecycle.seal().await;
    assert_eq!(hold(&house), (None, false, false));
    assert!(house.node.lifecycle.unseal(&house.shares).await.unwrap());
    house.delete("sys/quotas/rate-limit/kv", ROOT).await.is(204);
    house.delete("sys/config/cors", ROOT).await.is(204);
    assert_eq!(hold(&house), (Some(7), false, true));
}

#[tokio::test]
async fn the_version_is_noted_once() {
    let mut house = House::new().await;
    let keys = async |house: &House| house.list("sys/version-history", ROOT).await.ok().data()["keys"].clone();
    let first = keys(&house).await;
    house.restarted().await;
    assert_eq!(keys(&house).await, first);
    house.settings.version = "99.0.0".to_owned();
    house.restarted().await;
    let shown = house.list("sys/version-history", ROOT).await.ok();
    assert_eq!(shown.data()["key_info"]["99.0.0"]["previous_version"], first[0]);
}
