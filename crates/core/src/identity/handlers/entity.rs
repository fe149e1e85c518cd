//! `identity/entity`: entities.

use std::collections::BTreeMap;

use keepfast_framework::fields::{CommaList, Flag, Pairs, Text, unless_null};
use keepfast_framework::reply::{Described, Outcome};
use keepfast_framework::routes::{Help, Paged};
use keepfast_framework::{Cx, Error, Keys, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;

use super::response::{EntityResponse, ListedEntity};
use crate::identity::engine::{
    ById, ByName, IdentityEngine, checked_length, identity, named, page_of, page_of_names, unsealed,
};
use crate::identity::metadata::{checked, checked_name, checked_policies};
use crate::identity::record::{ENTITIES, ENTITY_NAMES};

const WRITE: Help = Help {
    synopsis: "Creates or changes an entity.",
    description: "Without the id or the name of an existing entity a new one is created.",
};
const ENTITY: Help = Help { synopsis: "Reads, changes and deletes an entity.", description: "" };
const LIST: Help = Help { synopsis: "Lists the entities.", description: "" };
const BATCH: Help = Help { synopsis: "Deletes several entities.", description: "" };

/// The maximum number of entities that a request deletes.
const MOST_DELETED: usize = 2000;

pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    r.path("entity", WRITE).update(write);
    r.path("entity/id/", LIST).list(list_ids);
    r.path("entity/id/{id}", ENTITY).names_only().read(read_by_id).update(write).delete(delete_by_id);
    r.path("entity/name/", LIST).list(list_names);
    r.path("entity/name/{name...}", ENTITY).read(read_by_name).update(write_by_name).delete(delete_by_name);
    r.path("entity/batch-delete", BATCH).update(delete_all);
}

#[derive(Deserialize, JsonSchema)]
struct Write {
    /// Id of an existing entity. Default: the entity of this name.
    id: Option<Text>,
    /// Name of the entity, unique without regard to case. Default: a generated name.
    name: Option<Text>,
    /// Metadata of the entity, for templates.
    #[serde(default, deserialize_with = "unless_null")]
    metadata: Option<Pairs>,
    /// Policies that the entity adds to its tokens.
    policies: Option<CommaList>,
    /// Whether the tokens and logins of the entity are refused. Default: false.
    disabled: Option<Flag>,
}

#[derive(Serialize)]
struct Created<'a> {
    aliases: Option<()>,
    id: &'a str,
    name: &'a str,
}

async fn write_by_name(engine: &IdentityEngine, cx: &mut Cx, req: Write) -> Result<Outcome> {
    // The path names the entity, and policies of callers name paths: an id must not lead to another one.
    if let Some(id) = named(req.id.clone()) {
        let identity = identity(cx)?;
        let of_path = identity.id_of_name(cx.store().0, req.name.as_deref().unwrap_or_default()).await?;
        if of_path != Some(id) {
            return Err(Error::invalid("the id is not that of the entity with this name"));
        }
    }
    write(engine, cx, Write { id: None, ..req }).await
}

async fn write(_: &IdentityEngine, cx: &mut Cx, req: Write) -> Result<Outcome> {
    let (identity, now) = (identity(cx)?, cx.now());
    let (id, name) = (named(req.id), named(req.name).unwrap_or_default());
    let policies = req.policies.map(|CommaList(policies)| checked_policies(policies)).transpose()?;
    let metadata = req.metadata.map(|Pairs(pairs)| checked("entity", pairs)).transpose()?;
    checked_name(&name)?;
    let (tx, _) = cx.store();
    let known = match &id {
        Some(id) => {
            let found = identity.entity(tx, id).await?;
            Some(found.ok_or_else(|| Error::invalid("entity not found from id"))?)
        }
        None => identity.entity_named(tx, &name).await?,
    };
    let is_new = known.is_none();
    let mut entity = match known {
        Some(entity) => entity,
        None => identity.new_entity(tx, &name, now).await?,
    };
    identity.rename_entity(tx, &mut entity, &name).await?;
    entity.policies = policies.unwrap_or(entity.policies);
    entity.metadata = metadata.unwrap_or(entity.metadata);
    entity.disabled = req.disabled.map_or(entity.disabled, |Flag(disabled)| disabled);
    entity.modified = Some(now);
    identity.put_entity(tx, &entity)?;
    if !is_new {
        return Ok(Outcome::Empty(None));
    }
    Ok(Outcome::of(to_raw_value(&Created { aliases: None, id: &entity.id, name: &entity.name })?))
}

async fn read_by_id(_: &IdentityEngine, cx: &mut Cx, req: ById) -> Result<Option<Described<EntityResponse>>> {
    let identity = identity(cx)?;
    let found = identity.entity(cx.store().0, &req.id).await?.map(|entity| entity.id);
    respond(cx, found).await
}

async fn read_by_name(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<Option<Described<EntityResponse>>> {
    let identity = identity(cx)?;
    let found = identity.entity_named(cx.store().0, &req.name).await?.map(|entity| entity.id);
    respond(cx, found).await
}

/// The entity of this id, with its groups.
pub(super) async fn respond(cx: &mut Cx, id: Option<String>) -> Result<Option<Described<EntityResponse>>> {
    let Some(id) = id else { return Ok(None) };
    let unsealed = unsealed(cx)?;
    let effective = unsealed.access.identity.read_effective(cx.store().0, &id).await?;
    let router = unsealed.engines.mounts.router();
    Ok(effective.map(|effective| Described(EntityResponse::new(&router, &effective))))
}

async fn delete_by_id(_: &IdentityEngine, cx: &mut Cx, req: ById) -> Result<()> {
    delete(cx, &[req.id.into()]).await
}

async fn delete_by_name(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<()> {
    let identity = identity(cx)?;
    match identity.id_of_name(cx.store().0, &req.name).await? {
        Some(id) => delete(cx, &[id]).await,
        None => Ok(()),
    }
}

#[derive(Deserialize, JsonSchema)]
struct Batch {
    /// Ids of the entities.
    entity_ids: Option<CommaList>,
}

async fn delete_all(_: &IdentityEngine, cx: &mut Cx, req: Batch) -> Result<()> {
    let ids = req.entity_ids.map(|CommaList(ids)| ids).unwrap_or_default();
    if ids.is_empty() {
        return Err(Error::invalid("missing entity ids to delete"));
    }
    if ids.len() > MOST_DELETED {
        return Err(Error::invalid(format!("a request deletes at most {MOST_DELETED} entities")));
    }
    delete(cx, &ids).await
}

async fn delete(cx: &mut Cx, ids: &[String]) -> Result<()> {
    let identity = identity(cx)?;
    let (tx, _) = cx.store();
    for id in ids {
        if let Some(entity) = identity.entity(tx, id).await? {
            identity.delete_entity(tx, &entity).await?;
        }
    }
    Ok(())
}

async fn list_ids(_: &IdentityEngine, cx: &mut Cx, req: Paged) -> Result<Keys> {
    let unsealed = unsealed(cx)?;
    let (identity, router) = (&unsealed.access.identity, unsealed.engines.mounts.router());
    let ids = checked_length(ENTITIES.list(cx, "", &page_of(req)).await?)?;
    let mut info = BTreeMap::new();
    for id in ids {
        if let Some(entity) = identity.entity(cx.store().0, &id).await? {
            info.insert(id, ListedEntity::new(&router, &entity));
        }
    }
    Keys::with_info(info.keys().cloned().collect(), &info)
}

async fn list_names(_: &IdentityEngine, cx: &mut Cx, req: Paged) -> Result<Keys> {
    page_of_names(cx, &ENTITY_NAMES, req).await
}
