//! Token roles after the creation of a token: they bound its renewals, and grant no reserved policy.

use serde_json::{Value, json};

use crate::tests::fixture::{House, ROOT};

#[tokio::test]
async fn a_token_is_not_renewed_without_its_role() {
    let house = House::new().await;
    house.post("auth/token/roles/r", ROOT, json!({ "token_period": "1h", "allowed_policies": "default" })).await.ok();
    let made = house.post("auth/token/create/r", ROOT, json!({})).await.ok();
    house.delete("auth/token/roles/r", ROOT).await.is(204);
    let refused =
        "1 error occurred:\n\t* failed to renew entry: original token role \"r\" could not be found, not renewing\n\n";
    let token = made.token();
    for (form, by, body) in [
        ("renew-self", token.as_str(), json!({})),
        ("renew", ROOT, json!({ "token": token })),
        ("renew-accessor", ROOT, json!({ "accessor": made.accessor() })),
    ] {
        assert_eq!(house.post(&format!("auth/token/{form}"), by, body).await.is(500).error(), refused, "{form}");
    }
    assert!(house.accepts(&token).await);
    house.post("auth/token/roles/r", ROOT, json!({ "allowed_policies": "default" })).await.ok();
    house.post("auth/token/renew-self", &token, json!({})).await.ok();
    house.delete("auth/token/roles/r", ROOT).await.is(204);
    house.pass(3600).await;
    assert!(!house.accepts(&token).await);
}

#[tokio::test]
async fn a_renewal_uses_the_current_period_of_the_role() {
    let house = House::new().await;
    for (requested, current, given) in [
        (json!({}), "2h", 7200),
        (json!({}), "10m", 600),
        // No longer periodic: the TTL is that of the creation.
        (json!({}), "0", 3600),
        (json!({ "period": "30m" }), "2h", 1800),
        (json!({ "period": "30m" }), "10m", 600),
    ] {
        house.post("auth/token/roles/r", ROOT, json!({ "token_period": "1h" })).await.ok();
        let mut body = requested.clone();
        body["policies"] = json!(["default"]);
        let token = house.post("auth/token/create/r", ROOT, body).await.ok().token();
        house.post("auth/token/roles/r", ROOT, json!({ "token_period": current })).await.ok();
        let renewed = house.post("auth/token/renew-self", &token, json!({})).await.ok();
        assert_eq!(renewed.body["auth"]["lease_duration"], given, "{requested} {current}");
    }
}

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
