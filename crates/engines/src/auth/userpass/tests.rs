//! Userpass on a bench.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use keepfast_framework::testing::{Bench, BenchResponse};
use keepfast_framework::{Operation, Page, Result};
use serde_json::{Value, json};

use super::Userpass;

/// Hashes of `pw` and `new` with the lowest cost, for fast tests.
const PW: &str = "$2b$05$abcdefghijklmnopqrstuuHIrMEWpUCQe2YqFR3sXwQ75u4od..9q";
const NEW: &str = "$2b$05$abcdefghijklmnopqrstuuPwERFOEx0ltJDSJgU/SzJ23sOz5Pmpi";

async fn bench() -> Bench {
    let bench = Bench::new::<Userpass>().await.unwrap();
    bench.write("users/bob", json!({"password_hash": PW, "token_policies": "B,a", "token_ttl": "1h"})).await.unwrap();
    bench
}

/// Status and text of a refusal.
fn refusal(result: Result<BenchResponse>) -> (u16, String) {
    let error = result.err().expect("a refusal");
    (error.status().0, error.public().to_owned())
}

async fn login(bench: &Bench, name: &str, password: &str) -> Result<BenchResponse> {
    bench.write(&format!("login/{name}"), json!({"password": password})).await
}

#[tokio::test]
async fn responses_match_openbao() {
    crate::openbao::compare(Bench::new::<Userpass>().await.unwrap(), include_str!("../../openbao/userpass.jsonl"))
        .await;
}

#[tokio::test]
async fn a_login_has_the_terms_of_the_user() {
    let bench = bench().await;
    let login = login(&bench, "bob", "pw").await.unwrap().login.unwrap();
    assert_eq!((login.display_name.as_str(), &login.policies), ("bob", &vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!((login.alias.unwrap().name.as_str(), login.terms.ttl.as_secs()), ("bob", 3600));
    assert_eq!(login.metadata["username"], "bob");
}

#[tokio::test]
async fn a_new_password_replaces_the_old_one() {
    let bench = bench().await;
    bench.write("users/bob/password", json!({"password_hash": NEW})).await.unwrap();
    assert_eq!(refusal(login(&bench, "bob", "pw").await).0, 400);
    assert!(login(&bench, "bob", "new").await.is_ok());
    bench.write("users/bob/password", json!({"password": "third"})).await.unwrap();
    assert_eq!(refusal(login(&bench, "bob", "new").await).0, 400);
    assert!(login(&bench, "bob", "third").await.is_ok());
    // Other changes keep the password.
    bench.write("users/bob", json!({"token_ttl": "2h"})).await.unwrap();
    assert!(login(&bench, "bob", "third").await.is_ok());
}

#[tokio::test]
async fn a_renewal_needs_the_user_with_the_same_policies() {
    let bench = bench().await;
    let login = login(&bench, "bob", "pw").await.unwrap().login.unwrap();
    bench.write("users/bob", json!({"token_ttl": "2h", "token_policies": "a,b"})).await.unwrap();
    let renew = async || {
        let (engine, mut cx) = bench.engine_and_cx();
        engine.renew_login(&mut cx, &login.internal).await
    };
    assert_eq!(renew().await.unwrap().ttl.as_secs(), 7200);
    bench.write("users/bob/policies", json!({"token_policies": "a"})).await.unwrap();
    assert_eq!(renew().await.err().unwrap().public(), "policies have changed, not renewing");
    bench.delete("users/bob").await.unwrap();
    assert_eq!(renew().await.err().unwrap().status().0, 400);
}

#[tokio::test]
async fn sec_kf14_outside_the_bound_networks_a_correct_password_is_refused() {
    let mut bench = bench().await;
    bench.write("users/bob", json!({"token_bound_cidrs": "10.0.0.0/8,::1"})).await.unwrap();
    for (remote, expected) in
        [(Some("10.1.2.3"), None), (Some("::1"), None), (Some("11.0.0.1"), Some(400)), (None, Some(400))]
    {
        bench.remote = remote.map(|ip| ip.parse().unwrap());
        assert_eq!(login(&bench, "bob", "pw").await.err().map(|e| e.status().0), expected, "{remote:?}");
        let wrong = refusal(login(&bench, "bob", "wrong").await);
        assert_eq!(wrong, (400, "invalid username or password".to_owned()));
        if expected.is_some() {
            assert_eq!(refusal(login(&bench, "bob", "pw").await), wrong);
        }
    }
}

#[tokio::test]
async fn sec_au01_every_spelling_of_a_name_is_the_same_user() {
    let bench = bench().await;
    for name in ["bob", "BOB", "Bob", "bOb"] {
        let login = login(&bench, name, "pw").await.unwrap().login.unwrap();
        assert_eq!(login.alias.unwrap().name, "bob");
        bench.write(&format!("users/{name}"), json!({"token_num_uses": 1})).await.unwrap();
    }
    assert_eq!(bench.list("users/").await.unwrap().data(), json!({"keys": ["bob"]}));
    for name in ["b\u{f6}b", "bob ", " bob", "bob.", "-bob", "b/ob", "bob\u{200b}", "b\u{131}b"] {
        assert_eq!(refusal(login(&bench, name, "pw").await).0, 404, "{name:?}");
    }
}

#[tokio::test]
async fn sec_au02_a_login_costs_the_same_for_unknown_and_known_names() {
    // A login costs the work of the highest cost in the mount; tests of `password::verify` check that it does that work
    // in every case.
    let bench = bench().await;
    let cost = async || {
        let (_, mut cx) = bench.engine_and_cx();
        super::user::login_cost(&mut cx).await.unwrap()
    };
    assert_eq!(cost().await, 10, "a cheaper hash does not make logins cheaper");
    let costly = "$2b$12$abcdefghijklmnopqrstuunYdhHrPrQsWwVD7FJZar2U048CuDd2m";
    bench.write("users/ann", json!({"password_hash": costly})).await.unwrap();
    assert_eq!(cost().await, 12);
    bench.delete("users/ann").await.unwrap();
    assert_eq!(cost().await, 12);
}

#[tokio::test]
async fn sec_au03_every_refused_login_has_the_same_text() {
    let bench = bench().await;
    let wrong = refusal(login(&bench, "bob", "wrong").await);
    assert_eq!(wrong, (400, "invalid username or password".to_owned()));
    assert_eq!(refusal(login(&bench, "nobody", "wrong").await), wrong);
    assert_eq!(refusal(login(&bench, "bob", &"w".repeat(73)).await), wrong);
    assert_eq!(refusal(login(&bench, "nobody", &"w".repeat(73)).await), wrong);
    assert_eq!(refusal(login(&bench, "bob", "").await), refusal(login(&bench, "nobody", "").await));
}

#[tokio::test]
async fn sec_se02_no_response_contains_a_password_or_a_hash() {
    let bench = bench().await;
    bench.write("users/ann", json!({"password": "canary-password"})).await.unwrap();
    for (operation, path) in
        [(Operation::Read, "users/bob"), (Operation::Read, "users/ann"), (Operation::List, "users/")]
    {
        let shown = bench.call(operation, path, Value::Null).await.unwrap().data().to_string();
        assert!(!shown.contains("canary") && !shown.contains("$2") && !shown.contains("hash"), "{path}: {shown}");
    }
    let (_, mut cx) = bench.engine_and_cx();
    let (tx, view) = cx.store();
    for name in tx.list(view, "user/", &Page::all()).await.unwrap() {
        let stored = tx.get(view, &format!("user/{name}")).await.unwrap().unwrap();
        assert!(!String::from_utf8(stored.to_vec()).unwrap().contains("canary"), "{name}");
    }
}
