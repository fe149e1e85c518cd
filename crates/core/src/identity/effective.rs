//! The effective identity of an entity: its own data, its groups, and the policies of all of them.
//!
//! It is computed at the first use and cached per entity. A commit on any node that could change it makes the cached one
//! stale before the commit is acknowledged, so a removed member loses access at its next request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use keepfast_framework::Result;
use keepfast_storage::{ReadTx, StorageError};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::membership::{self, CHILD_OF, MEMBER_OF, Member};
use super::record::{Entity, GROUP_FOLDER, Group, MERGED_FOLDER};
use super::store::Identity;
use crate::invalidation::{CacheOwner, CommittedChange};
use crate::layout;
use crate::stamps::{Stamp, Stamps};

/// The most memory of the cache, in KiB. An entity takes about one.
const CAPACITY: u64 = 16_384;
/// The number of entities for which the cache allocates room at first.
const FIRST_ROOM: usize = 64;

/// The maximum number of reads of an entity that changes during each of them.
const MOST_READS: usize = 16;

/// An entity with all that its tokens have from it.
pub(crate) struct Effective {
    /// The entity: that of the id, or the one that it was merged into.
    pub(crate) entity: Entity,
    /// The groups that it is a member of directly.
    pub(crate) direct: Vec<Arc<Group>>,
    /// The groups that contain one of those.
    pub(crate) inherited: Vec<Arc<Group>>,
    /// The policies of the entity and of all groups, without duplicates: first those of the entity, each part sorted.
    pub(crate) policies: Vec<String>,
    freshness: Freshness,
}

impl Effective {
    /// Whether no commit has changed it since it was read.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.freshness.is_current(&self.direct)
    }

    /// All groups.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.direct.iter().chain(&self.inherited)
    }

    /// Its policies as responses to logins and renewals show them: sorted.
    pub(crate) fn sorted_policies(&self) -> Vec<String> {
        let mut policies = self.policies.clone();
        policies.sort();
        policies
    }
}

/// The stamps under which an [`Effective`] was read.
struct Freshness {
    /// Of the id, and of the entity that it was merged into.
    stamps: [Option<Stamp>; 2],
    generation: u64,
    changes: Arc<Changes>,
}

impl Freshness {
    fn is_current(&self, groups: &[Arc<Group>]) -> bool {
        let is_current = |stamp: &Option<Stamp>| stamp.as_ref().is_none_or(Stamp::is_current);
        // Without a membership no group matters.
        self.stamps.iter().all(is_current) && (groups.is_empty() || self.changes.generation() == self.generation)
    }
}

/// The committed changes of identity.
#[derive(Default)]
pub(crate) struct Changes {
    /// Stamps of entities by id: changed by the entity, its memberships and its merge.
    entities: Stamps,
    /// Incremented by each change of a group or of the groups in groups.
    generation: AtomicU64,
}

impl Changes {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

/// Follows the records that effective identities are derived from.
impl CacheOwner for Changes {
    fn applied(&self, change: &CommittedChange<'_>) {
        let key = change.key;
        if let Some(entity) = key.strip_prefix(layout::ENTITIES).or_else(|| key.strip_prefix(MERGED_FOLDER)) {
            self.entities.invalidate(entity);
        } else if let Some(membership) = key.strip_prefix(MEMBER_OF) {
            self.entities.invalidate(membership.split('/').next().unwrap_or(membership));
        } else if key.starts_with(GROUP_FOLDER) || key.starts_with(CHILD_OF) {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// The weight of an entry, in KiB.
#[derive(Clone)]
struct BySize;

impl Weighter<String, Arc<Effective>> for BySize {
    fn weight(&self, _: &String, effective: &Arc<Effective>) -> u64 {
        let pairs = |pairs: &BTreeMap<String, String>| pairs.iter().map(|(k, v)| 64 + k.len() + v.len()).sum::<usize>();
        let texts = |texts: &[String]| texts.iter().map(|text| 32 + text.len()).sum::<usize>();
        let entity = &effective.entity;
        let aliases =
            entity.aliases.iter().map(|a| 300 + a.name.len() + pairs(&a.metadata) + pairs(&a.custom_metadata));
        let groups = effective.groups().map(|g| 400 + g.name.len() + pairs(&g.metadata) + texts(&g.policies));
        let own = entity.name.len() + pairs(&entity.metadata) + texts(&entity.policies) + texts(&entity.merged);
        let bytes = 500 + own + texts(&effective.policies) + aliases.sum::<usize>() + groups.sum::<usize>();
        (bytes / 1024 + 1) as u64
    }
}

/// Effective identities by the id of the entity, or of one that was merged into it.
pub(super) struct EffectiveCache {
    entries: Cache<String, Arc<Effective>, BySize>,
    changes: Arc<Changes>,
}

impl EffectiveCache {
    /// An empty cache, which follows `changes`.
    pub(super) fn new(changes: Arc<Changes>) -> Self {
        EffectiveCache { entries: Cache::with_weighter(FIRST_ROOM, CAPACITY, BySize), changes }
    }
}

impl Identity {
    /// The effective identity of an entity, or of the one that it was merged into; `None` when it is deleted.
    ///
    /// # Errors
    /// When storage fails; 500 when the entity is in too many groups.
    pub(crate) async fn effective(&self, id: &str) -> Result<Option<Arc<Effective>>> {
        if id.is_empty() {
            return Ok(None);
        }
        if let Some(known) = self.cache.entries.get(id).filter(|known| known.is_unchanged()) {
            return Ok(Some(known));
        }
        for _ in 0..MOST_READS {
            // Boxed with its transaction: the future of every request has room for this one.
            let read = Box::pin(async { self.read_stamped(&mut self.barrier.begin_read(), id).await }).await?;
            let effective = match read {
                Ok(effective) if effective.is_unchanged() => Arc::new(effective),
                Err(freshness) if freshness.is_current(&[]) => {
                    self.cache.entries.remove(id);
                    return Ok(None);
                }
                // A commit in the meantime: some records may be read before it and some after it.
                _ => continue,
            };
            self.cache.entries.insert(id.to_owned(), effective.clone());
            return Ok(Some(effective));
        }
        Err(StorageError::Conflict.into())
    }

    /// The same as a transaction sees it, not cached.
    ///
    /// # Errors
    /// As [`Identity::effective`].
    pub(crate) async fn read_effective(&self, tx: &mut ReadTx, id: &str) -> Result<Option<Effective>> {
        self.read_stamped(tx, id).await.map(Result::ok)
    }

    /// The effective identity; without an entity the stamps under which there is none.
    async fn read_stamped(&self, tx: &mut ReadTx, id: &str) -> Result<std::result::Result<Effective, Freshness>> {
        // The stamps are taken before any record is read, so that a change in the meantime makes the result stale.
        let changes = &self.cache.changes;
        let (own, generation) = (changes.entities.stamp(id), changes.generation());
        let mut stamps = [Some(own), None];
        let mut entity = self.entity(tx, id).await?;
        if entity.is_none()
            && let Some(merged) = self.merged_into(tx, id).await?
        {
            stamps[1] = Some(changes.entities.stamp(&merged));
            entity = self.entity(tx, &merged).await?;
        }
        let freshness = Freshness { stamps, generation, changes: changes.clone() };
        let Some(entity) = entity else { return Ok(Err(freshness)) };
        let direct = membership::groups_of(tx, &self.view, Member::Entity, &entity.id).await?;
        let inherited = match direct.is_empty() {
            true => Vec::new(),
            false => membership::containing(tx, &self.view, &direct).await?,
        };
        let (direct, inherited) = (self.groups(tx, &direct).await?, self.groups(tx, &inherited).await?);
        let mut policies = entity.policies.clone();
        let mut of_groups: Vec<&String> = direct.iter().chain(&inherited).flat_map(|g| &g.policies).collect();
        of_groups.sort();
        of_groups.dedup();
        // Those of the entity are sorted, too.
        of_groups.retain(|policy| entity.policies.binary_search(policy).is_err());
        policies.extend(of_groups.into_iter().cloned());
        Ok(Ok(Effective { entity, direct, inherited, policies, freshness }))
    }

    /// The groups with these ids that exist.
    async fn groups(&self, tx: &mut ReadTx, ids: &[String]) -> Result<Vec<Arc<Group>>> {
        let mut out = Vec::with_capacity(ids.len());
        for id in ids {
            out.extend(self.group(tx, id).await?.map(Arc::new));
        }
        Ok(out)
    }

    /// Whether the tokens of an entity work: it exists and is not disabled. A token without an entity works.
    ///
    /// # Errors
    /// As [`Identity::effective`].
    pub(crate) async fn allows_tokens_of(&self, entity: &str) -> Result<bool> {
        Ok(entity.is_empty() || self.effective(entity).await?.is_some_and(|effective| !effective.entity.disabled))
    }
}
