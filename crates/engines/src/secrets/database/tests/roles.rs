//! The settings of a role for its leases, without a database.

use keepfast_framework::lease::BackOff;
use keepfast_framework::testing::Bench;
use serde_json::{Value, json};

use crate::secrets::database::DatabaseEngine;

const OWN: [&str; 3] = ["revocation_attempts", "revocation_backoff", "revocation_backoff_max"];

/// The backoff in the response of the role.
async fn shown(bench: &Bench) -> Vec<Value> {
    let data = bench.read("roles/app").await.unwrap().data();
    OWN.iter().map(|name| data.get(*name).cloned().unwrap_or(json!("absent"))).collect()
}

/// An engine with a connection to a port without a server, and a role.
async fn rig() -> Bench {
    let bench = Bench::new::<DatabaseEngine>().await.unwrap();
    let config = json!({"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "verify_connection": false,
        "connection_url": "postgresql://{{username}}:{{password}}@127.0.0.1:1/postgres?sslmode=disable", "username": "a", "password": "b"});
    bench.write("config/pg", config).await.unwrap();
    bench.write("roles/app", json!({"db_name": "pg", "creation_statements": "x", "default_ttl": "1h"})).await.unwrap();
    bench
}

#[tokio::test]
async fn the_backoff_of_a_role_has_limits_and_is_returned_if_set() {
    let bench = rig().await;
    assert_eq!(shown(&bench).await, ["absent"; 3]);
    for (given, now) in [
        (json!({"revocation_attempts": "3"}), [json!(3), json!("absent"), json!("absent")]),
        (json!({"revocation_backoff": "1m30s"}), [json!(3), json!(90), json!("absent")]),
        (json!({"revocation_backoff_max": 7200}), [json!(3), json!(90), json!(7200)]),
        (json!({"default_ttl": "2h"}), [json!(3), json!(90), json!(7200)]),
        (json!({"revocation_attempts": 0, "revocation_backoff": "0"}), [json!("absent"), json!("absent"), json!(7200)]),
        (
            json!({"revocation_backoff_max": 0, "revocation_attempts": 100}),
            [json!(100), json!("absent"), json!("absent")],
        ),
    ] {
        bench.write("roles/app", given).await.unwrap();
        assert_eq!(shown(&bench).await, now);
    }
    for (wrong, error) in [
        (json!({"revocation_attempts": 101}), "revocation_attempts must be between 1 and 100"),
        (json!({"revocation_attempts": -1}), "revocation_attempts must be between 1 and 100"),
        (json!({"revocation_backoff": "8d"}), "revocation_backoff must not be more than seven days"),
        (json!({"revocation_backoff_max": "169h"}), "revocation_backoff_max must not be more than seven days"),
        (json!({"revocation_backoff_max": 9}), "revocation_backoff_max must not be less than revocation_backoff"),
        (
            json!({"revocation_backoff": 61, "revocation_backoff_max": 60}),
            "revocation_backoff_max must not be less than revocation_backoff",
        ),
    ] {
        let refused = bench.write("roles/app", wrong).await.err().unwrap();
        assert_eq!((refused.status().0, refused.public()), (400, error));
    }
    assert_eq!(shown(&bench).await, [json!(100), json!("absent"), json!("absent")], "what is refused changes nothing");
}

#[tokio::test]
async fn a_lease_has_the_backoff_of_its_role() {
    let bench = rig().await;
    let mut offered = Vec::new();
    for given in [
        json!({}),
        json!({"revocation_attempts": 2}),
        json!({"revocation_backoff": "2h"}),
        json!({"revocation_attempts": 0, "revocation_backoff": "5s", "revocation_backoff_max": "1m"}),
    ] {
        bench.write("roles/app", given).await.unwrap();
        bench.read("creds/app").await.err().unwrap();
        offered.push(bench.offers().last().unwrap().back_off);
    }
    let of = |attempts, pause, longest| Some(BackOff { attempts, pause, longest });
    assert_eq!(offered, [None, of(2, 10, 3600), of(2, 7200, 7200), of(6, 5, 60)]);
}

#[tokio::test]
async fn a_creation_that_was_not_attempted_leaves_no_lease() {
    let bench = rig().await;
    for mut connection in [
        json!({"plugin_name": "postgresql-database-plugin"}),
        json!({"plugin_name": "mysql-database-plugin", "connection_url": "{{username}}:{{password}}@tcp(127.0.0.1:1)/"}),
        json!({"plugin_name": "redis-database-plugin", "host": "127.0.0.1", "port": 1, "connection_url": null}),
    ] {
        connection["verify_connection"] = json!(false);
        bench.write("config/pg", connection).await.unwrap();
        let refused = bench.read("creds/app").await.err().unwrap();
        assert!(refused.public().contains("connection refused"), "{}", refused.public());
    }
    assert_eq!((bench.offers().len(), bench.abandoned().len()), (3, 0));
}

#[tokio::test]
async fn a_reset_returns_whether_the_connection_works() {
    let error = rig().await.write("reset/pg", json!({})).await.err().unwrap();
    let words = "error verifying connection: failed to connect to `user=a database=postgres`";
    assert!(error.status().0 == 500 && error.public().contains(words), "{}", error.public());
}

#[tokio::test]
async fn the_administrator_of_a_connection_cannot_be_a_static_role() {
    let bench = rig().await;
    let role = |user: &str| json!({"db_name": "pg", "username": user, "rotation_period": "1h"});
    let refused = bench.write("static-roles/s", role("a")).await.err().unwrap();
    assert!(refused.status().0 == 400 && refused.public().contains("rotate-root/pg"), "{}", refused.public());
    // Another user gets as far as the database.
    assert!(bench.write("static-roles/s", role("b")).await.err().unwrap().public().contains("connection refused"));
}
