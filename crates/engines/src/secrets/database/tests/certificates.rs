//! Users that log in with certificates, on real servers.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use keepfast_framework::clock::{Clock, SystemClock};
use keepfast_framework::testing::{Bench, held};
use serde_json::{Value, json};

use super::mariadb::MariaDbServer;
use super::redis::RedisServer;
use super::servers::PostgresServer;
use super::suite::Kit;
use crate::secrets::database::DatabaseEngine;

/// A directory with two CAs, `ours` and `other`, valid for `days`.
fn authorities(days: u32) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["ours", "other"] {
        let done = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-subj", &format!("/CN={name}"), "-addext", "keyUsage=critical,keyCertSign"])
            .args(["-days", &days.to_string(), "-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")])
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    directory
}

/// A mounted engine with a connection `db` to a server.
async fn rig(kit: &dyn Kit, settings: Value) -> Bench {
    let bench = Bench::new::<DatabaseEngine>().await.unwrap();
    bench.clock.advance(SystemClock.now().since(bench.clock.now()));
    let mut config = settings;
    let more = json!({"plugin_name": kit.plugin(), "allowed_roles": "*", "password": kit.password()});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    bench.write("config/db", config).await.unwrap();
    bench
}

/// A role for certificates of one of the CAs.
fn role(authorities: &Path, authority: &str, key_type: &str, statements: &[&str]) -> Value {
    let file = |ending: &str| std::fs::read_to_string(authorities.join(format!("{authority}.{ending}"))).unwrap();
    let config = json!({
        "key_type": key_type,
        "common_name_template": "v-{{.RoleName}}-{{random 20}}",
        "ca_cert": file("crt"),
        "ca_private_key": file("key"),
    });
    json!({
        "db_name": "db",
        "credential_type": "client_certificate",
        "credential_config": config,
        "creation_statements": statements,
        "default_ttl": "1h",
    })
}

/// Requests a user and stores its certificate and key in files with the role's name; returns the user's name.
async fn user(bench: &Bench, role: &str, directory: &Path) -> String {
    let data = bench.read(&format!("creds/{role}")).await.unwrap().data();
    let text = |field: &str| data[field].as_str().unwrap().to_owned();
    let names: Vec<_> = data.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["client_certificate", "private_key", "private_key_type", "username"]);
    for (ending, field) in [("crt", "client_certificate"), ("key", "private_key")] {
        let path = directory.join(format!("{role}.{ending}"));
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
        file.write_all(text(field).as_bytes()).unwrap();
    }
    text("username")
}

async fn revoke(bench: &Bench, role: &str, user: &str) {
    let internal = json!({"username": user, "role": role, "db_name": "db", "revocation_statements": []});
    let (engine, mut cx) = bench.engine_and_cx();
    engine.revoke_lease(&mut cx, &held("creds", internal, Duration::ZERO, &bench.clock)).await.unwrap();
}

#[tokio::test]
async fn postgresql_accepts_a_certificate_until_revocation() {
    let Some(server) = PostgresServer::start_with_tls() else { return };
    let directory = authorities(30);
    let at = directory.path();
    server.ask_for_certificates(&at.join("ours.crt"));
    let bench = rig(&server, server.settings(true)).await;
    let statements = [
        "CREATE ROLE \"{{name}}\" LOGIN; GRANT SELECT ON orders TO \"{{name}}\"",
        "COMMENT ON ROLE \"{{name}}\" IS '{{subject}}'",
    ];
    for (name, key_type) in [("rsa", "rsa"), ("ec", "ec"), ("ed", "ed25519")] {
        bench.write(&format!("roles/{name}"), role(at, "ours", key_type, &statements)).await.unwrap();
        let user = user(&bench, name, at).await;
        let read = |user: &str, login: &str| server.sql_with("SELECT item FROM orders", user, (at, login));
        assert_eq!(read(&user, name).unwrap(), "tea");
        assert!(server.sql_with("DELETE FROM orders", &user, (at, name)).unwrap_err().contains("permission denied"));
        assert_eq!(
            server.admin(&format!("SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = '{user}'")),
            format!("CN={user}")
        );
        // Neither without the certificate, nor as another user with it.
        server.sql("SELECT 1", &user, "").unwrap_err();
        server.admin("CREATE ROLE victim LOGIN");
        assert!(read("victim", name).unwrap_err().contains("certificate authentication failed"));
        server.admin("DROP ROLE victim");
        revoke(&bench, name, &user).await;
        read(&user, name).unwrap_err();
        assert_eq!(server.admin(&format!("SELECT count(*) FROM pg_roles WHERE rolname = '{user}'")), "0");
    }
    bench.write("roles/foreign", role(at, "other", "ec", &statements)).await.unwrap();
    let user = user(&bench, "foreign", at).await;
    let refused = server.sql_with("SELECT 1", &user, (at, "foreign")).unwrap_err();
    assert!(refused.contains("unknown ca"), "{refused}");
}

#[tokio::test]
async fn mariadb_accepts_a_certificate_until_revocation() {
    let directory = authorities(30);
    let at = directory.path();
    let Some(server) = MariaDbServer::start_with_authority(&at.join("ours.crt")) else { return };
    let bench = rig(&server, server.settings(true)).await;
    let statements =
        ["CREATE USER '{{name}}'@'%' REQUIRE SUBJECT '{{subject}}'; GRANT SELECT ON shop.* TO '{{username}}'@'%'"];
    let read = |user: &str, login: &str| server.sql_with("SELECT item FROM shop.orders", user, (at, login));
    for name in ["one", "two"] {
        bench.write(&format!("roles/{name}"), role(at, "ours", "ec", &statements)).await.unwrap();
    }
    let (one, two) = (user(&bench, "one", at).await, user(&bench, "two", at).await);
    assert_eq!((read(&one, "one").unwrap(), read(&two, "two").unwrap()), ("tea".to_owned(), "tea".to_owned()));
    // Neither without the certificate, nor with another one of the same CA.
    server.read(&one, "").unwrap_err();
    assert!(read(&one, "two").unwrap_err().contains("Access denied"));
    revoke(&bench, "one", &one).await;
    assert!(read(&one, "one").unwrap_err().contains("Access denied"));
    assert!(!server.users().contains(&one) && server.users().contains(&two));
    bench.write("roles/foreign", role(at, "other", "ec", &statements)).await.unwrap();
    let foreign = user(&bench, "foreign", at).await;
    read(&foreign, "foreign").unwrap_err();
}

#[tokio::test]
async fn sec_se03_a_user_with_a_certificate_has_no_other_login() {
    let directory = authorities(30);
    let Some(server) = MariaDbServer::start() else { return };
    let bench = rig(&server, server.settings(true)).await;
    for (statement, expected) in [
        ("CREATE USER '{{name}}'@'%'", "creation_statements must have REQUIRE SUBJECT"),
        ("CREATE USER '{{name}}'@'%' REQUIRE X509", "creation_statements must have REQUIRE SUBJECT"),
        (
            "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{ password }}' REQUIRE SUBJECT '{{subject}}'",
            "creation_statements have {{password}}",
        ),
        // In base64: CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}' REQUIRE SUBJECT '{{subject}}'
        (
            "Q1JFQVRFIFVTRVIgJ3t7bmFtZX19J0AnJScgSURFTlRJRklFRCBCWSAne3twYXNzd29yZH19JyBSRVFVSVJFIFNVQkpFQ1QgJ3t7c3ViamVjdH19Jw==",
            "creation_statements have {{password}}",
        ),
    ] {
        bench.write("roles/r", role(directory.path(), "ours", "ec", &[statement])).await.unwrap();
        let refused = bench.read("creds/r").await.err().unwrap();
        assert_eq!(refused.status().0, 400);
        assert!(refused.public().starts_with(expected), "{}", refused.public());
    }
    let statements = ["CREATE USER '{{name}}'@'%' REQUIRE SUBJECT '{{subject}}'"];
    let before = server.users();
    let characters = "the result of common_name_template has characters other than";
    let once = "common_name_template must make every name unique";
    let none = "1 error occurred:\n\t* unable to generate username";
    for (template, expected) in [
        ("x/CN=root{{uuid}}", characters),
        ("a,b{{uuid}}", characters),
        ("a b{{uuid}}", characters),
        ("ö{{uuid}}", characters),
        ("{{random 0}}", none),
        // The certificate of a revoked user could be valid for a later one.
        ("{{.RoleName}}", once),
        ("{{random 4}}", once),
    ] {
        let mut hostile = role(directory.path(), "ours", "ec", &statements);
        hostile["credential_config"]["common_name_template"] = template.into();
        bench.write("roles/r", hostile).await.unwrap();
        let refused = bench.read("creds/r").await.err().unwrap();
        assert!(refused.public().starts_with(expected), "{template}: {}", refused.public());
    }
    assert_eq!(server.users(), before);
    // Vault's own example; the time makes the name unique.
    let mut timed = role(directory.path(), "ours", "ec", &statements);
    timed["credential_config"]["common_name_template"] = "{{.DisplayName}}_{{.RoleName}}_{{unix_time}}".into();
    bench.write("roles/timed", timed).await.unwrap();
    user(&bench, "timed", directory.path()).await;
}

#[tokio::test]
async fn no_certificate_outlives_its_ca_and_no_key_is_returned() {
    let Some(server) = PostgresServer::start() else { return };
    let directory = authorities(1);
    let bench = rig(&server, server.settings(true)).await;
    let statements = ["CREATE ROLE \"{{name}}\" LOGIN"];
    let mut long = role(directory.path(), "ours", "ed25519", &statements);
    long["default_ttl"] = "25h".into();
    bench.write("roles/r", long).await.unwrap();
    let refused = bench.read("creds/r").await.err().unwrap();
    let expected = "no certificate was issued: the certificate would expire after the certificate of its CA";
    assert_eq!((refused.status().0, refused.public()), (400, expected));
    assert_eq!(server.admin("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-r-%'"), "0");
    // A setting that is not written keeps its value, with the key that is not returned.
    bench.write("roles/r", json!({"default_ttl": "1h"})).await.unwrap();
    let shown = bench.read("roles/r").await.unwrap().data();
    let names: Vec<_> = shown["credential_config"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["ca_cert", "common_name_template", "key_type", "signature_bits"]);
    assert!(!shown.to_string().contains("PRIVATE KEY"));
    user(&bench, "r", directory.path()).await;
    bench.write("roles/r", json!({"credential_type": "password"})).await.unwrap();
    assert_eq!(bench.read("roles/r").await.unwrap().data().get("credential_config"), None);
}

#[tokio::test]
async fn certificates_are_unsupported_without_certificate_logins() {
    let Some(server) = RedisServer::start(false) else { return };
    let directory = authorities(30);
    let bench = rig(&server, server.settings(true)).await;
    bench.write("roles/r", role(directory.path(), "ours", "ec", &[])).await.unwrap();
    bench.write("roles/rsa", json!({"db_name": "db", "credential_type": "rsa_private_key"})).await.unwrap();
    for (name, kind) in [("r", "client_certificate"), ("rsa", "rsa_private_key")] {
        let refused = bench.read(&format!("creds/{name}")).await.err().unwrap();
        assert_eq!((refused.status().0, refused.public()), (400, &*format!("unsupported credential_type: {kind:?}")));
    }
    let wanted = json!({"db_name": "db", "username": "x", "rotation_period": 60, "credential_type": "rsa_private_key"});
    let refused = bench.write("static-roles/s", wanted).await.err().unwrap();
    assert_eq!((refused.status().0, refused.public()), (400, "unsupported credential_type: \"rsa_private_key\""));
    assert!(bench.read("static-roles/s").await.is_err(), "nothing is remembered of it");
}

#[tokio::test]
async fn a_certificate_expires_after_its_lease() {
    let Some(server) = PostgresServer::start_with_tls() else { return };
    let directory = authorities(30);
    let at = directory.path();
    let bench = rig(&server, server.settings(true)).await;
    bench.write("roles/ec", role(at, "ours", "ec", &["CREATE ROLE \"{{name}}\" LOGIN"])).await.unwrap();
    user(&bench, "ec", at).await;
    let end = super::servers::answer(
        Command::new("openssl")
            .args(["x509", "-noout", "-enddate", "-dateopt", "iso_8601", "-in"])
            .arg(at.join("ec.crt")),
    );
    let expected = bench.clock.now().after(Duration::from_secs(3605)).rfc3339_seconds().replace('T', " ");
    assert_eq!(end.unwrap(), format!("notAfter={expected}"));
}
