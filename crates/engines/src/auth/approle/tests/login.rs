//! Logins: their tokens, their refusals and the count of uses.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use keepfast_framework::input::{Body, Input};
use keepfast_framework::reply::Login;
use keepfast_framework::testing::{Bench, BenchResponse};
use keepfast_framework::token_params::TokenKind;
use keepfast_framework::{Operation, Result};
use serde_json::{Value, json};

use super::{bench, login, refusal, register};

const REFUSED: &str = "invalid role or secret ID";

fn given(answer: Result<BenchResponse>) -> Login {
    answer.unwrap().login.unwrap()
}

#[tokio::test]
async fn a_login_has_the_terms_of_the_role_and_the_secret_id() {
    let role = json!({ "token_policies": "B,a,a", "token_ttl": 60, "token_max_ttl": 120, "token_num_uses": 3, "token_bound_cidrs": "10.0.0.0/8", "token_type": "service" });
    let bench = bench(&[("R", role)]).await;
    register(
        &bench,
        "r",
        "s",
        json!({ "metadata": r#"{"role_name":"evil","u":"v"}"#, "token_bound_cidrs": "10.1.0.0/16" }),
    )
    .await;
    let login = given(bench.write("login", json!({ "role_id": "R-id", "secret_id": "s" })).await);
    assert_eq!(login.policies, ["a", "b"]);
    assert_eq!(json!(login.metadata), json!({ "role_name": "r", "u": "v" }));
    let alias = login.alias.unwrap();
    assert_eq!((alias.name.as_str(), json!(alias.metadata)), ("R-id", json!(login.metadata)));
    assert_eq!(login.internal, json!({ "role_name": "r" }));
    let terms = login.terms;
    assert_eq!((terms.ttl, terms.max_ttl, terms.num_uses), (Duration::from_secs(60), Duration::from_secs(120), 3));
    assert_eq!((terms.kind, terms.renewable), (TokenKind::Service, true));
    assert_eq!(terms.bound_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.0.0/16"]);
}

#[tokio::test]
async fn sec_au03_every_refusal_has_the_same_text() {
    let mut bench = bench(&[
        ("r", json!({})),
        ("narrow", json!({ "secret_id_bound_cidrs": "10.0.0.0/8" })),
        ("open", json!({ "bind_secret_id": false, "secret_id_bound_cidrs": "10.0.0.0/8" })),
        ("gone", json!({})),
    ])
    .await;
    bench.remote = "127.0.0.1".parse::<IpAddr>().ok();
    for (role, secret_id, more) in [
        ("r", "elsewhere", json!({ "cidr_list": "10.0.0.0/8" })),
        ("r", "expired", json!({ "ttl": 1 })),
        ("r", "used", json!({ "num_uses": 1 })),
        ("narrow", "s", json!({})),
        ("gone", "s", json!({})),
    ] {
        register(&bench, role, secret_id, more).await;
    }
    login(&bench, "r", "used").await.unwrap();
    login(&bench, "gone", "s").await.unwrap();
    bench.delete("role/gone").await.unwrap();
    bench.clock.advance(Duration::from_secs(2));
    for (role, secret_id) in [
        ("unknown", "s"),
        ("r", "wrong"),
        ("r", "elsewhere"),
        ("r", "expired"),
        ("r", "used"),
        ("narrow", "s"),
        ("open", "s"),
        ("gone", "s"),
        ("r", "../x"),
    ] {
        assert_eq!(refusal(login(&bench, role, secret_id).await), (400, REFUSED.into()), "{role} {secret_id}");
    }
    for role in ["unknown", "r", "open", "gone"] {
        for body in
            [json!({ "role_id": format!("{role}-id") }), json!({ "role_id": format!("{role}-id"), "secret_id": " " })]
        {
            assert_eq!(refusal(bench.write("login", body).await), (400, "missing secret_id".into()), "{role}");
        }
    }
    for body in [json!({}), json!({ "role_id": " " }), json!({ "secret_id": "x" })] {
        assert_eq!(refusal(bench.write("login", body).await), (400, "missing role_id".into()));
    }
}

#[tokio::test]
async fn a_login_is_checked_against_the_networks_of_role_and_secret_id() {
    let mut bench = bench(&[
        ("narrow", json!({ "secret_id_bound_cidrs": "10.0.0.0/8,::1/128" })),
        ("open", json!({ "bind_secret_id": false, "secret_id_bound_cidrs": "10.0.0.0/8" })),
        ("tokens", json!({ "bind_secret_id": false, "token_bound_cidrs": "10.0.0.0/8" })),
    ])
    .await;
    register(&bench, "narrow", "s", json!({})).await;
    register(&bench, "narrow", "one", json!({ "cidr_list": "10.0.0.1/32" })).await;
    for (remote, whole, one) in
        [("10.0.0.1", true, true), ("10.0.0.2", true, false), ("::1", true, false), ("11.0.0.1", false, false)]
    {
        bench.remote = remote.parse::<IpAddr>().ok();
        assert_eq!(login(&bench, "narrow", "s").await.is_ok(), whole, "{remote}");
        assert_eq!(login(&bench, "narrow", "one").await.is_ok(), one, "{remote}");
        assert_eq!(login(&bench, "open", "").await.is_ok(), remote.starts_with("10."), "{remote}");
        // Networks of tokens bind the token, not the login.
        assert_eq!(given(login(&bench, "tokens", "any").await).terms.bound_cidrs.len(), 1, "{remote}");
    }
    bench.remote = None;
    assert!(login(&bench, "narrow", "s").await.is_err());
    // Narrowing a role leaves secret ids with wider networks, which are refused.
    bench.remote = "10.0.0.1".parse::<IpAddr>().ok();
    bench.write("role/narrow", json!({ "secret_id_bound_cidrs": "10.0.0.0/30" })).await.unwrap();
    login(&bench, "narrow", "one").await.unwrap();
    bench
        .write(
            "role/narrow",
            json!({ "secret_id_bound_cidrs": "10.0.0.0/32,10.0.0.1/32", "token_bound_cidrs": "9.0.0.0/8" }),
        )
        .await
        .unwrap();
    login(&bench, "narrow", "one").await.unwrap();
    register(&bench, "narrow", "t", json!({ "token_bound_cidrs": "9.1.0.0/16" })).await;
    login(&bench, "narrow", "t").await.unwrap();
    bench.write("role/narrow", json!({ "token_bound_cidrs": "9.2.0.0/16" })).await.unwrap();
    assert!(login(&bench, "narrow", "t").await.is_err());
}

#[tokio::test]
async fn the_last_use_deletes_the_secret_id() {
    let bench = bench(&[("r", json!({ "secret_id_num_uses": 2, "secret_id_ttl": 3600 }))]).await;
    register(&bench, "r", "s", json!({})).await;
    bench.clock.advance(Duration::from_secs(5));
    login(&bench, "r", "s").await.unwrap();
    let shown = bench.write("role/r/secret-id/lookup", json!({ "secret_id": "s" })).await.unwrap().data();
    assert_eq!(
        (&shown["secret_id_num_uses"], &shown["last_updated_time"]),
        (&json!(1), &json!("2026-01-01T00:00:05Z"))
    );
    login(&bench, "r", "s").await.unwrap();
    assert_eq!(refusal(login(&bench, "r", "s").await), (400, REFUSED.into()));
    assert!(bench.write("role/r/secret-id/lookup", json!({ "secret_id": "s" })).await.unwrap().outcome.is_empty());
    assert_eq!(refusal(bench.list("role/r/secret-id").await).0, 404);
}

/// How many of 200 concurrent logins succeed.
async fn parallel(bench: &Arc<Bench>, secret_id: &'static str) -> usize {
    let one = || {
        let bench = bench.clone();
        tokio::spawn(async move { login(&bench, "r", secret_id).await.is_ok() })
    };
    let logins: Vec<_> = (0..200).map(|_| one()).collect();
    let mut succeeded = 0;
    for login in logins {
        succeeded += usize::from(login.await.unwrap());
    }
    succeeded
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_tl05_ten_of_200_parallel_logins_succeed_with_ten_uses() {
    let bench = Arc::new(bench(&[("r", json!({ "secret_id_num_uses": 10 }))]).await);
    register(&bench, "r", "s", json!({})).await;
    assert_eq!(parallel(&bench, "s").await, 10);
    assert!(bench.write("role/r/secret-id/lookup", json!({ "secret_id": "s" })).await.unwrap().outcome.is_empty());
    assert_eq!(refusal(bench.list("role/r/secret-id").await).0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_parallel_login_within_the_uses_succeeds() {
    let bench = Arc::new(bench(&[("r", json!({}))]).await);
    register(&bench, "r", "many", json!({ "num_uses": 201 })).await;
    register(&bench, "r", "any", json!({})).await;
    assert_eq!(parallel(&bench, "many").await, 200);
    let left = bench.write("role/r/secret-id/lookup", json!({ "secret_id": "many" })).await.unwrap().data();
    assert_eq!(left["secret_id_num_uses"], 1);
    assert_eq!(parallel(&bench, "any").await, 200);
}

#[tokio::test]
async fn logins_with_a_use_limited_secret_id_are_serialized() {
    let bench = bench(&[("r", json!({}))]).await;
    register(&bench, "r", "s", json!({ "num_uses": 3 })).await;
    login(&bench, "r", "s").await.unwrap();
    let found = bench.table().find(Operation::Update, "login").unwrap();
    let body = json!({ "role_id": "r-id", "secret_id": "s" }).to_string();
    let input = Input { body: Body::parse(body.into()).unwrap(), ..Input::default() };
    let ((engine, mut first), (_, mut second), (_, mut third)) =
        (bench.engine_and_cx(), bench.engine_and_cx(), bench.engine_and_cx());
    engine.call(found.row, Operation::Update, &mut first, &input).await.unwrap();
    let mut waiting = engine.call(found.row, Operation::Update, &mut second, &input);
    assert!((&mut waiting).now_or_never().is_none());
    drop(first);
    assert!(waiting.await.is_ok(), "the first was not committed");
    let waiting = engine.call(found.row, Operation::Update, &mut third, &input);
    second.commit().await.unwrap();
    assert!(waiting.await.is_ok());
    third.commit().await.unwrap();
    assert!(login(&bench, "r", "s").await.is_err());
}

#[tokio::test]
async fn sec_ns02_policies_are_stored_as_written_and_issued_in_canonical_form() {
    let bench = bench(&[]).await;
    for (written, kept, asked) in [
        ("Root", json!(["Root"]), json!(["root"])),
        (" root", json!(["root"]), json!(["root"])),
        ("ROOT ", json!(["ROOT"]), json!(["root"])),
        ("default,rOOt", json!(["default", "rOOt"]), json!(["default", "root"])),
        ("ｒｏｏｔ", json!(["ｒｏｏｔ"]), json!(["ｒｏｏｔ"])),
        ("root\u{0}", json!(["root\u{0}"]), json!(["root\u{0}"])),
        ("ro\u{131}t", json!(["ro\u{131}t"]), json!(["ro\u{131}t"])),
    ] {
        bench.write("role/r", json!({ "role_id": "r-id", "token_policies": written })).await.unwrap();
        assert_eq!(bench.read("role/r").await.unwrap().data()["token_policies"], kept);
        let made = bench.write("role/r/secret-id", json!({})).await.unwrap().data();
        // Core refuses the policy `root` from every auth method; no other name may fold to it there.
        let login = given(login(&bench, "r", made["secret_id"].as_str().unwrap()).await);
        assert_eq!(json!(login.policies), asked, "{written:?}");
    }
}

#[tokio::test]
async fn the_next_login_uses_the_changed_or_recreated_role() {
    let bench = bench(&[("r", json!({ "token_ttl": 60 }))]).await;
    register(&bench, "r", "s", json!({})).await;
    assert_eq!(given(login(&bench, "r", "s").await).terms.ttl, Duration::from_secs(60));
    bench.write("role/r/token-ttl", json!({ "token_ttl": 70 })).await.unwrap();
    assert_eq!(given(login(&bench, "r", "s").await).terms.ttl, Duration::from_secs(70));
    bench.write("role/r", json!({ "bind_secret_id": false, "token_bound_cidrs": "10.0.0.0/8" })).await.unwrap();
    given(login(&bench, "r", "").await);
    bench.delete("role/r").await.unwrap();
    assert!(login(&bench, "r", "s").await.is_err());
    bench.write("role/r", json!({ "role_id": "r-id" })).await.unwrap();
    assert!(login(&bench, "r", "s").await.is_err());
}

#[tokio::test]
async fn a_refused_change_of_a_role_does_not_affect_logins() {
    let bench = bench(&[("r", json!({})), ("q", json!({}))]).await;
    register(&bench, "r", "s", json!({})).await;
    login(&bench, "r", "s").await.unwrap();
    assert!(bench.write("role/r", json!({ "token_ttl": 9, "role_id": "q-id" })).await.is_err());
    assert_eq!(given(login(&bench, "r", "s").await).terms.ttl, Duration::ZERO);
}

#[tokio::test]
async fn a_renewal_gets_the_current_terms_of_the_role_or_is_refused() {
    let bench = bench(&[("r", json!({ "token_ttl": 60 }))]).await;
    register(&bench, "r", "s", json!({})).await;
    let internal = given(login(&bench, "r", "s").await).internal;
    bench.write("role/r", json!({ "token_ttl": 50, "token_period": 70 })).await.unwrap();
    let (engine, mut cx) = bench.engine_and_cx();
    let terms = engine.renew_login(&mut cx, &internal).await.unwrap();
    assert_eq!((terms.ttl, terms.period), (Duration::from_secs(50), Duration::from_secs(70)));
    bench.delete("role/r").await.unwrap();
    let (engine, mut cx) = bench.engine_and_cx();
    let refused = engine.renew_login(&mut cx, &internal).await.err().unwrap();
    assert_eq!((refused.status().0, refused.public()), (400, "role \"r\" does not exist during renewal"));
    assert!(engine.renew_login(&mut cx, &Value::Null).await.is_err());
}

#[tokio::test]
async fn login_needs_no_token_and_accepts_only_writes() {
    let bench = bench(&[]).await;
    let found = bench.table().find(Operation::Update, "login").unwrap();
    assert_eq!(bench.table().rows()[found.row].access, keepfast_framework::routes::Access::Unauthenticated);
    assert_eq!(
        bench.table().rows().iter().filter(|r| r.access == keepfast_framework::routes::Access::Unauthenticated).count(),
        1
    );
    assert_eq!(refusal(bench.read("login").await).0, 405);
}
