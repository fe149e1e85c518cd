//! The current keyring. It follows the keyring record that any node commits.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{KEYRING, RootKey, keyring::Keyring};
use crate::{Digest, Index, Watch, Write};

/// The most root keys that are expected at a time.
const MAX_EXPECTED: usize = 8;

/// The current keyring.
pub(super) struct CurrentKeyring {
    keyring: ArcSwap<Keyring>,
    /// Locked while `keyring` changes.
    coming: Mutex<Coming>,
    failed_closed: AtomicBool,
    /// Whether it failed closed because all records were replaced.
    replaced: AtomicBool,
    seal_demanded: Notify,
}

/// What opens the next record of the keyring.
#[derive(Default)]
struct Coming {
    /// The keyring that this barrier is committing, until its record is applied.
    committing: Option<Keyring>,
    /// The root keys that another node has announced, by their names.
    roots: Vec<([u8; 32], RootKey)>,
}

impl Coming {
    /// The keyring of a record under an expected root key, which is then no longer expected.
    fn open(&mut self, record: &[u8], known: &Keyring) -> Option<Keyring> {
        let open = |root| Keyring::load(root, KEYRING, record, known).ok();
        let (at, next) = self.roots.iter().enumerate().find_map(|(at, (_, root))| Some((at, open(root)?)))?;
        self.roots.remove(at);
        Some(next)
    }
}

impl CurrentKeyring {
    pub(super) fn new(keyring: Keyring) -> Self {
        Self {
            keyring: ArcSwap::from_pointee(keyring),
            coming: Mutex::default(),
            failed_closed: AtomicBool::new(false),
            replaced: AtomicBool::new(false),
            seal_demanded: Notify::new(),
        }
    }

    pub(super) fn load(&self) -> Guard<Arc<Keyring>> {
        self.keyring.load()
    }

    pub(super) fn load_full(&self) -> Arc<Keyring> {
        self.keyring.load_full()
    }

    /// Announces the keyring that this barrier is about to commit, so that its record is recognized when it is applied.
    /// Returns false and stores nothing when the barrier is closed.
    pub(super) fn announce(&self, next: Keyring) -> bool {
        let mut coming = self.coming.lock();
        let is_open = self.keyring.load().active().is_some();
        if is_open {
            coming.committing = Some(next);
        }
        is_open
    }

    /// Expects a record of the keyring under this root key. Returns false when the barrier is closed, or too many are
    /// expected.
    pub(super) fn expect(&self, name: [u8; 32], root: &RootKey) -> bool {
        let mut coming = self.coming.lock();
        coming.roots.retain(|(known, _)| *known != name);
        let has_room = self.keyring.load().active().is_some() && coming.roots.len() < MAX_EXPECTED;
        if has_room {
            coming.roots.push((name, root.clone()));
        }
        has_room
    }

    /// Drops an expected root key.
    pub(super) fn forget(&self, name: &[u8; 32]) {
        self.coming.lock().roots.retain(|(known, _)| known != name);
    }

    /// Drops the announced keyring after a commit that wrote nothing.
    pub(super) fn withdraw(&self) {
        self.coming.lock().committing = None;
    }

    /// Switches to the keyring of this stored record. A record that neither the current root key nor an expected one
    /// decrypts was written by another node under another root key: the keys are then dropped.
    pub(super) fn switch_to(&self, record: &[u8]) {
        self.switch(&mut self.coming.lock(), record);
    }

    /// As [`switch_to`](Self::switch_to), for a record that was read after the stored form of the current keyring was
    /// `before`. Ignores it when the keyring has changed since: the watcher may have switched to a newer record.
    pub(super) fn switch_to_read(&self, before: Digest, record: &[u8]) {
        let mut coming = self.coming.lock();
        if self.keyring.load().stored() == before {
            self.switch(&mut coming, record);
        }
    }

    fn switch(&self, coming: &mut Coming, record: &[u8]) {
        let digest = Digest::of(record);
        let known = self.keyring.load_full();
        if known.active().is_none() || known.stored() == digest {
            return;
        }
        let own = coming.committing.take_if(|next| next.stored() == digest);
        let next = own.or_else(|| Keyring::load(known.root(), KEYRING, record, &known).ok());
        match next.or_else(|| coming.open(record, &known)) {
            Some(next) => self.keyring.store(Arc::new(next)),
            None => {
                tracing::error!(
                    "another node has changed the root key, which this node did not get: it drops its keys and seals; \
                     unseal it with the current shares"
                );
                self.drop_keys(coming);
                self.demand_seal();
            }
        }
    }

    /// Drops the keys, including those of an announced keyring.
    pub(super) fn close(&self) {
        self.drop_keys(&mut self.coming.lock());
    }

    /// Drops the keys and requests a seal of the node.
    pub(super) fn fail_closed(&self) {
        self.close();
        self.demand_seal();
    }

    /// Whether the keys were dropped without a request to close, so that the node must be sealed.
    pub(super) fn has_failed_closed(&self) -> bool {
        self.failed_closed.load(Ordering::Acquire)
    }

    /// Whether the keys were dropped because all records were replaced.
    pub(super) fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Acquire)
    }

    /// Waits until [`has_failed_closed`](Self::has_failed_closed).
    pub(super) async fn failed_closed(&self) {
        let notified = self.seal_demanded.notified();
        if !self.has_failed_closed() {
            notified.await;
        }
    }

    fn drop_keys(&self, coming: &mut Coming) {
        *coming = Coming::default();
        self.keyring.store(Arc::new(Keyring::empty()));
    }

    fn demand_seal(&self) {
        self.failed_closed.store(true, Ordering::Release);
        self.seal_demanded.notify_waiters();
    }

    /// Whether a keyring is announced.
    #[cfg(test)]
    pub(super) fn has_announced(&self) -> bool {
        self.coming.lock().committing.is_some()
    }
}

impl Watch for CurrentKeyring {
    fn applied(&self, _: Index, writes: &[Write]) {
        for write in writes {
            if let Write::Put { key, value } = write
                && key.as_str() == KEYRING
            {
                self.switch_to(value);
            }
        }
    }

    /// The records are encrypted under another keyring, which only a new barrier reads.
    fn replaced(&self, _: Index) {
        let mut coming = self.coming.lock();
        // A barrier that was closed before is not opened again.
        if self.keyring.load().active().is_some() {
            self.replaced.store(true, Ordering::Release);
            self.drop_keys(&mut coming);
            self.demand_seal();
        }
    }
}
