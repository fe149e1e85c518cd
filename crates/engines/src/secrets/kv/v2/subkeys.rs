//! `subkeys/PATH`: the names inside a secret without the values.

use keepfast_framework::fields::{Int, Text};
use keepfast_framework::reply::Shaped;
use keepfast_framework::{Cx, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::V2;
use super::data::respond_with_version;
use super::secret::VersionResponse;
use crate::secrets::raw_json;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Read {
    /// Location of the secret.
    path: Text,
    /// Version to return. Default: the current version.
    version: Option<Int>,
    /// Maximum number of levels; 0 for all. Default: 0.
    depth: Option<Int>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct SubkeysResponse {
    /// The state of the version.
    metadata: VersionResponse,
    /// The names; null if the version is deleted or destroyed.
    subkeys: Option<Box<RawValue>>,
}

pub(super) async fn read(kv: &V2, cx: &mut Cx, req: Read) -> Result<Shaped<SubkeysResponse>> {
    let depth = match req.depth {
        None => 0,
        // OpenBao shows one level for a negative number.
        Some(Int(depth)) => usize::try_from(depth).unwrap_or(1),
    };
    respond_with_version(kv, cx, &req.path, req.version, |metadata, data| {
        let subkeys = data.map(|data| raw_json::skeleton(data, depth)).transpose()?;
        Ok(to_raw_value(&SubkeysResponse { metadata, subkeys })?)
    })
    .await
    .map(Shaped::from)
}
