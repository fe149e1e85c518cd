//! Errors of a database contain no secret: passwords in every context of a statement, on real servers.

use std::sync::Arc;

use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::Timestamp;
use keepfast_framework::clock::{Clock, SystemClock};
use keepfast_framework::testing::Bench;
use serde_json::json;

use super::mariadb::MariaDbServer;
use super::redis::RedisServer;
use super::servers::PostgresServer;
use super::suite::Kit;
use crate::secrets::database::DatabaseEngine;
use crate::secrets::database::connection::{Database, DatabaseError, NewUser};
use crate::secrets::database::credential::Login;
use crate::secrets::database::details::of_json;
use crate::secrets::database::files::FileDirectories;
use crate::secrets::database::kinds::Kind;

/// The maximum length of a part of a password that may remain.
const LEFT: usize = 5;

fn open(kit: &dyn Kit, more: &serde_json::Value) -> Arc<dyn Database> {
    let mut settings = kit.settings(true);
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let password = SecretString::new(kit.password().to_owned());
    Kind::by_name(kit.plugin())
        .unwrap()
        .open(&of_json(&settings), &password, &FileDirectories::default(), &clock)
        .unwrap()
}

fn check(error: &DatabaseError, password: &str, statement: &str) {
    for part in password.as_bytes().windows(LEFT).map(|part| std::str::from_utf8(part).unwrap()) {
        assert!(!error.text().contains(part), "{statement}: {part} of {password} is in {}", error.text());
        assert!(!error.log_text().contains(part), "{statement}: {part} of {password} is logged: {}", error.log_text());
    }
    assert!(!error.text().contains("SCRAM-SHA-256$"), "{statement}: {}", error.text());
    let is_code_only = error.code().is_some_and(|code| error.log_text() == code);
    assert!(is_code_only || error.code().is_none(), "{statement}: {}", error.log_text());
}

/// Runs a failing statement in every context that it can have.
async fn try_everywhere(database: &dyn Database, statement: &str) -> usize {
    let password = random::base62(20);
    let secret = SecretString::new(password.clone());
    let statements = [statement.to_owned()];
    let user =
        NewUser { name: "v-canary", login: Login::Password(&secret), expires: Timestamp::from_unix(4_000_000_000) };
    let errors = [
        database.create_user(&user, &statements).await.err().map(|e| e.into_error()),
        database.set_password("v-canary", &secret, &statements).await.err().map(|e| e.into_error()),
        database.set_own_password("v-canary", &secret, &statements).await.err().map(|e| e.into_error()),
    ];
    for error in errors.iter().flatten() {
        check(error, &password, statement);
    }
    errors.iter().flatten().filter(|error| error.text().contains("***")).count()
}

#[tokio::test]
async fn sec_kf06_postgresql_errors_contain_no_password() {
    let Some(server) = PostgresServer::start() else { return };
    let mut masked = 0;
    for more in [json!({}), json!({"password_authentication": "scram-sha-256"})] {
        let database = open(&server, &more);
        for statement in [
            "SELECT '{{password}}'::int",
            "SELECT \"{{password}}\"",
            "SELECT {{password}}",
            "SELECT * FROM \"{{password}}\".x",
            "CREATE ROLE \"{{name}}\" LOGIN PASWORD '{{password}}'",
            "CREATE ROLE \"{{name}}\" LOGIN '{{password}}'",
            "SET TimeZone = '{{password}}'",
            "SET ROLE '{{password}}'",
            "DO $$ BEGIN RAISE EXCEPTION 'pw=%', '{{password}}'; END $$",
            "DO $$ BEGIN EXECUTE 'SELECT ''' || '{{password}}' || '''::int'; END $$",
            "SELECT encode('{{password}}'::bytea, 'hex')::int",
            "SELECT encode('{{password}}'::bytea, 'base64')::int",
            "SELECT substr('{{password}}', 3, 9)::int",
            "SELECT to_json('{{password}}'::text)::text::int",
            "-- {{password}}\nSELECT 1 / 0; -- {{password}}",
        ] {
            masked += try_everywhere(&*database, statement).await;
        }
    }
    assert!(masked > 30, "{masked}");
}

#[tokio::test]
async fn sec_kf06_mariadb_errors_contain_no_truncated_password() {
    let Some(server) = MariaDbServer::start() else { return };
    let database = open(&server, &json!({}));
    let mut masked = 0;
    // The server quotes 80 characters from the error on, so every part of the password is the last one once.
    for blanks in (0..90).step_by(3) {
        let statement = format!("CREATE USER '{{{{name}}}}'@'%' IDENTFIED{}BY '{{{{password}}}}'", " ".repeat(blanks));
        masked += try_everywhere(&*database, &statement).await;
    }
    for statement in [
        "SELECT `{{password}}`",
        "SELECT * FROM shop.`{{password}}`",
        "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{{password}}'",
        "SELECT nonsense('{{password}}')",
        "SET @@sql_mode = '{{password}}'",
        "SELECT 1 nonsense, \"{{password}}\" FROM",
        "CREATE USER '{{name}}'@'%' IDENTIFIED VIA mysql_native_password USING '{{password}}'",
    ] {
        masked += try_everywhere(&*database, statement).await;
    }
    assert!(masked > 60, "{masked}");
}

#[tokio::test]
async fn sec_kf06_redis_errors_that_quote_commands_contain_no_password() {
    // A server without the command quotes its arguments.
    let Some(server) = RedisServer::start_without("AUTH") else { return };
    let error = open(&server, &json!({})).verify().await.unwrap_err();
    assert!(error.text().contains("unknown command"), "{}", error.text());
    assert!(!error.text().contains(server.password()), "{}", error.text());
    assert_eq!(error.log_text(), "Redis error ERR");
    let Some(server) = RedisServer::start(false) else { return };
    try_everywhere(&*open(&server, &json!({})), "[\"+nonsense\"]").await;
}

#[tokio::test]
async fn sec_kf06_failed_requests_log_a_code_and_not_the_text() {
    let Some(server) = PostgresServer::start() else { return };
    let bench = Bench::new::<DatabaseEngine>().await.unwrap();
    let mut config = server.settings(true);
    let more = json!({"plugin_name": server.plugin(), "allowed_roles": "*", "password": server.password(),
        "root_rotation_statements": ["SELECT '{{password}}'::int"]});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    bench.write("config/db", config).await.unwrap();
    let role = json!({"db_name": "db", "creation_statements": ["SELECT '{{password}}'::int"]});
    bench.write("roles/app", role).await.unwrap();
    server.make_user("worker", "first", false);
    let worker = json!({"db_name": "db", "username": "worker", "rotation_period": "1h",
        "rotation_statements": ["SELECT '{{password}}'::int"]});
    for failed in [
        bench.read("creds/app").await,
        bench.write("rotate-root/db", json!({})).await,
        bench.write("static-roles/w", worker).await,
    ] {
        let error = failed.err().unwrap();
        assert!(error.public().contains("type integer: \"***\" (SQLSTATE 22P02)"), "{}", error.public());
        assert_eq!(error.logged(), "the database failed with SQLSTATE 22P02");
        assert!(!format!("{error:?} {error}").contains("type integer"), "{error:?} {error}");
    }
}
