//! `sys/config/cors`: the origins from which a browser may send requests to this server.

use keepfast_framework::fields::{CommaList, Flag};
use keepfast_framework::reply::Flat;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Error, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::System;
use crate::admission::cors::Cors;
use crate::admission::stored::CORS;

const HELP: Help =
    Help { synopsis: "Configures the origins from which browsers may send requests (CORS).", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("config/cors", HELP).read(read).update(write).delete(delete).sudo().root_only();
}

#[derive(Deserialize, JsonSchema)]
struct Write {
    /// Ignored: a write enables CORS, a delete disables it.
    #[allow(dead_code, reason = "named so that it is known")]
    enable: Option<Flag>,
    /// Comma-separated origins, or `*` alone for all.
    allowed_origins: Option<CommaList>,
    /// Comma-separated request headers that are allowed in addition to the standard ones.
    allowed_headers: Option<CommaList>,
}

#[derive(Serialize)]
struct CorsResponse {
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_credentials: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_headers: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_origins: Option<Vec<String>>,
    enabled: bool,
}

async fn read(_: &System, cx: &mut Cx, _: Nothing) -> Result<Flat<CorsResponse>> {
    let cors = CORS.get(cx, "").await?;
    Ok(Flat(match cors {
        None => CorsResponse { allow_credentials: None, allowed_headers: None, allowed_origins: None, enabled: false },
        Some(cors) => CorsResponse {
            allow_credentials: Some(false),
            allowed_headers: Some(cors.allowed_headers),
            allowed_origins: Some(cors.allowed_origins),
            enabled: true,
        },
    }))
}

async fn write(_: &System, cx: &mut Cx, req: Write) -> Result<()> {
    let list = |given: Option<CommaList>| given.map(|l| l.0).unwrap_or_default();
    let cors = Cors::new(list(req.allowed_origins), list(req.allowed_headers)).map_err(Error::invalid)?;
    CORS.put(cx, "", &cors)
}

async fn delete(_: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    CORS.delete(cx, "");
    Ok(())
}
