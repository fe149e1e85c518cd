//! `sys/policies/explain`: the decision is that of the request, and nothing shows that the caller may not read.

use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, TestResponse, TestServer};

const UNKNOWN: &str = "the subject does not exist, or the caller may not look it up";
const SELF: &str = "path \"sys/policies/explain\" { capabilities = [\"update\"] }\n";
const READS_POLICIES: &str = "path \"sys/policies/acl/+\" { capabilities = [\"read\"] }\n";

async fn explained(server: &TestServer, token: &str, body: Value) -> TestResponse {
    server.post("sys/policies/explain", token, body).await
}

/// A server with `p` as the policy of a token, which may read its policies and the mounts.
async fn with_policy(text: &str) -> (TestServer, String) {
    let server = TestServer::new().await;
    let mounts = r#"path "sys/mounts" { capabilities = ["read"] } path "sys/auth" { capabilities = ["read"] }"#;
    server.policy("rights", &format!("{SELF}{READS_POLICIES}{mounts}")).await;
    server.policy("p", text).await;
    let token = server.token(json!({ "policies": ["p", "rights"], "no_default_policy": true })).await;
    (server, token)
}

#[tokio::test]
async fn an_explanation_names_the_control_group() {
    let factor = "factor \"f\" { identity { group_names = [\"g\"] approvals = 1 } }";
    let (server, token) = with_policy(&format!(
        "path \"secret/data/a\" {{ capabilities = [\"read\"] control_group {{ ttl = 60 {factor} }} }}"
    ))
    .await;
    let response = explained(&server, &token, json!({ "path": "secret/data/a", "operation": "read" })).await.ok();
    let data = response.data();
    assert_eq!((&data["allowed"], &data["cause"]), (&json!(true), &json!("control_group")), "{data}");
    let group =
        json!({ "ttl": 60, "factors": [{ "name": "f", "identity": { "group_names": ["g"], "approvals": 1 } }] });
    assert_eq!(data["rules"][0]["control_group"], group);
    // The factor of a policy that the caller may not read shows only by its effect.
    let plain = "path \"secret/data/a\" { capabilities = [\"read\"] }";
    server.policy("open", plain).await;
    server.policy("rights", &format!("{SELF}path \"sys/policies/acl/open\" {{ capabilities = [\"read\"] }}")).await;
    let token = server.token(json!({ "policies": ["p", "open", "rights"], "no_default_policy": true })).await;
    let response = explained(&server, &token, json!({ "path": "secret/data/a", "operation": "read" })).await.ok();
    assert_eq!(response.data()["cause"], "hidden_policy", "{:?}", response.data());
}

#[tokio::test]
async fn an_explanation_names_the_rule_that_decided_and_its_place() {
    let (server, token) = with_policy(
        "# Reads.\npath \"secret/data/+\" { capabilities = [\"read\"] }\n\
         \x20 path \"secret/data/team/*\" { capabilities = [\"read\", \"update\"] }\n\
         path \"secret/data/team/closed\" { capabilities = [\"deny\"] }\n\
         path \"secret/data/*\" { capabilities = [\"list\"] }\n\
         path \"sys/seal\" { capabilities = [\"update\"] }",
    )
    .await;
    for (path, operation, allowed, cause, places) in [
        ("secret/data/a", "read", true, "granted", json!([[2, 6]])),
        ("secret/data/a", "update", false, "missing_capability", json!([[2, 6]])),
        ("secret/data/team/x", "update", true, "granted", json!([[3, 8]])),
        ("secret/data/team/closed", "read", false, "deny", json!([[4, 6]])),
        ("secret/data/team/Closed", "read", false, "specific_deny", json!([[4, 6]])),
        ("secret/team/x", "read", false, "no_rule", json!([])),
        ("sys/seal", "update", false, "missing_sudo", json!([[6, 6]])),
        ("sys/health", "read", true, "unauthenticated", json!([])),
    ] {
        let response = explained(&server, &token, json!({ "path": path, "operation": operation })).await.ok();
        let data = response.data();
        let rules = data["rules"].as_array().unwrap();
        let found: Vec<_> = rules.iter().map(|rule| json!([rule["line"], rule["column"]])).collect();
        assert_eq!(
            (&data["allowed"], &data["cause"], json!(found)),
            (&json!(allowed), &json!(cause), places),
            "{path}: {data}"
        );
        assert!(rules.iter().all(|rule| rule["policy"] == "p"), "{data}");
    }
    let response = explained(&server, &token, json!({ "path": "secret/team/x", "operation": "read" })).await.ok();
    let near = &response.data()["near"];
    assert_eq!((&near[0]["reason"], &near[0]["line"]), (&json!("kv_data_prefix"), &json!(3)), "{near}");
    for (body, status) in [
        (json!({ "operation": "read" }), 400),
        (json!({ "path": "a", "operation": "help" }), 400),
        (json!({ "path": "a//b", "operation": "read" }), 400),
        (json!({ "path": "a", "operation": "read", "token": "x", "accessor": "y" }), 400),
        (json!({ "path": "a", "operation": "read", "policies": vec!["p"; 101] }), 400),
    ] {
        explained(&server, &token, body).await.is(status);
    }
}

#[tokio::test]
async fn an_explanation_names_the_parameter_that_is_refused() {
    let (server, token) = with_policy(
        r#"path "auth/token/create" { capabilities = ["update"] allowed_parameters = { ttl = ["1h"], "policies" = [] } denied_parameters = { policies = ["root"] } required_parameters = ["ttl"] }"#,
    )
    .await;
    for (parameters, cause, parameter) in [
        (json!({}), "parameter_required", json!("ttl")),
        (json!({ "ttl": "2h" }), "parameter_not_allowed", json!("ttl")),
        (json!({ "ttl": "1h", "num_uses": 1 }), "parameter_not_allowed", json!("num_uses")),
        (json!({ "ttl": "1h", "policies": ["root"] }), "parameter_denied", json!("policies")),
        (json!({ "ttl": "1h", "policies": ["p"] }), "granted", Value::Null),
    ] {
        let body = json!({ "path": "auth/token/create", "operation": "write", "parameters": parameters });
        let response = explained(&server, &token, body).await.ok();
        let data = response.data();
        assert_eq!((&data["cause"], &data["parameter"]), (&json!(cause), &parameter), "{data}");
        let sent = server.post("auth/token/create", &token, parameters).await;
        assert_eq!(sent.status != 403, data["allowed"] == true, "{sent:?}");
    }
}

/// Requests of a caller with another subject need the capability on its lookup path.
#[tokio::test]
async fn sec_subjects_that_are_unknown_foreign_or_unreadable_are_one_error() {
    let server = TestServer::new().await;
    server.policy("p", r#"path "secret/data/a" { capabilities = ["read"] }"#).await;
    server.policy("secret", r#"path "secret/data/b" { capabilities = ["read"] }"#).await;
    let may = format!(
        "{SELF}path \"auth/token/lookup-accessor\" {{ capabilities = [\"update\"] }}
         path \"sys/policies/acl/p\" {{ capabilities = [\"read\"] }}"
    );
    server.policy("rights", &may).await;
    let token = server.token(json!({ "policies": ["rights"], "no_default_policy": true })).await;
    let created = server.post("auth/token/create", ROOT, json!({ "policies": ["p", "secret"] })).await.ok();
    let (other, accessor) = (created.token(), created.accessor());
    let explained_for = async |token: &str, subject: Value| {
        let mut body = json!({ "path": "secret/data/a", "operation": "read" });
        body.as_object_mut().unwrap().extend(subject.as_object().unwrap().clone());
        explained(&server, token, body).await
    };
    for subject in [
        json!({ "token": other }),
        json!({ "token": "hvs.unknown" }),
        json!({ "accessor": "unknown" }),
        json!({ "entity_id": "unknown" }),
        json!({ "policies": ["p", "secret"] }),
        json!({ "policies": "absent" }),
    ] {
        let response = explained_for(&token, subject.clone()).await.is(404);
        assert_eq!(response.error(), UNKNOWN, "{subject}");
    }
    let response = explained_for(&token, json!({ "accessor": accessor })).await.ok();
    assert_eq!((&response.data()["allowed"], &response.data()["rules"][0]["policy"]), (&json!(true), &json!("p")));
    let response = explained_for(&token, json!({ "policies": "p" })).await.ok();
    assert_eq!(response.data()["cause"], "granted");
    for subject in [json!({ "token": other }), json!({ "accessor": accessor }), json!({ "policies": ["p", "secret"] })]
    {
        assert_eq!(explained_for(ROOT, subject).await.ok().data()["allowed"], true);
    }
    assert_eq!(explained_for(ROOT, json!({})).await.ok().data()["cause"], "root");
    let none = server.token(json!({ "policies": ["p"], "no_default_policy": true })).await;
    explained_for(&none, json!({})).await.is(403);
}

/// The responses of one server to all questions, as bytes.
async fn responses(hidden: &[(&str, &str)], mounts: &[&str], tokens: bool) -> Vec<String> {
    let server = TestServer::new().await;
    server
        .policy(
            "open",
            &format!(
                "{SELF}path \"sys/policies/acl/open\" {{ capabilities = [\"read\"] }}
                 path \"a/*\" {{ capabilities = [\"read\", \"update\"] }}
                 path \"a/b/deny\" {{ capabilities = [\"deny\"] }}
                 path \"m/+\" {{ capabilities = [\"update\"] allowed_parameters = {{ x = [\"1\"] }} }}"
            ),
        )
        .await;
    for (name, text) in hidden {
        server.policy(name, text).await;
    }
    for mount in mounts {
        server.post(&format!("sys/mounts/{mount}"), ROOT, json!({ "type": "transit" })).await.ok();
    }
    let other = server.token(json!({ "policies": ["open"] })).await;
    let other = if tokens { other } else { "hvs.CAESIunknown".to_owned() };
    let token = server.token(json!({ "policies": ["open", "h1", "h2"], "no_default_policy": true })).await;
    let mut out = Vec::new();
    for path in ["a/b", "a/b/deny", "A/b", "a", "m/config", "m/x", "m/keys/k/config", "other/x", "sys/seal"] {
        for operation in ["read", "update", "create", "list", "delete"] {
            for parameters in [json!({}), json!({ "x": "1" }), json!({ "x": "2" })] {
                let body = json!({ "path": path, "operation": operation, "parameters": parameters });
                let response = explained(&server, &token, body).await;
                out.push(format!("{} {}", response.status, response.body["data"]));
            }
        }
    }
    for subject in [json!({ "token": other }), json!({ "policies": "h1" }), json!({ "policies": "h3" })] {
        let mut body = json!({ "path": "a/b", "operation": "read" });
        body.as_object_mut().unwrap().extend(subject.as_object().unwrap().clone());
        let response = explained(&server, &token, body).await;
        out.push(format!("{} {}", response.status, response.body["errors"]));
    }
    out
}

/// Two servers that differ only in policies, mounts and tokens that the caller may not read explain in equal bytes, as
/// long as the decisions are equal.
#[tokio::test]
async fn explain_noninterference() {
    let first = responses(&[("h1", "path \"zz\" { capabilities = [\"read\"] }")], &[], false).await;
    // The decisions are the same, by other rules.
    let other = [
        ("h1", "path \"a/b\" { capabilities = [\"read\", \"update\"] }\npath \"zz/a\" { capabilities = [\"deny\"] }"),
        ("h2", "path \"a/b/d*\" { capabilities = [\"deny\"] }\npath \"other\" { capabilities = [\"read\"] }"),
        ("h3", "path \"*\" { capabilities = [\"read\"] }"),
    ];
    let second = responses(&other, &["m", "other"], true).await;
    assert_eq!(first.len(), second.len());
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(first, second);
    }
    // A hidden rule that changes a decision shows as such and in no other way.
    let third = responses(&[("h1", "path \"other/x\" { capabilities = [\"read\"] }")], &[], false).await;
    let changed: Vec<_> = first.iter().zip(&third).filter(|(first, third)| first != third).map(|pair| pair.1).collect();
    assert!(!changed.is_empty() && changed.iter().all(|text| text.contains("\"hidden_policy\"")), "{changed:?}");
    assert!(changed.iter().all(|text| !text.contains("h1") && !text.contains("\"line\"")), "{changed:?}");
}

#[tokio::test]
async fn an_explanation_has_a_bounded_number_of_rules() {
    let text: String =
        (1..60).map(|n| format!("path \"{}*\" {{ capabilities = [\"list\"] }}\n", "a".repeat(n))).collect();
    let (server, token) = with_policy(&text).await;
    let body = json!({ "path": "a".repeat(80), "operation": "read" });
    let response = explained(&server, &token, body).await.ok();
    assert_eq!(response.data()["near"].as_array().map(Vec::len), Some(20));
    assert_eq!((&response.data()["truncated"], &response.data()["near"][0]["line"]), (&json!(true), &json!(58)));
}
