//! No password of a database is lost: acknowledged, unacknowledged and ineffective rotations on real servers.

use std::time::Duration;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::Engine as _;
use keepfast_framework::clock::{Clock, SystemClock};
use keepfast_framework::testing::Bench;
use serde_json::{Value, json};

use super::mariadb::MariaDbServer;
use super::proxy::Proxy;
use super::redis::RedisServer;
use super::servers::PostgresServer;
use super::suite::Kit;
use crate::secrets::database::DatabaseEngine;
use crate::secrets::database::config::Config;
use crate::secrets::database::rotation::{PENDING, Pending, database};

/// A mounted engine with a connection `db` as `boss`, an administrator with the password `first`, through a port.
async fn rig(kit: &dyn Kit, port: u16, more: Value) -> Bench {
    kit.make_user("boss", "first", true);
    let bench = Bench::new::<DatabaseEngine>().await.unwrap();
    bench.clock.advance(SystemClock.now().since(bench.clock.now()));
    let mut config = kit.settings_at(port);
    let settings = json!({"plugin_name": kit.plugin(), "allowed_roles": "*", "username": "boss", "password": "first"});
    config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    bench.write("config/db", config).await.unwrap();
    bench.write("roles/app", json!({"db_name": "db", "creation_statements": kit.creation()})).await.unwrap();
    bench
}

/// Adds a static role `w` of the user `worker`.
async fn worker(bench: &Bench, kit: &dyn Kit) {
    kit.make_user("worker", "first", false);
    let role = json!({"db_name": "db", "username": "worker", "rotation_period": "1h"});
    bench.write("static-roles/w", role).await.unwrap();
}

async fn creds(bench: &Bench) -> (String, Option<String>, usize) {
    let read = bench.read("static-creds/w").await.unwrap();
    let text = |name: &str| read.data()[name].as_str().map(str::to_owned);
    (text("password").unwrap(), text("pending_password"), read.warnings.len())
}

#[tokio::test]
async fn an_acknowledged_static_password_is_current_without_a_login() {
    let Some(server) = PostgresServer::start() else { return };
    let bench = rig(&server, server.port, json!({})).await;
    worker(&bench, &server).await;
    let works = |password: &str| server.sql("SELECT 1", "worker", password).is_ok();
    for (lock, unlock) in [
        ("ALTER ROLE worker NOLOGIN", "ALTER ROLE worker LOGIN"),
        ("ALTER ROLE worker CONNECTION LIMIT 0", "ALTER ROLE worker CONNECTION LIMIT -1"),
        ("ALTER ROLE worker VALID UNTIL '2000-01-01'", "ALTER ROLE worker VALID UNTIL 'infinity'"),
    ] {
        for statements in [json!([]), json!(["ALTER ROLE \"{{name}}\" PASSWORD '{{password}}'"])] {
            bench
                .write("static-roles/w", json!({"username": "worker", "rotation_statements": statements}))
                .await
                .unwrap();
            let (before, ..) = creds(&bench).await;
            server.admin(lock);
            bench.write("rotate-role/w", json!({})).await.unwrap();
            server.admin(unlock);
            let (after, pending, warnings) = creds(&bench).await;
            assert!(after != before && pending.is_none() && warnings == 0 && works(&after), "{lock}");
        }
    }
    server.reject("worker");
    bench.write("rotate-role/w", json!({})).await.unwrap();
    let (hidden, ..) = creds(&bench).await;
    server.accept_all();
    assert!(works(&hidden), "pg_hba.conf");
}

async fn an_unanswered_static_rotation_loses_nothing(kit: &dyn Kit, proxy: Proxy) {
    let mut bench = rig(kit, proxy.port, json!({})).await;
    worker(&bench, kit).await;
    let (before, ..) = creds(&bench).await;
    proxy.lose_the_next_answer();
    bench.write("rotate-role/w", json!({})).await.err().unwrap();
    let (current, pending, warnings) = creds(&bench).await;
    let pending = pending.unwrap();
    assert_eq!((current, warnings), (before.clone(), 1), "both can be read");
    kit.read_nothing("worker", &pending).unwrap();
    kit.read_nothing("worker", &before).unwrap_err();
    bench.remount::<DatabaseEngine>(&[]).await.unwrap();
    let moved = json!({"username": "worker", "db_name": "elsewhere"});
    assert_eq!(bench.write("static-roles/w", moved).await.err().unwrap().status().0, 400);
    proxy.pass();
    bench.tick_after(Duration::from_secs(60)).await.unwrap();
    assert_eq!(creds(&bench).await, (pending.clone(), None, 0), "the same password was sent again");
    kit.read_nothing("worker", &pending).unwrap();
}

async fn an_unanswered_root_rotation_loses_nothing(kit: &dyn Kit, proxy: Proxy) {
    let mut bench = rig(kit, proxy.port, json!({})).await;
    for is_restarted in [false, true] {
        bench.read("creds/app").await.unwrap();
        proxy.lose_the_next_answer();
        bench.write("rotate-root/db", json!({})).await.err().unwrap();
        kit.read_nothing("boss", "first").unwrap_err();
        bench.tick_after(Duration::from_secs(1)).await.unwrap();
        bench.read("creds/app").await.err().unwrap();
        let other = bench.write("config/db", json!({"username": "other", "verify_connection": false})).await;
        assert_eq!(other.err().unwrap().status().0, 400, "its password would belong to nobody");
        if is_restarted {
            bench.remount::<DatabaseEngine>(&[]).await.unwrap();
        }
        proxy.pass();
        bench.write("config/db", json!({"allowed_roles": "*"})).await.unwrap();
        bench.read("creds/app").await.unwrap();
        bench.write("rotate-root/db", json!({})).await.unwrap();
        bench.read("creds/app").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_loses_no_password_of_an_unanswered_rotation() {
    let Some(server) = PostgresServer::start() else { return };
    an_unanswered_root_rotation_loses_nothing(&server, Proxy::start(server.port, "ALTER ROLE")).await;
    server.admin("DROP ROLE boss");
    an_unanswered_static_rotation_loses_nothing(&server, Proxy::start(server.port, "ALTER ROLE")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_loses_no_password_of_an_unanswered_rotation() {
    let Some(server) = MariaDbServer::start() else { return };
    an_unanswered_root_rotation_loses_nothing(&server, Proxy::start(server.port, "ALTER USER")).await;
    server.admin("DROP USER boss");
    an_unanswered_static_rotation_loses_nothing(&server, Proxy::start(server.port, "ALTER USER")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_loses_no_password_of_an_unanswered_rotation() {
    let Some(server) = RedisServer::start(false) else { return };
    an_unanswered_root_rotation_loses_nothing(&server, Proxy::start(server.port, "resetpass")).await;
    server.cut("boss");
    server.remove("boss");
    an_unanswered_static_rotation_loses_nothing(&server, Proxy::start(server.port, "resetpass")).await;
}

#[tokio::test]
async fn an_administrator_without_free_sessions_keeps_its_connection() {
    let Some(server) = PostgresServer::start() else { return };
    let bench = rig(&server, server.port, json!({"max_open_connections": 1})).await;
    bench.read("creds/app").await.unwrap();
    // Superusers are exempt from the limit.
    server.admin(
        "ALTER ROLE boss NOSUPERUSER CREATEROLE CONNECTION LIMIT 1; GRANT SELECT ON orders TO boss WITH GRANT OPTION",
    );
    for _ in 0..2 {
        bench.write("rotate-root/db", json!({})).await.unwrap();
        server.sql("SELECT 1", "boss", "first").unwrap_err();
    }
    server.admin("ALTER ROLE boss CONNECTION LIMIT -1");
    bench.tick_after(Duration::from_secs(1)).await.unwrap();
    bench.read("creds/app").await.unwrap();
}

#[tokio::test]
async fn a_second_password_gets_a_connection_of_its_own() {
    let Some(server) = PostgresServer::start() else { return };
    let bench = rig(&server, server.port, json!({})).await;
    let (_, mut cx) = bench.engine_and_cx();
    let engine = DatabaseEngine::open(&mut cx).await.unwrap();
    let config = Config::require(&engine, &mut cx, "db").await.unwrap();
    // Both rotations were sent under the same revision of the settings; the first one was undone.
    for password in ["second", "third"] {
        let pending = Pending::new("boss", &SecretString::new(password.to_owned()));
        let (_, mut writing) = bench.engine_and_cx();
        PENDING.put(&mut writing, "db", &pending).unwrap();
        writing.commit().await.unwrap();
        if password == "third" {
            server.admin("ALTER ROLE boss PASSWORD 'third'");
            server.admin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'boss'");
        }
        let (_, mut cx) = bench.engine_and_cx();
        database(&engine, &mut cx, "db", &config).await.unwrap().verify().await.expect(password);
    }
}

#[tokio::test]
async fn statements_without_effect_change_no_stored_password() {
    let Some(server) = PostgresServer::start() else { return };
    let bench = rig(&server, server.port, json!({"root_rotation_statements": ["SELECT 1"]})).await;
    worker(&bench, &server).await;
    let refused = bench.write("rotate-root/db", json!({})).await.err().unwrap();
    assert!(refused.public().contains("does not accept the new password"), "{}", refused.public());
    bench.read("creds/app").await.unwrap();
    let (before, ..) = creds(&bench).await;
    bench.write("static-roles/w", json!({"username": "worker", "rotation_statements": ["SELECT 1"]})).await.unwrap();
    bench.write("rotate-role/w", json!({})).await.err().unwrap();
    assert_eq!(creds(&bench).await, (before, None, 0));
}

#[tokio::test]
async fn a_password_in_the_url_cannot_be_rotated() {
    let Some(server) = PostgresServer::start() else { return };
    let url = format!("postgresql://boss:first@127.0.0.1:{}/postgres?sslmode=disable", server.port);
    let bench = rig(&server, server.port, json!({"connection_url": url})).await;
    let refused = bench.write("rotate-root/db", json!({})).await.err().unwrap();
    assert_eq!(refused.status().0, 400, "{}", refused.public());
    server.sql("SELECT 1", "boss", "first").unwrap();
}

#[tokio::test]
async fn root_rotation_of_mariadb_changes_the_account_of_its_session() {
    let Some(server) = MariaDbServer::start() else { return };
    let bench = rig(&server, server.port, json!({})).await;
    let local = "boss@'127.0.0.1'";
    server.admin(&format!("CREATE USER {local} IDENTIFIED BY 'local'; GRANT ALL ON *.* TO {local} WITH GRANT OPTION"));
    bench.write("config/db", json!({"password": "local"})).await.unwrap();
    bench.write("rotate-root/db", json!({})).await.unwrap();
    bench.read("creds/app").await.unwrap();
    server.read("boss", "local").unwrap_err();
    server.admin(&format!("DROP USER {local}"));
    server.read("boss", "first").unwrap();
}

#[tokio::test]
async fn both_redis_passwords_are_kept_if_a_restart_would_undo_the_change() {
    let Some(server) = RedisServer::start(false) else { return };
    let bench = rig(&server, server.port, json!({})).await;
    worker(&bench, &server).await;
    let (before, ..) = creds(&bench).await;
    // This server has no configuration file to rewrite.
    bench.write("config/db", json!({"persistence_mode": "rewrite"})).await.unwrap();
    bench.write("rotate-role/w", json!({})).await.err().unwrap();
    let (current, pending, _) = creds(&bench).await;
    assert_eq!(current, before, "it comes back with a restart");
    server.read_nothing("worker", &pending.clone().unwrap()).unwrap();
    bench.write("config/db", json!({"persistence_mode": "aclfile"})).await.unwrap();
    bench.write("rotate-role/w", json!({})).await.unwrap();
    assert_eq!(creds(&bench).await, (pending.unwrap(), None, 0));
}

#[tokio::test]
async fn a_login_that_accepts_any_password_proves_nothing() {
    let Some(server) = PostgresServer::start() else { return };
    let bench = rig(&server, server.port, json!({"username_template": "kept"})).await;
    let statements =
        json!({"creation_statements": ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'; CREATE NONSENSE"]});
    bench.write("roles/app", statements).await.unwrap();
    bench.read("creds/app").await.err().unwrap();
    server.make_user("kept", "somebodys", false);
    server.trust("kept");
    let (engine, mut cx) = bench.engine_and_cx();
    let left = engine.revoke_lease(&mut cx, &bench.abandoned()[0]).await.err().unwrap();
    assert!(left.public().contains("was not dropped"), "{}", left.public());
    assert!(server.users().contains(&"kept".to_owned()));
}

/// How often logins of a user have failed because of the password.
fn failed_logins(server: &PostgresServer, user: &str) -> usize {
    let needle = format!("password authentication failed for user \"{user}\"");
    server.log().lines().filter(|line| line.contains(&needle)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_kf47_an_undecided_rotation_causes_few_failed_logins() {
    let Some(server) = PostgresServer::start() else { return };
    let proxy = Proxy::start(server.port, "ALTER ROLE");
    let bench = rig(&server, proxy.port, json!({})).await;
    proxy.lose_the_next_answer();
    bench.write("rotate-root/db", json!({})).await.err().unwrap();
    // The operator has set a third password, so neither of the two works.
    server.admin("ALTER ROLE boss PASSWORD 'third'");
    proxy.pass();
    let before = failed_logins(&server, "boss");
    for _ in 0..720 {
        bench.tick_after(Duration::from_secs(5)).await.unwrap();
    }
    let in_an_hour = failed_logins(&server, "boss") - before;
    assert!((2..60).contains(&in_an_hour), "{in_an_hour} wrong logins in an hour");
    // A change by the operator is tried at once.
    bench.write("config/db", json!({"password": "third"})).await.unwrap();
    bench.read("creds/app").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_kf47_the_password_that_works_is_tried_first() {
    let Some(server) = PostgresServer::start() else { return };
    let proxy = Proxy::start(server.port, "ALTER ROLE");
    let bench = rig(&server, proxy.port, json!({})).await;
    proxy.lose_the_next_answer();
    bench.write("rotate-root/db", json!({})).await.err().unwrap();
    bench.tick_after(Duration::from_secs(11)).await.unwrap();
    proxy.pass();
    // No request tries to decide the rotation in the pause.
    let before = failed_logins(&server, "boss");
    for _ in 0..5 {
        bench.read("creds/app").await.unwrap();
    }
    assert_eq!(failed_logins(&server, "boss") - before, 1);
}

#[tokio::test]
async fn sec_kf47_an_acknowledged_static_rotation_causes_no_failed_login() {
    let Some(server) = PostgresServer::start() else { return };
    let bench = rig(&server, server.port, json!({})).await;
    worker(&bench, &server).await;
    let statements = json!(["ALTER ROLE \"{{name}}\" PASSWORD '{{password}}'"]);
    bench.write("static-roles/w", json!({"username": "worker", "rotation_statements": statements})).await.unwrap();
    let before = failed_logins(&server, "worker");
    bench.write("rotate-role/w", json!({})).await.unwrap();
    assert_eq!(failed_logins(&server, "worker"), before);
}
