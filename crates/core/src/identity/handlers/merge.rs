//! `identity/entity/merge`: merges entities into one.

use keepfast_framework::fields::{CommaList, Flag, Text};
use keepfast_framework::routes::Help;
use keepfast_framework::{Cx, Error, Result, Routes};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::identity::engine::{IdentityEngine, call, identity, named};
use crate::layout::IDENTITY_MOUNT;

const MERGE: Help = Help {
    synopsis: "Merges entities into one.",
    description: "The entity gets their aliases and groups, and their tokens work as its tokens.",
};

pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    r.path("entity/merge", MERGE).update(merge);
}

#[derive(Deserialize, JsonSchema)]
struct Merge {
    /// Ids of the entities that are merged and deleted.
    from_entity_ids: Option<CommaList>,
    /// Id of the entity that stays.
    to_entity_id: Option<Text>,
    /// Ids of the aliases that stay where both entities have one at a mount; only with one entity to merge.
    conflicting_alias_ids_to_keep: Option<CommaList>,
    /// Whether the entity keeps its MFA secrets where merged entities have one for the same method; otherwise the merge is
    /// refused. Default: false.
    force: Option<Flag>,
}

async fn merge(_: &IdentityEngine, cx: &mut Cx, req: Merge) -> Result<()> {
    let identity = identity(cx)?;
    let to = named(req.to_entity_id).ok_or_else(|| Error::invalid("missing entity id to merge to"))?;
    let from = req.from_entity_ids.map(|CommaList(ids)| ids).unwrap_or_default();
    if from.is_empty() {
        return Err(Error::invalid("missing entity ids to merge from"));
    }
    let keep = req.conflicting_alias_ids_to_keep.map(|CommaList(ids)| ids).unwrap_or_default();
    let (target, sources) = identity.entities_to_merge(cx.store().0, &to, &from).await?;
    for entity in [&target].into_iter().chain(&sources) {
        refuse_denied(cx, &entity.id, &entity.name)?;
    }
    let force = req.force.is_some_and(|Flag(force)| force);
    for source in &sources {
        if !force {
            identity.check_mfa_clash(cx.store().0, &target.id, &source.id).await?;
        }
        let (tx, view) = cx.store();
        identity.move_mfa(tx, view, &source.id, &target.id).await?;
    }
    identity.merge(cx.store().0, target, sources, &keep).await
}

/// Refuses a request that acts on an entity whose path a policy of the caller denies.
///
/// # Errors
/// 403.
pub(super) fn refuse_denied(cx: &Cx, id: &str, name: &str) -> Result<()> {
    let call = call(cx)?;
    let Some(compiled) = &call.compiled else { return Err(Error::denied()) };
    let paths = [format!("{IDENTITY_MOUNT}entity/id/{id}"), format!("{IDENTITY_MOUNT}entity/name/{name}")];
    match paths.iter().any(|path| compiled.acl.denies(&format!("{}{path}", call.within()), cx.now())) {
        true => Err(Error::denied().because("a policy denies an entity of the request")),
        false => Ok(()),
    }
}
