//! `sys/audit` and `sys/audit-hash`. Audit devices are declared in the configuration file; with
//! `unsafe_allow_api_audit_creation = true` these endpoints create and delete further ones.

use keepfast_framework::fields::{Flag, Pairs, Quoted, Text};
use keepfast_framework::reply::Flat;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Error, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{System, unsealed};
use crate::audit::stored_devices;
use crate::layout::AUDIT_STORAGE;
use crate::settings::AuditSettings;

const DEVICES: Help = Help {
    synopsis: "Lists, enables or disables audit devices.",
    description: "Audit devices are declared in the configuration file. With unsafe_allow_api_audit_creation = true in that file they can be enabled and disabled here too.",
};
const HASH: Help =
    Help { synopsis: "Returns the HMAC of a value as it appears in the entries of an audit device.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("audit", DEVICES).read(list).sudo().root_only();
    r.path("audit/{path...}", DEVICES).name_may_end_in_slash().update(create).delete(delete).sudo().root_only();
    r.path("audit-hash/{path...}", HASH).final_slash().update(hash).here().root_only();
}

#[derive(Deserialize, JsonSchema)]
struct DevicePath {
    /// Path of the audit device.
    path: Text,
}

#[derive(Deserialize, JsonSchema)]
struct Create {
    /// Path of the audit device.
    path: Text,
    /// Type of the audit device: `file`.
    #[serde(rename = "type")]
    device: Option<Text>,
    /// Description of the audit device.
    description: Option<Text>,
    /// Options of the audit device, such as `file_path`.
    options: Option<Pairs>,
    /// Whether the audit device is local to this cluster. Default: false.
    local: Option<Flag>,
}

#[derive(Deserialize, JsonSchema)]
struct HashRequest {
    /// Path of the audit device.
    path: Text,
    /// The value to hash.
    input: Option<Text>,
}

#[derive(Serialize)]
struct HashResponse {
    hash: String,
}

async fn list(_: &System, cx: &mut Cx, _: Nothing) -> Result<Flat<Value>> {
    Ok(Flat(serde_json::to_value(unsealed(cx)?.observability.audit.to_response())?))
}

async fn create(_: &System, cx: &mut Cx, req: Create) -> Result<()> {
    let unsealed = unsealed(cx)?;
    if !unsealed.settings.allow_api_audit_creation {
        return Err(Error::invalid(
            "cannot enable audit device via API; use declarative, config-based audit device management instead",
        ));
    }
    let settings = AuditSettings {
        device: req.device.map(String::from).unwrap_or_default(),
        name: req.path.trim_matches('/').to_owned(),
        description: req.description.map(String::from).unwrap_or_default(),
        options: req.options.map(|options| options.0).unwrap_or_default(),
    };
    let local = req.local.is_some_and(|local| local.0);
    let view = unsealed.barrier.view(AUDIT_STORAGE);
    let tx = cx.store().0;
    stored_devices::create(&unsealed.observability.audit, tx, &view, settings, local, &unsealed.settings).await
}

async fn delete(_: &System, cx: &mut Cx, req: DevicePath) -> Result<()> {
    let unsealed = unsealed(cx)?;
    let name = req.path.trim_matches('/').to_owned();
    if unsealed.observability.audit.is_declared(&name) {
        return Err(Error::invalid("cannot disable configuration-managed audit device"));
    }
    let view = unsealed.barrier.view(AUDIT_STORAGE);
    stored_devices::delete(cx.store().0, &view, &name).await
}

async fn hash(_: &System, cx: &mut Cx, req: HashRequest) -> Result<Flat<HashResponse>> {
    let Some(input) = req.input.filter(|i| !i.is_empty()) else {
        return Err(Error::invalid("the \"input\" parameter is empty"));
    };
    let name = req.path.trim_matches('/');
    let hash = unsealed(cx)?.observability.audit.hash(name, &input);
    hash.map(|hash| Flat(HashResponse { hash }))
        .ok_or_else(|| Error::invalid(format!("unknown audit backend {}", Quoted(&format!("{name}/")))))
}
