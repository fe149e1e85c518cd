//! Tokens: creation, capabilities, expiry and revocation.

use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::Clock;
use serde_json::json;

use crate::tests::fixture::{Ask, House, ROOT, device};

#[tokio::test]
async fn a_token_is_looked_up_renewed_and_revoked_in_every_form() {
    let house = House::new().await;
    let made = house
        .post("auth/token/create", ROOT, json!({ "policies": ["default"], "ttl": "1h", "meta": { "a": "b" } }))
        .await
        .ok();
    assert_eq!(made.body["auth"]["lease_duration"], 3600);
    let (token, accessor) = (made.token(), made.accessor());
    house.clock.advance(Duration::from_secs(600));
    for looked in [
        house.get("auth/token/lookup-self", &token).await,
        house.post("auth/token/lookup", ROOT, json!({ "token": token })).await,
        house.post("auth/token/lookup-accessor", ROOT, json!({ "accessor": accessor })).await,
    ] {
        let looked = looked.ok();
        assert_eq!((&looked.data()["accessor"], &looked.data()["ttl"]), (&json!(accessor), &json!(3000)));
        assert_eq!(looked.data()["meta"], json!({ "a": "b" }));
    }
    assert_eq!(
        house.post("auth/token/lookup-accessor", ROOT, json!({ "accessor": accessor })).await.ok().data()["id"],
        ""
    );
    let forms = [
        ("renew-self", token.as_str(), json!({})),
        ("renew", ROOT, json!({ "token": token })),
        ("renew-accessor", ROOT, json!({ "accessor": accessor })),
    ];
    for (form, by, mut body) in forms {
        body["increment"] = json!("20m");
        let renewed = house.post(&format!("auth/token/{form}"), by, body).await.ok();
        assert_eq!(renewed.body["auth"]["lease_duration"], 1200, "{form}");
    }
    for form in ["revoke", "revoke-accessor", "revoke-self", "revoke-orphan"] {
        let made = house.post("auth/token/create", ROOT, json!({ "policies": ["default"] })).await.ok();
        let (by, body) = match form {
            "revoke-accessor" => (ROOT.to_owned(), json!({ "accessor": made.accessor() })),
            "revoke-self" => (made.token(), json!(null)),
            _ => (ROOT.to_owned(), json!({ "token": made.token() })),
        };
        house.post(&format!("auth/token/{form}"), &by, body).await.is(204);
        assert!(!house.accepts(&made.token()).await, "{form}");
        assert_eq!(
            house.post("auth/token/lookup", ROOT, json!({ "token": made.token() })).await.is(403).error(),
            "bad token"
        );
    }
}

#[tokio::test]
async fn policies_of_a_child_are_a_subset_unless_sudo_says_more() {
    let house = House::new().await;
    let create = r#"path "auth/token/create" { capabilities = ["update"] } path "auth/token/create-orphan" { capabilities = ["update"] }"#;
    house.policy("maker", create).await;
    house.policy("chief", &create.replace("\"update\"", "\"update\", \"sudo\"")).await;
    let maker = house.token(json!({ "policies": ["maker"] })).await;
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
        let answer = house.post("auth/token/create", &maker, body.clone()).await.is(400);
        let either = expected.starts_with("root tokens") && answer.error() == "child policies must be subset of parent";
        assert!(answer.error() == expected || either, "{body}: {}", answer.error());
    }
    assert_eq!(house.post("auth/token/create/none", ROOT, json!({})).await.is(400).error(), "unknown role none");
    let policies =
        async |by: &str, body| house.post("auth/token/create", by, body).await.ok().body["auth"]["policies"].clone();
    assert_eq!(policies(&maker, json!({})).await, json!(["default", "maker"]));
    assert_eq!(policies(&maker, json!({ "no_default_policy": true })).await, json!(["maker"]));
    assert_eq!(policies(&maker, json!({ "policies": ["maker"] })).await, json!(["default", "maker"]));
    assert_eq!(house.post("auth/token/create-orphan", &maker, json!({})).await.ok().body["auth"]["orphan"], true);
    house.post("auth/token/create-orphan", &maker, json!({ "policies": ["other"] })).await.is(400);
    let chief = house.token(json!({ "policies": ["chief"] })).await;
    assert_eq!(policies(&chief, json!({ "policies": ["other"] })).await, json!(["default", "other"]));
    house.post("auth/token/create", &chief, json!({ "policies": ["root"] })).await.is(400);
    assert_eq!(house.post("auth/token/create-orphan", &chief, json!({})).await.ok().body["auth"]["orphan"], true);
    assert_eq!(policies(ROOT, json!({})).await, json!(["root"]));
    assert_eq!(
        house.post("auth/token/create", ROOT, json!({ "policies": ["root"], "ttl": "1h" })).await.ok().body["auth"]["lease_duration"],
        3600
    );
}

#[tokio::test]
async fn sec_ns02_no_spelling_gives_root() {
    let house = House::new().await;
    house.policy("maker", r#"path "auth/token/create*" { capabilities = ["update", "sudo"] } path "auth/token/roles/*" { capabilities = ["create", "update"] }"#).await;
    let maker = house.token(json!({ "policies": ["maker"] })).await;
    house.post("sys/auth/approle", ROOT, json!({ "type": "approle" })).await.ok();
    house.post("sys/auth/userpass", ROOT, json!({ "type": "userpass" })).await.ok();
    for (n, name) in ["root", "Root", "ROOT", " root", "root ", "\u{ff52}oot", "root\u{0}", "ro\u{131}t", "r\u{f6}ot"]
        .into_iter()
        .enumerate()
    {
        let mut made = Vec::new();
        made.push(house.post("auth/token/create", &maker, json!({ "policies": [name] })).await);
        for list in ["allowed_policies", "allowed_policies_glob"] {
            house
                .post(
                    &format!("auth/token/roles/r{n}{list}"),
                    &maker,
                    json!({ list: [name], "disallowed_policies": ["no"] }),
                )
                .await;
            made.push(
                house.post(&format!("auth/token/create/r{n}{list}"), &maker, json!({ "policies": [name] })).await,
            );
            made.push(house.post(&format!("auth/token/create/r{n}{list}"), &maker, json!({})).await);
        }
        house
            .post(&format!("auth/userpass/users/u{n}"), ROOT, json!({ "password": "p", "token_policies": [name] }))
            .await;
        made.push(house.post(&format!("auth/userpass/login/u{n}"), "", json!({ "password": "p" })).await);
        if house.post(&format!("auth/approle/role/a{n}"), ROOT, json!({ "token_policies": [name] })).await.status < 300
        {
            made.push(house.approle(&format!("a{n}"), json!({})).await);
        }
        house
            .post(
                &format!("sys/policies/acl/{}", name.replace('\u{0}', "")),
                ROOT,
                json!({ "policy": "path \"sys/*\" { capabilities = [\"read\"] }" }),
            )
            .await;
        for answer in made.into_iter().filter(|a| a.status == 200) {
            assert_ne!(answer.body["auth"]["policies"], json!(["root"]), "{name:?}");
            house.get("sys/audit", &answer.token()).await.is(403);
            house.post("sys/seal", &answer.token(), json!({})).await.is(403);
        }
    }
}

#[tokio::test]
async fn a_role_bounds_its_tokens() {
    let house = House::new().await;
    house.post("auth/token/roles/r", ROOT, json!({
        "allowed_policies": "a,b", "disallowed_policies": "c", "orphan": true, "renewable": false, "path_suffix": "suffix",
        "token_period": "30m", "token_num_uses": 3, "token_bound_cidrs": "10.0.0.0/8",
    })).await.ok();
    assert_eq!(house.list("auth/token/roles", ROOT).await.ok().data()["keys"], json!(["r"]));
    let made = house.post("auth/token/create/r", ROOT, json!({ "policies": ["a"] })).await.ok();
    let auth = &made.body["auth"];
    assert_eq!(
        (&auth["orphan"], &auth["renewable"], &auth["num_uses"], &auth["lease_duration"]),
        (&json!(true), &json!(false), &json!(3), &json!(1800))
    );
    let shown = house.post("auth/token/lookup", ROOT, json!({ "token": made.token() })).await.ok();
    assert_eq!((&shown.data()["path"], &shown.data()["role"]), (&json!("auth/token/create/r/suffix"), &json!("r")));
    house.post("auth/token/create/r", ROOT, json!({ "policies": ["c"] })).await.is(400);
    house.post("auth/token/create/r", ROOT, json!({ "policies": ["z"] })).await.is(400);
    // Bound to an address: not from here, and a refused use is not counted.
    house.get("auth/token/lookup-self", &made.token()).await.is(403);
    let inside = Ask { token: Some(made.token()), remote: "10.1.2.3:4".parse().ok(), ..Ask::default() };
    assert_eq!(house.ask("GET", "auth/token/lookup-self", inside.clone()).await.ok().data()["num_uses"], 2);
    house.ask("GET", "auth/token/lookup-self", inside.clone()).await.ok();
    house.ask("GET", "auth/token/lookup-self", inside.clone()).await.ok();
    house.ask("GET", "auth/token/lookup-self", inside).await.is(403);
    house.delete("auth/token/roles/r", ROOT).await.is(204);
    house.get("auth/token/roles/r", ROOT).await.is(404);
}

#[tokio::test]
async fn ttl_limits_hold_and_a_periodic_token_lives_while_it_is_renewed() {
    let house = House::new().await;
    let made = house
        .post("auth/token/create", ROOT, json!({ "policies": ["default"], "ttl": "1h", "explicit_max_ttl": "90m" }))
        .await
        .ok();
    house.pass(3000).await;
    assert_eq!(
        house.post("auth/token/renew-self", &made.token(), json!({})).await.ok().body["auth"]["lease_duration"],
        2400
    );
    house.pass(2399).await;
    assert!(house.accepts(&made.token()).await);
    house.pass(1).await;
    assert!(!house.accepts(&made.token()).await);
    let periodic = house.token(json!({ "policies": ["default"], "period": "1h" })).await;
    for _ in 0..2000 {
        house.clock.advance(Duration::from_secs(3599));
        let renewed = house.post("auth/token/renew-self", &periodic, json!({ "increment": "1s" })).await.ok();
        assert_eq!(renewed.body["auth"]["lease_duration"], 3600);
    }
    house.pass(3600).await;
    assert!(!house.accepts(&periodic).await);
    let capped = house.post("auth/token/create", ROOT, json!({ "policies": ["default"], "ttl": "99999h" })).await.ok();
    assert_eq!(capped.body["auth"]["lease_duration"], 768 * 3600);
    assert!(capped.body["warnings"][0].as_str().unwrap().contains("exceeded the effective max_ttl"));
    house.post("sys/auth/token/tune", ROOT, json!({ "default_lease_ttl": "10m", "max_lease_ttl": "20m" })).await.ok();
    assert_eq!(
        house.post("auth/token/create", ROOT, json!({ "policies": ["default"] })).await.ok().body["auth"]["lease_duration"],
        600
    );
    assert_eq!(
        house.post("auth/token/create", ROOT, json!({ "policies": ["default"], "ttl": "1h" })).await.ok().body["auth"]
            ["lease_duration"],
        1200
    );
}

#[tokio::test]
async fn sec_tl01_a_renewal_at_the_very_end_is_not_for_ever() {
    let house = House::new().await;
    for left in [1100u64, 900, 500, 100, 1, 0] {
        let token = house.token(json!({ "policies": ["default"], "ttl": "10s", "explicit_max_ttl": "10s" })).await;
        house.clock.advance(Duration::from_millis(10_000 - left));
        let renewed = house.post("auth/token/renew-self", &token, json!({ "increment": "1h" })).await;
        assert!(
            renewed.status == 403 || renewed.body["auth"]["lease_duration"].as_u64().unwrap() <= left.div_ceil(1000),
            "{left}: {renewed:?}"
        );
        if left > 0 {
            house.clock.advance(Duration::from_millis(left - 1));
            assert!(house.accepts(&token).await, "{left}");
            house.clock.advance(Duration::from_millis(1));
        }
        assert!(!house.accepts(&token).await, "{left}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_tl05_of_200_parallel_requests_only_num_uses_succeed() {
    let house = Arc::new(House::new().await);
    let token = house.token(json!({ "policies": ["default"], "num_uses": 10 })).await;
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let (house, token) = (house.clone(), token.clone());
            tokio::spawn(async move { house.accepts(&token).await })
        })
        .collect();
    let mut passed = 0;
    for task in tasks {
        passed += usize::from(task.await.unwrap());
    }
    assert_eq!(passed, 10);
    assert!(!house.accepts(&token).await);
    assert!(stored(&house, "token/id/").await.len() <= 1, "a spent token is deleted");
}

#[tokio::test]
async fn uses_are_shown_counted_and_no_child_comes_of_a_counted_token() {
    let house = House::new().await;
    let token = house.token(json!({ "num_uses": 4 })).await;
    assert_eq!(house.get("auth/token/lookup-self", &token).await.ok().data()["num_uses"], 3);
    assert_eq!(
        house.post("auth/token/create", &token, json!({})).await.is(400).error(),
        "restricted use token cannot generate child tokens"
    );
    house.get("no/such/route", &token).await.is(404);
    assert_eq!(house.get("auth/token/lookup-self", &token).await.ok().data()["num_uses"], -1);
    house.get("auth/token/lookup-self", &token).await.is(403);
}

#[tokio::test]
async fn a_batch_token_costs_no_write_and_ends_with_its_parent() {
    let house = House::new().await;
    house.policy("maker", r#"path "auth/token/create" { capabilities = ["update"] }"#).await;
    let parent = house.token(json!({ "policies": ["maker"] })).await;
    let before = stored(&house, "").await;
    let made = house.post("auth/token/create", &parent, json!({ "type": "batch", "ttl": "1h" })).await.ok();
    assert_eq!(stored(&house, "").await, before);
    let batch = made.token();
    assert!(batch.starts_with("hvb."));
    assert_eq!((&made.body["auth"]["accessor"], &made.body["auth"]["renewable"]), (&json!(""), &json!(false)));
    assert_eq!(house.get("auth/token/lookup-self", &batch).await.ok().data()["type"], "batch");
    house.post("auth/token/renew", ROOT, json!({ "token": batch })).await.is(400);
    house.post("auth/token/revoke", ROOT, json!({ "token": batch })).await.is(400);
    house.post("auth/token/create", &batch, json!({})).await.is(400);
    house.post("cubbyhole/a", &batch, json!({ "a": 1 })).await;
    for end in 0..batch.len() {
        assert!(!house.accepts(&format!("{}{}", &batch[..end], if batch.ends_with('x') { "y" } else { "x" })).await);
    }
    house.post("auth/token/revoke", ROOT, json!({ "token": parent })).await.ok();
    assert!(!house.accepts(&batch).await);
    let orphan = house.token(json!({ "type": "batch", "no_parent": true, "policies": ["default"], "ttl": "1h" })).await;
    house.pass(3600).await;
    assert!(!house.accepts(&orphan).await);
}

#[tokio::test]
async fn a_chosen_id_is_unique_and_a_new_token_of_it_inherits_nothing() {
    let house = House::new().await;
    house.token(json!({ "id": "chosen", "policies": ["maker"] })).await;
    house.policy("maker", r#"path "auth/token/create" { capabilities = ["update"] }"#).await;
    assert_eq!(
        house.post("auth/token/create", ROOT, json!({ "id": "chosen" })).await.is(400).error(),
        "cannot create a token with a duplicate ID"
    );
    for bad in ["hvs.x", "hvb.x", "a.b", "a\u{7}"] {
        house.post("auth/token/create", ROOT, json!({ "id": bad })).await.is(400);
    }
    let child = house.post("auth/token/create", "chosen", json!({})).await.ok().token();
    house.post("cubbyhole/a", "chosen", json!({ "v": 1 })).await.ok();
    house.post("auth/token/revoke", ROOT, json!({ "token": "chosen" })).await.ok();
    house.token(json!({ "id": "chosen", "policies": ["maker"] })).await;
    assert!(!house.accepts(&child).await);
    house.get("cubbyhole/a", "chosen").await.is(404);
}

/// The stored keys below a prefix.
pub(crate) async fn stored(house: &House, prefix: &str) -> Vec<String> {
    let unsealed = house.unsealed();
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
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

#[tokio::test]
async fn sec_tl04_descendants_of_a_revoked_token_are_revoked_and_deleted() {
    let mut house = House::new().await;
    house.policy("maker", r#"path "auth/token/create" { capabilities = ["update", "sudo"] } path "cubbyhole/*" { capabilities = ["update"] }"#).await;
    for seed in 0..6 {
        let mut chance = Chance(seed);
        let mut tree =
            vec![(house.token(json!({ "policies": ["maker"], "no_parent": true })).await, usize::MAX, false)];
        for _ in 0..40 {
            let parent = chance.below(tree.len());
            let orphan = chance.below(8) == 0;
            let token =
                house.post("auth/token/create", &tree[parent].0, json!({ "no_parent": orphan })).await.ok().token();
            house.post("cubbyhole/x/y", &token, json!({ "a": 1 })).await.ok();
            tree.push((token, parent, orphan));
        }
        let victim = chance.below(tree.len());
        house.post("auth/token/revoke", ROOT, json!({ "token": tree[victim].0 })).await.ok();
        if seed % 2 == 1 {
            house.restarted().await;
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
            assert_eq!(house.accepts(&tree[at].0).await, !dead, "seed {seed} token {at}");
        }
        for (token, _, _) in &tree {
            house.post("auth/token/revoke", ROOT, json!({ "token": token })).await.ok();
        }
        let left: Vec<_> = stored(&house, "token/").await.into_iter().filter(|k| k != "token/secrets").collect();
        assert_eq!(left.len(), 1, "the root token alone: {left:?}");
    }
    assert!(!stored(&house, "logical/").await.iter().any(|k| k.ends_with("x/y")));
}

#[tokio::test]
async fn sec_tl04_orphans_survive_revoke_orphan_and_expiry_takes_the_tree() {
    let house = House::new().await;
    house.policy("maker", r#"path "auth/token/create" { capabilities = ["update"] }"#).await;
    let parent = house.token(json!({ "policies": ["maker"], "ttl": "1h" })).await;
    let child = house.post("auth/token/create", &parent, json!({ "ttl": "10h" })).await.ok().token();
    let grandchild = house.post("auth/token/create", &child, json!({ "ttl": "10h" })).await.ok().token();
    let other = house.token(json!({ "policies": ["maker"], "ttl": "1h" })).await;
    let saved = house.post("auth/token/create", &other, json!({ "ttl": "10h" })).await.ok().token();
    house.post("auth/token/revoke-orphan", ROOT, json!({ "token": other })).await.is(204);
    house.clock.advance(Duration::from_secs(3600));
    // Expired by the clock alone, before any revocation, and for lookups as well.
    assert!(!house.accepts(&child).await && !house.accepts(&grandchild).await);
    house.post("auth/token/lookup", ROOT, json!({ "token": grandchild })).await.is(403);
    assert!(house.accepts(&saved).await);
    assert_eq!(house.get("auth/token/lookup-self", &saved).await.ok().data()["orphan"], true);
    house.pass(2).await;
    let left = stored(&house, "token/").await;
    assert_eq!(left.iter().filter(|k| k.starts_with("token/id/")).count(), 2, "{left:?}");
}

#[tokio::test]
async fn sec_tl04_more_than_a_page_of_orphans_survives_their_parent() {
    let house = House::new().await;
    house.policy("maker", r#"path "auth/token/create" { capabilities = ["update"] }"#).await;
    let parent = house.token(json!({ "policies": ["maker"], "ttl": "1h" })).await;
    let mut children = Vec::new();
    for _ in 0..203 {
        children.push(house.post("auth/token/create", &parent, json!({ "ttl": "2h" })).await.ok().token());
    }
    house.post("auth/token/revoke-orphan", ROOT, json!({ "token": parent })).await.is(204);
    assert!(!house.accepts(&parent).await);
    for child in &children {
        assert!(house.accepts(child).await);
    }
    let left = stored(&house, "token/").await;
    assert!(!left.iter().any(|k| k.starts_with("token/child/")), "{left:?}");
}

#[tokio::test]
async fn sec_tl04_an_interrupted_collection_is_taken_up_at_the_next_unseal() {
    let mut house = House::new().await;
    house.policy("maker", r#"path "auth/token/create" { capabilities = ["update"] }"#).await;
    let parent = house.token(json!({ "policies": ["maker"] })).await;
    let mut children = Vec::new();
    for _ in 0..5 {
        children.push(house.post("auth/token/create", &parent, json!({})).await.ok().token());
    }
    // The storage of a process that ended right after the first transaction of a revoke.
    let unsealed = house.unsealed();
    let key = unsealed.access.tokens.place(&parent);
    let view = unsealed.barrier.view("token/");
    let mut tx = unsealed.barrier.begin();
    tx.delete(&view, &format!("id/{}", key.as_str()));
    tx.put(&view, &format!("pending/{}", key.as_str()), bytes::Bytes::new());
    tx.commit().await.unwrap();
    drop(unsealed);
    for child in &children {
        assert!(!house.accepts(child).await);
    }
    house.restarted().await;
    house.unsealed().access.tokens.resume_collection().await.unwrap();
    let left = stored(&house, "token/").await;
    assert_eq!(
        left.iter().filter(|k| k.starts_with("token/id/") || k.starts_with("token/pending/")).count(),
        1,
        "{left:?}"
    );
    for child in &children {
        assert!(!house.accepts(child).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_tl04_a_child_made_while_its_parent_is_revoked_leaves_nothing() {
    let house = Arc::new(House::new().await);
    house.policy("maker", r#"path "auth/token/create" { capabilities = ["update"] } path "cubbyhole/*" { capabilities = ["update"] }"#).await;
    for _ in 0..30 {
        let parent = house.token(json!({ "policies": ["maker"] })).await;
        let makers: Vec<_> = (0..4)
            .map(|n| {
                let (house, parent) = (house.clone(), parent.clone());
                tokio::spawn(async move {
                    let _ = house.post(&format!("cubbyhole/{n}"), &parent, json!({ "a": 1 })).await;
                    let made = house.post("auth/token/create", &parent, json!({})).await;
                    (made.status == 200).then(|| made.token())
                })
            })
            .collect();
        tokio::task::yield_now().await;
        house.post("auth/token/revoke", ROOT, json!({ "token": parent })).await.ok();
        for maker in makers {
            if let Some(child) = maker.await.unwrap() {
                assert!(!house.accepts(&child).await);
            }
        }
        let left: Vec<_> = stored(&house, "")
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
    let house = House::new().await;
    let token = house.token(json!({ "policies": ["default"] })).await;
    for n in 0..250 {
        house.post(&format!("cubbyhole/{}/{n}", n % 7), &token, json!({ "a": 1 })).await.ok();
    }
    house.post("auth/token/revoke", ROOT, json!({ "token": token })).await.is(204);
    let left = stored(&house, "").await;
    assert!(!left.iter().any(|k| k.contains("spent") || k.starts_with("logical/") && k.contains("/3/")), "{left:?}");
}

#[tokio::test]
async fn tokens_live_on_after_a_restart_and_end_when_they_should() {
    let mut house = House::new().await;
    let short = house.token(json!({ "policies": ["default"], "ttl": "1m" })).await;
    let long = house.token(json!({ "policies": ["default"], "ttl": "1h" })).await;
    let batch = house.token(json!({ "policies": ["default"], "type": "batch", "ttl": "1h" })).await;
    house.restarted().await;
    assert!(
        house.accepts(&short).await
            && house.accepts(&long).await
            && house.accepts(&batch).await
            && house.accepts(ROOT).await
    );
    house.pass(62).await;
    assert!(!house.accepts(&short).await && house.accepts(&long).await);
    house.post("sys/leases/tidy", ROOT, json!({})).await.is(202);
    let expiring = stored(&house, "token/expiry/").await;
    assert_eq!(expiring.len(), 1, "{expiring:?}");
}

#[tokio::test]
async fn sec_tl09_one_damaged_record_stops_neither_unseal_nor_the_others() {
    let mut house = House::new().await;
    let damaged = house.token(json!({ "policies": ["default"], "ttl": "1m" })).await;
    let healthy = house.token(json!({ "policies": ["default"], "ttl": "1m" })).await;
    let unsealed = house.unsealed();
    let key = unsealed.access.tokens.place(&damaged);
    let mut tx = unsealed.barrier.begin();
    tx.put(&unsealed.barrier.view("token/"), &format!("id/{}", key.as_str()), bytes::Bytes::from_static(b"{"));
    tx.commit().await.unwrap();
    drop(unsealed);
    house.restarted().await;
    assert!(house.accepts(&healthy).await);
    house.get("auth/token/lookup-self", &damaged).await.is(500);
    house.clock.advance(Duration::from_secs(62));
    house.unsealed().leases.expiry.revoke_due_tokens(house.clock.now()).await.unwrap();
    let left = stored(&house, "token/id/").await;
    assert_eq!(left.len(), 1, "root alone, for the damaged one ends with the others: {left:?}");
}

#[tokio::test]
async fn a_stale_entry_of_the_index_does_not_come_up_for_ever() {
    let house = House::new().await;
    let unsealed = house.unsealed();
    let view = unsealed.barrier.view("token/");
    let mut tx = unsealed.barrier.begin();
    for n in 0..600u32 {
        tx.put(&view, &format!("expiry/0000000001{n:040x}"), bytes::Bytes::new());
    }
    tx.commit().await.unwrap();
    unsealed.leases.expiry.revoke_due_tokens(house.clock.now()).await.unwrap();
    assert!(stored(&house, "token/expiry/").await.is_empty());
}

#[tokio::test]
async fn sec_ns03_an_id_means_nothing_in_another_namespace() {
    let house =
        House::with(|settings, dir| settings.audit = vec![device(dir, "audit", &[])], keepfast_engines::all()).await;
    let token = house.token(json!({ "policies": ["default"] })).await;
    for namespace in ["other", "other/", "root/x", "ROOT"] {
        let ask = Ask { token: Some(token.clone()), namespace: namespace.to_owned(), ..Ask::default() };
        assert_eq!(house.ask("GET", "auth/token/lookup-self", ask).await.status / 100, 4, "{namespace}");
    }
    assert!(house.accepts(&token).await);
}

#[tokio::test]
async fn a_child_is_bound_to_the_addresses_of_its_parent() {
    let house = House::new().await;
    house.policy("maker", r#"path "auth/token/create" { capabilities = ["update"] } path "auth/token/create-orphan" { capabilities = ["update"] }"#).await;
    house
        .post(
            "auth/token/roles/bound",
            ROOT,
            json!({ "allowed_policies": "maker", "token_bound_cidrs": "127.0.0.0/8" }),
        )
        .await
        .ok();
    let parent = house.post("auth/token/create/bound", ROOT, json!({})).await.ok().token();
    for (path, bound) in [("create", true), ("create-orphan", false)] {
        let child = house.post(&format!("auth/token/{path}"), &parent, json!({})).await.ok().token();
        assert!(house.accepts(&child).await);
        let elsewhere = Ask { token: Some(child), remote: "10.1.2.3:4".parse().ok(), ..Ask::default() };
        assert_eq!(house.ask("GET", "auth/token/lookup-self", elsewhere).await.status == 403, bound, "{path}");
    }
}
