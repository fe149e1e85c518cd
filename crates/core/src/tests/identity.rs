//! Entities, aliases and groups: what they give to tokens, and that each change counts at the next request.

use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, TestResponse, TestServer};

/// A server with userpass at `auth/up/`, secrets `secret/data/a` and `secret/data/b`, and policies that read one each.
pub(crate) async fn server() -> TestServer {
    let server = TestServer::new().await;
    mount(&server, "up").await;
    for name in ["a", "b"] {
        server.post(&format!("secret/data/{name}"), ROOT, json!({ "data": {} })).await.ok();
        let text = format!(r#"path "secret/data/{name}" {{ capabilities = ["read"] }}"#);
        server.policy(&format!("read-{name}"), &text).await;
    }
    server
}

/// Mounts userpass with the users `anna` and `bert`. Returns the accessor.
pub(crate) async fn mount(server: &TestServer, path: &str) -> String {
    server.post(&format!("sys/auth/{path}"), ROOT, json!({ "type": "userpass" })).await.ok();
    for name in ["anna", "bert"] {
        server.post(&format!("auth/{path}/users/{name}"), ROOT, json!({ "password": "p" })).await.ok();
    }
    accessor(server, path).await
}

async fn accessor(server: &TestServer, path: &str) -> String {
    text(&server.get(&format!("sys/auth/{path}"), ROOT).await.ok().data()["accessor"])
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

async fn log_in(server: &TestServer, name: &str) -> TestResponse {
    server.post(&format!("auth/up/login/{name}"), "", json!({ "password": "p" })).await
}

/// The token and the entity of a login.
pub(crate) async fn logged_in(server: &TestServer, name: &str) -> (String, String) {
    let login = log_in(server, name).await.ok();
    (login.token(), text(&login.body["auth"]["entity_id"]))
}

/// Writes and returns the id of the new record.
async fn created(server: &TestServer, path: &str, body: Value) -> String {
    text(&server.post(path, ROOT, body).await.ok().data()["id"])
}

async fn write(server: &TestServer, path: &str, body: Value) {
    server.post(path, ROOT, body).await.ok();
}

async fn reads(server: &TestServer, token: &str, name: &str) -> bool {
    server.get(&format!("secret/data/{name}"), token).await.status == 200
}

#[tokio::test]
async fn policies_of_entities_and_nested_groups_count_at_the_next_request() {
    let server = server().await;
    let (token, entity) = logged_in(&server, "anna").await;
    assert!(!reads(&server, &token, "a").await);
    let of_entity = format!("identity/entity/id/{entity}");
    write(&server, &of_entity, json!({ "policies": ["read-a"] })).await;
    assert!(reads(&server, &token, "a").await && !reads(&server, &token, "b").await);
    write(&server, &of_entity, json!({ "policies": [] })).await;
    assert!(!reads(&server, &token, "a").await);

    let inner = created(&server, "identity/group", json!({ "name": "in", "member_entity_ids": [entity] })).await;
    let outer = created(&server, "identity/group", json!({ "name": "out", "policies": ["read-b"] })).await;
    let (in_path, out_path) = (format!("identity/group/id/{inner}"), format!("identity/group/id/{outer}"));
    assert!(!reads(&server, &token, "b").await);
    write(&server, &out_path, json!({ "member_group_ids": [inner] })).await;
    assert!(reads(&server, &token, "b").await, "the policy of the outer group");
    write(&server, &in_path, json!({ "policies": ["read-a"] })).await;
    assert!(reads(&server, &token, "a").await);

    let login = log_in(&server, "anna").await.ok();
    assert_eq!(login.body["auth"]["identity_policies"], json!(["read-a", "read-b"]));
    assert_eq!(login.body["auth"]["token_policies"], json!(["default"]));
    assert_eq!(login.body["auth"]["policies"], json!(["default", "read-a", "read-b"]));
    let lookup = server.get("auth/token/lookup-self", &token).await.ok();
    assert_eq!(lookup.data()["identity_policies"], json!(["read-a", "read-b"]));
    assert_eq!(lookup.data()["policies"], json!(["default"]));
    let renewed = server.post("auth/token/renew-self", &token, json!({})).await.ok();
    assert_eq!(renewed.body["auth"]["identity_policies"], json!(["read-a", "read-b"]));

    write(&server, &out_path, json!({ "member_group_ids": [] })).await;
    assert!(!reads(&server, &token, "b").await && reads(&server, &token, "a").await);
    server.delete(&in_path, ROOT).await.ok();
    assert!(!reads(&server, &token, "a").await);
    let read = server.get(&of_entity, ROOT).await.ok();
    assert_eq!(read.data()["group_ids"], json!([]));
}

#[tokio::test]
async fn a_disabled_entity_has_no_working_token_and_no_login() {
    let server = server().await;
    let (token, entity) = logged_in(&server, "anna").await;
    let child = server.token(json!({ "policies": ["read-a"] })).await;
    let path = format!("identity/entity/id/{entity}");
    write(&server, &path, json!({ "disabled": true })).await;
    assert_eq!(server.get("auth/token/lookup-self", &token).await.is(403).error(), "permission denied");
    assert_eq!(log_in(&server, "anna").await.is(403).error(), "permission denied");
    server.post("sys/capabilities", ROOT, json!({ "token": token, "path": "x" })).await.is(400);
    assert!(reads(&server, &child, "a").await && log_in(&server, "bert").await.status == 200);
    // The token of a disabled entity does not prevent the login of another one.
    server.post("auth/up/login/bert", &token, json!({ "password": "p" })).await.ok();
    write(&server, &path, json!({ "disabled": false })).await;
    server.get("auth/token/lookup-self", &token).await.ok();
    log_in(&server, "anna").await.ok();
}

#[tokio::test]
async fn a_deleted_entity_has_no_working_token() {
    let server = server().await;
    let (token, entity) = logged_in(&server, "anna").await;
    let group = created(&server, "identity/group", json!({ "name": "g", "member_entity_ids": [entity] })).await;
    server.get("auth/token/lookup-self", &token).await.ok();
    server.delete(&format!("identity/entity/id/{entity}"), ROOT).await.ok();
    server.get("auth/token/lookup-self", &token).await.is(403);
    assert_eq!(
        server.get(&format!("identity/group/id/{group}"), ROOT).await.ok().data()["member_entity_ids"],
        Value::Null
    );
    let (_, again) = logged_in(&server, "anna").await;
    assert_ne!(entity, again);
}

#[tokio::test]
async fn sec_id02_no_second_alias_at_a_mount_by_any_request() {
    let server = server().await;
    let accessor = accessor(&server, "up").await;
    let (anna, bert) = (logged_in(&server, "anna").await.1, logged_in(&server, "bert").await.1);
    write(&server, &format!("identity/entity/id/{bert}"), json!({ "policies": ["read-b"] })).await;
    let alias_of = async |entity: &str| {
        let read = server.get(&format!("identity/entity/id/{entity}"), ROOT).await.ok();
        assert_eq!(read.data()["aliases"].as_array().unwrap().len(), 1);
        text(&read.data()["aliases"][0]["id"])
    };
    let (of_anna, of_bert) = (alias_of(&anna).await, alias_of(&bert).await);
    let post = async |path: &str, body: Value| server.post(path, ROOT, body).await.is(400);
    // Add, move, rename, merge.
    post("identity/entity-alias", json!({ "name": "x", "mount_accessor": accessor, "canonical_id": anna })).await;
    post("identity/entity-alias", json!({ "name": "BERT", "mount_accessor": accessor, "canonical_id": anna })).await;
    post(&format!("identity/entity-alias/id/{of_bert}"), json!({ "canonical_id": anna })).await;
    post(&format!("identity/entity-alias/id/{of_bert}"), json!({ "name": "ANNA" })).await;
    post("identity/entity/merge", json!({ "from_entity_ids": [bert], "to_entity_id": anna })).await;
    let both = json!({ "from_entity_ids": [bert], "to_entity_id": anna,
        "conflicting_alias_ids_to_keep": [of_anna, of_bert] });
    post("identity/entity/merge", both).await;
    assert_eq!((alias_of(&anna).await, alias_of(&bert).await), (of_anna.clone(), of_bert.clone()), "nothing changed");
    assert_eq!(logged_in(&server, "bert").await.1, bert);

    // A policy that denies one of the entities refuses the merge.
    let merge = json!({ "from_entity_ids": [bert], "to_entity_id": anna, "conflicting_alias_ids_to_keep": [of_anna] });
    let merges = r#"path "identity/entity/merge" { capabilities = ["update"] }"#;
    server.policy("merges", merges).await;
    server
        .policy("denied", &format!("{merges} path \"identity/entity/id/{bert}\" {{ capabilities = [\"deny\"] }}"))
        .await;
    let denied = server.token(json!({ "policies": ["denied"] })).await;
    server.post("identity/entity/merge", &denied, merge.clone()).await.is(403);
    let allowed = server.token(json!({ "policies": ["merges"] })).await;
    server.post("identity/entity/merge", &allowed, merge).await.ok();
    assert_eq!(alias_of(&anna).await, of_anna);
}

#[tokio::test]
async fn tokens_of_a_merged_entity_are_tokens_of_the_one_it_was_merged_into() {
    let server = server().await;
    mount(&server, "other").await;
    let (_, anna) = logged_in(&server, "anna").await;
    let other = server.post("auth/other/login/anna", "", json!({ "password": "p" })).await.ok();
    let (token, second) = (other.token(), text(&other.body["auth"]["entity_id"]));
    let third = created(&server, "identity/entity", json!({ "name": "third", "policies": ["read-a"] })).await;
    created(&server, "identity/group", json!({ "member_entity_ids": [second], "policies": ["read-b"] })).await;
    assert!(!reads(&server, &token, "a").await && reads(&server, &token, "b").await);
    let merge = |from: &str, to: &str| json!({ "from_entity_ids": [from, from], "to_entity_id": to });
    write(&server, "identity/entity/merge", merge(&second, &anna)).await;
    assert!(reads(&server, &token, "b").await, "the membership goes to the entity that stays");
    write(&server, "identity/entity/merge", merge(&anna, &third)).await;
    assert!(reads(&server, &token, "a").await && reads(&server, &token, "b").await, "in one step");
    let read = server.get(&format!("identity/entity/id/{third}"), ROOT).await.ok();
    assert_eq!(read.data()["merged_entity_ids"], json!([second, anna]));
    assert_eq!(read.data()["aliases"].as_array().unwrap().len(), 2);
    server.get(&format!("identity/entity/id/{anna}"), ROOT).await.is(404);
    assert_eq!(logged_in(&server, "anna").await.1, third);
    write(&server, &format!("identity/entity/id/{third}"), json!({ "policies": [] })).await;
    assert!(!reads(&server, &token, "a").await);
    write(&server, &format!("identity/entity/id/{third}"), json!({ "disabled": true })).await;
    server.get("auth/token/lookup-self", &token).await.is(403);
    server.delete(&format!("identity/entity/id/{third}"), ROOT).await.ok();
    server.get("auth/token/lookup-self", &token).await.is(403);
}

#[tokio::test]
async fn sec_id03_same_names_at_three_mounts_keep_their_metadata() {
    let server = server().await;
    let mut entities = Vec::new();
    for path in ["up", "two", "three"] {
        if path != "up" {
            mount(&server, path).await;
        }
        let accessor = accessor(&server, path).await;
        let login = server.post(&format!("auth/{path}/login/anna"), "", json!({ "password": "p" })).await.ok();
        let entity = text(&login.body["auth"]["entity_id"]);
        let alias = json!({ "name": "anna", "mount_accessor": accessor, "custom_metadata": { "of": path } });
        assert_eq!(server.post("identity/entity-alias", ROOT, alias).await.ok().data()["canonical_id"], json!(entity));
        entities.push((path, accessor, entity));
    }
    for (path, accessor, entity) in &entities {
        server.post(&format!("auth/{path}/login/anna"), "", json!({ "password": "p" })).await.ok();
        let lookup = json!({ "alias_name": "ANNA", "alias_mount_accessor": accessor });
        let found = server.post("identity/lookup/entity", ROOT, lookup).await.ok();
        assert_eq!(found.data()["id"], json!(entity));
        assert_eq!(found.data()["aliases"][0]["custom_metadata"], json!({ "of": path }));
    }
}

#[tokio::test]
async fn sec_id04_fifty_spellings_of_a_user_are_one_entity() {
    let server = server().await;
    server.post("auth/up/users/annabella", ROOT, json!({ "password": "p" })).await.ok();
    let (_, entity) = logged_in(&server, "annabella").await;
    for n in 0..50_u32 {
        let letters = "annabella".chars().enumerate();
        let spelled: String =
            letters.map(|(at, c)| if n >> at & 1 == 1 { c.to_ascii_uppercase() } else { c }).collect();
        assert_eq!(logged_in(&server, &spelled).await.1, entity, "{spelled}");
    }
    let accessor = accessor(&server, "up").await;
    for spelled in ["ANNABELLA", "AnnaBella", "annabella"] {
        let alias = json!({ "name": spelled, "mount_accessor": accessor });
        assert_eq!(server.post("identity/entity-alias", ROOT, alias).await.ok().data()["canonical_id"], json!(entity));
        assert_eq!(logged_in(&server, "annabella").await.1, entity);
    }
    assert_eq!(server.list("identity/entity/id", ROOT).await.ok().data()["keys"], json!([entity]));
}

#[tokio::test]
async fn sec_id07_unknown_values_are_refused_and_change_nothing() {
    let server = server().await;
    let (_, entity) = logged_in(&server, "anna").await;
    let path = created(&server, "identity/group", json!({ "name": "g", "member_entity_ids": [entity] })).await;
    let path = format!("identity/group/id/{path}");
    let before = server.get(&path, ROOT).await.ok().body["data"].clone();
    for bad in [
        json!({ "type": "weird" }),
        json!({ "type": "external" }),
        json!({ "member_entity_ids": ["unknown"] }),
        json!({ "member_entity_ids": [], "member_group_ids": ["unknown"] }),
        json!({ "member_entity_ids": [], "policies": ["ROOT"] }),
        json!({ "member_entity_ids": {"op": "remove"} }),
        json!({ "member_entity_ids": [], "metadata": { "": "x" } }),
    ] {
        server.post(&path, ROOT, bad.clone()).await.is(400);
        assert_eq!(server.get(&path, ROOT).await.ok().body["data"], before, "{bad}");
    }
    let response = server.post(&path, ROOT, json!({ "remove": ["x"] })).await.ok();
    assert_eq!(response.status, 204);
    let unknown = server.post("identity/entity", ROOT, json!({ "name": "x", "scim": 1 })).await.ok();
    assert_eq!(unknown.body["warnings"], json!(["Endpoint ignored these unrecognized parameters: [scim]"]));
    for root in ["root", " Root ", "ｒｏｏｔ"] {
        server.post("identity/entity", ROOT, json!({ "name": "y", "policies": [root] })).await.is(400);
    }
    server.get("identity/entity/name/y", ROOT).await.is(404);
}

#[tokio::test]
async fn groups_form_no_cycle_and_nest_at_most_32_deep() {
    let server = server().await;
    let mut groups = vec![created(&server, "identity/group", json!({ "name": "g0" })).await];
    for n in 1..32 {
        let last = groups.last().unwrap();
        let group =
            created(&server, "identity/group", json!({ "name": format!("g{n}"), "member_group_ids": [last] })).await;
        groups.push(group);
    }
    for inside in [&groups[3], &groups[31]] {
        let error = server
            .post(&format!("identity/group/id/{}", groups[2]), ROOT, json!({ "member_group_ids": [inside] }))
            .await
            .is(400);
        assert!(error.error().starts_with("cyclic relationship detected"), "{error:?}");
    }
    server
        .post(&format!("identity/group/id/{}", groups[2]), ROOT, json!({ "member_group_ids": [groups[2]] }))
        .await
        .is(400);
    let deeper = json!({ "name": "deeper", "member_group_ids": [groups[31]] });
    let error = server.post("identity/group", ROOT, deeper).await.is(400);
    assert_eq!(error.error(), "groups nest at most 32 deep");
    let (token, entity) = logged_in(&server, "anna").await;
    write(&server, &format!("identity/group/id/{}", groups[0]), json!({ "member_entity_ids": [entity] })).await;
    write(&server, &format!("identity/group/id/{}", groups[31]), json!({ "policies": ["read-a"] })).await;
    assert!(reads(&server, &token, "a").await, "the policy of the outermost group");
    write(&server, &format!("identity/group/id/{}", groups[15]), json!({ "member_group_ids": [] })).await;
    assert!(!reads(&server, &token, "a").await);
}

#[tokio::test]
async fn templates_resolve_with_groups_and_follow_their_changes() {
    let server = server().await;
    let (token, entity) = logged_in(&server, "anna").await;
    let group = json!({ "name": "team.one", "metadata": { "dir": "a" }, "member_entity_ids": [entity] });
    let id = created(&server, "identity/group", group).await;
    let policy = "path \"secret/data/{{identity.groups.names.team.one.metadata.dir}}\" { capabilities = [\"read\"] }";
    server.policy("templated", policy).await;
    assert!(!reads(&server, &token, "a").await);
    write(&server, &format!("identity/entity/id/{entity}"), json!({ "policies": ["templated"] })).await;
    assert!(reads(&server, &token, "a").await && !reads(&server, &token, "b").await);
    write(&server, &format!("identity/group/id/{id}"), json!({ "metadata": { "dir": "b" } })).await;
    assert!(!reads(&server, &token, "a").await && reads(&server, &token, "b").await);
    let policy =
        format!("path \"secret/data/{{{{identity.groups.ids.{id}.metadata.dir}}}}\" {{ capabilities = [\"read\"] }}");
    server.policy("templated", &policy).await;
    assert!(reads(&server, &token, "b").await);
    write(&server, &format!("identity/group/id/{id}"), json!({ "member_entity_ids": [] })).await;
    assert!(!reads(&server, &token, "b").await, "no member, no value");
    let policy = "path \"secret/data/{{identity.entity.metadata.dir}}\" { capabilities = [\"read\"] }";
    server.policy("templated", policy).await;
    write(&server, &format!("identity/entity/id/{entity}"), json!({ "metadata": { "dir": "a" } })).await;
    assert!(reads(&server, &token, "a").await && !reads(&server, &token, "b").await);
}

#[tokio::test]
async fn names_are_unique_without_regard_to_case() {
    let server = server().await;
    for kind in ["entity", "group"] {
        let path = format!("identity/{kind}");
        let first = created(&server, &path, json!({ "name": "One" })).await;
        let second = created(&server, &path, json!({ "name": "two" })).await;
        assert_eq!(server.post(&path, ROOT, json!({ "name": "ONE" })).await.ok().status, 204, "a change of the first");
        server.post(&format!("{path}/id/{second}"), ROOT, json!({ "name": "one" })).await.is(400);
        write(&server, &format!("{path}/id/{first}"), json!({ "name": "three" })).await;
        write(&server, &format!("{path}/id/{second}"), json!({ "name": "one" })).await;
        assert_eq!(server.get(&format!("{path}/name/ONE"), ROOT).await.ok().data()["id"], json!(second));
        assert_eq!(server.list(&format!("{path}/name"), ROOT).await.ok().data()["keys"], json!(["one", "three"]));
        server.delete(&format!("{path}/name/ONE"), ROOT).await.ok();
        created(&server, &path, json!({ "name": "ONE" })).await;
        let page = json!({ "after": "ONE", "limit": 1 });
        let names = server.call("LIST", &format!("{path}/name"), ROOT, page).await.ok();
        assert_eq!(names.data()["keys"], json!(["three"]));
    }
}
