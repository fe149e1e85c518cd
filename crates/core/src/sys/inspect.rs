//! `sys/internal/inspect`: the tables of the router, if the configuration sets `introspection_endpoint`.

use std::collections::BTreeMap;

use keepfast_framework::fields::Text;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Error, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{System, unsealed};
use crate::mount::Mounted;

const ROUTER: Help = Help {
    synopsis: "Returns the tables of the router.",
    description: "The tables are root (by path), storage (by storage prefix), uuid and accessor. Requires introspection_endpoint = true in the configuration.",
};
const REQUEST: Help = Help { synopsis: "Not supported: returns 404.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("internal/inspect/router/{tag}", ROUTER).read(router).sudo().root_only();
    r.path("internal/inspect/request", REQUEST).read(request).sudo();
}

#[derive(Deserialize, JsonSchema)]
struct TagPath {
    /// Name of the table: `root`, `uuid`, `accessor` or `storage`.
    tag: Text,
}

/// A mount in the format of Vault.
#[derive(Serialize)]
struct MountInspection {
    accessor: String,
    mount_namespace: &'static str,
    mount_path: String,
    mount_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tainted: Option<bool>,
    uuid: String,
}

impl MountInspection {
    fn new(mounted: &Mounted, is_whole: bool) -> Self {
        let entry = &mounted.entry;
        MountInspection {
            accessor: entry.accessor.clone(),
            mount_namespace: "",
            mount_path: entry.shown_path().to_owned(),
            mount_type: entry.engine.clone(),
            storage_prefix: is_whole.then(|| mounted.storage_prefix()),
            tainted: is_whole.then_some(entry.leaving),
            uuid: entry.uuid.clone(),
        }
    }
}

async fn router(_: &System, cx: &mut Cx, req: TagPath) -> Result<Data<BTreeMap<String, Vec<MountInspection>>>> {
    let unsealed = unsealed(cx)?;
    let key: fn(&Mounted) -> String = match &*req.tag {
        "root" => |mounted| mounted.entry.path.clone(),
        "storage" => Mounted::storage_prefix,
        "uuid" => |mounted| mounted.entry.uuid.clone(),
        "accessor" => |mounted| mounted.entry.accessor.clone(),
        _ => return Err(Error::unsupported_path()),
    };
    require_introspection(unsealed.settings.introspection_endpoint)?;
    let is_whole = matches!(&*req.tag, "root" | "storage");
    let router = unsealed.engines.mounts.router();
    let by_key: BTreeMap<String, MountInspection> =
        router.all().map(|m| (key(m), MountInspection::new(m, is_whole))).collect();
    Ok(Data(BTreeMap::from([(req.tag.into(), by_key.into_values().collect())])))
}

async fn request(_: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    require_introspection(unsealed(cx)?.settings.introspection_endpoint)?;
    Err(Error::unsupported_path())
}

fn require_introspection(is_on: bool) -> Result<()> {
    if is_on {
        return Ok(());
    }
    Err(Error::invalid("the Vault configuration must set \"introspection_endpoint\" to true to enable this endpoint"))
}
