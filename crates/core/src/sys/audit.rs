//! `sys/audit` and `sys/audit-hash`. Devices come from the configuration file; here they are only shown.

use keepfast_framework::fields::Text;
use keepfast_framework::reply::Flat;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Error, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::System;

const DEVICES: Help =
    Help { synopsis: "The audit devices.", description: "They are declared in the configuration file." };
const HASH: Help = Help { synopsis: "How a value appears in the entries of a device.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("audit", DEVICES).read(list).sudo();
    r.path("audit/{path...}", DEVICES).update(refuse).delete(refuse_delete).sudo();
    r.path("audit-hash/{path...}", HASH).update(hash);
}

#[derive(Deserialize, JsonSchema)]
struct Named {
    /// Path of the device.
    path: Text,
}

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Path of the device.
    path: Text,
    /// The value.
    input: Option<Text>,
}

#[derive(Serialize)]
struct Hash {
    hash: String,
}

async fn list(sys: &System, _: &mut Cx, _: Nothing) -> Result<Flat<Value>> {
    Ok(Flat(serde_json::to_value(sys.unsealed()?.audit.shown())?))
}

async fn refuse(_: &System, _: &mut Cx, _: Named) -> Result<()> {
    Err(Error::invalid(
        "cannot enable audit device via API; use declarative, config-based audit device management instead",
    ))
}

async fn refuse_delete(sys: &System, _: &mut Cx, req: Named) -> Result<()> {
    let known = sys.unsealed()?.audit.hash(&req.path, "").is_some();
    if !known {
        return Ok(());
    }
    Err(Error::invalid("cannot disable configuration-managed audit device"))
}

async fn hash(sys: &System, _: &mut Cx, req: Input) -> Result<Flat<Hash>> {
    let Some(input) = req.input.filter(|i| !i.is_empty()) else {
        return Err(Error::invalid("the \"input\" parameter is empty"));
    };
    let name = req.path.trim_matches('/');
    let hash = sys.unsealed()?.audit.hash(name, &input);
    hash.map(|hash| Flat(Hash { hash })).ok_or_else(|| Error::invalid(format!("unknown audit backend \"{name}/\"")))
}
