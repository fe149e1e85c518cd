//! Which secret ids are removed, and when.

use std::time::Duration;

use keepfast_framework::testing::Bench;
use serde_json::json;

use super::{bench, login, refusal, register};

/// The names of all records below a prefix of the mount's view.
async fn stored(bench: &Bench, prefix: &str) -> Vec<String> {
    let (_, mut cx) = bench.engine_and_cx();
    let (tx, view) = cx.store();
    let mut out = Vec::new();
    let mut folders = vec![prefix.to_owned()];
    while let Some(folder) = folders.pop() {
        for name in tx.list(view, &folder, &keepfast_framework::Page::all()).await.unwrap() {
            let path = format!("{folder}{name}");
            if path.ends_with('/') { folders.push(path) } else { out.push(path) }
        }
    }
    out
}

/// The number of secret ids, accessors and expiry records.
async fn counts(bench: &Bench) -> (usize, usize, usize) {
    (
        stored(bench, "secret-id/").await.len(),
        stored(bench, "accessor/").await.len(),
        stored(bench, "expiry/").await.len(),
    )
}

#[tokio::test]
async fn a_tick_removes_only_expired_secret_ids() {
    let bench = bench(&[("r", json!({}))]).await;
    for (secret_id, ttl) in [("a", 10), ("b", 20), ("c", 3_000), ("d", 0)] {
        register(&bench, "r", secret_id, json!({ "ttl": ttl })).await;
    }
    assert_eq!(counts(&bench).await, (4, 4, 3));
    bench.tick_after(Duration::from_secs(9)).await.unwrap();
    assert_eq!(counts(&bench).await, (4, 4, 3));
    bench.tick_after(Duration::from_secs(11)).await.unwrap();
    assert_eq!(counts(&bench).await, (2, 2, 1));
    for secret_id in ["c", "d"] {
        login(&bench, "r", secret_id).await.unwrap();
    }
    bench.tick_after(Duration::from_secs(1_000_000)).await.unwrap();
    assert_eq!(counts(&bench).await, (1, 1, 0));
    login(&bench, "r", "d").await.unwrap();
}

#[tokio::test]
async fn one_tick_removes_many_pages_of_expired_secret_ids() {
    let bench = bench(&[("r", json!({}))]).await;
    for _ in 0..1_203 {
        bench.write("role/r/secret-id", json!({ "ttl": 10 })).await.unwrap();
    }
    bench.tick_after(Duration::from_secs(10)).await.unwrap();
    assert_eq!(counts(&bench).await, (0, 0, 0));
}

#[tokio::test]
async fn tidy_returns_202_with_a_warning_and_removes_expired_secret_ids() {
    let bench = bench(&[("r", json!({}))]).await;
    register(&bench, "r", "a", json!({ "ttl": 10 })).await;
    register(&bench, "r", "b", json!({})).await;
    bench.clock.advance(Duration::from_secs(10));
    let answer = bench.write("tidy/secret-id", json!({})).await.unwrap();
    assert_eq!(answer.status().map(|s| s.0), Some(202));
    assert!(answer.warnings[0].starts_with("Tidy operation successfully started."));
    assert_eq!(counts(&bench).await, (1, 1, 0));
    assert_eq!(refusal(bench.read("tidy/secret-id").await).0, 405);
}

#[tokio::test]
async fn destroyed_and_used_secret_ids_leave_no_records() {
    let bench = bench(&[("r", json!({}))]).await;
    register(&bench, "r", "a", json!({ "ttl": 10 })).await;
    let accessor = register(&bench, "r", "b", json!({ "ttl": 10 })).await;
    register(&bench, "r", "c", json!({ "ttl": 10, "num_uses": 1 })).await;
    bench.write("role/r/secret-id/destroy", json!({ "secret_id": "a" })).await.unwrap();
    bench.write("role/r/secret-id-accessor/destroy", json!({ "secret_id_accessor": accessor })).await.unwrap();
    login(&bench, "r", "c").await.unwrap();
    assert_eq!(counts(&bench).await, (0, 0, 0));
    // A secret id that is registered again does not expire with the destroyed one.
    register(&bench, "r", "a", json!({ "ttl": 100 })).await;
    bench.tick_after(Duration::from_secs(50)).await.unwrap();
    login(&bench, "r", "a").await.unwrap();
}

#[tokio::test]
async fn secret_ids_are_removed_with_their_role_but_not_with_an_earlier_one() {
    let bench = bench(&[("r", json!({})), ("q", json!({}))]).await;
    for _ in 0..1_001 {
        bench.write("role/r/secret-id", json!({ "ttl": 1000 })).await.unwrap();
    }
    register(&bench, "q", "s", json!({})).await;
    bench.delete("role/r").await.unwrap();
    bench.write("role/r", json!({ "role_id": "r-id" })).await.unwrap();
    register(&bench, "r", "new", json!({})).await;
    bench.tick_after(Duration::from_secs(60)).await.unwrap();
    assert_eq!(counts(&bench).await, (2, 2, 0));
    assert!(stored(&bench, "doomed/").await.is_empty());
    login(&bench, "q", "s").await.unwrap();
    login(&bench, "r", "new").await.unwrap();
}

#[tokio::test]
async fn names_of_records_contain_no_role_id_or_secret_id() {
    let bench = bench(&[("r", json!({}))]).await;
    let made = bench.write("role/r/secret-id", json!({ "ttl": 10 })).await.unwrap().data();
    let names = stored(&bench, "").await.join("\n");
    assert!(!names.contains("r-id") && !names.contains(made["secret_id"].as_str().unwrap()), "{names}");
}
