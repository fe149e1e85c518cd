//! Connection settings with real servers.

use std::path::Path;
use std::sync::Arc;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::Engine as _;
use keepfast_framework::clock::SystemClock;
use keepfast_framework::testing::Bench;
use serde_json::{Value, json};

use super::mariadb::MariaDbServer;
use super::servers::{PostgresServer, certify};
use super::suite::Kit;
use crate::secrets::database::DatabaseEngine;
use crate::secrets::database::config::Config;
use crate::secrets::database::details::of_json;
use crate::secrets::database::files::FileDirectories;
use crate::secrets::database::kinds::Kind;

async fn refusal(bench: &Bench, settings: &Value) -> String {
    bench.write("config/db", settings.clone()).await.err().map(|e| e.public().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn sec_kf23_a_session_has_tls_with_every_spelling_of_sslmode() {
    let Some(plain) = PostgresServer::start() else { return };
    let bench = Bench::new::<DatabaseEngine>().await.unwrap();
    let (port, user, password) = (plain.port, PostgresServer::ADMIN, PostgresServer::PASSWORD);
    let login = "user={{username}} password={{password}} dbname=postgres";
    for url in [
        format!("host=127.0.0.1 port={port} {login} sslmode = require"),
        format!("host=127.0.0.1 port={port} {login}\nsslmode=require"),
        format!("host=127.0.0.1 port={port} {login} sslmode=disable sslmode='require'"),
        format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{port}/postgres?%73slmode=require"),
    ] {
        let settings = json!({"plugin_name": "postgresql-database-plugin", "connection_url": url, "username": user, "password": password});
        let error_text = refusal(&bench, &settings).await;
        assert!(error_text.contains("server does not support TLS"), "{url}: {error_text}");
    }
}

#[tokio::test]
async fn run_time_parameters_apply_to_every_session() {
    let Some(server) = PostgresServer::start() else { return };
    server.admin("CREATE SCHEMA \"my app\"; CREATE ROLE maker CREATEROLE; GRANT maker TO vault_admin; GRANT USAGE, CREATE ON SCHEMA \"my app\" TO maker");
    let bench = Bench::new::<DatabaseEngine>().await.unwrap();
    let url = format!(
        "host=127.0.0.1 port={} dbname=postgres sslmode=disable search_path='\"my app\"' role=maker statement_timeout=5000 application_name='a b'",
        server.port
    );
    let settings = json!({
        "plugin_name": "postgresql-database-plugin", "connection_url": url, "allowed_roles": "*",
        "username": PostgresServer::ADMIN, "password": PostgresServer::PASSWORD,
    });
    bench.write("config/pg", settings).await.unwrap();
    let statements = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'; \
        CREATE TABLE made AS SELECT current_setting('statement_timeout') || current_user || current_setting('application_name') AS x";
    bench.write("roles/app", json!({"db_name": "pg", "creation_statements": statements})).await.unwrap();
    bench.read("creds/app").await.unwrap();
    assert_eq!(server.admin("SELECT x FROM \"my app\".made"), "5smakera b");
    let unknown =
        json!({"connection_url": format!("host=127.0.0.1 port={} dbname=postgres no_such_parameter=1", server.port)});
    let error_text = bench.write("config/pg", unknown).await.err().unwrap();
    assert!(error_text.public().contains("no_such_parameter"), "{}", error_text.public());
}

#[tokio::test]
async fn require_with_a_ca_means_verify_ca() {
    let Some(server) = PostgresServer::start_with_tls() else { return };
    let bench = Bench::new::<DatabaseEngine>().await.unwrap();
    for (mode, takes_other_name) in [("require", true), ("verify-ca", true), ("verify-full", false), ("prefer", false)]
    {
        let url =
            format!("postgresql://{{{{username}}}}:{{{{password}}}}@localhost:{}/postgres?sslmode={mode}", server.port);
        let mut settings = json!({
            "plugin_name": "postgresql-database-plugin", "connection_url": url, "username": PostgresServer::ADMIN,
            "password": PostgresServer::PASSWORD, "tls_ca": server.certificate,
        });
        let error_text = refusal(&bench, &settings).await;
        assert_eq!(error_text.is_empty(), takes_other_name, "{mode}: {error_text}");
        settings["tls_ca"] = "".into();
        let error_text = refusal(&bench, &settings).await;
        assert!(error_text.contains("invalid peer certificate"), "{mode}: {error_text}");
    }
}

#[tokio::test]
async fn sec_kf23_tls_ca_replaces_the_tls_of_a_dsn() {
    let Some(server) = MariaDbServer::start() else { return };
    let directory = tempfile::tempdir().unwrap();
    let [certificate, _] = certify(directory.path());
    let bench = Bench::new::<DatabaseEngine>().await.unwrap();
    for tls in ["tls=preferred", "tls=false", "tls=skip-verify"] {
        let mut settings = server.settings(true);
        let url = format!("{}?{tls}", settings["connection_url"].as_str().unwrap());
        settings["connection_url"] = url.into();
        settings["plugin_name"] = server.plugin().into();
        settings["password"] = server.password().into();
        settings["tls_ca"] = std::fs::read_to_string(&certificate).unwrap().into();
        let error_text = refusal(&bench, &settings).await;
        assert!(error_text.contains("TLS requested but server does not support TLS"), "{tls}: {error_text}");
    }
}

/// Verifies a connection whose settings may name files below a directory.
async fn verify(kit: &dyn Kit, url: &str, allowed: &Path) -> Result<(), String> {
    let details = json!({"connection_url": url, "username": "vault_admin"});
    let clock: Arc<dyn keepfast_framework::Clock> = Arc::new(SystemClock);
    let password = SecretString::new(kit.password().to_owned());
    let files = FileDirectories::new(&[allowed.to_owned()]);
    let kind = Kind::by_name(kit.plugin()).unwrap();
    let opened = kind.open(&of_json(&details), &password, &files, &clock).map_err(|why| why.text())?;
    opened.verify().await.map_err(|error| format!("{error:?}"))
}

#[tokio::test]
async fn files_and_sockets_below_an_allowed_directory_work() {
    let Some(server) = PostgresServer::start_with_tls() else { return };
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("ca.pem"), &server.certificate).unwrap();
    let url = format!(
        "host=127.0.0.1 port={} dbname=postgres sslmode=verify-full sslrootcert={}/ca.pem",
        server.port,
        directory.path().display()
    );
    verify(&server, &url, directory.path()).await.unwrap();
    let Some(server) = MariaDbServer::start() else { return };
    let url = format!("{{{{username}}}}:{{{{password}}}}@unix({}/sock)/", server.directory().display());
    verify(&server, &url, server.directory()).await.unwrap();
    let error_text = verify(&server, &url, directory.path()).await.unwrap_err();
    assert!(error_text.contains("outside of database_file_directories"), "{error_text}");
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(server.directory(), &link).unwrap();
    let url = format!("{{{{username}}}}:{{{{password}}}}@unix({}/sock)/", link.display());
    assert!(verify(&server, &url, directory.path()).await.is_err());
}

#[tokio::test]
async fn sec_kf05_no_kind_opens_a_file_that_is_not_allowed() {
    let bench = Bench::new::<DatabaseEngine>().await.unwrap();
    for (plugin, url) in [
        ("postgresql-database-plugin", "postgresql://u:p@127.0.0.1:1/d?sslrootcert=/dev/ptmx"),
        ("postgresql-database-plugin", "host=/run/postgresql user=postgres"),
        ("mysql-database-plugin", "u:p@unix(/run/mysqld/mysqld.sock)/"),
        ("mysql-database-plugin", "u:p@unix/"),
    ] {
        for verify in [true, false] {
            let settings = json!({"plugin_name": plugin, "connection_url": url, "verify_connection": verify});
            let error_text = refusal(&bench, &settings).await;
            assert!(
                error_text.contains("names a local file outside of database_file_directories"),
                "{url}: {error_text}"
            );
        }
    }
    for url in ["unix://u:p@/run/redis.sock", "redis+unix://u:p@/run/redis.sock"] {
        let error_text = refusal(&bench, &json!({"plugin_name": "redis-database-plugin", "connection_url": url})).await;
        assert!(error_text.contains("unable to parse connection url"), "{url}: {error_text}");
    }
    assert!(bench.read("config/db").await.is_err() || bench.read("config/db").await.unwrap().data().is_null());
}

#[tokio::test]
async fn sec_kf08_reads_return_no_secret_of_any_setting() {
    let bench = Bench::new::<DatabaseEngine>().await.unwrap();
    let pair = "-----BEGIN CERTIFICATE-----\ngeheim\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\ngeheim\n-----END PRIVATE KEY-----";
    for (plugin, url) in [
        ("postgresql-database-plugin", "postgres://u:geheim@h/d?sslpassword=geheim"),
        ("postgresql-database-plugin", "postgres://h/d?user=u&password=geheim"),
        ("postgresql-database-plugin", "postgres://h/d?%70assword=geheim&sslkey=geheim%zz"),
        ("postgresql-database-plugin", "postgres://u:geheim#@h/d"),
        ("postgresql-database-plugin", "host=h password = geheim"),
        ("postgresql-database-plugin", "host=h PASSWORD=geheim"),
        ("postgresql-database-plugin", "host=h\tpassword=geheim"),
        ("postgresql-database-plugin", "host=h\npassword='x geheim"),
        ("postgresql-database-plugin", "host=h password=x geheim=1"),
        ("postgresql-database-plugin", "host=h options='-c x.y=geheim' x.y=geheim"),
        ("postgresql-database-plugin", "geheim"),
        ("mysql-database-plugin", "u:geheim"),
        ("mysql-database-plugin", "u:geheim/"),
        ("mysql-database-plugin", "u:a@geheim@tcp(h)/d?x=geheim&geheim=y&tls=geheim"),
        ("redis-database-plugin", "redis://u:geheim@h:1?password=geheim"),
        ("redis-database-plugin", "geheim"),
    ] {
        let settings = json!({"plugin_name": plugin, "connection_url": url, "verify_connection": false, "other": "geheim", "more": {"a": ["geheim"]},
            "service_account_json": "geheim", "disable_escaping": false});
        bench.write("config/db", settings).await.unwrap();
        let shown = bench.read("config/db").await.unwrap().data();
        assert!(!shown.to_string().contains("geheim"), "{url}: {shown}");
        assert!(shown["connection_details"]["connection_url"].is_string(), "{url}: {shown}");
    }
    // Records of an earlier version.
    let (_, mut cx) = bench.engine_and_cx();
    let details = json!({"connection_url": "u:{{password}}@tcp(h)/d", "username": "u", "tls_certificate_key": pair, "tls_ca": pair, "private_key": "geheim",
        "tls_certificate": pair, "password": "geheim"});
    let stored = json!({"revision": "r", "plugin_name": "mysql-database-plugin", "allowed_roles": [], "details": details, "password": "geheim"});
    keepfast_framework::Records::<Value>::at("config/").put(&mut cx, "old", &stored).unwrap();
    let gone = json!({"revision": "r", "plugin_name": "no-such-plugin", "allowed_roles": [], "details": details, "password": "geheim"});
    keepfast_framework::Records::<Value>::at("config/").put(&mut cx, "gone", &gone).unwrap();
    cx.commit().await.unwrap();
    let shown = bench.read("config/old").await.unwrap().data();
    assert_eq!(shown["connection_details"], json!({"connection_url": "u:{{password}}@tcp(h)/d", "username": "u"}));
    assert_eq!(bench.read("config/gone").await.unwrap().data()["connection_details"], json!({}));
}

#[tokio::test]
async fn sec_kf60_a_request_puts_no_deleted_connection_back() {
    let bench = Bench::new::<DatabaseEngine>().await.unwrap();
    let settings = json!({"plugin_name": "postgresql-database-plugin", "verify_connection": false,
        "connection_url": "postgresql://{{username}}:{{password}}@127.0.0.1:1/x", "username": "u", "password": "p"});
    bench.write("config/db", settings).await.unwrap();
    let (_, mut cx) = bench.engine_and_cx();
    let engine = DatabaseEngine::open(&mut cx).await.unwrap();
    let config = Config::require(&engine, &mut cx, "db").await.unwrap();
    engine.invalidate("config/db", false);
    engine.connections.get("db", &config, cx.clock()).unwrap();
    engine.connections.second("db", &config, cx.clock()).unwrap();
    assert!(engine.gauges().is_empty(), "read before the deletion");
    let config = Config::require(&engine, &mut cx, "db").await.unwrap();
    engine.connections.get("db", &config, cx.clock()).unwrap();
    assert!(!engine.gauges().is_empty());
}
