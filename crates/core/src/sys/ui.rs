//! `sys/internal/ui/`: requests that user interfaces and command-line clients send before others.

use std::collections::BTreeMap;

use keepfast_framework::fields::Text;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Error, Page, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::mount_response::MountResponse;
use super::{System, call, unsealed};
use crate::mount::Mounted;
use crate::namespace::changes::below;
use crate::namespace::directory::children;

const HELP: Help = Help {
    synopsis: "Lists the mounts that the caller has a capability on, or reads one of them.",
    description: "Without a token it lists the mounts with listing_visibility = unauth.",
};
const ACL: Help =
    Help { synopsis: "Returns the union of the caller's policies, by path.", description: "For user interfaces." };
const NAMESPACES: Help = Help { synopsis: "Lists the namespaces that the caller can access.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("internal/ui/mounts", HELP).read(mounts).unauthenticated();
    r.path("internal/ui/mounts/{path...}", HELP).name_may_end_in_slash().read(mount).unauthenticated();
    r.path("internal/ui/resultant-acl", ACL).read(resultant_acl);
    r.path("internal/ui/namespaces", NAMESPACES).read(namespaces).unauthenticated();
}

#[derive(Deserialize, JsonSchema)]
struct MountPath {
    /// Path of the mount, or a path below it.
    path: Text,
}

#[derive(Serialize)]
struct Mounts {
    auth: BTreeMap<String, Visible>,
    secret: BTreeMap<String, Visible>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Visible {
    Whole(Box<MountResponse>),
    Outline {
        description: String,
        options: Option<BTreeMap<String, String>>,
        #[serde(rename = "type")]
        engine: String,
    },
}

/// Whether the caller has any capability on the mount or below it. `namespace` is the path of its namespace in that of the
/// request.
fn may_see(cx: &Cx, namespace: &str, mounted: &Mounted) -> bool {
    let Ok(call) = call(cx) else { return false };
    let Some(compiled) = &call.compiled else { return false };
    compiled.acl.reaches(&format!("{}{namespace}{}", call.within(), mounted.entry.path), cx.now())
}

async fn mounts(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<Mounts>> {
    // A request with a token lists the mounts of that token, and fails with an invalid one.
    let own = call(cx)?;
    if own.id.is_some() && own.token.is_none() {
        return Err(Error::denied());
    }
    let unsealed = unsealed(cx)?;
    let router = unsealed.engines.mounts.router();
    let mut out = Mounts { auth: BTreeMap::new(), secret: BTreeMap::new() };
    for mounted in router.all() {
        let entry = &mounted.entry;
        let shown = if may_see(cx, "", mounted) {
            Visible::Whole(Box::new(MountResponse::new(mounted, None)))
        } else if entry.config.listing_visibility == "unauth" {
            Visible::Outline {
                description: entry.description.clone(),
                options: entry.options.clone(),
                engine: entry.engine.clone(),
            }
        } else {
            continue;
        };
        let side = if entry.auth { &mut out.auth } else { &mut out.secret };
        side.insert(entry.shown_path().to_owned(), shown);
    }
    Ok(Data(out))
}

async fn resultant_acl(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<Value>> {
    let (call, unsealed) = (call(cx)?, unsealed(cx)?);
    let compiled = call.compiled.as_ref().ok_or_else(Error::denied)?;
    let namespace = call.token.as_ref().map(|token| unsealed.access.namespace.path_of(&token.record.namespace));
    Ok(Data(compiled.acl.resultant(namespace.unwrap_or_default(), cx.now())))
}

async fn mount(_: &System, cx: &mut Cx, req: MountPath) -> Result<Data<MountResponse>> {
    let unsealed = unsealed(cx)?;
    if call(cx)?.token.is_none() {
        return Err(Error::denied());
    }
    let path = format!("{}/", req.path.trim_end_matches('/'));
    let (inside, within) = below(&unsealed, &path).await?;
    let router = inside.engines.mounts.router();
    let namespace = &path[..path.len() - within.len()];
    let found = router.find(within).filter(|(m, _)| may_see(cx, namespace, m));
    let Some((mounted, _)) = found else {
        return Err(Error::new(
            keepfast_framework::Status::FORBIDDEN,
            format!(
                "preflight capability check returned 403, please ensure client's policies grant access to path {path:?}"
            ),
        ));
    };
    let shown = format!("{namespace}{}", mounted.entry.shown_path());
    Ok(Data(MountResponse::new(mounted, Some(shown))))
}

/// The namespaces directly below that of the request in which the caller has any capability.
async fn namespaces(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<Value>> {
    let (call, unsealed) = (call(cx)?, unsealed(cx)?);
    if call.token.is_none() {
        return Err(Error::denied());
    }
    let (directory, own) = (&unsealed.observability.directory, &unsealed.access.namespace);
    let mut names = Vec::new();
    for name in children(directory, &mut unsealed.barrier.begin_read(), &own.id, &Page::all()).await? {
        let path = format!("{}{name}/", call.within());
        if call.compiled.as_ref().is_some_and(|compiled| compiled.acl.reaches(&path, cx.now())) {
            names.push(format!("{name}/"));
        }
    }
    Ok(Data(if names.is_empty() { json!({}) } else { json!({ "keys": names }) }))
}
