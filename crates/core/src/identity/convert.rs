//! The conversion of entities of earlier versions, whose names and alias ids were no keys.
//!
//! A node that becomes the leader converts them before it serves, in steps; after an interruption it continues at the
//! last step. Records that are already converted stay as they are.

use std::sync::Arc;

use keepfast_crypto::random;
use keepfast_framework::{Error, Records, Result};
use keepfast_storage::{Barrier, Page, Tx};
use serde::{Deserialize, Serialize};

use super::effective::Changes;
use super::names::{alias_key, name_key, unfolded_alias_key};
use super::record::{ALIAS_IDS, ALIASES, AliasKey, ENTITIES, ENTITY_NAMES, Entity, EntityAlias, Reference};
use super::store::Identity;
use crate::layout::IDENTITY_STORAGE;
use crate::metrics::Metrics;
use crate::namespace::NamespaceId;
use crate::unreadable::{self, Stored};

/// The number of entities in one transaction.
const STEP: usize = 200;

#[derive(Default, Serialize, Deserialize)]
struct Progress {
    /// The id of the last converted entity.
    after: Option<String>,
    done: bool,
}

const PROGRESS: Records<Progress> = Records::at("converted");

/// Converts the entities of earlier versions.
pub(crate) async fn convert_entities(barrier: &Arc<Barrier>) -> Result<()> {
    let (changes, metrics) = (Arc::new(Changes::default()), Arc::new(Metrics::default()));
    let identity =
        Identity::new(NamespaceId::root(), barrier.clone(), barrier.view(IDENTITY_STORAGE), metrics, changes);
    let identity = &identity;
    loop {
        let step = |mut tx| async move {
            let done = identity.convert_step(&mut tx).await?;
            Ok::<_, Error>((tx, done))
        };
        if barrier.transact(step).await? {
            return Ok(());
        }
    }
}

impl Identity {
    /// Converts the next entities. Returns whether all are converted.
    async fn convert_step(&self, tx: &mut Tx) -> Result<bool> {
        // Without the progress all are converted again, which changes nothing.
        let progress = unreadable::read((&PROGRESS, "progress of a conversion"), tx, &self.view, "").await?;
        let progress = progress.readable().unwrap_or_default();
        if progress.done {
            return Ok(true);
        }
        let page = Page { after: progress.after, limit: Some(STEP) };
        let ids = ENTITIES.list_in(tx, &self.view, "", &page).await?;
        for id in &ids {
            if let Stored::Record(entity) = unreadable::read((&ENTITIES, "entity"), tx, &self.view, id).await? {
                self.convert(tx, entity).await?;
            }
        }
        let progress = Progress { done: ids.len() < STEP, after: ids.into_iter().next_back() };
        PROGRESS.put_in(tx, &self.view, "", &progress)?;
        Ok(progress.done)
    }

    /// Converts an entity. A damaged record beside it stays as it is, and only what depends on it is refused.
    async fn convert(&self, tx: &mut Tx, mut entity: Entity) -> Result<()> {
        let (id, namespace) = (entity.id.clone(), entity.namespace.clone());
        let reference = |name: &str| Reference { id: id.clone(), name: name.to_owned(), namespace: namespace.clone() };
        let mut is_changed = false;
        for alias in &mut entity.aliases {
            if alias.id.is_empty() {
                alias.id = random::uuid();
                is_changed = true;
                self.name_alias_key(tx, &id, alias).await?;
            }
            if let Stored::Absent = unreadable::read((&ALIAS_IDS, "alias id"), tx, &self.view, &alias.id).await? {
                ALIAS_IDS.put_in(tx, &self.view, &alias.id, &reference(""))?;
            }
            let unfolded = unfolded_alias_key(&alias.mount_accessor, &alias.name);
            let place = alias_key(&alias.mount_accessor, &alias.name);
            // Where two spellings had two entities, the second keeps its place.
            if unfolded != place
                && let Stored::Absent = unreadable::read((&ALIASES, "alias"), tx, &self.view, &place).await?
                && let Stored::Record(key) = unreadable::read((&ALIASES, "alias"), tx, &self.view, &unfolded).await?
            {
                ALIASES.delete_in(tx, &self.view, &unfolded);
                ALIASES.put_in(tx, &self.view, &place, &key)?;
            }
        }
        let key = name_key(&entity.name);
        match unreadable::read((&ENTITY_NAMES, "name of an entity"), tx, &self.view, &key).await? {
            Stored::Record(known) if known.id == entity.id => {}
            Stored::Unreadable => {}
            Stored::Absent => ENTITY_NAMES.put_in(tx, &self.view, &key, &reference(&entity.name))?,
            // Generated names of earlier versions were random, and no names were unique.
            Stored::Record(_) => {
                let name = self.free_entity_name(tx).await?;
                ENTITY_NAMES.put_in(tx, &self.view, &name_key(&name), &reference(&name))?;
                entity.name = name;
                is_changed = true;
            }
        }
        if is_changed {
            self.put_entity(tx, &entity)?;
        }
        Ok(())
    }

    /// Writes the new id of an alias to its unique key.
    async fn name_alias_key(&self, tx: &mut Tx, entity: &str, alias: &EntityAlias) -> Result<()> {
        let (accessor, name) = (&alias.mount_accessor, &alias.name);
        for place in [unfolded_alias_key(accessor, name), alias_key(accessor, name)] {
            if let Stored::Record(key) = unreadable::read((&ALIASES, "alias"), tx, &self.view, &place).await?
                && key.entity == entity
                && key.id.is_empty()
            {
                ALIASES.put_in(tx, &self.view, &place, &AliasKey { id: alias.id.clone(), ..key })?;
            }
        }
        Ok(())
    }
}
