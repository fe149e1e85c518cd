//! The caller, the deciding policies and the reason of a refusal in audit entries.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, RequestOptions, TestResponse, TestServer, device};

const LOGIN: &str = "auth/userpass/login/u";

async fn server() -> TestServer {
    let server = TestServer::new().await;
    server.post("sys/auth/userpass", ROOT, json!({ "type": "userpass" })).await.ok();
    server.policy("reads", r#"path "secret/data/a" { capabilities = ["read"] }"#).await;
    server.policy("writes", r#"path "secret/data/a" { capabilities = ["update", "create"] }"#).await;
    server.policy("wide", r#"path "secret/*" { capabilities = ["read"] }"#).await;
    let user = json!({ "password": "pw", "token_policies": "reads,writes,wide" });
    server.post("auth/userpass/users/u", ROOT, user).await.ok();
    server.forget_audit();
    server
}

async fn hash(server: &TestServer, text: &str) -> Value {
    server.post("sys/audit-hash/audit", ROOT, json!({ "input": text })).await.ok().data()["hash"].clone()
}

/// The last two entries: of the request and of its response.
fn last_two(server: &TestServer) -> (Value, Value) {
    let mut entries = server.entries();
    let response = entries.pop().unwrap();
    (entries.pop().unwrap(), response)
}

#[tokio::test]
async fn sec_kf41_a_login_entry_names_the_new_token_and_hashes_it() {
    let server = server().await;
    let login = server.post(LOGIN, "", json!({ "password": "pw" })).await.ok();
    let (request, response) = last_two(&server);
    assert_eq!(request["auth"], json!({ "token_type": "default", "policy_results": { "allowed": true } }));
    let policies = json!(["default", "reads", "wide", "writes"]);
    for auth in [&response["auth"], &response["response"]["auth"]] {
        assert_eq!(auth["client_token"], hash(&server, &login.token()).await);
        assert_eq!(auth["accessor"], hash(&server, &login.accessor()).await);
        assert_eq!((&auth["display_name"], &auth["token_type"]), (&json!("userpass-u"), &json!("service")));
        assert_eq!((&auth["policies"], &auth["token_policies"]), (&policies, &policies));
        assert_eq!((&auth["metadata"], &auth["token_ttl"]), (&json!({ "username": "u" }), &json!(2_764_800)));
        assert_eq!(auth["entity_id"], login.body["auth"]["entity_id"]);
    }
    // The entry of a wrapped login has the login's token; its response holds only the wrapping token.
    let body = Some(json!({ "password": "pw" }).to_string());
    let wrapped =
        server.send("POST", LOGIN, RequestOptions { body, wrap: Some(60), ..RequestOptions::default() }).await.ok();
    let (_, response) = last_two(&server);
    assert_eq!(response["auth"]["display_name"], "userpass-u");
    assert!(response["response"]["auth"].is_null());
    let wrap = &response["response"]["wrap_info"];
    assert_eq!(wrap["wrapped_accessor"], response["auth"]["accessor"]);
    assert_eq!(wrap["token"], hash(&server, &wrapped.wrapping()).await);
    // A token that a token creates is in the response, and the caller in `auth`.
    let body = json!({ "policies": ["reads"], "display_name": "dn", "meta": { "a": "b" }, "num_uses": 3 });
    let made = server.post("auth/token/create", ROOT, body).await.ok();
    let (_, response) = last_two(&server);
    assert_eq!(response["auth"]["policies"], json!(["root"]));
    let auth = &response["response"]["auth"];
    assert_eq!(auth["client_token"], hash(&server, &made.token()).await);
    assert_eq!((&auth["display_name"], &auth["num_uses"]), (&json!("token-dn"), &json!(3)));
    assert_eq!((&auth["metadata"], &auth["policies"]), (&json!({ "a": "b" }), &json!(["default", "reads"])));
    let log = server.audit("audit");
    for secret in [login.token(), login.accessor(), wrapped.wrapping(), made.token(), made.accessor()] {
        assert!(!log.contains(&secret), "in clear: {secret}");
    }
}

#[tokio::test]
async fn both_entries_name_the_policies_that_grant_a_request() {
    let server = server().await;
    let token = server.post(LOGIN, "", json!({ "password": "pw" })).await.ok().token();
    let granting = |names: &[&str]| {
        let policy = |name: &&str| json!({ "name": name, "namespace_id": "root", "type": "acl" });
        json!({ "allowed": true, "granting_policies": names.iter().map(policy).collect::<Vec<_>>() })
    };
    server.post("secret/data/a", &token, json!({ "data": { "k": 1 } })).await.ok();
    for (method, path, token, results) in [
        ("GET", "secret/data/a", token.as_str(), granting(&["reads"])),
        ("POST", "secret/data/a", &token, granting(&["writes"])),
        ("GET", "secret/data/b", &token, granting(&["wide"])),
        ("GET", "auth/token/lookup-self", &token, granting(&["default"])),
        ("GET", "secret/data/a", ROOT, granting(&["root"])),
        ("GET", "sys/mounts", &token, json!({ "allowed": false })),
        ("GET", "secret/data/a", "unknown", Value::Null),
        ("GET", "secret/data/a", "", Value::Null),
    ] {
        let body = if method == "POST" { json!({ "data": { "k": 1 } }) } else { Value::Null };
        server.call(method, path, token, body).await;
        let (request, response) = last_two(&server);
        for entry in [request, response] {
            assert_eq!(entry["auth"]["policy_results"], results, "{method} {path}: {entry}");
        }
    }
}

#[tokio::test]
async fn policies_of_the_entity_are_in_both_entries() {
    let server = server().await;
    let login = server.post(LOGIN, "", json!({ "password": "pw" })).await.ok();
    let unsealed = server.unsealed();
    let (view, mut tx) = (unsealed.barrier.view("identity/"), unsealed.barrier.begin());
    let key = format!("entity/{}", login.body["auth"]["entity_id"].as_str().unwrap());
    let mut entity: Value = serde_json::from_slice(&tx.get(&view, &key).await.unwrap().unwrap()).unwrap();
    entity["policies"] = json!(["of-entity", "reads"]);
    tx.put(&view, &key, entity.to_string().into());
    tx.commit().await.unwrap();
    server.get("secret/data/a", &login.token()).await;
    let again = server.post(LOGIN, "", json!({ "password": "pw" })).await.ok();
    let entries = server.entries();
    let last = &entries[entries.len() - 4..];
    assert_eq!(last.iter().map(|e| e["type"].as_str().unwrap()).collect::<Vec<_>>(), ["request", "response"].repeat(2));
    for entry in last {
        let is_login = entry["request"]["path"] == LOGIN;
        if is_login && entry["type"] == "request" {
            assert!(entry["auth"].get("policies").is_none(), "the user is not known yet: {entry}");
            continue;
        }
        let auth = if is_login { &entry["response"]["auth"] } else { &entry["auth"] };
        assert_eq!(auth["identity_policies"], json!(["of-entity", "reads"]), "{entry}");
        assert_eq!(auth["token_policies"], json!(["default", "reads", "wide", "writes"]));
        assert_eq!(auth["policies"], json!(["default", "of-entity", "reads", "wide", "writes"]));
    }
    assert_eq!(again.body["auth"]["identity_policies"], json!(["of-entity", "reads"]));
}

#[tokio::test]
async fn sec_kf41_the_reason_of_a_refusal_is_in_the_audit_log_only() {
    let server = server().await;
    let elsewhere: SocketAddr = "10.0.0.1:1".parse().unwrap();
    let bound = server.token(json!({ "policies": ["reads"] })).await;
    let short = server.token(json!({ "policies": ["reads"], "ttl": "5s" })).await;
    let once = server.token(json!({ "policies": ["reads"], "num_uses": 1 })).await;
    let role = json!({ "token_bound_cidrs": ["10.9.9.9/32"], "allowed_policies": "reads" });
    server.post("auth/token/roles/bound", ROOT, role).await.ok();
    let cidr = server.post("auth/token/create/bound", ROOT, json!({ "policies": ["reads"] })).await.ok().token();
    let user = json!({ "password": "pw", "token_bound_cidrs": "10.9.9.9/32" });
    server.post("auth/userpass/users/c", ROOT, user).await.ok();
    server.get("secret/data/a", &once).await.is(404);
    server.clock.advance(std::time::Duration::from_secs(7));
    for _ in 0..5 {
        server.post(LOGIN, "", json!({ "password": "wrong" })).await.is(400);
    }
    let send = |token: &str, path: &'static str, body: Value| {
        let (token, body) =
            ((!token.is_empty()).then(|| token.to_owned()), (!body.is_null()).then(|| body.to_string()));
        (path, RequestOptions { token, body, remote: Some(elsewhere), ..RequestOptions::default() })
    };
    let pw = || json!({ "password": "pw" });
    for (what, (path, send), reason) in [
        ("unknown", send("unknown", "secret/data/a", Value::Null), "does not exist"),
        ("none", send("", "secret/data/a", Value::Null), "has no token"),
        ("expired", send(&short, "secret/data/a", Value::Null), "expired"),
        ("spent", send(&once, "secret/data/a", Value::Null), "does not exist"),
        ("cidr", send(&cidr, "secret/data/a", Value::Null), "bound CIDRs of the token"),
        ("policy", send(&bound, "sys/mounts", Value::Null), "no policy"),
        ("locked", send("", LOGIN, pw()), "locked out"),
        ("user's cidr", send("", "auth/userpass/login/c", pw()), "bound CIDRs of the user"),
    ] {
        let method = if send.body.is_some() { "POST" } else { "GET" };
        let (status, text) = match what {
            "user's cidr" => (400, "invalid username or password"),
            _ => (403, "permission denied"),
        };
        let answer: TestResponse = server.send(method, path, send).await.is(status);
        assert!(answer.error().contains(text) && !answer.body.to_string().contains("CIDR"), "{what}");
        let (request, response) = last_two(&server);
        let actual = response["error_reason"].as_str().unwrap_or_else(|| panic!("{what}: {response}"));
        assert!(actual.contains(reason), "{what}: {actual}");
        assert!(path.contains("login") || request["error_reason"] == response["error_reason"], "{what}: {request}");
        assert!(response["error"].as_str().unwrap().contains(text), "{what}");
    }
}

#[tokio::test]
async fn prefix_and_elided_lists_are_written_as_configured() {
    let server = TestServer::with(
        |settings, dir| {
            settings.audit.push(device(dir, "prefixed", &[("prefix", "@cee: "), ("elide_list_responses", "true")]));
        },
        keepfast_engines::all(),
    )
    .await;
    for name in ["a", "b"] {
        server.post(&format!("secret/data/{name}"), ROOT, json!({ "data": {} })).await.ok();
    }
    server.list("secret/metadata", ROOT).await.ok();
    let log = server.audit("prefixed");
    assert!(log.lines().count() >= 6 && log.lines().all(|line| line.starts_with("@cee: {\"time\":")), "{log}");
    let last: Value = serde_json::from_str(log.lines().last().unwrap().trim_start_matches("@cee: ")).unwrap();
    assert_eq!(last["response"]["data"], json!({ "keys": 2 }));
    let (_, plain) = last_two(&server);
    assert_eq!(plain["response"]["data"]["keys"].as_array().map(Vec::len), Some(2), "of the other device");
}

#[tokio::test]
async fn sec_kf41_the_reason_of_a_refused_approle_login_is_only_audited() {
    let server = TestServer::new().await;
    server.post("sys/auth/approle", ROOT, json!({ "type": "approle" })).await.ok();
    let path = |rest: &str| format!("auth/approle/role/{rest}");
    for (role, parameters) in [
        ("near", json!({ "secret_id_bound_cidrs": "10.9.9.0/24" })),
        ("free", json!({ "token_bound_cidrs": "10.0.0.0/8" })),
        ("unbound", json!({ "bind_secret_id": false, "secret_id_bound_cidrs": "10.9.9.0/24" })),
    ] {
        server.post(&path(role), ROOT, parameters).await.ok();
        server.post(&path(&format!("{role}/role-id")), ROOT, json!({ "role_id": role })).await.ok();
    }
    for (role, id, more) in [
        ("near", "n", json!({})),
        ("free", "bound", json!({ "cidr_list": "10.9.9.9/32" })),
        ("free", "narrow", json!({ "token_bound_cidrs": "10.1.0.0/16" })),
        ("free", "short", json!({ "ttl": "1s" })),
    ] {
        let mut body = more;
        body["secret_id"] = id.into();
        server.post(&path(&format!("{role}/custom-secret-id")), ROOT, body).await.ok();
    }
    server.post(&path("free"), ROOT, json!({ "token_bound_cidrs": "10.2.0.0/16" })).await.ok();
    server.clock.advance(std::time::Duration::from_secs(2));
    let remote: SocketAddr = "10.0.0.1:1".parse().unwrap();
    for (role, id, reason) in [
        ("near", "n", "not in secret_id_bound_cidrs of the role"),
        ("unbound", "any", "not in secret_id_bound_cidrs of the role"),
        ("free", "bound", "not in cidr_list of the secret_id"),
        ("free", "narrow", "token_bound_cidrs of the secret_id are not within"),
        ("free", "short", "expired"),
        ("free", "wrong", "no such secret_id"),
        ("nobody", "n", "no role has this role_id"),
    ] {
        let body = Some(json!({ "role_id": role, "secret_id": id }).to_string());
        let send = RequestOptions { body, remote: Some(remote), ..RequestOptions::default() };
        let answer = server.send("POST", "auth/approle/login", send).await.is(400);
        assert_eq!(answer.body, json!({ "errors": ["invalid role or secret ID"] }), "{role} {id}");
        let (_, response) = last_two(&server);
        let actual = response["error_reason"].as_str().unwrap_or_else(|| panic!("{role} {id}: {response}"));
        assert!(actual.contains(reason), "{role} {id}: {actual}");
    }
}

#[tokio::test]
async fn entries_have_the_fields_that_rules_for_vault_read() {
    let server = server().await;
    let version = concat!("v", env!("CARGO_PKG_VERSION"), "+builtin.keepfast");
    let user = json!({ "password": "pw", "token_policies": "reads", "token_no_default_policy": true });
    server.post("auth/userpass/users/n", ROOT, user).await.ok();
    for created in [json!(true), Value::Null] {
        server.post("auth/userpass/login/n", "", json!({ "password": "pw" })).await.ok();
        let (_, response) = last_two(&server);
        assert_eq!(
            (&response["auth"]["entity_created"], &response["auth"]["no_default_policy"]),
            (&created, &json!(true))
        );
        assert_eq!(response["response"]["mount_running_plugin_version"], version);
        assert_eq!(response["request"]["mount_running_version"], version);
    }
    let login = server.post("auth/userpass/login/n", "", json!({ "password": "pw" })).await.ok();
    server.get("secret/data/b", &login.token()).await.is(403);
    let (request, response) = last_two(&server);
    for entry in [&request, &response] {
        assert_eq!(entry["request"]["client_id"], login.body["auth"]["entity_id"]);
        assert_eq!(entry["error"], "1 error occurred:\n\t* permission denied\n\n");
    }
    let hashed = hash(&server, "1 error occurred:\n\t* permission denied\n\n").await;
    assert_eq!(response["response"]["data"], json!({ "error": hashed }));
    // Tokens without an entity are one client for each set of policies.
    let mut clients = Vec::new();
    for policies in [["reads"], ["reads"], ["wide"]] {
        let token = server.token(json!({ "policies": policies })).await;
        server.get("auth/token/lookup-self", &token).await.ok();
        clients.push(last_two(&server).1["request"]["client_id"].as_str().unwrap().to_owned());
    }
    assert!(clients[0] == clients[1] && clients[0] != clients[2] && clients[0].len() == 44, "{clients:?}");
}
