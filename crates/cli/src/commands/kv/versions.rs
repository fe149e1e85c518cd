//! The operation on versions of a key, shared by `kv undelete` and `kv destroy`.

use keepfast_client::{Method, Request};
use serde_json::json;

use super::key_path::KeyPath;
use crate::args::{Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::MOUNT;

/// The flags for versions.
pub(super) const FLAGS: FlagSet = FlagSet {
    title: "Command",
    flags: &[MOUNT, Flag::new("versions", Kind::List, "Numbers of versions, separated by commas; may be repeated.")],
};

/// The versions of the flag.
pub(super) fn named(cx: &Cx) -> Vec<&str> {
    cx.words
        .list("versions")
        .into_iter()
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .filter(|version| !version.is_empty())
        .collect()
}

/// Sends the versions to a part of the engine.
pub(super) fn act(cx: &Cx, part: &str, what: &str) -> Outcome {
    let versions = named(cx);
    if versions.is_empty() {
        return Err(CommandError::usage(format!(
            "No versions provided, use the \"-versions\" flag to specify the version to {part}."
        )));
    }
    let session = cx.session()?;
    let key_path = KeyPath::find(cx, &session)?;
    key_path.need_versions(what)?;
    let path = key_path.api(part);
    let request = Request::new(Method::Put, &path).with_body(json!({ "versions": versions }));
    match session.call(&format!("Error writing data to {path}"), &request)? {
        Some(secret) => cx.output.secret(&secret),
        None => {
            cx.output.success(&format!("Success! Data written to: {path}"));
            Ok(0)
        }
    }
}
