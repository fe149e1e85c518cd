//! Tests derived from the tables: every route of every engine denies callers without capabilities, names invalid
//! parameters, is audited, and never fails with a server error on any input. A new row is tested once it is declared.

use keepfast_framework::Operation;
use keepfast_framework::routes::Access;
use keepfast_framework::rows::RowInfo;
use serde_json::{Value, json};

use crate::seal::SealShape;
use crate::tests::fixture::{ROOT, RequestOptions, TestServer};
use crate::tests::gate::Gated;

/// One operation of one row of one mount.
pub(crate) struct Route {
    engine: String,
    pub(crate) pattern: String,
    pub(crate) path: String,
    pub(crate) operation: Operation,
    pub(crate) access: Access,
    /// Whether it works on a sealed server, without audit.
    sealed: bool,
    /// The parameters outside of the path, with their schemas.
    pub(crate) parameters: Vec<(String, Value)>,
    /// The other names of a parameter, by its name.
    pub(crate) other_names: Vec<(String, &'static str)>,
}

impl Route {
    pub(crate) fn method(&self) -> &'static str {
        match self.operation {
            Operation::Read => "GET",
            Operation::Update => "POST",
            Operation::Patch => "PATCH",
            Operation::Delete => "DELETE",
            Operation::List => "LIST",
            Operation::Scan => "SCAN",
            Operation::Help => "HELP",
            Operation::Head => "HEAD",
        }
    }

    pub(crate) fn named(&self) -> String {
        format!("{} {} {}", self.engine, self.operation.name(), self.pattern)
    }

    /// Whether no audit entry is written: the row needs no authentication.
    fn is_unaudited(&self) -> bool {
        self.sealed && self.access == Access::Unauthenticated
    }

    fn shown(&self) -> String {
        let access = match self.access {
            Access::Policy => "policy",
            Access::Sudo => "sudo",
            Access::Unauthenticated => "unauthenticated",
        };
        format!("{} {access}", self.named())
    }
}

/// A server with every engine mounted, as the leader of a cluster: `sys/step-down` needs a token there.
pub(crate) async fn with_all_engines() -> TestServer {
    let server = TestServer::on(Gated::leading(), |_, _| {}, keepfast_engines::all()).await;
    mount_all_engines(&server).await;
    server
}

/// Mounts every engine.
pub(crate) async fn mount_all_engines(server: &TestServer) {
    let mut mounted = vec![("kv".to_owned(), true)];
    for registered in keepfast_engines::all().all() {
        let kind = if registered.kind == keepfast_framework::Kind::Auth { "auth" } else { "mounts" };
        let options: Value = registered.variant.map_or(json!({}), |(name, value)| json!({ name: value }));
        let path = format!("sys/{kind}/all-{}{}", registered.engine, registered.variant.map_or("", |(_, value)| value));
        let answer = server.post(&path, ROOT, json!({ "type": registered.engine, "options": options })).await;
        assert!(answer.status < 300 || registered.engine == "cubbyhole", "{path}: {answer:?}");
        mounted.push((registered.engine.to_string(), false));
    }
    assert!(mounted.len() > 5);
}

pub(crate) fn routes(server: &TestServer) -> Vec<Route> {
    let mut out = Vec::new();
    for mounted in server.unsealed().engines.mounts.router().all() {
        if mounted.entry.path == "secret/" {
            continue;
        }
        let version = mounted.entry.options().remove("version");
        let variant = version.filter(|version| version != "1").unwrap_or_default();
        for row in mounted.table.rows() {
            out.extend(of_row(&format!("{}{variant}", mounted.entry.engine), &mounted.entry.path, row));
        }
    }
    assert!(out.len() > 150, "{}", out.len());
    out
}

fn of_row(engine: &str, mount: &str, row: &RowInfo) -> Vec<Route> {
    let mut out = Vec::new();
    for pattern in &row.patterns {
        for operation in &row.operations {
            // Longer paths of the row capture values that a body cannot have here.
            let captured: Vec<&str> =
                row.patterns.iter().flat_map(|pattern| pattern.captures()).map(|name| &**name).collect();
            let properties =
                operation.request().get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
            let parameters: Vec<(String, Value)> = properties
                .into_iter()
                .filter(|(name, _)| !captured.contains(&name.as_str()) && name != "$body")
                .collect();
            let other_names = |(name, _): &(String, Value)| {
                operation.other_names(name).map(|other| (name.clone(), other)).collect::<Vec<_>>()
            };
            out.push(Route {
                engine: engine.to_owned(),
                pattern: pattern.source().to_owned(),
                path: format!("{mount}{}", example(pattern.source(), row.ids_only)),
                operation: operation.operation,
                access: row.access,
                sealed: row.sealed,
                other_names: parameters.iter().flat_map(other_names).collect(),
                parameters,
            });
        }
    }
    out
}

/// A path that the pattern matches, of a row whose captures are ids or not.
fn example(pattern: &str, has_ids: bool) -> String {
    let capture_of_row = if has_ids { "11111111-2222-3333-4444-555555555555" } else { "x1" };
    let mut out = String::new();
    let mut rest = pattern;
    while let Some((before, behind)) = rest.split_once('{') {
        let (capture, behind) = behind.split_once('}').unwrap();
        out.push_str(before);
        out.push_str(capture.split('|').nth(1).unwrap_or(capture_of_row));
        rest = behind;
    }
    out + rest
}

#[tokio::test]
async fn sec_ac08_every_route_requires_a_token_a_policy_and_sudo() {
    let server = with_all_engines().await;
    let empty = server.token(json!({ "policies": ["nothing"], "no_default_policy": true })).await;
    let all = r#"path "*" { capabilities = ["create", "read", "update", "patch", "delete", "list", "scan"] }"#;
    server.policy("all-but-sudo", all).await;
    let weak = server.token(json!({ "policies": ["all-but-sudo"] })).await;
    for route in routes(&server) {
        let (method, name) = (route.method(), route.named());
        if route.access == Access::Unauthenticated {
            if route.sealed {
                let answer = server.call(method, &route.path, "hvs.unknown", json!({ "key": "x" })).await;
                assert_ne!(answer.status, 403, "{name}");
                assert_eq!(server.call("DELETE", &route.path, ROOT, Value::Null).await.is(405).error(), "", "{name}");
            }
            continue;
        }
        if matches!(route.operation, Operation::Update | Operation::Patch) && route.path.ends_with('/') {
            // Refused for its form alone, which discloses no data.
            assert_eq!(
                server.call(method, &route.path, "", json!({})).await.is(400).error(),
                "cannot write to a path ending in '/'"
            );
            continue;
        }
        for token in ["", "hvs.unknown", "hvb.unknown", &empty] {
            // Valid and invalid parameters give the same result.
            for body in [json!({}), json!({ "x": "y", "type": [{}], "data": 1, "ttl": "x" })] {
                let answer = server.call(method, &route.path, token, body).await;
                // An unwrap validates the wrapping token before it authenticates the caller.
                let expected = match route.pattern.as_str() {
                    "wrapping/unwrap" | "wrapping/rewrap" if token.is_empty() => {
                        (403, "error validating wrapping token: token is empty")
                    }
                    "wrapping/unwrap" | "wrapping/rewrap" => (400, "wrapping token is not valid or does not exist"),
                    _ if token == empty => (403, "1 error occurred:\n\t* permission denied\n\n"),
                    _ => (403, "permission denied"),
                };
                assert_eq!((answer.status, answer.error()), expected, "{name}");
            }
        }
        if route.access == Access::Sudo {
            server.call(method, &route.path, &weak, json!({})).await.is(403);
        }
    }
}

/// Calls every row of every table: those that work on a sealed server write no audit entry.
#[tokio::test]
async fn sec_ac08_a_sealed_server_serves_the_sealed_rows_only() {
    let tables = with_all_engines().await;
    let server = TestServer::sealed(SealShape { shares: 3, threshold: 2 }).await;
    let mut answered = 0;
    for route in routes(&tables) {
        let answer = server.call(route.method(), &route.path, ROOT, json!({})).await;
        let is_sealed = (answer.status, answer.error()) == (503, "Vault is sealed");
        // A server that is not active cannot step down.
        let refuses = route.pattern == "step-down";
        assert_eq!(is_sealed, !route.sealed || refuses, "{}: {answer:?}", route.named());
        answered += usize::from(!is_sealed);
        if route.sealed {
            server.call("DELETE", &route.path, ROOT, Value::Null).await.is(405);
            let help = server.call("HELP", &route.path, ROOT, Value::Null).await.is(503);
            assert_eq!(help.error(), "Vault is sealed", "{}", route.named());
        }
    }
    assert_eq!((answered, server.audit("audit")), (9, String::new()));
}

#[tokio::test]
async fn every_sealed_row_has_help_and_is_in_the_openapi_document() {
    let server = with_all_engines().await;
    let document = server.get("sys/internal/specs/openapi", ROOT).await.ok();
    let mut seen = 0;
    for route in routes(&server).iter().filter(|route| route.sealed) {
        let method = if route.operation == Operation::Read { "get" } else { "post" };
        let path = &document.body["paths"][format!("/{}", route.path)];
        assert!(path[method].is_object(), "{}", route.named());
        let open = route.access == Access::Unauthenticated;
        assert_eq!(path["x-vault-unauthenticated"] == json!(true), open, "{}", route.named());
        let help = server.call("HELP", &route.path, ROOT, Value::Null).await.ok();
        assert!(help.body["help"].as_str().is_some_and(|text| text.contains(&route.pattern)), "{}", route.named());
        server.call("HELP", &route.path, "", Value::Null).await.is(if open { 200 } else { 403 });
        seen += 1;
    }
    assert_eq!(seen, 10);
}

#[tokio::test]
async fn sec_ac07_no_route_is_added_or_opened_unreviewed() {
    let server = with_all_engines().await;
    let mut now: Vec<String> = routes(&server).iter().map(Route::shown).collect();
    now.sort();
    now.dedup();
    let text = now.join("\n") + "\n";
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/golden/routes.txt");
    if std::env::var_os("KEEPFAST_BLESS").is_some() {
        std::fs::write(&golden, &text).unwrap();
    }
    let before = std::fs::read_to_string(&golden).unwrap();
    let (before, now): (Vec<_>, Vec<_>) = (before.lines().collect(), text.lines().collect());
    let fresh: Vec<_> = now.iter().filter(|r| !before.contains(r)).collect();
    let gone: Vec<_> = before.iter().filter(|r| !now.contains(r)).collect();
    assert!(
        fresh.is_empty() && gone.is_empty(),
        "new: {fresh:#?}\ngone: {gone:#?}\nDoes a policy that somebody wrote before grant more by this? If not: KEEPFAST_BLESS=1 cargo test -p keepfast-core sec_ac07"
    );
}

/// The existence check serves updates, so its row must have one.
#[tokio::test]
async fn rows_with_an_existence_check_have_updates() {
    let server = with_all_engines().await;
    for mounted in server.unsealed().engines.mounts.router().all() {
        for row in mounted.table.rows() {
            let updates = row.operation(Operation::Update).is_some();
            assert!(updates || !row.has_existence_check, "{} {}", mounted.entry.path, row.patterns[0].source());
        }
    }
}

#[tokio::test]
async fn a_parameter_of_the_wrong_type_is_named_and_not_quoted() {
    let server = with_all_engines().await;
    let mut faults = Vec::new();
    for route in routes(&server) {
        for (name, schema) in &route.parameters {
            // A parameter of any JSON type has no wrong type.
            if schema.get("type").is_none() {
                continue;
            }
            let canary = format!("canary-{name}");
            let answer = server
                .call(route.method(), &route.path, ROOT, json!({ name: [[&canary, { &canary: { &canary: canary } }]] }))
                .await;
            let text = answer.body.to_string();
            // A token or a lease that is no text gets the error of an unknown one.
            if matches!(name.as_str(), "token" | "lease_id") && text.contains("invalid ") {
                continue;
            }
            if name == "token" && text.contains("could not decode token") && !text.contains(&canary) {
                continue;
            }
            if answer.status != 400 || !text.contains(name.as_str()) || text.contains(&canary) {
                faults.push(format!("{} {name}: {} {text}", route.named(), answer.status));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test]
async fn sec_al06_every_route_has_two_audit_entries_with_hashed_secrets() {
    let server = with_all_engines().await;
    for route in routes(&server) {
        if route.pattern == "seal" {
            continue;
        }
        let own = server.token(json!({ "display_name": "own" })).await;
        server.forget_audit();
        let canary = "canary-31415926535";
        let body: serde_json::Map<String, Value> =
            route.parameters.iter().map(|(name, _)| (name.clone(), json!(canary))).collect();
        let send = RequestOptions {
            token: Some(own.clone()),
            body: Some(Value::Object(body).to_string()),
            ..RequestOptions::default()
        };
        let answer = server.send(route.method(), &format!("{}?q={canary}", route.path), send).await;
        let log = server.audit("audit");
        let kinds: Vec<Value> =
            log.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["type"].clone()).collect();
        let expected: &[&str] = if route.is_unaudited() { &[] } else { &["request", "response"] };
        assert_eq!(kinds, expected, "{} {}", route.named(), answer.status);
        // The requested paths become field names of the response; names are not secret.
        let names = route.pattern.starts_with("capabilities");
        assert!((names || !log.contains(canary)) && !log.contains(&own), "{}: {log}", route.named());
    }
}

/// Values that are known to cause failures in similar servers.
fn bad_values() -> Vec<Value> {
    vec![
        Value::Null,
        json!(""),
        json!(-1),
        json!(0),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1e308),
        json!("-1"),
        json!("9223372036854775807"),
        json!("99999999999h"),
        json!("1e9"),
        json!(" "),
        json!([]),
        json!({}),
        json!([null]),
        json!([""]),
        json!({ "": null }),
        json!(true),
        json!("\u{0}"),
        json!("a\nb"),
        json!("../x"),
        json!("a/b/"),
        json!("/"),
        json!("\u{202e}\u{ff52}"),
        json!("x".repeat(3000)),
        json!("="),
        json!("*"),
        json!("{\"a\":[{}]}"),
        json!("AAAA"),
        json!("2026-01-01T00:00:00Z"),
        json!("0x7f"),
        json!("::/0"),
        json!("{{identity.entity.id}}"),
    ]
}

#[tokio::test]
async fn sec_ds06_no_parameter_causes_a_server_error() {
    let server = with_all_engines().await;
    let mut faults = Vec::new();
    for route in routes(&server) {
        // A server without a cluster responds to a join with 500, as OpenBao does.
        if matches!(route.pattern.as_str(), "seal" | "storage/raft/join") {
            continue;
        }
        for (at, (name, _)) in route.parameters.iter().enumerate() {
            // A third of the values for each parameter; the parameters of one type share all of them.
            for (n, value) in bad_values().into_iter().enumerate().skip(at % 3).step_by(3) {
                let mut body = serde_json::Map::from_iter([(name.clone(), value)]);
                // Every second request also has the other parameters, except those that are slow to hash.
                if n % 2 == 0 {
                    body.extend(
                        route
                            .parameters
                            .iter()
                            .filter(|(other, _)| other != name && other != "password")
                            .map(|(other, _)| (other.clone(), json!("1"))),
                    );
                }
                let body = Value::Object(body);
                let answer = server.call(route.method(), &route.path, ROOT, body.clone()).await;
                if answer.status >= 500 {
                    faults.push(format!("{}: {body} gave {}", route.named(), answer.status));
                }
                if answer.status == 403 && answer.error() == "permission denied" && !server.accepts(ROOT).await {
                    panic!("{} {body} ended the root token", route.named());
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
