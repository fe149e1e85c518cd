//! `sys/leases/top`: the mounts, paths and entities with the most leases.

use std::collections::BTreeMap;

use keepfast_framework::fields::Int;
use keepfast_framework::{Cx, Data, Page, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{System, unsealed};
use crate::lease::index::LeaseName;
use crate::unreadable::unreadable;
use crate::unsealed::Unsealed;

/// Names per storage page.
const PAGE: usize = 500;
/// The most lease records that are read to find their entities.
const SAMPLE: usize = 10_000;

#[derive(Deserialize, JsonSchema)]
pub(super) struct TopRequest {
    /// Maximum number of mounts, of paths and of entities in the response. Default: 20.
    limit: Option<Int>,
}

#[derive(Serialize)]
struct LeaseUser {
    name: String,
    leases: usize,
}

#[derive(Serialize)]
pub(crate) struct TopResponse {
    total: usize,
    mounts: Vec<LeaseUser>,
    paths: Vec<LeaseUser>,
    /// Entities in the sample; an empty name is no entity.
    entities: Vec<LeaseUser>,
    /// The number of leases in the sample, spread evenly over all leases.
    entities_sampled: usize,
}

pub(super) async fn top(_: &System, cx: &mut Cx, req: TopRequest) -> Result<Data<TopResponse>> {
    let limit = req.limit.and_then(|l| usize::try_from(l.0).ok()).filter(|l| *l > 0).unwrap_or(20);
    Ok(Data(rank(&*unsealed(cx)?, limit).await?))
}

/// Counts all leases and returns the largest `limit` of each kind.
pub(crate) async fn rank(unsealed: &Unsealed, limit: usize) -> Result<TopResponse> {
    let paths = count(unsealed).await?;
    let total = paths.values().sum();
    let (entities, entities_sampled) = sample(unsealed, &paths, total).await?;
    let mut mounts = BTreeMap::new();
    for (path, count) in &paths {
        let mount =
            unsealed.engines.mounts.router().find(path).map_or_else(|| path.clone(), |(m, _)| m.entry.path.clone());
        *mounts.entry(mount).or_default() += count;
    }
    Ok(TopResponse {
        total,
        mounts: ranked(mounts, limit),
        paths: ranked(paths, limit),
        entities: ranked(entities, limit),
        entities_sampled,
    })
}

/// The number of leases of each path; reads names only.
async fn count(unsealed: &Unsealed) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let mut page = Page::first(PAGE);
        loop {
            let names = unsealed.leases.store.below(&unsealed.access.namespace.id, &folder, &page).await?;
            let leases = names.iter().filter(|name| LeaseName::parse(name).is_some()).count();
            if leases > 0 {
                *counts.entry(folder.clone()).or_default() += leases;
            }
            let inner = names.iter().filter_map(|name| name.strip_suffix('/'));
            folders.extend(inner.map(|i| if folder.is_empty() { i.to_owned() } else { format!("{folder}/{i}") }));
            page.after = names.last().cloned();
            if names.len() < PAGE {
                break;
            }
        }
    }
    Ok(counts)
}

/// The number of leases of each entity in an even sample.
async fn sample(
    unsealed: &Unsealed,
    paths: &BTreeMap<String, usize>,
    total: usize,
) -> Result<(BTreeMap<String, usize>, usize)> {
    let stride = total.div_ceil(SAMPLE).max(1);
    let (mut entities, mut sampled, mut at) = (BTreeMap::new(), 0, 0usize);
    for path in paths.keys() {
        let mut page = Page::first(PAGE);
        loop {
            let names = unsealed.leases.store.below(&unsealed.access.namespace.id, path, &page).await?;
            for named in names.iter().filter_map(|name| LeaseName::parse(name)) {
                at += 1;
                if at.is_multiple_of(stride) {
                    *entities.entry(entity(unsealed, &named).await?).or_default() += 1;
                    sampled += 1;
                }
            }
            page.after = names.last().cloned();
            if names.len() < PAGE {
                break;
            }
        }
    }
    Ok((entities, sampled))
}

/// The entity of a lease; empty for none, and for a record that cannot be read.
async fn entity(unsealed: &Unsealed, named: &LeaseName) -> Result<String> {
    let mut tx = unsealed.barrier.begin_read();
    let found = match named {
        LeaseName::Token(key) => unsealed.access.tokens.record(&mut tx, key).await.map(|r| r.map(|r| r.entity_id)),
        LeaseName::Lease(id) => unsealed.leases.store.record(&mut tx, id).await.map(|r| r.map(|r| r.entity_id)),
    };
    match found {
        Err(error) if !unreadable(&error) => Err(error),
        found => Ok(found.ok().flatten().unwrap_or_default()),
    }
}

fn ranked(counts: BTreeMap<String, usize>, limit: usize) -> Vec<LeaseUser> {
    let mut out: Vec<_> = counts.into_iter().map(|(name, leases)| LeaseUser { name, leases }).collect();
    out.sort_by_key(|r| std::cmp::Reverse(r.leases));
    out.truncate(limit);
    out
}
