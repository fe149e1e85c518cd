//! The mounts of the server, for commands that analyze policies.

use keepfast_client::{Method, Request};
use keepfast_server::policy_analysis::KnownMount;
use serde_json::Value;

use crate::command_error::CommandError;
use crate::cx::Cx;

/// All mounts of the server; none where the token may not list them, or no server responds.
pub(super) fn known_mounts(cx: &Cx) -> Result<Option<Vec<KnownMount>>, CommandError> {
    let session = cx.session()?;
    let mut mounts = Vec::new();
    for (path, prefix) in [("sys/mounts", ""), ("sys/auth", "auth/")] {
        let Ok(Some(secret)) = session.preflight(Request::new(Method::Get, path)) else { return Ok(None) };
        for (path, mount) in secret.data.unwrap_or_default() {
            let Some(engine) = mount.get("type").and_then(Value::as_str) else { continue };
            let options = mount.get("options").and_then(Value::as_object).into_iter().flatten();
            let options = options.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
            mounts.push(KnownMount {
                path: format!("{prefix}{path}"),
                engine: engine.to_owned(),
                options: options.collect(),
            });
        }
    }
    Ok(Some(mounts))
}
