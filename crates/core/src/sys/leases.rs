//! `sys/leases/`: looks up, lists, renews and revokes leases, counts them and reports the largest users.

use std::collections::BTreeMap;
use std::time::Duration;

use keepfast_framework::fields::{Flag, Seconds, Text, given};
use keepfast_framework::reply::{RenewedLease, WithStatus};
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Error, Keys, Outcome, Page, Result, Routes, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{System, lease_top, unsealed};
use crate::lease::index::{self, LeaseName};
use crate::lease::record::{LeaseId, LeaseRecord, State};
use crate::lease::revoke::RevokeMode;
use crate::token::record::TokenExpiry;

const HELP: Help = Help { synopsis: "Looks up, lists, renews and revokes leases.", description: "" };
const IRREVOCABLE_HELP: Help = Help {
    synopsis: "Lists or counts the leases that could not be revoked.",
    description: "Requires type=irrevocable. A revocation of such a lease is a new attempt.",
};
const TOP: Help = Help {
    synopsis: "Lists the mounts, paths and entities with the most leases.",
    description: "In descending order. The counts by mount and path are exact; those by entity are a sample of at most 10,000 leases.",
};
const QUARANTINE: Help = Help {
    synopsis: "Returns, starts or ends the quarantine of leases.",
    description: "Under quarantine no lease is revoked and no credential is rotated. It starts when the data directory was restored or copied, because the leases may then belong to credentials that the original server still manages. An operator ends it.",
};
/// Names per storage page.
const PAGE: usize = 500;

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("leases", IRREVOCABLE_HELP).read(irrevocable).sudo();
    r.path("leases/count", IRREVOCABLE_HELP).read(count);
    r.path("leases/lookup", HELP).update(lookup).here();
    r.path("leases/lookup/{prefix...}/", HELP).list(list).sudo();
    r.paths(["leases/renew", "leases/renew/{url_lease_id...}", "renew", "renew/{url_lease_id...}"], HELP)
        .final_slash()
        .update(renew);
    r.paths(["leases/revoke", "leases/revoke/{url_lease_id...}", "revoke", "revoke/{url_lease_id...}"], HELP)
        .final_slash()
        .update(revoke);
    r.paths(["leases/revoke-prefix/{prefix...}", "revoke-prefix/{prefix...}"], HELP)
        .final_slash()
        .update(revoke_prefix)
        .sudo();
    r.paths(["leases/revoke-force/{prefix...}", "revoke-force/{prefix...}"], HELP)
        .final_slash()
        .update(revoke_force)
        .sudo();
    r.path("leases/tidy", HELP).update(tidy);
    r.path("leases/top", TOP).read(lease_top::top).sudo();
    r.path("leases/quarantine", QUARANTINE).read(read_quarantine).update(set_quarantine).sudo();
}

#[derive(Deserialize, JsonSchema)]
struct LeaseRequest {
    /// Id of the lease.
    #[serde(default, deserialize_with = "lease_text")]
    lease_id: Option<Text>,
    /// Id of the lease, in the path.
    url_lease_id: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
struct RenewRequest {
    /// Id of the lease.
    #[serde(default, deserialize_with = "lease_text")]
    lease_id: Option<Text>,
    /// Id of the lease, in the path.
    url_lease_id: Option<Text>,
    /// Requested TTL from now, in seconds. Default: the default TTL of the engine.
    increment: Option<Seconds>,
}

#[derive(Deserialize, JsonSchema)]
struct RevokeRequest {
    /// Id of the lease.
    #[serde(default, deserialize_with = "lease_text")]
    lease_id: Option<Text>,
    /// Id of the lease, in the path.
    url_lease_id: Option<Text>,
    /// Whether the response waits for the revocation and reports its failure. Default: true.
    #[serde(default, deserialize_with = "given")]
    sync: Option<Flag>,
}

#[derive(Deserialize, JsonSchema)]
struct PrefixPath {
    /// Prefix of the lease ids.
    prefix: Text,
}

#[derive(Deserialize, JsonSchema)]
struct RevokePrefixRequest {
    /// Prefix of the lease ids.
    prefix: Text,
    /// Whether the response waits for the revocations and reports a failure. Default: true.
    #[serde(default, deserialize_with = "given")]
    sync: Option<Flag>,
}

#[derive(Deserialize, JsonSchema)]
struct IrrevocableRequest {
    /// Required: `irrevocable`.
    #[serde(rename = "type")]
    kind: Option<Text>,
    /// Maximum number of leases; `none` for no limit. Default: 10000.
    limit: Option<Text>,
    /// Ignored: there are no child namespaces.
    #[serde(rename = "include_child_namespaces")]
    _children: Option<Flag>,
}

#[derive(Deserialize, JsonSchema)]
struct CountRequest {
    /// Required: `irrevocable`.
    #[serde(rename = "type")]
    kind: Option<Text>,
    /// Ignored: there are no child namespaces.
    #[serde(rename = "include_child_namespaces")]
    _children: Option<Flag>,
}

#[derive(Deserialize, JsonSchema)]
struct SetQuarantine {
    /// Whether leases are under quarantine.
    enabled: Flag,
}

#[derive(Serialize)]
struct LeaseResponse {
    expire_time: Option<String>,
    id: String,
    issue_time: String,
    last_renewal: Option<String>,
    path: String,
    renewable: bool,
    ttl: u64,
}

/// Reads a lease id of a body, which must be a text; any other value gives [`NO_LEASE`].
fn lease_text<'de, D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Option<Text>, D::Error> {
    // The raw JSON: read as a value, some numbers would become texts.
    let sent = Box::<serde_json::value::RawValue>::deserialize(d)?;
    Ok(match sent.get() {
        "null" => None,
        raw => Some(Text(serde_json::from_str(raw).unwrap_or_else(|_| NO_LEASE.to_owned()))),
    })
}

/// A lease id that no lease has: no path holds a control character.
const NO_LEASE: &str = "\u{0}";

fn id_of(req: LeaseRequest) -> Result<String> {
    if req.lease_id.as_deref() == Some(NO_LEASE) {
        return Err(Error::invalid("invalid lease ID"));
    }
    let given = |id: Option<Text>| id.map(String::from).filter(|id| !id.is_empty());
    match (given(req.url_lease_id), given(req.lease_id)) {
        // Policies were evaluated on the path, so only the lease of the path may be changed.
        (Some(in_path), Some(id)) if in_path != id => Err(Error::invalid("lease_id names another lease than the path")),
        (Some(id), _) | (None, Some(id)) => Ok(id),
        (None, None) => Err(Error::invalid("lease_id must be specified")),
    }
}

async fn lookup(_: &System, cx: &mut Cx, req: LeaseRequest) -> Result<Data<LeaseResponse>> {
    let started = cx.now();
    let found = found(cx, req).await;
    unsealed(cx)?.observability.metrics.leases.fetch_times.record(cx.now().since(started));
    found
}

async fn found(cx: &mut Cx, req: LeaseRequest) -> Result<Data<LeaseResponse>> {
    let id = id_of(req)?;
    let invalid = || Error::invalid("invalid lease");
    let now = cx.now();
    match index::parse_lease_id(&id).ok_or_else(invalid)? {
        (path, LeaseName::Token(key)) => {
            let token = unsealed(cx)?
                .access
                .tokens
                .at(&key, now)
                .await?
                .filter(|t| t.record.path == path)
                .ok_or_else(invalid)?;
            let record = &token.record;
            let TokenExpiry::At(end) = record.expiry else { return Err(invalid()) };
            Ok(Data(LeaseResponse {
                expire_time: Some(end.rfc3339()),
                path: path.to_owned(),
                issue_time: record.created.rfc3339(),
                last_renewal: record.last_renewal.map(|t| t.rfc3339()),
                renewable: record.renewable,
                ttl: record.ttl_at(now),
                id,
            }))
        }
        (path, LeaseName::Lease(key)) => {
            let found = unsealed(cx)?.leases.store.at(path, &key).await?;
            let record = found.filter(|r| r.state != State::Pending).ok_or_else(invalid)?;
            Ok(Data(LeaseResponse {
                expire_time: Some(record.end.rfc3339()),
                path: path.to_owned(),
                issue_time: record.issued.rfc3339(),
                last_renewal: record.last_renewal.map(|t| t.rfc3339()),
                renewable: record.renewable && record.state == State::Live,
                ttl: record.end.since(now).as_secs(),
                id,
            }))
        }
    }
}

async fn list(_: &System, cx: &mut Cx, req: PrefixPath) -> Result<Keys> {
    Ok(Keys::of(unsealed(cx)?.leases.store.below(req.prefix.trim_matches('/'), &Page::all()).await?))
}

async fn renew(_: &System, cx: &mut Cx, req: RenewRequest) -> Result<Outcome> {
    let id = id_of(LeaseRequest { lease_id: req.lease_id, url_lease_id: req.url_lease_id })?;
    let unsealed = unsealed(cx)?;
    let unknown = || Error::invalid("lease not found");
    match index::parse_lease_id(&id).ok_or_else(unknown)? {
        (path, LeaseName::Token(key)) => {
            let known = unsealed.access.tokens.at(&key, cx.now()).await?.is_some_and(|t| t.record.path == path);
            // Tokens are renewed at `auth/token/renew`, which calls the auth method that issued them.
            Err(if known { Error::invalid("tokens cannot be renewed through this endpoint") } else { unknown() })
        }
        (path, LeaseName::Lease(key)) => {
            let increment = req.increment.map_or(Duration::ZERO, Seconds::duration);
            let granted = unsealed.leases.renewer.renew_lease(&super::call(cx)?.permit, path, &key, increment).await?;
            granted.warnings.iter().for_each(|w| cx.warn(w.clone()));
            let renewed = RenewedLease { id: granted.id, ttl: granted.ttl.as_secs(), renewable: granted.renewable };
            Ok(Outcome::Renewed(Box::new(renewed)))
        }
    }
}

async fn revoke(sys: &System, cx: &mut Cx, req: RevokeRequest) -> Result<WithStatus<()>> {
    let status = accepted(req.sync);
    revoke_one(sys, cx, req).await.map(|()| WithStatus(status, ()))
}

/// The status of a revocation: 202 when the caller does not wait for it.
fn accepted(sync: Option<Flag>) -> Status {
    if sync.is_some_and(|s| !s.0) { Status(202) } else { Status::NO_CONTENT }
}

async fn revoke_one(_: &System, cx: &mut Cx, req: RevokeRequest) -> Result<()> {
    let id = id_of(LeaseRequest { lease_id: req.lease_id, url_lease_id: req.url_lease_id })?;
    let unsealed = unsealed(cx)?;
    match index::parse_lease_id(&id) {
        None => Ok(()),
        Some((path, LeaseName::Token(key))) => {
            let mut tx = unsealed.barrier.begin_read();
            if unsealed.access.tokens.record(&mut tx, &key).await?.is_some_and(|r| r.path == path) {
                unsealed.access.tokens.revoke(&key).await?;
            }
            Ok(())
        }
        Some((path, LeaseName::Lease(key))) => unsealed.leases.revoker.revoke_lease(path, &key, mode(req.sync)).await,
    }
}

fn mode(sync: Option<Flag>) -> RevokeMode {
    if sync.is_some_and(|s| s.0) { RevokeMode::Now } else { RevokeMode::Queued }
}

async fn revoke_prefix(_: &System, cx: &mut Cx, req: RevokePrefixRequest) -> Result<WithStatus<()>> {
    unsealed(cx)?.leases.revoker.revoke_prefix(req.prefix.trim_start_matches('/'), mode(req.sync)).await?;
    Ok(WithStatus(accepted(req.sync), ()))
}

async fn revoke_force(_: &System, cx: &mut Cx, req: PrefixPath) -> Result<()> {
    unsealed(cx)?.leases.revoker.revoke_prefix(req.prefix.trim_start_matches('/'), RevokeMode::Forced).await
}

async fn tidy(_: &System, cx: &mut Cx, _: Nothing) -> Result<WithStatus<()>> {
    let unsealed = unsealed(cx)?;
    let now = cx.now();
    tokio::spawn(async move {
        match unsealed.leases.tidier.tidy(now).await {
            Ok(dropped) => tracing::info!(dropped, "the tidy of leases has finished"),
            Err(error) => tracing::error!(%error, "tidying leases failed"),
        }
    });
    cx.warn(
        "Tidy operation successfully started. Any information from the operation will be printed to the server's logs.",
    );
    Ok(WithStatus(Status(202), ()))
}

#[derive(Serialize)]
struct Irrevocable {
    lease_id: String,
    mount_id: String,
    error: String,
}

#[derive(Serialize)]
struct IrrevocableResponse {
    lease_count: usize,
    leases: Vec<Irrevocable>,
}

#[derive(Serialize)]
struct CountResponse {
    counts: BTreeMap<String, usize>,
    lease_count: usize,
}

async fn irrevocable(_: &System, cx: &mut Cx, req: IrrevocableRequest) -> Result<Option<Data<IrrevocableResponse>>> {
    if req.kind.as_ref().is_none_or(|k| k.0 != "irrevocable") {
        return Ok(None);
    }
    let limit = match req.limit.as_ref().map(|l| l.0.as_str()) {
        None | Some("") => 10_000,
        Some("none") => usize::MAX,
        Some(number) => number
            .parse()
            .ok()
            .filter(|limit| *limit > 0)
            .ok_or_else(|| Error::invalid("limit must be 'none' or a positive integer"))?,
    };
    let unsealed = unsealed(cx)?;
    let mut leases = Vec::new();
    for (mount_id, id) in irrevocable_ids(cx, limit).await? {
        let found = unsealed.leases.store.record(&mut unsealed.barrier.begin_read(), &id).await;
        let (lease_id, error) = match found {
            Ok(Some(LeaseRecord { state: State::Irrevocable { error }, path, .. })) => {
                (format!("{path}/{}", id.as_str()), error)
            }
            Ok(_) => continue,
            // The path is part of the record that cannot be read.
            Err(_) => (id.as_str().to_owned(), "the record of the lease cannot be read".to_owned()),
        };
        leases.push(Irrevocable { lease_id, mount_id, error });
    }
    Ok(Some(Data(IrrevocableResponse { lease_count: leases.len(), leases })))
}

async fn count(_: &System, cx: &mut Cx, req: CountRequest) -> Result<Option<Data<CountResponse>>> {
    if req.kind.as_ref().is_none_or(|k| k.0 != "irrevocable") {
        return Ok(None);
    }
    let mut counts = BTreeMap::new();
    let unsealed = unsealed(cx)?;
    for mount in unsealed.leases.store.irrevocable_mounts().await? {
        let mut page = Page::first(PAGE);
        let mut counted = 0;
        loop {
            let names = unsealed.leases.store.of_mount(index::IRREVOCABLE, &mount, &page).await?;
            counted += names.len();
            page.after = names.last().cloned();
            if names.len() < PAGE {
                break;
            }
        }
        counts
            .insert(unsealed.engines.mounts.with_leaving(&mount).map_or(mount, |m| m.entry.accessor.clone()), counted);
    }
    Ok(Some(Data(CountResponse { lease_count: counts.values().sum(), counts })))
}

/// At most `limit` irrevocable leases, with the accessors of their mounts, or the stored mount id if the mount is gone.
async fn irrevocable_ids(cx: &Cx, limit: usize) -> Result<Vec<(String, LeaseId)>> {
    let unsealed = unsealed(cx)?;
    let mut out = Vec::new();
    for mount in unsealed.leases.store.irrevocable_mounts().await? {
        let page = Page::first(limit - out.len());
        let names = unsealed.leases.store.of_mount(index::IRREVOCABLE, &mount, &page).await?;
        let accessor = unsealed.engines.mounts.with_leaving(&mount).map_or(mount, |m| m.entry.accessor.clone());
        out.extend(names.iter().filter_map(|n| LeaseId::parse(n)).map(|id| (accessor.clone(), id)));
    }
    Ok(out)
}

#[derive(Serialize)]
struct QuarantineResponse {
    enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

async fn read_quarantine(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<QuarantineResponse>> {
    let unsealed = unsealed(cx)?;
    let found = unsealed.leases.store.quarantine().await?;
    let since = found.as_ref().map(|q| q.since.rfc3339());
    Ok(Data(QuarantineResponse {
        enabled: unsealed.leases.store.is_quarantined(),
        since,
        reason: found.map(|q| q.reason),
    }))
}

async fn set_quarantine(_: &System, cx: &mut Cx, req: SetQuarantine) -> Result<()> {
    unsealed(cx)?.leases.store.set_quarantine(req.enabled.0, cx.now()).await
}
