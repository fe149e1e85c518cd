//! `denied_parameters` on every parameter of every route: no spelling that the handler accepts evades the denial.

use keepfast_framework::Operation;
use keepfast_framework::routes::Access;
use serde_json::{Map, Value, json};

use crate::tests::derived::{Route, routes, with_all_engines};
use crate::tests::fixture::{ROOT, TestServer};

const DENIED: &str = "1 error occurred:\n\t* permission denied\n\n";

/// A denied value for a parameter of this schema, and spellings that a field of the type reads as that value.
fn denied_and_spellings(schema: &Value) -> (Value, Vec<Value>) {
    match schema["format"].as_str().unwrap_or("text") {
        "int64" => {
            (json!(16), vec![json!(16), json!("0x10"), json!("0o20"), json!("020"), json!("1_6"), json!("0B10000")])
        }
        "int-list" => (json!(16), vec![json!("3,0x10"), json!([3, "020"]), json!(16)]),
        "float" => (json!(2.5), vec![json!("2.50"), json!(2.5), json!("25e-1")]),
        "bool" => (json!(true), vec![json!("1"), json!("t"), json!("TRUE"), json!(1), json!(true)]),
        "seconds" => (json!("1m"), vec![json!(60), json!("60"), json!("60s"), json!("1m0s"), json!("0.5m30s")]),
        "key-value" => (json!({ "a": "adm" }), vec![json!("a=adm"), json!(["a = ADM"]), json!([{ "a": "adm" }])]),
        _ => (json!("adm"), vec![json!("adm"), json!("ADM"), json!(["Adm"]), json!("x1, aDm"), json!(["x", "adm "])]),
    }
}

/// Denies the values of all parameters of a route.
async fn deny(server: &TestServer, route: &Route) {
    let denied: Map<String, Value> =
        route.parameters.iter().map(|(name, schema)| (name.clone(), json!([denied_and_spellings(schema).0]))).collect();
    let all = json!(["create", "read", "update", "patch", "sudo"]);
    let path = json!({ route.path.clone(): { "capabilities": all, "denied_parameters": denied } });
    server.policy("constrained", &json!({ "path": path }).to_string()).await;
}

#[tokio::test]
async fn sec_kf07_no_spelling_of_any_parameter_evades_a_denial() {
    let server = with_all_engines().await;
    let token = server.token(json!({ "policies": ["constrained"] })).await;
    let (mut tried, mut faults) = (0, Vec::new());
    for route in routes(&server) {
        let is_evaluated = matches!(route.operation, Operation::Read | Operation::Update | Operation::Patch);
        // Refused before the policies are evaluated, for the form of the request.
        let refused_first =
            route.path.ends_with('/') || ["unwrap", "rewrap"].iter().any(|end| route.path.ends_with(end));
        if !is_evaluated || refused_first || route.access == Access::Unauthenticated || route.parameters.is_empty() {
            continue;
        }
        deny(&server, &route).await;
        for (name, schema) in &route.parameters {
            let others = route.other_names.iter().filter(|(of, _)| of == name).map(|(_, other)| *other);
            for name in [name.as_str()].into_iter().chain(others) {
                for spelling in denied_and_spellings(schema).1 {
                    let body = json!({ name: spelling.clone() });
                    let answer = server.call(route.method(), &route.path, &token, body).await;
                    tried += 1;
                    // A token that is no text is refused before the policies are evaluated.
                    let is_denied = answer.error() == DENIED || name == "token" && !spelling.is_string();
                    if answer.status != 403 || !is_denied {
                        faults.push(format!("{} {name}: {spelling} gave {}", route.named(), answer.status));
                    }
                }
            }
        }
    }
    assert!(tried > 1000, "{tried}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test]
async fn sec_kf07_a_denied_policy_is_assigned_under_no_name_or_case() {
    let server = TestServer::new().await;
    server.post("sys/auth/up", ROOT, json!({ "type": "userpass" })).await.ok();
    for denied in ["token_policies", "policies"] {
        let constraint = format!(r#"denied_parameters = {{ "{denied}" = ["adm"] }}"#);
        let rule = format!(r#"path "auth/up/users/*" {{ capabilities = ["create", "update"] {constraint} }}"#);
        server.policy("users", &rule).await;
        let token = server.token(json!({ "policies": ["users"] })).await;
        for name in ["token_policies", "policies"] {
            for value in [json!("adm"), json!("ADM"), json!(["Adm"]), json!("x1,aDm"), json!([" adm"]), json!({})] {
                let allowed = value.is_object();
                let body = json!({ "password": "p", name: value });
                let answer = server.post("auth/up/users/u", &token, body.clone()).await;
                assert_eq!(answer.status < 300, allowed, "{denied} and {body}: {answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn sec_kf07_a_batch_does_not_evade_a_denial() {
    let server = TestServer::new().await;
    server.post("sys/mounts/transit", ROOT, json!({ "type": "transit" })).await.ok();
    server.post("transit/keys/k", ROOT, json!({})).await.ok();
    let rule = r#"path "transit/encrypt/k" { capabilities = ["create", "update"] denied_parameters = { "key_version" = [1] } }"#;
    server.policy("encrypt", rule).await;
    let token = server.token(json!({ "policies": ["encrypt"] })).await;
    let encrypt = async |body: Value| server.post("transit/encrypt/k", &token, body).await.status;
    assert_eq!(encrypt(json!({ "batch_input": [{ "plaintext": "YQ==" }] })).await, 200);
    assert_eq!(encrypt(json!({ "plaintext": "YQ==", "key_version": "0x1" })).await, 403);
    assert_eq!(encrypt(json!({ "batch_input": [{ "plaintext": "YQ==", "key_version": true }] })).await, 403);
}

/// The routes that take a whole body, by whether they only store it.
#[tokio::test]
async fn sec_kf07_only_routes_that_store_their_body_compare_it_as_data() {
    let server = with_all_engines().await;
    let (mut stores, mut reads) = (Vec::new(), Vec::new());
    for mounted in server.unsealed().engines.mounts.router().all() {
        for row in mounted.table.rows() {
            if row.operations.iter().any(|operation| operation.takes_whole_body()) {
                let list = if row.stores_body { &mut stores } else { &mut reads };
                list.push(format!("{} {}", mounted.entry.engine, row.patterns[0].source()));
            }
        }
    }
    for list in [&mut stores, &mut reads] {
        list.sort();
        list.dedup();
    }
    let folders = ["cubbyhole {path...}", "cubbyhole {path...}/", "kv {path...}", "kv {path...}/"];
    assert_eq!(stores, [&folders[..], &["system wrapping/wrap"]].concat());
    let external_keys = ["system external-keys/configs/{config}", "system external-keys/configs/{config}/keys/{key}"];
    assert_eq!(reads, [&["database config/{name}"], &external_keys[..]].concat());
}

#[tokio::test]
async fn sec_kf07_no_spelling_of_a_setting_of_a_connection_evades_a_denial() {
    let server = with_all_engines().await;
    for (name, denied, spellings) in [
        ("allowed_roles", json!("adm"), vec![json!("adm"), json!("ADM"), json!(["x", "Adm"]), json!("x, aDm")]),
        ("plugin_name", json!("mysql-*"), vec![json!("mysql-database-plugin"), json!("MySQL-x")]),
        ("verify_connection", json!(false), vec![json!(false), json!("f"), json!("FALSE"), json!(0), json!("0")]),
        ("max_open_connections", json!(16), vec![json!(16), json!("0x10"), json!("16"), json!(16.0)]),
        ("max_connection_lifetime", json!("1m"), vec![json!("60s"), json!(60), json!("0.5m30s")]),
        ("tls", json!("true"), vec![json!(true), json!(1), json!("T")]),
        ("not_known_to_any_kind", json!("x"), vec![json!("X"), json!(["x"])]),
    ] {
        let all = json!(["create", "update", "sudo"]);
        let rule = json!({ "capabilities": all, "denied_parameters": { name: [denied] } });
        let path = json!({ "path": { "all-database/config/*": rule } });
        server.policy("connections", &path.to_string()).await;
        let token = server.token(json!({ "policies": ["connections"] })).await;
        for spelling in spellings {
            let body = json!({ name: spelling });
            let answer = server.post("all-database/config/c", &token, body.clone()).await;
            assert_eq!((answer.status, answer.error()), (403, DENIED), "{body}");
        }
        let answer = server.post("all-database/config/c", &token, json!({ name: "other" })).await;
        assert_ne!(answer.status, 403, "{name}: {answer:?}");
    }
}

/// What a route stores unchanged is compared as it is, and only the parameter `batch_input` has parameters inside.
#[tokio::test]
async fn data_is_compared_as_it_is_stored_and_has_no_batch() {
    let server = TestServer::new().await;
    server.post("sys/mounts/old", ROOT, json!({ "type": "kv" })).await.ok();
    let text = r#"
        path "old/a" { capabilities = ["create", "update"] denied_parameters = { "k" = ["adm"] } }
        path "auth/token/create" { capabilities = ["update"] denied_parameters = { "k" = ["adm"] } }
    "#;
    server.policy("constrained", text).await;
    let token = server.token(json!({ "policies": ["constrained"] })).await;
    server.post("old/a", &token, json!({ "k": "adm" })).await.is(403);
    server.post("old/a", &token, json!({ "k": "ADM" })).await.is(204);
    server.post("old/a", &token, json!({ "batch_input": [{ "k": "adm" }] })).await.is(204);
    server.post("auth/token/create", &token, json!({ "k": "adm" })).await.is(403);
    server.post("auth/token/create", &token, json!({ "meta": { "k": "adm" } })).await.ok();
}
