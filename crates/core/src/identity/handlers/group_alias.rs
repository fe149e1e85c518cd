//! `identity/group-alias`: the names of external groups in auth methods.

use keepfast_framework::fields::Text;
use keepfast_framework::reply::Described;
use keepfast_framework::routes::{Help, Paged};
use keepfast_framework::{Cx, Data, Error, Keys, Result, Routes};
use schemars::JsonSchema;
use serde::Deserialize;

use super::alias::{AliasKind, Written, list_of, response_of};
use super::response::AliasResponse;
use crate::identity::engine::{ById, IdentityEngine, checked_accessor, identity, named, unsealed};
use crate::identity::metadata::checked_name;
use crate::identity::names::fold;
use crate::identity::record::{GroupAlias, GroupKind};

const WRITE: Help = Help {
    synopsis: "Creates or changes the alias of an external group: its name in an auth method.",
    description: "A group has one alias: a new one replaces the former one. Without a group a new external group is created.",
};
const ALIAS: Help = Help { synopsis: "Reads, changes and deletes the alias of a group.", description: "" };
const LIST: Help = Help { synopsis: "Lists the aliases of groups.", description: "" };

pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    r.path("group-alias", WRITE).update(write);
    r.path("group-alias/id/", LIST).list(list);
    r.path("group-alias/id/{id}", ALIAS).names_only().read(read).update(write).delete(delete);
}

#[derive(Deserialize, JsonSchema)]
struct Write {
    /// Id of an existing alias. Default: a new alias.
    id: Option<Text>,
    /// Name of the group in the auth method.
    name: Option<Text>,
    /// Accessor of the mount of the auth method.
    mount_accessor: Option<Text>,
    /// Id of the external group. Default: the group of the alias, or a new one.
    canonical_id: Option<Text>,
}

async fn write(_: &IdentityEngine, cx: &mut Cx, req: Write) -> Result<Data<Written>> {
    let unsealed = unsealed(cx)?;
    let (identity, now) = (unsealed.access.identity.clone(), cx.now());
    let name = named(req.name).ok_or_else(|| Error::invalid("missing alias name"))?;
    let accessor = named(req.mount_accessor).ok_or_else(|| Error::invalid("missing mount_accessor"))?;
    checked_accessor(&unsealed, &accessor)?;
    checked_name(&name)?;
    let (tx, _) = cx.store();
    let owner = match named(req.id) {
        None => None,
        Some(id) => {
            let found = identity.group_of_alias_id(tx, &id).await?;
            Some(found.ok_or_else(|| Error::invalid("invalid group alias ID"))?)
        }
    };
    let own = owner.as_ref().and_then(|owner| owner.alias.clone());
    let holder = identity.group_of_alias(tx, &accessor, &name).await?;
    if holder.is_some_and(|holder| holder.alias.map(|alias| alias.id) != own.as_ref().map(|own| own.id.clone())) {
        return Err(Error::invalid("combination of mount and group alias name is already in use"));
    }
    let mut group = match named(req.canonical_id) {
        Some(id) => {
            let found = identity.group(tx, &id).await?;
            found.ok_or_else(|| Error::invalid("invalid group ID given in 'canonical_id'"))?
        }
        None => match owner.clone() {
            Some(owner) => owner,
            None => identity.new_group(tx, "", GroupKind::External, now).await?,
        },
    };
    if group.kind == GroupKind::Internal {
        return Err(Error::invalid("alias can't be set on an internal group"));
    }
    let alias = match own {
        Some(own) => GroupAlias { name, mount_accessor: accessor, modified: now, ..own },
        None => GroupAlias { id: identity.new_id(), name, mount_accessor: accessor, created: now, modified: now },
    };
    // Members that another auth method or another name of the group reported are no members of this one.
    let is_same = |old: &GroupAlias| old.mount_accessor == alias.mount_accessor && fold(&old.name) == fold(&alias.name);
    let mut emptied: Vec<String> = Vec::new();
    if group.alias.as_ref().is_some_and(|old| !is_same(old)) {
        emptied.push(group.id.clone());
    }
    if let Some(mut owner) = owner.filter(|owner| owner.id != group.id) {
        emptied.push(owner.id.clone());
        identity.drop_group_alias(tx, &mut owner);
        identity.put_group(tx, &mut owner, now)?;
    }
    for id in emptied {
        identity.shrink_group(&id).await?;
        identity.remove_members(tx, &id).await?;
    }
    let id = alias.id.clone();
    identity.set_group_alias(tx, &mut group, alias)?;
    identity.put_group(tx, &mut group, now)?;
    Ok(Data(Written { canonical_id: group.id, id }))
}

async fn read(_: &IdentityEngine, cx: &mut Cx, req: ById) -> Result<Option<Described<AliasResponse>>> {
    Ok(response_of(cx, AliasKind::Group, &req.id).await?.map(Described))
}

async fn delete(_: &IdentityEngine, cx: &mut Cx, req: ById) -> Result<()> {
    let (identity, now) = (identity(cx)?, cx.now());
    let Some(mut group) = identity.group_of_alias_id(cx.store().0, &req.id).await? else { return Ok(()) };
    identity.shrink_group(&group.id).await?;
    let (tx, _) = cx.store();
    identity.remove_members(tx, &group.id).await?;
    identity.drop_group_alias(tx, &mut group);
    identity.put_group(tx, &mut group, now)
}

async fn list(_: &IdentityEngine, cx: &mut Cx, req: Paged) -> Result<Keys> {
    list_of(cx, AliasKind::Group, req).await
}
