//! `sys/leases/`: what ends when. Today these are the leases of tokens.

use keepfast_framework::fields::Text;
use keepfast_framework::reply::WithStatus;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Error, Keys, Page, Result, Routes, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::System;
use crate::lease::index;
use crate::token::record::Life;

const HELP: Help = Help { synopsis: "Leases: look up, list, renew, revoke.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("leases/lookup", HELP).update(lookup);
    r.path("leases/lookup/{prefix...}/", HELP).list(list).sudo();
    r.paths(["leases/renew", "leases/renew/{url_lease_id...}", "renew", "renew/{url_lease_id...}"], HELP).update(renew);
    r.paths(["leases/revoke", "leases/revoke/{url_lease_id...}", "revoke", "revoke/{url_lease_id...}"], HELP).update(revoke);
    r.paths(["leases/revoke-prefix/{prefix...}", "revoke-prefix/{prefix...}"], HELP).update(revoke_prefix).sudo();
    r.paths(["leases/revoke-force/{prefix...}", "revoke-force/{prefix...}"], HELP).update(revoke_prefix).sudo();
    r.path("leases/tidy", HELP).update(tidy);
}

#[derive(Deserialize, JsonSchema)]
struct ById {
    /// The lease.
    lease_id: Option<Text>,
    /// The lease, in the path.
    url_lease_id: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
struct ByPrefix {
    /// The path that made the leases, or what it begins with.
    prefix: Text,
}

#[derive(Serialize)]
struct Shown {
    expire_time: Option<String>,
    id: String,
    issue_time: String,
    last_renewal: Option<String>,
    path: String,
    renewable: bool,
    ttl: u64,
}

fn id_of(req: ById) -> Result<String> {
    let id = req.lease_id.filter(|i| !i.is_empty()).or(req.url_lease_id).map(String::from).unwrap_or_default();
    if id.is_empty() { Err(Error::invalid("lease_id must be specified")) } else { Ok(id) }
}

async fn lookup(sys: &System, cx: &mut Cx, req: ById) -> Result<Data<Shown>> {
    let id = id_of(req)?;
    let invalid = || Error::invalid("invalid lease");
    let (path, key) = index::parse_lease_id(&id).ok_or_else(invalid)?;
    let now = cx.now();
    let token = sys.unsealed()?.tokens.at(&key, now).await?.filter(|t| t.record.path == path).ok_or_else(invalid)?;
    let record = &token.record;
    let Life::Until(end) = record.life else { return Err(invalid()) };
    Ok(Data(Shown {
        expire_time: Some(end.rfc3339()),
        id,
        issue_time: record.created.rfc3339(),
        last_renewal: record.last_renewal.map(|t| t.rfc3339()),
        path: record.path.clone(),
        renewable: record.renewable,
        ttl: record.ttl_at(now),
    }))
}

async fn list(sys: &System, _: &mut Cx, req: ByPrefix) -> Result<Keys> {
    let unsealed = sys.unsealed()?;
    let view = unsealed.barrier.view("token/");
    let prefix = req.prefix.trim_matches('/');
    let folder = if prefix.is_empty() { index::LEASES.to_owned() } else { format!("{}{prefix}/", index::LEASES) };
    let mut tx = unsealed.barrier.begin_read();
    Ok(Keys::of(tx.list(&view, &folder, &Page::all()).await?))
}

async fn renew(sys: &System, cx: &mut Cx, req: ById) -> Result<()> {
    let id = id_of(req)?;
    let known = match index::parse_lease_id(&id) {
        None => false,
        Some((path, key)) => sys.unsealed()?.tokens.at(&key, cx.now()).await?.is_some_and(|t| t.record.path == path),
    };
    // A token is renewed by its own path, which asks the method that made it.
    Err(Error::invalid(if known { "tokens cannot be renewed through this endpoint" } else { "lease not found" }))
}

async fn revoke(sys: &System, _: &mut Cx, req: ById) -> Result<()> {
    let id = id_of(req)?;
    let Some((path, key)) = index::parse_lease_id(&id) else { return Ok(()) };
    let unsealed = sys.unsealed()?;
    let mut tx = unsealed.barrier.begin_read();
    if unsealed.tokens.record(&mut tx, &key).await?.is_some_and(|r| r.path == path) {
        unsealed.tokens.revoke(&key).await?;
    }
    Ok(())
}

async fn revoke_prefix(sys: &System, _: &mut Cx, req: ByPrefix) -> Result<()> {
    sys.unsealed()?.revoke_prefix(req.prefix.trim_start_matches('/')).await
}

async fn tidy(sys: &System, cx: &mut Cx, _: Nothing) -> Result<WithStatus<()>> {
    let unsealed = sys.unsealed()?;
    unsealed.end_due(cx.now()).await?;
    unsealed.tokens.resume_collection().await?;
    cx.warn("Tidy operation successfully started. Any information from the operation will be printed to the server's logs.");
    Ok(WithStatus(Status(202), ()))
}
