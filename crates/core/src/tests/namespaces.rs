//! Records of the root namespace have no namespace field, like those of older versions; a record of another namespace
//! is not found.

use std::net::IpAddr;

use keepfast_framework::Page;
use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, TestServer};

mod deletion;
mod fence;
mod foreign_ids;
mod idle;
mod matrix;
mod model;
mod names;
mod nodes;
mod policies;
mod resolution;
mod tenants;
mod tokens;

/// The only record below a folder, at any depth.
async fn only_record(server: &TestServer, folder: &str) -> String {
    let unsealed = server.unsealed();
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
async fn move_to_other(server: &TestServer, key: &str) {
    let unsealed = server.unsealed();
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
async fn with_user() -> TestServer {
    let server = TestServer::new().await;
    server.post("sys/auth/up", ROOT, json!({ "type": "userpass" })).await.ok();
    server.post("auth/up/users/anna", ROOT, json!({ "password": "right" })).await.ok();
    server
}

async fn login(server: &TestServer, password: &str) -> (u16, String) {
    let answer = server.post("auth/up/login/anna", "", json!({ "password": password })).await;
    (answer.status, answer.body["auth"]["entity_id"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn sec_ns03_a_mount_of_another_namespace_is_not_found() {
    let mut server = TestServer::new().await;
    server.post("sys/mounts/a", ROOT, json!({ "type": "kv" })).await.ok();
    server.post("a/x", ROOT, json!({ "k": "v" })).await.ok();
    let uuid = server.unsealed().engines.mounts.router().at("a/").unwrap().entry.uuid.clone();
    move_to_other(&server, &format!("sys/mount/{uuid}")).await;
    for _ in 0..2 {
        server.get("a/x", ROOT).await.is(404);
        assert!(server.get("sys/mounts", ROOT).await.ok().data().get("a/").is_none());
        server.restarted().await;
    }
}

#[tokio::test]
async fn sec_ns03_an_alias_of_another_namespace_is_not_found() {
    let server = with_user().await;
    let (_, first) = login(&server, "right").await;
    assert_eq!(login(&server, "right").await, (200, first.clone()));
    move_to_other(&server, &only_record(&server, "identity/alias/").await).await;
    let (status, second) = login(&server, "right").await;
    assert!(
        status == 200 && !second.is_empty() && second != first,
        "the alias leads to an entity of its own namespace"
    );
}

#[tokio::test]
async fn sec_ns03_a_lock_of_another_namespace_has_no_effect() {
    let mut server = with_user().await;
    for _ in 0..5 {
        login(&server, "wrong").await;
    }
    server.restarted().await;
    assert_eq!(login(&server, "right").await.0, 403);
    move_to_other(&server, &only_record(&server, "sys/lockout/").await).await;
    for _ in 0..2 {
        assert_eq!(login(&server, "right").await.0, 200);
        server.restarted().await;
    }
}

#[tokio::test]
async fn sec_ns03_a_quota_of_another_namespace_does_not_apply() {
    const SOMEBODY: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    let mut server = TestServer::new().await;
    server.post("sys/quotas/rate-limit/all", ROOT, json!({ "rate": 7 })).await.is(204);
    let limit =
        |server: &TestServer| server.node.admission().check_quota_of_root("secret/data/a", SOMEBODY).map(|v| v.limit);
    assert_eq!(limit(&server), Some(7));
    move_to_other(&server, "sys/quotas/rate-limit/all").await;
    for _ in 0..2 {
        assert_eq!(limit(&server), None);
        server.get("sys/quotas/rate-limit/all", ROOT).await.is(404);
        server.restarted().await;
    }
}

#[tokio::test]
async fn sec_ns03_a_response_wrapped_in_another_namespace_is_not_found() {
    let server = TestServer::new().await;
    let wrapping = server.wrapped("POST", "sys/wrapping/wrap", ROOT, json!({ "k": "v" }), 60).await.ok().wrapping();
    server.post("sys/wrapping/lookup", "", json!({ "token": wrapping })).await.ok();
    let unsealed = server.unsealed();
    let token = unsealed.access.wrapper.wrapping_token(&wrapping).await.unwrap().unwrap();
    let storage = unsealed.engines.mounts.router().at("cubbyhole/").unwrap().storage_prefix();
    move_to_other(&server, &format!("{storage}{}/wrapinfo", token.store)).await;
    let unwrap = json!({ "token": wrapping });
    server.post("sys/wrapping/unwrap", ROOT, unwrap).await.is(400);
}

#[tokio::test]
async fn audit_entries_name_the_namespace_of_the_request() {
    let server = TestServer::new().await;
    let last = || serde_json::from_str::<Value>(server.audit("audit").lines().last().unwrap()).unwrap();
    server.get("secret/data/a", ROOT).await.is(404);
    assert_eq!(last()["request"]["namespace"], json!({ "id": "root" }));
    let id = server.post("sys/namespaces/team", ROOT, json!({})).await.ok().data()["id"].clone();
    server.get("team/sys/policies/acl/default", ROOT).await.ok();
    let entry = last();
    assert_eq!(entry["request"]["namespace"], json!({ "id": id, "path": "team/" }));
    assert_eq!(entry["request"]["path"], "sys/policies/acl/default");
    let granting = json!([{ "name": "root", "namespace_id": "root", "type": "acl" }]);
    assert_eq!(entry["auth"]["policy_results"]["granting_policies"], granting);
}
