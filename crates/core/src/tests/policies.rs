//! Policies at the API: a written policy applies at once, and to the caller that it names.

use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, TestServer};

#[tokio::test]
async fn a_change_of_a_policy_holds_for_the_next_request() {
    let mut server = TestServer::new().await;
    server.post("secret/data/a", ROOT, json!({ "data": {} })).await.ok();
    let token = server.token(json!({ "policies": ["later"] })).await;
    server.get("secret/data/a", &token).await.is(403);
    server.policy("later", r#"path "secret/data/a" { capabilities = ["read"] }"#).await;
    server.get("secret/data/a", &token).await.is(200);
    server.restarted().await;
    server.get("secret/data/a", &token).await.is(200);
    server.delete("sys/policies/acl/later", ROOT).await.is(204);
    server.get("secret/data/a", &token).await.is(403);
    for name in ["root", "ROOT", " root", "response-wrapping"] {
        server.post(&format!("sys/policies/acl/{name}"), ROOT, json!({ "policy": "path \"a\" {}" })).await.is(400);
        server.delete(&format!("sys/policies/acl/{name}"), ROOT).await;
    }
    server.delete("sys/policies/acl/default", ROOT).await.is(400);
    server.policy("ends", r#"path "secret/data/a" { capabilities = ["read"] }"#).await;
    server
        .post(
            "sys/policies/acl/ends",
            ROOT,
            json!({ "policy": r#"path "secret/data/a" { capabilities = ["read"] }"#, "ttl": "1h" }),
        )
        .await
        .ok();
    let ends = server.token(json!({ "policies": ["ends"] })).await;
    server.get("secret/data/a", &ends).await.is(200);
    server.pass(3600).await;
    server.get("secret/data/a", &ends).await.is(403);
}

#[tokio::test]
async fn a_policy_has_template_options_which_each_write_sets_again() {
    let server = TestServer::new().await;
    let policy = r#"path "a" { capabilities = ["read"] }"#;
    server
        .post("sys/policies/acl/p", ROOT, json!({ "policy": policy, "allow_slashes_in_identity_templates": true }))
        .await
        .is(204);
    let shown = server.get("sys/policies/acl/p", ROOT).await.ok();
    assert_eq!(
        (&shown.data()["allow_slashes_in_identity_templates"], &shown.data()["allow_wildcards_in_identity_templates"]),
        (&json!(true), &json!(false))
    );
    server.post("sys/policies/acl/p", ROOT, json!({ "policy": policy })).await.is(204);
    assert_eq!(server.get("sys/policies/acl/p", ROOT).await.ok().data()["allow_slashes_in_identity_templates"], false);
    server
        .post("sys/policies/acl/p", ROOT, json!({ "policy": policy, "allow_wildcards_in_identity_templates": "x" }))
        .await
        .is(400);
}

#[tokio::test]
async fn sec_ac06_a_template_is_about_the_alias_that_logged_in() {
    let server = TestServer::new().await;
    server.post("sys/auth/userpass", ROOT, json!({ "type": "userpass" })).await.ok();
    let accessor = server.get("sys/auth/userpass", ROOT).await.ok().data()["accessor"].as_str().unwrap().to_owned();
    server.policy("own", &format!(r#"path "secret/data/{{{{identity.entity.aliases.{accessor}.name}}}}" {{ capabilities = ["read"] }} path "auth/token/create" {{ capabilities = ["update"] }}"#)).await;
    let mut tokens = Vec::new();
    for name in ["alice", "bob"] {
        server.post(&format!("secret/data/{name}"), ROOT, json!({ "data": {} })).await.ok();
        server
            .post(&format!("auth/userpass/users/{name}"), ROOT, json!({ "password": "p", "token_policies": "own" }))
            .await
            .ok();
        tokens.push(
            server.post(&format!("auth/userpass/login/{name}"), "", json!({ "password": "p" })).await.ok().token(),
        );
    }
    // Both names become aliases of one entity on the same mount, as if an operator had created them.
    let unsealed = server.unsealed();
    let mut tx = unsealed.barrier.begin();
    let view = unsealed.barrier.view("identity/");
    let ids: Vec<String> = tx.list(&view, "entity/", &keepfast_storage::Page::all()).await.unwrap();
    assert_eq!(ids.len(), 2);
    let mut entities = Vec::new();
    for id in &ids {
        let bytes = tx.get(&view, &format!("entity/{id}")).await.unwrap().unwrap();
        entities.push(serde_json::from_slice::<Value>(&bytes).unwrap());
    }
    let all: Vec<Value> = entities.iter().map(|e| e["aliases"][0].clone()).collect();
    for (id, entity) in ids.iter().zip(&mut entities) {
        entity["aliases"] = json!(all);
        tx.put(&view, &format!("entity/{id}"), serde_json::to_vec(entity).unwrap().into());
    }
    tx.commit().await.unwrap();
    for (token, own, other) in [(&tokens[0], "alice", "bob"), (&tokens[1], "bob", "alice")] {
        server.get(&format!("secret/data/{own}"), token).await.is(200);
        server.get(&format!("secret/data/{other}"), token).await.is(403);
        let child = server.post("auth/token/create", token, json!({})).await.ok().token();
        server.get(&format!("secret/data/{own}"), &child).await.is(200);
        server.get(&format!("secret/data/{other}"), &child).await.is(403);
    }
    let nobody = server.token(json!({ "policies": ["own"] })).await;
    server.get("secret/data/alice", &nobody).await.is(403);
}

#[tokio::test]
async fn templates_of_an_approle_login_are_filled_in_and_cannot_be_widened() {
    let server = TestServer::new().await;
    server.post("sys/auth/approle", ROOT, json!({ "type": "approle" })).await.ok();
    let accessor = server.get("sys/auth/approle", ROOT).await.ok().data()["accessor"].as_str().unwrap().to_owned();
    let rule = format!(
        r#"path "secret/data/{{{{identity.entity.aliases.{accessor}.metadata.scope}}}}/a" {{ capabilities = ["read"] }}"#
    );
    server.policy("scoped", &rule).await;
    server.post("auth/approle/role/r", ROOT, json!({ "token_policies": "scoped" })).await.ok();
    let role_id = server.get("auth/approle/role/r/role-id", ROOT).await.ok().data()["role_id"].clone();
    server.post("secret/data/mine/a", ROOT, json!({ "data": {} })).await.ok();
    server.post("secret/data/other/a", ROOT, json!({ "data": {} })).await.ok();
    for scope in ["mine", "*", "+", "../data/other", "mine/../other", "other/a*", ""] {
        let metadata = json!({ "scope": scope }).to_string();
        let secret = server.post("auth/approle/role/r/secret-id", ROOT, json!({ "metadata": metadata })).await;
        // The method itself refuses some of them.
        if secret.status == 400 && scope != "mine" {
            continue;
        }
        let login = server
            .post("auth/approle/login", "", json!({ "role_id": role_id, "secret_id": secret.data()["secret_id"] }))
            .await
            .ok();
        server.get("secret/data/other/a", &login.token()).await.is(403);
        server.get("secret/data/mine/a", &login.token()).await.is(if scope == "mine" { 200 } else { 403 });
    }
}

#[tokio::test]
async fn capabilities_are_returned_for_every_form_of_the_request() {
    let server = TestServer::new().await;
    server.policy("some", r#"path "secret/data/*" { capabilities = ["read", "list"] } path "secret/data/no" { capabilities = ["deny"] }"#).await;
    let made =
        server.post("auth/token/create", ROOT, json!({ "policies": ["some"], "no_default_policy": true })).await.ok();
    for (path, body) in [
        ("sys/capabilities", json!({ "token": made.token(), "paths": ["secret/data/a", "secret/data/no", "other"] })),
        (
            "sys/capabilities-accessor",
            json!({ "accessor": made.accessor(), "paths": "secret/data/a,secret/data/no,other" }),
        ),
    ] {
        let actual = server.post(path, ROOT, body).await.ok();
        assert_eq!(
            actual.data(),
            &json!({ "secret/data/a": ["list", "read"], "secret/data/no": ["deny"], "other": ["deny"] }),
            "{path}"
        );
    }
    server.post("sys/capabilities", &made.token(), json!({ "token": ROOT, "paths": ["a"] })).await.is(403);
    let own = server.token(json!({ "policies": ["some", "default"] })).await;
    let actual = server.post("sys/capabilities-self", &own, json!({ "path": "secret/data/a" })).await.ok();
    assert_eq!(actual.data()["capabilities"], json!(["list", "read"]));
    assert_eq!(
        server.post("sys/capabilities-self", ROOT, json!({ "path": "x" })).await.ok().data()["x"],
        json!(["root"])
    );
}

#[tokio::test]
async fn create_and_update_differ_and_a_denial_reveals_neither() {
    let server = TestServer::new().await;
    server.post("secret/data/there", ROOT, json!({ "data": {} })).await.ok();
    for (capability, there, new) in [("create", 403, 200), ("update", 200, 403)] {
        server.policy(capability, &format!(r#"path "secret/data/*" {{ capabilities = ["{capability}"] }}"#)).await;
        let token = server.token(json!({ "policies": [capability] })).await;
        server.post("secret/data/there", &token, json!({ "data": {} })).await.is(there);
        server.post(&format!("secret/data/new-{capability}"), &token, json!({ "data": {} })).await.is(new);
    }
    let none = server.token(json!({ "policies": ["default"] })).await;
    for (path, body) in [
        ("secret/data/there", json!({ "data": 1 })),
        ("auth/token/roles/x", json!({ "orphan": "zzz" })),
        ("sys/policies/acl/x", json!({ "cas": "zzz" })),
    ] {
        let denied = "1 error occurred:\n\t* permission denied\n\n";
        assert_eq!(server.post(path, &none, body).await.is(403).error(), denied);
    }
}

#[tokio::test]
async fn help_needs_access_and_reveals_no_records() {
    let server = TestServer::new().await;
    let token = server.token(json!({ "policies": ["default"] })).await;
    for path in ["sys/audit", "auth/token/accessors", "secret/data/a", "sys/mounts/secret"] {
        let actual = server.call("HELP", path, &token, Value::Null).await.ok();
        assert_eq!(actual.body["help"], server.call("HELP", path, ROOT, Value::Null).await.ok().body["help"], "{path}");
        server.call("HELP", path, "", Value::Null).await.is(403);
    }
    server.get("sys/audit", &token).await.is(403);
}

#[tokio::test]
async fn engines_see_the_capabilities_of_the_caller_on_other_paths() {
    let server = TestServer::new().await;
    server.policy("reader", r#"path "secret/data/a" { capabilities = ["read", "list"] }"#).await;
    let token = server.token(json!({ "policies": ["reader"] })).await;
    let (unsealed, now) = (server.unsealed(), keepfast_framework::Clock::now(&server.clock));
    let access = &unsealed.access;
    let found = access.tokens.find_anywhere(&token, now).await.unwrap().unwrap();
    let compiled = access.policies.acl_of(&found, &access.identity).await.unwrap();
    let grants = compiled.caller.grants.as_ref().unwrap();
    assert_eq!(grants.capabilities("secret/data/a"), ["list", "read"]);
    assert_eq!(grants.capabilities("secret/data/b"), ["deny"]);
}

#[tokio::test]
async fn reads_and_writes_of_policies_are_timed_and_listed() {
    let server = TestServer::new().await;
    server.policy("one", r#"path "a" { capabilities = ["read"] }"#).await;
    let unsealed = server.unsealed();
    let (policies, timings) = (&unsealed.access.policies, &unsealed.observability.metrics.policies);
    let (sets, lists) = (timings.set.count(), timings.list.count());
    server.policy("two", r#"path "a" { capabilities = ["read"] }"#).await;
    assert_eq!(
        server.list("sys/policies/acl", ROOT).await.ok().data()["keys"],
        json!(["default", "one", "two", "root"])
    );
    assert_eq!((timings.set.count(), timings.list.count()), (sets + 1, lists + 1));
    let mut tx = unsealed.barrier.begin_read();
    assert!(policies.readable(&mut tx, "one").await.unwrap().is_some_and(|policy| policy.name == "one"));
    assert!(policies.readable(&mut tx, "three").await.unwrap().is_none());
    for (name, exists) in [("one", true), ("three", false), ("root", true), ("default", true)] {
        assert_eq!(policies.exists(name).await.unwrap(), exists, "{name}");
    }
}
