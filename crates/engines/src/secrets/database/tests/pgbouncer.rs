//! PostgreSQL behind PgBouncer, which keeps no session state between two transactions or statements.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use keepfast_framework::clock::{Clock, SystemClock};
use keepfast_framework::testing::Bench;
use serde_json::json;

use super::servers::{PostgresServer, assert_running, free_port, hand_over, is_root, program, wait_until};
use super::{CREATE, can_log_in, lease, revoke, user};
use crate::secrets::database::DatabaseEngine;

/// A pooler of Debian's package in front of a server.
struct PgBouncer {
    port: u16,
    server: PostgresServer,
    child: Child,
    _directory: tempfile::TempDir,
}

impl PgBouncer {
    /// Starts one with a `pool_mode`; `None`, with a message, if a package is missing and not required.
    fn start(mode: &str) -> Option<Self> {
        let pooler = program("pgbouncer", "pgbouncer")?;
        let server = PostgresServer::start()?;
        server.admin("CREATE ROLE pooler SUPERUSER LOGIN PASSWORD 'pooler'");
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let users = directory.path().join("users.txt");
        std::fs::write(&users, "\"pooler\" \"pooler\"\n").unwrap();
        // Prepared statements are removed after each transaction, even if the next one gets the same connection.
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}\nauth_user = pooler\nauth_query = SELECT usename, passwd FROM pg_shadow WHERE usename = $1\n\
             pool_mode = {mode}\nserver_reset_query = DISCARD ALL\nserver_reset_query_always = 1\n",
            server.port,
            users.display(),
        );
        let file = directory.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        hand_over(directory.path(), "postgres");
        let mut command = Command::new(pooler);
        command.arg("-q").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        if is_root() {
            command.args(["-u", "postgres"]);
        }
        let child = command.spawn().unwrap();
        let mut pooler = PgBouncer { port, server, child, _directory: directory };
        wait_until("PgBouncer listens", || {
            assert_running(&mut pooler.child, "PgBouncer");
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Some(pooler)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn everything_works_in(mode: &str) {
    let Some(pooler) = PgBouncer::start(mode) else { return };
    let server = &pooler.server;
    let bench = Bench::new::<DatabaseEngine>().await.unwrap();
    bench.clock.advance(SystemClock.now().since(bench.clock.now()));
    let url =
        format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres?sslmode=disable", pooler.port);
    let config = json!({
        "plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "connection_url": url,
        "username": PostgresServer::ADMIN, "password": PostgresServer::PASSWORD,
    });
    bench.write("config/pg", config).await.unwrap();
    let wrong = bench.write("config/pg", json!({"password": "wrong"})).await.err().unwrap();
    assert!(wrong.public().contains("error verifying connection"), "{}", wrong.public());
    let role = json!({"db_name": "pg", "creation_statements": CREATE, "default_ttl": "1h", "max_ttl": "24h"});
    bench.write("roles/app", role).await.unwrap();
    // More than one, so that pooled connections are reused.
    for _ in 0..3 {
        let (name, password) = user(&bench).await;
        assert_eq!(server.sql("SELECT item FROM orders", &name, &password).unwrap(), "tea");
        bench.clock.advance(Duration::from_secs(60));
        let (engine, mut cx) = bench.engine_and_cx();
        engine.renew_lease(&mut cx, &lease(&bench, &name, json!([]))).await.unwrap();
        revoke(&bench, &name).await;
        revoke(&bench, &name).await;
        assert_eq!(server.admin(&format!("SELECT count(*) FROM pg_roles WHERE rolname = '{name}'")), "0");
    }
    server.admin("CREATE ROLE worker LOGIN PASSWORD 'first'");
    let role = json!({"db_name": "pg", "username": "worker", "rotation_period": "1h"});
    bench.write("static-roles/w", role).await.unwrap();
    for _ in 0..2 {
        let password = bench.read("static-creds/w").await.unwrap().data()["password"].as_str().unwrap().to_owned();
        assert!(can_log_in(server, "worker", &password).await);
        bench.write("rotate-role/w", json!({})).await.unwrap();
        assert!(!can_log_in(server, "worker", &password).await);
    }
    let orphan = "v-token-app-0123456789abcdefghij-1790000000";
    server.admin(&format!("CREATE ROLE \"{orphan}\"; GRANT SELECT ON orders TO \"{orphan}\""));
    assert_eq!(bench.read("reconcile/pg").await.unwrap().data(), json!({"usernames": [orphan]}));
    let removed = bench.write("reconcile/pg", json!({"usernames": [orphan]})).await.unwrap().data();
    assert_eq!(removed, json!({"removed": [orphan]}));
    bench.write("rotate-root/pg", json!({})).await.unwrap();
    assert!(!can_log_in(server, PostgresServer::ADMIN, PostgresServer::PASSWORD).await);
    bench.write("reset/pg", json!({})).await.unwrap();
}

#[tokio::test]
async fn the_engine_works_behind_pgbouncer_in_transaction_mode() {
    everything_works_in("transaction").await;
}

#[tokio::test]
async fn the_engine_works_behind_pgbouncer_in_statement_mode() {
    everything_works_in("statement").await;
}
