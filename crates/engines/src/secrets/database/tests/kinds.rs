//! The suite for every kind, and the rules of single kinds.

use std::sync::Arc;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::clock::SystemClock;
use keepfast_framework::testing::Bench;
use serde_json::{Value, json};

use super::mariadb::MariaDbServer;
use super::redis::RedisServer;
use super::servers::PostgresServer;
use super::suite::{Kit, database_suite};
use crate::secrets::database::DatabaseEngine;
use crate::secrets::database::connection::Database;
use crate::secrets::database::credential::Login;
use crate::secrets::database::details::of_json;
use crate::secrets::database::files::FileDirectories;
use crate::secrets::database::kinds::Kind;

database_suite!(postgresql_does_what_every_kind_does, PostgresServer::start());
database_suite!(mariadb_does_what_every_kind_does, MariaDbServer::start());
database_suite!(redis_does_what_every_kind_does, RedisServer::start(false));

fn open(kit: &dyn Kit, more: &Value) -> Arc<dyn Database> {
    let mut settings = kit.settings(true);
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let clock: Arc<dyn keepfast_framework::Clock> = Arc::new(SystemClock);
    let password = SecretString::new(kit.password().to_owned());
    Kind::by_name(kit.plugin())
        .unwrap()
        .open(&of_json(&settings), &password, &FileDirectories::default(), &clock)
        .unwrap()
}

fn secret(text: &str) -> SecretString {
    SecretString::new(text.to_owned())
}

#[tokio::test]
async fn postgresql_gets_verifiers_and_hosts_are_tried_in_order() {
    let Some(server) = PostgresServer::start() else { return };
    server.admin("CREATE ROLE worker LOGIN");
    let scram = open(&server, &json!({"password_authentication": "scram-sha-256"}));
    server.admin("ALTER SYSTEM SET log_statement = 'all'; ");
    server.admin("SELECT pg_reload_conf()");
    for statements in [vec![], vec!["ALTER ROLE \"{{name}}\" PASSWORD '{{password}}'".to_owned()]] {
        scram.set_password("worker", &secret("ein-Geheimnis"), &statements).await.unwrap();
        assert!(scram.accepts("worker", &secret("ein-Geheimnis")).await.unwrap());
    }
    assert!(!server.log().contains("ein-Geheimnis"), "the server never saw it");
    for (attributes, works) in
        [("any", true), ("read-write", true), ("primary", true), ("prefer-standby", true), ("standby", false)]
    {
        let url = format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:1,127.0.0.1:{}/postgres?sslmode=disable&target_session_attrs={attributes}",
            server.port
        );
        let tried = open(&server, &json!({"connection_url": url})).verify().await;
        assert_eq!(tried.is_ok(), works, "{attributes}");
        let Err(error_text) = tried else { continue };
        let expected = format!(
            "error verifying connection: failed to connect to `user=vault_admin database=postgres`:\n\t127.0.0.1:1 (127.0.0.1): dial error: dial tcp 127.0.0.1:1: connect: connection refused\n\t127.0.0.1:{} (127.0.0.1): ValidateConnect failed: server is not in hot standby mode",
            server.port
        );
        assert_eq!(error_text.text(), expected);
    }
}

#[tokio::test]
async fn postgresql_revocation_works_without_superuser() {
    let Some(server) = PostgresServer::start() else { return };
    server.admin("CREATE ROLE maker LOGIN CREATEROLE PASSWORD 'm'; GRANT SELECT ON orders TO maker WITH GRANT OPTION; GRANT CREATE ON SCHEMA public TO maker WITH GRANT OPTION");
    let url = format!("postgresql://maker:m@127.0.0.1:{}/postgres?sslmode=disable", server.port);
    let database = open(&server, &json!({"connection_url": url}));
    let password = secret("p");
    let user = crate::secrets::database::connection::NewUser {
        name: "v-owner",
        login: Login::Password(&password),
        expires: keepfast_framework::Timestamp::from_unix(4_000_000_000),
    };
    let statements = [
        "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'".to_owned(),
        "GRANT SELECT ON orders TO \"{{name}}\"; GRANT CREATE ON SCHEMA public TO \"{{name}}\"".to_owned(),
    ];
    database.create_user(&user, &statements).await.unwrap();
    server.sql("CREATE TABLE owned AS SELECT 7 AS n", "v-owner", "p").unwrap();
    database.drop_user("v-owner", &[]).await.unwrap();
    assert_eq!(server.admin("SELECT count(*) FROM pg_roles WHERE rolname = 'v-owner'"), "0");
    assert_eq!(server.admin("SELECT n FROM owned"), "7");
}

#[tokio::test]
async fn mariadb_users_are_found_on_any_host() {
    let Some(server) = MariaDbServer::start() else { return };
    let database = open(&server, &json!({}));
    server.admin("CREATE USER local@'127.0.0.1' IDENTIFIED BY 'first'");
    database.set_password("local", &secret("second"), &[]).await.unwrap();
    assert!(database.accepts("local", &secret("second")).await.unwrap());
    database.drop_user("local", &[]).await.unwrap();
    assert_eq!(server.admin("SELECT COUNT(*) FROM mysql.user WHERE User = 'local'"), "0");
    let statements = ["ALTER USER '{{username}}'@'%' IDENTIFIED BY '{{password}}';".to_owned()];
    server.admin("CREATE USER other@'%'");
    database.set_password("other", &secret("a'b\\"), &statements).await.unwrap();
    assert!(database.accepts("other", &secret("a'b\\")).await.unwrap());
    let unknown = open(
        &server,
        &json!({"connection_url": format!("{{{{username}}}}:{{{{password}}}}@tcp(127.0.0.1:{})/nodb", server.port)}),
    );
    let error_text = unknown.verify().await.unwrap_err();
    assert_eq!(error_text.text(), "error verifying - ping: Error 1049 (42000): Unknown database 'nodb'");
}

#[tokio::test]
async fn mariadb_repeating_names_require_read_access_to_users() {
    let Some(server) = MariaDbServer::start() else { return };
    server.admin("CREATE USER maker@'%' IDENTIFIED BY 'm'; GRANT CREATE USER ON *.* TO maker@'%'; CREATE USER kept@'%' IDENTIFIED BY 'k'");
    let bench = Bench::new::<DatabaseEngine>().await.unwrap();
    let mut config = server.settings(true);
    let more =
        json!({"plugin_name": "mysql-database-plugin", "allowed_roles": "*", "username": "maker", "password": "m"});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    bench.write("config/db", config).await.unwrap();
    let statements = "CREATE USER IF NOT EXISTS '{{name}}'@'%' IDENTIFIED BY '{{password}}'";
    bench.write("roles/app", json!({"db_name": "db", "creation_statements": statements})).await.unwrap();
    bench.read("creds/app").await.unwrap();
    bench.write("config/db", json!({"username_template": "kept"})).await.unwrap();
    let refused = bench.read("creds/app").await.err().unwrap();
    assert!(refused.public().contains("it is unknown whether a user of this name exists"), "{}", refused.public());
    assert_eq!(bench.abandoned().len(), 0);
    assert!(open(&server, &json!({})).accepts("kept", &secret("k")).await.unwrap());
}

#[tokio::test]
async fn redis_users_are_persisted_and_existing_users_are_not_changed() {
    let Some(server) = RedisServer::start(false) else { return };
    let database = open(&server, &json!({}));
    let (password, expires) = (secret("p"), keepfast_framework::Timestamp::from_unix(4_000_000_000));
    let user =
        |name| crate::secrets::database::connection::NewUser { name, login: Login::Password(&password), expires };
    database.create_user(&user("V_ONE"), &[]).await.unwrap();
    assert!(server.saved().contains("V_ONE"));
    server.read("V_ONE", "p").unwrap();
    let error = database.create_user(&user("vault_admin"), &[]).await.unwrap_err().into_error();
    assert_eq!(error.text(), "user vault_admin already exists");
    database.drop_user("V_ONE", &[]).await.unwrap();
    assert!(!server.saved().contains("V_ONE"));
    // A server without such a file cannot keep a user, so no user remains.
    let rewriting = open(&server, &json!({"persistence_mode": "rewrite"}));
    let failed = rewriting.create_user(&user("V_TWO"), &[]).await.unwrap_err().into_error();
    assert!(failed.text().contains("without a config file"), "{failed:?}");
    assert!(!server.users().contains(&"V_TWO".to_owned()));
}

/// Whether a connection that trusts this certificate succeeds, and one that trusts the system only.
async fn sec_se05_only_a_valid_certificate_is_trusted(
    settings: impl Fn(&str) -> Value,
    authority: &str,
    certificate: &str,
) {
    let bench = Bench::new::<DatabaseEngine>().await.unwrap();
    let mut trusted = settings("127.0.0.1");
    trusted[authority] = certificate.into();
    bench.write("config/trusted", trusted).await.unwrap();
    let mut elsewhere = settings("localhost");
    elsewhere[authority] = certificate.into();
    let refused = bench.write("config/elsewhere", elsewhere).await.err().unwrap();
    assert!(refused.public().contains("invalid peer certificate"), "another name: {}", refused.public());
}

#[tokio::test]
async fn sec_se05_mariadbs_certificate_is_verified() {
    let Some(server) = MariaDbServer::start_with_tls() else { return };
    let settings = |host: &str| {
        let url = format!("{{{{username}}}}:{{{{password}}}}@tcp({host}:{})/?tls=true", server.port);
        json!({"plugin_name": "mysql-database-plugin", "connection_url": url, "username": "vault_admin", "password": server.password()})
    };
    sec_se05_only_a_valid_certificate_is_trusted(settings, "tls_ca", &server.certificate).await;
    let bench = Bench::new::<DatabaseEngine>().await.unwrap();
    let refused = bench.write("config/unknown", settings("127.0.0.1")).await.err().unwrap();
    assert!(refused.public().contains("invalid peer certificate"), "{}", refused.public());
    let mut named = settings("localhost");
    named["tls_ca"] = server.certificate.clone().into();
    named["tls_server_name"] = "127.0.0.1".into();
    bench.write("config/named", named.clone()).await.unwrap();
    named["tls_server_name"] = "other".into();
    named["tls_skip_verify"] = true.into();
    bench.write("config/skipped", named).await.unwrap();
}

#[tokio::test]
async fn sec_se05_redis_certificate_is_verified() {
    let Some(server) = RedisServer::start(true) else { return };
    let settings = |host: &str| {
        let mut settings = server.encrypted(host);
        settings["plugin_name"] = "redis-database-plugin".into();
        settings
    };
    sec_se05_only_a_valid_certificate_is_trusted(settings, "ca_cert", &server.certificate).await;
    let bench = Bench::new::<DatabaseEngine>().await.unwrap();
    let mut insecure = settings("localhost");
    insecure["ca_cert"] = server.certificate.clone().into();
    insecure["insecure_tls"] = true.into();
    bench.write("config/insecure", insecure).await.unwrap();
}
