//! The seal configuration: a record that is readable without a key.

use bytes::Bytes;

use super::{Barrier, KEYRING, RESTORED, SEAL};
use crate::{Backend, Batch, Digest, Key, Read, StorageError, Write};

/// A change of the record.
#[derive(Clone)]
pub struct SealChange {
    /// The record that the change is made from.
    pub from: Bytes,
    /// The record that replaces it.
    pub to: Bytes,
    /// A record that the barrier encrypts, with its path, which is written in the same commit.
    pub with: Option<(Key, Bytes)>,
}

/// The seal configuration and the sealed root key, which must be readable to unseal. The seal defines the content.
/// [`Barrier::create`](crate::Barrier::create) and [`Barrier::rewrap_root`](crate::Barrier::rewrap_root) write it, in one
/// commit with the keyring.
pub struct SealRecord;

impl SealRecord {
    /// Loads the record; `None` when the storage is not initialized.
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn load(backend: &dyn Backend) -> Result<Option<Bytes>, StorageError> {
        backend.get(&Key::new(SEAL)?).await
    }

    /// Replaces the record, if it is still `from`. [`Barrier::create`](crate::Barrier::create) and
    /// [`Barrier::rewrap_root`](crate::Barrier::rewrap_root) write it in one commit with the keyring.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] when the record has changed; those of the backend.
    pub async fn replace(backend: &dyn Backend, from: &Bytes, to: Bytes) -> Result<(), StorageError> {
        let key = Key::new(SEAL)?;
        let reads = vec![Read::Content { key: key.clone(), seen: Digest::of_content(from) }];
        backend.commit(Batch { reads, writes: vec![Write::Put { key, value: to }] }).await.map(drop)
    }

    /// The record that a batch writes, if it does.
    pub fn written(writes: &[Write]) -> Option<&Bytes> {
        writes.iter().find_map(|write| match write {
            Write::Put { key, value } if key.as_str() == SEAL => Some(value),
            _ => None,
        })
    }
}

impl Barrier {
    /// Replaces the record, if neither it nor the keyring has changed and no restore is to be completed: the records that
    /// the change depends on are still those of this barrier.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] otherwise; [`StorageError::Closed`]; those of the backend.
    pub async fn replace_seal(&self, from: &Bytes, to: Bytes) -> Result<(), StorageError> {
        let (key, keyring) = (Key::new(SEAL)?, self.keyring.load_full());
        keyring.active().ok_or(StorageError::Closed)?;
        let reads = vec![
            Read::Content { key: key.clone(), seen: Digest::of_content(from) },
            Read::Value { key: Key::new(KEYRING)?, seen: Some(keyring.stored()) },
            Read::Value { key: Key::new(RESTORED)?, seen: None },
        ];
        let writes = vec![Write::Put { key, value: to }];
        self.backend.commit(Batch { reads, writes }).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryBackend;

    #[tokio::test]
    async fn a_seal_record_replaces_only_the_one_that_was_read() {
        let backend = MemoryBackend::new();
        assert!(SealRecord::load(&backend).await.unwrap().is_none());
        backend.commit(Batch::put(Key::new("barrier/seal").unwrap(), "1")).await.unwrap();
        assert_eq!(SealRecord::load(&backend).await.unwrap().unwrap(), "1", "stored as it is");
        SealRecord::replace(&backend, &"1".into(), "2".into()).await.unwrap();
        let stale = SealRecord::replace(&backend, &"1".into(), "3".into()).await;
        assert!(matches!(stale, Err(StorageError::Conflict)));
        assert_eq!(SealRecord::load(&backend).await.unwrap().unwrap(), "2");
    }
}
