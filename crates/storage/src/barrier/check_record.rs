//! Checks that records outside the backend, such as those of a snapshot, can be decrypted.

use keepfast_crypto::secret::{Secret, SecretBytes};

use super::{Barrier, KEYRING, RESTORED, SEAL, WrapKeys, damaged, keyring::Keyring, record_format, unknown_key};
use crate::{Key, StorageError};

impl Barrier {
    /// Checks that the keys of this barrier decrypt a record. The plaintext is wiped.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when they do not, [`StorageError::Closed`].
    pub fn check_record(&self, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        self.check_record_with(key, value, None)
    }

    /// The same for a record of another seal record, with its wrap keys; `None` for those of this barrier.
    ///
    /// # Errors
    /// See [`check_record`](Self::check_record).
    pub fn check_record_with(&self, key: &Key, value: &[u8], wrap_keys: Option<&WrapKeys>) -> Result<(), StorageError> {
        let (path, keyring) = (key.as_str(), self.keyring.load());
        keyring.active().ok_or(StorageError::Closed)?;
        match path {
            SEAL | RESTORED => return Ok(()),
            KEYRING => {
                let loaded = Keyring::load(keyring.root(), KEYRING, value, &Keyring::empty());
                return loaded.map(drop).map_err(|_| damaged(path));
            }
            _ => {}
        }
        let term = record_format::term(value).and_then(|term| keyring.term(term)).ok_or_else(|| damaged(path))?;
        let plain = record_format::open(&term.key, path, value).map_err(|_| damaged(path))?;
        let plain: SecretBytes = Secret::new(plain);
        let Some(generation) = record_format::wrap_generation(value) else { return Ok(()) };
        let of = (term.number, generation);
        let opened = match wrap_keys {
            Some(keys) => keys.open(of, path, plain.expose()),
            None => self.wrap_keys.open(of, path, plain.expose())?.map(Vec::from),
        };
        opened.map(|plain| drop(SecretBytes::new(plain))).ok_or_else(|| unknown_key(path, value))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use keepfast_crypto::random;

    use super::*;
    use crate::{Backend as _, MemoryBackend};

    #[tokio::test]
    async fn only_records_that_the_keyring_opens_at_their_path_pass() {
        let (backend, root) = (Arc::new(MemoryBackend::new()), random::key());
        Barrier::create(backend.clone(), &root, "seal".into(), 0).await.unwrap();
        let barrier = Barrier::open(backend.clone(), &root).await.unwrap();
        let mut tx = barrier.begin();
        tx.put(&barrier.view("a/"), "b", "value".into());
        tx.commit().await.unwrap();
        barrier.rotate(0).await.unwrap();
        let records = backend.records();
        assert_eq!(records.len(), 3);
        for (key, value) in &records {
            barrier.check_record(key, value).unwrap();
            if key.as_str() != SEAL {
                let mut bad = value.to_vec();
                *bad.last_mut().unwrap() ^= 1;
                assert!(barrier.check_record(key, &bad).is_err(), "{}", key.as_str());
                assert!(barrier.check_record(&Key::new("other").unwrap(), value).is_err(), "{}", key.as_str());
            }
        }
        let other = backend.get(&Key::new("a/b").unwrap()).await.unwrap().unwrap();
        barrier.close();
        assert!(matches!(barrier.check_record(&Key::new("a/b").unwrap(), &other), Err(StorageError::Closed)));
    }
}
