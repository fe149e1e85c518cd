//! The contents of a snapshot file, read without a server.

use std::sync::Arc;

use keepfast_core::cluster::snapshots::{SealedContents, UnsealedContents};
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::clock::SystemClock;
use keepfast_framework::{Error, Query};

/// The type of the engine whose secrets are read.
const ENGINE: &str = "kv";

/// Unseals the contents of a snapshot with shares in hex or base64.
///
/// # Errors
/// A text for the operator: other shares, or a damaged snapshot.
pub async fn unseal_snapshot(contents: SealedContents, shares: &[SecretString]) -> Result<UnsealedContents, String> {
    contents.unseal(shares, keepfast_engines::all(), Arc::new(SystemClock)).await.map_err(text)
}

/// Reads a path of a KV engine, as a request would: the JSON of the response, `None` where there is nothing. `version` is
/// that of a secret; `None` is the current one.
///
/// # Errors
/// A text for the operator: no such mount, or a damaged snapshot.
pub async fn read_kv(
    contents: &UnsealedContents,
    path: &str,
    version: Option<i64>,
) -> Result<Option<SecretBytes>, String> {
    let query: Query = version.map(|version| ("version".to_owned(), version.to_string())).into_iter().collect();
    contents.read(ENGINE, path, query).await.map_err(text)
}

fn text(error: Error) -> String {
    error.cause().map_or_else(|| error.public().to_owned(), ToString::to_string)
}
