//! `sys/config/auditing/request-headers`: the request headers in audit entries.

use std::collections::BTreeMap;

use keepfast_framework::fields::{Flag, Text};
use keepfast_framework::reply::Flat;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Error, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::System;
use crate::admission::stored::HEADERS;

const HEADERS_HELP: Help = Help {
    synopsis: "Configures the request headers in audit entries.",
    description: "Headers that can contain a token always appear as an HMAC.",
};

/// Headers that carry a token: audit entries must not hold them in clear.
const TOKENS: &[&str] = &["x-vault-token", "authorization", "proxy-authorization", "cookie"];
/// The most headers in audit entries.
const MOST: usize = 100;

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("config/auditing/request-headers", HEADERS_HELP).read(list).sudo().root_only();
    r.path("config/auditing/request-headers/{header}", HEADERS_HELP)
        .final_slash()
        .read(read)
        .update(write)
        .delete(delete)
        .sudo()
        .root_only();
}

#[derive(Deserialize, JsonSchema)]
struct HeaderPath {
    /// Name of the header, not case-sensitive.
    header: Text,
}

#[derive(Deserialize, JsonSchema)]
struct HeaderRequest {
    /// Name of the header, not case-sensitive.
    header: Text,
    /// Whether audit entries contain the HMAC of the values instead of the values. Default: false.
    hmac: Option<Flag>,
}

#[derive(Serialize)]
struct HeaderSettings {
    hmac: bool,
}

#[derive(Serialize)]
struct HeadersResponse {
    headers: BTreeMap<String, HeaderSettings>,
}

async fn list(_: &System, cx: &mut Cx, _: Nothing) -> Result<Flat<HeadersResponse>> {
    let stored = HEADERS.get(cx, "").await?.unwrap_or_default();
    Ok(Flat(HeadersResponse {
        headers: stored.into_iter().map(|(name, hmac)| (name, HeaderSettings { hmac })).collect(),
    }))
}

async fn read(_: &System, cx: &mut Cx, req: HeaderPath) -> Result<Flat<BTreeMap<String, HeaderSettings>>> {
    let stored = HEADERS.get(cx, "").await?.unwrap_or_default();
    match stored.get(&req.header.to_ascii_lowercase()) {
        Some(&hmac) => Ok(Flat(BTreeMap::from([(req.header.0, HeaderSettings { hmac })]))),
        None => Err(Error::invalid("Could not find header in config")),
    }
}

async fn write(_: &System, cx: &mut Cx, req: HeaderRequest) -> Result<()> {
    let name = req.header.to_ascii_lowercase();
    let hmac = req.hmac.is_some_and(|h| h.0) || TOKENS.contains(&name.as_str());
    change(cx, move |all| {
        all.insert(name, hmac);
    })
    .await
}

async fn delete(_: &System, cx: &mut Cx, req: HeaderPath) -> Result<()> {
    let name = req.header.to_ascii_lowercase();
    change(cx, move |all| {
        all.remove(&name);
    })
    .await
}

async fn change(cx: &mut Cx, edit: impl FnOnce(&mut BTreeMap<String, bool>)) -> Result<()> {
    let mut all = HEADERS.get(cx, "").await?.unwrap_or_default();
    edit(&mut all);
    if all.len() > MOST {
        return Err(Error::invalid(format!("no more than {MOST} headers can be recorded")));
    }
    HEADERS.put(cx, "", &all)
}
