//! The settings of a key, shared by `kv metadata put` and `kv metadata patch`.

use keepfast_client::{Method, Request, duration};
use serde_json::{Map, Value};

use super::super::key_path::KeyPath;
use crate::args::{Flag, Kind};
use crate::command_error::Outcome;
use crate::cx::Cx;

pub(super) const CAS_REQUIRED: Flag =
    Flag::new("cas-required", Kind::Bool, "Whether every write needs check-and-set (-cas).");
pub(super) const CUSTOM_METADATA: Flag =
    Flag::new("custom-metadata", Kind::Pairs, "Custom metadata of the key; may be repeated.");
pub(super) const DELETE_VERSION_AFTER: Flag = Flag::new(
    "delete-version-after",
    Kind::Duration,
    "Time after which a version is deleted; at most the engine's limit.",
);
pub(super) const MAX_VERSIONS: Flag =
    Flag::new("max-versions", Kind::Int, "Number of versions to keep; 0 is the engine's default.");

/// Sends the settings from the flags.
pub(super) fn send(cx: &Cx, method: Method) -> Outcome {
    let session = cx.session()?;
    let key_path = KeyPath::find(cx, &session)?;
    key_path.need_versions("Metadata")?;
    let path = key_path.api("metadata");
    let request = Request::new(method, &path).with_body(Value::Object(given(cx)));
    match session.call(&format!("Error writing data to {path}"), &request)? {
        Some(secret) => cx.output.secret(&secret),
        None => {
            cx.output.success(&format!("Success! Data written to: {path}"));
            Ok(0)
        }
    }
}

fn given(cx: &Cx) -> Map<String, Value> {
    let mut settings = Map::new();
    if let Some(required) = cx.words.truth("cas-required") {
        settings.insert("cas_required".to_owned(), required.into());
    }
    if let Some(versions) = cx.words.int("max-versions").filter(|versions| *versions >= 0) {
        settings.insert("max_versions".to_owned(), versions.into());
    }
    if let Some(after) = cx.words.duration("delete-version-after") {
        settings.insert("delete_version_after".to_owned(), duration::format(after).into());
    }
    let mut custom = cx.words.pairs("custom-metadata");
    custom.extend(cx.words.list("remove-custom-metadata").into_iter().map(|key| (key.to_owned(), Value::Null)));
    if !custom.is_empty() {
        settings.insert("custom_metadata".to_owned(), Value::Object(custom));
    }
    settings
}
