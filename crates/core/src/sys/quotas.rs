//! `sys/quotas/`: rate limits of requests per client address.

use keepfast_framework::fields::{Flag, Float, Quoted, Seconds, Text};
use keepfast_framework::path_field::{PathText, PathTexts};
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Error, Keys, Records, Result, Routes};
use keepfast_storage::Page;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{System, unsealed};
use crate::admission::quota::{QuotaConfig, RateLimit};
use crate::admission::stored::{QUOTA_CONFIG, RATE_LIMITS, RATE_LIMITS_AT};
use crate::namespace::{NamespaceId, changes};
use crate::quota::target::Target;
use crate::unreadable;

const CONFIG: Help = Help { synopsis: "Configures all rate limit quotas.", description: "" };
const RATE: Help = Help {
    synopsis: "Configures a rate limit quota: the number of requests of a client address in an interval.",
    description: "A quota applies to the whole server, a namespace, a mount, a path, or a path prefix that ends in `*`. Only the most specific quota applies to a request.",
};

/// The most quotas of each type.
const MOST: usize = 1000;

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("quotas/config", CONFIG).read(read_config).update(write_config).root_only();
    r.path("quotas/rate-limit/", RATE).list(list).root_only();
    r.path("quotas/rate-limit/{name}", RATE).names_only().read(read).update(write).delete(delete).root_only();
}

#[derive(Deserialize, JsonSchema)]
struct WriteConfig {
    /// Paths that are exempt from all quotas; a path that ends in `*` or `/` is a prefix.
    rate_limit_exempt_paths: Option<PathTexts>,
    /// Whether refused requests are audited. Default: false.
    enable_rate_limit_audit_logging: Option<Flag>,
    /// Whether responses have the headers `X-Ratelimit-Limit`, `X-Ratelimit-Remaining` and `X-Ratelimit-Reset`.
    /// Default: false.
    enable_rate_limit_response_headers: Option<Flag>,
}

#[derive(Deserialize, JsonSchema)]
struct QuotaPath {
    /// Name of the quota.
    name: Text,
}

#[derive(Deserialize, JsonSchema)]
struct Write {
    /// Name of the quota.
    name: Text,
    /// Path of the quota. Default: the whole server.
    path: Option<PathText>,
    /// Maximum number of requests in an interval.
    rate: Option<Float>,
    /// Length of the interval in seconds. Default: 1.
    interval: Option<Seconds>,
    /// Time in seconds for which all requests of an address are refused after it exceeded the quota. Default: 0.
    block_interval: Option<Seconds>,
    /// Whether the quota applies to child namespaces. Default: true for the whole server, otherwise false.
    inheritable: Option<Flag>,
    /// Not supported: quotas are checked before the body is read, which contains the role of a login.
    role: Option<Text>,
    /// Ignored.
    #[serde(rename = "type")]
    #[allow(dead_code, reason = "named so that it is known")]
    kind: Option<Text>,
}

#[derive(Serialize)]
struct QuotaResponse {
    block_interval: u64,
    inheritable: bool,
    interval: u64,
    name: String,
    path: String,
    rate: serde_json::Number,
    role: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
}

async fn read_config(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<QuotaConfig>> {
    Ok(Data(QUOTA_CONFIG.get(cx, "").await?.unwrap_or_default()))
}

async fn write_config(_: &System, cx: &mut Cx, req: WriteConfig) -> Result<()> {
    let flag = |given: Option<Flag>| given.is_some_and(|f| f.0);
    let config = QuotaConfig {
        rate_limit_exempt_paths: req.rate_limit_exempt_paths.map(|p| p.0).unwrap_or_default(),
        enable_rate_limit_audit_logging: flag(req.enable_rate_limit_audit_logging),
        enable_rate_limit_response_headers: flag(req.enable_rate_limit_response_headers),
    };
    QUOTA_CONFIG.put(cx, "", &config)
}

async fn list(_: &System, cx: &mut Cx, _: Nothing) -> Result<Keys> {
    Ok(Keys::of(RATE_LIMITS.list(cx, "", &Page::default()).await?))
}

async fn read(_: &System, cx: &mut Cx, req: QuotaPath) -> Result<Option<Data<QuotaResponse>>> {
    let namespace = namespace(cx)?;
    let limit = RATE_LIMITS.get(cx, &req.name).await?.filter(|limit| limit.namespace == namespace);
    Ok(limit.map(|limit| {
        Data(QuotaResponse {
            block_interval: limit.block_interval,
            inheritable: limit.target.inheritable,
            interval: limit.interval,
            name: limit.name,
            path: limit.target.path,
            rate: number(limit.rate),
            role: "",
            kind: "rate-limit",
        })
    }))
}

/// A whole number without a fraction, as OpenBao writes it.
fn number(rate: f64) -> serde_json::Number {
    let whole = rate.fract() == 0.0 && rate < 9.0e15;
    let fraction = || serde_json::Number::from_f64(rate).unwrap_or_else(|| 0.into());
    if whole { (rate as u64).into() } else { fraction() }
}

async fn write(_: &System, cx: &mut Cx, req: Write) -> Result<()> {
    let rate = req.rate.map_or(0.0, |r| r.0);
    if rate <= 0.0 {
        return Err(Error::invalid("'rate' is invalid"));
    }
    let target = target(cx, req.path.unwrap_or_default().bare(), req.inheritable.map(|flag| flag.0)).await?;
    if req.role.is_some_and(|r| !r.is_empty()) {
        return Err(Error::invalid("quotas on roles are not supported by this server"));
    }
    let seconds = |given: Option<Seconds>| given.map_or(0, |s| s.0);
    let limit = RateLimit {
        namespace: namespace(cx)?,
        name: req.name.0,
        target,
        rate,
        interval: seconds(req.interval).max(1),
        block_interval: seconds(req.block_interval),
    };
    check_others(cx, (&RATE_LIMITS, RATE_LIMITS_AT, "rate limit quota"), (&limit.name, &limit.target), |other| {
        &other.target
    })
    .await?;
    RATE_LIMITS.put(cx, &limit.name, &limit)
}

/// Refuses a second quota with this path, and quotas beyond [`MOST`]. The reads are part of the transaction.
///
/// # Errors
/// 400 for such a quota; when storage fails.
pub(super) async fn check_others<T: Serialize + DeserializeOwned>(
    cx: &mut Cx,
    (records, folder, what): (&Records<T>, &str, &'static str),
    (name, target): (&str, &Target),
    target_of: impl Fn(&T) -> &Target,
) -> Result<()> {
    let (tx, view) = cx.store();
    let mut names = tx.list_verified(view, folder, &Page::all()).await?;
    names.retain(|other| other != name);
    for name in &names {
        let other = unreadable::read((records, what), tx, view, name).await?.readable();
        if other.is_some_and(|other| target_of(&other).path == target.path) {
            return Err(Error::invalid(format!("quota rule with similar properties exists under the name {name:?}")));
        }
    }
    if names.len() >= MOST {
        return Err(Error::invalid(format!("there can be no more than {MOST} quotas")));
    }
    Ok(())
}

async fn delete(_: &System, cx: &mut Cx, req: QuotaPath) -> Result<()> {
    RATE_LIMITS.delete(cx, &req.name);
    Ok(())
}

/// The namespace of the quotas that the caller sees.
pub(super) fn namespace(cx: &Cx) -> Result<NamespaceId> {
    Ok(unsealed(cx)?.engines.mounts.namespace.clone())
}

/// The target of a quota of this path. The namespace is read in the transaction, so that its deletion finds the quota.
///
/// # Errors
/// 400 for a path of no mount and no namespace.
pub(super) async fn target(cx: &mut Cx, bare: &str, inheritable: Option<bool>) -> Result<Target> {
    let unsealed = unsealed(cx)?;
    let folder = if bare.is_empty() { String::new() } else { format!("{bare}/") };
    let found = unsealed.access.namespaces()?.locate("", &folder).await?;
    let (inside, start) = found;
    let id = inside.access.namespace.id.clone();
    let record = changes::record_of(&unsealed, cx.store().0, &id).await?;
    if !id.is_root() && record.is_none_or(|record| record.deleting) {
        return Err(Error::invalid(format!("invalid mount path {}", Quoted(&folder))));
    }
    Target::new(bare, (id, start), &inside.engines.mounts.router(), inheritable)
}
