//! Tokens: creation, capabilities, expiry and revocation.

use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::Clock;
use serde_json::json;

use crate::tests::fixture::{ROOT, RequestOptions, TestServer, device};

#[tokio::test]
async fn a_token_is_looked_up_renewed_and_revoked_in_every_form() {
    let server = TestServer::new().await;
    let made = server
        .post("auth/token/create", ROOT, json!({ "policies": ["default"], "ttl": "1h", "meta": { "a": "b" } }))
        .await
        .ok();
    assert_eq!(made.body["auth"]["lease_duration"], 3600);
    let (token, accessor) = (made.token(), made.accessor());
    server.clock.advance(Duration::from_secs(600));
    for looked in [
        server.get("auth/token/lookup-self", &token).await,
        server.post("auth/token/lookup", ROOT, json!({ "token": token })).await,
        server.post("auth/token/lookup-accessor", ROOT, json!({ "accessor": accessor })).await,
    ] {
        let looked = looked.ok();
        assert_eq!((&looked.data()["accessor"], &looked.data()["ttl"]), (&json!(accessor), &json!(3000)));
        assert_eq!(looked.data()["meta"], json!({ "a": "b" }));
    }
    assert_eq!(
        server.post("auth/token/lookup-accessor", ROOT, json!({ "accessor": accessor })).await.ok().data()["id"],
        ""
    );
    let forms = [
        ("renew-self", token.as_str(), json!({})),
        ("renew", ROOT, json!({ "token": token })),
        ("renew-accessor", ROOT, json!({ "accessor": accessor })),
    ];
    for (form, by, mut body) in forms {
        body["increment"] = json!("20m");
        let renewed = server.post(&format!("auth/token/{form}"), by, body).await.ok();
        assert_eq!(renewed.body["auth"]["lease_duration"], 1200, "{form}");
    }
    for form in ["revoke", "revoke-accessor", "revoke-self", "revoke-orphan"] {
        let made = server.post("auth/token/create", ROOT, json!({ "policies": ["default"] })).await.ok();
        let (by, body) = match form {
            "revoke-accessor" => (ROOT.to_owned(), json!({ "accessor": made.accessor() })),
            "revoke-self" => (made.token(), json!(null)),
            _ => (ROOT.to_owned(), json!({ "token": made.token() })),
        };
        server.post(&format!("auth/token/{form}"), &by, body).await.is(204);
        assert!(!server.accepts(&made.token()).await, "{form}");
        assert_eq!(
            server.post("auth/token/lookup", ROOT, json!({ "token": made.token() })).await.is(403).error(),
            "bad token"
        );
    }
}

#[tokio::test]
async fn policies_of_a_child_are_a_subset_without_sudo() {
    let server = TestServer::new().await;
    let create = r#"path "auth/token/create" { capabilities = ["update"] } path "auth/token/create-orphan" { capabilities = ["update"] }"#;
    server.policy("maker", create).await;
    server.policy("chief", &create.replace("\"update\"", "\"update\", \"sudo\"")).await;
    let creator = server.token(json!({ "policies": ["maker"] })).await;
    let refusals = [
        (json!({ "policies": ["root"] }), "root tokens may not be created without parent token being root"),
        (json!({ "policies": ["other"] }), "child policies must be subset of parent"),
        (json!({ "no_parent": true }), "root or sudo privileges required to create orphan token"),
        (json!({ "id": "mine" }), "root or sudo privileges required to specify token id"),
        (json!({ "period": "1h" }), "root or sudo privileges required to create periodic token"),
        (json!({ "num_uses": -1 }), "number of uses cannot be negative"),
        (json!({ "ttl": "-1h" }), "ttl must be positive"),
        (json!({ "type": "other" }), "invalid 'token_type' value"),
        (json!({ "type": "batch", "num_uses": 2 }), "batch tokens cannot have \"num_uses\" set"),
        (json!({ "entity_alias": "x" }), "'entity_alias' is only allowed in combination with token role"),
    ];
    for (body, expected) in refusals {
        let answer = server.post("auth/token/create", &creator, body.clone()).await.is(400);
        let either = expected.starts_with("root tokens") && answer.error() == "child policies must be subset of parent";
        assert!(answer.error() == expected || either, "{body}: {}", answer.error());
    }
    assert_eq!(server.post("auth/token/create/none", ROOT, json!({})).await.is(400).error(), "unknown role none");
    let policies =
        async |by: &str, body| server.post("auth/token/create", by, body).await.ok().body["auth"]["policies"].clone();
    assert_eq!(policies(&creator, json!({})).await, json!(["default", "maker"]));
    assert_eq!(policies(&creator, json!({ "no_default_policy": true })).await, json!(["maker"]));
    assert_eq!(policies(&creator, json!({ "policies": ["maker"] })).await, json!(["default", "maker"]));
    assert_eq!(server.post("auth/token/create-orphan", &creator, json!({})).await.ok().body["auth"]["orphan"], true);
    server.post("auth/token/create-orphan", &creator, json!({ "policies": ["other"] })).await.is(400);
    let chief = server.token(json!({ "policies": ["chief"] })).await;
    assert_eq!(policies(&chief, json!({ "policies": ["other"] })).await, json!(["default", "other"]));
    server.post("auth/token/create", &chief, json!({ "policies": ["root"] })).await.is(400);
    assert_eq!(server.post("auth/token/create-orphan", &chief, json!({})).await.ok().body["auth"]["orphan"], true);
    assert_eq!(policies(ROOT, json!({})).await, json!(["root"]));
    assert_eq!(
        server.post("auth/token/create", ROOT, json!({ "policies": ["root"], "ttl": "1h" })).await.ok().body["auth"]["lease_duration"],
        3600
    );
}

#[tokio::test]
async fn sec_ns02_no_spelling_gives_root() {
    let server = TestServer::new().await;
    server.policy("maker", r#"path "auth/token/create*" { capabilities = ["update", "sudo"] } path "auth/token/roles/*" { capabilities = ["create", "update"] }"#).await;
    let creator = server.token(json!({ "policies": ["maker"] })).await;
    server.post("sys/auth/approle", ROOT, json!({ "type": "approle" })).await.ok();
    server.post("sys/auth/userpass", ROOT, json!({ "type": "userpass" })).await.ok();
    for (n, name) in ["root", "Root", "ROOT", " root", "root ", "\u{ff52}oot", "root\u{0}", "ro\u{131}t", "r\u{f6}ot"]
        .into_iter()
        .enumerate()
    {
        let mut made = Vec::new();
        made.push(server.post("auth/token/create", &creator, json!({ "policies": [name] })).await);
        for list in ["allowed_policies", "allowed_policies_glob"] {
            server
                .post(
                    &format!("auth/token/roles/r{n}{list}"),
                    &creator,
                    json!({ list: [name], "disallowed_policies": ["no"] }),
                )
                .await;
            made.push(
                server.post(&format!("auth/token/create/r{n}{list}"), &creator, json!({ "policies": [name] })).await,
            );
            made.push(server.post(&format!("auth/token/create/r{n}{list}"), &creator, json!({})).await);
        }
        server
            .post(&format!("auth/userpass/users/u{n}"), ROOT, json!({ "password": "p", "token_policies": [name] }))
            .await;
        made.push(server.post(&format!("auth/userpass/login/u{n}"), "", json!({ "password": "p" })).await);
        if server.post(&format!("auth/approle/role/a{n}"), ROOT, json!({ "token_policies": [name] })).await.status < 300
        {
            made.push(server.approle(&format!("a{n}"), json!({})).await);
        }
        server
            .post(
                &format!("sys/policies/acl/{}", name.replace('\u{0}', "")),
                ROOT,
                json!({ "policy": "path \"sys/*\" { capabilities = [\"read\"] }" }),
            )
            .await;
        for answer in made.into_iter().filter(|a| a.status == 200) {
            assert_ne!(answer.body["auth"]["policies"], json!(["root"]), "{name:?}");
            server.get("sys/audit", &answer.token()).await.is(403);
            server.post("sys/seal", &answer.token(), json!({})).await.is(403);
        }
    }
}

#[tokio::test]
async fn ttl_limits_hold_and_a_periodic_token_lives_while_it_is_renewed() {
    let server = TestServer::new().await;
    let made = server
        .post("auth/token/create", ROOT, json!({ "policies": ["default"], "ttl": "1h", "explicit_max_ttl": "90m" }))
        .await
        .ok();
    server.pass(3000).await;
    assert_eq!(
        server.post("auth/token/renew-self", &made.token(), json!({})).await.ok().body["auth"]["lease_duration"],
        2400
    );
    server.pass(2399).await;
    assert!(server.accepts(&made.token()).await);
    server.pass(1).await;
    assert!(!server.accepts(&made.token()).await);
    let periodic = server.token(json!({ "policies": ["default"], "period": "1h" })).await;
    for _ in 0..2000 {
        server.clock.advance(Duration::from_secs(3599));
        let renewed = server.post("auth/token/renew-self", &periodic, json!({ "increment": "1s" })).await.ok();
        assert_eq!(renewed.body["auth"]["lease_duration"], 3600);
    }
    server.pass(3600).await;
    assert!(!server.accepts(&periodic).await);
    let capped = server.post("auth/token/create", ROOT, json!({ "policies": ["default"], "ttl": "99999h" })).await.ok();
    assert_eq!(capped.body["auth"]["lease_duration"], 768 * 3600);
    assert!(capped.body["warnings"][0].as_str().unwrap().contains("exceeded the effective max_ttl"));
    server.post("sys/auth/token/tune", ROOT, json!({ "default_lease_ttl": "10m", "max_lease_ttl": "20m" })).await.ok();
    assert_eq!(
        server.post("auth/token/create", ROOT, json!({ "policies": ["default"] })).await.ok().body["auth"]["lease_duration"],
        600
    );
    assert_eq!(
        server.post("auth/token/create", ROOT, json!({ "policies": ["default"], "ttl": "1h" })).await.ok().body["auth"]
            ["lease_duration"],
        1200
    );
}

#[tokio::test]
async fn sec_tl01_a_renewal_at_the_max_ttl_is_not_unlimited() {
    let server = TestServer::new().await;
    for left in [1100u64, 900, 500, 100, 1, 0] {
        let token = server.token(json!({ "policies": ["default"], "ttl": "10s", "explicit_max_ttl": "10s" })).await;
        server.clock.advance(Duration::from_millis(10_000 - left));
        let renewed = server.post("auth/token/renew-self", &token, json!({ "increment": "1h" })).await;
        assert!(
            renewed.status == 403 || renewed.body["auth"]["lease_duration"].as_u64().unwrap() <= left.div_ceil(1000),
            "{left}: {renewed:?}"
        );
        if left > 0 {
            server.clock.advance(Duration::from_millis(left - 1));
            assert!(server.accepts(&token).await, "{left}");
            server.clock.advance(Duration::from_millis(1));
        }
        assert!(!server.accepts(&token).await, "{left}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_tl05_of_200_parallel_requests_only_num_uses_succeed() {
    let server = Arc::new(TestServer::new().await);
    let token = server.token(json!({ "policies": ["default"], "num_uses": 10 })).await;
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let (server, token) = (server.clone(), token.clone());
            tokio::spawn(async move { server.accepts(&token).await })
        })
        .collect();
    let mut passed = 0;
    for task in tasks {
        passed += usize::from(task.await.unwrap());
    }
    assert_eq!(passed, 10);
    assert!(!server.accepts(&token).await);
    assert!(stored(&server, "token/id/").await.len() <= 1, "a spent token is deleted");
}

#[tokio::test]
async fn uses_are_shown_counted_and_no_child_comes_of_a_counted_token() {
    let server = TestServer::new().await;
    let token = server.token(json!({ "num_uses": 4 })).await;
    assert_eq!(server.get("auth/token/lookup-self", &token).await.ok().data()["num_uses"], 3);
    assert_eq!(
        server.post("auth/token/create", &token, json!({})).await.is(400).error(),
        "restricted use token cannot generate child tokens"
    );
    server.get("no/such/route", &token).await.is(404);
    assert_eq!(server.get("auth/token/lookup-self", &token).await.ok().data()["num_uses"], -1);
    server.get("auth/token/lookup-self", &token).await.is(403);
}

#[tokio::test]
async fn a_batch_token_needs_no_write_and_is_revoked_with_its_parent() {
    let server = TestServer::new().await;
    server.policy("maker", r#"path "auth/token/create" { capabilities = ["update"] }"#).await;
    let parent = server.token(json!({ "policies": ["maker"] })).await;
    let before = stored(&server, "").await;
    let made = server.post("auth/token/create", &parent, json!({ "type": "batch", "ttl": "1h" })).await.ok();
    assert_eq!(stored(&server, "").await, before);
    let batch = made.token();
    assert!(batch.starts_with("hvb."));
    assert_eq!((&made.body["auth"]["accessor"], &made.body["auth"]["renewable"]), (&json!(""), &json!(false)));
    assert_eq!(server.get("auth/token/lookup-self", &batch).await.ok().data()["type"], "batch");
    server.post("auth/token/renew", ROOT, json!({ "token": batch })).await.is(400);
    server.post("auth/token/revoke", ROOT, json!({ "token": batch })).await.is(400);
    server.post("auth/token/create", &batch, json!({})).await.is(400);
    server.post("cubbyhole/a", &batch, json!({ "a": 1 })).await;
    for end in 0..batch.len() {
        assert!(!server.accepts(&format!("{}{}", &batch[..end], if batch.ends_with('x') { "y" } else { "x" })).await);
    }
    server.post("auth/token/revoke", ROOT, json!({ "token": parent })).await.ok();
    assert!(!server.accepts(&batch).await);
    let orphan =
        server.token(json!({ "type": "batch", "no_parent": true, "policies": ["default"], "ttl": "1h" })).await;
    server.pass(3600).await;
    assert!(!server.accepts(&orphan).await);
}

#[tokio::test]
async fn a_chosen_id_is_unique_and_a_new_token_of_it_inherits_nothing() {
    let server = TestServer::new().await;
    server.token(json!({ "id": "chosen", "policies": ["maker"] })).await;
    server.policy("maker", r#"path "auth/token/create" { capabilities = ["update"] }"#).await;
    assert_eq!(
        server.post("auth/token/create", ROOT, json!({ "id": "chosen" })).await.is(400).error(),
        "cannot create a token with a duplicate ID"
    );
    for bad in ["hvs.x", "hvb.x", "a.b", "a\u{7}"] {
        server.post("auth/token/create", ROOT, json!({ "id": bad })).await.is(400);
    }
    let child = server.post("auth/token/create", "chosen", json!({})).await.ok().token();
    server.post("cubbyhole/a", "chosen", json!({ "v": 1 })).await.ok();
    server.post("auth/token/revoke", ROOT, json!({ "token": "chosen" })).await.ok();
    server.token(json!({ "id": "chosen", "policies": ["maker"] })).await;
    assert!(!server.accepts(&child).await);
    server.get("cubbyhole/a", "chosen").await.is(404);
}

/// The stored keys below a prefix.
pub(crate) async fn stored(server: &TestServer, prefix: &str) -> Vec<String> {
    let unsealed = server.unsealed();
    let mut tx = unsealed.barrier.begin_read();
    let view = unsealed.barrier.view("");
    let mut folders = vec![prefix.to_owned()];
    let mut out = Vec::new();
    while let Some(folder) = folders.pop() {
        for name in tx.list(&view, &folder, &keepfast_storage::Page::all()).await.unwrap() {
            let path = format!("{folder}{name}");
            if path.starts_with("core/") || path.starts_with("barrier/") {
                continue;
            }
            if name.ends_with('/') { folders.push(path) } else { out.push(path) }
        }
    }
    out.sort();
    out
}

/// A small random generator for trees, with a fixed seed.
struct Xorshift(u64);

impl Xorshift {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

#[tokio::test]
async fn sec_tl04_descendants_of_a_revoked_token_are_revoked_and_deleted() {
    let mut server = TestServer::new().await;
    server.policy("maker", r#"path "auth/token/create" { capabilities = ["update", "sudo"] } path "cubbyhole/*" { capabilities = ["update"] }"#).await;
    for seed in 0..6 {
        let mut chance = Xorshift(seed);
        let mut tree =
            vec![(server.token(json!({ "policies": ["maker"], "no_parent": true })).await, usize::MAX, false)];
        for _ in 0..40 {
            let parent = chance.below(tree.len());
            let orphan = chance.below(8) == 0;
            let token =
                server.post("auth/token/create", &tree[parent].0, json!({ "no_parent": orphan })).await.ok().token();
            server.post("cubbyhole/x/y", &token, json!({ "a": 1 })).await.ok();
            tree.push((token, parent, orphan));
        }
        let victim = chance.below(tree.len());
        server.post("auth/token/revoke", ROOT, json!({ "token": tree[victim].0 })).await.ok();
        if seed % 2 == 1 {
            server.restarted().await;
        }
        for at in 0..tree.len() {
            let mut up = at;
            let dead = loop {
                if up == victim {
                    break true;
                }
                if tree[up].2 || tree[up].1 == usize::MAX {
                    break false;
                }
                up = tree[up].1;
            };
            assert_eq!(server.accepts(&tree[at].0).await, !dead, "seed {seed} token {at}");
        }
        for (token, _, _) in &tree {
            server.post("auth/token/revoke", ROOT, json!({ "token": token })).await.ok();
        }
        let left: Vec<_> = stored(&server, "token/").await.into_iter().filter(|k| k != "token/secrets").collect();
        assert_eq!(left.len(), 1, "the root token alone: {left:?}");
    }
    assert!(!stored(&server, "logical/").await.iter().any(|k| k.ends_with("x/y")));
}

#[tokio::test]
async fn sec_tl04_orphans_survive_revoke_orphan_and_expiry_takes_the_tree() {
    let server = TestServer::new().await;
    server.policy("maker", r#"path "auth/token/create" { capabilities = ["update"] }"#).await;
    let parent = server.token(json!({ "policies": ["maker"], "ttl": "1h" })).await;
    let child = server.post("auth/token/create", &parent, json!({ "ttl": "10h" })).await.ok().token();
    let grandchild = server.post("auth/token/create", &child, json!({ "ttl": "10h" })).await.ok().token();
    let other = server.token(json!({ "policies": ["maker"], "ttl": "1h" })).await;
    let saved = server.post("auth/token/create", &other, json!({ "ttl": "10h" })).await.ok().token();
    server.post("auth/token/revoke-orphan", ROOT, json!({ "token": other })).await.is(204);
    server.clock.advance(Duration::from_secs(3600));
    // Expired by the clock alone, before any revocation, and for lookups as well.
    assert!(!server.accepts(&child).await && !server.accepts(&grandchild).await);
    server.post("auth/token/lookup", ROOT, json!({ "token": grandchild })).await.is(403);
    assert!(server.accepts(&saved).await);
    assert_eq!(server.get("auth/token/lookup-self", &saved).await.ok().data()["orphan"], true);
    server.pass(2).await;
    let left = stored(&server, "token/").await;
    assert_eq!(left.iter().filter(|k| k.starts_with("token/id/")).count(), 2, "{left:?}");
}

#[tokio::test]
async fn sec_tl04_more_than_a_page_of_orphans_survives_their_parent() {
    let server = TestServer::new().await;
    server.policy("maker", r#"path "auth/token/create" { capabilities = ["update"] }"#).await;
    let parent = server.token(json!({ "policies": ["maker"], "ttl": "1h" })).await;
    let mut children = Vec::new();
    for _ in 0..203 {
        children.push(server.post("auth/token/create", &parent, json!({ "ttl": "2h" })).await.ok().token());
    }
    server.post("auth/token/revoke-orphan", ROOT, json!({ "token": parent })).await.is(204);
    assert!(!server.accepts(&parent).await);
    for child in &children {
        assert!(server.accepts(child).await);
    }
    let left = stored(&server, "token/").await;
    assert!(!left.iter().any(|k| k.starts_with("token/child/")), "{left:?}");
}

#[tokio::test]
async fn sec_tl04_an_interrupted_revocation_continues_at_the_next_unseal() {
    let mut server = TestServer::new().await;
    server.policy("maker", r#"path "auth/token/create" { capabilities = ["update"] }"#).await;
    let parent = server.token(json!({ "policies": ["maker"] })).await;
    let mut children = Vec::new();
    for _ in 0..5 {
        children.push(server.post("auth/token/create", &parent, json!({})).await.ok().token());
    }
    // The storage of a process that ended right after the first transaction of a revoke.
    let unsealed = server.unsealed();
    let key = unsealed.access.tokens.place(&parent);
    let view = unsealed.barrier.view("token/");
    let mut tx = unsealed.barrier.begin();
    tx.delete(&view, &format!("id/{}", key.as_str()));
    tx.put(&view, &format!("pending/{}", key.as_str()), bytes::Bytes::new());
    tx.commit().await.unwrap();
    drop(unsealed);
    for child in &children {
        assert!(!server.accepts(child).await);
    }
    server.restarted().await;
    server.unsealed().access.tokens.resume_collection().await.unwrap();
    let left = stored(&server, "token/").await;
    assert_eq!(
        left.iter().filter(|k| k.starts_with("token/id/") || k.starts_with("token/pending/")).count(),
        1,
        "{left:?}"
    );
    for child in &children {
        assert!(!server.accepts(child).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_tl04_a_child_created_during_revocation_leaves_nothing() {
    let server = Arc::new(TestServer::new().await);
    server.policy("maker", r#"path "auth/token/create" { capabilities = ["update"] } path "cubbyhole/*" { capabilities = ["update"] }"#).await;
    for _ in 0..30 {
        let parent = server.token(json!({ "policies": ["maker"] })).await;
        let makers: Vec<_> = (0..4)
            .map(|n| {
                let (server, parent) = (server.clone(), parent.clone());
                tokio::spawn(async move {
                    let _ = server.post(&format!("cubbyhole/{n}"), &parent, json!({ "a": 1 })).await;
                    let made = server.post("auth/token/create", &parent, json!({})).await;
                    (made.status == 200).then(|| made.token())
                })
            })
            .collect();
        tokio::task::yield_now().await;
        server.post("auth/token/revoke", ROOT, json!({ "token": parent })).await.ok();
        for creator in makers {
            if let Some(child) = creator.await.unwrap() {
                assert!(!server.accepts(&child).await);
            }
        }
        let left: Vec<_> = stored(&server, "")
            .await
            .into_iter()
            .filter(|k| k.starts_with("token/") || k.starts_with("logical/"))
            .collect();
        let mine = left.iter().filter(|k| {
            k.contains("/id/") || k.contains("/child/") || k.contains("/pending/") || k.contains("/spent/")
        });
        assert_eq!(mine.count(), 1, "{left:?}");
    }
}

#[tokio::test]
async fn a_token_that_stored_much_can_still_be_revoked() {
    let server = TestServer::new().await;
    let token = server.token(json!({ "policies": ["default"] })).await;
    for n in 0..250 {
        server.post(&format!("cubbyhole/{}/{n}", n % 7), &token, json!({ "a": 1 })).await.ok();
    }
    server.post("auth/token/revoke", ROOT, json!({ "token": token })).await.is(204);
    let left = stored(&server, "").await;
    assert!(!left.iter().any(|k| k.contains("spent") || k.starts_with("logical/") && k.contains("/3/")), "{left:?}");
}

#[tokio::test]
async fn tokens_survive_a_restart_and_expire_on_time() {
    let mut server = TestServer::new().await;
    let short = server.token(json!({ "policies": ["default"], "ttl": "1m" })).await;
    let long = server.token(json!({ "policies": ["default"], "ttl": "1h" })).await;
    let batch = server.token(json!({ "policies": ["default"], "type": "batch", "ttl": "1h" })).await;
    server.restarted().await;
    assert!(
        server.accepts(&short).await
            && server.accepts(&long).await
            && server.accepts(&batch).await
            && server.accepts(ROOT).await
    );
    server.pass(62).await;
    assert!(!server.accepts(&short).await && server.accepts(&long).await);
    server.post("sys/leases/tidy", ROOT, json!({})).await.is(202);
    let expiring = stored(&server, "token/expiry/").await;
    assert_eq!(expiring.len(), 1, "{expiring:?}");
}

#[tokio::test]
async fn sec_tl09_one_damaged_record_stops_neither_unseal_nor_the_others() {
    let mut server = TestServer::new().await;
    let damaged = server.token(json!({ "policies": ["default"], "ttl": "1m" })).await;
    let healthy = server.token(json!({ "policies": ["default"], "ttl": "1m" })).await;
    let unsealed = server.unsealed();
    let key = unsealed.access.tokens.place(&damaged);
    let mut tx = unsealed.barrier.begin();
    tx.put(&unsealed.barrier.view("token/"), &format!("id/{}", key.as_str()), bytes::Bytes::from_static(b"{"));
    tx.commit().await.unwrap();
    drop(unsealed);
    server.restarted().await;
    assert!(server.accepts(&healthy).await);
    server.get("auth/token/lookup-self", &damaged).await.is(500);
    server.clock.advance(Duration::from_secs(62));
    server.unsealed().leases.expiry.revoke_expired_tokens(server.clock.now()).await.unwrap();
    let left = stored(&server, "token/id/").await;
    assert_eq!(left.len(), 1, "root alone, for the damaged one ends with the others: {left:?}");
}

#[tokio::test]
async fn a_stale_index_entry_is_removed() {
    let server = TestServer::new().await;
    let unsealed = server.unsealed();
    let view = unsealed.barrier.view("token/");
    let mut tx = unsealed.barrier.begin();
    for n in 0..600u32 {
        tx.put(&view, &format!("expiry/0000000001{n:040x}"), bytes::Bytes::new());
    }
    tx.commit().await.unwrap();
    unsealed.leases.expiry.revoke_expired_tokens(server.clock.now()).await.unwrap();
    assert!(stored(&server, "token/expiry/").await.is_empty());
}

#[tokio::test]
async fn sec_ns03_a_token_id_is_unknown_in_another_namespace() {
    let server =
        TestServer::with(|settings, dir| settings.audit = vec![device(dir, "audit", &[])], keepfast_engines::all())
            .await;
    let token = server.token(json!({ "policies": ["default"] })).await;
    for namespace in ["other", "other/", "root/x", "ROOT"] {
        let send =
            RequestOptions { token: Some(token.clone()), namespace: namespace.to_owned(), ..RequestOptions::default() };
        assert_eq!(server.send("GET", "auth/token/lookup-self", send).await.status / 100, 4, "{namespace}");
    }
    assert!(server.accepts(&token).await);
}

#[tokio::test]
async fn a_child_is_bound_to_the_addresses_of_its_parent() {
    let server = TestServer::new().await;
    server.policy("maker", r#"path "auth/token/create" { capabilities = ["update"] } path "auth/token/create-orphan" { capabilities = ["update"] }"#).await;
    server
        .post(
            "auth/token/roles/bound",
            ROOT,
            json!({ "allowed_policies": "maker", "token_bound_cidrs": "127.0.0.0/8" }),
        )
        .await
        .ok();
    let parent = server.post("auth/token/create/bound", ROOT, json!({})).await.ok().token();
    for (path, bound) in [("create", true), ("create-orphan", false)] {
        let child = server.post(&format!("auth/token/{path}"), &parent, json!({})).await.ok().token();
        assert!(server.accepts(&child).await);
        let elsewhere =
            RequestOptions { token: Some(child), remote: "10.1.2.3:4".parse().ok(), ..RequestOptions::default() };
        assert_eq!(server.send("GET", "auth/token/lookup-self", elsewhere).await.status == 403, bound, "{path}");
    }
}
