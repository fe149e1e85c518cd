//! The engine at `identity/`, and the context of its handlers.

use std::sync::Arc;

use keepfast_framework::fields::{Quoted, Text};
use keepfast_framework::routes::Paged;
use keepfast_framework::{Cx, Error, Keys, Page, Records, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use super::record::Reference;
use super::store::Identity;
use crate::request::dispatch::CoreCall;
use crate::unsealed::Unsealed;

/// The engine at `identity/`.
pub(crate) struct IdentityEngine;

/// The core data of the call.
pub(super) fn call(cx: &Cx) -> Result<Arc<CoreCall>> {
    cx.core::<CoreCall>().ok_or_else(|| Error::internal("an identity request without core's part"))
}

/// The unsealed server that authorized the call.
pub(super) fn unsealed(cx: &Cx) -> Result<Arc<Unsealed>> {
    Ok(call(cx)?.unsealed.clone())
}

/// The records of identity.
pub(super) fn identity(cx: &Cx) -> Result<Arc<Identity>> {
    Ok(call(cx)?.unsealed.access.identity.clone())
}

/// A text that is given and not empty.
pub(super) fn named(text: Option<Text>) -> Option<String> {
    text.map(|Text(text)| text).filter(|text| !text.is_empty())
}

/// Checks that an accessor is that of a mount.
pub(super) fn checked_accessor(unsealed: &Unsealed, accessor: &str) -> Result<()> {
    match unsealed.engines.mounts.router().by_accessor(accessor) {
        Some(_) => Ok(()),
        None => Err(Error::invalid(format!("invalid mount accessor {}", Quoted(accessor)))),
    }
}

/// The id in a path.
#[derive(Deserialize, JsonSchema)]
pub(super) struct ById {
    /// Id of the entity, alias or group.
    pub(super) id: Text,
}

/// The name in a path.
#[derive(Deserialize, JsonSchema)]
pub(super) struct ByName {
    /// Name of the entity or group.
    pub(super) name: Text,
}

/// The maximum number of records in the response to a list without a limit.
const MOST_LISTED: usize = 100_000;

/// The page of a list.
pub(super) fn page_of(paged: Paged) -> Page {
    let page = paged.page();
    // One more than allowed, so that a longer list is refused and not cut.
    Page { limit: Some(page.limit.unwrap_or(usize::MAX).min(MOST_LISTED + 1)), ..page }
}

/// Refuses a list that is too long for one response.
pub(super) fn checked_length(names: Vec<String>) -> Result<Vec<String>> {
    if names.len() > MOST_LISTED {
        return Err(Error::invalid(format!("a list has at most {MOST_LISTED} entries: use 'after' and 'limit'")));
    }
    Ok(names)
}

/// The response to a list of names. It reads all of them, because their keys are in the order of hashes.
pub(super) async fn page_of_names(cx: &mut Cx, names: &Records<Reference>, paged: Paged) -> Result<Keys> {
    let identity = identity(cx)?;
    let keys = checked_length(names.list(cx, "", &page_of(Paged::new(None, None))).await?)?;
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        found.extend(identity.read(names, cx.store().0, &key).await?.map(|reference| reference.name));
    }
    found.sort();
    let Page { after, limit } = paged.page();
    let rest = found.into_iter().filter(|name| after.as_ref().is_none_or(|after| name > after));
    Ok(Keys::of(rest.take(limit.unwrap_or(usize::MAX)).collect()))
}
