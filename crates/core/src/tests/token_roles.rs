//! Token roles: the bounds of their tokens at creation and renewal; they grant no reserved policy.

use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, RequestOptions, TestServer};

#[tokio::test]
async fn a_role_bounds_its_tokens() {
    let server = TestServer::new().await;
    server.post("auth/token/roles/r", ROOT, json!({
        "allowed_policies": "a,b", "disallowed_policies": "c", "orphan": true, "renewable": false, "path_suffix": "suffix",
        "token_period": "30m", "token_num_uses": 3, "token_bound_cidrs": "10.0.0.0/8",
    })).await.ok();
    assert_eq!(server.list("auth/token/roles", ROOT).await.ok().data()["keys"], json!(["r"]));
    let made = server.post("auth/token/create/r", ROOT, json!({ "policies": ["a"] })).await.ok();
    let auth = &made.body["auth"];
    assert_eq!(
        (&auth["orphan"], &auth["renewable"], &auth["num_uses"], &auth["lease_duration"]),
        (&json!(true), &json!(false), &json!(3), &json!(1800))
    );
    let shown = server.post("auth/token/lookup", ROOT, json!({ "token": made.token() })).await.ok();
    assert_eq!((&shown.data()["path"], &shown.data()["role"]), (&json!("auth/token/create/r/suffix"), &json!("r")));
    server.post("auth/token/create/r", ROOT, json!({ "policies": ["c"] })).await.is(400);
    server.post("auth/token/create/r", ROOT, json!({ "policies": ["z"] })).await.is(400);
    // Bound to an address: not from here, and a refused use is not counted.
    server.get("auth/token/lookup-self", &made.token()).await.is(403);
    let inside =
        RequestOptions { token: Some(made.token()), remote: "10.1.2.3:4".parse().ok(), ..RequestOptions::default() };
    assert_eq!(server.send("GET", "auth/token/lookup-self", inside.clone()).await.ok().data()["num_uses"], 2);
    server.send("GET", "auth/token/lookup-self", inside.clone()).await.ok();
    server.send("GET", "auth/token/lookup-self", inside.clone()).await.ok();
    server.send("GET", "auth/token/lookup-self", inside).await.is(403);
    server.delete("auth/token/roles/r", ROOT).await.is(204);
    server.get("auth/token/roles/r", ROOT).await.is(404);
}

#[tokio::test]
async fn a_token_is_not_renewed_without_its_role() {
    let server = TestServer::new().await;
    server.post("auth/token/roles/r", ROOT, json!({ "token_period": "1h", "allowed_policies": "default" })).await.ok();
    let made = server.post("auth/token/create/r", ROOT, json!({})).await.ok();
    server.delete("auth/token/roles/r", ROOT).await.is(204);
    let refused =
        "1 error occurred:\n\t* failed to renew entry: original token role \"r\" could not be found, not renewing\n\n";
    let token = made.token();
    for (form, by, body) in [
        ("renew-self", token.as_str(), json!({})),
        ("renew", ROOT, json!({ "token": token })),
        ("renew-accessor", ROOT, json!({ "accessor": made.accessor() })),
    ] {
        assert_eq!(server.post(&format!("auth/token/{form}"), by, body).await.is(500).error(), refused, "{form}");
    }
    assert!(server.accepts(&token).await);
    server.post("auth/token/roles/r", ROOT, json!({ "allowed_policies": "default" })).await.ok();
    server.post("auth/token/renew-self", &token, json!({})).await.ok();
    server.delete("auth/token/roles/r", ROOT).await.is(204);
    server.pass(3600).await;
    assert!(!server.accepts(&token).await);
}

#[tokio::test]
async fn a_renewal_uses_the_current_period_of_the_role() {
    let server = TestServer::new().await;
    for (requested, current, given) in [
        (json!({}), "2h", 7200),
        (json!({}), "10m", 600),
        // No longer periodic: the TTL is that of the creation.
        (json!({}), "0", 3600),
        (json!({ "period": "30m" }), "2h", 1800),
        (json!({ "period": "30m" }), "10m", 600),
    ] {
        server.post("auth/token/roles/r", ROOT, json!({ "token_period": "1h" })).await.ok();
        let mut body = requested.clone();
        body["policies"] = json!(["default"]);
        let token = server.post("auth/token/create/r", ROOT, body).await.ok().token();
        server.post("auth/token/roles/r", ROOT, json!({ "token_period": current })).await.ok();
        let renewed = server.post("auth/token/renew-self", &token, json!({})).await.ok();
        assert_eq!(renewed.body["auth"]["lease_duration"], given, "{requested} {current}");
    }
}

#[tokio::test]
async fn only_wrapping_tokens_have_the_policy_response_wrapping() {
    let server = TestServer::new().await;
    let refused = "cannot assign policy \"response-wrapping\"";
    server.post("auth/token/roles/listed", ROOT, json!({ "allowed_policies": "response-wrapping" })).await.ok();
    server.post("auth/token/roles/globbed", ROOT, json!({ "allowed_policies_glob": "resp*" })).await.ok();
    for name in ["response-wrapping", "Response-Wrapping", " response-wrapping "] {
        for (path, kind) in [
            ("create", "service"),
            ("create", "batch"),
            ("create-orphan", "service"),
            ("create/listed", "service"),
            ("create/globbed", "service"),
        ] {
            let body = json!({ "policies": [name], "type": kind, "no_default_policy": true });
            let answer = server.post(&format!("auth/token/{path}"), ROOT, body).await.is(400);
            assert_eq!(answer.error(), refused, "{path} {kind} {name:?}");
        }
    }
    assert_eq!(server.post("auth/token/create/listed", ROOT, json!({})).await.is(400).error(), refused);
    server.post("sys/auth/userpass", ROOT, json!({ "type": "userpass" })).await.ok();
    let user = json!({ "password": "long-enough-1", "token_policies": ["response-wrapping"] });
    server.post("auth/userpass/users/u", ROOT, user).await.ok();
    let login = server.post("auth/userpass/login/u", "", json!({ "password": "long-enough-1" })).await.is(400);
    assert_eq!((login.error(), &login.body["auth"]), (refused, &Value::Null));
    server.wrapped("POST", "sys/wrapping/wrap", ROOT, json!({ "k": "v" }), 60).await.ok().wrapping();
}
