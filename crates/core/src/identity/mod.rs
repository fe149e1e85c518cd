//! Entities and aliases: the identity of a login. A login creates them; their own API does not exist yet.

mod policies;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keepfast_crypto::{hash, random};
use keepfast_framework::mount::MountInfo;
use keepfast_framework::reply::Alias;
use keepfast_framework::throttle::Throttle;
use keepfast_framework::{Page, Records, Result, Timestamp};
use keepfast_storage::{Barrier, ReadTx, Tx, View};
use serde::{Deserialize, Serialize};

use self::policies::PolicyCache;
use crate::layout;
use crate::metrics::Metrics;
use crate::namespace::NamespaceId;
use crate::stamps::Stamps;

/// An entity: a user or machine that logs in, by any auth method.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entity {
    /// The random unique id.
    pub(crate) id: String,
    /// The name, used by templates.
    pub(crate) name: String,
    /// The metadata, used by templates.
    #[serde(default)]
    pub(crate) metadata: BTreeMap<String, String>,
    /// The policies that the entity adds to its tokens.
    #[serde(default)]
    pub(crate) policies: Vec<String>,
    /// The aliases, at most one for each mount.
    #[serde(default)]
    pub(crate) aliases: Vec<EntityAlias>,
    /// The namespace of the entity.
    pub(crate) namespace: NamespaceId,
    /// The time of creation.
    pub(crate) created: Timestamp,
}

/// An alias: the name of an entity at one mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct EntityAlias {
    /// The random unique id.
    pub(crate) id: String,
    /// The name, normalized by the mount.
    pub(crate) name: String,
    /// The accessor of the mount.
    pub(crate) mount_accessor: String,
    /// The metadata, used by templates.
    #[serde(default)]
    pub(crate) metadata: BTreeMap<String, String>,
    /// The metadata that an operator set, used by templates.
    #[serde(default)]
    pub(crate) custom_metadata: BTreeMap<String, String>,
}

/// The identity of a login: an entity and the alias that was used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LoginIdentity {
    /// The id of the entity; empty for none.
    pub(crate) entity: String,
    /// The id of the alias; empty for none.
    pub(crate) alias: String,
    /// Whether this login created the entity.
    pub(crate) created: bool,
}

#[derive(Serialize, Deserialize)]
struct AliasRecord {
    /// The namespace of the alias.
    #[serde(default, skip_serializing_if = "NamespaceId::is_root")]
    namespace: NamespaceId,
    entity: String,
    #[serde(default)]
    id: String,
    metadata: BTreeMap<String, String>,
}

const ENTITIES: Records<Entity> = Records::at(layout::ENTITIES);
const ALIASES: Records<AliasRecord> = Records::at("alias/");

/// All entities.
pub(crate) struct Identity {
    /// The namespace of the records.
    pub(crate) namespace: NamespaceId,
    view: View,
    metrics: Arc<Metrics>,
    policies: PolicyCache,
}

/// The number of names per read of a count.
const PAGE: usize = 1000;

impl Identity {
    /// The entities under `view`. `stamps` are the stamps of entities, by id.
    pub(crate) fn new(view: View, metrics: Arc<Metrics>, stamps: Arc<Stamps>) -> Self {
        Identity { namespace: NamespaceId::root(), view, metrics, policies: PolicyCache::new(stamps) }
    }

    /// The entity of an alias. Creates it in this transaction if it does not exist.
    pub(crate) async fn entity_of(
        &self,
        tx: &mut Tx,
        mount: &MountInfo,
        alias: &Alias,
        now: Timestamp,
    ) -> Result<LoginIdentity> {
        let mount_accessor = mount.accessor.as_str();
        let place = alias_place(mount_accessor, &alias.name);
        let known = ALIASES.get_in(tx, &self.view, &place).await?;
        match known.filter(|record| record.namespace == self.namespace) {
            Some(record) if record.metadata == alias.metadata => Ok(record.login_identity()),
            Some(record) => {
                self.change_metadata(tx, &record.entity, mount_accessor, alias).await?;
                let changed = AliasRecord { metadata: alias.metadata.clone(), ..record };
                ALIASES.put_in(tx, &self.view, &place, &changed)?;
                Ok(changed.login_identity())
            }
            None => {
                self.metrics.entity_creation.add(&[
                    ("auth_method", &mount.engine),
                    ("mount_point", &mount.path),
                    ("namespace", self.namespace.as_str()),
                ]);
                self.create(tx, mount_accessor, alias, &place, now)
            }
        }
    }

    /// The committed policies that the entity of a login adds to its tokens.
    pub(crate) async fn policies_of(
        &self,
        barrier: &Arc<Barrier>,
        login_identity: &LoginIdentity,
    ) -> Result<Arc<[String]>> {
        if login_identity.entity.is_empty() || login_identity.created {
            return Ok(Arc::default());
        }
        if let Some(known) = self.policies.get(&login_identity.entity) {
            return Ok(known);
        }
        let stamp = self.policies.stamp(&login_identity.entity);
        let entity = self.entity(&mut barrier.begin_read(), &login_identity.entity).await?;
        let policies: Arc<[String]> = entity.map(|entity| entity.policies).unwrap_or_default().into();
        self.policies.insert(&login_identity.entity, stamp, policies.clone());
        Ok(policies)
    }

    /// An entity by its id.
    pub(crate) async fn entity(&self, tx: &mut ReadTx, id: &str) -> Result<Option<Entity>> {
        if id.is_empty() {
            return Ok(None);
        }
        let entity = ENTITIES.get_in(tx, &self.view, id).await?;
        Ok(entity.filter(|entity| entity.namespace == self.namespace))
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

    fn create(
        &self,
        tx: &mut Tx,
        mount_accessor: &str,
        alias: &Alias,
        place: &str,
        now: Timestamp,
    ) -> Result<LoginIdentity> {
        let id = random::uuid();
        let record = AliasRecord {
            namespace: self.namespace.clone(),
            entity: id.clone(),
            id: random::uuid(),
            metadata: alias.metadata.clone(),
        };
        let entity = Entity {
            name: format!("entity_{}", id.split('-').next().unwrap_or(&id)),
            id: id.clone(),
            metadata: BTreeMap::new(),
            policies: Vec::new(),
            aliases: vec![EntityAlias {
                id: record.id.clone(),
                name: alias.name.clone(),
                mount_accessor: mount_accessor.to_owned(),
                metadata: alias.metadata.clone(),
                custom_metadata: BTreeMap::new(),
            }],
            namespace: self.namespace.clone(),
            created: now,
        };
        ENTITIES.put_in(tx, &self.view, &id, &entity)?;
        ALIASES.put_in(tx, &self.view, place, &record)?;
        Ok(LoginIdentity { created: true, ..record.login_identity() })
    }

    async fn change_metadata(&self, tx: &mut Tx, id: &str, mount_accessor: &str, alias: &Alias) -> Result<()> {
        let Some(mut entity) = self.entity(tx, id).await? else { return Ok(()) };
        for known in entity.aliases.iter_mut().filter(|a| a.mount_accessor == mount_accessor && a.name == alias.name) {
            known.metadata = alias.metadata.clone();
        }
        ENTITIES.put_in(tx, &self.view, id, &entity)
    }
}

impl AliasRecord {
    fn login_identity(self) -> LoginIdentity {
        LoginIdentity { entity: self.entity, alias: self.id, created: false }
    }
}

/// The key of an alias. It has a hash of the name, because names may have any characters.
fn alias_place(mount_accessor: &str, name: &str) -> String {
    format!("{mount_accessor}/{}", URL_SAFE_NO_PAD.encode(hash::sha256(name.as_bytes())))
}
