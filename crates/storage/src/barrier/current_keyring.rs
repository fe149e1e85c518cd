//! The current keyring. It follows the keyring record that any node commits.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{KEYRING, keyring::Keyring};
use crate::{Digest, Index, Watch, Write};

/// The current keyring.
pub(super) struct CurrentKeyring {
    keyring: ArcSwap<Keyring>,
    /// The keyring that this barrier is committing, until its record is applied. Locked while `keyring` changes.
    committing: Mutex<Option<Keyring>>,
    failed_closed: AtomicBool,
    /// Whether it failed closed because all records were replaced.
    replaced: AtomicBool,
    seal_demanded: Notify,
}

impl CurrentKeyring {
    pub(super) fn new(keyring: Keyring) -> Self {
        Self {
            keyring: ArcSwap::from_pointee(keyring),
            committing: Mutex::new(None),
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
        let mut committing = self.committing.lock();
        let is_open = self.keyring.load().active().is_some();
        if is_open {
            *committing = Some(next);
        }
        is_open
    }

    /// Drops the announced keyring after a commit that wrote nothing.
    pub(super) fn withdraw(&self) {
        *self.committing.lock() = None;
    }

    /// Switches to the keyring of this stored record. A record that the current root key does not decrypt was written
    /// by another node under another root key: the keys are then dropped.
    pub(super) fn follow(&self, record: &[u8]) {
        self.switch(&mut self.committing.lock(), record);
    }

    /// As [`follow`](Self::follow), for a record that was read after the stored form of the current keyring was
    /// `before`. Ignores it when the keyring has changed since: the watcher may have switched to a newer record.
    pub(super) fn follow_read(&self, before: Digest, record: &[u8]) {
        let mut committing = self.committing.lock();
        if self.keyring.load().stored() == before {
            self.switch(&mut committing, record);
        }
    }

    fn switch(&self, committing: &mut Option<Keyring>, record: &[u8]) {
        let digest = Digest::of(record);
        let known = self.keyring.load_full();
        if known.active().is_none() || known.stored() == digest {
            return;
        }
        match committing.take_if(|next| next.stored() == digest) {
            Some(own) => self.keyring.store(Arc::new(own)),
            None => match Keyring::load(known.root(), KEYRING, record, &known) {
                Ok(next) => self.keyring.store(Arc::new(next)),
                Err(_) => {
                    tracing::error!(
                        "another node has changed the root key: this node drops its keys and needs the current shares"
                    );
                    self.drop_keys(committing);
                    self.demand_seal();
                }
            },
        }
    }

    /// Drops the keys, including those of an announced keyring.
    pub(super) fn close(&self) {
        self.drop_keys(&mut self.committing.lock());
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

    fn drop_keys(&self, committing: &mut Option<Keyring>) {
        *committing = None;
        self.keyring.store(Arc::new(Keyring::empty()));
    }

    fn demand_seal(&self) {
        self.failed_closed.store(true, Ordering::Release);
        self.seal_demanded.notify_waiters();
    }

    /// Whether a keyring is announced.
    #[cfg(test)]
    pub(super) fn has_announced(&self) -> bool {
        self.committing.lock().is_some()
    }
}

impl Watch for CurrentKeyring {
    fn applied(&self, _: Index, writes: &[Write]) {
        for write in writes {
            if let Write::Put { key, value } = write
                && key.as_str() == KEYRING
            {
                self.follow(value);
            }
        }
    }

    /// The records are encrypted under another keyring, which only a new barrier reads.
    fn replaced(&self, _: Index) {
        let mut committing = self.committing.lock();
        // A barrier that was closed before is not opened again.
        if self.keyring.load().active().is_some() {
            self.replaced.store(true, Ordering::Release);
            self.drop_keys(&mut committing);
            self.demand_seal();
        }
    }
}
