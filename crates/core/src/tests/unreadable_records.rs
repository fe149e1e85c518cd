//! Stored records that cannot be read: each affects only its subject, and none of them grants access.

use bytes::Bytes;
use keepfast_framework::engine::Registered;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Engine, Error, Kind, Result, Routes};
use keepfast_storage::{Backend as _, Batch, Key, Page, Write};
use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, TestServer};
use crate::tests::tokens::stored;

/// The ways in which a record is damaged.
#[derive(Clone, Copy)]
enum Damage {
    /// The ciphertext cannot be decrypted.
    Ciphertext,
    /// The plaintext is no valid record.
    Plaintext,
}

const WAYS: [Damage; 2] = [Damage::Ciphertext, Damage::Plaintext];

/// Damages every record below a path, which exists, and restarts the process.
async fn damage(server: &mut TestServer, way: Damage, path: &str) {
    let mut paths: Vec<String> = stored(server, "").await;
    paths.retain(|known| known.starts_with(path));
    assert!(!paths.is_empty(), "{path}");
    for path in paths {
        match way {
            Damage::Ciphertext => {
                let key = Key::new(&path).unwrap();
                let value = Bytes::from_static(b"damaged by the test, and longer than any header");
                let batch = Batch { reads: Vec::new(), writes: vec![Write::Put { key, value }] };
                server.backend.commit(batch).await.unwrap();
            }
            Damage::Plaintext => {
                let barrier = server.unsealed().barrier.clone();
                let mut tx = barrier.begin();
                tx.put(&barrier.view(""), &path, Bytes::from_static(b"{\"damaged\""));
                tx.commit().await.unwrap();
            }
        }
    }
    server.restarted().await;
}

async fn token(server: &TestServer, policies: &[&str]) -> String {
    server.post("auth/token/create", ROOT, json!({ "policies": policies })).await.ok().token()
}

#[tokio::test]
async fn a_damaged_mount_record_stops_neither_unseal_nor_other_mounts() {
    for way in WAYS {
        let mut server = TestServer::new().await;
        for path in ["a", "b"] {
            server.post(&format!("sys/mounts/{path}"), ROOT, json!({ "type": "kv" })).await.ok();
            server.post(&format!("{path}/x"), ROOT, json!({ "k": path })).await.ok();
        }
        let uuid = server.get("sys/mounts", ROOT).await.ok().data()["a/"]["uuid"].as_str().unwrap().to_owned();
        damage(&mut server, way, &format!("sys/mount/{uuid}")).await;
        server.get("a/x", ROOT).await.is(404);
        assert_eq!(server.get("b/x", ROOT).await.ok().data()["k"], "b");
        server.get("sys/mounts", ROOT).await.ok();
        server.post("sys/mounts/c", ROOT, json!({ "type": "kv" })).await.ok();
        server.unsealed().engines.changes.resume_unmounts().await.unwrap();
    }
}

#[tokio::test]
async fn sec_kf02_a_policy_that_cannot_be_read_denies() {
    for way in WAYS {
        let mut server = TestServer::new().await;
        let rule = json!({ "policy": "path \"secret/*\" { capabilities = [\"read\"] }" });
        server.post("sys/policies/acl/wide", ROOT, rule.clone()).await.ok();
        let narrow = json!({ "policy": "path \"secret/data/x\" { capabilities = [\"deny\"] }" });
        server.post("sys/policies/acl/narrow", ROOT, narrow).await.ok();
        server.post("secret/data/x", ROOT, json!({ "data": { "k": "v" } })).await.ok();
        let (both, wide) = (token(&server, &["wide", "narrow"]).await, token(&server, &["wide"]).await);
        damage(&mut server, way, "sys/policy/narrow").await;
        // An ACL without the damaged policy would grant what the others grant.
        assert!(server.get("secret/data/x", &both).await.status >= 400);
        assert!(server.get("secret/data/y", &both).await.status >= 400);
        server.get("secret/data/x", &wide).await.ok();
        server.post("sys/policies/acl/narrow", ROOT, rule).await.ok();
        server.get("secret/data/x", &both).await.ok();
    }
}

#[tokio::test]
async fn a_stored_policy_that_no_longer_parses_denies_and_is_returned() {
    let mut server = TestServer::new().await;
    let rule = json!({ "policy": "path \"secret/*\" { capabilities = [\"read\"] }" });
    server.post("sys/policies/acl/old", ROOT, rule).await.ok();
    let old = token(&server, &["old"]).await;
    let barrier = server.unsealed().barrier.clone();
    let mut tx = barrier.begin();
    let record = tx.get(&barrier.view("sys/"), "policy/old").await.unwrap().unwrap();
    let mut record: Value = serde_json::from_slice(&record).unwrap();
    record["text"] =
        json!(format!("path \"a/{}\" {{ capabilities = [\"read\"] }}", "{{identity.entity.id}}".repeat(300)));
    tx.put(&barrier.view("sys/"), "policy/old", serde_json::to_vec(&record).unwrap().into());
    tx.commit().await.unwrap();
    server.restarted().await;
    assert!(server.get("secret/data/x", &old).await.status >= 400);
    server.get("sys/policies/acl/old", ROOT).await.ok();
    server.call("DELETE", "sys/policies/acl/old", ROOT, Value::Null).await.ok();
}

/// Stores another text in the record of a policy, as an older version may have done, and restarts the process.
async fn store_policy(server: &mut TestServer, name: &str, text: &str) {
    server.policy(name, "path \"x\" { capabilities = [\"read\"] }").await;
    let barrier = server.unsealed().barrier.clone();
    let (view, at, mut tx) = (barrier.view("sys/"), format!("policy/{name}"), barrier.begin());
    let mut record: Value = serde_json::from_slice(&tx.get(&view, &at).await.unwrap().unwrap()).unwrap();
    record["text"] = json!(text);
    tx.put(&view, &at, record.to_string().into());
    tx.commit().await.unwrap();
    server.restarted().await;
}

#[tokio::test]
async fn a_stored_policy_beyond_a_limit_applies_and_grants_no_more() {
    let mut server = TestServer::new().await;
    server.post("secret/data/a", ROOT, json!({ "data": { "k": "v" } })).await.ok();
    let list = |filter: &str| {
        let filter = filter.replace('"', "\\\"");
        format!(
            "path \"secret/metadata/*\" {{ capabilities = [\"list\"] list_scan_response_keys_filter_path = \"{filter}\" }}"
        )
    };
    let long = format!("path \"a/{}\" {{ capabilities = [\"read\"] }}", "{{identity.entity.id}}".repeat(300));
    let read = "path \"secret/data/a\" { capabilities = [\"read\"] }";
    let chain = format!("{{{{ .path }}}}{{{{ .key{} }}}}", " | lowercase".repeat(33));
    let text = [&long, read, &list(&chain), "path \"secret/data/b\" { capabilities = [\"deny\"] }"].join("\n");
    server.post("sys/policies/acl/new", ROOT, json!({ "policy": text })).await.is(400);
    store_policy(&mut server, "old", &text).await;
    server.policy("wide", "path \"secret/*\" { capabilities = [\"read\"] }").await;
    let old = token(&server, &["old", "wide"]).await;
    server.get("secret/data/a", &old).await.ok();
    server.get("secret/data/b", &old).await.is(403);
    // The filter cannot be evaluated, so no name passes it.
    let listed = server.list("secret/metadata", &old).await;
    assert!(listed.data()["keys"].as_array().is_none_or(Vec::is_empty), "{listed:?}");
    server.unsealed().access.policies.log_limits().await.unwrap();
}

#[tokio::test]
async fn sec_kf46_an_unreadable_stored_policy_denies_and_logs_its_reason() {
    let mut server = TestServer::new().await;
    store_policy(&mut server, "old", "path \"secret/*\" {").await;
    server.policy("wide", "path \"secret/*\" { capabilities = [\"read\"] }").await;
    let both = token(&server, &["old", "wide"]).await;
    assert_eq!(server.get("secret/data/x", &both).await.is(403).error(), "permission denied");
    let last = server.entries().pop().unwrap();
    assert_eq!(last["error_reason"], "a stored policy of the token cannot be read");
    server.unsealed().access.policies.log_limits().await.unwrap();
    server.policy("old", "path \"y\" { capabilities = [\"read\"] }").await;
    server.get("secret/data/x", &both).await.is(404);
}

#[tokio::test]
async fn damaged_default_policy_and_admission_records_stop_no_unseal() {
    for way in WAYS {
        let mut server = TestServer::new().await;
        server.post("sys/quotas/rate-limit/q", ROOT, json!({ "rate": 1000, "path": "secret/" })).await.ok();
        server.post("sys/quotas/config", ROOT, json!({ "rate_limit_exempt_paths": ["sys/health"] })).await.ok();
        server.post("sys/config/cors", ROOT, json!({ "allowed_origins": "*" })).await.ok();
        server.post("sys/config/auditing/request-headers/x-a", ROOT, json!({ "hmac": true })).await.ok();
        let lowly = token(&server, &["default"]).await;
        for path in ["sys/quotas/", "sys/config/", "sys/version-history/", "sys/policy/default"] {
            damage(&mut server, way, path).await;
        }
        assert!(server.node.admission().rules().cors.is_none(), "an origin that cannot be read is not allowed");
        assert!(server.get("auth/token/lookup-self", &lowly).await.status >= 400);
        server.get("sys/mounts", ROOT).await.ok();
        let barrier = server.unsealed().barrier.clone();
        let kept = barrier.begin_read().get(&barrier.view("sys/"), "policy/default").await;
        assert!(kept.is_err() || kept.unwrap().unwrap().starts_with(b"{\"damaged\""), "nothing is written over it");
    }
}

#[tokio::test]
async fn a_damaged_quarantine_record_keeps_the_quarantine() {
    for way in WAYS {
        let mut server = TestServer::new().await;
        server.post("sys/leases/quarantine", ROOT, json!({ "enabled": true })).await.ok();
        damage(&mut server, way, "token/quarantine").await;
        assert!(server.unsealed().leases.store.is_quarantined());
        server.post("sys/leases/quarantine", ROOT, json!({ "enabled": false })).await.ok();
        assert!(!server.unsealed().leases.store.is_quarantined());
    }
}

#[tokio::test]
async fn a_damaged_token_record_is_revoked_alone_and_on_time() {
    for way in WAYS {
        let mut server = TestServer::new().await;
        let parent = token(&server, &["default", "root"]).await;
        let before = stored(&server, "token/id/").await;
        let child = server.post("auth/token/create", &parent, json!({ "ttl": "1h" })).await.ok().token();
        let other = token(&server, &["default"]).await;
        let grandchild = server.post("auth/token/create", &child, json!({ "ttl": "2h" })).await.ok().token();
        let path = stored(&server, "token/id/").await;
        let with = server.unsealed().access.tokens.place(&child.clone());
        let path = path.iter().find(|path| !before.contains(path) && path.ends_with(with.as_str())).unwrap().clone();
        damage(&mut server, way, &path).await;
        assert!(server.get("auth/token/lookup-self", &child).await.status >= 400);
        assert!(server.get("auth/token/lookup-self", &grandchild).await.status >= 400);
        server.get("auth/token/lookup-self", &other).await.ok();
        server.call("LIST", "auth/token/accessors", ROOT, Value::Null).await.ok();
        server.pass(3601).await;
        assert!(!stored(&server, "token/id/").await.contains(&path));
        assert!(server.get("auth/token/lookup-self", &grandchild).await.is(403).status == 403);
        // Its parent expires as any other, with a damaged child or without.
        let third = server.post("auth/token/create", &parent, json!({})).await.ok().token();
        let path = format!("token/id/{}", server.unsealed().access.tokens.place(&third).as_str());
        damage(&mut server, way, &path).await;
        server.post("auth/token/revoke", ROOT, json!({ "token": parent })).await.ok();
        assert!(!stored(&server, "token/id/").await.contains(&path));
    }
}

/// An engine that cannot be opened.
struct Unopened<const PANICS: bool>;

impl<const PANICS: bool> Engine for Unopened<PANICS> {
    const TYPE: &'static str = if PANICS { "panics" } else { "fails" };
    const KIND: Kind = Kind::Secrets;

    fn routes(r: &mut Routes<Self>) {
        r.path("x", Help { synopsis: "", description: "" }).read(read);
    }

    async fn open(_: &mut Cx) -> Result<Self> {
        assert!(!PANICS, "a planted panic");
        Err(Error::internal("a planted failure"))
    }
}

async fn read<const PANICS: bool>(_: &Unopened<PANICS>, _: &mut Cx, _: Nothing) -> Result<()> {
    Ok(())
}

#[tokio::test]
async fn an_engine_that_cannot_be_opened_stops_neither_unseal_nor_ticks() {
    let engines = || {
        let unopened = vec![Registered::of::<Unopened<true>>(), Registered::of::<Unopened<false>>()];
        keepfast_engines::all().preceded_by(unopened)
    };
    let server = TestServer::with(|_, _| {}, engines()).await;
    for engine in ["panics", "fails"] {
        let entry = server.unsealed().engines.mounts.entry(Kind::Secrets, &format!("{engine}/"), engine, None).unwrap();
        assert!(
            server.unsealed().engines.changes.mount(entry.clone()).await.is_err(),
            "what cannot be opened is not mounted"
        );
        assert!(server.unsealed().engines.mounts.router().at(&entry.path).is_none());
        // Mounted by an earlier version, which could open it.
        let mut tx = server.unsealed().barrier.begin();
        server.unsealed().engines.mounts.save(&mut tx, &entry).unwrap();
        tx.commit().await.unwrap();
    }
    for engine in ["panics", "fails"] {
        server.get(&format!("{engine}/x"), ROOT).await.is(500);
    }
    crate::background::tick(&server.unsealed(), false).await;
    crate::background::tick(&server.unsealed(), true).await;
    server.get("sys/mounts", ROOT).await.ok();
    let view = server.unsealed().barrier.view("sys/");
    assert!(!server.unsealed().barrier.begin_read().list(&view, "mount/", &Page::all()).await.unwrap().is_empty());
}
