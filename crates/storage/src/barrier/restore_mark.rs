//! What a restore leaves for the leader that serves the restored records first.

use bytes::Bytes;

use super::RESTORED;
use crate::{Backend, Batch, Digest, Key, Read, StorageError, Write};

/// Written with the records of a restore, in plaintext: the node that restores may not have their keys. The caller of the
/// restore defines the content.
pub struct RestoreMark;

impl RestoreMark {
    /// The key of the record.
    ///
    /// # Errors
    /// None: the key is valid.
    pub fn key() -> Result<Key, StorageError> {
        Key::new(RESTORED)
    }

    /// Loads the record; `None` when no restore is to be completed.
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn load(backend: &dyn Backend) -> Result<Option<Bytes>, StorageError> {
        backend.get(&Self::key()?).await
    }

    /// Deletes the record, which was loaded before.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] when there is another one by now; those of the backend.
    pub async fn delete(backend: &dyn Backend, loaded: &Bytes) -> Result<(), StorageError> {
        let key = Self::key()?;
        let reads = vec![Read::Content { key: key.clone(), seen: Digest::of_content(loaded) }];
        backend.commit(Batch { reads, writes: vec![Write::Delete { key }] }).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryBackend;

    #[tokio::test]
    async fn a_mark_of_a_restore_is_deleted_only_as_it_was_loaded() {
        let backend = MemoryBackend::new();
        assert!(RestoreMark::load(&backend).await.unwrap().is_none());
        backend.commit(Batch::put(RestoreMark::key().unwrap(), "1")).await.unwrap();
        let loaded = RestoreMark::load(&backend).await.unwrap().unwrap();
        assert_eq!(loaded, "1");
        backend.commit(Batch::put(RestoreMark::key().unwrap(), "2")).await.unwrap();
        assert!(matches!(RestoreMark::delete(&backend, &loaded).await, Err(StorageError::Conflict)));
        RestoreMark::delete(&backend, &"2".into()).await.unwrap();
        assert!(RestoreMark::load(&backend).await.unwrap().is_none());
    }
}
