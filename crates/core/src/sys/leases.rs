//! `sys/leases/`: looks up, lists, renews and revokes leases, counts them and reports the largest users.

use std::collections::BTreeMap;
use std::time::Duration;

use keepfast_framework::fields::{Flag, Seconds, Text, given};
use keepfast_framework::reply::{RenewedLease, WithStatus};
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::rows::RunsIn;
use keepfast_framework::{Cx, Data, Error, Keys, Outcome, Page, Result, Routes, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{System, lease_top, unsealed};
use crate::lease::index::{self, LeaseName};
use crate::lease::record::{LeaseId, State};
use crate::lease::revoke::RevokeMode;
use crate::token::TokenRecord;
use crate::token::record::TokenExpiry;
use crate::unsealed::Unsealed;

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
    r.path("leases/lookup", HELP).runs_in(RunsIn::Id("lease_id")).update(lookup).here();
    r.path("leases/lookup/{prefix...}/", HELP).list(list).sudo();
    r.paths(["leases/renew", "leases/renew/{url_lease_id...}", "renew", "renew/{url_lease_id...}"], HELP)
        .runs_in(RunsIn::Id("lease_id"))
        .final_slash()
        .update(renew);
    r.paths(["leases/revoke", "leases/revoke/{url_lease_id...}", "revoke", "revoke/{url_lease_id...}"], HELP)
        .runs_in(RunsIn::Id("lease_id"))
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
    r.path("leases/quarantine", QUARANTINE).read(read_quarantine).update(set_quarantine).sudo().root_only();
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
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace_path: Option<String>,
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

/// Splits the id of a lease of the namespace of the call; `None` for an invalid one and one of another namespace.
fn parse_own(unsealed: &Unsealed, id: &str) -> Option<(String, LeaseName)> {
    let own = unsealed.access.namespace.id.own(id)?;
    index::parse_lease_id(own).map(|(path, name)| (path.to_owned(), name))
}

/// The path of the namespace of the call; `None` for root.
fn path_of(unsealed: &Unsealed) -> Option<String> {
    Some(unsealed.access.namespace.path.to_string()).filter(|path| !path.is_empty())
}

/// Whether a token is of the namespace of the call, and was created at this path.
fn is_own(unsealed: &Unsealed, record: &TokenRecord, path: &str) -> bool {
    record.namespace == unsealed.access.namespace.id && record.path == path
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
    let unsealed = unsealed(cx)?;
    match parse_own(&unsealed, &id).ok_or_else(invalid)? {
        (path, LeaseName::Token(key)) => {
            let found = unsealed.access.tokens.at(&key, now).await?;
            let token = found.filter(|t| is_own(&unsealed, &t.record, &path)).ok_or_else(invalid)?;
            let record = &token.record;
            let TokenExpiry::At(end) = record.expiry else { return Err(invalid()) };
            Ok(Data(LeaseResponse {
                expire_time: Some(end.rfc3339()),
                path,
                issue_time: record.created.rfc3339(),
                last_renewal: record.last_renewal.map(|t| t.rfc3339()),
                renewable: record.renewable,
                namespace_path: path_of(&unsealed),
                ttl: record.ttl_at(now),
                id,
            }))
        }
        (path, LeaseName::Lease(key)) => {
            let found = unsealed.leases.store.at(&unsealed.access.namespace.id, &path, &key).await?;
            let record = found.filter(|r| r.state != State::Pending).ok_or_else(invalid)?;
            Ok(Data(LeaseResponse {
                expire_time: Some(record.end.rfc3339()),
                path,
                issue_time: record.issued.rfc3339(),
                last_renewal: record.last_renewal.map(|t| t.rfc3339()),
                renewable: record.renewable && record.state == State::Live,
                namespace_path: path_of(&unsealed),
                ttl: record.end.since(now).as_secs(),
                id,
            }))
        }
    }
}

async fn list(_: &System, cx: &mut Cx, req: PrefixPath) -> Result<Keys> {
    let unsealed = unsealed(cx)?;
    let namespace = &unsealed.access.namespace.id;
    let mut names = unsealed.leases.store.below(namespace, req.prefix.trim_matches('/'), &Page::all()).await?;
    for name in names.iter_mut().filter(|name| !name.ends_with('/')) {
        name.push_str(&namespace.suffix());
    }
    Ok(Keys::of(names))
}

async fn renew(_: &System, cx: &mut Cx, req: RenewRequest) -> Result<Outcome> {
    let id = id_of(LeaseRequest { lease_id: req.lease_id, url_lease_id: req.url_lease_id })?;
    let unsealed = unsealed(cx)?;
    let unknown = || Error::invalid("lease not found");
    match parse_own(&unsealed, &id).ok_or_else(unknown)? {
        (path, LeaseName::Token(key)) => {
            let found = unsealed.access.tokens.at(&key, cx.now()).await?;
            let known = found.is_some_and(|t| is_own(&unsealed, &t.record, &path));
            // Tokens are renewed at `auth/token/renew`, which calls the auth method that issued them.
            Err(if known { Error::invalid("tokens cannot be renewed through this endpoint") } else { unknown() })
        }
        (path, LeaseName::Lease(key)) => {
            let increment = req.increment.map_or(Duration::ZERO, Seconds::duration);
            let granted = unsealed.leases.renewer.renew_lease(&super::call(cx)?.permit, &path, &key, increment).await?;
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
    match parse_own(&unsealed, &id) {
        None => Ok(()),
        Some((path, LeaseName::Token(key))) => {
            let mut tx = unsealed.barrier.begin_read();
            if unsealed.access.tokens.record(&mut tx, &key).await?.is_some_and(|r| is_own(&unsealed, &r, &path)) {
                unsealed.access.tokens.revoke(&key).await?;
            }
            Ok(())
        }
        Some((path, LeaseName::Lease(key))) => unsealed.leases.revoker.revoke_lease(&path, &key, mode(req.sync)).await,
    }
}

fn mode(sync: Option<Flag>) -> RevokeMode {
    if sync.is_some_and(|s| s.0) { RevokeMode::Now } else { RevokeMode::Queued }
}

async fn revoke_prefix(_: &System, cx: &mut Cx, req: RevokePrefixRequest) -> Result<WithStatus<()>> {
    let unsealed = unsealed(cx)?;
    let prefix = own_prefix(&unsealed, &req.prefix);
    unsealed.leases.revoker.revoke_prefix(prefix, mode(req.sync)).await?;
    Ok(WithStatus(accepted(req.sync), ()))
}

async fn revoke_force(_: &System, cx: &mut Cx, req: PrefixPath) -> Result<()> {
    let unsealed = unsealed(cx)?;
    unsealed.leases.revoker.revoke_prefix(own_prefix(&unsealed, &req.prefix), RevokeMode::Forced).await
}

/// A prefix of lease ids, or a whole one, without the suffix of the namespace.
fn own_prefix<'a>(unsealed: &Unsealed, prefix: &'a str) -> &'a str {
    let prefix = prefix.trim_start_matches('/');
    unsealed.access.namespace.id.own(prefix).unwrap_or(prefix)
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
            Ok(Some(record)) => match &record.state {
                State::Irrevocable { error } => (record.full_id(&id), error.clone()),
                _ => continue,
            },
            Ok(None) => continue,
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
    for mount in irrevocable_mounts(&unsealed).await? {
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

/// The mounts of the namespace of the call that have irrevocable leases; in root also those that are gone.
async fn irrevocable_mounts(unsealed: &Unsealed) -> Result<Vec<String>> {
    let (leases, namespace) = (&unsealed.leases.store, &unsealed.access.namespace.id);
    let mut own = Vec::new();
    for mount in leases.irrevocable_mounts().await? {
        if unsealed.engines.mounts.with_leaving(&mount).is_some() {
            own.push(mount);
            continue;
        }
        let first = leases.of_mount(index::IRREVOCABLE, &mount, &Page::first(1)).await?;
        let Some(id) = first.first().and_then(|name| LeaseId::parse(name)) else { continue };
        let record = leases.record(&mut leases.begin_read(), &id).await;
        // Nobody can know the namespace of a lease that cannot be read.
        if record.map_or(namespace.is_root(), |record| record.is_some_and(|record| record.namespace == *namespace)) {
            own.push(mount);
        }
    }
    Ok(own)
}

/// At most `limit` irrevocable leases, with the accessors of their mounts, or the stored mount id if the mount is gone.
async fn irrevocable_ids(cx: &Cx, limit: usize) -> Result<Vec<(String, LeaseId)>> {
    let unsealed = unsealed(cx)?;
    let mut out = Vec::new();
    for mount in irrevocable_mounts(&unsealed).await? {
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
