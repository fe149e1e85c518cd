//! MFA methods, secrets and login enforcements.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::background::tidy_mfa;
use crate::tests::fixture::{ROOT, TestResponse, TestServer};
use crate::tests::identity::{logged_in, server};
use crate::tests::mfa::{Site, enrolled, method};
use crate::tests::tokens::stored;

const TOTP: &str = "identity/mfa/method/totp";
const ENFORCEMENT: &str = "identity/mfa/login-enforcement";
const UNKNOWN: &str = "11111111-2222-3333-4444-555555555555";

async fn generate(server: &TestServer, how: &str, body: Value) -> TestResponse {
    server.post(&format!("{TOTP}/{how}"), ROOT, body).await
}

#[tokio::test]
async fn a_method_is_written_read_listed_and_deleted() {
    let server = TestServer::new().await;
    server.list("identity/mfa/method", ROOT).await.is(404);
    let id = method(&server, json!({ "issuer": "I", "max_validation_attempts": 0, "period": "1m" })).await;
    let expected = json!({
        "algorithm": "SHA1", "digits": 6, "id": id, "issuer": "I", "key_size": 20, "max_validation_attempts": 5, "name": "",
        "namespace_id": "root", "namespace_path": "", "period": 60, "qr_size": 200, "skew": 1, "type": "totp",
    });
    for path in ["identity/mfa/method", TOTP] {
        assert_eq!(*server.get(&format!("{path}/{id}"), ROOT).await.ok().data(), expected);
        let list = server.list(path, ROOT).await.ok();
        assert_eq!(*list.data(), json!({ "keys": [id], "key_info": { &id: expected } }));
        assert_eq!(server.get(path, ROOT).await.is(400).error(), "missing method ID");
        server.get(&format!("{path}/{UNKNOWN}"), ROOT).await.is(404);
        assert!(server.get(&format!("{path}/nope"), ROOT).await.is(404).error().contains("unsupported path"));
    }
    let path = format!("{TOTP}/{id}");
    server.post(&path, ROOT, json!({ "digits": 8 })).await.is(400);
    server.post(&path, ROOT, json!({ "issuer": "J", "digits": 8, "method_name": "n" })).await.is(204);
    assert_eq!(server.get(&path, ROOT).await.ok().data()["digits"], 8);
    server.post(&path, ROOT, json!({ "issuer": "J" })).await.is(204);
    let kept = server.get(&path, ROOT).await.ok();
    assert_eq!((&kept.data()["digits"], &kept.data()["name"]), (&json!(6), &json!("n")));
    // A name leads to one method, exactly.
    let taken = server.post(TOTP, ROOT, json!({ "issuer": "K", "method_name": "n" })).await.is(400);
    assert!(taken.error().ends_with("with the method name n already exists"));
    method(&server, json!({ "issuer": "K", "method_name": "N" })).await;
    server.post(&format!("{TOTP}/{UNKNOWN}"), ROOT, json!({ "issuer": "K" })).await.is(404);
    server.delete(&path, ROOT).await.is(204);
    server.get(&path, ROOT).await.is(404);
    server.delete(&path, ROOT).await.is(204);
    method(&server, json!({ "issuer": "K", "method_name": "n" })).await;
}

#[tokio::test]
async fn settings_out_of_range_are_refused() {
    let server = TestServer::new().await;
    for (settings, why) in [
        (json!({}), "issuer must be set"),
        (json!({ "algorithm": "sha1" }), "unrecognized algorithm"),
        (json!({ "digits": 7 }), "digits can only be 6 or 8"),
        (json!({ "period": 0 }), "period must be greater than zero"),
        (json!({ "skew": 2 }), "skew must be 0 or 1"),
        (json!({ "key_size": 0 }), "key_size must be greater than zero"),
        (json!({ "max_validation_attempts": -1 }), "max_validation_attempts must be greater than zero"),
        (json!({ "key_size": 257 }), "key_size is out of range"),
        (json!({ "period": 3601 }), "period is out of range"),
        (json!({ "qr_size": 1001 }), "qr_size is out of range"),
        (json!({ "qr_size": -1 }), "qr_size is out of range"),
        (json!({ "issuer": "x".repeat(257) }), "issuer is out of range"),
        (json!({ "qr_size": 20 }), "a QR code of this secret needs a qr_size of at least 49"),
    ] {
        let mut body = json!({ "issuer": "I" });
        body.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        if settings == json!({}) {
            body = json!({});
        }
        assert_eq!(server.post(TOTP, ROOT, body).await.is(400).error(), why, "{settings}");
    }
    // The largest ones still fit into a QR code.
    let largest = json!({ "issuer": "ä".repeat(128), "key_size": 256, "qr_size": 1000, "period": 3600, "digits": 8 });
    let id = method(&server, largest).await;
    let entity = server.post("identity/entity", ROOT, json!({})).await.ok().data()["id"].as_str().unwrap().to_owned();
    enrolled(&server, &id, &entity).await;
}

#[tokio::test]
async fn a_secret_is_returned_once() {
    let server = server().await;
    let id = method(&server, json!({ "issuer": "My Corp&Co", "method_name": "phone" })).await;
    let (_, entity) = logged_in(&server, "anna").await;
    server.policy("own", &format!("path \"{TOTP}/generate\" {{ capabilities = [\"update\"] }}")).await;
    server.post("auth/up/users/anna", ROOT, json!({ "password": "p", "token_policies": "own" })).await.ok();
    let (token, _) = logged_in(&server, "anna").await;
    let own = server.post(&format!("{TOTP}/generate"), &token, json!({ "method_id": id })).await.ok();
    let url = own.data()["url"].as_str().unwrap();
    let start = format!(
        "otpauth://totp/My%20Corp%26Co:{entity}?algorithm=SHA1&digits=6&issuer=My%20Corp%26Co&period=30&secret="
    );
    assert!(url.strip_prefix(&start).is_some_and(|secret| secret.len() == 32), "{url}");
    let image = STANDARD.decode(own.data()["barcode"].as_str().unwrap()).unwrap();
    assert_eq!(image[..8], [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a]);
    let again = [
        server.post(&format!("{TOTP}/generate"), &token, json!({ "method_id": id })).await,
        generate(&server, "admin-generate", json!({ "method_id": id, "entity_id": entity })).await,
    ];
    for again in again {
        assert!(again.ok().body["warnings"][0] == "Entity already has a secret for MFA method \"phone\"");
    }
    // Another one only after an operator has deleted it.
    generate(&server, "admin-destroy", json!({ "method_id": id, "entity_id": entity })).await.is(204);
    generate(&server, "admin-destroy", json!({ "method_id": id, "entity_id": entity })).await.is(204);
    assert_ne!(enrolled(&server, &id, &entity).await, url);
    let read = server.get(&format!("identity/entity/id/{entity}"), ROOT).await.ok();
    assert!(!read.body.to_string().contains("secret"), "{read:?}");
}

#[tokio::test]
async fn a_secret_needs_a_method_and_an_entity() {
    let server = server().await;
    let id = method(&server, json!({ "issuer": "I", "qr_size": 0 })).await;
    let (_, entity) = logged_in(&server, "anna").await;
    assert_eq!(generate(&server, "generate", json!({ "method_id": id })).await.is(400).error(), "missing entityID");
    for how in ["generate", "admin-generate", "admin-destroy"] {
        assert_eq!(generate(&server, how, json!({})).await.is(400).error(), "missing method ID");
    }
    for how in ["admin-generate", "admin-destroy"] {
        let refused = |body: Value| generate(&server, how, body);
        assert!(refused(json!({ "method_id": id })).await.is(400).error().starts_with("missing entity"));
        let unknown = refused(json!({ "method_id": UNKNOWN, "entity_id": entity })).await.is(400);
        assert_eq!(unknown.error(), format!("configuration for method ID \"{UNKNOWN}\" does not exist"));
        assert_eq!(refused(json!({ "method_id": id, "entity_id": "x" })).await.is(400).error(), "invalid entity ID");
    }
    let generated = generate(&server, "admin-generate", json!({ "method_id": id, "entity_id": entity })).await.ok();
    assert_eq!(generated.data()["barcode"], "");
}

#[tokio::test]
async fn secrets_end_with_their_entity_and_their_method() {
    let server = server().await;
    let (first, second) =
        (method(&server, json!({ "issuer": "A" })).await, method(&server, json!({ "issuer": "B" })).await);
    let (_, anna) = logged_in(&server, "anna").await;
    let (_, bert) = logged_in(&server, "bert").await;
    for (method, entity) in [(&first, &anna), (&second, &anna), (&first, &bert)] {
        enrolled(&server, method, entity).await;
    }
    server.delete(&format!("identity/entity/id/{bert}"), ROOT).await.ok();
    assert_eq!(stored(&server, "identity/mfa/secret/").await.len(), 2);
    server.delete(&format!("{TOTP}/{second}"), ROOT).await.ok();
    let now = keepfast_framework::Clock::now(&server.clock);
    tidy_mfa(&server.unsealed(), now).await;
    let left = stored(&server, "identity/mfa/").await;
    assert_eq!(left.len(), 3, "the method, its secret, and who has it: {left:?}");
    assert!(left.contains(&format!("identity/mfa/secret/{anna}/{first}")));
}

#[tokio::test]
async fn a_merge_moves_secrets_and_refuses_clashes() {
    let server = server().await;
    let id = method(&server, json!({ "issuer": "A" })).await;
    let entity = async |name: &str| {
        server.post("identity/entity", ROOT, json!({ "name": name })).await.ok().data()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (a, b, c) = (entity("a").await, entity("b").await, entity("c").await);
    for entity in [&a, &b] {
        enrolled(&server, &id, entity).await;
    }
    let merge = |from: &str, to: &str, force: bool| {
        server.post(
            "identity/entity/merge",
            ROOT,
            json!({ "from_entity_ids": [from], "to_entity_id": to, "force": force }),
        )
    };
    let clash = merge(&a, &b, false).await.is(400);
    assert_eq!(clash.error(), format!("conflicting MFA config ID {id:?} in entity ID {a:?}"));
    merge(&a, &b, true).await.ok();
    merge(&b, &c, false).await.ok();
    let path = format!("identity/mfa/secret/{c}/{id}");
    assert_eq!(stored(&server, "identity/mfa/secret/").await, [path]);
}

#[tokio::test]
async fn an_enforcement_is_written_read_listed_and_deleted() {
    let site = Site::new().await;
    let (server, path) = (&site.server, format!("{ENFORCEMENT}/all"));
    let before = server.get(&path, ROOT).await.ok();
    let expected = json!({
        "auth_method_accessors": [site.accessor], "auth_method_types": [], "id": before.data()["id"],
        "identity_entity_ids": [], "identity_group_ids": [], "mfa_method_ids": [site.method], "name": "all",
        "namespace_id": "root", "namespace_path": "",
    });
    assert_eq!(*before.data(), expected);
    let list = server.list(ENFORCEMENT, ROOT).await.ok();
    assert_eq!(*list.data(), json!({ "keys": ["all"], "key_info": { "all": expected } }));
    // A change keeps the lists that it lacks.
    let method = &site.method;
    let more = json!({ "mfa_method_ids": [method, method], "identity_entity_ids": [site.entity] });
    server.post(&path, ROOT, more).await.is(204);
    let changed = server.get(&path, ROOT).await.ok();
    assert_eq!(changed.data()["auth_method_accessors"], json!([site.accessor]));
    assert_eq!((&changed.data()["mfa_method_ids"], &changed.data()["id"]), (&json!([method]), &expected["id"]));
    for (body, why) in [
        (json!({ "auth_method_types": ["userpass"] }), "missing method ids"),
        (json!({ "mfa_method_ids": [] }), "missing method ids"),
        (json!({ "mfa_method_ids": ["x"] }), "one of the provided method ids doesn't exist"),
        (json!({ "auth_method_accessors": ["x"] }), "one of the auth method accessors provided is invalid"),
        (json!({ "auth_method_types": ["kv"] }), "one of the auth method types provided is invalid"),
        (json!({ "identity_group_ids": ["x"] }), "one of the provided group ids doesn't exist"),
        (json!({ "identity_entity_ids": ["x"] }), "one of the provided entity ids doesn't exist"),
        (
            json!({ "auth_method_accessors": [], "identity_entity_ids": [] }),
            "One of auth_method_accessors, auth_method_types, identity_group_ids, identity_entity_ids must be specified",
        ),
    ] {
        let mut body = body;
        if why != "missing method ids" {
            body.as_object_mut().unwrap().entry("mfa_method_ids").or_insert(json!([method]));
        }
        assert_eq!(server.post(&path, ROOT, body).await.is(400).error(), why);
    }
    let used = server.delete(&format!("{TOTP}/{method}"), ROOT).await.is(400);
    assert!(used.error().starts_with("methodID is still used by an enforcement configuration with ID: "));
    server.delete(&path, ROOT).await.is(204);
    server.get(&path, ROOT).await.is(404);
    server.list(ENFORCEMENT, ROOT).await.is(404);
    server.delete(&format!("{TOTP}/{method}"), ROOT).await.is(204);
    assert!(stored(server, "identity/mfa/").await.iter().all(|path| !path.contains("enforcement")));
}
