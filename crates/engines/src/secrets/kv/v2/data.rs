//! `data/PATH`: reads and writes versions.

use keepfast_framework::fields::{Int, Object, RawObject, Text, given};
use keepfast_framework::reply::{Described, Payload, Shaped};
use keepfast_framework::routes::Exists;
use keepfast_framework::{Cx, Error, Outcome, Result, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::config::Config;
use super::secret::{self, Record, Secret, Version, VersionResponse};
use super::{SecretPath, V2};
use crate::secrets::raw_json;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Read {
    /// Location of the secret.
    path: Text,
    /// Version to return. Default: the current version.
    version: Option<Int>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Write {
    /// Location of the secret.
    path: Text,
    /// The secret; in a patch, a JSON merge patch of it.
    #[serde(default, deserialize_with = "given")]
    data: Option<RawObject>,
    /// Options of the write. `cas`: the current version that the write replaces; 0 if the secret must not exist.
    options: Option<Object>,
    /// Ignored: a write creates the next version.
    #[allow(dead_code)]
    version: Option<Int>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct DataResponse<'a> {
    /// The secret; null if the version is deleted or destroyed.
    data: Option<&'a RawValue>,
    /// The state of the version.
    metadata: VersionResponse,
}

pub(super) async fn read(kv: &V2, cx: &mut Cx, req: Read) -> Result<Shaped<DataResponse<'static>>> {
    let render =
        |metadata: VersionResponse, data: Option<&RawValue>| Ok(to_raw_value(&DataResponse { data, metadata })?);
    respond_with_version(kv, cx, &req.path, req.version, render).await.map(Shaped::from)
}

/// Responds with one version, rendered by `render`. A deleted or destroyed version is a 404 with its metadata and without
/// data. The current version needs one read of storage, an older one two.
///
/// # Errors
/// 404 when the version does not exist; when storage fails.
pub(super) async fn respond_with_version(
    kv: &V2,
    cx: &mut Cx,
    path: &str,
    requested: Option<Int>,
    render: impl FnOnce(VersionResponse, Option<&RawValue>) -> Result<Box<RawValue>> + Send,
) -> Result<Outcome> {
    let bytes = secret::bytes(kv, cx, path).await?.ok_or_else(Error::not_found)?;
    let mut record = Record::parse(&bytes)?;
    let requested = requested.and_then(|n| u64::try_from(n.0).ok()).unwrap_or(0);
    let now = cx.now();
    let respond = |record: &mut Record<'_>, number: u64, version: &Version, data: Option<&RawValue>| {
        let is_gone = version.is_gone(now);
        let state = VersionResponse::new(&mut record.metadata, number, version);
        let data = render(state, data.filter(|_| !is_gone))?;
        Ok(payload(data, is_gone))
    };
    if requested == 0 || requested == record.metadata.current {
        let version = record.metadata.version.ok_or_else(Error::not_found)?;
        let (number, data) = (record.metadata.current, record.data);
        return respond(&mut record, number, &version, data);
    }
    let older = record.older()?;
    let at = older.binary_search_by_key(&requested, |(number, _)| *number).map_err(|_| Error::not_found())?;
    let (number, version) = older[at];
    if version.is_gone(now) {
        return respond(&mut record, number, &version, None);
    }
    // A write may have pruned the version since the record was read.
    let data = secret::older_data(cx, path, number).await?.ok_or_else(Error::not_found)?;
    let data: Option<&RawValue> = serde_json::from_slice(&data)?;
    respond(&mut record, number, &version, data)
}

pub(super) async fn write(kv: &V2, cx: &mut Cx, req: Write) -> Result<Described<VersionResponse>> {
    let data = required_data(req.data)?;
    let config = Config::load(cx).await?;
    let mut secret = match Secret::load(kv, cx, &req.path).await? {
        Some(secret) => secret,
        None => Secret::new(cx.now()),
    };
    check_cas(req.options.as_ref(), &secret, &config)?;
    secret.add_version(cx, &req.path, data, &config);
    secret.save(kv, cx, &req.path)?;
    VersionResponse::current(secret).map(Described)
}

pub(super) async fn patch(kv: &V2, cx: &mut Cx, req: Write) -> Result<Shaped<VersionResponse>> {
    let patch = required_data(req.data)?;
    let Some(mut secret) = Secret::load(kv, cx, &req.path).await? else {
        return Ok(bare_not_found().into());
    };
    let Some(version) = secret.metadata.version else {
        return Ok(bare_not_found().into());
    };
    let config = Config::load(cx).await?;
    check_cas(req.options.as_ref(), &secret, &config)?;
    if version.is_gone(cx.now()) {
        let data = to_raw_value(&VersionResponse::current(secret)?)?;
        return Ok(payload(data, true).into());
    }
    let data = match &secret.data {
        Some(target) => raw_json::merge_patch(target, &patch)?,
        None => patch,
    };
    secret.add_version(cx, &req.path, data, &config);
    secret.save(kv, cx, &req.path)?;
    let data = to_raw_value(&VersionResponse::current(secret)?)?;
    Ok(Outcome::of(data).into())
}

/// A 404 without a list of errors.
pub(super) fn bare_not_found() -> Outcome {
    Outcome::Empty(Some(Status::NOT_FOUND))
}

/// Data with status 404 where the version is gone.
fn payload(data: Box<RawValue>, is_gone: bool) -> Outcome {
    Outcome::Data(Payload { status: is_gone.then(|| Status::NOT_FOUND.into()), ..Payload::of(data) })
}

/// Marks the current version deleted.
pub(super) async fn delete(kv: &V2, cx: &mut Cx, req: SecretPath) -> Result<()> {
    let Some(mut secret) = Secret::load(kv, cx, &req.path).await? else {
        return Ok(());
    };
    let now = cx.now();
    match &mut secret.metadata.version {
        Some(version) if !version.is_gone(now) => version.deleted = Some(now),
        _ => return Ok(()),
    }
    secret.save(kv, cx, &req.path)
}

/// A secret exists from the first write of data or metadata until its metadata is deleted, even if all versions are
/// deleted.
pub(super) async fn exists(kv: &V2, cx: &mut Cx, req: SecretPath) -> Result<Exists> {
    Ok(Exists(secret::bytes(kv, cx, &req.path).await?.is_some()))
}

fn required_data(data: Option<RawObject>) -> Result<Box<RawValue>> {
    let data = data.ok_or_else(|| Error::invalid("no data provided"))?;
    raw_json::check_text(&data)?;
    Ok(data.0)
}

/// Checks that the write may replace the current version.
fn check_cas(options: Option<&Object>, secret: &Secret, config: &Config) -> Result<()> {
    let Some(cas) = options.and_then(|options| options.0.get("cas")) else {
        if config.cas_required || secret.metadata.settings.cas_required {
            return Err(Error::invalid("check-and-set parameter required for this call"));
        }
        return Ok(());
    };
    let Int(cas) = Int::deserialize(cas).map_err(|_| Error::invalid("error parsing check-and-set parameter"))?;
    if u64::try_from(cas) == Ok(secret.metadata.current) {
        Ok(())
    } else {
        Err(Error::invalid("check-and-set parameter did not match the current version"))
    }
}
