//! Rules about the fields inside `data` of KV version 2; on other rows the names have no such meaning.

use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, RequestOptions, TestServer};

/// The status of a write to `path` under a rule with these conditions.
async fn writes(server: &TestServer, path: &str, conditions: &str, bodies: &[Value]) -> Vec<bool> {
    let rule =
        format!("path \"{path}\" {{ capabilities = [\"create\", \"update\", \"patch\", \"read\"] {conditions} }}");
    server.policy("rule", &rule).await;
    let token = server.token(json!({ "policies": ["rule"] })).await;
    let mut allowed = Vec::new();
    for body in bodies {
        allowed.push(server.post(path, &token, body.clone()).await.status != 403);
    }
    allowed
}

#[tokio::test]
async fn sec_rules_about_fields_hold_inside_the_data_of_kv_version_2() {
    let server = TestServer::new().await;
    let path = "secret/data/a";
    for (conditions, allowed, denied) in [
        (
            r#"allowed_parameters = { "data.x" = ["1"] }"#,
            vec![json!({ "data": { "x": "1" } }), json!({ "data": {} })],
            vec![
                json!({ "data": { "x": "2" } }),
                json!({ "data": { "y": "1" } }),
                json!({ "data": { "X": "2" } }),
                json!({ "data": { "x": "1" }, "options": {} }),
                json!({ "data": [{ "x": "1" }] }),
                json!({ "data": null }),
            ],
        ),
        (
            r#"allowed_parameters = { "data.x" = ["1"], "*" = [] }"#,
            vec![json!({ "data": { "x": "1", "y": 2 }, "options": {} })],
            vec![json!({ "data": { "x": "2" } }), json!({ "data": { "y": 1, "X": "2" } })],
        ),
        (
            r#"allowed_parameters = { "data" = [], "data.x" = ["1"] }"#,
            vec![json!({ "data": { "x": "1", "y": 2 } }), json!({ "data": { "y": 2 } })],
            vec![json!({ "data": { "x": "2", "y": 2 } }), json!({ "data": {}, "options": {} })],
        ),
        (
            r#"allowed_parameters = { "data.*" = [], "data.x" = ["1"] }"#,
            vec![json!({ "data": { "x": "1", "y": 2 } })],
            vec![json!({ "data": { "x": "2" } })],
        ),
        (
            r#"denied_parameters = { "data.x" = [] }"#,
            vec![json!({ "data": { "y": { "x": 1 } } })],
            vec![
                json!({ "data": { "x": null } }),
                json!({ "data": { "X": 1 } }),
                json!({ "data": [{ "x": 1 }] }),
                json!({ "data": {}, "data.x": 1 }),
            ],
        ),
        (
            r#"denied_parameters = { "data.Level" = ["root", 0] }"#,
            vec![json!({ "data": { "level": "user" } }), json!({ "data": { "other": "root" } })],
            vec![
                json!({ "data": { "level": "root" } }),
                json!({ "data": { "LEVEL": ["root"] } }),
                json!({ "data": { "level": "0" } }),
            ],
        ),
        (r#"denied_parameters = { "data.*" = [] }"#, vec![json!({ "data": {} })], vec![json!({ "data": { "y": 1 } })]),
        (
            r#"required_parameters = ["data.Owner"]"#,
            vec![json!({ "data": { "Owner": "a" } }), json!({ "data": { "owner": "a" } })],
            vec![json!({ "data": { "a": { "owner": "a" } } }), json!({ "data": {}, "data.owner": "a" })],
        ),
        (
            r#"allowed_parameters = { "data.a.b" = ["1"] }"#,
            vec![json!({ "data": { "a.b": "1" } })],
            vec![json!({ "data": { "a": { "b": "1" } } })],
        ),
    ] {
        let all = [allowed.clone(), denied.clone()].concat();
        let results = writes(&server, path, conditions, &all).await;
        for (at, body) in all.iter().enumerate() {
            assert_eq!(results[at], at < allowed.len(), "{conditions} {body}");
        }
        // A read has no fields, so no rule about them refuses it.
        let token = server.token(json!({ "policies": ["rule"] })).await;
        assert_ne!(server.get(path, &token).await.status, 403, "{conditions}");
    }
}

#[tokio::test]
async fn sec_a_patch_and_a_repeated_field_do_not_evade_a_rule_about_fields() {
    let server = TestServer::new().await;
    server.post("secret/data/a", ROOT, json!({ "data": { "x": "1" } })).await.ok();
    let conditions = r#"allowed_parameters = { "data.x" = ["1"] }"#;
    assert_eq!(writes(&server, "secret/data/a", conditions, &[json!({ "data": { "x": "1" } })]).await, [true]);
    let token = server.token(json!({ "policies": ["rule"] })).await;
    for (body, status) in [
        (r#"{"data":{"x":"1"}}"#, 200),
        (r#"{"data":{"x":"2"}}"#, 403),
        (r#"{"data":{"x":null}}"#, 403),
        (r#"{"data":{"x":"2","x":"1"}}"#, 403),
        (r#"{"data":{"x":"2"},"data":{"x":"1"}}"#, 200),
    ] {
        let send = RequestOptions { token: Some(token.clone()), body: Some(body.to_owned()), ..Default::default() };
        for method in ["POST", "PATCH"] {
            assert_eq!(server.send(method, "secret/data/a", send.clone()).await.status, status, "{method} {body}");
        }
    }
}

#[tokio::test]
async fn sec_a_patch_does_not_delete_a_required_field() {
    let server = TestServer::new().await;
    let conditions = r#"required_parameters = ["data.owner"]"#;
    let bodies = [json!({ "data": { "owner": "a" } }), json!({ "data": { "x": 1 } })];
    assert_eq!(writes(&server, "secret/data/a", conditions, &bodies).await, [true, false]);
    let token = server.token(json!({ "policies": ["rule"] })).await;
    for (body, status) in [(json!({ "owner": null }), 403), (json!({ "owner": "b" }), 200)] {
        server.call("PATCH", "secret/data/a", &token, json!({ "data": body })).await.is(status);
    }
    // Letters that differ in case fold to the same name.
    let denied = r#"denied_parameters = { "data.password" = [] }"#;
    assert_eq!(writes(&server, "secret/data/a", denied, &[json!({ "data": { "pa\u{17f}sword": 1 } })]).await, [false]);
}

#[tokio::test]
async fn a_name_with_a_dot_is_literal_on_other_rows() {
    let server = TestServer::new().await;
    server.post("sys/mounts/one", ROOT, json!({ "type": "kv", "options": { "version": "1" } })).await.ok();
    let bodies = [json!({ "data": { "x": "1" } }), json!({ "data.x": "1" })];
    let denied = r#"denied_parameters = { "data.x" = ["1"] }"#;
    assert_eq!(writes(&server, "one/a", denied, &bodies).await, [true, false]);
    let allowed = r#"allowed_parameters = { "data.x" = ["1"] }"#;
    assert_eq!(writes(&server, "one/a", allowed, &bodies).await, [false, true]);
    let required = r#"required_parameters = ["data.x"]"#;
    assert_eq!(writes(&server, "one/a", required, &bodies).await, [false, true]);
}
