//! Writes of aliases of entities. An entity has at most one alias at each mount, and a name at a mount has one entity.

use std::collections::BTreeMap;

use keepfast_framework::{Error, Result, Timestamp};
use keepfast_storage::Tx;

use super::metadata::checked_name;
use super::names::{alias_key, fold};
use super::record::{ALIASES, Entity, EntityAlias};
use super::store::Identity;

/// A written alias. Absent parts of an existing alias stay.
#[derive(Default)]
pub(super) struct AliasChange {
    /// The id of an existing alias.
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    /// The accessor of a mount that exists.
    pub(super) mount_accessor: Option<String>,
    /// The entity of the alias.
    pub(super) entity: Option<String>,
    pub(super) custom_metadata: Option<BTreeMap<String, String>>,
}

/// The entities that a change of an alias concerns, before it is written.
pub(super) struct PlannedAlias {
    alias: EntityAlias,
    /// The entity that has the alias now.
    pub(super) owner: Option<Entity>,
    /// The entity that gets it, if it is another one; `None` for a new one.
    pub(super) target: Option<Entity>,
    moves: bool,
    /// Whether it gets another name, mount or entity, so that the groups of the former one end.
    is_replaced: bool,
}

impl PlannedAlias {
    /// The accessor of the mount that the alias has after the change.
    pub(super) fn mount_accessor(&self) -> &str {
        &self.alias.mount_accessor
    }
}

impl Identity {
    /// Finds out what a change of an alias does.
    ///
    /// # Errors
    /// 400 when a part of the change is missing or names nothing, and when the alias or the mount is taken.
    pub(super) async fn plan_alias(&self, tx: &mut Tx, change: AliasChange, now: Timestamp) -> Result<PlannedAlias> {
        let AliasChange { id, name, mount_accessor, entity, custom_metadata } = change;
        let (owner, known) = match (&id, &name, &mount_accessor) {
            (Some(id), ..) => {
                let owner = self.entity_of_alias_id(tx, id).await?;
                (Some(owner.ok_or_else(|| Error::invalid("invalid alias ID provided"))?), id.clone())
            }
            (None, Some(name), Some(accessor)) => match self.alias_at(tx, accessor, name).await? {
                Some((_, key)) => (self.entity(tx, &key.entity).await?, key.id),
                None => (None, String::new()),
            },
            _ => return Err(Error::invalid("'id' or 'mount_accessor' and 'name' must be provided")),
        };
        let known = owner.as_ref().and_then(|owner| owner.alias(&known));
        let mut alias = known.cloned().unwrap_or_else(|| EntityAlias::new(now));
        if alias.id.is_empty() {
            alias.id = self.new_id();
        } else {
            alias.modified = Some(now);
        }
        alias.name = name.unwrap_or(alias.name);
        alias.mount_accessor = mount_accessor.unwrap_or(alias.mount_accessor);
        // As on OpenBao a write by name replaces the metadata.
        match custom_metadata {
            Some(metadata) => alias.custom_metadata = metadata,
            None if id.is_none() => alias.custom_metadata.clear(),
            None => {}
        }
        checked_name(&alias.name)?;
        let place = alias_key(&alias.mount_accessor, &alias.name);
        let holders = [
            self.alias_at(tx, &alias.mount_accessor, &alias.name).await?.map(|(_, key)| key),
            self.read(&ALIASES, tx, &place).await?,
        ];
        if holders.into_iter().flatten().any(|key| key.id != alias.id) {
            return Err(Error::invalid("alias with combination of mount accessor and name already exists"));
        }
        let target = match &entity {
            None => None,
            Some(id) if owner.as_ref().is_some_and(|owner| owner.id == *id) => None,
            Some(id) => {
                let found = self.entity(tx, id).await?;
                let text = match &owner {
                    Some(_) => "given 'canonical_id' is not associated with an entity",
                    None => "invalid canonical ID",
                };
                Some(found.ok_or_else(|| Error::invalid(text))?)
            }
        };
        if let Some(entity) = target.as_ref().or(owner.as_ref())
            && entity.alias_at(&alias.mount_accessor).is_some_and(|other| other.id != alias.id)
        {
            return Err(Error::invalid(match owner {
                Some(_) => "Alias cannot be updated as the given entity already has an alias for this mount ",
                None => "Alias already exists for requested entity and mount accessor",
            }));
        }
        let moves = target.is_some() || owner.is_none();
        let is_other =
            |old: &EntityAlias| old.mount_accessor != alias.mount_accessor || fold(&old.name) != fold(&alias.name);
        let is_replaced = known.is_some_and(|old| target.is_some() || is_other(old));
        if is_replaced {
            alias.replaced = Some(now);
        }
        Ok(PlannedAlias { alias, owner, target, moves, is_replaced })
    }

    /// Writes a planned alias. Returns its id and its entity.
    pub(super) async fn write_alias(
        &self,
        tx: &mut Tx,
        planned: PlannedAlias,
        now: Timestamp,
    ) -> Result<(String, Entity)> {
        let PlannedAlias { alias, mut owner, target, moves, is_replaced } = planned;
        let id = alias.id.clone();
        if let Some(owner) = &mut owner {
            if let Some(old) = owner.alias(&id).cloned() {
                self.delete_alias_keys(tx, &old.mount_accessor, &old.name, &old.id).await?;
                if is_replaced {
                    self.leave_external_groups(tx, &owner.id, &old.mount_accessor).await?;
                }
            }
            if moves {
                owner.aliases.retain(|other| other.id != id);
                self.put_entity(tx, owner)?;
            }
        }
        let mut entity = match (target, owner) {
            (Some(target), _) => target,
            (None, Some(owner)) => owner,
            (None, None) => self.new_entity(tx, "", now).await?,
        };
        self.put_alias_keys(tx, &entity.id, &alias).await?;
        match entity.aliases.iter_mut().find(|other| other.id == id) {
            Some(known) => *known = alias,
            None => entity.aliases.push(alias),
        }
        self.put_entity(tx, &entity)?;
        Ok((id, entity))
    }

    /// Deletes the alias of this id, if it exists.
    pub(super) async fn delete_alias(&self, tx: &mut Tx, id: &str) -> Result<()> {
        let Some(mut entity) = self.entity_of_alias_id(tx, id).await? else { return Ok(()) };
        if let Some(alias) = entity.alias(id).cloned() {
            self.delete_alias_keys(tx, &alias.mount_accessor, &alias.name, id).await?;
            self.leave_external_groups(tx, &entity.id, &alias.mount_accessor).await?;
            entity.aliases.retain(|other| other.id != id);
            self.put_entity(tx, &entity)?;
        }
        Ok(())
    }
}
