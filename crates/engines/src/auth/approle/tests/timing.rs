//! The storage operations of a login.

use serde_json::json;

use super::{bench, login, register};

#[tokio::test]
async fn sec_au02_every_refusal_costs_the_same_reads() {
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
async fn a_login_without_use_limit_writes_nothing_and_reads_the_cached_role() {
    let bench = bench(&[("r", json!({}))]).await;
    register(&bench, "r", "s", json!({})).await;
    login(&bench, "r", "s").await.unwrap();
    let before = bench.storage_use();
    login(&bench, "r", "s").await.unwrap();
    assert_eq!(bench.storage_use(), before);
}
