//! The simulation of a policy against the audit log of a server.

use serde_json::json;

use crate::policy_analysis::{EngineTables, PolicySource, Simulated, Simulation};
use crate::tests::fixture::{ROOT, TestServer};

const BEFORE: &str = r#"
path "secret/data/*" { capabilities = ["read", "create", "update"] }
path "secret/metadata/*" { capabilities = ["list"] }
"#;

/// The results of all requests of the log whose path begins with `secret/`: path, operation, result.
fn results(simulation: &mut Simulation, log: &str, known: &[(&str, &str)]) -> Vec<String> {
    let mut source = |name: &str| match known.iter().find(|(known, _)| *known == name) {
        Some((_, text)) => PolicySource::Text((*text).to_owned()),
        None if name == "default" => PolicySource::Absent,
        None => PolicySource::Unknown,
    };
    let mut results = Vec::new();
    for line in log.lines() {
        results.extend(match simulation.line(line, &mut source) {
            Simulated::Changed(request, allowed) => Some(format!("{} {} {allowed}", request.operation, request.path)),
            Simulated::Undecidable(request, reason) => Some(format!("{} {} {reason}", request.operation, request.path)),
            Simulated::Unreadable => Some("unreadable".to_owned()),
            Simulated::Other | Simulated::Unaffected | Simulated::Unchanged(_) => None,
        });
    }
    results
}

fn simulation(proposed: &str) -> Simulation {
    let mut simulation = Simulation::new(EngineTables::new(keepfast_engines::all(), None));
    simulation.propose("app", proposed).unwrap();
    simulation
}

#[tokio::test]
async fn past_requests_that_change_are_found_and_others_are_not() {
    let server = TestServer::new().await;
    server.policy("app", BEFORE).await;
    server.policy("extra", r#"path "secret/data/extra" { capabilities = ["read"] }"#).await;
    let app = server.token(json!({ "policies": ["app"] })).await;
    let both = server.token(json!({ "policies": ["app", "extra"] })).await;
    let other = server.token(json!({ "policies": ["extra"] })).await;
    server.forget_audit();
    server.post("secret/data/a", &app, json!({ "data": { "x": "1" } })).await.is(200);
    server.get("secret/data/a", &app).await.is(200);
    server.list("secret/metadata/", &app).await.is(200);
    server.delete("secret/data/a", &app).await.is(403);
    server.get("secret/data/extra", &both).await.is(404);
    server.get("secret/data/a", &other).await.is(403);
    server.get("secret/data/a", ROOT).await.is(200);
    let log = server.audit("audit");
    let known = [("extra", r#"path "secret/data/extra" { capabilities = ["read"] }"#)];
    assert_eq!(results(&mut simulation(BEFORE), &log, &known), Vec::<String>::new());
    let proposed = r#"
        path "secret/data/*" { capabilities = ["create", "update", "delete"] }
        path "secret/metadata/*" { capabilities = ["list"] }"#;
    assert_eq!(
        results(&mut simulation(proposed), &log, &known),
        ["read secret/data/a false", "delete secret/data/a true"]
    );
    // Without the text of the other policy its requests are undecidable.
    let unknown = results(&mut simulation(proposed), &log, &[]);
    assert_eq!(unknown[2], "read secret/data/extra the token has a policy whose text is not known");
    assert_eq!(results(&mut simulation(BEFORE), "{}\nno entry\n", &[]), ["unreadable", "unreadable"]);
}

#[tokio::test]
async fn hashed_parameters_are_undecidable_where_a_rule_compares_them() {
    let server = TestServer::new().await;
    server.policy("app", r#"path "auth/token/create" { capabilities = ["create", "update"] }"#).await;
    let app = server.token(json!({ "policies": ["app"] })).await;
    server.forget_audit();
    server.post("auth/token/create", &app, json!({ "ttl": "1h" })).await.is(200);
    let log = server.audit("audit");
    let hashed = "update auth/token/create a rule compares a parameter whose value is hashed in the log";
    for (conditions, expected) in [
        ("", vec![]),
        (r#"allowed_parameters = { ttl = [] }"#, vec![]),
        (r#"allowed_parameters = { ttl = ["1h"] }"#, vec![hashed]),
        (r#"allowed_parameters = { period = ["1h"] }"#, vec!["update auth/token/create false"]),
        (r#"denied_parameters = { ttl = [] }"#, vec!["update auth/token/create false"]),
        (r#"denied_parameters = { ttl = ["1h"] }"#, vec![hashed]),
        (r#"denied_parameters = { period = ["1h"] }"#, vec![]),
        (r#"required_parameters = ["ttl"]"#, vec![]),
        (r#"required_parameters = ["period"]"#, vec!["update auth/token/create false"]),
        (r#"min_wrapping_ttl = "1m""#, vec!["update auth/token/create false"]),
        (r#"expiration = "2001-01-01T00:00:00Z""#, vec!["update auth/token/create false"]),
    ] {
        let text = format!("path \"auth/token/create\" {{ capabilities = [\"create\", \"update\"] {conditions} }}");
        assert_eq!(results(&mut simulation(&text), &log, &[]), expected, "{conditions}");
    }
    let create_only = r#"path "auth/token/create" { capabilities = ["create"] }"#;
    let unclear = "update auth/token/create the log does not show whether the write created the resource";
    assert_eq!(results(&mut simulation(create_only), &log, &[]), [unclear]);
    let templated = r#"path "auth/token/{{identity.entity.name}}" { capabilities = ["update"] }"#;
    let identity = "update auth/token/create a rule depends on the identity of the caller";
    assert_eq!(results(&mut simulation(templated), &log, &[]), [identity]);
}
