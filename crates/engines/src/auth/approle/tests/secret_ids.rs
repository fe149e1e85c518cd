//! Secret ids: issued within the limits of the role, looked up, destroyed.

use std::time::Duration;

use keepfast_framework::Operation;
use serde_json::{Value, json};

use super::{bench, login, refusal, register};

#[tokio::test]
async fn a_secret_id_gets_the_limits_of_its_role() {
    let bench = bench(&[("r", json!({ "secret_id_num_uses": 5, "secret_id_ttl": "1h" })), ("free", json!({}))]).await;
    let made = bench.write("role/r/secret-id", Value::Null).await.unwrap().data();
    assert_eq!((&made["secret_id_num_uses"], &made["secret_id_ttl"]), (&json!(5), &json!(3600)));
    let secret_id = made["secret_id"].as_str().unwrap();
    assert_eq!((secret_id.len(), made["secret_id_accessor"].as_str().unwrap().len()), (36, 36));
    let shown = bench.write("role/r/secret-id/lookup", json!({ "secret_id": secret_id })).await.unwrap().data();
    let expected = json!({
        "cidr_list": [], "creation_time": "2026-01-01T00:00:00Z", "expiration_time": "2026-01-01T01:00:00Z",
        "last_updated_time": "2026-01-01T00:00:00Z", "metadata": {}, "secret_id_accessor": made["secret_id_accessor"],
        "secret_id_num_uses": 5, "secret_id_ttl": 3600, "token_bound_cidrs": []
    });
    assert_eq!(shown, expected);
    let free = bench.write("role/free/secret-id", json!({})).await.unwrap().data();
    assert_eq!((&free["secret_id_num_uses"], &free["secret_id_ttl"]), (&json!(0), &json!(0)));
    let shown =
        bench.write("role/free/secret-id/lookup", json!({ "secret_id": free["secret_id"] })).await.unwrap().data();
    assert_eq!(shown["expiration_time"], "0001-01-01T00:00:00Z");
}

#[tokio::test]
async fn a_ttl_beyond_that_of_the_mount_is_reduced_but_returned_as_requested() {
    let bench = bench(&[("r", json!({ "secret_id_ttl": 100_000_000 }))]).await;
    let made = bench.write("role/r/custom-secret-id", json!({ "secret_id": "x" })).await.unwrap().data();
    assert_eq!(made["secret_id_ttl"], 2_764_800);
    let shown = bench.write("role/r/secret-id/lookup", json!({ "secret_id": "x" })).await.unwrap().data();
    assert_eq!(
        (&shown["secret_id_ttl"], &shown["expiration_time"]),
        (&json!(100_000_000), &json!("2026-02-02T00:00:00Z"))
    );
}

#[tokio::test]
async fn a_secret_id_cannot_exceed_the_limits_of_its_role() {
    let bounded = json!({ "secret_id_num_uses": 5, "secret_id_ttl": "1h", "token_bound_cidrs": "10.0.0.0/8,1.2.3.4", "secret_id_bound_cidrs": "127.0.0.0/8" });
    let bench =
        bench(&[("r", bounded), ("open", json!({ "bind_secret_id": false, "secret_id_bound_cidrs": "127.0.0.0/8" }))])
            .await;
    let subset = |role: &str, given: &str| {
        format!(
            "failed to verify subset relationship between CIDR blocks on the role [{role}] and CIDR blocks on the secret ID [{given}]"
        )
    };
    for (body, text) in [
        (json!({ "num_uses": 6 }), "num_uses cannot be higher than the role's secret_id_num_uses".to_owned()),
        (json!({ "num_uses": 0 }), "num_uses cannot be higher than the role's secret_id_num_uses".to_owned()),
        (json!({ "num_uses": -1 }), "num_uses cannot be negative".to_owned()),
        (json!({ "ttl": 7200 }), "ttl cannot be longer than the role's secret_id_ttl".to_owned()),
        (json!({ "ttl": 0 }), "ttl cannot be longer than the role's secret_id_ttl".to_owned()),
        (json!({ "ttl": -1 }), "Field validation failed: error converting input for field \"ttl\": cannot provide negative value '-1'".to_owned()),
        (json!({ "cidr_list": "10.0.0.0/8" }), subset("\"127.0.0.0/8\"", "\"10.0.0.0/8\"")),
        (json!({ "cidr_list": "127.0.0.1" }), "failed to validate CIDR blocks: invalid CIDR address: 127.0.0.1".to_owned()),
        (json!({ "token_bound_cidrs": "9.0.0.0/8" }), subset("\"10.0.0.0/8\" \"1.2.3.4\"", "\"9.0.0.0/8\"")),
        (json!({ "token_bound_cidrs": "zz" }), "failed to validate token CIDR blocks: invalid CIDR address: zz".to_owned()),
        (json!({ "metadata": "abc" }), "failed to parse metadata: failed to parse the input: invalid <key,value> format".to_owned()),
        (json!({ "metadata": { "a": "b" } }), "Field validation failed: error converting input for field \"metadata\": '' expected type 'string', got unconvertible type 'map[string]interface {}'".to_owned()),
    ] {
        assert_eq!(refusal(bench.write("role/r/secret-id", body.clone()).await), (400, text), "{body}");
    }
    assert_eq!(refusal(bench.list("role/r/secret-id").await).0, 404);
    for (role, path, body, expected) in [
        ("r", "custom-secret-id", json!({}), (400, "missing secret_id")),
        ("r", "custom-secret-id", json!({ "secret_id": "" }), (400, "missing secret_id")),
        ("open", "secret-id", json!({}), (400, "bind_secret_id is not set on the role")),
        ("NONE", "secret-id", json!({}), (404, "role \"none\" does not exist")),
        ("none", "custom-secret-id", json!({ "secret_id": "x" }), (404, "role \"none\" does not exist")),
    ] {
        assert_eq!(
            refusal(bench.write(&format!("role/{role}/{path}"), body).await),
            (expected.0, expected.1.to_owned())
        );
    }
    register(&bench, "r", "s", json!({ "num_uses": 5, "ttl": 3600, "cidr_list": "127.0.0.1/32", "token_bound_cidrs": "10.1.0.0/16,1.2.3.4/32" })).await;
}

#[tokio::test]
async fn a_custom_secret_id_is_unique_and_case_sensitive() {
    let bench = bench(&[("r", json!({})), ("q", json!({}))]).await;
    register(&bench, "r", "abc", json!({})).await;
    let again = bench.write("role/r/custom-secret-id", json!({ "secret_id": "abc" })).await;
    assert_eq!(refusal(again), (400, "failed to store secret_id: SecretID is already registered".into()));
    register(&bench, "r", "ABC", json!({})).await;
    register(&bench, "q", "abc", json!({})).await;
    bench.write("role/r/secret-id/destroy", json!({ "secret_id": "abc" })).await.unwrap();
    assert!(login(&bench, "r", "abc").await.is_err());
    login(&bench, "r", "ABC").await.unwrap();
    login(&bench, "q", "abc").await.unwrap();
    register(&bench, "r", "abc", json!({})).await;
}

#[tokio::test]
async fn secret_ids_are_looked_up_and_destroyed_by_id() {
    let bench = bench(&[("r", json!({}))]).await;
    register(&bench, "r", "s", json!({ "metadata": "a=b" })).await;
    for path in ["lookup", "destroy"] {
        for body in [json!({}), json!({ "secret_id": "" })] {
            assert_eq!(
                refusal(bench.write(&format!("role/r/secret-id/{path}"), body).await),
                (400, "missing secret_id".into())
            );
        }
        let none = bench.write(&format!("role/none/secret-id/{path}"), json!({ "secret_id": "s" })).await;
        assert_eq!(refusal(none), (404, "role \"none\" does not exist".into()));
        assert!(
            bench
                .write(&format!("role/r/secret-id/{path}"), json!({ "secret_id": "unknown" }))
                .await
                .unwrap()
                .outcome
                .is_empty()
        );
    }
    let shown = bench.write("role/r/secret-id/lookup", json!({ "secret_id": "s" })).await.unwrap().data();
    assert_eq!(shown["metadata"], json!({ "a": "b" }));
    bench.call(Operation::Delete, "role/r/secret-id/destroy", json!({ "secret_id": "s" })).await.unwrap();
    assert!(bench.write("role/r/secret-id/lookup", json!({ "secret_id": "s" })).await.unwrap().outcome.is_empty());
    assert_eq!(refusal(bench.list("role/r/secret-id").await).0, 404);
}

#[tokio::test]
async fn sec_au04_an_accessor_is_unknown_under_another_role() {
    let bench = bench(&[("a", json!({})), ("b", json!({}))]).await;
    let accessor = register(&bench, "b", "s", json!({})).await;
    let look = async |role: &str, accessor: &str| {
        let answer = bench
            .write(&format!("role/{role}/secret-id-accessor/lookup"), json!({ "secret_id_accessor": accessor }))
            .await
            .unwrap();
        (answer.status().map(|status| status.0), answer.data())
    };
    let unknown = |accessor: &str| {
        let error = format!("failed to find accessor entry for secret_id_accessor: {accessor:?}");
        (Some(404), json!({ "error": error }))
    };
    assert_eq!(look("b", &accessor).await.1["secret_id_accessor"], json!(accessor));
    assert_eq!(look("a", &accessor).await, unknown(&accessor));
    for other in ["zz", "../x", "a/b", "00000000-0000-4000-8000-000000000000"] {
        assert_eq!(look("a", other).await, unknown(other));
    }
    for operation in [Operation::Update, Operation::Delete] {
        for (role, accessor) in [("a", accessor.as_str()), ("a", "00000000-0000-4000-8000-000000000000"), ("b", "zz")] {
            let path = format!("role/{role}/secret-id-accessor/destroy");
            let refused = bench.call(operation, &path, json!({ "secret_id_accessor": accessor })).await;
            assert_eq!(refusal(refused), (403, "invalid secret id accessor".into()));
        }
    }
    login(&bench, "b", "s").await.unwrap();
    bench.write("role/b/secret-id-accessor/destroy", json!({ "secret_id_accessor": accessor })).await.unwrap();
    assert!(login(&bench, "b", "s").await.is_err());
    assert_eq!(look("b", &accessor).await, unknown(&accessor));
    for path in ["lookup", "destroy"] {
        let missing = bench.write(&format!("role/b/secret-id-accessor/{path}"), json!({})).await;
        assert_eq!(refusal(missing), (400, "missing secret_id_accessor".into()));
        let none =
            bench.write(&format!("role/none/secret-id-accessor/{path}"), json!({ "secret_id_accessor": "zz" })).await;
        assert_eq!(refusal(none), (404, "role \"none\" does not exist".into()));
    }
}

#[tokio::test]
async fn an_expired_secret_id_is_no_longer_found() {
    let bench = bench(&[("r", json!({}))]).await;
    let accessor = register(&bench, "r", "s", json!({ "ttl": 1 })).await;
    login(&bench, "r", "s").await.unwrap();
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(refusal(login(&bench, "r", "s").await), (400, "invalid role or secret ID".into()));
    assert!(bench.write("role/r/secret-id/lookup", json!({ "secret_id": "s" })).await.unwrap().outcome.is_empty());
    let by_accessor =
        bench.write("role/r/secret-id-accessor/lookup", json!({ "secret_id_accessor": accessor })).await.unwrap();
    assert_eq!(by_accessor.status().unwrap().0, 404);
}
