//! What `kv metadata put` and `kv metadata patch` share: the settings of a key.

use keepfast_client::{Method, Request, duration};
use serde_json::{Map, Value};

use super::super::place::Place;
use crate::args::{Flag, Kind};
use crate::cx::Cx;
use crate::halt::Outcome;

pub(super) const CAS_REQUIRED: Flag =
    Flag::new("cas-required", Kind::Bool, "Whether every write must say which version it replaces.");
pub(super) const CUSTOM_METADATA: Flag =
    Flag::new("custom-metadata", Kind::Pairs, "A remark about the key; may be repeated.");
pub(super) const DELETE_VERSION_AFTER: Flag =
    Flag::new("delete-version-after", Kind::Duration, "How long a version lives; at most what the engine allows.");
pub(super) const MAX_VERSIONS: Flag =
    Flag::new("max-versions", Kind::Int, "How many versions to keep; 0 is the engine's number.");

/// Sends the settings that were given.
pub(super) fn send(cx: &Cx, method: Method) -> Outcome {
    let session = cx.session()?;
    let place = Place::find(cx, &session)?;
    place.need_versions("Metadata")?;
    let path = place.api("metadata");
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
