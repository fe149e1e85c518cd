//! `data/PATH`: the versions themselves.

use keepfast_framework::fields::{Int, Object, RawObject, Text, given};
use keepfast_framework::reply::{Described, Payload, Shaped};
use keepfast_framework::routes::Exists;
use keepfast_framework::{Cx, Error, Outcome, Result, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::config::Config;
use super::secret::{self, Record, Secret, Version, VersionShown};
use super::{Named, V2};
use crate::secrets::raw_json;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Read {
    /// Location of the secret.
    path: Text,
    /// Which version; the current one if it is not positive.
    version: Option<Int>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Write {
    /// Location of the secret.
    path: Text,
    /// The secret, or the merge patch of it.
    #[serde(default, deserialize_with = "given")]
    data: Option<RawObject>,
    /// `cas`: write only if this is the number of the current version; 0 if there is none.
    options: Option<Object>,
    /// Not used: a write makes the next version.
    #[allow(dead_code)]
    version: Option<Int>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Shown<'a> {
    /// The secret; null where it is deleted or destroyed.
    data: Option<&'a RawValue>,
    /// The version.
    metadata: VersionShown,
}

pub(super) async fn read(kv: &V2, cx: &mut Cx, req: Read) -> Result<Shaped<Shown<'static>>> {
    let shown = |metadata: VersionShown, data: Option<&RawValue>| Ok(to_raw_value(&Shown { data, metadata })?);
    show(kv, cx, &req.path, req.version, shown).await.map(Shaped::from)
}

/// Answers one version as `shown` makes it of its state and data; what is deleted or destroyed is 404 without the data.
///
/// # Errors
/// 404 when there is no such version; when storage fails.
pub(super) async fn show(
    kv: &V2,
    cx: &mut Cx,
    path: &str,
    wanted: Option<Int>,
    shown: impl FnOnce(VersionShown, Option<&RawValue>) -> Result<Box<RawValue>> + Send,
) -> Result<Outcome> {
    let bytes = secret::bytes(kv, cx, path).await?.ok_or_else(Error::not_found)?;
    let mut record = Record::parse(&bytes)?;
    let wanted = wanted.and_then(|n| u64::try_from(n.0).ok()).unwrap_or(0);
    let now = cx.now();
    let answer = |record: &mut Record<'_>, number: u64, version: &Version, data: Option<&RawValue>| {
        let gone = version.is_gone(now);
        let state = VersionShown::new(&mut record.metadata, number, version);
        let data = shown(state, data.filter(|_| !gone))?;
        Ok(payload(data, gone))
    };
    if wanted == 0 || wanted == record.metadata.current {
        let version = record.metadata.version.ok_or_else(Error::not_found)?;
        let (number, data) = (record.metadata.current, record.data);
        return answer(&mut record, number, &version, data);
    }
    let past = record.past()?;
    let at = past.binary_search_by_key(&wanted, |(number, _)| *number).map_err(|_| Error::not_found())?;
    let (number, version) = past[at];
    if version.is_gone(now) {
        return answer(&mut record, number, &version, None);
    }
    // It may have been pruned since the record was read.
    let data = secret::past_data(cx, path, number).await?.ok_or_else(Error::not_found)?;
    let data: Option<&RawValue> = serde_json::from_slice(&data)?;
    answer(&mut record, number, &version, data)
}

pub(super) async fn write(kv: &V2, cx: &mut Cx, req: Write) -> Result<Described<VersionShown>> {
    let data = provided(req.data)?;
    let config = Config::load(cx).await?;
    let mut secret = match Secret::load(kv, cx, &req.path).await? {
        Some(secret) => secret,
        None => Secret::new(cx.now()),
    };
    check_cas(req.options.as_ref(), &secret, &config)?;
    secret.push(cx, &req.path, data, &config);
    secret.save(kv, cx, &req.path)?;
    VersionShown::current(secret).map(Described)
}

pub(super) async fn patch(kv: &V2, cx: &mut Cx, req: Write) -> Result<Shaped<VersionShown>> {
    let patch = provided(req.data)?;
    let Some(mut secret) = Secret::load(kv, cx, &req.path).await? else {
        return Ok(nothing().into());
    };
    let Some(version) = secret.metadata.version else {
        return Ok(nothing().into());
    };
    let config = Config::load(cx).await?;
    check_cas(req.options.as_ref(), &secret, &config)?;
    if version.is_gone(cx.now()) {
        let data = to_raw_value(&VersionShown::current(secret)?)?;
        return Ok(payload(data, true).into());
    }
    let data = match &secret.data {
        Some(target) => raw_json::merge_patch(target, &patch)?,
        None => patch,
    };
    secret.push(cx, &req.path, data, &config);
    secret.save(kv, cx, &req.path)?;
    let data = to_raw_value(&VersionShown::current(secret)?)?;
    Ok(Outcome::of(data).into())
}

/// 404 without a list of errors.
pub(super) fn nothing() -> Outcome {
    Outcome::Empty(Some(Status::NOT_FOUND))
}

/// Data with status 404 where the version is gone.
fn payload(data: Box<RawValue>, gone: bool) -> Outcome {
    Outcome::Data(Payload { status: gone.then(|| Status::NOT_FOUND.into()), ..Payload::of(data) })
}

/// Marks the current version deleted.
pub(super) async fn delete(kv: &V2, cx: &mut Cx, req: Named) -> Result<()> {
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

/// A secret exists from the first write of data or metadata until its metadata is deleted, also when every version is.
pub(super) async fn exists(kv: &V2, cx: &mut Cx, req: Named) -> Result<Exists> {
    Ok(Exists(secret::bytes(kv, cx, &req.path).await?.is_some()))
}

fn provided(data: Option<RawObject>) -> Result<Box<RawValue>> {
    let data = data.ok_or_else(|| Error::invalid("no data provided"))?;
    raw_json::check_text(&data)?;
    Ok(data.0)
}

/// Whether the write may replace the current version.
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
