//! Creation under faults, and deletion that is interrupted anywhere.

use std::cell::Cell;
use std::sync::Arc;

use keepfast_storage::{MemoryBackend, StorageError};
use serde_json::{Value, json};

use super::tenants::{
    Dump, ExternalUsers, Tenant, assert_gone, chief, create, delete, dump, engines, gone, keys_of, log_in, mount_kv,
    mount_userpass, open, records_of, restart, set, tenant, token_of, with_users, within, work, wrapped_within,
};
use crate::tests::fixture::{ROOT, TestServer};
use crate::tests::gate::Gated;

thread_local! {
    /// The number of commits that are accepted before they fail.
    static ACCEPTED: Cell<i64> = const { Cell::new(0) };
    /// The number of commits that failed.
    static REFUSED: Cell<i64> = const { Cell::new(0) };
}

/// Refuses every commit of this test after `accepted` ones.
fn refuse_after(server: &TestServer, accepted: i64) {
    ACCEPTED.set(accepted);
    REFUSED.set(0);
    server.backend.refuse(|_| {
        ACCEPTED.set(ACCEPTED.get() - 1);
        if ACCEPTED.get() >= 0 {
            return None;
        }
        REFUSED.set(REFUSED.get() + 1);
        Some(StorageError::Full)
    });
}

/// Refuses only the commit after `accepted` ones.
fn refuse_one(server: &TestServer, accepted: i64) {
    ACCEPTED.set(accepted);
    REFUSED.set(0);
    server.backend.refuse(|_| {
        ACCEPTED.set(ACCEPTED.get() - 1);
        if ACCEPTED.get() != -1 {
            return None;
        }
        REFUSED.set(REFUSED.get() + 1);
        Some(StorageError::Full)
    });
}

#[tokio::test]
async fn sec_ns08_a_fault_at_any_write_of_a_creation_creates_nothing() {
    let server = TestServer::new().await;
    create(&server, "a").await;
    for parent in ["", "a"] {
        for n in 0.. {
            assert!(n < 50, "a creation has few commits");
            let before = dump(&server).await;
            refuse_one(&server, n);
            let path = format!("sys/namespaces/n{n}");
            let made = within(&server, parent, ("POST", &path), ROOT, json!({ "custom_metadata": { "k": "v" } })).await;
            server.backend.accept();
            if REFUSED.get() == 0 {
                made.ok();
                break;
            }
            assert!(made.status >= 500, "{made:?}");
            assert_eq!(dump(&server).await, before, "commit {n}");
            within(&server, parent, ("GET", &path), ROOT, Value::Null).await.is(404);
            let again = within(&server, parent, ("POST", &path), ROOT, json!({})).await.ok();
            assert_eq!(again.data()["custom_metadata"], json!({}));
            let inner = format!("{parent}/n{n}");
            within(&server, &inner, ("GET", "sys/mounts"), ROOT, Value::Null).await.ok();
        }
    }
}

#[tokio::test]
async fn sec_ns08_a_refused_deletion_or_lock_changes_nothing() {
    let server = TestServer::new().await;
    let a = tenant(&server, "a").await;
    for (method, path) in [
        ("DELETE", "sys/namespaces/a"),
        ("POST", "sys/namespaces/api-lock/lock/a"),
        ("POST", "sys/namespaces/a"),
        ("PATCH", "sys/namespaces/a"),
    ] {
        let before = dump(&server).await;
        refuse_after(&server, 0);
        let response = within(&server, "", (method, path), ROOT, json!({ "custom_metadata": { "k": "v" } })).await;
        assert!(response.status >= 500, "{method} {path}: {response:?}");
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        server.backend.accept();
        assert_eq!(dump(&server).await, before, "{method} {path}");
        within(&server, "a", ("GET", "sys/mounts"), &a.token, Value::Null).await.ok();
    }
}

/// A namespace with records of every kind.
async fn fill(server: &TestServer, path: &str) -> Tenant {
    let tenant = fill_quickly(server, path).await;
    for _ in 0..5 {
        log_in(server, path, "wrong").await;
    }
    tenant
}

/// The same without the lock of a user.
async fn fill_quickly(server: &TestServer, path: &str) -> Tenant {
    let tenant = tenant(server, path).await;
    mount_kv(server, path).await;
    for n in 0..3 {
        set(server, path, &format!("kv/{n}"), json!({ "k": "v" })).await;
    }
    set(server, path, "sys/mounts/users", json!({ "type": "users" })).await;
    set(server, path, "sys/mounts/t", json!({ "type": "transit" })).await;
    set(server, path, "t/keys/k", json!({})).await;
    let accessor = mount_userpass(server, path, json!(["everything"])).await;
    let login = log_in(server, path, "right").await.ok();
    let entity = login.body["auth"]["entity_id"].clone();
    set(server, path, "identity/group", json!({ "name": "g", "member_entity_ids": [entity] })).await;
    set(server, path, "identity/oidc/key/k", json!({ "allowed_client_ids": "*" })).await;
    let child = within(server, path, ("POST", "auth/token/create"), &tenant.token, json!({})).await.ok().token();
    for token in [&tenant.token, &child, &login.token()] {
        within(server, path, ("GET", "users/creds/u"), token, Value::Null).await.ok();
        within(server, path, ("POST", "cubbyhole/x"), token, json!({ "k": "v" })).await.ok();
    }
    wrapped_within(server, path, ("POST", "sys/wrapping/wrap"), &tenant.token, json!({ "k": "v" })).await.ok();
    wrapped_within(server, path, ("GET", "kv/1"), &child, Value::Null).await.ok();
    set(server, path, "auth/token/roles/r", json!({ "orphan": true })).await;
    set(server, path, "auth/token/create/r", json!({ "policies": ["everything"] })).await;
    set(
        server,
        path,
        "sys/policies/password/p",
        json!({ "policy": "length = 20\nrule \"charset\" { charset = \"abc\" }" }),
    )
    .await;
    assert!(accessor.starts_with("auth_userpass_"));
    tenant
}

fn users_of(external: &ExternalUsers, count: usize) {
    assert_eq!(external.lock().len(), count, "{:?}", external.lock());
}

#[tokio::test]
async fn a_deletion_leaves_nothing_and_touches_no_sibling() {
    let (server, external) = with_users().await;
    let (a, b) = (fill(&server, "a").await, fill(&server, "b").await);
    users_of(&external, 6);
    let before = dump(&server).await;
    assert!(keys_of(&before, &a.id).len() > 60, "{:#?}", keys_of(&before, &a.id));
    delete(&server, "a").await;
    users_of(&external, 3);
    let after = dump(&server).await;
    assert_gone(&after, &a.id, "after the deletion");
    let theirs = records_of(&before, &b.id);
    assert_eq!(records_of(&after, &b.id), theirs);
    let of_a = keys_of(&before, &a.id);
    let others = |dump: &Dump| -> Dump {
        let is_other =
            |(key, value): &(&String, &String)| !of_a.contains(*key) && !key.contains(&a.id) && !value.contains(&a.id);
        dump.iter().filter(is_other).map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let (was, is) = (others(&before), others(&after));
    let changed: Vec<_> = was
        .iter()
        .chain(&is)
        .filter(|(key, value)| was.get(*key) != Some(value) || is.get(*key) != Some(value))
        .collect();
    assert!(changed.is_empty(), "{changed:#?}");
    server.get("auth/token/lookup-self", &a.token).await.is(403);
    within(&server, "b", ("GET", "auth/token/lookup-self"), &b.token, Value::Null).await.ok();
}

#[tokio::test]
async fn a_deletion_forgets_what_tokens_from_above_stored_in_it() {
    let (server, _) = with_users().await;
    let above = tenant(&server, "p").await;
    let a = tenant(&server, "p/a").await;
    for token in [ROOT, &above.token] {
        within(&server, "p/a", ("POST", "cubbyhole/x"), token, json!({ "k": "v" })).await.ok();
        within(&server, "p", ("POST", "cubbyhole/x"), token, json!({ "k": "v" })).await.ok();
    }
    delete(&server, "p/a").await;
    let after = dump(&server).await;
    assert_gone(&after, &a.id, "after the deletion");
    for token in [ROOT, &above.token] {
        within(&server, "p", ("GET", "cubbyhole/x"), token, Value::Null).await.ok();
    }
    let revoke = json!({ "token": above.token });
    server.post("auth/token/revoke", ROOT, revoke).await.ok();
    let left = dump(&server).await;
    assert_eq!(left.keys().filter(|key| key.ends_with("/x")).count(), 1, "that of the root token: {left:#?}");
}

#[tokio::test]
async fn a_namespace_created_again_has_nothing_of_the_former_one() {
    let (server, _) = with_users().await;
    let old = fill(&server, "a").await;
    let batch = token_of(&server, "a", json!({ "type": "batch", "policies": ["everything"] })).await;
    delete(&server, "a").await;
    let new = create(&server, "a").await;
    assert_ne!(new, old.id);
    set(&server, "a", "sys/policies/acl/everything", json!({ "policy": super::tenants::EVERYTHING })).await;
    for token in [&old.token, &batch] {
        for header in ["", "a"] {
            within(&server, header, ("GET", "auth/token/lookup-self"), token, Value::Null).await.is(403);
            within(&server, header, ("GET", "sys/mounts"), token, Value::Null).await.is(403);
        }
    }
    for path in ["kv/1", "users/creds/u", "auth/up/users/anna"] {
        within(&server, "a", ("GET", path), ROOT, Value::Null).await.is(404);
    }
    log_in(&server, "a", "right").await.is(403);
    let policies = within(&server, "a", ("LIST", "sys/policies/acl"), ROOT, Value::Null).await.ok();
    assert_eq!(policies.data()["keys"], json!(["default", "everything"]));
}

/// A server over a copy of these records.
async fn over(image: &MemoryBackend, from: &TestServer, external: &ExternalUsers) -> TestServer {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = from.settings.clone();
    settings.audit = vec![crate::tests::fixture::device(dir.path(), "audit", &[])];
    let backend = Arc::new(Gated::with_records_of(image));
    let clock = from.clock.clone();
    let node = crate::Node::new(backend.clone(), engines(external), Arc::new(clock.clone()), settings.clone());
    let shares = from.shares.iter().map(|share| share.expose().to_vec().into()).collect();
    let mut server = TestServer { node, clock, backend, dir, shares, settings };
    open(&mut server, external).await;
    server
}

/// The work of the leader until a deletion is complete.
async fn finish(server: &TestServer, when: &str) {
    for _ in 0..5 {
        work(server).await;
        if server.get("sys/namespaces/a", ROOT).await.status == 404 {
            // A pass that finds nothing more, and forgets the namespace.
            work(server).await;
            return;
        }
    }
    panic!("{when}: {:?}", server.get("sys/namespaces/a", ROOT).await);
}

#[tokio::test]
async fn sec_ns06_a_deletion_that_dies_at_any_commit_is_completed() {
    let (server, external) = with_users().await;
    let (a, b) = (fill(&server, "a").await, fill(&server, "b").await);
    let theirs = records_of(&dump(&server).await, &b.id);
    server.backend.keep_images();
    delete(&server, "a").await;
    let images = server.backend.take_images();
    assert!(images.len() > 10, "{} commits", images.len());
    println!("{} commits", images.len());
    for (n, image) in images.iter().enumerate() {
        let when = format!("after commit {n}");
        let server = over(image, &server, &external).await;
        let found = server.get("sys/namespaces/a", ROOT).await;
        if found.status == 200 && found.data()["tainted"] == false {
            assert_eq!(n, 0, "the first commit marks it");
            within(&server, "a", ("GET", "auth/token/lookup-self"), &a.token, Value::Null).await.ok();
            continue;
        }
        // From the mark on nothing of it is usable.
        for (header, token) in [("a", &a.token), ("", &a.token)] {
            let status = within(&server, header, ("GET", "auth/token/lookup-self"), token, Value::Null).await.status;
            assert!(matches!(status, 403 | 404), "{when} {header}: {status}");
        }
        within(&server, "a", ("GET", "kv/1"), ROOT, Value::Null).await.is(404);
        if found.status == 200 {
            let again = within(&server, "", ("POST", "sys/namespaces/a"), ROOT, json!({})).await.is(400);
            assert_eq!(again.error(), "namespace with that name exists and is currently tainted", "{when}");
        }
        finish(&server, &when).await;
        let left = dump(&server).await;
        assert_gone(&left, &a.id, &when);
        assert_eq!(records_of(&left, &b.id), theirs, "{when}");
    }
    users_of(&external, 3);
}

#[tokio::test]
async fn sec_ns06_a_deletion_with_a_fault_at_any_commit_is_completed() {
    let (server, external) = with_users().await;
    let b = fill(&server, "b").await;
    for n in 0.. {
        let a = fill_quickly(&server, "a").await;
        let theirs = records_of(&dump(&server).await, &b.id);
        refuse_after(&server, n);
        let marked = within(&server, "", ("DELETE", "sys/namespaces/a"), ROOT, Value::Null).await;
        for _ in 0..2000 {
            tokio::task::yield_now().await;
        }
        server.backend.accept();
        let when = format!("after {n} commits");
        if n == 0 {
            assert!(marked.status >= 500, "{marked:?}");
            delete(&server, "a").await;
        } else {
            marked.is(200);
            finish(&server, &when).await;
        }
        let left = dump(&server).await;
        assert_gone(&left, &a.id, &when);
        assert_eq!(records_of(&left, &b.id), theirs, "{when}");
        users_of(&external, 3);
        if REFUSED.get() == 0 {
            break;
        }
    }
}

#[tokio::test]
async fn sec_ns06_a_large_deletion_that_dies_is_completed() {
    let (server, external) = with_users().await;
    let b = fill_quickly(&server, "b").await;
    let a = fill_quickly(&server, "a").await;
    for n in 0..25 {
        let token = token_of(&server, "a", json!({ "policies": ["everything"] })).await;
        within(&server, "a", ("GET", "users/creds/u"), &token, Value::Null).await.ok();
        if n % 5 == 0 {
            within(&server, "a", ("POST", "cubbyhole/x"), &token, json!({ "k": "v" })).await.ok();
        }
    }
    // More than two pages.
    for n in 0..450 {
        set(&server, "a", &format!("kv/many/{n}"), json!({ "k": "v" })).await;
    }
    let theirs = records_of(&dump(&server).await, &b.id);
    server.backend.keep_images();
    delete(&server, "a").await;
    let images = server.backend.take_images();
    println!("{} commits", images.len());
    let step = images.len() / 10;
    for (n, image) in images.iter().enumerate().skip(1).step_by(step.max(1)) {
        let when = format!("after commit {n}");
        let server = over(image, &server, &external).await;
        finish(&server, &when).await;
        let left = dump(&server).await;
        assert_gone(&left, &a.id, &when);
        assert_eq!(records_of(&left, &b.id), theirs, "{when}");
    }
    users_of(&external, 3);
}

#[tokio::test]
async fn a_deletion_waits_for_a_lease_that_cannot_be_revoked() {
    let (mut server, external) = with_users().await;
    let a = fill(&server, "a").await;
    // The engine is missing: its leases cannot be revoked.
    server.node.lifecycle.seal().await;
    let backend: Arc<dyn keepfast_storage::Backend> = server.backend.clone();
    let (clock, settings) = (Arc::new(server.clock.clone()), server.settings.clone());
    server.node = crate::Node::new(backend, keepfast_engines::all(), clock, settings);
    assert!(server.node.lifecycle.unseal(&server.shares).await.unwrap());
    within(&server, "", ("DELETE", "sys/namespaces/a"), ROOT, Value::Null).await.is(200);
    for _ in 0..2000 {
        tokio::task::yield_now().await;
    }
    work(&server).await;
    assert_eq!(server.get("sys/namespaces/a", ROOT).await.ok().data()["tainted"], true);
    users_of(&external, 3);
    within(&server, "a", ("GET", "sys/mounts"), ROOT, Value::Null).await.is(404);
    restart(&mut server, &external).await;
    finish(&server, "with the engine").await;
    users_of(&external, 0);
    assert_gone(&dump(&server).await, &a.id, "with the engine");
}

#[tokio::test]
async fn a_namespace_with_children_is_not_deleted_and_stays_usable() {
    let server = TestServer::new().await;
    let a = tenant(&server, "a").await;
    tenant(&server, "a/b").await;
    let refused = within(&server, "", ("DELETE", "sys/namespaces/a"), ROOT, Value::Null).await.is(400);
    assert_eq!(refused.error(), "unable to delete namespace containing child namespaces");
    within(&server, "a", ("GET", "sys/mounts"), &a.token, Value::Null).await.ok();
    delete(&server, "a/b").await;
    delete(&server, "a").await;
    let missing = within(&server, "", ("DELETE", "sys/namespaces/a"), ROOT, Value::Null).await.is(200);
    assert_eq!(missing.body["warnings"], json!(["requested namespace does not exist"]));
}

#[tokio::test]
async fn a_locked_namespace_and_one_under_quarantine_are_deleted() {
    let (server, external) = with_users().await;
    let a = fill(&server, "a").await;
    set(&server, "", "sys/namespaces/api-lock/lock/a", Value::Null).await;
    delete(&server, "a").await;
    users_of(&external, 0);
    assert_gone(&dump(&server).await, &a.id, "locked");
}

#[tokio::test]
async fn a_repeated_deletion_and_a_restart_meanwhile_are_harmless() {
    let (mut server, external) = with_users().await;
    let a = fill(&server, "a").await;
    for _ in 0..3 {
        let response = within(&server, "", ("DELETE", "sys/namespaces/a"), ROOT, Value::Null).await.is(200);
        let expected = json!({ "status": "in-progress" });
        assert!(response.data().is_null() || *response.data() == expected, "{response:?}");
    }
    restart(&mut server, &external).await;
    if server.get("sys/namespaces/a", ROOT).await.status == 200 {
        finish(&server, "after the restart").await;
    }
    gone(&server, "a").await;
    assert_gone(&dump(&server).await, &a.id, "after the restart");
    let again = create(&server, "a").await;
    chief(&server, "a").await;
    assert_ne!(again, a.id);
}
