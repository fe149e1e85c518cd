//! Login MFA in namespaces: enforcements bind in their namespace and below, and ids count in their own only.

use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, RequestOptions, TestResponse, TestServer};
use crate::tests::mfa::code;

async fn call(server: &TestServer, namespace: &str, token: &str, path: &str, body: Value) -> TestResponse {
    let (namespace, body) = (namespace.to_owned(), Some(body.to_string()));
    let token = (!token.is_empty()).then(|| token.to_owned());
    server.send("POST", path, RequestOptions { token, namespace, body, ..RequestOptions::default() }).await
}

/// A server with the namespaces `a` and `b`, and a user in each and in root.
async fn with_namespaces() -> TestServer {
    let server = TestServer::new().await;
    for name in ["a", "b"] {
        call(&server, "", ROOT, &format!("sys/namespaces/{name}"), json!({})).await.ok();
    }
    for namespace in ["", "a", "b"] {
        call(&server, namespace, ROOT, "sys/auth/up", json!({ "type": "userpass" })).await.ok();
        call(&server, namespace, ROOT, "auth/up/users/anna", json!({ "password": "p" })).await.ok();
    }
    server
}

async fn log_in(server: &TestServer, namespace: &str) -> Value {
    call(server, namespace, "", "auth/up/login/anna", json!({ "password": "p" })).await.ok().body["auth"].clone()
}

/// Creates a method and an enforcement for all logins of userpass. Returns the id of the method.
async fn enforce(server: &TestServer, namespace: &str) -> String {
    let method = call(server, namespace, ROOT, "identity/mfa/method/totp", json!({ "issuer": "I" })).await.ok();
    let id = method.data()["method_id"].as_str().unwrap().to_owned();
    let body = json!({ "mfa_method_ids": [id], "auth_method_types": ["userpass"] });
    call(server, namespace, ROOT, "identity/mfa/login-enforcement/all", body).await.ok();
    id
}

#[tokio::test]
async fn an_enforcement_binds_in_its_namespace_and_below() {
    let server = with_namespaces().await;
    let entity = log_in(&server, "a").await["entity_id"].clone();
    let own = enforce(&server, "a").await;
    assert_eq!(log_in(&server, "a").await["client_token"], "");
    for other in ["", "b"] {
        assert_ne!(log_in(&server, other).await["client_token"], "", "{other}");
    }
    let above = enforce(&server, "").await;
    for namespace in ["", "b"] {
        assert_eq!(log_in(&server, namespace).await["client_token"], "", "{namespace}");
    }
    let requirement = log_in(&server, "a").await["mfa_requirement"].clone();
    assert_eq!(requirement["mfa_constraints"].as_object().unwrap().len(), 2, "{requirement}");
    let mut payload = json!({});
    for method in [&own, &above] {
        let body = json!({ "method_id": method, "entity_id": entity });
        let generated = call(&server, "a", ROOT, "identity/mfa/method/totp/admin-generate", body).await.ok();
        payload[method] = json!([code(&server, generated.data()["url"].as_str().unwrap(), 0)]);
    }
    let body = json!({ "mfa_request_id": requirement["mfa_request_id"], "mfa_payload": payload });
    for other in ["", "b"] {
        let unknown = call(&server, other, "", "sys/mfa/validate", body.clone()).await.is(400);
        assert_eq!(unknown.error(), "invalid request ID", "{other}");
    }
    let login = call(&server, "a", "", "sys/mfa/validate", body).await.ok();
    let namespace = "a".to_owned();
    let lookup = RequestOptions { token: Some(login.token()), namespace, ..RequestOptions::default() };
    server.send("GET", "auth/token/lookup-self", lookup).await.ok();
    // The method of a namespace is unknown above and beside it.
    for other in ["", "b"] {
        let body = json!({ "method_id": own, "entity_id": entity });
        call(&server, other, ROOT, "identity/mfa/method/totp/admin-generate", body).await.is(400);
    }
}
