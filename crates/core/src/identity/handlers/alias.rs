//! `identity/entity-alias`: aliases of entities, with the old paths `alias` and `persona`.

use std::collections::BTreeMap;

use keepfast_framework::fields::{Pairs, Text, unless_null};
use keepfast_framework::reply::Described;
use keepfast_framework::routes::{Help, Paged};
use keepfast_framework::{Cx, Data, Keys, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::merge::refuse_denied;
use super::response::{AliasResponse, ListedAlias};
use crate::identity::aliases::AliasChange;
use crate::identity::engine::{
    ById, IdentityEngine, checked_accessor, checked_length, identity, named, page_of, unsealed,
};
use crate::identity::metadata::checked_custom;
use crate::identity::record::{ALIAS_IDS, GROUP_ALIAS_IDS};

const WRITE: Help = Help {
    synopsis: "Creates or changes an alias: the name of an entity at one mount.",
    description: "Without the id or the name of an existing alias a new one is created, with a new entity if none is given.",
};
const ALIAS: Help = Help { synopsis: "Reads, changes and deletes an alias.", description: "" };
const LIST: Help = Help { synopsis: "Lists the aliases.", description: "" };

pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    r.path("entity-alias", WRITE).update(write);
    r.path("entity-alias/id/", LIST).list(list);
    r.path("entity-alias/id/{id}", ALIAS).names_only().read(read).update(write).delete(delete);
    r.path("alias", WRITE).update(write);
    r.path("alias/id/", LIST).list(list);
    r.path("alias/id/{id}", ALIAS).names_only().read(read).update(write).delete(delete);
    r.path("persona", WRITE).update(write);
    r.path("persona/id/", LIST).list(list);
    r.path("persona/id/{id}", ALIAS).names_only().read(read).update(write).delete(delete);
}

#[derive(Deserialize, JsonSchema)]
struct Write {
    /// Id of an existing alias. Default: the alias of this name at this mount.
    id: Option<Text>,
    /// Name of the entity at the mount.
    name: Option<Text>,
    /// Accessor of the mount.
    mount_accessor: Option<Text>,
    /// Id of the entity. Default: the entity of the alias, or a new one.
    canonical_id: Option<Text>,
    /// Deprecated: use `canonical_id`.
    entity_id: Option<Text>,
    /// Metadata of the alias, for templates.
    #[serde(default, deserialize_with = "unless_null")]
    custom_metadata: Option<Pairs>,
}

/// The response to a write.
#[derive(Serialize)]
pub(super) struct Written {
    pub(super) canonical_id: String,
    pub(super) id: String,
}

async fn write(_: &IdentityEngine, cx: &mut Cx, req: Write) -> Result<Data<Written>> {
    let unsealed = unsealed(cx)?;
    let (identity, now) = (&unsealed.access.identity, cx.now());
    let change = AliasChange {
        id: named(req.id),
        name: named(req.name),
        mount_accessor: named(req.mount_accessor),
        entity: named(req.canonical_id).or_else(|| named(req.entity_id)),
        custom_metadata: req.custom_metadata.map(|Pairs(pairs)| checked_custom(pairs)).transpose()?,
    };
    if let (Some(accessor), true) = (&change.mount_accessor, change.id.is_some() || change.name.is_some()) {
        checked_accessor(&unsealed, accessor)?;
    }
    let planned = identity.plan_alias(cx.store().0, change, now).await?;
    checked_accessor(&unsealed, planned.mount_accessor())?;
    for entity in planned.owner.iter().chain(&planned.target) {
        refuse_denied(cx, &entity.id, &entity.name)?;
    }
    let (id, entity) = identity.write_alias(cx.store().0, planned, now).await?;
    Ok(Data(Written { canonical_id: entity.id, id }))
}

async fn read(_: &IdentityEngine, cx: &mut Cx, req: ById) -> Result<Option<Described<AliasResponse>>> {
    Ok(response_of(cx, AliasKind::Entity, &req.id).await?.map(Described))
}

async fn delete(_: &IdentityEngine, cx: &mut Cx, req: ById) -> Result<()> {
    let identity = identity(cx)?;
    identity.delete_alias(cx.store().0, &req.id).await
}

async fn list(_: &IdentityEngine, cx: &mut Cx, req: Paged) -> Result<Keys> {
    list_of(cx, AliasKind::Entity, req).await
}

/// The kind of record that has an alias.
#[derive(Clone, Copy)]
pub(super) enum AliasKind {
    Entity,
    Group,
}

/// The alias of this id by itself; `None` if it does not exist.
pub(super) async fn response_of(cx: &mut Cx, kind: AliasKind, id: &str) -> Result<Option<AliasResponse>> {
    let unsealed = unsealed(cx)?;
    let (identity, router) = (&unsealed.access.identity, unsealed.engines.mounts.router());
    match kind {
        AliasKind::Entity => {
            let Some(entity) = identity.entity_of_alias_id(cx.store().0, id).await? else { return Ok(None) };
            Ok(entity.alias(id).map(|alias| AliasResponse::alone(&router, &entity, alias)))
        }
        AliasKind::Group => {
            let Some(group) = identity.group_of_alias_id(cx.store().0, id).await? else { return Ok(None) };
            Ok(group.alias.as_ref().map(|alias| AliasResponse::of_group(&router, &group, alias)))
        }
    }
}

/// The response to a list of aliases.
pub(super) async fn list_of(cx: &mut Cx, kind: AliasKind, paged: Paged) -> Result<Keys> {
    let records = match kind {
        AliasKind::Entity => ALIAS_IDS,
        AliasKind::Group => GROUP_ALIAS_IDS,
    };
    let ids = checked_length(records.list(cx, "", &page_of(paged)).await?)?;
    let mut info = BTreeMap::new();
    for id in ids {
        if let Some(alias) = response_of(cx, kind, &id).await? {
            info.insert(id, ListedAlias::from(alias));
        }
    }
    Keys::with_info(info.keys().cloned().collect(), &info)
}
