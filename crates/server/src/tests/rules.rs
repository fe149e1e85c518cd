//! Quotas, CORS and recorded headers of a whole server: set by its API, applied by its edge.

use serde_json::json;
use tokio::net::TcpStream;

use super::exchange::{Response, answered, exchange, repeated};
use super::whole::WholeServer;

impl WholeServer {
    async fn with_headers(&self, line: &str, headers: &[&str]) -> Response {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let own = [&["X-Vault-Token: root"], headers].concat();
        exchange(stream, line, &own, b"").await
    }

    async fn set(&self, path: &str, body: serde_json::Value) {
        let response = self.send(&format!("POST /v1/{path}"), "root", &body.to_string()).await;
        assert_eq!(response.status, 204, "{}", response.body);
    }
}

#[tokio::test]
async fn a_spent_quota_is_429_before_the_body_is_read() {
    let whole = WholeServer::start().await;
    let config = json!({ "enable_rate_limit_response_headers": true, "enable_rate_limit_audit_logging": true });
    whole.set("sys/quotas/config", config).await;
    whole.set("sys/quotas/rate-limit/q", json!({ "rate": 2, "interval": 3600, "path": "cubbyhole/" })).await;
    let response = whole.send("GET /v1/cubbyhole/a", "root", "").await;
    assert_eq!((response.status, response.header("x-ratelimit-remaining")), (404, Some("1")));
    // A request without a token counts as well: the quota counts by address.
    assert_eq!(whole.send("GET /v1/cubbyhole/a", "", "").await.status, 403);
    let response = whole.send("GET /v1/cubbyhole/a", "root", "").await;
    assert_eq!((response.status, response.header("x-ratelimit-remaining")), (429, Some("0")));
    assert!(
        response.header("retry-after").is_some() && response.body.contains("rate limit quota exceeded"),
        "{}",
        response.body
    );
    // An announced body that is never sent does not delay the refusal.
    let response = whole.with_headers("POST /v1/cubbyhole/a", &["Content-Length: 1000000"]).await;
    assert_eq!(response.status, 429);
    assert_eq!(whole.send("GET /v1/sys/mounts", "root", "").await.status, 200);
    let log = std::fs::read_to_string(whole.audit.path()).unwrap();
    let refused = log.lines().filter(|line| line.contains("\"operation\":\"update\"") && line.contains("cubbyhole/a"));
    assert_eq!(refused.count(), 1, "{log}");
}

#[tokio::test]
async fn sec_kf55_refusals_of_a_quota_are_recorded_in_proportion() {
    const COUNT: u32 = 500;
    let whole = WholeServer::start().await;
    whole.set("sys/quotas/config", json!({ "enable_rate_limit_audit_logging": true })).await;
    whole.set("sys/quotas/rate-limit/q", json!({ "rate": 1, "interval": 3600, "path": "cubbyhole/" })).await;
    let path = format!("/v1/cubbyhole/{}", "a".repeat(2000));
    let raw = repeated(&path, COUNT);
    let stream = TcpStream::connect(whole.address).await.unwrap();
    answered(stream, &raw, COUNT as usize).await;
    let log = std::fs::read_to_string(whole.audit.path()).unwrap();
    let recorded = log.lines().filter(|line| line.contains(&path[4..])).count();
    // The first request is served.
    let most = ((8 << 10) + 4 * raw.len()) / path.len() + 1;
    assert!((4..=most).contains(&recorded), "{recorded} entries of {COUNT} requests, {most} are in proportion");
}

#[tokio::test]
async fn only_allowed_origins_may_call() {
    let whole = WholeServer::start().await;
    let get = async |line: &str, origin: &str| whole.with_headers(line, &[&format!("Origin: {origin}")]).await;
    assert_eq!(get("GET /v1/sys/mounts", "http://a.com").await.header("access-control-allow-origin"), None);
    whole.set("sys/config/cors", json!({ "allowed_origins": "http://a.com", "allowed_headers": "X-Own" })).await;
    let response = get("GET /v1/sys/mounts", "http://a.com").await;
    assert_eq!(
        (response.status, response.header("access-control-allow-origin"), response.header("vary")),
        (200, Some("http://a.com"), Some("origin"))
    );
    let response = get("GET /v1/sys/mounts", "http://b.com").await;
    assert_eq!((response.status, response.header("access-control-allow-origin")), (403, None));
    let requested = "Access-Control-Request-Method: PUT";
    let response = whole.with_headers("OPTIONS /v1/secret/a", &["Origin: http://a.com", requested]).await;
    assert_eq!((response.status, response.header("access-control-max-age")), (200, Some("300")));
    assert!(response.header("access-control-allow-headers").is_some_and(|h| h.ends_with(",x-own")));
    // A client that is no browser sends no `Origin`.
    assert_eq!(whole.send("GET /v1/sys/mounts", "root", "").await.status, 200);
}

#[tokio::test]
async fn recorded_headers_are_audited_and_tokens_as_hmac() {
    let whole = WholeServer::start().await;
    whole.set("sys/config/auditing/request-headers/X-Plain", json!({})).await;
    whole.set("sys/config/auditing/request-headers/X-Hidden", json!({ "hmac": true })).await;
    whole.set("sys/config/auditing/request-headers/X-Vault-Token", json!({ "hmac": false })).await;
    let headers = ["X-Plain: one", "X-Plain: two", "X-Hidden: s3cr3t", "X-Other: nothing"];
    assert_eq!(whole.with_headers("GET /v1/sys/mounts", &headers).await.status, 200);
    let log = std::fs::read_to_string(whole.audit.path()).unwrap();
    let line = log.lines().last().unwrap();
    let entry: serde_json::Value = serde_json::from_str(line).unwrap();
    let recorded = &entry["request"]["headers"];
    assert_eq!(recorded["x-plain"], json!(["one", "two"]));
    for hashed in ["x-hidden", "x-vault-token"] {
        assert!(recorded[hashed][0].as_str().is_some_and(|v| v.starts_with("hmac-sha256:")), "{line}");
    }
    assert!(recorded["x-other"].is_null() && !line.contains("s3cr3t"), "{line}");
}
