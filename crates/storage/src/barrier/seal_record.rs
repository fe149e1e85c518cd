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
    use std::sync::Arc;

    use keepfast_crypto::random;

    use super::*;
    use crate::{Barrier, MemoryBackend};

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

    #[test]
    fn the_record_that_a_batch_writes_is_found_by_its_key() {
        let put = |path: &str| Write::Put { key: Key::new(path).unwrap(), value: Bytes::from(path.to_owned()) };
        assert_eq!(SealRecord::written(&[put("a"), put("barrier/seal"), put("b")]).unwrap(), "barrier/seal");
        assert!(SealRecord::written(&[put("barrier/keyring"), put("b")]).is_none());
        assert!(SealRecord::written(&[Write::Delete { key: Key::new("barrier/seal").unwrap() }]).is_none());
    }

    #[tokio::test]
    async fn a_record_of_a_seal_change_is_written_with_it_or_not_at_all() {
        let (backend, [old, new]) = (Arc::new(MemoryBackend::new()), [(); 2].map(|()| random::key()));
        Barrier::create(backend.clone(), &old, "1".into(), 0).await.unwrap();
        let barrier = Barrier::open(backend.clone(), &old).await.unwrap();
        let change = |to: &'static str, path: &str, value: &'static str| SealChange {
            from: "1".into(),
            to: to.into(),
            with: Some((Key::new(path).unwrap(), value.into())),
        };
        barrier.rewrap_root(&new, Some(change("2", "t/k", "v"))).await.unwrap();
        let stale = barrier.rewrap_root(&old, Some(change("3", "t/k", "w"))).await;
        assert!(matches!(stale, Err(StorageError::Conflict)));
        let stored = backend.get(&Key::new("t/k").unwrap()).await.unwrap().unwrap();
        assert_ne!(stored, "v", "encrypted");
        assert!(barrier.key_status().unwrap().encryptions >= 1);
        for barrier in [barrier, Barrier::open(backend, &new).await.unwrap()] {
            assert_eq!(barrier.begin_read().get(&barrier.view("t"), "k").await.unwrap().unwrap(), "v");
            let own = SealChange { from: "2".into(), ..change("3", super::super::KEYRING, "x") };
            assert!(matches!(barrier.rewrap_root(&old, Some(own)).await, Err(StorageError::InvalidKey(_))));
        }
    }
}
