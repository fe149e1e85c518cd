//! What logins cost.
#![allow(clippy::disallowed_methods, reason = "a measurement reads the machine's clock")]

use std::time::Instant;

use keepfast_crypto::random;
use serde_json::json;

use super::{bench, login, register};

/// Nanoseconds, half of the logins took longer.
fn median(mut sample: Vec<u128>) -> f64 {
    sample.sort_unstable();
    sample[sample.len() / 2] as f64
}

#[tokio::test]
async fn sec_au02_every_refusal_reads_as_much() {
    let bench = bench(&[
        ("known", json!({})),
        ("open", json!({ "bind_secret_id": false, "secret_id_bound_cidrs": "10.0.0.0/8" })),
    ])
    .await;
    register(&bench, "known", "right", json!({})).await;
    login(&bench, "known", "right").await.unwrap();
    let cost = async |role, secret_id| {
        let before = bench.storage_use();
        assert!(login(&bench, role, secret_id).await.is_err());
        let after = bench.storage_use();
        (after.0 - before.0, after.1 - before.1)
    };
    assert!(login(&bench, "open", "wrong").await.is_err());
    for role in ["known", "unknown", "open"] {
        assert_eq!(cost(role, "wrong").await, (2, 0), "{role}");
        assert_eq!(cost(role, "").await, (1, 0), "{role}");
    }
}

#[tokio::test]
async fn a_login_without_a_limit_of_uses_writes_nothing_and_reads_what_is_cached() {
    let bench = bench(&[("r", json!({}))]).await;
    register(&bench, "r", "s", json!({})).await;
    login(&bench, "r", "s").await.unwrap();
    let before = bench.storage_use();
    login(&bench, "r", "s").await.unwrap();
    assert_eq!(bench.storage_use(), before);
}

#[tokio::test]
#[ignore = "a measurement, to be run alone"]
async fn sec_au02_an_unknown_role_id_costs_what_a_wrong_secret_id_costs() {
    let bench = bench(&[("known", json!({}))]).await;
    register(&bench, "known", "right", json!({})).await;
    login(&bench, "known", "right").await.unwrap();
    let mut samples: [Vec<u128>; 2] = Default::default();
    while samples.iter().any(|sample| sample.len() < 4_000) {
        // In random order, so that a busy machine is unfair to neither.
        for coin in random::bytes::<64>() {
            let (class, role) = if coin & 1 == 0 { (0, "known") } else { (1, "other") };
            let begun = Instant::now();
            assert!(login(&bench, role, "wrong").await.is_err());
            samples[class].push(begun.elapsed().as_nanos());
        }
    }
    // One hash or one read more would be 10 % and more.
    let [known, unknown] = samples.map(median);
    assert!((known / unknown - 1.0).abs() < 0.05, "{known} against {unknown} ns");
}
