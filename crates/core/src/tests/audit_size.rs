//! The most bytes that a request can make the audit devices write.

use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, RequestOptions, TestServer, device};

/// The most bytes of both entries of a request without an accepted token, for any body.
const STRANGERS_ENTRIES: usize = 2 * ((16 << 10) + 2048);

/// JSON texts of about `length` bytes with as many values as possible.
fn bombs(length: usize) -> Vec<(&'static str, String)> {
    let rows = |item: &str| {
        let row = format!("[{}]", vec![item; 9_000].join(","));
        format!("{{\"a\":[{}]}}", vec![row.as_str(); length.div_ceil(row.len())].join(","))
    };
    let members = |value: &str| {
        let members: Vec<String> = (0..length / 12).map(|n| format!("\"{n:06}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    };
    vec![
        ("numbers", rows("1")),
        ("negative zeros", rows("-0")),
        ("texts", rows("\"\"")),
        ("nulls", rows("null")),
        ("arrays", rows("[]")),
        ("objects", rows("{}")),
        ("objects of numbers", rows("{\"\":1}")),
        ("names", members("1")),
        ("one long name", format!("{{\"{}\":1}}", "n".repeat(length))),
        ("one long number", format!("{{\"a\":1.{}}}", "1".repeat(length))),
        ("one long text", format!("{{\"a\":\"{}\"}}", "\\u0000".repeat(length / 6))),
        ("a token", format!("{{\"token\":\"{}\"}}", "t".repeat(length))),
    ]
}

async fn written(server: &TestServer, method: &str, path: &str, token: &str, body: &str) -> (usize, u16) {
    server.forget_audit();
    let token = (!token.is_empty()).then(|| token.to_owned());
    let answer = server
        .send(method, path, RequestOptions { token, body: Some(body.to_owned()), ..RequestOptions::default() })
        .await;
    (server.audit("audit").len(), answer.status)
}

#[tokio::test]
async fn sec_al08_a_request_without_a_token_writes_a_bounded_entry() {
    let server = TestServer::new().await;
    server.post("sys/auth/approle", ROOT, json!({ "type": "approle" })).await.ok();
    for path in ["auth/approle/login", "secret/data/a", "nowhere/a", "sys/wrapping/unwrap", "sys/decode-token"] {
        for token in ["", "unknown"] {
            for (name, body) in bombs(100_000) {
                let (bytes, status) = written(&server, "POST", path, token, &body).await;
                assert!(status >= 400, "{path} {name}: {status}");
                assert!(bytes <= STRANGERS_ENTRIES, "{path} {token:?} {name}: {bytes} bytes of audit");
                assert_eq!(server.entries().len(), 2, "{path} {name}");
            }
        }
    }
}

#[tokio::test]
async fn sec_al08_a_short_request_without_a_token_writes_entries_in_proportion() {
    let server = TestServer::new().await;
    for count in [1, 10, 50, 200, 1000] {
        let body = format!("{{\"a\":[{}]}}", vec!["1"; count].join(","));
        for token in ["", "unknown"] {
            let (bytes, _) = written(&server, "POST", "secret/data/a", token, &body).await;
            assert!(bytes <= 4 * body.len() + 2 * (1024 + 1024), "{count} {token:?}: {bytes} for {}", body.len());
        }
    }
}

#[tokio::test]
async fn sec_al08_queries_and_responses_without_a_token_are_bounded() {
    let server = TestServer::with(
        |settings, dir| settings.audit.push(device(dir, "raw", &[("log_raw", "true")])),
        keepfast_engines::all(),
    )
    .await;
    let query = (0..5_000).map(|n| format!("{n}=")).collect::<Vec<_>>().join("&");
    for path in [format!("secret/data/a?{query}"), "sys/internal/specs/openapi".to_owned()] {
        let (bytes, _) = written(&server, "GET", &path, "", "").await;
        assert!(bytes <= 2 * STRANGERS_ENTRIES, "{bytes}");
    }
    // Raw entries are bounded too.
    let before = server.audit("raw").len();
    server.post("secret/data/a", "", json!({ "a": "x".repeat(1 << 20) })).await.is(403);
    assert!(server.audit("raw").len() - before <= STRANGERS_ENTRIES);
}

#[tokio::test]
async fn sec_al08_a_caller_with_a_token_writes_entries_in_proportion() {
    let server = TestServer::new().await;
    for (name, body) in bombs(400_000) {
        let (bytes, _) = written(&server, "POST", "secret/data/a", ROOT, &format!("{{\"data\":{body}}}")).await;
        assert!(bytes <= 2 * ((1 << 20) + 4 * body.len() + 2048), "{name}: {bytes} for {}", body.len());
        let (bytes, _) = written(&server, "GET", "secret/data/a", ROOT, "").await;
        assert!(bytes <= (1 << 20) + 4 * body.len() + 4096, "{name}: {bytes}");
    }
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_found_by_the_hash_of_its_text() {
    let server = TestServer::new().await;
    let body = format!("{{\"a\":[{}]}}", vec!["1"; 1_000].join(","));
    written(&server, "POST", "secret/data/a", "", &body).await;
    let hash = server.post("sys/audit-hash/audit", ROOT, json!({ "input": body })).await.ok().data()["hash"].clone();
    let entries = server.entries();
    for entry in &entries[..2] {
        let request = &entry["request"];
        assert_eq!((&request["data"], &request["data_hmac"]), (&Value::Null, &hash));
        assert_eq!(request["data_length"], body.len());
    }
    // A login of usual size keeps its fields.
    written(&server, "POST", "auth/approle/login", "", &json!({ "role_id": "r", "secret_id": "s" }).to_string()).await;
    assert!(server.entries()[0]["request"]["data"]["role_id"].as_str().unwrap().starts_with("hmac-sha256:"));
}
