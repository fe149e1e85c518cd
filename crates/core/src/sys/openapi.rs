//! `sys/internal/specs/openapi`: the OpenAPI document of the paths that the caller can reach.

use keepfast_framework::fields::{Flag, Text};
use keepfast_framework::openapi::{MountTable, document};
use keepfast_framework::reply::Raw;
use keepfast_framework::routes::Help;
use keepfast_framework::{Cx, Error, Kind, Result, Routes, Status};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{System, call, unsealed};

const HELP: Help = Help {
    synopsis: "Returns the OpenAPI document of the mounts that the caller has a capability on.",
    description: "",
};

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("internal/specs/openapi", HELP).read(read).update(read).unauthenticated().here();
}

/// Accepted for compatibility: the document has the paths as they are mounted.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code, reason = "named so that they are known")]
struct Form {
    /// Ignored.
    context: Option<Text>,
    /// Ignored: the paths contain the mount paths of this server.
    generic_mount_paths: Option<Flag>,
}

/// Without a token the document has no paths, so that it does not disclose the mounts.
async fn read(_: &System, cx: &mut Cx, _: Form) -> Result<Raw> {
    let unsealed = unsealed(cx)?;
    let router = unsealed.engines.mounts.router();
    let call = call(cx)?;
    // An invalid token is an error and not a request without a token.
    if call.id.is_some() && call.token.is_none() {
        return Err(Error::denied());
    }
    let compiled = call.compiled.clone();
    let now = cx.now();
    let reachable = router.all().filter(|m| {
        compiled.as_ref().is_some_and(|c| c.acl.reaches(&format!("{}{}", call.within(), m.entry.path), now))
    });
    let shown: Vec<MountTable<'_>> = reachable
        .map(|m| {
            let tag = match (m.entry.kind(), m.traits.in_core) {
                (Kind::Auth, _) => "auth",
                (Kind::Secrets, true) => "system",
                (Kind::Secrets, false) => "secrets",
            };
            MountTable { mount: &m.entry.path, tag, table: &m.table }
        })
        .collect();
    let body = serde_json::to_vec(&document(&unsealed.settings.version, &shown))?;
    Ok(Raw { status: Status::OK, content_type: "application/json", body, headers: Vec::new() })
}
