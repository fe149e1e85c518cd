//! The engine of a mount, opened at its first use. From the start of its opening it gets every change of its records.

use std::future::Future;
use std::sync::OnceLock;

use keepfast_framework::{Error, Result};
use parking_lot::Mutex;

use crate::unreadable::confined;

/// The maximum number of changes of a mount while its engine opens; one more is kept to detect the excess.
const MOST: usize = 4096;

/// An owner of records of a mount that are cached in memory.
pub(super) trait Invalidate {
    /// Applies a commit that wrote or deleted the record at `key`.
    fn invalidate(&self, key: &str, exists: bool);
}

/// An engine that may not be open yet.
pub(super) struct EngineCell<E> {
    engine: OnceLock<E>,
    /// Only one task opens the engine at a time.
    opening: tokio::sync::Mutex<()>,
    /// The changes that are committed while the engine opens. Locked while the engine is stored, so that each change
    /// reaches the engine or is kept for it.
    meanwhile: Mutex<Option<Vec<Change>>>,
}

/// A committed change of a record of the mount.
struct Change {
    key: Box<str>,
    /// Whether the record exists now.
    exists: bool,
}

impl<E> Default for EngineCell<E> {
    fn default() -> Self {
        EngineCell { engine: OnceLock::new(), opening: tokio::sync::Mutex::default(), meanwhile: Mutex::new(None) }
    }
}

impl<E: Invalidate> EngineCell<E> {
    /// The engine, if it is open.
    pub(super) fn get(&self) -> Option<&E> {
        self.engine.get()
    }

    /// The engine; runs `open` when it is not open yet.
    ///
    /// # Errors
    /// The error of `open`; 500 when it panics or too many changes were committed while it ran. The next call tries
    /// again.
    pub(super) async fn get_or_open(&self, open: impl Future<Output = Result<E>>) -> Result<&E> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let _alone = self.opening.lock().await;
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        *self.meanwhile.lock() = Some(Vec::new());
        let opened = confined(open).await;
        let mut meanwhile = self.meanwhile.lock();
        let changes = meanwhile.take().unwrap_or_default();
        let opened = opened?;
        if changes.len() > MOST {
            return Err(Error::internal("too much was written to the mount while its engine was opened"));
        }
        for Change { key, exists } in changes {
            opened.invalidate(&key, exists);
        }
        Ok(self.engine.get_or_init(|| opened))
    }

    /// Applies a commit that wrote or deleted the record at `key`.
    pub(super) fn applied(&self, key: &str, exists: bool) {
        if let Some(engine) = self.engine.get() {
            return engine.invalidate(key, exists);
        }
        let mut meanwhile = self.meanwhile.lock();
        match (self.engine.get(), &mut *meanwhile) {
            (Some(engine), _) => engine.invalidate(key, exists),
            (None, Some(changes)) if changes.len() <= MOST => changes.push(Change { key: key.into(), exists }),
            (None, _) => {}
        }
    }
}
