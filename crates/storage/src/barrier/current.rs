//! The keyring in use. It follows what any node commits.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{KEYRING, keyring::Keyring};
use crate::{Digest, Index, Watch, Write};

/// The keyring in use.
pub(super) struct CurrentKeyring {
    keyring: ArcSwap<Keyring>,
    /// The keyring that this barrier commits, until its record is applied. Held while `keyring` changes.
    committing: Mutex<Option<Keyring>>,
    lost_root: AtomicBool,
    root_lost: Notify,
}

impl CurrentKeyring {
    pub(super) fn new(keyring: Keyring) -> Self {
        Self {
            keyring: ArcSwap::from_pointee(keyring),
            committing: Mutex::new(None),
            lost_root: AtomicBool::new(false),
            root_lost: Notify::new(),
        }
    }

    pub(super) fn load(&self) -> Guard<Arc<Keyring>> {
        self.keyring.load()
    }

    pub(super) fn load_full(&self) -> Arc<Keyring> {
        self.keyring.load_full()
    }

    /// Announces the keyring that this barrier is about to commit, so that its record is recognized when it is applied.
    pub(super) fn announce(&self, next: Keyring) {
        *self.committing.lock() = Some(next);
    }

    /// Takes the announcement back, because the commit failed for certain.
    pub(super) fn withdraw(&self) {
        *self.committing.lock() = None;
    }

    /// Uses the keyring of this stored record. A record that the root key in use does not open was written under another
    /// root key by another node: then the keys are dropped.
    pub(super) fn follow(&self, record: &[u8]) {
        let digest = Digest::of(record);
        let mut committing = self.committing.lock();
        let known = self.keyring.load_full();
        if known.active().is_none() || known.stored() == digest {
            return;
        }
        match committing.take_if(|next| next.stored() == digest) {
            Some(own) => self.keyring.store(Arc::new(own)),
            None => match Keyring::load(known.root(), KEYRING, record, &known) {
                Ok(next) => self.keyring.store(Arc::new(next)),
                Err(_) => self.lose_root(),
            },
        }
    }

    /// Drops the keys.
    pub(super) fn close(&self) {
        let _changing = self.committing.lock();
        self.keyring.store(Arc::new(Keyring::empty()));
    }

    /// Whether the keys were dropped because the root key does not open the stored keyring any more.
    pub(super) fn has_lost_root(&self) -> bool {
        self.lost_root.load(Ordering::Acquire)
    }

    /// Waits until [`has_lost_root`](Self::has_lost_root).
    pub(super) async fn root_lost(&self) {
        let notified = self.root_lost.notified();
        if !self.has_lost_root() {
            notified.await;
        }
    }

    fn lose_root(&self) {
        tracing::error!(
            "another node has changed the root key: this node forgets its keys and needs the present shares"
        );
        self.keyring.store(Arc::new(Keyring::empty()));
        self.lost_root.store(true, Ordering::Release);
        self.root_lost.notify_waiters();
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
}
