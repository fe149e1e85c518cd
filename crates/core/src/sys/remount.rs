//! `sys/remount`: moves a mount to another path.

use keepfast_crypto::random;
use keepfast_framework::fields::{Quoted, Text};
use keepfast_framework::path_field::{PathText, check_path};
use keepfast_framework::reply::Flat;
use keepfast_framework::routes::Help;
use keepfast_framework::{CanonicalPath, Cx, Data, Error, Kind, Records, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{System, reserved_paths, unsealed};
use crate::mount::mount_path;
use crate::namespace::changes::below;
use crate::unsealed::Unsealed;

const HELP: Help =
    Help { synopsis: "Moves a mount to another path, or returns the status of a move.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("remount", HELP).update(remount).sudo();
    r.path("remount/status/{migration_id}", HELP).final_slash().read(status);
}

/// A completed move, for later status requests.
#[derive(Serialize, Deserialize)]
struct Migration {
    source_mount: String,
    target_mount: String,
    status: String,
}

const MIGRATIONS: Records<Migration> = Records::at("migration/");

#[derive(Deserialize, JsonSchema)]
struct MoveRequest {
    /// Current path of the mount.
    from: Option<Text>,
    /// New path of the mount.
    to: Option<PathText>,
}

#[derive(Deserialize, JsonSchema)]
struct StatusPath {
    /// Migration id from the response to the move.
    migration_id: Text,
}

#[derive(Serialize)]
struct MoveResponse {
    migration_id: String,
}

#[derive(Serialize)]
struct RemountResponse {
    migration_id: String,
    migration_info: Migration,
}

/// A path of a request: `auth/x` is an auth method, any other path a secrets engine.
fn parse(bare: &str) -> Result<(Kind, String)> {
    if bare.is_empty() {
        return Err(Error::invalid("both 'from' and 'to' path must be specified as a string"));
    }
    Ok(match bare.strip_prefix(Kind::Auth.prefix()) {
        Some(rest) => (Kind::Auth, mount_path(Kind::Auth, rest)),
        None => (Kind::Secrets, mount_path(Kind::Secrets, bare)),
    })
}

/// The path of a mount to move. Older versions created mounts at paths that no new mount can have: such a mount is
/// named by exactly its path, and can only be moved away.
fn source(unsealed: &Unsealed, given: &str) -> Result<(Kind, String)> {
    let Err(fault) = check_path(given) else { return parse(given.trim_matches('/')) };
    let is_given = |path: &str| path == given || path.strip_suffix('/') == Some(given);
    let router = unsealed.engines.mounts.router();
    match router.all().find(|mounted| is_given(&mounted.entry.path)) {
        Some(mounted) => Ok((mounted.entry.kind(), mounted.entry.path.clone())),
        None => Err(Error::field("from", fault)),
    }
}

async fn remount(_: &System, cx: &mut Cx, req: MoveRequest) -> Result<Flat<MoveResponse>> {
    let (from, to) = (req.from.unwrap_or_default(), req.to.unwrap_or_default());
    let own = unsealed(cx)?;
    // Both paths may begin with a namespace below that of the request.
    let (unsealed, from) = below(&own, &from.0).await?;
    let (target, to) = below(&own, to.bare()).await?;
    if target.access.namespace.id != unsealed.access.namespace.id {
        return Err(Error::invalid("a mount cannot be moved to another namespace"));
    }
    let (from_kind, from) = source(&unsealed, from)?;
    let (to_kind, to) = parse(to)?;
    if from_kind != to_kind {
        return Err(Error::invalid(match from_kind {
            Kind::Auth => format!("cannot remount auth mount to non-auth mount {to:?}"),
            Kind::Secrets => format!("cannot remount to destination {to}"),
        }));
    }
    let registry = unsealed.engines.mounts.registry();
    let fixed = |path: &str| match from_kind {
        Kind::Secrets => reserved_paths::is_reserved(registry, path),
        Kind::Auth => reserved_paths::is_built_in(registry, Kind::Auth, path),
    };
    if fixed(&from) {
        return Err(Error::invalid(format!("cannot remount {from:?}")));
    }
    if fixed(&to) {
        return Err(Error::invalid(format!("cannot remount to destination {to}")));
    }
    // Also below itself: a mount covers every path below its own.
    if to.starts_with(&from) {
        return Err(Error::invalid(format!("path already in use at {from:?}")));
    }
    let moved = unsealed.engines.changes.change_mount(&from, |entry| {
        let router = unsealed.engines.mounts.router();
        if router
            .all()
            .any(|m| m.entry.uuid != entry.uuid && (m.entry.path.starts_with(&to) || to.starts_with(&m.entry.path)))
        {
            return Err(Error::invalid(format!("path already in use at {to:?}")));
        }
        entry.path = to.clone();
        Ok(())
    });
    moved.await?.ok_or_else(|| Error::invalid(format!("no matching mount at {}", Quoted(&from))))?;
    // Leases and tokens of the mount name its old path and are no longer accepted; this collects their records. No
    // request had a path below one that is not canonical, so nothing was issued there.
    if CanonicalPath::new(from.clone()).is_ok() {
        unsealed.leases.revoker.revoke_prefix(&from, crate::lease::revoke::RevokeMode::Now).await?;
    }
    let namespace = &unsealed.access.namespace.path;
    let migration_id = random::uuid();
    MIGRATIONS.put(
        cx,
        &migration_id,
        &Migration {
            source_mount: format!("{namespace}{from}"),
            target_mount: format!("{namespace}{to}"),
            status: "success".to_owned(),
        },
    )?;
    cx.warn("Mount move has been queued. Progress will be reported in the server's log, tagged with the returned migration_id");
    Ok(Flat(MoveResponse { migration_id }))
}

async fn status(_: &System, cx: &mut Cx, req: StatusPath) -> Result<Option<Data<RemountResponse>>> {
    let found = MIGRATIONS.get(cx, &req.migration_id).await?;
    Ok(found.map(|migration_info| Data(RemountResponse { migration_id: req.migration_id.into(), migration_info })))
}
