//! Control groups: a controlled request runs once, after members of groups have approved it.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::tests::cluster::fake::Cluster;
use crate::tests::fixture::{ROOT, RequestOptions, TestResponse, TestServer};
use crate::tests::tokens::stored;

const NEEDS: &str = "request needs further approval";
const INVALID: &str = "wrapping token is not valid or does not exist";
const APPROVES: &str = r#"path "sys/control-group/*" { capabilities = ["update"] }"#;

fn factor(name: &str, controlled: &str, identity: &str) -> String {
    let controlled =
        if controlled.is_empty() { String::new() } else { format!("controlled_capabilities = [{controlled}]") };
    format!("factor {name:?} {{ {controlled}\n identity {{ {identity} }} }}")
}

fn managers(approvals: u32) -> String {
    factor("managers", "", &format!("group_names = [\"managers\"] approvals = {approvals}"))
}

/// The rule of a requester on `secret/data/a`.
fn controlled(stanza: &str) -> String {
    format!(
        "path \"secret/data/a\" {{ capabilities = [\"create\", \"read\", \"update\", \"delete\"]\n control_group {{ ttl = 3600 {stanza} }} }}\n{APPROVES}"
    )
}

/// A user: its token and its entity.
struct User {
    token: String,
    entity: String,
}

async fn user_in(server: &TestServer, namespace: &str, name: &str, policy: &str) -> User {
    let send = |path: String, token: &str, body: Value| {
        let options = RequestOptions {
            token: (!token.is_empty()).then(|| token.to_owned()),
            body: Some(body.to_string()),
            namespace: namespace.to_owned(),
            ..RequestOptions::default()
        };
        async move { server.send("POST", &path, options).await.ok() }
    };
    send(format!("auth/up/users/{name}"), ROOT, json!({ "password": "p", "token_policies": policy })).await;
    let login = send(format!("auth/up/login/{name}"), "", json!({ "password": "p" })).await;
    User { token: login.token(), entity: login.body["auth"]["entity_id"].as_str().unwrap().to_owned() }
}

async fn user(server: &TestServer, name: &str, policy: &str) -> User {
    user_in(server, "", name, policy).await
}

async fn group(server: &TestServer, name: &str, members: &[&User]) {
    let members: Vec<_> = members.iter().map(|user| &user.entity).collect();
    server.post("identity/group", ROOT, json!({ "name": name, "member_entity_ids": members })).await.ok();
}

/// A server with the requester `anna`, whose rule has this stanza, and the members `bert` and `cora` of `managers`.
async fn server(stanza: &str) -> (TestServer, User, User, User) {
    let server = TestServer::new().await;
    server.post("sys/auth/up", ROOT, json!({ "type": "userpass" })).await.ok();
    server.policy("requester", &controlled(stanza)).await;
    server.policy("approver", APPROVES).await;
    server.post("secret/data/a", ROOT, json!({ "data": { "k": "canary-value" } })).await.ok();
    let anna = user(&server, "anna", "requester").await;
    let (bert, cora) = (user(&server, "bert", "approver").await, user(&server, "cora", "approver").await);
    group(&server, "managers", &[&bert, &cora]).await;
    (server, anna, bert, cora)
}

/// The wrapping token of a controlled request, and its accessor.
fn stored_as(response: &TestResponse) -> (String, String) {
    let info = &response.body["wrap_info"];
    assert!(response.status == 200 && response.body["data"].is_null(), "{response:?}");
    (info["token"].as_str().unwrap().to_owned(), info["accessor"].as_str().unwrap().to_owned())
}

async fn requested(server: &TestServer, by: &User) -> (String, String) {
    stored_as(&server.get("secret/data/a", &by.token).await.ok())
}

async fn approve(server: &TestServer, accessor: &str, by: &User) -> TestResponse {
    server.post("sys/control-group/authorize", &by.token, json!({ "accessor": accessor })).await
}

async fn seen(server: &TestServer, accessor: &str, token: &str) -> TestResponse {
    server.post("sys/control-group/request", token, json!({ "accessor": accessor })).await
}

async fn unwrap(server: &TestServer, token: &str, by: &str) -> TestResponse {
    server.post("sys/wrapping/unwrap", by, json!({ "token": token })).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn approval_once() {
    let (mut server, anna, bert, _) = server(&managers(1)).await;
    let body = json!({ "data": { "k": "canary-new" } });
    let (token, accessor) = stored_as(&server.post("secret/data/a", &anna.token, body).await.ok());
    assert_eq!(unwrap(&server, &token, &anna.token).await.is(400).error(), NEEDS);
    assert_eq!(
        server.post("sys/wrapping/unwrap", &token, Value::Null).await.is(400).error(),
        NEEDS,
        "no use is counted"
    );
    server.post("sys/wrapping/lookup", "", json!({ "token": token })).await.ok();
    assert_eq!(approve(&server, &accessor, &bert).await.ok().data(), &json!({ "approved": true }));
    server.restarted().await;
    let server = Arc::new(server);
    let unwraps = (0..40).map(|n| {
        let (server, token, anna) = (server.clone(), token.clone(), anna.token.clone());
        tokio::spawn(async move {
            match n % 2 {
                0 => unwrap(&server, &token, &anna).await,
                _ => server.post("sys/wrapping/unwrap", &token, Value::Null).await,
            }
        })
    });
    let mut ran = 0;
    for response in futures_util::future::join_all(unwraps).await {
        let response = response.unwrap();
        assert!(matches!(response.status, 200 | 400 | 403), "{response:?}");
        ran += u32::from(response.status == 200);
    }
    assert_eq!(ran, 1);
    let read = server.get("secret/data/a", ROOT).await.ok();
    assert_eq!(read.data()["metadata"]["version"], 2, "the second version is the only write");
    assert_eq!(read.data()["data"]["k"], "canary-new");
    seen(&server, &accessor, &anna.token).await.is(400);
    assert!(!stored(&server, "").await.iter().any(|key| key.contains("control-group-") || key.ends_with("wrapinfo")));
    assert!(!server.audit("audit").contains("canary-new"));
}

#[tokio::test]
async fn the_response_is_that_of_the_request_and_each_step_is_audited() {
    let (server, anna, bert, _) = server(&managers(1)).await;
    server.forget_audit();
    let options = RequestOptions { token: Some(anna.token.clone()), wrap: Some(60), ..RequestOptions::default() };
    let (token, accessor) = stored_as(&server.send("GET", "secret/data/a?version=1", options).await);
    approve(&server, &accessor, &bert).await.ok();
    let shown = seen(&server, &accessor, &bert.token).await.ok();
    assert_eq!(shown.data()["request_data"], json!({ "version": "1" }));
    assert_eq!(
        (&shown.data()["request_path"], &shown.data()["request_operation"]),
        (&json!("secret/data/a"), &json!("read"))
    );
    assert_eq!(shown.data()["request_entity"]["ID"], json!(anna.entity));
    assert_eq!(shown.data()["authorizations"][0]["entity_id"], json!(bert.entity));
    // The wrap TTL of the request is that of its response.
    let wrapped = unwrap(&server, &token, &anna.token).await.ok();
    assert_eq!(wrapped.body["wrap_info"]["ttl"], 60);
    let read = unwrap(&server, &wrapped.wrapping(), &anna.token).await.ok();
    assert_eq!(read.data()["data"]["k"], "canary-value");
    let entries: Vec<_> = server.entries();
    let of = |path: &str| entries.iter().filter(|entry| entry["request"]["path"] == path).count();
    assert_eq!(of("secret/data/a"), 4, "the request, and its run");
    assert_eq!(
        (of("sys/control-group/authorize"), of("sys/control-group/request"), of("sys/wrapping/unwrap")),
        (2, 2, 4)
    );
    let run = entries.iter().rfind(|entry| entry["request"]["path"] == "secret/data/a").unwrap();
    assert_eq!((&run["auth"]["entity_id"], &run["type"]), (&json!(anna.entity), &json!("response")));
    assert!(!server.audit("audit").contains("canary-value"));
}

#[tokio::test]
async fn the_requester_cannot_approve() {
    let (server, anna, bert, cora) = server(&managers(1)).await;
    group(&server, "managers", &[&anna, &bert, &cora]).await;
    let (token, accessor) = requested(&server, &anna).await;
    let again = user(&server, "anna", "requester").await;
    for own in [&anna, &again] {
        let refused = approve(&server, &accessor, own).await.is(400);
        assert!(refused.error().contains("token owner cannot be approver"), "{refused:?}");
    }
    unwrap(&server, &token, &anna.token).await.is(400);
    // Its entity becomes that of an approver: the approval is its own.
    approve(&server, &accessor, &bert).await.ok();
    let merge = json!({ "from_entity_ids": [anna.entity], "to_entity_id": bert.entity, "force": true });
    let aliases = server.get(&format!("identity/entity/id/{}", anna.entity), ROOT).await.ok();
    let alias = aliases.data()["aliases"][0]["id"].clone();
    server.delete(&format!("identity/entity-alias/id/{}", alias.as_str().unwrap()), ROOT).await.ok();
    server.post("identity/entity/merge", ROOT, merge).await.ok();
    assert_eq!(unwrap(&server, &token, ROOT).await.is(400).error(), NEEDS);
    let own = factor("own", "", "group_names = [\"managers\"] approvals = 1 self_authorization = true");
    server.policy("requester", &controlled(&own)).await;
    let (token, accessor) = requested(&server, &again).await;
    approve(&server, &accessor, &again).await.ok();
    unwrap(&server, &token, &again.token).await.ok();
}

#[tokio::test]
async fn requests_and_approvals_expire() {
    let stanza = factor("f", "", "group_names = [\"managers\"] approvals = 1 ttl = 60");
    let (server, anna, bert, _) = server(&stanza).await;
    let (token, accessor) = requested(&server, &anna).await;
    approve(&server, &accessor, &bert).await.ok();
    let refused = approve(&server, &accessor, &bert).await.is(400);
    assert!(refused.error().contains("approver has already authorized"));
    server.pass(61).await;
    assert_eq!(unwrap(&server, &token, &anna.token).await.is(400).error(), NEEDS);
    assert_eq!(seen(&server, &accessor, &anna.token).await.ok().data()["approved"], false);
    assert_eq!(approve(&server, &accessor, &bert).await.ok().data()["approved"], true, "once more");
    server.pass(3600).await;
    assert_eq!(unwrap(&server, &token, &anna.token).await.is(400).error().split(": ").last(), Some(INVALID));
    let refused = approve(&server, &accessor, &bert).await.is(400);
    assert!(refused.error().contains("invalid accessor"));
    assert!(!stored(&server, "").await.iter().any(|key| key.contains("control-group-")));
}

#[tokio::test]
async fn a_membership_that_was_removed_after_the_approval_does_not_count() {
    let (server, anna, bert, cora) = server(&managers(1)).await;
    let (token, accessor) = requested(&server, &anna).await;
    approve(&server, &accessor, &bert).await.ok();
    group(&server, "managers", &[&cora]).await;
    assert_eq!(seen(&server, &accessor, &anna.token).await.ok().data()["approved"], false);
    assert_eq!(unwrap(&server, &token, &anna.token).await.is(400).error(), NEEDS);
    approve(&server, &accessor, &bert).await.is(403);
    approve(&server, &accessor, &cora).await.ok();
    unwrap(&server, &token, &anna.token).await.ok();
}

#[tokio::test]
async fn a_disabled_or_deleted_entity_does_not_count() {
    let (server, anna, bert, cora) = server(&managers(1)).await;
    let (token, accessor) = requested(&server, &anna).await;
    approve(&server, &accessor, &bert).await.ok();
    let entity = format!("identity/entity/id/{}", bert.entity);
    server.post(&entity, ROOT, json!({ "disabled": true })).await.ok();
    assert_eq!(unwrap(&server, &token, &anna.token).await.is(400).error(), NEEDS);
    server.post(&entity, ROOT, json!({ "disabled": false })).await.ok();
    server.delete(&entity, ROOT).await.ok();
    assert_eq!(unwrap(&server, &token, &anna.token).await.is(400).error(), NEEDS);
    approve(&server, &accessor, &cora).await.ok();
    // A disabled requester cannot run it.
    let own = format!("identity/entity/id/{}", anna.entity);
    server.post(&own, ROOT, json!({ "disabled": true })).await.ok();
    unwrap(&server, &token, ROOT).await.is(403);
    server.post(&own, ROOT, json!({ "disabled": false })).await.ok();
    unwrap(&server, &token, ROOT).await.ok();
}

#[tokio::test]
async fn a_request_of_a_revoked_token_does_not_run() {
    let (server, anna, bert, _) = server(&managers(1)).await;
    let (token, accessor) = requested(&server, &anna).await;
    approve(&server, &accessor, &bert).await.ok();
    server.post("auth/token/revoke", ROOT, json!({ "token": anna.token })).await.ok();
    unwrap(&server, &token, ROOT).await.is(403);
    // A use is counted by the request, and not again by its run.
    let limited = server.token(json!({ "policies": ["requester"], "num_uses": 2 })).await;
    let (token, accessor) = stored_as(&server.get("secret/data/a", &limited).await);
    approve(&server, &accessor, &bert).await.ok();
    unwrap(&server, &token, ROOT).await.ok();
    server.get("auth/token/lookup-self", &limited).await.ok();
    server.get("auth/token/lookup-self", &limited).await.is(403);
    let batch = server.token(json!({ "policies": ["requester"], "type": "batch", "ttl": "1h" })).await;
    let (token, accessor) = stored_as(&server.get("secret/data/a", &batch).await);
    approve(&server, &accessor, &bert).await.ok();
    seen(&server, &accessor, &batch).await.ok();
    unwrap(&server, &token, &batch).await.ok();
}

#[tokio::test]
async fn two_factors_need_approvals_of_both_and_two_approvals_two_entities() {
    let second = factor("second", "\"read\"", "group_names = [\"Second\"] approvals = 1");
    let (server, anna, bert, cora) = server(&format!("{}\n{second}", managers(2))).await;
    let dora = user(&server, "dora", "approver").await;
    group(&server, "inner", &[&dora]).await;
    let inner = server.get("identity/group/name/inner", ROOT).await.ok().data()["id"].clone();
    server.post("identity/group", ROOT, json!({ "name": "second", "member_group_ids": [inner] })).await.ok();
    let (token, accessor) = requested(&server, &anna).await;
    for (by, approved) in [(&bert, false), (&dora, false), (&cora, true)] {
        assert_eq!(unwrap(&server, &token, &anna.token).await.is(400).error(), NEEDS);
        assert_eq!(approve(&server, &accessor, by).await.ok().data()["approved"], approved);
    }
    unwrap(&server, &token, &anna.token).await.ok();
    // Two approvals of entities that are merged are one.
    let (token, accessor) = requested(&server, &anna).await;
    for by in [&bert, &cora, &dora] {
        approve(&server, &accessor, by).await.ok();
    }
    let alias = server.get(&format!("identity/entity/id/{}", cora.entity), ROOT).await.ok();
    let alias = alias.data()["aliases"][0]["id"].as_str().unwrap().to_owned();
    server.delete(&format!("identity/entity-alias/id/{alias}"), ROOT).await.ok();
    let merge = json!({ "from_entity_ids": [cora.entity], "to_entity_id": bert.entity });
    server.post("identity/entity/merge", ROOT, merge).await.ok();
    assert_eq!(unwrap(&server, &token, &anna.token).await.is(400).error(), NEEDS);
}

#[tokio::test]
async fn only_the_controlled_operation_waits_and_current_rules_decide() {
    let update = factor("update", "\"update\"", "group_names = [\"managers\"] approvals = 1");
    let (server, anna, bert, cora) = server(&update).await;
    server.get("secret/data/a", &anna.token).await.ok();
    // The existence of the object decides between `create` and `update`.
    server.delete("secret/metadata/a", ROOT).await.ok();
    server.post("secret/data/a", &anna.token, json!({ "data": {} })).await.ok();
    let (token, accessor) = stored_as(&server.post("secret/data/a", &anna.token, json!({ "data": { "n": 1 } })).await);
    approve(&server, &accessor, &bert).await.ok();
    // The rule becomes stricter: the request needs what it requires now.
    server.policy("requester", &controlled(&managers(2))).await;
    assert_eq!(unwrap(&server, &token, &anna.token).await.is(400).error(), NEEDS);
    approve(&server, &accessor, &cora).await.ok();
    server.policy("requester", "path \"secret/data/b\" { capabilities = [\"read\"] }").await;
    unwrap(&server, &token, ROOT).await.is(403);
    server.policy("requester", &controlled(&managers(2))).await;
    unwrap(&server, &token, ROOT).await.ok();
    // A request that fails stays approved: it has changed nothing.
    server.delete("secret/metadata/a", ROOT).await.ok();
    let (token, accessor) = requested(&server, &anna).await;
    for by in [&bert, &cora] {
        approve(&server, &accessor, by).await.ok();
    }
    unwrap(&server, &token, &anna.token).await.is(404);
    server.post("secret/data/a", ROOT, json!({ "data": { "k": 2 } })).await.ok();
    assert_eq!(unwrap(&server, &token, &anna.token).await.ok().data()["data"]["k"], 2);
}

#[tokio::test]
async fn a_stored_request_is_shown_to_those_who_decide_and_to_nobody_else() {
    let (server, anna, bert, _) = server(&managers(1)).await;
    let dora = user(&server, "dora", "approver").await;
    let (token, accessor) = requested(&server, &anna).await;
    for (by, status) in [(&anna.token, 200), (&bert.token, 200), (&dora.token, 403), (&ROOT.to_owned(), 200)] {
        seen(&server, &accessor, by).await.is(status);
    }
    let text = r#"path "sys/control-group/request" { capabilities = ["update", "sudo"] }"#;
    server.policy("auditor", text).await;
    let auditor = server.token(json!({ "policies": ["auditor"] })).await;
    seen(&server, &accessor, &auditor).await.ok();
    approve(&server, &accessor, &dora).await.is(403);
    let refused = server.post("sys/control-group/authorize", ROOT, json!({ "accessor": accessor })).await.is(400);
    assert!(refused.error().contains("empty entity ID"));
    // The wrapping token itself reads nothing, also when the request is approved.
    approve(&server, &accessor, &bert).await.ok();
    for (name, status) in [("response", 404), ("control-group-request", 403), ("wrapinfo", 403)] {
        server.get(&format!("cubbyhole/{name}"), &token).await.is(status);
    }
    server.post("cubbyhole/response", &token, json!({ "response": "x" })).await.is(403);
    server.post("sys/wrapping/rewrap", ROOT, json!({ "token": token })).await.is(400);
    for body in [json!({}), json!({ "accessor": "unknown" })] {
        seen(&server, body["accessor"].as_str().unwrap_or_default(), ROOT).await.is(400);
    }
    let other = server.wrapped("GET", "secret/data/a", ROOT, Value::Null, 60).await.ok();
    let other = other.body["wrap_info"]["accessor"].as_str().unwrap().to_owned();
    assert!(seen(&server, &other, ROOT).await.is(400).error().contains("invalid wrapping token"));
    assert!(approve(&server, &other, &bert).await.is(400).error().contains("invalid wrapping token"));
    unwrap(&server, &token, ROOT).await.ok();
}

#[tokio::test]
async fn an_unwrap_is_not_stored() {
    let (server, anna, bert, _) = server(&managers(1)).await;
    let text =
        format!("path \"sys/wrapping/unwrap\" {{ capabilities = [\"update\"] control_group {{ {} }} }}", managers(1));
    server.policy("requester", &format!("{}\n{text}", controlled(&managers(1)))).await;
    let (token, accessor) = requested(&server, &anna).await;
    approve(&server, &accessor, &bert).await.ok();
    let with_default = json!({ "policies": ["requester"], "no_default_policy": true });
    let own = server.token(with_default).await;
    let refused = unwrap(&server, &token, &own).await.is(400);
    assert!(refused.error().contains("cannot store"), "{refused:?}");
    unwrap(&server, &token, ROOT).await.ok();
}

#[tokio::test]
async fn the_groups_are_those_of_the_namespace_of_the_requester() {
    let (server, _, bert, _) = server(&managers(1)).await;
    let at = |method: &'static str, path: &str, token: &str, body: Value| {
        let options = RequestOptions {
            token: Some(token.to_owned()),
            body: (!body.is_null()).then(|| body.to_string()),
            namespace: "team".to_owned(),
            ..RequestOptions::default()
        };
        let (path, server) = (path.to_owned(), &server);
        async move { server.send(method, &path, options).await }
    };
    server.post("sys/namespaces/team", ROOT, json!({})).await.ok();
    at("POST", "sys/mounts/kv", ROOT, json!({ "type": "kv" })).await.ok();
    at("POST", "kv/a", ROOT, json!({ "k": "v" })).await.ok();
    at("POST", "sys/auth/up", ROOT, json!({ "type": "userpass" })).await.ok();
    let rule = format!("{{ capabilities = [\"read\"] control_group {{ {} }} }}\n{APPROVES}", managers(1));
    at("POST", "sys/policies/acl/requester", ROOT, json!({ "policy": format!("path \"kv/a\" {rule}") })).await.ok();
    at("POST", "sys/policies/acl/approver", ROOT, json!({ "policy": APPROVES })).await.ok();
    server.policy("requester", &format!("path \"team/kv/a\" {rule}")).await;
    let paths = r#"path "team/sys/control-group/*" { capabilities = ["update"] }"#;
    server.policy("approver", &format!("{APPROVES}\n{paths}")).await;
    let theirs = user_in(&server, "team", "emil", "requester").await;
    let tenant = user_in(&server, "team", "frida", "approver").await;
    let members = json!({ "name": "managers", "member_entity_ids": [tenant.entity] });
    at("POST", "identity/group", ROOT, members).await.ok();
    let approve_at =
        |accessor: String, by: String| at("POST", "sys/control-group/authorize", &by, json!({ "accessor": accessor }));
    // A rule of the namespace: members of its groups.
    let (token, accessor) = stored_as(&at("GET", "kv/a", &theirs.token, Value::Null).await);
    approve_at(accessor.clone(), bert.token.clone()).await.is(403);
    approve(&server, &accessor, &bert).await.is(403);
    approve_at(accessor, tenant.token.clone()).await.ok();
    unwrap(&server, &token, ROOT).await.ok();
    // A rule of the namespace above: members of the groups there, and not of those of the same name below.
    let above = user(&server, "anna", "requester").await;
    let (token, accessor) = stored_as(&at("GET", "kv/a", &above.token, Value::Null).await);
    approve_at(accessor.clone(), tenant.token.clone()).await.is(403);
    approve(&server, &accessor, &bert).await.ok();
    assert_eq!(unwrap(&server, &token, &above.token).await.ok().data()["k"], "v");
    // An accessor of the namespace above is unknown below.
    server.policy("requester", &controlled(&managers(1))).await;
    let (_, accessor) = requested(&server, &above).await;
    let unknown = approve_at(accessor, tenant.token.clone()).await.is(400);
    assert!(unknown.error().contains("invalid accessor"), "{unknown:?}");
}

#[tokio::test]
async fn a_controlled_read_at_a_standby_is_stored_by_the_leader() {
    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    leader.post("sys/auth/up", ROOT, json!({ "type": "userpass" })).await.ok();
    leader.policy("requester", &controlled(&managers(1))).await;
    leader.policy("approver", APPROVES).await;
    leader.post("secret/data/a", ROOT, json!({ "data": { "k": "v" } })).await.ok();
    let (anna, bert) = (user(leader, "anna", "requester").await, user(leader, "bert", "approver").await);
    group(leader, "managers", &[&bert]).await;
    standby.forget_audit();
    let before = cluster.forwards();
    let (token, accessor) = requested(standby, &anna).await;
    assert!(standby.entries().is_empty(), "the leader has audited it");
    seen(standby, &accessor, &anna.token).await.ok();
    approve(standby, &accessor, &bert).await.ok();
    assert_eq!(unwrap(standby, &token, &anna.token).await.ok().data()["data"]["k"], "v");
    assert_eq!((cluster.forwards() - before, cluster.passed_commits()), (3, 0));
    unwrap(leader, &token, &anna.token).await.is(400);
}
