//! The state of the OIDC provider in memory: key sets, and the time of the next rotation. It follows the commits.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use keepfast_framework::{Page, Result, Timestamp};
use keepfast_storage::{Barrier, Role, View};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::algorithm::Algorithm;
use super::ring::{KEY_FOLDER, KEYS, KeyRecord, SigningKey};
use crate::invalidation::{CacheOwner, CommittedChange};
use crate::unreadable::{self, Stored};

/// The maximum number of key sets in memory.
const MOST_SETS: usize = 256;
/// The number of names per read.
const PAGE: usize = 500;

/// A key set (RFC 7517) as JSON.
#[derive(Clone)]
pub(crate) struct KeySet {
    /// The JSON.
    pub(super) json: Bytes,
    /// The time from which it is different.
    pub(super) until: Timestamp,
}

/// The state of the OIDC provider in memory.
#[derive(Default)]
pub(crate) struct OidcState {
    /// The role of this node in its cluster; `None` without one.
    roles: Option<watch::Receiver<Role>>,
    /// Incremented by each commit of a record that key sets are made of.
    generation: AtomicU64,
    /// Key sets by the name of the provider, empty for roles, with the generation in which they were read.
    sets: Mutex<HashMap<String, (u64, KeySet)>>,
    /// Incremented by each commit of a key.
    key_generation: AtomicU64,
    /// The next rotation of a key, with the `key_generation` in which it was read.
    schedule: Mutex<Option<(u64, Option<Timestamp>)>>,
    /// Wakes the background tasks when a key has changed.
    pub(crate) changed: Notify,
}

impl OidcState {
    /// An empty state of a node with this role.
    pub(crate) fn new(roles: Option<watch::Receiver<Role>>) -> Self {
        OidcState { roles, ..OidcState::default() }
    }

    /// The API address of the leader, where that is another node and known.
    pub(super) fn leader_address(&self) -> Option<String> {
        match &*self.roles.as_ref()?.borrow() {
            Role::Following { leader } => leader.as_ref().map(|leader| leader.api_addr.clone()),
            Role::Leading => None,
        }
    }

    /// The generation, to be taken before records are read.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// A key set that is current at `now`.
    pub(super) fn key_set(&self, provider: &str, now: Timestamp) -> Option<KeySet> {
        let sets = self.sets.lock();
        let (generation, set) = sets.get(provider)?;
        (*generation == self.generation() && now < set.until).then(|| set.clone())
    }

    /// Keeps a key set that was read in a generation.
    pub(super) fn keep(&self, provider: &str, generation: u64, set: KeySet) {
        let mut sets = self.sets.lock();
        if sets.len() >= MOST_SETS {
            sets.clear();
        }
        sets.insert(provider.to_owned(), (generation, set));
    }

    /// The time of the next rotation; `None` without keys.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn next_rotation(&self, barrier: &Arc<Barrier>, view: &View) -> Result<Option<Timestamp>> {
        let generation = self.key_generation.load(Ordering::Acquire);
        if let Some((_, next)) = (*self.schedule.lock()).filter(|(read, _)| *read == generation) {
            return Ok(next);
        }
        let mut next = None;
        each_key(barrier, view, |_, key| {
            let at = key.next_rotation();
            next = Some(next.map_or(at, |next: Timestamp| next.min(at)));
        })
        .await?;
        *self.schedule.lock() = Some((generation, next));
        Ok(next)
    }
}

/// Follows all records of the provider except codes.
impl CacheOwner for OidcState {
    fn applied(&self, change: &CommittedChange<'_>) {
        if change.key.starts_with("code") {
            return;
        }
        self.generation.fetch_add(1, Ordering::AcqRel);
        if change.key.starts_with("key/") {
            self.key_generation.fetch_add(1, Ordering::AcqRel);
            self.changed.notify_one();
        }
    }
}

/// Visits all keys by name, with one in memory at a time. One that cannot be read is logged and left out.
async fn each_key(barrier: &Arc<Barrier>, view: &View, mut visit: impl FnMut(&str, &KeyRecord)) -> Result<()> {
    let mut tx = barrier.begin_read();
    let mut page = Page::first(PAGE);
    loop {
        let names = tx.list(view, KEY_FOLDER, &page).await?;
        page.after = names.last().cloned();
        let is_last = names.len() < PAGE;
        for name in names {
            if let Stored::Record(key) = unreadable::read((&KEYS, "OIDC key"), &mut tx, view, &name).await? {
                visit(&name, &key);
            }
        }
        if is_last {
            return Ok(());
        }
    }
}

/// Rotates the keys whose rotation is due.
///
/// # Errors
/// When storage fails; the other keys are rotated nevertheless.
pub(crate) async fn rotate_due_keys(barrier: &Arc<Barrier>, view: &View, now: Timestamp) -> Result<()> {
    let (mut due, mut failed) = (Vec::new(), None);
    each_key(barrier, view, |name, key| {
        if key.next_rotation() <= now {
            due.push((name.to_owned(), key.settings.algorithm));
        }
    })
    .await?;
    for (name, algorithm) in due {
        if let Err(error) = rotate(barrier, view, &name, algorithm, now).await {
            failed = Some(error);
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn rotate(barrier: &Arc<Barrier>, view: &View, name: &str, algorithm: Algorithm, now: Timestamp) -> Result<()> {
    let fresh = &SigningKey::generate(algorithm).await?;
    let rotated = barrier
        .transact(|mut tx| async move {
            // Another request may have deleted or changed the key.
            let stored = KEYS.get_in(&mut tx, view, name).await?;
            let due = stored.filter(|key| key.next_rotation() <= now && key.settings.algorithm == algorithm);
            let rotated = due.is_some();
            if let Some(mut key) = due {
                let verification_ttl = key.settings.verification_ttl;
                key.rotate(fresh.clone(), now, verification_ttl);
                KEYS.put_in(&mut tx, view, name, &key)?;
            }
            Ok::<_, keepfast_framework::Error>((tx, rotated))
        })
        .await?;
    if rotated {
        tracing::info!(key = name, "the OIDC key was rotated");
    }
    Ok(())
}
