//! Users without leases, with a real PostgreSQL.

use keepfast_framework::Operation;
use serde_json::{Value, json};

use super::{rig, user};

const ORPHAN: &str = "v-token-app-0123456789abcdefghij-1790000000";

#[tokio::test]
async fn sec_se06_users_without_a_lease_are_removed_and_no_others() {
    let Some((bench, server)) = rig().await else { return };
    let (kept, password) = user(&bench).await;
    for name in [ORPHAN, "v-worker", "v-token-app-short-1790000000", "x-token-app-0123456789abcdefghij-1790000000"] {
        server.admin(&format!("CREATE ROLE \"{name}\""));
    }
    server.admin(&format!("GRANT SELECT ON orders TO \"{ORPHAN}\""));
    assert_eq!(bench.read("reconcile/pg").await.unwrap().data(), json!({"usernames": [ORPHAN]}));
    for refused in [json!([]), json!([kept]), json!(["v-worker"]), json!([ORPHAN, "vault_admin"])] {
        let error = bench.write("reconcile/pg", json!({"usernames": refused})).await.err().unwrap();
        assert_eq!(error.status().0, 400);
    }
    let removed = bench.write("reconcile/pg", json!({"usernames": [ORPHAN]})).await.unwrap().data();
    assert_eq!(removed, json!({"removed": [ORPHAN]}));
    assert_eq!(bench.read("reconcile/pg").await.unwrap().data(), json!({"usernames": []}));
    let left = server.admin("SELECT count(*) FROM pg_roles WHERE rolname LIKE '_-%'");
    assert_eq!(
        (left.as_str(), server.sql("SELECT item FROM orders", &kept, &password).unwrap().as_str()),
        ("4", "tea")
    );
}

#[tokio::test]
async fn sec_se06_a_user_that_another_mount_has_leased_is_no_orphan() {
    let Some((bench, server)) = rig().await else { return };
    server.admin(&format!("CREATE ROLE \"{ORPHAN}\""));
    assert_eq!(bench.read("reconcile/pg").await.unwrap().data(), json!({"usernames": [ORPHAN]}));
    bench.lease_elsewhere(json!({"username": ORPHAN, "role": "other", "db_name": "elsewhere"}));
    assert_eq!(bench.read("reconcile/pg").await.unwrap().data(), json!({"usernames": []}));
    let refused = bench.write("reconcile/pg", json!({"usernames": [ORPHAN]})).await.err().unwrap();
    assert_eq!(refused.status().0, 400);
    assert_eq!(server.admin(&format!("SELECT count(*) FROM pg_roles WHERE rolname = '{ORPHAN}'")), "1");
}

#[tokio::test]
async fn a_user_that_is_being_created_is_never_listed() {
    let Some((bench, _server)) = rig().await else { return };
    let statements = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'";
    bench.write("roles/app", json!({"creation_statements": statements})).await.unwrap();
    let make = async {
        for _ in 0..5 {
            let made = (0..8).map(|_| bench.call(Operation::Read, "creds/app", Value::Null));
            for outcome in futures_util::future::join_all(made).await {
                outcome.unwrap();
            }
        }
    };
    let look = async {
        for _ in 0..40 {
            let listed = bench.read("reconcile/pg").await.unwrap().data();
            assert_eq!(listed, json!({"usernames": []}));
        }
    };
    tokio::join!(make, look);
}

#[tokio::test]
async fn users_without_a_distinctive_pattern_are_not_listed() {
    let Some((bench, _server)) = rig().await else { return };
    for template in ["{{random 20}}", "app-{{.RoleName}}"] {
        bench.write("config/pg", json!({"username_template": template})).await.unwrap();
        let error = bench.read("reconcile/pg").await.err().unwrap();
        assert!(error.status().0 == 400 && error.public().contains("username_template"), "{}", error.public());
    }
}
