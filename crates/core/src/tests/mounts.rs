//! Mount, tune, move and unmount.

use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, RequestOptions, TestServer};
use crate::tests::tokens::stored;

#[tokio::test]
async fn a_mount_is_created_tuned_moved_and_deleted_with_its_data() {
    let server = TestServer::new().await;
    server
        .post("sys/mounts/team/kv", ROOT, json!({ "type": "kv", "description": "d", "options": { "version": "1" } }))
        .await
        .is(204);
    server.post("team/kv/a/b", ROOT, json!({ "k": 1 })).await.is(204);
    for taken in
        ["team/kv", "team/kv/below", "team", "sys", "sys/x", "auth", "auth/token", "cubbyhole/x", "identity", "audit"]
    {
        server.post(&format!("sys/mounts/{taken}"), ROOT, json!({ "type": "kv" })).await.is(400);
    }
    server.post("sys/mounts/x", ROOT, json!({ "type": "none" })).await.is(400);
    server
        .post(
            "sys/mounts/team/kv/tune",
            ROOT,
            json!({ "max_lease_ttl": "2h", "default_lease_ttl": "1h", "description": "e" }),
        )
        .await
        .is(204);
    let tuned = server.get("sys/mounts/team/kv/tune", ROOT).await.ok();
    assert_eq!((&tuned.data()["max_lease_ttl"], &tuned.data()["description"]), (&json!(7200), &json!("e")));
    server.post("sys/mounts/team/kv/tune", ROOT, json!({ "default_lease_ttl": "3h" })).await.is(400);
    server.post("sys/mounts/none/tune", ROOT, json!({ "description": "e" })).await.is(400);
    for to in ["sys/x", "auth/x", "cubbyhole/x", "identity/x", "audit/x", "secret", "secret/x"] {
        server.post("sys/remount", ROOT, json!({ "from": "team/kv", "to": to })).await.is(400);
    }
    let moved = server.post("sys/remount", ROOT, json!({ "from": "team/kv", "to": "moved" })).await.ok();
    let id = moved.data()["migration_id"].as_str().unwrap();
    assert_eq!(
        server.get(&format!("sys/remount/status/{id}"), ROOT).await.ok().data()["migration_info"]["status"],
        "success"
    );
    assert_eq!(server.get("moved/a/b", ROOT).await.ok().data()["k"], 1);
    server.get("team/kv/a/b", ROOT).await.is(404);
    let before = stored(&server, "logical/").await.len();
    server.delete("sys/mounts/moved", ROOT).await.is(204);
    server.get("moved/a/b", ROOT).await.is(404);
    assert_eq!(stored(&server, "logical/").await.len(), before - 1);
    server.delete("sys/mounts/moved", ROOT).await.is(204);
    for own in ["sys", "cubbyhole", "identity"] {
        server.delete(&format!("sys/mounts/{own}"), ROOT).await.is(400);
    }
    server.delete("sys/auth/token", ROOT).await.is(400);
}

#[tokio::test]
async fn an_unmount_that_was_interrupted_is_finished_at_the_next_unseal() {
    let mut server = TestServer::new().await;
    server.post("sys/mounts/big", ROOT, json!({ "type": "kv", "options": { "version": "1" } })).await.ok();
    for n in 0..450 {
        server.post(&format!("big/{}/{n}", n % 3), ROOT, json!({ "k": n })).await.ok();
    }
    // The storage of a process that ended right after the mount was disabled.
    let unsealed = server.unsealed();
    let mut entry = unsealed.engines.mounts.router().at("big/").unwrap().entry.clone();
    entry.leaving = true;
    let mut tx = unsealed.barrier.begin();
    unsealed.engines.mounts.save(&mut tx, &entry).unwrap();
    tx.commit().await.unwrap();
    let prefix = entry.own_storage();
    assert_eq!(stored(&server, &prefix).await.len(), 450);
    drop(unsealed);
    server.restarted().await;
    server.get("big/0/0", ROOT).await.is(404);
    server.unsealed().engines.changes.resume_unmounts().await.unwrap();
    assert!(stored(&server, &prefix).await.is_empty());
    assert!(server.unsealed().engines.mounts.leaving().is_empty());
    server.post("sys/mounts/big", ROOT, json!({ "type": "kv" })).await.is(204);
    server.get("big/0/0", ROOT).await.is(404);
}

#[tokio::test]
async fn tokens_of_a_removed_auth_mount_are_dead_batch_tokens_too() {
    let server = TestServer::new().await;
    let service = server.approle("service", json!({ "token_policies": ["default"] })).await.ok().token();
    let batch =
        server.approle("batch", json!({ "token_policies": ["default"], "token_type": "batch" })).await.ok().token();
    assert!(batch.starts_with("hvb.") && server.accepts(&service).await && server.accepts(&batch).await);
    server.delete("sys/auth/approle", ROOT).await.is(204);
    assert!(!server.accepts(&service).await && !server.accepts(&batch).await);
    server.post("sys/auth/approle", ROOT, json!({ "type": "approle" })).await.is(204);
    assert!(
        !server.accepts(&service).await && !server.accepts(&batch).await,
        "another mount of the same path is another mount"
    );
    assert!(server.list("auth/approle/role", ROOT).await.status == 404);
    let moved = server.approle("r", json!({ "token_policies": ["default"] })).await.ok().token();
    server.post("sys/remount", ROOT, json!({ "from": "auth/approle", "to": "auth/moved" })).await.ok();
    assert!(!server.accepts(&moved).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tuning_does_not_recreate_a_mount_during_unmount() {
    let server = std::sync::Arc::new(TestServer::new().await);
    for n in 0..20 {
        let path = format!("sys/mounts/m{n}");
        server.post(&path, ROOT, json!({ "type": "kv" })).await.ok();
        let tuning = {
            let (server, path) = (server.clone(), format!("{path}/tune"));
            tokio::spawn(async move {
                for _ in 0..5 {
                    let _ = server.post(&path, ROOT, json!({ "description": "d" })).await;
                }
            })
        };
        server.delete(&path, ROOT).await.is(204);
        tuning.await.unwrap();
        assert!(server.get("sys/mounts", ROOT).await.ok().data().get(format!("m{n}/")).is_none());
    }
}

#[tokio::test]
async fn sec_kf09_a_request_whose_body_was_not_received_runs_no_handler() {
    let server = TestServer::new().await;
    server.post("sys/auth/userpass", ROOT, json!({ "type": "userpass" })).await;
    let send = async |path: &str, token: &str| {
        let send = RequestOptions { token: Some(token.to_owned()), withheld: true, ..RequestOptions::default() };
        server.send("POST", path, send).await.status
    };
    assert_eq!(send("secret/data/a", "hvs.dead").await, 403, "clients log in again at a 403");
    assert_eq!(send("auth/userpass/login/a", "hvs.dead").await, 413);
    assert_eq!(send("sys/wrapping/unwrap", "hvs.dead").await, 403);
    assert_eq!(send("secret/data/a", ROOT).await, 413);
    server.get("secret/data/a", ROOT).await.is(404);
}

#[tokio::test]
async fn sec_ac09_a_caller_without_a_token_learns_nothing_of_mounts() {
    let server = TestServer::new().await;
    for method in ["GET", "POST", "LIST", "DELETE", "PATCH", "SCAN", "HELP"] {
        for (there, absent) in [
            ("secret/data/a", "absent/data/a"),
            ("auth/token/create", "auth/absent/create"),
            ("sys/mounts", "sys/none"),
        ] {
            let (a, b) =
                (server.call(method, there, "", Value::Null).await, server.call(method, absent, "", Value::Null).await);
            assert_eq!((a.status, a.body), (b.status, b.body), "{method} {there}");
        }
    }
    assert_eq!(server.get("sys/internal/ui/mounts", "").await.ok().data(), &json!({ "auth": {}, "secret": {} }));
    server.get("sys/internal/ui/mounts/secret/a", "").await.is(403);
}

#[tokio::test]
async fn the_openapi_document_has_only_mounts_that_the_caller_reaches() {
    let server = TestServer::new().await;
    let stranger = server.get("sys/internal/specs/openapi", "").await;
    assert_eq!(stranger.status, 200);
    assert_eq!(stranger.body["paths"], json!({}));
    let root = server.get("sys/internal/specs/openapi", ROOT).await;
    assert!(root.body["paths"].get("/secret/data/{path}").is_some());
    assert!(root.body["paths"].get("/auth/token/create").is_some());
}

#[tokio::test]
async fn the_path_of_an_auth_mount_is_shown_without_auth() {
    let server = TestServer::new().await;
    for (requested, shown) in [
        ("auth/token", "token/"),
        ("auth/token/", "token/"),
        ("auth/token/create/x", "token/"),
        ("secret/", "secret/"),
        ("secret/data/a", "secret/"),
    ] {
        let mount = server.get(&format!("sys/internal/ui/mounts/{requested}"), ROOT).await.ok();
        assert_eq!(mount.data()["path"], shown, "{requested}");
    }
    let listed = server.get("sys/internal/ui/mounts", ROOT).await.ok();
    assert_eq!(listed.data()["auth"]["token/"].get("path"), None);
}

#[tokio::test]
async fn a_mount_of_type_generic_is_kv_and_keeps_its_type() {
    let mut server = TestServer::new().await;
    server.post("sys/mounts/g", ROOT, json!({ "type": "generic" })).await.is(204);
    server.post("g/a", ROOT, json!({ "k": "v" })).await.is(204);
    server.restarted().await;
    let shown = server.get("sys/mounts/g", ROOT).await.ok();
    assert_eq!((&shown.data()["type"], &shown.data()["options"]), (&json!("generic"), &json!({})));
    assert!(shown.data()["accessor"].as_str().unwrap().starts_with("generic_"));
    assert_eq!(server.get("g/a", ROOT).await.ok().data(), &json!({ "k": "v" }));
    let versioned = json!({ "type": "generic", "options": { "version": "2" } });
    let refused = server.post("sys/mounts/g2", ROOT, versioned).await.is(400);
    assert_eq!(refused.error(), "secrets engine \"generic\" does not allow setting a version");
    server.post("sys/mounts/g/tune", ROOT, json!({ "options": { "version": "2" } })).await.ok();
    assert_eq!(server.get("g/data/a", ROOT).await.ok().data()["data"], json!({ "k": "v" }));
    server.post("sys/mounts/g/tune", ROOT, json!({ "options": { "version": "1" } })).await.is(400);
}
