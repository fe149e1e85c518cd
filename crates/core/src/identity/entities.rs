//! Writes of entities, each with the unique key of its name.

use std::collections::BTreeMap;

use keepfast_framework::{Error, Result, Timestamp};
use keepfast_storage::Tx;

use super::membership::{self, Member};
use super::metadata::checked_name;
use super::names::{alias_key, fold, generated, name_key, unfolded_alias_key};
use super::record::{ALIAS_IDS, ALIASES, AliasKey, ENTITIES, ENTITY_NAMES, Entity, EntityAlias, MERGED, Reference};
use super::store::Identity;

/// The number of generated names that are tried.
const TRIES: usize = 16;

impl Identity {
    /// A new entity with this name, or with a generated one if it is empty; written by [`Identity::put_entity`].
    pub(super) async fn new_entity(&self, tx: &mut Tx, name: &str, now: Timestamp) -> Result<Entity> {
        let name = match name {
            "" => self.free_entity_name(tx).await?,
            name => name.to_owned(),
        };
        let entity = Entity {
            id: self.new_id(),
            name,
            metadata: BTreeMap::new(),
            policies: Vec::new(),
            aliases: Vec::new(),
            disabled: false,
            merged: Vec::new(),
            namespace: self.namespace.clone(),
            created: now,
            modified: None,
        };
        self.put_entity_name(tx, &entity)?;
        Ok(entity)
    }

    /// A generated name that no entity has.
    pub(super) async fn free_entity_name(&self, tx: &mut Tx) -> Result<String> {
        for _ in 0..TRIES {
            let name = generated("entity", self.namespace.as_str());
            if self.id_of_name(tx, &name).await?.is_none() {
                return Ok(name);
            }
        }
        Err(Error::internal("no free name for an entity"))
    }

    /// Gives an entity another name, which no other may have.
    pub(super) async fn rename_entity(&self, tx: &mut Tx, entity: &mut Entity, name: &str) -> Result<()> {
        if name.is_empty() || name == entity.name {
            return Ok(());
        }
        checked_name(name)?;
        if fold(name) != fold(&entity.name) {
            if self.id_of_name(tx, name).await?.is_some() {
                return Err(Error::invalid("entity name is already in use"));
            }
            ENTITY_NAMES.delete_in(tx, &self.view, &name_key(&entity.name));
        }
        name.clone_into(&mut entity.name);
        self.put_entity_name(tx, entity)
    }

    fn put_entity_name(&self, tx: &mut Tx, entity: &Entity) -> Result<()> {
        let reference =
            Reference { id: entity.id.clone(), name: entity.name.clone(), namespace: self.namespace.clone() };
        ENTITY_NAMES.put_in(tx, &self.view, &name_key(&entity.name), &reference)
    }

    /// Writes an entity. Its name and its aliases have their keys.
    pub(super) fn put_entity(&self, tx: &mut Tx, entity: &Entity) -> Result<()> {
        ENTITIES.put_in(tx, &self.view, &entity.id, entity)
    }

    /// Writes the keys of an alias of an entity.
    pub(super) async fn put_alias_keys(&self, tx: &mut Tx, entity: &str, alias: &EntityAlias) -> Result<()> {
        let key = AliasKey {
            namespace: self.namespace.clone(),
            entity: entity.to_owned(),
            id: alias.id.clone(),
            metadata: alias.metadata.clone(),
        };
        // Another spelling of an earlier version may have the place.
        let folded = alias_key(&alias.mount_accessor, &alias.name);
        let is_taken = self.read(&ALIASES, tx, &folded).await?.is_some_and(|other| other.id != alias.id);
        let place = if is_taken { unfolded_alias_key(&alias.mount_accessor, &alias.name) } else { folded };
        ALIASES.put_in(tx, &self.view, &place, &key)?;
        let reference = Reference { id: entity.to_owned(), name: String::new(), namespace: self.namespace.clone() };
        ALIAS_IDS.put_in(tx, &self.view, &alias.id, &reference)
    }

    /// Deletes the keys of one alias.
    pub(super) async fn delete_alias_keys(&self, tx: &mut Tx, accessor: &str, name: &str, id: &str) -> Result<()> {
        let (place, unfolded) = (alias_key(accessor, name), unfolded_alias_key(accessor, name));
        for place in [place, unfolded] {
            // The other place may be that of another spelling.
            if self.read(&ALIASES, tx, &place).await?.is_some_and(|key| key.id == id) {
                ALIASES.delete_in(tx, &self.view, &place);
            }
        }
        ALIAS_IDS.delete_in(tx, &self.view, id);
        Ok(())
    }

    /// Deletes an entity with its aliases and its memberships. Its tokens stop working with the commit.
    pub(super) async fn delete_entity(&self, tx: &mut Tx, entity: &Entity) -> Result<()> {
        for alias in &entity.aliases {
            self.delete_alias_keys(tx, &alias.mount_accessor, &alias.name, &alias.id).await?;
        }
        for group in membership::verified_groups_of(tx, &self.view, Member::Entity, &entity.id).await? {
            membership::remove(tx, &self.view, Member::Entity, &group, &entity.id);
        }
        self.delete_mfa_of(tx, &entity.id).await?;
        for merged in &entity.merged {
            MERGED.delete_in(tx, &self.view, merged);
        }
        ENTITY_NAMES.delete_in(tx, &self.view, &name_key(&entity.name));
        ENTITIES.delete_in(tx, &self.view, &entity.id);
        Ok(())
    }
}
