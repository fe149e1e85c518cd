//! No write of a request lands in a namespace after its deletion has begun.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::tenants::{
    Tenant, assert_gone, dump, gone, mount_kv, mount_userpass, set, tenant, with_users, within, work, wrapped_within,
};
use crate::tests::fixture::{ROOT, TestResponse, TestServer};

/// The caller of a write.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Tenant,
    Root,
    Nobody,
}

/// A request that writes in a namespace.
struct Write {
    by: By,
    method: &'static str,
    path: &'static str,
    body: Value,
    wrapped: bool,
}

fn write(by: By, method: &'static str, path: &'static str, body: Value) -> Write {
    Write { by, method, path, body, wrapped: false }
}

fn writes() -> Vec<Write> {
    use By::{Nobody, Root, Tenant};
    let kv = || json!({ "type": "kv" });
    let policy = json!({ "policy": r#"path "x" { capabilities = ["read"] }"# });
    let mut all = vec![
        write(Nobody, "POST", "auth/up/login/anna", json!({ "password": "right" })),
        write(Nobody, "POST", "auth/up/login/fifth", json!({ "password": "wrong" })),
        Write { wrapped: true, ..write(Tenant, "GET", "kv/x", Value::Null) },
        Write { wrapped: true, ..write(Root, "GET", "kv/x", Value::Null) },
        Write { wrapped: true, ..write(Tenant, "POST", "sys/wrapping/wrap", json!({ "k": "v" })) },
        Write { wrapped: true, ..write(Tenant, "POST", "auth/token/create", json!({})) },
        Write { wrapped: true, ..write(Tenant, "GET", "sys/mounts", Value::Null) },
    ];
    for by in [Tenant, Root] {
        all.extend([
            write(by, "POST", "sys/policies/acl/p", policy.clone()),
            write(by, "DELETE", "sys/policies/acl/default2", Value::Null),
            write(
                by,
                "POST",
                "sys/policies/password/p",
                json!({ "policy": "length = 20\nrule \"charset\" { charset = \"abc\" }" }),
            ),
            write(by, "POST", "sys/mounts/k2", kv()),
            write(by, "POST", "sys/auth/u2", json!({ "type": "userpass" })),
            write(by, "POST", "sys/mounts/kv/tune", json!({ "description": "d" })),
            write(by, "POST", "sys/auth/up/tune", json!({ "description": "d" })),
            write(by, "POST", "sys/remount", json!({ "from": "kv", "to": "kv9" })),
            write(by, "DELETE", "sys/mounts/kv", Value::Null),
            write(by, "DELETE", "sys/auth/up", Value::Null),
            write(by, "POST", "kv/y", json!({ "k": "v" })),
            write(by, "POST", "two/data/y", json!({ "data": { "k": "v" } })),
            write(by, "POST", "auth/token/create", json!({ "policies": ["everything"] })),
            write(by, "POST", "auth/token/create-orphan", json!({ "policies": ["everything"] })),
            write(by, "POST", "auth/token/roles/r", json!({})),
            write(by, "POST", "auth/up/users/bert", json!({ "password": "p" })),
            write(by, "POST", "identity/entity", json!({ "name": "e" })),
            write(by, "POST", "identity/group", json!({ "name": "g" })),
            write(by, "POST", "identity/oidc/key/k", json!({})),
            write(by, "POST", "identity/oidc/client/c", json!({})),
            write(by, "POST", "cubbyhole/y", json!({ "k": "v" })),
            write(by, "POST", "sys/namespaces/child", json!({})),
            write(by, "POST", "sys/namespaces/api-lock/lock", Value::Null),
            write(by, "GET", "users/creds/u", Value::Null),
            write(by, "POST", "t/keys/k2", json!({})),
        ]);
    }
    all.push(write(Tenant, "POST", "auth/token/renew-self", json!({ "increment": "2h" })));
    all
}

/// Waits until a namespace does not exist, without a further pass of the leader.
async fn vanished(server: &TestServer, path: &str) {
    while server.get(&format!("sys/namespaces/{path}"), ROOT).await.status != 404 {
        tokio::task::yield_now().await;
    }
}

/// A namespace with the mounts that a write needs.
async fn prepared(server: &TestServer, path: &str, write: &Write) -> Tenant {
    let tenant = tenant(server, path).await;
    let needs = |mount: &str| write.path.starts_with(mount) || write.body.to_string().contains(mount);
    let at = |mount: &str| format!("sys/mounts/{mount}");
    if needs("kv/") || needs("\"kv\"") || needs("sys/mounts/kv") {
        mount_kv(server, path).await;
        set(server, path, "kv/x", json!({ "k": "v" })).await;
    }
    if needs("two/") {
        set(server, path, &at("two"), json!({ "type": "kv", "options": { "version": "2" } })).await;
        set(server, path, "two/config", json!({ "max_versions": 3 })).await;
    }
    if needs("users/") {
        set(server, path, &at("users"), json!({ "type": "users" })).await;
    }
    if needs("t/") {
        set(server, path, &at("t"), json!({ "type": "transit" })).await;
    }
    if needs("auth/up") || needs("sys/auth/up") {
        mount_userpass(server, path, json!(["everything"])).await;
    }
    if needs("auth/up/login/fifth") {
        set(server, path, "auth/up/users/fifth", json!({ "password": "right" })).await;
        for _ in 0..4 {
            within(server, path, ("POST", "auth/up/login/fifth"), "", json!({ "password": "wrong" })).await;
        }
    }
    tenant
}

async fn sent(server: &TestServer, tenant: &Tenant, write: &Write) -> TestResponse {
    let token = match write.by {
        By::Tenant => tenant.token.as_str(),
        By::Root => ROOT,
        By::Nobody => "",
    };
    let (what, body) = ((write.method, write.path), write.body.clone());
    match write.wrapped {
        true => wrapped_within(server, &tenant.path, what, token, body).await,
        false => within(server, &tenant.path, what, token, body).await,
    }
}

#[tokio::test]
async fn sec_ns06_no_write_lands_after_a_deletion() {
    let (server, external) = with_users().await;
    let server = Arc::new(server);
    let mut faults = Vec::new();
    for (n, write) in writes().into_iter().enumerate() {
        let who = match write.by {
            By::Tenant => "tenant",
            By::Root => "root",
            By::Nobody => "nobody",
        };
        let named = format!("{} {} by {who}, wrapped: {}", write.method, write.path, write.wrapped);
        let tenant = Arc::new(prepared(&server, &format!("n{n}"), &write).await);
        let gate = server.backend.arm();
        let mut held = {
            let (server, tenant) = (server.clone(), tenant.clone());
            tokio::spawn(async move { sent(&server, &tenant, &write).await })
        };
        let early = tokio::select! {
            () = gate.reached.notified() => None,
            response = &mut held => Some(response.unwrap()),
        };
        if let Some(early) = early {
            faults.push(format!("{named}: it commits nothing: {early:?}"));
            gate.open.notify_one();
            continue;
        }
        let path = format!("sys/namespaces/n{n}");
        let marked = tokio::time::timeout(Duration::from_secs(5), server.delete(&path, ROOT)).await;
        let waited = tokio::time::timeout(Duration::from_secs(5), vanished(&server, &tenant.path)).await;
        gate.open.notify_one();
        let response = held.await.unwrap();
        if marked.is_err() || waited.is_err() {
            faults.push(format!("{named}: the deletion waits for the request"));
            gone(&server, &tenant.path).await;
        }
        // The pass of the leader that deletes what has landed since, and the one that finds nothing.
        for _ in 0..2 {
            work(&server).await;
        }
        let left = dump(&server).await;
        let of_it: Vec<_> = left
            .iter()
            .filter(|(key, value)| {
                (key.contains(&tenant.id) || value.contains(&tenant.id)) && **key != format!("ns/gone/{}", tenant.id)
            })
            .map(|(key, value)| format!("{key} = {}", value.chars().take(120).collect::<String>()))
            .collect();
        if !of_it.is_empty() {
            faults.push(format!("{named} ({}): left {of_it:#?}", response.status));
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    drop(external);
}

#[tokio::test]
async fn sec_ns06_a_child_created_during_a_deletion_is_refused_or_kept() {
    let (server, _) = with_users().await;
    let server = Arc::new(server);
    let tenant = tenant(&server, "a").await;
    let gate = server.backend.arm();
    let held = {
        let server = server.clone();
        tokio::spawn(async move { within(&server, "", ("DELETE", "sys/namespaces/a"), ROOT, Value::Null).await })
    };
    gate.reached.notified().await;
    let made = within(&server, "a", ("POST", "sys/namespaces/b"), ROOT, json!({})).await;
    gate.open.notify_one();
    let deleted = held.await.unwrap();
    match (made.status, deleted.status) {
        (200, 400) => drop(within(&server, "a/b", ("GET", "sys/mounts"), ROOT, Value::Null).await.ok()),
        (400.., 200) => {
            gone(&server, "a").await;
            assert_gone(&dump(&server).await, &tenant.id, "after the deletion");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_mount_and_a_namespace_of_one_name_are_not_both_created() {
    let server = Arc::new(TestServer::new().await);
    for (n, (first, second)) in [("mounts", "namespaces"), ("namespaces", "mounts")].into_iter().enumerate() {
        let gate = server.backend.arm();
        let name = format!("both{n}");
        let held = {
            let (server, path) = (server.clone(), format!("sys/{first}/{name}"));
            tokio::spawn(async move { server.post(&path, ROOT, json!({ "type": "kv" })).await })
        };
        gate.reached.notified().await;
        let other = {
            let (server, path) = (server.clone(), format!("sys/{second}/{name}"));
            tokio::spawn(async move { server.post(&path, ROOT, json!({ "type": "kv" })).await })
        };
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        gate.open.notify_one();
        let (one, two) = (held.await.unwrap(), other.await.unwrap());
        assert!(one.status < 300 && two.status == 400, "{first} {one:?}, {second} {two:?}");
    }
}

#[tokio::test]
async fn two_creations_of_one_name_give_one_namespace() {
    let server = Arc::new(TestServer::new().await);
    let gate = server.backend.arm();
    let create = || {
        let server = server.clone();
        tokio::spawn(async move { server.post("sys/namespaces/a", ROOT, json!({})).await })
    };
    let first = create();
    gate.reached.notified().await;
    let second = create();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    gate.open.notify_one();
    let (first, second) = (first.await.unwrap().ok(), second.await.unwrap().ok());
    assert_eq!(first.data()["id"], second.data()["id"]);
    let records = dump(&server).await;
    assert_eq!(records.keys().filter(|key| key.starts_with("ns/rec/")).count(), 1);
}
