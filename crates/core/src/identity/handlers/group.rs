//! `identity/group`: groups.

use std::collections::{BTreeMap, BTreeSet};

use keepfast_framework::fields::{CommaList, Pairs, Quoted, Text, unless_null};
use keepfast_framework::reply::{Described, Outcome};
use keepfast_framework::routes::{Help, Paged};
use keepfast_framework::{Cx, Error, Keys, Result, Routes};
use keepfast_storage::Tx;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;

use super::response::{GroupResponse, ListedGroup};
use crate::identity::engine::{
    ById, ByName, IdentityEngine, checked_length, identity, named, page_of, page_of_names, unsealed,
};
use crate::identity::membership::{self, MOST_CHANGES, Member};
use crate::identity::metadata::{checked, checked_policies};
use crate::identity::record::{GROUP_NAMES, GROUPS, Group, GroupKind};
use crate::identity::store::Identity;

const WRITE: Help = Help {
    synopsis: "Creates or changes a group, whose policies its members have.",
    description: "Without the id or the name of an existing group a new one is created.",
};
const GROUP: Help = Help { synopsis: "Reads, changes and deletes a group.", description: "" };
const LIST: Help = Help { synopsis: "Lists the groups.", description: "" };

/// The maximum number of memberships that a list counts.
const MOST_COUNTED: usize = 100_000;

pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    r.path("group", WRITE).update(write);
    r.path("group/id/", LIST).list(list_ids);
    r.path("group/id/{id}", GROUP).names_only().read(read_by_id).update(write).delete(delete_by_id);
    r.path("group/name/", LIST).list(list_names);
    r.path("group/name/{name...}", GROUP).read(read_by_name).update(write_by_name).delete(delete_by_name);
}

#[derive(Deserialize, JsonSchema)]
struct Write {
    /// Id of an existing group. Default: the group of this name.
    id: Option<Text>,
    /// Name of the group, unique without regard to case. Default: a generated name.
    name: Option<Text>,
    /// Type of the group: `internal`, or `external` for a group of an auth method. Default: `internal`.
    #[serde(rename = "type")]
    kind: Option<Text>,
    /// Metadata of the group, for templates.
    #[serde(default, deserialize_with = "unless_null")]
    metadata: Option<Pairs>,
    /// Policies of the members.
    policies: Option<CommaList>,
    /// Ids of the entities in the group.
    member_entity_ids: Option<CommaList>,
    /// Ids of the groups in the group.
    member_group_ids: Option<CommaList>,
}

#[derive(Serialize)]
struct Created<'a> {
    id: &'a str,
    name: &'a str,
}

async fn write_by_name(engine: &IdentityEngine, cx: &mut Cx, req: Write) -> Result<Outcome> {
    // The path names the group, so as on OpenBao an id is ignored.
    write(engine, cx, Write { id: None, ..req }).await
}

async fn write(_: &IdentityEngine, cx: &mut Cx, req: Write) -> Result<Outcome> {
    let (identity, now) = (identity(cx)?, cx.now());
    let (id, name) = (named(req.id), named(req.name).unwrap_or_default());
    let kind = match named(req.kind) {
        None => None,
        Some(kind) => {
            let unknown = || Error::invalid(format!("invalid group type {}", Quoted(&kind)));
            Some(GroupKind::named(&kind).ok_or_else(unknown)?)
        }
    };
    let policies = req.policies.map(|CommaList(policies)| checked_policies(policies)).transpose()?;
    let metadata = req.metadata.map(|Pairs(pairs)| checked("group", pairs)).transpose()?;
    let (tx, _) = cx.store();
    let known = match &id {
        Some(id) => {
            let found = identity.group(tx, id).await?;
            Some(found.ok_or_else(|| Error::invalid("invalid group ID"))?)
        }
        None if name.is_empty() => None,
        None => identity.group_named(tx, &name).await?,
    };
    if known.as_ref().is_some_and(|known| kind.is_some_and(|kind| kind != known.kind)) {
        return Err(Error::invalid("group type cannot be changed"));
    }
    let is_new = known.is_none();
    let mut group = match known {
        Some(group) => group,
        None => identity.new_group(tx, &name, kind.unwrap_or(GroupKind::Internal), now).await?,
    };
    identity.rename_group(tx, &mut group, &name).await?;
    group.policies = policies.unwrap_or(group.policies);
    group.metadata = metadata.unwrap_or(group.metadata);
    set_members(&identity, tx, &group, req.member_entity_ids, req.member_group_ids).await?;
    identity.put_group(tx, &mut group, now)?;
    if !is_new {
        return Ok(Outcome::Empty(None));
    }
    Ok(Outcome::of(to_raw_value(&Created { id: &group.id, name: &group.name })?))
}

/// Replaces the members that a request has.
async fn set_members(
    identity: &Identity,
    tx: &mut Tx,
    group: &Group,
    entities: Option<CommaList>,
    groups: Option<CommaList>,
) -> Result<()> {
    let set = |list: CommaList| list.0.into_iter().filter(|id| !id.is_empty()).collect::<BTreeSet<String>>();
    let (entities, groups) = (entities.map(set), groups.map(set));
    if group.kind == GroupKind::External {
        if entities.is_some_and(|entities| !entities.is_empty()) {
            return Err(Error::invalid("member entities can't be set manually for external groups"));
        }
        if groups.is_some_and(|groups| !groups.is_empty()) {
            return Err(Error::invalid("member groups can't be set for external groups"));
        }
        return Ok(());
    }
    if let Some(entities) = &entities {
        let current = membership::verified_members(tx, &identity.view, Member::Entity, &group.id).await?;
        for id in entities.difference(&current).take(MOST_CHANGES + 1) {
            if identity.entity(tx, id).await?.is_none() {
                return Err(Error::invalid(format!("invalid entity ID {}", Quoted(id))));
            }
        }
        membership::replace(tx, &identity.view, Member::Entity, &group.id, &current, entities)?;
    }
    if let Some(groups) = &groups {
        set_member_groups(identity, tx, group, groups).await?;
    }
    Ok(())
}

async fn set_member_groups(identity: &Identity, tx: &mut Tx, group: &Group, wanted: &BTreeSet<String>) -> Result<()> {
    /// The maximum number of groups in a group.
    const MOST: usize = 1000;
    if wanted.len() > MOST {
        return Err(Error::invalid(format!("a group has at most {MOST} groups as members")));
    }
    let current = membership::verified_members(tx, &identity.view, Member::Group, &group.id).await?;
    let added: Vec<&String> = wanted.difference(&current).collect();
    for id in &added {
        if **id == group.id {
            let text = format!("member group ID {} is same as the ID of the group", Quoted(id));
            return Err(Error::invalid(text));
        }
        if identity.group(tx, id).await?.is_none() {
            return Err(Error::invalid(format!("invalid member group ID {}", Quoted(id))));
        }
    }
    membership::check_nesting(tx, &identity.view, &group.id, &added).await?;
    membership::replace(tx, &identity.view, Member::Group, &group.id, &current, wanted)
}

async fn read_by_id(_: &IdentityEngine, cx: &mut Cx, req: ById) -> Result<Option<Described<GroupResponse>>> {
    let identity = identity(cx)?;
    let found = identity.group(cx.store().0, &req.id).await?;
    respond(cx, found).await
}

async fn read_by_name(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<Option<Described<GroupResponse>>> {
    let identity = identity(cx)?;
    let found = identity.group_named(cx.store().0, &req.name).await?;
    respond(cx, found).await
}

/// A group with its members.
pub(super) async fn respond(cx: &mut Cx, group: Option<Group>) -> Result<Option<Described<GroupResponse>>> {
    let Some(group) = group else { return Ok(None) };
    let unsealed = unsealed(cx)?;
    let router = unsealed.engines.mounts.router();
    let shown = GroupResponse::read(&unsealed.access.identity, cx.store().0, &router, &group).await?;
    Ok(Some(Described(shown)))
}

async fn delete_by_id(_: &IdentityEngine, cx: &mut Cx, req: ById) -> Result<()> {
    let identity = identity(cx)?;
    let found = identity.group(cx.store().0, &req.id).await?;
    delete(cx, found).await
}

async fn delete_by_name(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<()> {
    let identity = identity(cx)?;
    let found = identity.group_named(cx.store().0, &req.name).await?;
    delete(cx, found).await
}

async fn delete(cx: &mut Cx, group: Option<Group>) -> Result<()> {
    let Some(group) = group else { return Ok(()) };
    let identity = identity(cx)?;
    identity.shrink_group(&group.id).await?;
    identity.delete_group(cx.store().0, group).await
}

async fn list_ids(_: &IdentityEngine, cx: &mut Cx, req: Paged) -> Result<Keys> {
    let identity = identity(cx)?;
    let ids = checked_length(GROUPS.list(cx, "", &page_of(req)).await?)?;
    let router = unsealed(cx)?.engines.mounts.router();
    let (mut info, mut left) = (BTreeMap::new(), MOST_COUNTED);
    for id in ids {
        let (tx, _) = cx.store();
        if let Some(group) = identity.group(tx, &id).await? {
            info.insert(id, ListedGroup::read(&identity, tx, &router, &group, &mut left).await?);
        }
    }
    Keys::with_info(info.keys().cloned().collect(), &info)
}

async fn list_names(_: &IdentityEngine, cx: &mut Cx, req: Paged) -> Result<Keys> {
    page_of_names(cx, &GROUP_NAMES, req).await
}
