//! The Rust client `vaultrs` against a server. Each failed check is a line; the last line is `N passed, N failed`.
//!
//! `conformance-vaultrs URL TOKEN [POSTGRES_URL]`: the URL of PostgreSQL contains `{{username}}` and `{{password}}`.

mod auth;
mod engines;
mod system;

use std::future::Future;
use std::process::ExitCode;

use vaultrs::client::{VaultClient, VaultClientSettingsBuilder};

/// The error of a check as text.
pub type Outcome = Result<(), String>;

/// A server, and the results of its checks.
pub struct Bench {
    url: String,
    /// A client with the root token.
    pub root: VaultClient,
    passed: usize,
    failed: usize,
}

impl Bench {
    /// A client with another token.
    pub fn client(&self, token: &str) -> Result<VaultClient, String> {
        client(&self.url, token)
    }

    /// Counts one check.
    pub fn count(&mut self, name: &str, outcome: Outcome) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(why) => {
                self.failed += 1;
                println!("FAIL {name}: {why}");
            }
        }
    }
}

/// The response of a call, or its error as text.
pub async fn response<T>(call: impl Future<Output = Result<T, vaultrs::error::ClientError>>) -> Result<T, String> {
    call.await.map_err(|error| error.to_string())
}

/// Fails with `what` unless `condition` is true.
pub fn hold(condition: bool, what: &str) -> Outcome {
    if condition { Ok(()) } else { Err(what.to_owned()) }
}

fn client(url: &str, token: &str) -> Result<VaultClient, String> {
    let settings = VaultClientSettingsBuilder::default().address(url).token(token).build();
    VaultClient::new(settings.map_err(|e| e.to_string())?).map_err(|e| e.to_string())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, token, postgres @ ..] = &arguments[..] else {
        println!("conformance-vaultrs URL TOKEN [POSTGRES_URL]");
        return ExitCode::from(2);
    };
    let root = match client(url, token) {
        Ok(root) => root,
        Err(why) => {
            println!("FAIL no client: {why}");
            return ExitCode::FAILURE;
        }
    };
    let mut bench = Bench { url: url.clone(), root, passed: 0, failed: 0 };
    system::run(&mut bench).await;
    auth::run(&mut bench).await;
    engines::run(&mut bench, postgres.first().map(String::as_str)).await;
    println!("{} passed, {} failed", bench.passed, bench.failed);
    if bench.failed == 0 && bench.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
