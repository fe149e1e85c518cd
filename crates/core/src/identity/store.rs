//! The records of identity: reads that check the namespace, and counts.

use std::sync::Arc;

use keepfast_crypto::random;
use keepfast_framework::throttle::Throttle;
use keepfast_framework::{Page, Records, Result};
use keepfast_storage::{Barrier, ReadTx, View};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::effective::{Changes, EffectiveCache};
use super::mfa::MfaRules;
use super::names::{alias_key, name_key, unfolded_alias_key};
use super::oidc::OidcState;
use super::record::{
    ALIAS_IDS, ALIASES, AliasKey, ENTITIES, ENTITY_NAMES, Entity, GROUP_ALIAS_IDS, GROUP_ALIASES, GROUP_NAMES, GROUPS,
    Group, MERGED, Namespaced, Reference,
};
use crate::layout;
use crate::metrics::Metrics;
use crate::namespace::NamespaceId;

/// All entities, aliases and groups.
pub(crate) struct Identity {
    /// The namespace of the records.
    pub(crate) namespace: NamespaceId,
    pub(super) barrier: Arc<Barrier>,
    pub(super) view: View,
    pub(super) metrics: Arc<Metrics>,
    pub(super) cache: EffectiveCache,
    /// The state of the OIDC provider in memory.
    pub(crate) oidc: Arc<OidcState>,
    /// The state of the login enforcements in memory.
    pub(crate) mfa: Arc<MfaRules>,
    /// The identity of the namespace above, whose login enforcements also bind logins here; `None` for root.
    pub(super) parent: Option<Arc<Identity>>,
}

/// The number of names per read of a count.
const PAGE: usize = 1000;

impl Identity {
    /// The identity of a namespace, below `view`. `changes` follows its records.
    pub(crate) fn new(
        namespace: NamespaceId,
        barrier: Arc<Barrier>,
        view: View,
        metrics: Arc<Metrics>,
        changes: Arc<Changes>,
    ) -> Self {
        let cache = EffectiveCache::new(changes);
        Identity { namespace, barrier, view, metrics, cache, oidc: Arc::default(), mfa: Arc::default(), parent: None }
    }

    /// The same below the identity of the namespace above.
    pub(crate) fn below(self, parent: Option<Arc<Identity>>) -> Self {
        Identity { parent, ..self }
    }

    /// This identity and those of the namespaces above.
    pub(super) fn with_ancestors(&self) -> impl Iterator<Item = &Identity> {
        std::iter::successors(Some(self), |identity| identity.parent.as_deref())
    }

    /// The same with the state of the OIDC provider on a node that has a role.
    pub(crate) fn with_oidc(self, oidc: OidcState) -> Self {
        Identity { oidc: Arc::new(oidc), ..self }
    }

    /// A new id of an entity, a group or an alias, which ends in the id of a namespace other than root.
    pub(super) fn new_id(&self) -> String {
        format!("{}{}", random::uuid(), self.namespace.suffix())
    }

    /// A record of this namespace.
    pub(super) async fn read<T>(&self, records: &Records<T>, tx: &mut ReadTx, name: &str) -> Result<Option<T>>
    where
        T: Namespaced + Serialize + DeserializeOwned,
    {
        if name.is_empty() {
            return Ok(None);
        }
        let found = records.get_in(tx, &self.view, name).await?;
        Ok(found.filter(|record| *record.namespace() == self.namespace))
    }

    /// The record to which a name or the id of an alias leads.
    async fn referenced<T>(
        &self,
        references: &Records<Reference>,
        records: &Records<T>,
        tx: &mut ReadTx,
        key: &str,
    ) -> Result<Option<T>>
    where
        T: Namespaced + Serialize + DeserializeOwned,
    {
        match self.read(references, tx, key).await? {
            Some(reference) => self.read(records, tx, &reference.id).await,
            None => Ok(None),
        }
    }

    /// An entity by its id. A merged entity does not exist any more.
    pub(crate) async fn entity(&self, tx: &mut ReadTx, id: &str) -> Result<Option<Entity>> {
        self.read(&ENTITIES, tx, id).await
    }

    /// The id of the entity that this one was merged into.
    pub(crate) async fn merged_into(&self, tx: &mut ReadTx, id: &str) -> Result<Option<String>> {
        Ok(self.read(&MERGED, tx, id).await?.map(|reference| reference.id))
    }

    /// The id of the entity of this name.
    pub(super) async fn id_of_name(&self, tx: &mut ReadTx, name: &str) -> Result<Option<String>> {
        Ok(self.read(&ENTITY_NAMES, tx, &name_key(name)).await?.map(|reference| reference.id))
    }

    /// The entity of this name.
    pub(crate) async fn entity_named(&self, tx: &mut ReadTx, name: &str) -> Result<Option<Entity>> {
        self.referenced(&ENTITY_NAMES, &ENTITIES, tx, &name_key(name)).await
    }

    /// The unique key of an alias of an entity, with its place. An alias of an earlier version may have another place, where
    /// one spelling of its name has its own entity.
    pub(super) async fn alias_at(
        &self,
        tx: &mut ReadTx,
        accessor: &str,
        name: &str,
    ) -> Result<Option<(String, AliasKey)>> {
        let (place, unfolded) = (alias_key(accessor, name), unfolded_alias_key(accessor, name));
        if unfolded != place
            && let Some(key) = self.read(&ALIASES, tx, &unfolded).await?
        {
            return Ok(Some((unfolded, key)));
        }
        Ok(self.read(&ALIASES, tx, &place).await?.map(|key| (place, key)))
    }

    /// The entity with an alias at a mount.
    pub(crate) async fn entity_of_alias(&self, tx: &mut ReadTx, accessor: &str, name: &str) -> Result<Option<Entity>> {
        match self.alias_at(tx, accessor, name).await? {
            Some((_, key)) => self.entity(tx, &key.entity).await,
            None => Ok(None),
        }
    }

    /// The entity with the alias of this id.
    pub(crate) async fn entity_of_alias_id(&self, tx: &mut ReadTx, id: &str) -> Result<Option<Entity>> {
        self.referenced(&ALIAS_IDS, &ENTITIES, tx, id).await
    }

    /// A group by its id.
    pub(crate) async fn group(&self, tx: &mut ReadTx, id: &str) -> Result<Option<Group>> {
        self.read(&GROUPS, tx, id).await
    }

    /// The group of this name.
    pub(crate) async fn group_named(&self, tx: &mut ReadTx, name: &str) -> Result<Option<Group>> {
        self.referenced(&GROUP_NAMES, &GROUPS, tx, &name_key(name)).await
    }

    /// The external group with an alias at a mount.
    pub(crate) async fn group_of_alias(&self, tx: &mut ReadTx, accessor: &str, name: &str) -> Result<Option<Group>> {
        self.referenced(&GROUP_ALIASES, &GROUPS, tx, &alias_key(accessor, name)).await
    }

    /// The external group with the alias of this id.
    pub(crate) async fn group_of_alias_id(&self, tx: &mut ReadTx, id: &str) -> Result<Option<Group>> {
        self.referenced(&GROUP_ALIAS_IDS, &GROUPS, tx, id).await
    }

    /// The number of entities, and the number of aliases of each mount that has any, by accessor.
    pub(crate) async fn count(&self, barrier: &Arc<Barrier>, pace: &mut Throttle) -> Result<(u64, Vec<(String, u64)>)> {
        let entities = self.count_names(barrier, layout::ENTITIES, pace).await?;
        let mut aliases = Vec::new();
        for folder in barrier.begin_read().list(&self.view, "alias/", &Page::all()).await? {
            let count = self.count_names(barrier, &format!("alias/{folder}"), pace).await?;
            aliases.push((folder.trim_end_matches('/').to_owned(), count));
        }
        Ok((entities, aliases))
    }

    async fn count_names(&self, barrier: &Arc<Barrier>, folder: &str, pace: &mut Throttle) -> Result<u64> {
        let (mut count, mut page) = (0, Page::first(PAGE));
        loop {
            let names = barrier.begin_read().list(&self.view, folder, &page).await?;
            count += names.len() as u64;
            page.after = names.last().cloned();
            if names.len() < PAGE {
                return Ok(count);
            }
            pace.step().await;
        }
    }
}
