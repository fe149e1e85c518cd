//! Quotas, origins and recorded headers on a whole server: set by its API, held by its edge.

use serde_json::json;
use tokio::net::TcpStream;

use super::exchange::{Response, answered, exchange, repeated};
use super::whole::Whole;

impl Whole {
    async fn with_headers(&self, line: &str, headers: &[&str]) -> Response {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let own = [&["X-Vault-Token: root"], headers].concat();
        exchange(stream, line, &own, b"").await
    }

    async fn set(&self, path: &str, body: serde_json::Value) {
        let told = self.ask(&format!("POST /v1/{path}"), "root", &body.to_string()).await;
        assert_eq!(told.status, 204, "{}", told.body);
    }
}

#[tokio::test]
async fn a_spent_quota_is_429_before_the_body_is_read() {
    let whole = Whole::start().await;
    let config = json!({ "enable_rate_limit_response_headers": true, "enable_rate_limit_audit_logging": true });
    whole.set("sys/quotas/config", config).await;
    whole.set("sys/quotas/rate-limit/q", json!({ "rate": 2, "interval": 3600, "path": "cubbyhole/" })).await;
    let told = whole.ask("GET /v1/cubbyhole/a", "root", "").await;
    assert_eq!((told.status, told.header("x-ratelimit-remaining")), (404, Some("1")));
    // Who has no token counts as well: the address is what is counted.
    assert_eq!(whole.ask("GET /v1/cubbyhole/a", "", "").await.status, 403);
    let told = whole.ask("GET /v1/cubbyhole/a", "root", "").await;
    assert_eq!((told.status, told.header("x-ratelimit-remaining")), (429, Some("0")));
    assert!(told.header("retry-after").is_some() && told.body.contains("rate limit quota exceeded"), "{}", told.body);
    // A body that is promised and never sent does not hold the refusal up.
    let told = whole.with_headers("POST /v1/cubbyhole/a", &["Content-Length: 1000000"]).await;
    assert_eq!(told.status, 429);
    assert_eq!(whole.ask("GET /v1/sys/mounts", "root", "").await.status, 200);
    let log = std::fs::read_to_string(whole.audit.path()).unwrap();
    let refused = log.lines().filter(|line| line.contains("\"operation\":\"update\"") && line.contains("cubbyhole/a"));
    assert_eq!(refused.count(), 1, "{log}");
}

#[tokio::test]
async fn sec_kf55_refusals_of_a_quota_are_recorded_in_proportion() {
    const COUNT: u32 = 500;
    let whole = Whole::start().await;
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
async fn only_named_origins_may_ask_and_browsers_are_told_so() {
    let whole = Whole::start().await;
    let ask = async |line: &str, origin: &str| whole.with_headers(line, &[&format!("Origin: {origin}")]).await;
    assert_eq!(ask("GET /v1/sys/mounts", "http://a.com").await.header("access-control-allow-origin"), None);
    whole.set("sys/config/cors", json!({ "allowed_origins": "http://a.com", "allowed_headers": "X-Own" })).await;
    let told = ask("GET /v1/sys/mounts", "http://a.com").await;
    assert_eq!(
        (told.status, told.header("access-control-allow-origin"), told.header("vary")),
        (200, Some("http://a.com"), Some("origin"))
    );
    let told = ask("GET /v1/sys/mounts", "http://b.com").await;
    assert_eq!((told.status, told.header("access-control-allow-origin")), (403, None));
    let asked = "Access-Control-Request-Method: PUT";
    let told = whole.with_headers("OPTIONS /v1/secret/a", &["Origin: http://a.com", asked]).await;
    assert_eq!((told.status, told.header("access-control-max-age")), (200, Some("300")));
    assert!(told.header("access-control-allow-headers").is_some_and(|h| h.ends_with(",x-own")));
    // Who is no browser says no origin.
    assert_eq!(whole.ask("GET /v1/sys/mounts", "root", "").await.status, 200);
}

#[tokio::test]
async fn recorded_headers_are_in_the_audit_log_and_tokens_never_in_clear() {
    let whole = Whole::start().await;
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
