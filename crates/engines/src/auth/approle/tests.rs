//! AppRole on a bench, compared with responses of OpenBao.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod expiry;
mod login;
mod openbao;
mod roles;
mod secret_ids;
mod stored;
mod timing;

use keepfast_framework::Result;
use keepfast_framework::testing::{Bench, BenchResponse};
use serde_json::{Value, json};

use super::AppRole;

/// The method at a mount with these roles; the role id of each is its name followed by `-id`.
async fn bench(roles: &[(&str, Value)]) -> Bench {
    let bench = Bench::new::<AppRole>().await.unwrap();
    for (name, body) in roles {
        let mut body = body.clone();
        body["role_id"] = json!(format!("{name}-id"));
        bench.write(&format!("role/{name}"), body).await.unwrap();
    }
    bench
}

/// Status and text of a refusal.
fn refusal(result: Result<BenchResponse>) -> (u16, String) {
    let error = result.err().expect("a refusal");
    (error.status().0, error.public().to_owned())
}

/// Registers a secret id and returns its accessor.
async fn register(bench: &Bench, role: &str, secret_id: &str, more: Value) -> String {
    let mut body = more;
    body["secret_id"] = json!(secret_id);
    let made = bench.write(&format!("role/{role}/custom-secret-id"), body).await.unwrap().data();
    made["secret_id_accessor"].as_str().unwrap().to_owned()
}

/// A login with the role that [`bench`] created under this name.
async fn login(bench: &Bench, role: &str, secret_id: &str) -> Result<BenchResponse> {
    bench.write("login", json!({ "role_id": format!("{role}-id"), "secret_id": secret_id })).await
}
