//! Two nodes on one storage: a change of a namespace on one counts at the next request on the other.

use serde_json::{Value, json};

use super::tenants::{chief, create, delete, log_in, mount_kv, mount_userpass, set, token_of, within};
use crate::tests::fixture::{ROOT, TestServer};
use crate::tests::two_nodes::Pair;

async fn read(server: &TestServer, header: &str, path: &str, token: &str) -> u16 {
    within(server, header, ("GET", path), token, Value::Null).await.status
}

#[tokio::test]
async fn creation_lock_and_deletion_count_on_the_other_node_at_once() {
    let pair = Pair::new().await;
    let (leader, standby) = (&pair.leader, &pair.standby);
    assert_eq!(read(standby, "a", "sys/mounts", ROOT).await, 404);
    create(leader, "a").await;
    assert_eq!(read(standby, "a", "sys/mounts", ROOT).await, 200);
    create(leader, "a/b").await;
    for path in ["a/sys/mounts", "a/b/sys/mounts", "a/sys/policies/acl/default", "a/b/sys/auth", "sys/namespaces/a"] {
        pair.read(path).await.ok();
    }
    let token = chief(leader, "a").await;
    assert_eq!(read(standby, "a/b", "sys/mounts", &token).await, 200);
    let key = set(leader, "", "sys/namespaces/api-lock/lock/a", Value::Null).await.data()["unlock_key"].clone();
    for header in ["a", "a/b"] {
        assert_eq!(read(standby, header, "sys/mounts", &token).await, 503, "{header}");
        assert_eq!(read(standby, header, "nowhere", "").await, 503, "{header}");
    }
    assert_eq!(pair.read("sys/namespaces/a").await.ok().data()["locked"], true);
    set(leader, "a", "sys/namespaces/api-lock/unlock", json!({ "unlock_key": key })).await;
    assert_eq!(read(standby, "a/b", "sys/mounts", &token).await, 200);
    let patch = json!({ "custom_metadata": { "k": "v" } });
    within(leader, "", ("PATCH", "sys/namespaces/a"), ROOT, patch).await.ok();
    assert_eq!(pair.read("sys/namespaces/a").await.ok().data()["custom_metadata"]["k"], "v");
    delete(leader, "a/b").await;
    assert_eq!(read(standby, "a/b", "sys/mounts", ROOT).await, 404);
    assert_eq!(read(standby, "a", "sys/mounts", &token).await, 200);
    delete(leader, "a").await;
    for header in ["a", "a/b"] {
        assert_eq!(read(standby, header, "sys/mounts", ROOT).await, 404);
        assert_eq!(read(standby, header, "sys/mounts", &token).await, 404);
    }
    assert_eq!(read(standby, "", "auth/token/lookup-self", &token).await, 403);
    // Created again it has nothing of the former one, on both nodes.
    let id = create(leader, "a").await;
    assert_eq!(pair.read("sys/namespaces/a").await.ok().data()["id"], json!(id));
    assert_eq!(read(standby, "a", "sys/policies/acl/everything", ROOT).await, 404);
    assert_eq!(read(standby, "a", "sys/mounts", &token).await, 403);
    pair.check();
}

#[tokio::test]
async fn a_deletion_that_has_begun_counts_on_the_other_node() {
    let pair = Pair::new().await;
    let (leader, standby) = (&pair.leader, &pair.standby);
    create(leader, "a").await;
    mount_kv(leader, "a").await;
    set(leader, "a", "kv/x", json!({ "k": "v" })).await;
    let token = chief(leader, "a").await;
    assert_eq!(read(standby, "a", "kv/x", &token).await, 200);
    within(leader, "", ("DELETE", "sys/namespaces/a"), ROOT, Value::Null).await.is(200);
    assert_eq!(read(standby, "a", "kv/x", &token).await, 404);
    assert_eq!(read(standby, "a", "kv/x", ROOT).await, 404);
    assert!(matches!(read(standby, "", "auth/token/lookup-self", &token).await, 403 | 404));
    pair.check();
}

#[tokio::test]
async fn mounts_policies_and_tokens_of_a_namespace_follow() {
    let pair = Pair::new().await;
    let (leader, standby) = (&pair.leader, &pair.standby);
    for path in ["a", "a/b", "c"] {
        create(leader, path).await;
        // The standby opens it before anything changes.
        assert_eq!(read(standby, path, "sys/mounts", ROOT).await, 200);
        assert_eq!(read(standby, path, "kv/x", ROOT).await, 404);
    }
    for path in ["a", "a/b", "c"] {
        mount_kv(leader, path).await;
        set(leader, path, "kv/x", json!({ "at": path })).await;
        assert_eq!(pair.read(&format!("{path}/kv/x")).await.ok().data()["at"], path);
    }
    set(leader, "a", "sys/mounts/kv/tune", json!({ "default_lease_ttl": "77s" })).await;
    assert_eq!(pair.read("a/kv/x").await.ok().body["lease_duration"], 77);
    assert_ne!(pair.read("a/b/kv/x").await.ok().body["lease_duration"], 77);
    set(leader, "a", "sys/remount", json!({ "from": "kv", "to": "kv2" })).await;
    assert_eq!((read(standby, "a", "kv/x", ROOT).await, read(standby, "a", "kv2/x", ROOT).await), (404, 200));
    within(leader, "a", ("DELETE", "sys/mounts/kv2"), ROOT, Value::Null).await.is(204);
    assert_eq!(read(standby, "a", "kv2/x", ROOT).await, 404);

    let grant = |path: &str| json!({ "policy": format!("path \"{path}\" {{ capabilities = [\"read\"] }}") });
    set(leader, "a", "sys/policies/acl/p", grant("b/kv/x")).await;
    let token = token_of(leader, "a", json!({ "policies": ["p"], "ttl": "1h" })).await;
    assert_eq!(read(standby, "a/b", "kv/x", &token).await, 200);
    set(leader, "a", "sys/policies/acl/p", grant("kv/x")).await;
    assert_eq!(read(standby, "a/b", "kv/x", &token).await, 403);
    set(leader, "a", "sys/policies/acl/p", grant("+/kv/*")).await;
    assert_eq!(read(standby, "a/b", "kv/x", &token).await, 200);
    for other in ["", "a/b", "c"] {
        set(leader, other, "sys/policies/acl/p", grant("nothing")).await;
    }
    assert_eq!(read(standby, "a/b", "kv/x", &token).await, 200);
    within(leader, "a", ("DELETE", "sys/policies/acl/p"), ROOT, Value::Null).await.ok();
    assert_eq!(read(standby, "a/b", "kv/x", &token).await, 403);
    leader.post("auth/token/revoke", ROOT, json!({ "token": token })).await.ok();
    assert_eq!(read(standby, "a", "auth/token/lookup-self", &token).await, 403);
    pair.check();
}

#[tokio::test]
async fn identity_and_locks_of_users_of_a_namespace_follow() {
    let pair = Pair::new().await;
    let (leader, standby) = (&pair.leader, &pair.standby);
    create(leader, "a").await;
    create(leader, "a/b").await;
    assert_eq!(read(standby, "a/b", "sys/mounts", ROOT).await, 200);
    mount_kv(leader, "a/b").await;
    set(leader, "a/b", "kv/x", json!({ "k": "v" })).await;
    let accessor = mount_userpass(leader, "a", json!([])).await;
    let rule = json!({ "policy": r#"path "b/kv/x" { capabilities = ["read"] }"# });
    set(leader, "a", "sys/policies/acl/team", rule).await;
    let login = log_in(leader, "a", "right").await.ok();
    let (token, entity) = (login.token(), login.body["auth"]["entity_id"].as_str().unwrap().to_owned());
    let reads = async || read(standby, "a/b", "kv/x", &token).await;
    assert_eq!(reads().await, 403);
    let group = |members: Value| json!({ "policies": ["team"], "member_entity_ids": members });
    for _ in 0..2 {
        set(leader, "a", "identity/group/name/g", group(json!([entity]))).await;
        assert_eq!(reads().await, 200);
        set(leader, "a", "identity/group/name/g", group(json!([]))).await;
        assert_eq!(reads().await, 403);
    }
    set(leader, "a", &format!("identity/entity/id/{entity}"), json!({ "policies": ["team"] })).await;
    assert_eq!(reads().await, 200);
    set(leader, "a", &format!("identity/entity/id/{entity}"), json!({ "disabled": true })).await;
    assert_eq!(reads().await, 403);
    set(leader, "a", &format!("identity/entity/id/{entity}"), json!({ "disabled": false })).await;
    assert_eq!(reads().await, 200);
    for _ in 0..5 {
        log_in(leader, "a", "wrong").await;
    }
    assert_eq!(pair.read("a/sys/locked-users").await.ok().data()["total"], 1);
    assert_eq!(pair.read("sys/locked-users").await.ok().data()["total"], 1);
    set(leader, "a", &format!("sys/locked-users/{accessor}/unlock/anna"), json!({})).await;
    assert_eq!(pair.read("a/sys/locked-users").await.ok().data()["total"], 0);
    within(leader, "a", ("DELETE", &format!("identity/entity/id/{entity}")), ROOT, Value::Null).await.ok();
    assert_eq!(reads().await, 403);
    pair.check();
}

#[tokio::test]
async fn a_mount_above_hides_nothing_on_the_other_node() {
    let pair = Pair::new().await;
    let (leader, standby) = (&pair.leader, &pair.standby);
    set(leader, "", "sys/mounts/x", json!({ "type": "kv", "options": { "version": "1" } })).await;
    set(leader, "", "x/kv/y", json!({ "k": "mount" })).await;
    assert_eq!(pair.read("x/kv/y").await.ok().data()["k"], "mount");
    within(leader, "", ("DELETE", "sys/mounts/x"), ROOT, Value::Null).await.is(204);
    create(leader, "x").await;
    mount_kv(leader, "x").await;
    set(leader, "x", "kv/y", json!({ "k": "namespace" })).await;
    assert_eq!(pair.read("x/kv/y").await.ok().data()["k"], "namespace");
    delete(leader, "x").await;
    assert_eq!(read(standby, "", "x/kv/y", ROOT).await, 404);
    set(leader, "", "sys/mounts/x", json!({ "type": "kv", "options": { "version": "1" } })).await;
    pair.read("x/kv/y").await.is(404);
    pair.check();
}
