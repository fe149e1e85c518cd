//! Names of namespaces and spellings of the policy `root`.

use serde_json::{Value, json};

use super::tenants::{chief, create, delete, dump, mount_userpass, set, tenant, within};
use crate::tests::fixture::{ROOT, TestResponse, TestServer};

/// Names that no namespace can have, in spellings that a parser could fold to them.
const RESERVED: [&str; 22] = [
    "root",
    "Root",
    "ROOT",
    "rOOt",
    "sys",
    "SYS",
    "Sys",
    "auth",
    "AUTH",
    "cubbyhole",
    "Cubbyhole",
    "identity",
    "IDENTITY",
    "audit",
    "Audit",
    "a*b",
    "*",
    "+",
    "a+",
    "a b",
    " ",
    "a\u{7f}b",
];

/// A server with the namespaces `a` and `a/b`.
async fn nested() -> TestServer {
    let server = TestServer::new().await;
    create(&server, "a").await;
    create(&server, "a/b").await;
    server
}

#[tokio::test]
async fn sec_ns05_reserved_names_are_refused_by_every_operation() {
    let server = nested().await;
    let before = dump(&server).await;
    for header in ["", "a", "a/b"] {
        for name in RESERVED {
            for method in ["POST", "PUT", "PATCH", "DELETE", "GET"] {
                let path = format!("sys/namespaces/{name}");
                if keepfast_framework::CanonicalPath::new(path.clone()).is_err() {
                    continue;
                }
                let body = if matches!(method, "GET" | "DELETE") { Value::Null } else { json!({}) };
                let response = within(&server, header, (method, &path), ROOT, body).await;
                // A name that no namespace can have, but that leads nowhere else, is that of a missing one.
                let is_missing = !name.chars().all(char::is_alphabetic)
                    && (method == "GET" && response.status == 404
                        || method == "DELETE"
                            && response.body["warnings"] == json!(["requested namespace does not exist"]));
                assert!(response.status == 400 || is_missing, "{header} {method} {name:?}: {response:?}");
            }
            for action in ["lock", "unlock"] {
                let path = format!("sys/namespaces/api-lock/{action}/{name}");
                if keepfast_framework::CanonicalPath::new(path.clone()).is_err() {
                    continue;
                }
                let response = within(&server, header, ("POST", &path), ROOT, json!({})).await;
                assert!(matches!(response.status, 400 | 404), "{header} {action} {name:?}: {response:?}");
            }
        }
        for path in ["sys/namespaces/a/b", "sys/namespaces/x/y", "sys/namespaces/api-lock", "sys/namespaces/a//b"] {
            if keepfast_framework::CanonicalPath::new(path.to_owned()).is_err() {
                continue;
            }
            let response = within(&server, header, ("DELETE", path), ROOT, Value::Null).await;
            let harmless = response.status >= 400 || response.body["warnings"].is_array();
            assert!(harmless, "{header} {path}: {response:?}");
        }
    }
    assert_eq!(dump(&server).await, before);
    let reserved = within(&server, "", ("POST", "sys/namespaces/root"), ROOT, json!({})).await.is(400);
    assert_eq!(reserved.error(), "\"root/\" is a reserved path and cannot be used as a namespace name");
    let wildcard = within(&server, "", ("POST", "sys/namespaces/a+b"), ROOT, json!({})).await.is(400);
    let text = "\"a+b\" contains wildcard characters that cannot be used in a namespace name: '+'";
    assert_eq!(wildcard.error(), text);
}

#[tokio::test]
async fn sec_ns05_a_name_addresses_only_its_own_namespace() {
    let server = nested().await;
    let letters =
        ["a", "A", "ä", "ﬁ", "ſ", "ｒ", "o", "\u{200b}", "\u{301}", ".", "-", "_", "%", "2", "F", "~", "\\", "\"", ","];
    let mut names: Vec<String> = [
        "ｒｏｏｔ",
        "ſys",
        "ro\u{131}t",
        "root\u{301}",
        "r\u{200b}oot",
        "root.",
        ".root",
        "..a",
        "a..b",
        "...",
        "%72oot",
        "root%00",
        "%2e",
        "token",
        "secret",
        "raw",
        "v1",
        "api-lock",
        "UPPER",
        "upper",
        "root-",
        "rooty",
        "sys_",
        "ns",
        "rec",
        "dir",
    ]
    .map(str::to_owned)
    .to_vec();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..60 {
        let mut name = String::new();
        for _ in 0..=(state >> 60) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            name.push_str(letters[(state >> 33) as usize % letters.len()]);
        }
        names.push(name);
    }
    let (mut created, mut refused) = (0, 0);
    let mut ids = std::collections::BTreeMap::new();
    for header in ["", "a"] {
        for name in &names {
            let path = format!("sys/namespaces/{name}");
            if keepfast_framework::CanonicalPath::new(path.clone()).is_err() {
                continue;
            }
            let made = within(&server, header, ("POST", &path), ROOT, json!({})).await;
            if made.status != 200 {
                assert_eq!(made.status, 400, "{name:?}: {made:?}");
                refused += 1;
                continue;
            }
            created += 1;
            let id = made.data()["id"].as_str().unwrap().to_owned();
            let full = format!("{header}/{name}");
            set(&server, &full, "sys/policies/acl/own", json!({ "policy": format!("# {id}\n") })).await;
            ids.insert(full.trim_start_matches('/').to_owned(), id);
        }
    }
    assert!(created > 60, "{created} created, {refused} refused");
    for (full, id) in &ids {
        let by_header = within(&server, full, ("GET", "sys/policies/acl/own"), ROOT, Value::Null).await;
        let by_path = within(&server, "", ("GET", &format!("{full}/sys/policies/acl/own")), ROOT, Value::Null).await;
        for found in [by_header, by_path] {
            assert_eq!(found.data()["policy"].as_str().unwrap_or_default(), format!("# {id}\n"), "{full:?}: {found:?}");
        }
    }
    for header in ["", "root", "/"] {
        within(&server, header, ("GET", "sys/policies/acl/own"), ROOT, Value::Null).await.is(404);
        within(&server, header, ("GET", "sys/quotas/config"), ROOT, Value::Null).await.ok();
    }
}

#[tokio::test]
async fn names_and_paths_have_bounds() {
    let server = TestServer::new().await;
    let long = "x".repeat(255);
    create(&server, &long).await;
    within(&server, "", ("POST", &format!("sys/namespaces/{long}x")), ROOT, json!({})).await.is(400);
    let mut path = String::new();
    let mut depth = 0;
    loop {
        let made = within(&server, &path, ("POST", "sys/namespaces/d"), ROOT, json!({})).await;
        if made.status != 200 {
            made.is(400);
            break;
        }
        path.push_str("d/");
        depth += 1;
        assert!(depth <= 64, "namespaces nest without a bound");
    }
    assert_eq!(depth, 32);
    within(&server, &path, ("GET", "sys/mounts"), ROOT, Value::Null).await.ok();
    delete(&server, path.trim_end_matches('/')).await;
}

/// Fails if a token has a right that only root has.
async fn assert_no_root(server: &TestServer, header: &str, made: &TestResponse, how: &str) {
    if made.status != 200 {
        assert!((400..500).contains(&made.status), "{how}: {made:?}");
        return;
    }
    let token = made.token();
    let policies = made.body["auth"]["policies"].as_array().cloned().unwrap_or_default();
    assert!(policies.iter().all(|policy| policy != "root"), "{how}: {policies:?}");
    for (at, method, path) in [
        (header, "LIST", "auth/token/accessors"),
        (header, "GET", "sys/auth/token"),
        (header, "GET", "sys/mounts"),
        (header, "GET", "kv/x"),
        ("", "GET", "sys/audit"),
        ("", "GET", "sys/mounts"),
        ("", "GET", "secret/data/x"),
    ] {
        let response = within(server, at, (method, path), &token, Value::Null).await;
        // No policy has the name `root/`, so that a token with it has no ACL at all.
        assert!(matches!(response.status, 400 | 403), "{how}: {at} {method} {path}: {response:?}");
    }
}

#[tokio::test]
async fn sec_ns02_no_spelling_gives_root_in_a_namespace() {
    let server = TestServer::new().await;
    let a = tenant(&server, "a").await;
    mount_userpass(&server, "a", json!([])).await;
    set(&server, "a", "sys/auth/approle", json!({ "type": "approle" })).await;
    let spellings = [
        "root",
        "Root",
        "ROOT",
        " root",
        "root ",
        "\u{ff52}\u{ff4f}\u{ff4f}\u{ff54}",
        "root\u{0}",
        "ro\u{131}t",
        "r\u{f6}ot",
        "root/",
        "/root",
        "root,root",
        "../root",
    ];
    let entity = super::tenants::log_in(&server, "a", "right").await.ok().body["auth"]["entity_id"].clone();
    for (n, name) in spellings.into_iter().enumerate() {
        for caller in [a.token.as_str(), ROOT] {
            let post = async |path: &str, body: Value| within(&server, "a", ("POST", path), caller, body).await;
            for body in [
                json!({ "policies": [name] }),
                json!({ "policies": ["default", name] }),
                json!({ "policies": name, "no_parent": true }),
                json!({ "policies": [name], "type": "batch" }),
                json!({ "policies": [name], "id": "mine" }),
            ] {
                let made = post("auth/token/create", body.clone()).await;
                assert_no_root(&server, "a", &made, &format!("create {body}")).await;
            }
            let made = post("auth/token/create-orphan", json!({ "policies": [name] })).await;
            assert_no_root(&server, "a", &made, &format!("create-orphan {name:?}")).await;
            for field in ["allowed_policies", "allowed_policies_glob"] {
                let role = format!("auth/token/roles/r{n}");
                post(&role, json!({ field: [name] })).await;
                for body in [json!({ "policies": [name] }), json!({})] {
                    let made = post(&format!("auth/token/create/r{n}"), body).await;
                    assert_no_root(&server, "a", &made, &format!("{field} {name:?}")).await;
                }
            }
            for field in ["token_policies", "policies"] {
                post(&format!("auth/up/users/u{n}"), json!({ "password": "p", field: [name] })).await;
                let login = format!("auth/up/login/u{n}");
                let made = within(&server, "a", ("POST", &login), "", json!({ "password": "p" })).await;
                assert_no_root(&server, "a", &made, &format!("userpass {field} {name:?}")).await;
            }
            let of_entity = format!("identity/entity/id/{}", entity.as_str().unwrap());
            post(&of_entity, json!({ "policies": [name] })).await;
            let group = json!({ "name": format!("g{n}"), "policies": [name], "member_entity_ids": [entity] });
            post("identity/group", group).await;
            let login = super::tenants::log_in(&server, "a", "right").await;
            assert_no_root(&server, "a", &login, &format!("identity {name:?}")).await;
            post(&of_entity, json!({ "policies": [] })).await;
            let rule = json!({ "policy": r#"path "nothing" { capabilities = ["read"] }"# });
            if keepfast_framework::CanonicalPath::new(format!("sys/policies/acl/{name}")).is_ok() {
                post(&format!("sys/policies/acl/{name}"), rule).await;
            }
        }
    }
    let refused =
        within(&server, "a", ("POST", "auth/token/create"), ROOT, json!({ "policies": ["root"] })).await.is(400);
    assert_eq!(refused.error(), "root tokens may not be created from a parent namespace");
}

#[tokio::test]
async fn a_token_without_policies_from_above_is_no_root_token() {
    let server = TestServer::new().await;
    create(&server, "a").await;
    let made = set(&server, "a", "auth/token/create", Value::Null).await;
    assert_eq!(made.body["auth"]["policies"], json!(["default"]));
    assert!(made.body["auth"]["lease_duration"].as_u64().unwrap() > 0);
    assert_no_root(&server, "a", &made, "no policies").await;
    // Without sudo a token from above creates none below.
    server.policy("maker", r#"path "a/auth/token/*" { capabilities = ["update"] }"#).await;
    let weak = server.token(json!({ "policies": ["maker"] })).await;
    for body in [json!({}), json!({ "policies": ["default"] }), json!({ "no_parent": true })] {
        let refused = within(&server, "a", ("POST", "auth/token/create"), &weak, body).await.is(400);
        let text = "root or sudo privileges required to directly generate a token in a child namespace";
        assert_eq!(refused.error(), text);
    }
    drop(chief(&server, "a").await);
}
