//! The engine with a real PostgreSQL.

mod canary;
mod certificates;
mod kept_passwords;
mod kinds;
mod mariadb;
mod pgbouncer;
mod proxy;
mod reconcile;
mod redis;
mod roles;
mod rotation;
pub(super) mod servers;
mod settings;
mod suite;

use std::time::Duration;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::clock::{Clock, SystemClock};
use keepfast_framework::lease::HeldLease;
use keepfast_framework::testing::{Bench, held};
use serde_json::{Value, json};

use self::servers::{PostgresServer, wait_until};
use super::DatabaseEngine;
use super::rotation::{PENDING, Pending};

const CREATE: &str = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'; GRANT SELECT, INSERT ON orders TO \"{{name}}\"";

/// A mounted engine with a connection `pg` and a role `app`; `None` if the Debian package is missing.
async fn rig() -> Option<(Bench, PostgresServer)> {
    let server = PostgresServer::start()?;
    let bench = Bench::new::<DatabaseEngine>().await.unwrap();
    // The server has its own clock, with which it checks expiry.
    bench.clock.advance(SystemClock.now().since(bench.clock.now()));
    let config = json!({
        "plugin_name": "postgresql-database-plugin",
        "allowed_roles": "app",
        "connection_url": format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres?sslmode=disable", server.port),
        "username": PostgresServer::ADMIN,
        "password": PostgresServer::PASSWORD,
    });
    bench.write("config/pg", config).await.unwrap();
    let role = json!({"db_name": "pg", "creation_statements": CREATE, "default_ttl": "1h", "max_ttl": "24h"});
    bench.write("roles/app", role).await.unwrap();
    Some((bench, server))
}

async fn user(bench: &Bench) -> (String, String) {
    let data = bench.read("creds/app").await.unwrap().data();
    (data["username"].as_str().unwrap().to_owned(), data["password"].as_str().unwrap().to_owned())
}

fn lease(bench: &Bench, user: &str, statements: Value) -> HeldLease {
    let internal = json!({"username": user, "role": "app", "db_name": "pg", "revocation_statements": statements});
    held("creds/app", internal, Duration::ZERO, &bench.clock)
}

async fn revoke(bench: &Bench, user: &str) {
    let (engine, mut cx) = bench.engine_and_cx();
    engine.revoke_lease(&mut cx, &lease(bench, user, json!([]))).await.unwrap();
}

#[tokio::test]
async fn a_user_has_its_rights_until_revocation() {
    let Some((bench, server)) = rig().await else { return };
    let (name, password) = user(&bench).await;
    assert_eq!(server.sql("SELECT item FROM orders", &name, &password).unwrap(), "tea");
    assert!(server.sql("DELETE FROM orders", &name, &password).is_err());
    revoke(&bench, &name).await;
    assert!(server.sql("SELECT 1", &name, &password).is_err());
    revoke(&bench, &name).await;
    assert_eq!(server.admin(&format!("SELECT count(*) FROM pg_roles WHERE rolname = '{name}'")), "0");
}

#[tokio::test]
async fn revocation_ends_sessions_and_keeps_the_users_objects() {
    let Some((bench, server)) = rig().await else { return };
    bench
        .write(
            "roles/app",
            json!({"creation_statements": format!("{CREATE}; GRANT CREATE ON SCHEMA public TO \"{{{{name}}}}\"")}),
        )
        .await
        .unwrap();
    let (name, password) = user(&bench).await;
    server.sql("CREATE TABLE kept AS SELECT 7 AS n", &name, &password).unwrap();
    let mut session = server.session(&name, &password);
    let count = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{name}'");
    wait_until("the session is there", || server.admin(&count) != "0");
    revoke(&bench, &name).await;
    assert!(!session.wait().unwrap().success(), "its session was ended");
    assert_eq!(server.admin("SELECT n FROM kept"), "7");
}

#[tokio::test]
async fn sec_se06_revocation_leaves_the_rights_of_others() {
    let Some((bench, server)) = rig().await else { return };
    let before = server.admin(
        "CREATE ROLE other; GRANT SELECT ON orders TO other; SELECT relacl FROM pg_class WHERE relname = 'orders'",
    );
    let (one, _) = user(&bench).await;
    let (two, _) = user(&bench).await;
    revoke(&bench, &one).await;
    revoke(&bench, &two).await;
    assert_eq!(server.admin("SELECT relacl FROM pg_class WHERE relname = 'orders'"), before.lines().last().unwrap());
}

#[tokio::test]
async fn renewal_extends_the_expiry_in_the_database() {
    let Some((bench, server)) = rig().await else { return };
    let (name, _) = user(&bench).await;
    let until = format!("SELECT extract(epoch FROM rolvaliduntil)::bigint FROM pg_roles WHERE rolname = '{name}'");
    let before: i64 = server.admin(&until).parse().unwrap();
    bench.clock.advance(Duration::from_secs(600));
    let (engine, mut cx) = bench.engine_and_cx();
    engine.renew_lease(&mut cx, &lease(&bench, &name, json!([]))).await.unwrap();
    assert_eq!(server.admin(&until).parse::<i64>().unwrap(), before + 600);
}

#[tokio::test]
async fn a_user_expires_in_the_database_after_its_lease() {
    let Some((bench, server)) = rig().await else { return };
    bench.clock.advance(Duration::from_millis(777));
    let until = |name: &str| -> i64 {
        let end = format!("SELECT extract(epoch FROM rolvaliduntil)::bigint FROM pg_roles WHERE rolname = '{name}'");
        server.admin(&end).parse().unwrap()
    };
    let after = |lease: i64, user: i64| assert!((lease + 1..lease + 10).contains(&user), "{lease} {user}");
    let (name, _) = user(&bench).await;
    after(bench.clock.now().unix() + 3600, until(&name));
    bench.clock.advance(Duration::from_millis(600_999));
    let (engine, mut cx) = bench.engine_and_cx();
    engine.renew_lease(&mut cx, &lease(&bench, &name, json!([]))).await.unwrap();
    after(bench.clock.now().unix() + 3600, until(&name));
}

#[tokio::test]
async fn a_failed_creation_leaves_no_user_and_returns_the_servers_error() {
    let Some((bench, server)) = rig().await else { return };
    let statements = json!(["CREATE ROLE \"{{name}}\"", "CREATE NONSENSE"]);
    bench.write("roles/app", json!({"creation_statements": statements})).await.unwrap();
    let error = bench.read("creds/app").await.err().unwrap();
    assert_eq!(error.status().0, 500);
    let expected = "1 error occurred:\n\t* failed to execute query: ERROR: syntax error at or near \"NONSENSE\" (SQLSTATE 42601)\n\n";
    assert_eq!(error.public(), expected);
    assert_eq!(server.admin("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'"), "0");
}

#[tokio::test]
async fn sec_se03_hostile_names_are_quoted() {
    let Some((mut bench, server)) = rig().await else { return };
    server.admin("CREATE SCHEMA \"x\"\"; DROP TABLE orders; --\"");
    let display = "o'\";--\n%$\\ DROP TABLE orders; an-unreasonably-long-display-name-that-passes-sixty-three-bytes";
    bench.caller.display_name = display.to_owned();
    let template = "{{.DisplayName}}-{{random 8}}";
    bench.write("config/pg", json!({"username_template": template})).await.unwrap();
    let (name, password) = user(&bench).await;
    assert!(name.len() <= 63, "{name}");
    assert_eq!(server.sql("SELECT item FROM orders", &name, &password).unwrap(), "tea");
    let (engine, mut cx) = bench.engine_and_cx();
    engine.renew_lease(&mut cx, &lease(&bench, &name, json!([]))).await.unwrap();
    revoke(&bench, &name).await;
    for hostile in ["x\"; DROP TABLE orders; --", "x'; DROP TABLE orders; --", "x\\"] {
        revoke(&bench, hostile).await;
        server.admin(&format!("CREATE ROLE \"{}\"", hostile.replace('"', "\"\"")));
        revoke(&bench, hostile).await;
    }
    assert_eq!(server.admin("SELECT count(*) FROM orders"), "1");
    assert_eq!(
        server.admin("SELECT count(*) FROM pg_roles WHERE rolname NOT LIKE 'pg\\_%' AND rolname <> 'vault_admin'"),
        "0"
    );
}

#[tokio::test]
async fn settings_are_merged_checked_and_returned_without_the_password() {
    let Some((bench, server)) = rig().await else { return };
    let shown = bench.read("config/pg").await.unwrap().data();
    assert_eq!(shown["connection_details"]["username"], PostgresServer::ADMIN);
    assert!(!shown.to_string().contains(PostgresServer::PASSWORD));
    bench.write("config/pg", json!({"allowed_roles": ["x*", "r"]})).await.unwrap();
    let refused = bench.read("creds/app").await.err().unwrap();
    assert_eq!(refused.public(), "1 error occurred:\n\t* \"app\" is not an allowed role\n\n");
    let wrong = bench.write("config/pg", json!({"password": "wrong"})).await.err().unwrap();
    assert_eq!(wrong.status().0, 400);
    assert!(
        wrong.public().starts_with("error creating database object: error verifying connection: "),
        "{}",
        wrong.public()
    );
    assert!(bench.write("config/pg", json!({})).await.is_ok(), "a refused change changes nothing");
    drop(server);
}

#[tokio::test]
async fn sec_se05_an_invalid_server_certificate_is_refused() {
    let Some(server) = PostgresServer::start_with_tls() else { return };
    let bench = Bench::new::<DatabaseEngine>().await.unwrap();
    let settings = |host: &str, mode: &str| {
        json!({
            "plugin_name": "postgresql-database-plugin",
            "connection_url": format!("postgresql://{{{{username}}}}:{{{{password}}}}@{host}:{}/postgres{mode}", server.port),
            "username": PostgresServer::ADMIN,
            "password": PostgresServer::PASSWORD,
        })
    };
    for (at, mode) in ["", "?sslmode=prefer", "?sslmode=allow", "?sslmode=verify-full"].into_iter().enumerate() {
        let refused = bench.write(&format!("config/unknown-{at}"), settings("127.0.0.1", mode)).await.err().unwrap();
        assert!(refused.public().contains("invalid peer certificate"), "{mode}: {}", refused.public());
        let (mut trusted, mut elsewhere) = (settings("127.0.0.1", mode), settings("localhost", mode));
        trusted["tls_ca"] = server.certificate.clone().into();
        elsewhere["tls_ca"] = server.certificate.clone().into();
        bench.write(&format!("config/trusted-{at}"), trusted).await.unwrap();
        let refused = bench.write(&format!("config/elsewhere-{at}"), elsewhere).await.err().unwrap();
        assert!(refused.public().contains("invalid peer certificate"), "{mode}: another name: {}", refused.public());
    }
}

async fn can_log_in(server: &PostgresServer, user: &str, password: &str) -> bool {
    server.sql("SELECT 1", user, password).is_ok()
}

#[tokio::test]
async fn root_rotation_replaces_the_administrators_password() {
    let Some((bench, server)) = rig().await else { return };
    server.admin("CREATE ROLE boss SUPERUSER LOGIN PASSWORD 'first'");
    bench.write("config/pg", json!({"username": "boss", "password": "first"})).await.unwrap();
    bench.write("rotate-root/pg", json!({})).await.unwrap();
    assert!(!can_log_in(&server, "boss", "first").await);
    user(&bench).await;
    bench.write("rotate-root/pg", json!({})).await.unwrap();
    user(&bench).await;
    let missing = bench.write("rotate-root/nix", json!({})).await.err().unwrap();
    assert_eq!(missing.public(), "1 error occurred:\n\t* failed to find entry for connection with name: \"nix\"\n\n");
}

#[tokio::test]
async fn an_interrupted_rotation_keeps_the_password_of_the_database() {
    let Some((bench, server)) = rig().await else { return };
    server.admin("CREATE ROLE boss SUPERUSER LOGIN PASSWORD 'old'");
    bench.write("config/pg", json!({"username": "boss", "password": "old"})).await.unwrap();
    // Interrupted before and after the database got the password.
    for (is_sent, next) in [(false, "new-1"), (true, "new-2")] {
        let (_, mut cx) = bench.engine_and_cx();
        PENDING.put(&mut cx, "pg", &Pending::new("boss", &SecretString::new(next.to_owned()))).unwrap();
        cx.commit().await.unwrap();
        if is_sent {
            server.admin(&format!("ALTER ROLE boss PASSWORD '{next}'"));
            bench.write("reset/pg", json!({})).await.unwrap();
        }
        user(&bench).await;
        bench.write("reset/pg", json!({})).await.unwrap();
        user(&bench).await;
        assert_eq!(can_log_in(&server, "boss", "new-2").await, is_sent);
    }
}

#[tokio::test]
async fn a_failed_rotation_keeps_the_old_password() {
    let Some((bench, server)) = rig().await else { return };
    bench
        .write("config/pg", json!({"root_rotation_statements": ["ALTER ROLE nobody_there PASSWORD '{{password}}'"]}))
        .await
        .unwrap();
    let failed = bench.write("rotate-root/pg", json!({})).await.err().unwrap();
    assert!(failed.public().contains("does not exist"), "{}", failed.public());
    user(&bench).await;
    assert!(can_log_in(&server, PostgresServer::ADMIN, PostgresServer::PASSWORD).await);
}

#[tokio::test]
async fn a_static_password_rotates_at_creation_on_time_and_on_request() {
    let Some((bench, server)) = rig().await else { return };
    server.admin("CREATE ROLE worker LOGIN PASSWORD 'first'");
    bench.write("config/pg", json!({"allowed_roles": "*"})).await.unwrap();
    bench
        .write("static-roles/w", json!({"db_name": "pg", "username": "worker", "rotation_period": "1h"}))
        .await
        .unwrap();
    assert!(!can_log_in(&server, "worker", "first").await);
    let first = bench.read("static-creds/w").await.unwrap().data();
    assert_eq!((&first["ttl"], &first["username"]), (&json!(3600), &json!("worker")));
    assert!(can_log_in(&server, "worker", first["password"].as_str().unwrap()).await);
    bench.tick_after(Duration::from_secs(1800)).await.unwrap();
    assert_eq!(bench.read("static-creds/w").await.unwrap().data()["password"], first["password"]);
    bench.tick_after(Duration::from_secs(1801)).await.unwrap();
    let second = bench.read("static-creds/w").await.unwrap().data();
    assert_ne!(second["password"], first["password"]);
    assert!(can_log_in(&server, "worker", second["password"].as_str().unwrap()).await);
    bench.write("rotate-role/w", json!({})).await.unwrap();
    assert!(!can_log_in(&server, "worker", second["password"].as_str().unwrap()).await);
    let again = bench.write("static-roles/w", json!({"rotation_period": "2h"})).await.err().unwrap();
    assert_eq!(again.public(), "cannot update static account username");
    let unknown = bench
        .write("static-roles/x", json!({"db_name": "pg", "username": "nobody", "rotation_period": 60}))
        .await
        .err()
        .unwrap();
    assert!(unknown.public().contains("does not exist"), "{}", unknown.public());
    assert!(bench.read("static-roles/x").await.is_err(), "nothing is remembered of it");
}
