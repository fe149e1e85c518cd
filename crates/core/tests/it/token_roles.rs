//! Token roles after the creation of a token: they bound its renewals, and grant no reserved policy.

use serde_json::{Value, json};

use crate::fixture::{House, ROOT};

#[tokio::test]
async fn only_wrapping_tokens_have_the_policy_response_wrapping() {
    let house = House::new().await;
    let refused = "cannot assign policy \"response-wrapping\"";
    house.post("auth/token/roles/listed", ROOT, json!({ "allowed_policies": "response-wrapping" })).await.ok();
    house.post("auth/token/roles/globbed", ROOT, json!({ "allowed_policies_glob": "resp*" })).await.ok();
    for name in ["response-wrapping", "Response-Wrapping", " response-wrapping "] {
        for (path, kind) in [
            ("create", "service"),
            ("create", "batch"),
            ("create-orphan", "service"),
            ("create/listed", "service"),
            ("create/globbed", "service"),
        ] {
            let body = json!({ "policies": [name], "type": kind, "no_default_policy": true });
            let answer = house.post(&format!("auth/token/{path}"), ROOT, body).await.is(400);
            assert_eq!(answer.error(), refused, "{path} {kind} {name:?}");
        }
    }
    assert_eq!(house.post("auth/token/create/listed", ROOT, json!({})).await.is(400).error(), refused);
    house.post("sys/auth/userpass", ROOT, json!({ "type": "userpass" })).await.ok();
    let user = json!({ "password": "long-enough-1", "token_policies": ["response-wrapping"] });
    house.post("auth/userpass/users/u", ROOT, user).await.ok();
    let login = house.post("auth/userpass/login/u", "", json!({ "password": "long-enough-1" })).await.is(400);
    assert_eq!((login.error(), &login.body["auth"]), (refused, &Value::Null));
    house.wrapped("POST", "sys/wrapping/wrap", ROOT, json!({ "k": "v" }), 60).await.ok().wrapping();
}
