//! The OIDC provider: rotation by the clock, codes that work once, and tokens that may do one thing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keepfast_framework::{Authorization, Clock as _};
use serde_json::{Value, json};

use crate::identity::{delete_expired_codes, rotate_due_keys};
use crate::layout::IDENTITY_MOUNT;
use crate::request::route::takes_authorization;
use crate::tests::fixture::{ROOT, RequestOptions, TestResponse, TestServer, incoming};

const CALLBACK: &str = "https://app.example/cb";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// A server with a user that has an entity, and a client of the default provider.
struct Site {
    server: TestServer,
    user: String,
    entity: String,
    client_id: String,
    secret: String,
}

impl Site {
    async fn new() -> Self {
        let server = TestServer::new().await;
        server.policy("oidc", r#"path "identity/oidc/*" { capabilities = ["create", "read", "update"] }"#).await;
        let login = server.approle("user", json!({ "token_policies": "oidc", "token_ttl": "24h" })).await.ok();
        let entity = login.body["auth"]["entity_id"].as_str().unwrap().to_owned();
        let body = json!({ "redirect_uris": CALLBACK, "assignments": "allow_all" });
        server.post("identity/oidc/client/app", ROOT, body).await.ok();
        let client = server.get("identity/oidc/client/app", ROOT).await.ok();
        let text = |name: &str| client.data()[name].as_str().unwrap().to_owned();
        Site { user: login.token(), entity, client_id: text("client_id"), secret: text("client_secret"), server }
    }

    async fn code(&self) -> String {
        let body = json!({
            "scope": "openid", "response_type": "code", "client_id": self.client_id, "redirect_uri": CALLBACK,
            "nonce": "n", "code_challenge": CHALLENGE, "code_challenge_method": "S256",
        });
        let path = "identity/oidc/provider/default/authorize";
        self.server.post(path, &self.user, body).await.ok().body["code"].as_str().unwrap().to_owned()
    }

    async fn exchange(&self, code: &str, verifier: &str) -> TestResponse {
        let body = json!({
            "grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": verifier,
            "client_id": self.client_id, "client_secret": self.secret,
        });
        self.server.post("identity/oidc/provider/default/token", "", body).await
    }

    async fn userinfo(&self, access_token: &str) -> TestResponse {
        let options = RequestOptions {
            token: Some(access_token.to_owned()),
            authorization: Authorization::Bearer,
            ..RequestOptions::default()
        };
        self.server.send("GET", "identity/oidc/provider/default/userinfo", options).await
    }

    /// A key with a role of the same name.
    async fn key(&self, name: &str, rotation_period: u64, verification_ttl: u64) {
        let body = json!({
            "algorithm": "EdDSA", "rotation_period": rotation_period, "verification_ttl": verification_ttl,
            "allowed_client_ids": "*",
        });
        self.server.post(&format!("identity/oidc/key/{name}"), ROOT, body).await.ok();
        let body = json!({ "key": name, "ttl": verification_ttl });
        self.server.post(&format!("identity/oidc/role/{name}"), ROOT, body).await.ok();
    }

    async fn token(&self, role: &str) -> String {
        let token = self.server.get(&format!("identity/oidc/token/{role}"), &self.user).await.ok();
        token.data()["token"].as_str().unwrap().to_owned()
    }

    async fn introspect(&self, token: &str) -> Value {
        self.server.post("identity/oidc/introspect", ROOT, json!({ "token": token })).await.ok().body
    }

    async fn published(&self) -> Vec<String> {
        let set = self.server.get("identity/oidc/.well-known/keys", "").await.ok();
        let kid = |key: &Value| key["kid"].as_str().unwrap().to_owned();
        set.body["keys"].as_array().unwrap().iter().map(kid).collect()
    }

    /// Moves the clock and rotates the keys that are due, as the background tasks do.
    async fn pass(&self, seconds: u64) {
        self.server.clock.advance(std::time::Duration::from_secs(seconds));
        let unsealed = self.server.unsealed();
        let view = unsealed.engines.mounts.router().at(IDENTITY_MOUNT).unwrap().view.clone();
        rotate_due_keys(&unsealed.barrier, &view, self.server.clock.now()).await.unwrap();
    }
}

fn part(token: &str, at: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(at).unwrap()).unwrap()).unwrap()
}

fn kid(token: &str) -> String {
    part(token, 0)["kid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn rotation_is_exact_and_the_next_key_is_published_before() {
    let site = Site::new().await;
    site.key("a", 60, 120).await;
    site.key("b", 90, 120).await;
    let (a, b) = (kid(&site.token("a").await), kid(&site.token("b").await));
    let before = site.published().await;
    assert_eq!(before.len(), 4, "the signing key and the next one of each");
    site.pass(59).await;
    assert_eq!((kid(&site.token("a").await), kid(&site.token("b").await)), (a.clone(), b.clone()));
    site.pass(1).await;
    let second = kid(&site.token("a").await);
    assert!(second != a && before.contains(&second), "the key that was published as the next one signs");
    assert_eq!(kid(&site.token("b").await), b);
    assert!(site.published().await.contains(&a), "the retired key stays");
    site.pass(29).await;
    assert_eq!(kid(&site.token("b").await), b);
    site.pass(1).await;
    let second_of_b = kid(&site.token("b").await);
    assert!(second_of_b != b && before.contains(&second_of_b));
    assert_eq!(kid(&site.token("a").await), second);
}

#[tokio::test]
async fn the_next_rotation_follows_the_commits_of_keys() {
    let site = Site::new().await;
    let unsealed = site.server.unsealed();
    let view = unsealed.engines.mounts.router().at(IDENTITY_MOUNT).unwrap().view.clone();
    let now = site.server.clock.now().unix();
    let seconds = async || {
        let next = unsealed.access.identity.oidc.next_rotation(&unsealed.barrier, &view).await.unwrap();
        next.map(|next| next.unix() - now)
    };
    assert_eq!(seconds().await, Some(86_400), "the default key, which a client uses");
    site.key("a", 120, 120).await;
    assert_eq!(seconds().await, Some(120));
    site.key("b", 60, 120).await;
    assert_eq!(seconds().await, Some(60));
}

#[tokio::test]
async fn tokens_verify_across_a_rotation_and_not_after_the_ttl() {
    let site = Site::new().await;
    site.key("a", 60, 120).await;
    site.pass(59).await;
    let token = site.token("a").await;
    site.pass(1).await;
    assert_eq!(site.introspect(&token).await, json!({ "active": true }));
    site.pass(118).await;
    assert_eq!(site.introspect(&token).await["active"], true);
    assert!(site.published().await.contains(&kid(&token)));
    site.pass(1).await;
    let expired = "error validating claims: go-jose/go-jose/jwt: validation failed, token is expired (exp)";
    assert_eq!(site.introspect(&token).await, json!({ "active": false, "error": expired }));
    site.pass(1).await;
    assert!(!site.published().await.contains(&kid(&token)), "120 seconds after the rotation");
    assert_eq!(site.introspect(&token).await["error"], "unable to validate the token signature");
}

#[tokio::test]
async fn a_ttl_above_the_verification_ttl_is_refused() {
    let site = Site::new().await;
    site.key("a", 60, 120).await;
    let server = &site.server;
    for (path, body) in [
        ("role/a", json!({ "ttl": 121 })),
        ("client/x", json!({ "key": "a", "id_token_ttl": 121 })),
        ("client/x", json!({ "key": "a", "id_token_ttl": 1, "access_token_ttl": 121, "client_credentials": true })),
        ("key/a", json!({ "verification_ttl": 119 })),
    ] {
        server.post(&format!("identity/oidc/{path}"), ROOT, body).await.is(400);
    }
    server.post("identity/oidc/client/x", ROOT, json!({ "key": "a", "id_token_ttl": 120 })).await.ok();
}

#[tokio::test]
async fn oidc_code_once() {
    let site = Site::new().await;
    let code = site.code().await;
    let (one, other) = tokio::join!(site.exchange(&code, VERIFIER), site.exchange(&code, VERIFIER));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400]);
    assert_eq!(site.exchange(&code, VERIFIER).await.is(400).body["error"], "invalid_grant");

    let code = site.code().await;
    let wrong = site.exchange(&code, &VERIFIER.to_lowercase()).await.is(400);
    assert_eq!(wrong.body["error_description"], "invalid code_verifier for token exchange");
    let again = site.exchange(&code, VERIFIER).await.is(400);
    assert_eq!(again.body["error_description"], "authorization grant is invalid or expired");

    let (kept, late) = (site.code().await, site.code().await);
    site.server.clock.advance(std::time::Duration::from_secs(299));
    site.exchange(&kept, VERIFIER).await.ok();
    site.server.clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(site.exchange(&late, VERIFIER).await.is(400).body["error"], "invalid_grant");
}

#[tokio::test]
async fn claims_that_cannot_be_set_use_up_the_code() {
    let site = Site::new().await;
    let server = &site.server;
    server.post("identity/oidc/scope/s", ROOT, json!({ "template": "{ {{identity.entity.name}} : 1 }" })).await.ok();
    let body = json!({ "allowed_client_ids": "*", "scopes_supported": "s" });
    server.post("identity/oidc/provider/default", ROOT, body).await.ok();
    let entity = format!("identity/entity/id/{}", site.entity);
    server.post(&entity, ROOT, json!({ "name": "sub" })).await.ok();
    let body = json!({
        "scope": "openid s", "response_type": "code", "client_id": site.client_id, "redirect_uri": CALLBACK,
        "code_challenge": CHALLENGE, "code_challenge_method": "S256",
    });
    let issued = server.post("identity/oidc/provider/default/authorize", &site.user, body).await.ok();
    let code = issued.body["code"].as_str().unwrap();
    let refused = site.exchange(code, VERIFIER).await.is(400);
    assert_eq!(refused.body["error"], "invalid_request");
    let text = refused.body["error_description"].as_str().unwrap();
    assert!(text.starts_with("top level key \"sub\" not allowed"), "{text}");
    server.post(&entity, ROOT, json!({ "name": "harmless" })).await.ok();
    assert_eq!(site.exchange(code, VERIFIER).await.is(400).body["error"], "invalid_grant");
}

#[tokio::test]
async fn only_token_and_userinfo_take_the_authorization_header() {
    let site = Site::new().await;
    let unsealed = site.server.unsealed();
    let takes = |method: &str, path: &str| {
        let request = incoming(method, path, RequestOptions::default());
        takes_authorization(&unsealed.engines.mounts, request.operation, request.path.as_str())
    };
    assert!(takes("POST", "identity/oidc/provider/default/token"));
    assert!(takes("GET", "identity/oidc/provider/default/userinfo"));
    for path in ["identity/oidc/provider/default/authorize", "identity/oidc/introspect", "secret/data/a", "none"] {
        assert!(!takes("POST", path), "{path}");
    }
}

#[tokio::test]
async fn codes_beyond_the_bound_and_pages_of_expired_ones_are_deleted() {
    let site = Site::new().await;
    let unsealed = site.server.unsealed();
    let view = unsealed.engines.mounts.router().at(IDENTITY_MOUNT).unwrap().view.clone();
    let page = keepfast_framework::Page::all();
    let count = async |folder: &str| unsealed.barrier.begin_read().list(&view, folder, &page).await.unwrap().len();
    let add = async |number: usize| {
        let mut tx = unsealed.barrier.begin();
        for at in 0..number {
            tx.put(&view, &format!("oidc/code-of/{}/0000000001-{at}", site.entity), "{}".into());
            tx.put(&view, &format!("oidc/code/{at}"), "{}".into());
        }
        tx.commit().await.unwrap();
    };
    add(40).await;
    site.code().await;
    assert_eq!((count("oidc/code/").await, count(&format!("oidc/code-of/{}/", site.entity)).await), (32, 32));
    site.server.clock.advance(std::time::Duration::from_secs(301));
    add(1001).await;
    delete_expired_codes(&unsealed.barrier, &view, site.server.clock.now()).await.unwrap();
    assert_eq!((count("oidc/code/").await, count("oidc/code-of/").await), (0, 0));
}

#[tokio::test]
async fn codes_are_bounded_and_expired_ones_are_deleted() {
    let site = Site::new().await;
    let first = site.code().await;
    site.server.clock.advance(std::time::Duration::from_secs(1));
    let second = site.code().await;
    site.server.clock.advance(std::time::Duration::from_secs(1));
    for _ in 0..31 {
        site.code().await;
    }
    assert_eq!(site.exchange(&first, VERIFIER).await.status, 400, "the oldest of more than 32 is deleted");
    site.exchange(&second, VERIFIER).await.ok();
    let unsealed = site.server.unsealed();
    let view = unsealed.engines.mounts.router().at(IDENTITY_MOUNT).unwrap().view.clone();
    let page = keepfast_framework::Page::all();
    let count = async |folder: &str| unsealed.barrier.begin_read().list(&view, folder, &page).await.unwrap().len();
    assert_eq!(count("oidc/code/").await, 31);
    site.server.clock.advance(std::time::Duration::from_secs(301));
    delete_expired_codes(&unsealed.barrier, &view, site.server.clock.now()).await.unwrap();
    assert_eq!((count("oidc/code/").await, count("oidc/code-of/").await), (0, 0));
}

#[tokio::test]
async fn sec_an_access_token_may_call_userinfo_only() {
    let site = Site::new().await;
    let tokens = site.exchange(&site.code().await, VERIFIER).await.ok().body;
    let access_token = tokens["access_token"].as_str().unwrap();
    let claims = part(tokens["id_token"].as_str().unwrap(), 1);
    assert_eq!((&claims["sub"], &claims["aud"]), (&json!(site.entity), &json!(site.client_id)));
    assert_eq!((&claims["nonce"], &claims["namespace"]), (&json!("n"), &json!("root")));
    assert_eq!(site.userinfo(access_token).await.ok().body, json!({ "sub": site.entity }));
    // The entity's own policies allow this to its other tokens.
    site.server.post(&format!("identity/entity/id/{}", site.entity), ROOT, json!({ "policies": "oidc" })).await.ok();
    for path in ["auth/token/lookup-self", "cubbyhole/x", "secret/data/a", "identity/oidc/key/default"] {
        assert_eq!(site.server.get(path, access_token).await.status, 403, "{path}");
    }
    assert_eq!(site.server.post("auth/token/create", access_token, json!({})).await.status, 403);
    assert_eq!(site.userinfo(&site.user).await.is(401).body["error"], "invalid_token");
    site.server.delete("identity/oidc/client/app", ROOT).await.ok();
    assert_eq!(site.userinfo(access_token).await.is(403).body["error_description"], "client not found");
}

#[tokio::test]
async fn sec_a_claim_of_the_server_does_not_come_from_a_value() {
    let site = Site::new().await;
    site.key("a", 60, 120).await;
    let template = json!({ "template": "{ {{identity.entity.name}} : \"forged\" }" });
    site.server.post("identity/oidc/role/a", ROOT, template).await.ok();
    let entity = format!("identity/entity/id/{}", site.entity);
    site.server.post(&entity, ROOT, json!({ "name": "harmless" })).await.ok();
    assert_eq!(part(&site.token("a").await, 1)["harmless"], "forged");
    site.server.post(&entity, ROOT, json!({ "name": "sub" })).await.ok();
    assert_eq!(site.server.get("identity/oidc/token/a", &site.user).await.status, 400);
}

#[tokio::test]
async fn sec_canary_oidc() {
    let site = Site::new().await;
    let code = site.code().await;
    let tokens = site.exchange(&code, VERIFIER).await.ok().body;
    let (access, id) = (tokens["access_token"].as_str().unwrap(), tokens["id_token"].as_str().unwrap());
    site.userinfo(access).await.ok();
    site.server.get("identity/oidc/client/app", ROOT).await.ok();
    let unsealed = site.server.unsealed();
    let view = unsealed.engines.mounts.router().at(IDENTITY_MOUNT).unwrap().view.clone();
    let key = unsealed.barrier.begin_read().get(&view, "oidc/key/default").await.unwrap().unwrap();
    let key: Value = serde_json::from_slice(&key).unwrap();
    let private = |name: &str| key[name]["material"].as_str().unwrap().to_owned();
    let lists = site.server.list("identity/oidc/client/", ROOT).await.ok().body.to_string();
    let read = site.server.get("identity/oidc/key/default", ROOT).await.ok().body.to_string();
    let set = site.server.get("identity/oidc/provider/default/.well-known/keys", "").await.ok().body.to_string();
    let audit = site.server.audit("audit");
    assert!(audit.contains("identity/oidc/provider/default/token"));
    let secrets = [site.secret.clone(), private("current"), private("next"), code, VERIFIER.to_owned()];
    for secret in secrets.iter().map(String::as_str).chain([access, id]) {
        for (place, text) in [("audit", &audit), ("list", &lists), ("key", &read), ("key set", &set)] {
            assert!(!text.contains(&secret[..16.min(secret.len())]), "a secret is in the {place}");
        }
    }
}
