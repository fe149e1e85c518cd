//! Rotation of static roles with a real PostgreSQL: on time, on schedule, after failures, after an interruption.

use std::time::Duration;

use keepfast_framework::clock::{Clock, TestClock};
use keepfast_framework::testing::Bench;
use serde_json::{Value, json};

use super::super::DatabaseEngine;
use super::super::static_roles::STATIC_ROLES;
use super::{PostgresServer, can_log_in, rig};

/// A rig with a static role `w` of the user `worker`.
async fn worker(role: Value) -> Option<(Bench, PostgresServer)> {
    let (bench, server) = rig().await?;
    server.admin("CREATE ROLE worker LOGIN PASSWORD 'first'");
    bench.write("config/pg", json!({"allowed_roles": "*"})).await.unwrap();
    let mut role = role;
    role["db_name"] = "pg".into();
    role["username"] = "worker".into();
    bench.write("static-roles/w", role).await.unwrap();
    Some((bench, server))
}

async fn password(bench: &Bench) -> String {
    bench.read("static-creds/w").await.unwrap().data()["password"].as_str().unwrap().to_owned()
}

/// The state of a server that was killed when `next` was stored, before or after the database got it.
async fn cut_off(bench: &mut Bench, next: &str) {
    let (_, mut cx) = bench.engine_and_cx();
    let mut role = STATIC_ROLES.get(&mut cx, "w").await.unwrap().unwrap();
    role.pending = Some(next.to_owned());
    STATIC_ROLES.put(&mut cx, "w", &role).unwrap();
    cx.commit().await.unwrap();
    bench.remount::<DatabaseEngine>(&[]).await.unwrap();
}

#[tokio::test]
async fn a_static_password_is_never_lost_by_an_interrupted_rotation() {
    let Some((mut bench, server)) = worker(json!({"rotation_period": "1h"})).await else { return };
    for (is_sent, next) in [(false, "next-1"), (true, "next-2"), (false, "next-3"), (true, "next-4")] {
        let before = password(&bench).await;
        cut_off(&mut bench, next).await;
        if is_sent {
            server.admin(&format!("ALTER ROLE worker PASSWORD '{next}'"));
        }
        bench.tick_after(Duration::from_secs(1)).await.unwrap();
        let after = password(&bench).await;
        assert!(can_log_in(&server, "worker", &after).await);
        assert_ne!(after, before);
        assert_eq!(after, next, "what the database has may be on its way yet, so no third password is made");
    }
}

#[tokio::test]
async fn a_password_is_kept_until_it_can_be_checked() {
    let Some((mut bench, server)) = worker(json!({"rotation_period": "1h"})).await else { return };
    let known = password(&bench).await;
    cut_off(&mut bench, "in-question").await;
    let statements = |list: &[&str]| json!({"username": "worker", "rotation_statements": list});
    bench.write("static-roles/w", statements(&["ALTER NONSENSE"])).await.unwrap();
    assert!(bench.write("rotate-role/w", json!({})).await.is_err());
    assert!(bench.write("rotate-role/w", json!({})).await.is_err());
    let read = bench.read("static-creds/w").await.unwrap();
    assert_eq!((&read.data()["password"], &read.data()["pending_password"]), (&json!(known), &json!("in-question")));
    assert_eq!(read.warnings.len(), 1);
    bench.write("static-roles/w", statements(&[])).await.unwrap();
    bench.write("rotate-role/w", json!({})).await.unwrap();
    assert_eq!(password(&bench).await, "in-question", "the same password was tried again");
    assert!(can_log_in(&server, "worker", "in-question").await);
}

#[tokio::test]
async fn a_failed_rotation_is_retried_with_growing_pauses() {
    let Some((bench, server)) = worker(json!({"rotation_period": "1h"})).await else { return };
    let first = password(&bench).await;
    bench
        .write("static-roles/w", json!({"username": "worker", "rotation_statements": ["ALTER NONSENSE"]}))
        .await
        .unwrap();
    bench.tick_after(Duration::from_secs(3601)).await.unwrap();
    bench.write("static-roles/w", json!({"username": "worker", "rotation_statements": []})).await.unwrap();
    bench.tick_after(Duration::from_secs(9)).await.unwrap();
    assert_eq!(password(&bench).await, first, "not before the pause is over");
    bench.tick_after(Duration::from_secs(2)).await.unwrap();
    let second = password(&bench).await;
    assert_ne!(second, first);
    assert!(can_log_in(&server, "worker", &second).await);
}

async fn seconds_left(bench: &Bench) -> u64 {
    bench.read("static-creds/w").await.unwrap().data()["ttl"].as_u64().unwrap()
}

/// Moves the clock to so many seconds after the next full hour.
fn to_hour(clock: &TestClock, seconds: i64) {
    let now = clock.now().unix();
    clock.advance(Duration::from_secs((3600 - now.rem_euclid(3600) + seconds).unsigned_abs()));
}

#[tokio::test]
async fn a_schedule_is_kept_to_the_minute() {
    let Some((bench, server)) = worker(json!({"rotation_schedule": "@hourly"})).await else { return };
    let first = password(&bench).await;
    assert!(seconds_left(&bench).await <= 3600);
    to_hour(&bench.clock, -1);
    bench.tick_after(Duration::ZERO).await.unwrap();
    assert_eq!(password(&bench).await, first);
    bench.tick_after(Duration::from_secs(1)).await.unwrap();
    let second = password(&bench).await;
    assert_ne!(second, first);
    assert!(can_log_in(&server, "worker", &second).await);
    assert_eq!(seconds_left(&bench).await, 3600);
    bench.tick_after(Duration::from_secs(3599)).await.unwrap();
    assert_eq!(password(&bench).await, second);
}

#[tokio::test]
async fn a_time_whose_window_is_over_is_skipped() {
    let role = json!({"rotation_schedule": "0 0 * * *", "rotation_window": 3600});
    let Some((bench, _server)) = worker(role).await else { return };
    let first = password(&bench).await;
    let to_midnight = 86_400 - bench.clock.now().unix().rem_euclid(86_400);
    // The server was down at midnight, and longer than the window.
    bench.tick_after(Duration::from_secs(to_midnight.unsigned_abs() + 3601)).await.unwrap();
    assert_eq!(password(&bench).await, first);
    // The next time it was back within the window.
    bench.tick_after(Duration::from_secs(86_400 - 1800)).await.unwrap();
    assert_ne!(password(&bench).await, first);
}
