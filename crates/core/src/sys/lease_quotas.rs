//! `sys/quotas/lease-count/`: the largest number of leases and tokens of the whole server, a namespace, a mount or a path.

use keepfast_framework::fields::{Flag, Int, Text};
use keepfast_framework::path_field::PathText;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Error, Keys, Result, Routes};
use keepfast_storage::Page;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::System;
use super::quotas::{check_others, namespace, target};
use crate::lease::quotas::{self, LeaseQuota, QUOTAS, QUOTAS_AT};

const HELP: Help = Help {
    synopsis: "Configures a lease count quota: the largest number of leases, and of service tokens with an expiry.",
    description: "A quota applies to the whole server, a namespace, a mount, a path, or a path prefix that ends in `*`. Only the most specific quota counts a lease. A new quota first counts the leases that exist; `initializing` is true meanwhile.",
};

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("quotas/lease-count/", HELP).list(list).root_only();
    r.path("quotas/lease-count/{name}", HELP).names_only().read(read).update(write).delete(delete).root_only();
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
    /// Largest number of leases.
    max_leases: Option<Int>,
    /// Whether the quota applies to child namespaces. Default: true for the whole server, otherwise false.
    inheritable: Option<Flag>,
    /// Not supported.
    role: Option<Text>,
    /// Ignored.
    #[serde(rename = "type")]
    #[allow(dead_code, reason = "named so that it is known")]
    kind: Option<Text>,
}

#[derive(Serialize)]
struct QuotaResponse {
    counter: i64,
    inheritable: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    initializing: bool,
    max_leases: u64,
    name: String,
    path: String,
    role: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
}

async fn list(_: &System, cx: &mut Cx, _: Nothing) -> Result<Keys> {
    Ok(Keys::of(QUOTAS.list(cx, "", &Page::default()).await?))
}

async fn read(_: &System, cx: &mut Cx, req: QuotaPath) -> Result<Option<Data<QuotaResponse>>> {
    let namespace = namespace(cx)?;
    let quota = QUOTAS.get(cx, &req.name).await?.filter(|quota| quota.namespace == namespace);
    let Some(quota) = quota else { return Ok(None) };
    let (tx, view) = cx.store();
    Ok(Some(Data(QuotaResponse {
        counter: quotas::counted(tx, view, &quota).await?,
        inheritable: quota.target.inheritable,
        initializing: quotas::is_recounting(tx, view).await?,
        max_leases: quota.max_leases,
        name: quota.name,
        path: quota.target.path,
        role: "",
        kind: "lease-count",
    })))
}

async fn write(_: &System, cx: &mut Cx, req: Write) -> Result<()> {
    let max_leases = req.max_leases.map_or(0, |max| max.0);
    let max_leases = u64::try_from(max_leases).ok().filter(|max| *max > 0);
    let max_leases = max_leases.ok_or_else(|| Error::invalid("'max_leases' is invalid"))?;
    if req.role.is_some_and(|role| !role.is_empty()) {
        return Err(Error::invalid("quotas on roles are not supported by this server"));
    }
    let target = target(cx, req.path.unwrap_or_default().bare(), req.inheritable.map(|flag| flag.0)).await?;
    let quota = LeaseQuota { namespace: namespace(cx)?, name: req.name.0, target, max_leases, counter: String::new() };
    check_others(cx, (&QUOTAS, QUOTAS_AT, "lease count quota"), (&quota.name, &quota.target), |other| &other.target)
        .await?;
    let (tx, view) = cx.store();
    quotas::put(tx, view, quota).await
}

async fn delete(_: &System, cx: &mut Cx, req: QuotaPath) -> Result<()> {
    let (tx, view) = cx.store();
    quotas::delete(tx, view, &req.name).await
}
