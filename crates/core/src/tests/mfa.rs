//! Login MFA: what a login with an enforcement needs, once, on any node and after a restart.

use futures_util::future::join_all;
use keepfast_crypto::keys::digest::Hash;
use serde_json::{Value, json};

use crate::background::tidy_mfa;
use crate::tests::fixture::{ROOT, RequestOptions, TestResponse, TestServer};
use crate::tests::identity::{logged_in, server};
use crate::tests::tokens::stored;

/// A server whose user `anna` needs a code of one TOTP method, and has its secret.
pub(crate) struct Site {
    pub(crate) server: TestServer,
    pub(crate) method: String,
    pub(crate) entity: String,
    pub(crate) url: String,
    pub(crate) accessor: String,
}

impl Site {
    pub(crate) async fn new() -> Self {
        let server = server().await;
        let (_, entity) = logged_in(&server, "anna").await;
        let method = method(&server, json!({ "issuer": "Keepfast" })).await;
        let url = enrolled(&server, &method, &entity).await;
        let accessor = server.get("sys/auth/up", ROOT).await.ok().data()["accessor"].as_str().unwrap().to_owned();
        let site = Site { server, method, entity, url, accessor };
        site.enforce("all", json!({ "auth_method_accessors": [site.accessor] })).await;
        site
    }

    /// Writes an enforcement with the method and these conditions.
    async fn enforce(&self, name: &str, mut conditions: Value) {
        let methods = json!([self.method]);
        conditions.as_object_mut().unwrap().entry("mfa_method_ids").or_insert(methods);
        self.server.post(&format!("identity/mfa/login-enforcement/{name}"), ROOT, conditions).await.ok();
    }

    /// The code of the current time step, or of one after or before it.
    pub(crate) fn code(&self, offset: i64) -> String {
        code(&self.server, &self.url, offset)
    }

    async fn log_in(&self, name: &str, mfa: &[String]) -> TestResponse {
        let body = Some(json!({ "password": "p" }).to_string());
        let send = RequestOptions { body, mfa: mfa.to_vec(), ..RequestOptions::default() };
        self.server.send("POST", &format!("auth/up/login/{name}"), send).await
    }

    /// Logs anna in with this code in the header.
    async fn log_in_with(&self, code: &str) -> TestResponse {
        self.log_in("anna", &[format!("{}:{code}", self.method)]).await
    }

    /// The request id of a pending login of anna.
    async fn pending(&self) -> String {
        request_id(&self.log_in("anna", &[]).await.ok())
    }

    async fn validate(&self, request_id: &str, code: &str) -> TestResponse {
        self.validate_with(request_id, json!({ &self.method: [code] })).await
    }

    async fn validate_with(&self, request_id: &str, payload: Value) -> TestResponse {
        let body = json!({ "mfa_request_id": request_id, "mfa_payload": payload });
        self.server.post("sys/mfa/validate", "", body).await
    }
}

pub(crate) async fn method(server: &TestServer, parameters: Value) -> String {
    let created = server.post("identity/mfa/method/totp", ROOT, parameters).await.ok();
    created.data()["method_id"].as_str().unwrap().to_owned()
}

/// The URL of a new secret.
pub(crate) async fn enrolled(server: &TestServer, method: &str, entity: &str) -> String {
    let body = json!({ "method_id": method, "entity_id": entity });
    let generated = server.post("identity/mfa/method/totp/admin-generate", ROOT, body).await.ok();
    generated.data()["url"].as_str().unwrap().to_owned()
}

/// The code of a time step, from the URL that an authenticator gets.
pub(crate) fn code(server: &TestServer, url: &str, offset: i64) -> String {
    let parameter = |name: &str| {
        let (_, query) = url.split_once('?').unwrap();
        query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}="))).unwrap().to_owned()
    };
    let hash = match parameter("algorithm").as_str() {
        "SHA1" => Hash::Sha1,
        "SHA256" => Hash::Sha256,
        _ => Hash::Sha512,
    };
    let bits: String = parameter("secret")
        .chars()
        .map(|digit| format!("{:05b}", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".find(digit).unwrap()))
        .collect();
    let key: Vec<u8> =
        (0..bits.len() / 8).map(|at| u8::from_str_radix(&bits[8 * at..8 * at + 8], 2).unwrap()).collect();
    let period: i64 = parameter("period").parse().unwrap();
    let step = keepfast_framework::Clock::now(&server.clock).unix() / period + offset;
    let mac = hash.hmac(&key, &step.to_be_bytes());
    let at = usize::from(mac[mac.len() - 1] & 15);
    let number = u32::from_be_bytes(mac[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
    let digits: u32 = parameter("digits").parse().unwrap();
    format!("{:0width$}", number % 10_u32.pow(digits), width = digits as usize)
}

/// A code of six digits that is wrong now, before and after.
fn wrong(site: &Site) -> String {
    let right: Vec<String> = (-3..=3).map(|offset| site.code(offset)).collect();
    (0..).map(|number| format!("{number:06}")).find(|code| !right.contains(code)).unwrap()
}

/// The records of pending logins.
async fn waiting(server: &TestServer) -> Vec<String> {
    [stored(server, "identity/mfa/pending/").await, stored(server, "identity/mfa/pending-of/").await].concat()
}

fn request_id(response: &TestResponse) -> String {
    let auth = &response.body["auth"];
    assert_eq!(auth["client_token"], "", "{response:?}");
    auth["mfa_requirement"]["mfa_request_id"].as_str().unwrap_or_else(|| panic!("{response:?}")).to_owned()
}

#[tokio::test]
async fn a_login_gets_its_token_only_with_a_code() {
    let site = Site::new().await;
    let pending = site.log_in("anna", &[]).await.ok();
    let id = request_id(&pending);
    let any = json!([{ "type": "totp", "id": site.method, "uses_passcode": true }]);
    let requirement = json!({ "mfa_request_id": id, "mfa_constraints": { "all": { "any": any } } });
    let auth = json!({
        "client_token": "", "accessor": "", "policies": null, "metadata": null, "lease_duration": 0, "renewable": false,
        "entity_id": "", "token_type": "default", "orphan": false, "mfa_requirement": requirement, "num_uses": 0,
    });
    assert_eq!(pending.body["auth"], auth);
    assert!(pending.body["warnings"][0].as_str().unwrap().contains("subject to MFA validation"));
    assert_eq!(
        site.validate(&id, &wrong(&site)).await.is(403).error(),
        format!(
            "failed to satisfy enforcement all. error: 2 errors occurred:\n\t* MFA credentials not supplied or incorrect\n\t* \
             login MFA validation failed for methodID: [{}]\n\n",
            site.method
        )
    );
    let login = site.validate(&id, &site.code(0)).await.ok();
    assert_eq!(login.body["auth"]["metadata"], json!({ "username": "anna" }));
    assert_eq!(login.body["auth"]["entity_id"], site.entity);
    let lookup = site.server.get("auth/token/lookup-self", &login.token()).await.ok();
    assert_eq!(
        (&lookup.data()["display_name"], &lookup.data()["path"]),
        (&json!("up-anna"), &json!("auth/up/login/anna"))
    );
    site.server.post("auth/token/renew-self", &login.token(), json!({})).await.ok();
    // The first factor is checked first.
    let body = json!({ "password": "wrong" });
    assert_eq!(site.server.post("auth/up/login/anna", "", body).await.is(400).error(), "invalid username or password");
}

#[tokio::test]
async fn one_request_can_have_both_factors() {
    let site = Site::new().await;
    for mfa in [&format!("{}:{}", site.method, wrong(&site)), &site.method, "other:123456"] {
        assert_eq!(site.log_in("anna", &[mfa.to_owned()]).await.is(403).error(), "permission denied");
    }
    site.log_in_with(&site.code(0)).await.ok().token();
    let name = json!({ "issuer": "Keepfast", "method_name": "phone" });
    site.server.post(&format!("identity/mfa/method/totp/{}", site.method), ROOT, name).await.is(204);
    let by_name = format!("phone:passcode={}", site.code(1));
    site.log_in("anna", &["other:1".to_owned(), by_name]).await.ok().token();
    assert!(waiting(&site.server).await.is_empty());
}

#[tokio::test]
async fn sec_id05_totp_once() {
    let mut site = Site::new().await;
    let code = site.code(0);
    let wide: String = code.chars().map(|c| char::from_u32(u32::from(c) - 0x30 + 0xff10).unwrap()).collect();
    for other in [format!(" {code}"), format!("{code} "), format!("{code}\n"), format!("0{code}"), wide] {
        site.log_in_with(&other).await.is(403);
    }
    site.server.pass(30).await;
    let code = site.code(0);
    // At the same time, as header and as payload.
    let ids = join_all((0..4).map(|_| site.pending())).await;
    let logins = (0..50).map(|_| async { site.log_in_with(&code).await.status });
    let validations = ids.iter().map(|id| async { site.validate(id, &code).await.status });
    let statuses = [join_all(logins).await, join_all(validations).await].concat();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 403].contains(status)), "{statuses:?}");
    site.server.restarted().await;
    let again = site.pending().await;
    site.validate(&again, &code).await.is(403);
    site.log_in_with(&code).await.is(403);
    // A code of an earlier step is not accepted after a later one.
    site.server.pass(30).await;
    site.log_in_with(&site.code(1)).await.ok();
    site.log_in_with(&site.code(0)).await.is(403);
}

#[tokio::test]
async fn sec_id05_wrong_codes_are_limited_in_each_step() {
    let mut site = Site::new().await;
    let id = site.pending().await;
    for _ in 0..5 {
        assert!(site.validate(&id, &wrong(&site)).await.is(403).error().contains("not supplied or incorrect"));
    }
    let locked = site.validate(&id, &site.code(0)).await.is(403);
    assert!(
        locked.error().contains("maximum TOTP validation attempts 6 exceeded the allowed attempts 5"),
        "{locked:?}"
    );
    site.server.restarted().await;
    site.validate(&id, &site.code(0)).await.is(403);
    site.log_in_with(&site.code(0)).await.is(403);
    site.server.pass(30).await;
    // Four wrong codes and the right one; then the count begins again.
    for _ in 0..4 {
        site.validate(&id, &wrong(&site)).await.is(403);
    }
    site.validate(&id, &site.code(0)).await.ok().token();
    let id = site.pending().await;
    for _ in 0..4 {
        site.validate(&id, &wrong(&site)).await.is(403);
    }
    site.validate(&id, &site.code(1)).await.ok().token();
}

#[tokio::test]
async fn sec_id05_guesses_at_the_same_time_are_limited_too() {
    let site = Site::new().await;
    let ids = join_all((0..8).map(|_| site.pending())).await;
    let wrong = wrong(&site);
    let guesses = (0..40).map(|n| site.validate(&ids[n % 8], &wrong));
    let wrong_responses =
        join_all(guesses).await.iter().filter(|r| r.error().contains("not supplied or incorrect")).count();
    assert_eq!(wrong_responses, 5);
    site.validate(&ids[0], &site.code(0)).await.is(403);
}

#[tokio::test]
async fn sec_id06_restart() {
    let mut site = Site::new().await;
    for _ in 0..2 {
        site.server.restarted().await;
        request_id(&site.log_in("anna", &[]).await.ok());
        request_id(&site.log_in("bert", &[]).await.ok());
    }
    // Also the first login after it, with another enforcement than before.
    site.server.delete("identity/mfa/login-enforcement/all", ROOT).await.ok();
    site.server.restarted().await;
    site.log_in("anna", &[]).await.ok().token();
    site.enforce("later", json!({ "auth_method_types": ["userpass"] })).await;
    request_id(&site.log_in("anna", &[]).await.ok());
    site.server.delete("identity/mfa/login-enforcement/later", ROOT).await.ok();
    site.log_in("anna", &[]).await.ok().token();
}

#[tokio::test]
async fn sec_id06_rules_that_cannot_be_read_refuse_the_login() {
    for folder in ["enforcement/", "method/"] {
        let site = Site::new().await;
        let barrier = site.server.unsealed().barrier.clone();
        for path in stored(&site.server, "identity/mfa/").await.iter().filter(|path| path.contains(folder)) {
            let mut tx = barrier.begin();
            tx.put(&barrier.view(""), path, bytes::Bytes::from_static(b"{\"damaged\""));
            tx.commit().await.unwrap();
        }
        site.log_in("anna", &[]).await.is(500);
        site.log_in_with(&site.code(0)).await.is(500);
    }
}

#[tokio::test]
async fn pending_used_once() {
    let mut site = Site::new().await;
    let id = site.pending().await;
    site.server.restarted().await;
    // Two right codes at the same time: the login is completed once.
    let (first, second) = (site.code(0), site.code(1));
    let both = join_all([site.validate(&id, &first), site.validate(&id, &second)]).await;
    let mut statuses: Vec<u16> = both.iter().map(|response| response.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses[0], 200);
    assert!([400, 403].contains(&statuses[1]), "{both:?}");
    assert_eq!(site.validate(&id, &second).await.is(400).error(), "invalid request ID");
    for other in ["x", "00000000-0000-0000-0000-000000000000", &"a".repeat(5000)] {
        assert_eq!(site.validate(other, "123456").await.is(400).error(), "invalid request ID");
    }
    assert!(waiting(&site.server).await.is_empty());
}

#[tokio::test]
async fn pending_logins_expire_and_are_deleted() {
    let site = Site::new().await;
    let id = site.pending().await;
    site.server.pass(299).await;
    site.validate(&id, &wrong(&site)).await.is(403);
    tidy_mfa(&site.server.unsealed(), keepfast_framework::Clock::now(&site.server.clock)).await;
    assert_eq!(waiting(&site.server).await.len(), 2);
    site.server.pass(1).await;
    assert_eq!(site.validate(&id, &site.code(0)).await.is(400).error(), "invalid request ID");
    site.server.pass(1).await;
    tidy_mfa(&site.server.unsealed(), keepfast_framework::Clock::now(&site.server.clock)).await;
    assert!(waiting(&site.server).await.is_empty());
}

#[tokio::test]
async fn an_entity_has_at_most_eight_pending_logins() {
    let site = Site::new().await;
    let first = site.pending().await;
    site.server.pass(1).await;
    let mut last = String::new();
    for _ in 0..8 {
        last = site.pending().await;
    }
    assert_eq!(stored(&site.server, "identity/mfa/pending/").await.len(), 8);
    assert_eq!(site.validate(&first, &site.code(0)).await.is(400).error(), "invalid request ID");
    site.validate(&last, &site.code(0)).await.ok().token();
}

#[tokio::test]
async fn a_wrap_ttl_of_the_login_wraps_the_token() {
    let site = Site::new().await;
    let login = |mfa: Vec<String>| RequestOptions {
        body: Some(json!({ "password": "p" }).to_string()),
        wrap: Some(60),
        mfa,
        ..RequestOptions::default()
    };
    let pending = site.server.send("POST", "auth/up/login/anna", login(Vec::new())).await.ok();
    assert!(pending.body["wrap_info"].is_null());
    let wrapped = site.validate(&request_id(&pending), &site.code(0)).await.ok();
    assert!(wrapped.body["auth"].is_null() && wrapped.body["wrap_info"]["ttl"] == 60, "{wrapped:?}");
    assert!(wrapped.body["wrap_info"]["wrapped_accessor"].is_string());
    let inner = site.server.post("sys/wrapping/unwrap", &wrapped.wrapping(), json!({})).await.ok();
    assert!(site.server.accepts(&inner.token()).await);
    let at_once = vec![format!("{}:{}", site.method, site.code(1))];
    site.server.send("POST", "auth/up/login/anna", login(at_once)).await.ok().wrapping();
}

#[tokio::test]
async fn an_enforcement_binds_by_mount_type_entity_and_group() {
    let site = Site::new().await;
    site.server.delete("identity/mfa/login-enforcement/all", ROOT).await.ok();
    let server = &site.server;
    let (_, bert) = logged_in(server, "bert").await;
    let group = |name: &str, body: Value| {
        let path = format!("identity/group/name/{name}");
        async move {
            server.post(&path, ROOT, body).await.ok();
            server.get(&path, ROOT).await.ok().data()["id"].clone()
        }
    };
    let inner = group("inner", json!({ "member_entity_ids": [site.entity] })).await;
    let outer = group("outer", json!({ "member_group_ids": [inner] })).await;
    let others = group("others", json!({ "member_entity_ids": [bert] })).await;
    server.post("sys/auth/approle", ROOT, json!({ "type": "approle" })).await.ok();
    let approle = server.get("sys/auth/approle", ROOT).await.ok().data()["accessor"].clone();
    for (conditions, binds) in [
        (json!({ "auth_method_accessors": [site.accessor] }), true),
        (json!({ "auth_method_accessors": [approle] }), false),
        (json!({ "auth_method_types": ["userpass"] }), true),
        (json!({ "auth_method_types": ["approle", "token"] }), false),
        (json!({ "identity_entity_ids": [site.entity] }), true),
        (json!({ "identity_entity_ids": [bert] }), false),
        (json!({ "identity_group_ids": [inner] }), true),
        (json!({ "identity_group_ids": [outer] }), true),
        (json!({ "identity_group_ids": [others] }), false),
        // Any of the conditions is enough.
        (json!({ "identity_group_ids": [others], "auth_method_types": ["userpass"] }), true),
        (json!({ "identity_entity_ids": [site.entity], "auth_method_accessors": [approle] }), true),
    ] {
        site.enforce("one", conditions.clone()).await;
        let login = site.log_in("anna", &[]).await.ok();
        assert_eq!(login.body["auth"]["client_token"] == "", binds, "{conditions}");
        server.delete("identity/mfa/login-enforcement/one", ROOT).await.ok();
    }
    // An entity that was merged into another one stays bound.
    site.enforce("merged", json!({ "identity_entity_ids": [bert] })).await;
    let twin = server.post("identity/entity", ROOT, json!({ "name": "twin" })).await.ok().data()["id"].clone();
    let merge = json!({ "from_entity_ids": [bert], "to_entity_id": twin });
    server.post("identity/entity/merge", ROOT, merge).await.ok();
    request_id(&site.log_in("bert", &[]).await.ok());
}

#[tokio::test]
async fn a_login_needs_all_enforcements_and_one_method_of_each() {
    let site = Site::new().await;
    let second = method(&site.server, json!({ "issuer": "Second", "algorithm": "SHA256", "digits": 8 })).await;
    let third = method(&site.server, json!({ "issuer": "Third", "algorithm": "SHA512" })).await;
    let url = enrolled(&site.server, &second, &site.entity).await;
    let methods = json!([second, third]);
    site.enforce("both", json!({ "mfa_method_ids": methods, "auth_method_types": ["userpass"] })).await;
    site.enforce("again", json!({ "auth_method_types": ["userpass"] })).await;
    let id = site.pending().await;
    let (method, first) = (&site.method, site.code(0));
    let of_second = code(&site.server, &url, 0);
    for payload in
        [json!({ method: [first] }), json!({ &second: [of_second] }), json!({ &third: ["123456"], method: [first] })]
    {
        site.validate_with(&id, payload.clone()).await.is(403);
    }
    // A wrong code for one method neither hides the right one for another, nor counts more than once.
    let payload = json!({ &third: ["123456"], &second: [of_second], method: [first] });
    site.validate_with(&id, payload).await.ok().token();
    let url = enrolled(&site.server, &third, &site.entity).await;
    let id = site.pending().await;
    let right = code(&site.server, &url, 0);
    let payload = json!({ &second: ["00000000"], &third: [right], method: [site.code(1)] });
    site.validate_with(&id, payload).await.ok().token();
}

#[tokio::test]
async fn a_pending_login_is_checked_by_the_present_state() {
    let site = Site::new().await;
    let server = &site.server;
    let id = site.pending().await;
    let path = format!("identity/entity/id/{}", site.entity);
    server.post(&path, ROOT, json!({ "disabled": true })).await.ok();
    site.validate(&id, &site.code(0)).await.is(403);
    server.post(&path, ROOT, json!({ "disabled": false })).await.ok();
    // Another enforcement since then, with a method for which there is no secret.
    let other = method(server, json!({ "issuer": "Other" })).await;
    site.enforce("more", json!({ "mfa_method_ids": [other], "auth_method_types": ["userpass"] })).await;
    site.validate(&id, &site.code(0)).await.is(403);
    for name in ["more", "all"] {
        server.delete(&format!("identity/mfa/login-enforcement/{name}"), ROOT).await.ok();
    }
    assert!(site.validate(&id, &site.code(0)).await.is(400).error().contains("no longer subject to MFA"));
    site.enforce("all", json!({ "auth_method_types": ["userpass"] })).await;
    server.delete("sys/auth/up", ROOT).await.ok();
    assert_eq!(site.validate(&id, &site.code(0)).await.is(400).error(), "invalid request ID");
}

#[tokio::test]
async fn a_merged_entity_completes_its_login_with_the_moved_secret() {
    let site = Site::new().await;
    let id = site.pending().await;
    let other = site.server.post("identity/entity", ROOT, json!({ "name": "other" })).await.ok().data()["id"].clone();
    let merge = json!({ "from_entity_ids": [site.entity], "to_entity_id": other });
    site.server.post("identity/entity/merge", ROOT, merge).await.ok();
    let login = site.validate(&id, &site.code(0)).await.ok();
    assert_eq!(login.body["auth"]["entity_id"], other);
    site.log_in_with(&site.code(0)).await.is(403);
    site.log_in_with(&site.code(1)).await.ok().token();
}

#[tokio::test]
async fn batch_tokens_and_logins_without_a_secret_id_need_mfa_too() {
    let site = Site::new().await;
    site.enforce("approle", json!({ "auth_method_types": ["userpass"] })).await;
    let login = site.server.approle("a", json!({ "token_type": "batch" })).await.ok();
    let (entity, _) = (login.body["auth"]["entity_id"].as_str().unwrap().to_owned(), login.token());
    site.enforce("approle", json!({ "auth_method_types": ["approle"] })).await;
    let id = request_id(&site.server.approle("a", json!({ "token_type": "batch" })).await.ok());
    let url = enrolled(&site.server, &site.method, &entity).await;
    let login = site.validate(&id, &code(&site.server, &url, 0)).await.ok();
    assert_eq!(login.body["auth"]["token_type"], "batch");
    assert!(site.server.accepts(&login.token()).await);
}

#[tokio::test]
async fn audit_entries_have_no_code_and_no_secret() {
    let site = Site::new().await;
    let id = site.pending().await;
    let (first, second) = (site.code(0), site.code(1));
    site.validate(&id, &first).await.ok();
    site.log_in_with(&second).await.ok();
    site.server.post("sys/mfa/validate", "", json!({ "mfa_request_id": id, "mfa_payload": { "x": [second] } })).await;
    let audit = site.server.audit("audit");
    let secret = site.url.rsplit_once('=').unwrap().1;
    for text in [&first, &second, secret, &id, "otpauth", "iVBOR"] {
        assert!(!audit.contains(text), "{text}");
    }
    let of_validate: Vec<Value> =
        site.server.entries().into_iter().filter(|entry| entry["request"]["path"] == "sys/mfa/validate").collect();
    assert_eq!(of_validate.len(), 4);
    let payload = &of_validate[0]["request"]["data"]["mfa_payload"][&site.method][0];
    assert!(payload.as_str().unwrap().starts_with("hmac-sha256:"), "{payload}");
    assert_eq!(of_validate[1]["auth"]["display_name"], "up-anna");
}
