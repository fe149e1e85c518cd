//! Records of the root namespace have no namespace field, like those of older versions; a record of another namespace
//! is not found.

use std::net::IpAddr;

use keepfast_framework::{Clock as _, Page, Query};
use serde_json::{Value, json};

use crate::audit::{Entry, RequestPart, SerializedRequest, Verdict};
use crate::tests::fixture::{House, ROOT};

/// The only record below a folder, at any depth.
async fn only_record(house: &House, folder: &str) -> String {
    let unsealed = house.unsealed();
    let view = unsealed.barrier.view("");
    let mut at = folder.to_owned();
    while at.ends_with('/') {
        let mut names = unsealed.barrier.begin_read().list(&view, &at, &Page::all()).await.unwrap();
        assert_eq!(names.len(), 1, "{at}: {names:?}");
        at.push_str(&names.remove(0));
    }
    at
}

/// Moves a record without a namespace to another namespace.
async fn move_to_other(house: &House, key: &str) {
    let unsealed = house.unsealed();
    let view = unsealed.barrier.view("");
    let mut tx = unsealed.barrier.begin();
    let stored = tx.get(&view, key).await.unwrap().unwrap();
    let mut record: Value = serde_json::from_slice(&stored).unwrap();
    assert_eq!(record.get("namespace"), None, "{key}");
    record["namespace"] = json!("other");
    tx.put(&view, key, record.to_string().into());
    tx.commit().await.unwrap();
}

/// A server with the user `anna`.
async fn with_user() -> House {
    let house = House::new().await;
    house.post("sys/auth/up", ROOT, json!({ "type": "userpass" })).await.ok();
    house.post("auth/up/users/anna", ROOT, json!({ "password": "right" })).await.ok();
    house
}

async fn login(house: &House, password: &str) -> (u16, String) {
    let answer = house.post("auth/up/login/anna", "", json!({ "password": password })).await;
    (answer.status, answer.body["auth"]["entity_id"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn sec_ns03_a_mount_of_another_namespace_is_not_found() {
    let mut house = House::new().await;
    house.post("sys/mounts/a", ROOT, json!({ "type": "kv" })).await.ok();
    house.post("a/x", ROOT, json!({ "k": "v" })).await.ok();
    let uuid = house.unsealed().engines.mounts.router().at("a/").unwrap().entry.uuid.clone();
    move_to_other(&house, &format!("sys/mount/{uuid}")).await;
    for _ in 0..2 {
        house.get("a/x", ROOT).await.is(404);
        assert!(house.get("sys/mounts", ROOT).await.ok().data().get("a/").is_none());
        house.restarted().await;
    }
}

#[tokio::test]
async fn sec_ns03_an_alias_of_another_namespace_is_not_found() {
    let house = with_user().await;
    let (_, first) = login(&house, "right").await;
    assert_eq!(login(&house, "right").await, (200, first.clone()));
    move_to_other(&house, &only_record(&house, "identity/alias/").await).await;
    let (status, second) = login(&house, "right").await;
    assert!(
        status == 200 && !second.is_empty() && second != first,
        "the alias leads to an entity of its own namespace"
    );
}

#[tokio::test]
async fn sec_ns03_a_lock_of_another_namespace_locks_nobody() {
    let mut house = with_user().await;
    for _ in 0..5 {
        login(&house, "wrong").await;
    }
    house.restarted().await;
    assert_eq!(login(&house, "right").await.0, 403);
    move_to_other(&house, &only_record(&house, "sys/lockout/").await).await;
    for _ in 0..2 {
        assert_eq!(login(&house, "right").await.0, 200);
        house.restarted().await;
    }
}

#[tokio::test]
async fn sec_ns03_a_quota_of_another_namespace_is_not_in_force() {
    const SOMEBODY: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    let mut house = House::new().await;
    house.post("sys/quotas/rate-limit/all", ROOT, json!({ "rate": 7 })).await.is(204);
    let limit = |house: &House| house.node.admission().judge("secret/data/a", SOMEBODY).map(|v| v.limit);
    assert_eq!(limit(&house), Some(7));
    move_to_other(&house, "sys/quotas/rate-limit/all").await;
    for _ in 0..2 {
        assert_eq!(limit(&house), None);
        house.get("sys/quotas/rate-limit/all", ROOT).await.is(404);
        house.restarted().await;
    }
}

#[tokio::test]
async fn sec_ns03_an_answer_wrapped_in_another_namespace_is_not_found() {
    let house = House::new().await;
    let wrapping = house.wrapped("POST", "sys/wrapping/wrap", ROOT, json!({ "k": "v" }), 60).await.ok().wrapping();
    house.post("sys/wrapping/lookup", "", json!({ "token": wrapping })).await.ok();
    let unsealed = house.unsealed();
    let token = unsealed.access.wrapper.wrapping_token(&wrapping).await.unwrap().unwrap();
    let storage = unsealed.engines.mounts.router().at("cubbyhole/").unwrap().storage_prefix();
    move_to_other(&house, &format!("{storage}{}/wrapinfo", token.store)).await;
    let unwrap = json!({ "token": wrapping });
    house.post("sys/wrapping/unwrap", ROOT, unwrap).await.is(400);
}

#[tokio::test]
async fn audit_entries_name_the_namespace_of_the_request() {
    let house = House::new().await;
    let last = || serde_json::from_str::<Value>(house.audit("audit").lines().last().unwrap()).unwrap();
    house.get("secret/data/a", ROOT).await.is(404);
    assert_eq!(last()["request"]["namespace"], json!({ "id": "root" }));
    let (query, verdict) =
        (Query::default(), Verdict { allowed: Some(true), granting: vec!["p".into()], ..Verdict::default() });
    let request = RequestPart {
        id: "1",
        namespace: serde_json::from_value(json!("aB3dE6")).unwrap(),
        operation: "read",
        path: "secret/data/a",
        mount: None,
        token: None,
        data: None,
        query: &query,
        headers: &[],
        remote: None,
        wrap_ttl: 0,
        public: None,
    };
    let time = house.clock.now();
    let entry = Entry { time, request, caller: None, verdict: &verdict, response: None, error: None };
    house.unsealed().observed.audit.record(&entry, &SerializedRequest::default()).await.unwrap();
    assert_eq!(last()["request"]["namespace"], json!({ "id": "aB3dE6" }));
    let granting = json!([{ "name": "p", "namespace_id": "aB3dE6", "type": "acl" }]);
    assert_eq!(last()["auth"]["policy_results"]["granting_policies"], granting);
}
