//! The conversion of entities of earlier versions, whose names and alias ids were no keys.
//!
//! A node that becomes the leader converts them before it serves, in steps; after an interruption it continues at the
//! last step. Records that are already converted stay as they are.

use std::sync::Arc;

use keepfast_framework::{Error, Records, Result};
use keepfast_storage::{Barrier, Page, Tx};
use serde::{Deserialize, Serialize};

use super::effective::Changes;
use super::names::{alias_key, name_key, unfolded_alias_key};
use super::record::{ALIAS_IDS, ALIASES, ENTITIES, ENTITY_NAMES, Entity, Reference};
use super::store::Identity;
use crate::layout::IDENTITY_STORAGE;
use crate::metrics::Metrics;
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
    let identity = Identity::new(barrier.clone(), barrier.view(IDENTITY_STORAGE), metrics, changes);
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
        let progress = PROGRESS.get_in(tx, &self.view, "").await?.unwrap_or_default();
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

    async fn convert(&self, tx: &mut Tx, mut entity: Entity) -> Result<()> {
        let reference = |name: &str| Reference {
            id: entity.id.clone(),
            name: name.to_owned(),
            namespace: entity.namespace.clone(),
        };
        for alias in entity.aliases.iter().filter(|alias| !alias.id.is_empty()) {
            if ALIAS_IDS.get_in(tx, &self.view, &alias.id).await?.is_none() {
                ALIAS_IDS.put_in(tx, &self.view, &alias.id, &reference(""))?;
            }
            let unfolded = unfolded_alias_key(&alias.mount_accessor, &alias.name);
            let place = alias_key(&alias.mount_accessor, &alias.name);
            // Where two spellings had two entities, the second keeps its place.
            if unfolded != place
                && ALIASES.get_in(tx, &self.view, &place).await?.is_none()
                && let Some(key) = ALIASES.get_in(tx, &self.view, &unfolded).await?
            {
                ALIASES.delete_in(tx, &self.view, &unfolded);
                ALIASES.put_in(tx, &self.view, &place, &key)?;
            }
        }
        match ENTITY_NAMES.get_in(tx, &self.view, &name_key(&entity.name)).await? {
            Some(known) if known.id == entity.id => {}
            None => ENTITY_NAMES.put_in(tx, &self.view, &name_key(&entity.name), &reference(&entity.name))?,
            // Generated names of earlier versions were random, and no names were unique.
            Some(_) => {
                let name = self.free_entity_name(tx).await?;
                ENTITY_NAMES.put_in(tx, &self.view, &name_key(&name), &reference(&name))?;
                entity.name = name;
                self.put_entity(tx, &entity)?;
            }
        }
        Ok(())
    }
}
