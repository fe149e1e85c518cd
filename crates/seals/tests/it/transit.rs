//! transit against OpenBao and Keepfast, and each of them sealed by the transit engine of the other.

use std::path::Path;
use std::process::Command;

use keepfast_crypto::random;
use keepfast_framework::seal::SealErrorClass;
use serde_json::{Value, json};

use crate::program::{Running, free_port, program};
use crate::{call, seal};

/// A server with a transit engine at `seal/`, a key `k`, and a token that may use it.
pub(crate) struct Transit {
    pub(crate) _running: Running,
    pub(crate) url: String,
    pub(crate) token: String,
}

/// Calls a server as `root`; returns status and body.
pub(crate) async fn api(method: &str, url: &str, path: &str, body: Value) -> (u16, Value) {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let (status, body) = call(method, &format!("{url}/v1/{path}"), &[("x-vault-token", "root")], &text).await;
    (status, serde_json::from_str(&body).unwrap_or_default())
}

pub(crate) async fn done(method: &str, url: &str, path: &str, body: Value) -> Value {
    let (status, body) = api(method, url, path, body).await;
    assert!((200..300).contains(&status), "{method} {path}: {status} {body}");
    body
}

async fn with_engine(running: Running, url: String) -> Transit {
    done("POST", &url, "sys/mounts/seal", json!({"type": "transit"})).await;
    done("POST", &url, "seal/keys/k", json!({})).await;
    let policy = "path \"seal/encrypt/*\" { capabilities = [\"update\"] } path \"seal/decrypt/*\" { capabilities = [\"update\"] }";
    done("PUT", &url, "sys/policies/acl/seal", json!({"policy": policy})).await;
    let request = json!({"policies": ["seal"], "period": "1h", "no_parent": true});
    let created = done("POST", &url, "auth/token/create", request).await;
    let token = created["auth"]["client_token"].as_str().unwrap().to_owned();
    Transit { _running: running, url, token }
}

pub(crate) async fn openbao() -> Option<Transit> {
    let binary = program("BAO", &[".cache/venv/bin/bao"])?;
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(binary);
    command.args(["server", "-dev", "-dev-no-store-token", "-dev-root-token-id=root"]);
    command.arg(format!("-dev-listen-address={address}"));
    let running = Running::start(&mut command, false, "Development mode should NOT");
    Some(with_engine(running, format!("http://{address}")).await)
}

pub(crate) async fn keepfast() -> Option<Transit> {
    let binary = program("KEEPFAST", &["target/release/keepfast", "target/debug/keepfast"])?;
    let mut command = Command::new(binary);
    command.args(["server", "-dev", "-dev-json", "-dev-no-store-token", "-dev-root-token-id=root"]);
    let running = Running::start(command.arg("-dev-listen-address=127.0.0.1:0"), false, "\"address\"");
    let banner: Value = serde_json::from_str(&running.line).unwrap();
    let url = banner["address"].as_str().unwrap().to_owned();
    Some(with_engine(running, url).await)
}

async fn wraps_and_follows_the_key(server: Transit) {
    let keys = |key: &'static str| {
        [("address", server.url.as_str()), ("token", &server.token), ("mount_path", "seal/"), ("key_name", key)]
    };
    let transit = seal("transit", &keys("k"), &[]);
    let key = random::key();
    let first = transit.wrap(&key).await.unwrap();
    assert_eq!(first.key_id, "k:v1");
    done("POST", &server.url, "seal/keys/k/rotate", json!({})).await;
    assert_eq!(transit.wrap(&key).await.unwrap().key_id, "k:v2");
    assert_eq!(transit.unwrap(&first).await.unwrap().expose(), key.expose());
    done("POST", &server.url, "seal/keys/k/config", json!({"min_decryption_version": 2})).await;
    assert_eq!(transit.unwrap(&first).await.err().unwrap().class, SealErrorClass::WrongKey);
    // A misspelt key is not created by a token without `create`.
    let error = seal("transit", &keys("typo"), &[]).wrap(&random::key()).await.err().unwrap();
    assert!(matches!(error.class, SealErrorClass::Denied | SealErrorClass::WrongKey), "{error}");
    assert_eq!(api("GET", &server.url, "seal/keys/typo", Value::Null).await.0, 404);
    // A revoked token is denied.
    done("POST", &server.url, "auth/token/revoke", json!({"token": server.token})).await;
    assert_eq!(transit.wrap(&random::key()).await.err().unwrap().class, SealErrorClass::Denied);
}

#[tokio::test]
async fn transit_wraps_with_openbao() {
    if let Some(server) = openbao().await {
        wraps_and_follows_the_key(server).await;
    }
}

#[tokio::test]
async fn transit_wraps_with_keepfast() {
    if let Some(server) = keepfast().await {
        wraps_and_follows_the_key(server).await;
    }
}

/// Starts an OpenBao or a Keepfast whose seal is the transit engine of a server.
fn sealed_server(binary: &Path, directory: &Path, by: &Transit) -> (Running, String) {
    let (api, cluster) = (free_port(), free_port());
    let (url, token) = (&by.url, &by.token);
    let configuration = format!(
        "storage \"raft\" {{\n path = \"{}\"\n node_id = \"n\"\n}}\n\
         listener \"tcp\" {{\n address = \"127.0.0.1:{api}\"\n tls_disable = true\n}}\n\
         api_addr = \"http://127.0.0.1:{api}\"\n cluster_addr = \"https://127.0.0.1:{cluster}\"\n\
         seal \"transit\" {{\n address = \"{url}\"\n token = \"{token}\"\n key_name = \"k\"\n mount_path = \"seal/\"\n}}\n",
        directory.display()
    );
    let file = directory.join("c.hcl");
    std::fs::write(&file, configuration).unwrap();
    let mut command = Command::new(binary);
    command.arg("server").arg(format!("-config={}", file.display()));
    (Running::start(&mut command, false, "server started"), format!("http://127.0.0.1:{api}"))
}

#[tokio::test]
async fn openbao_is_sealed_by_the_transit_engine_of_keepfast() {
    let Some(binary) = program("BAO", &[".cache/venv/bin/bao"]) else { return };
    let Some(server) = keepfast().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let (running, url) = sealed_server(&binary, directory.path(), &server);
    let shares = json!({"recovery_shares": 1, "recovery_threshold": 1});
    let (status, body) = api("PUT", &url, "sys/init", shares).await;
    assert_eq!((status, body["recovery_keys"].as_array().map(Vec::len)), (200, Some(1)), "{body}");
    drop(running);
    done("POST", &server.url, "seal/keys/k/rotate", json!({})).await;
    let (_running, url) = sealed_server(&binary, directory.path(), &server);
    // The start waits for the seal, and unseals beside the listener.
    let status = status_when(&url, "sealed", &json!(false)).await;
    assert_eq!(status["type"], json!("transit"), "{status}");
}

/// The seal status once a field has this value.
async fn status_when(url: &str, field: &str, value: &Value) -> Value {
    for _ in 0..5000 {
        let status = api("GET", url, "sys/seal-status", Value::Null).await.1;
        if status[field] == *value {
            return status;
        }
    }
    panic!("{field} does not become {value}");
}

#[tokio::test]
async fn keepfast_is_sealed_by_openbao_and_opened_by_its_recovery_keys() {
    let Some(binary) = program("KEEPFAST", &["target/release/keepfast", "target/debug/keepfast"]) else { return };
    let Some(server) = openbao().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let (running, url) = sealed_server(&binary, directory.path(), &server);
    let created = done("PUT", &url, "sys/init", json!({"recovery_shares": 1, "recovery_threshold": 1})).await;
    let recovery_key = created["recovery_keys"][0].clone();
    status_when(&url, "sealed", &json!(false)).await;
    drop(running);
    done("POST", &server.url, "seal/keys/k/rotate", json!({})).await;
    let (running, url) = sealed_server(&binary, directory.path(), &server);
    let status = status_when(&url, "sealed", &json!(false)).await;
    assert_eq!((&status["type"], &status["recovery_seal"]), (&json!("transit"), &json!(true)), "{status}");
    drop(running);
    // Without its seal it waits, and says why.
    done("POST", &server.url, "seal/keys/k/config", json!({"deletion_allowed": true})).await;
    done("DELETE", &server.url, "seal/keys/k", Value::Null).await;
    let (_running, url) = sealed_server(&binary, directory.path(), &server);
    let status = status_when(&url, "sealed_reason", &json!("wrong_key")).await;
    assert_eq!(status["sealed"], json!(true), "{status}");
    done("PUT", &url, "sys/unseal", json!({"key": recovery_key})).await;
    status_when(&url, "sealed", &json!(false)).await;
}
