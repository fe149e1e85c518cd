//! What a restore of a snapshot would change: compares its records with the current ones, both in the order of their keys.

use std::cmp::Ordering;
use std::collections::VecDeque;

use bytes::Bytes;
use keepfast_storage::{Barrier, Key, SnapshotParts, SnapshotRecords, StorageError, WrapKeys};

/// The key of the seal record.
const SEAL: &str = "barrier/seal";

/// What a restore would change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// The records that only the snapshot has.
    pub(crate) added: u64,
    /// Those that have another value in it. A record that was written again counts, whatever its plaintext.
    pub(crate) changed: u64,
    /// Those that it does not have.
    pub(crate) deleted: u64,
    /// Those with the same value.
    pub(crate) unchanged: u64,
    /// The records of the snapshot that the current keyring does not open.
    pub(crate) unreadable: u64,
    /// Whether its seal configuration is the current one.
    pub(crate) has_seal: bool,
}

/// Compares a snapshot with the current records. Also returns the seal record of the snapshot, of which `wrap_keys` returns
/// the wrap keys.
pub(crate) async fn compare(
    snapshot: &mut dyn SnapshotParts,
    current: &mut dyn SnapshotParts,
    barrier: &Barrier,
    wrap_keys: impl Fn(&[u8]) -> Option<WrapKeys>,
) -> Result<(Comparison, Option<Bytes>), StorageError> {
    let (mut new, mut old) = (Records::new(snapshot), Records::new(current));
    let (mut found, mut seal) = (Comparison::default(), None);
    let mut wrapped_by = WrapKeys::default();
    let (mut next, mut before) = (new.next().await?, old.next().await?);
    loop {
        let order = match (&next, &before) {
            (None, None) => return Ok((found, seal)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let stays = order == Ordering::Equal && values(&next) == values(&before);
        match order {
            Ordering::Less => found.added += 1,
            Ordering::Greater => found.deleted += 1,
            Ordering::Equal if stays => found.unchanged += 1,
            Ordering::Equal => found.changed += 1,
        }
        if let Some((key, value)) = next.as_ref().filter(|_| order != Ordering::Greater) {
            let opens = barrier.check_record_with(key, value, Some(&wrapped_by));
            match (&opens, key.as_str()) {
                (_, SEAL) => {
                    found.has_seal = stays;
                    wrapped_by = wrap_keys(value).unwrap_or_default();
                    seal = Some(value.clone());
                }
                (Err(StorageError::Corrupt(_)), _) => found.unreadable += 1,
                (Err(_), _) => opens?,
                (Ok(()), _) => {}
            }
        }
        if order != Ordering::Greater {
            next = new.next().await?;
        }
        if order != Ordering::Less {
            before = old.next().await?;
        }
    }
}

/// The seal record of a snapshot, which is among its first records.
pub(crate) async fn seal_record(snapshot: &mut dyn SnapshotParts) -> Result<Option<Bytes>, StorageError> {
    let mut records = Records::new(snapshot);
    while let Some((key, value)) = records.next().await? {
        match key.as_str().cmp(SEAL) {
            Ordering::Less => {}
            Ordering::Equal => return Ok(Some(value)),
            Ordering::Greater => return Ok(None),
        }
    }
    Ok(None)
}

fn values(record: &Option<(Key, Bytes)>) -> Option<&Bytes> {
    record.as_ref().map(|(_, value)| value)
}

/// The records of a snapshot, one after the other.
struct Records<'p> {
    parts: &'p mut dyn SnapshotParts,
    decoder: Option<SnapshotRecords>,
    read: VecDeque<(Key, Bytes)>,
    last: Option<Key>,
}

impl<'p> Records<'p> {
    fn new(parts: &'p mut dyn SnapshotParts) -> Self {
        Records { parts, decoder: Some(SnapshotRecords::default()), read: VecDeque::new(), last: None }
    }

    async fn next(&mut self) -> Result<Option<(Key, Bytes)>, StorageError> {
        while self.read.is_empty() {
            let Some(decoder) = &mut self.decoder else { return Ok(None) };
            match self.parts.next().await? {
                Some(part) => self.read.extend(decoder.part(&part)?),
                None => self.decoder.take().map_or(Ok(()), SnapshotRecords::finish)?,
            }
        }
        let next = self.read.pop_front();
        let key = next.as_ref().map(|(key, _)| key.clone());
        if key.as_ref() <= self.last.as_ref() {
            return Err(StorageError::corrupt("the records of the snapshot are not in order"));
        }
        self.last = key;
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use keepfast_crypto::random;
    use keepfast_storage::{Backend as _, Batch, MemoryBackend, Write};

    use super::*;
    use crate::cluster::fake::{Parts, parts_of};

    fn parts(records: &[(Key, Bytes)]) -> Parts {
        Parts(parts_of(records).into_iter())
    }

    async fn storage() -> (Arc<MemoryBackend>, Arc<Barrier>) {
        let (backend, root) = (Arc::new(MemoryBackend::new()), random::key());
        Barrier::create(backend.clone(), &root, "seal".into(), 0).await.unwrap();
        let barrier = Barrier::open(backend.clone(), &root).await.unwrap();
        put(&barrier, "a", "1").await;
        put(&barrier, "b", "1").await;
        (backend, barrier)
    }

    async fn put(barrier: &Arc<Barrier>, key: &str, value: &'static str) {
        let mut tx = barrier.begin();
        tx.put(&barrier.view("v/"), key, value.into());
        tx.commit().await.unwrap();
    }

    async fn compared(new: &[(Key, Bytes)], old: &[(Key, Bytes)], barrier: &Barrier) -> Comparison {
        compare(&mut parts(new), &mut parts(old), barrier, |_| None).await.unwrap().0
    }

    #[tokio::test]
    async fn each_record_is_added_changed_deleted_or_unchanged() {
        let (backend, barrier) = storage().await;
        let before = backend.records();
        let same = Comparison { unchanged: 4, has_seal: true, ..Comparison::default() };
        assert_eq!(compared(&before, &before, &barrier).await, same);
        put(&barrier, "a", "2").await;
        put(&barrier, "c", "2").await;
        let delete = Write::Delete { key: Key::new("v/b").unwrap() };
        backend.commit(Batch { reads: vec![], writes: vec![delete] }).await.unwrap();
        let after = backend.records();
        let expected = Comparison { added: 1, changed: 1, deleted: 1, unchanged: 2, ..same };
        assert_eq!(compared(&before, &after, &barrier).await, expected);
        assert_eq!(
            compared(&before, &[], &barrier).await,
            Comparison { added: 4, unchanged: 0, has_seal: false, ..same }
        );
        assert_eq!(compared(&[], &before, &barrier).await, Comparison { deleted: 4, ..Comparison::default() });
    }

    #[tokio::test]
    async fn a_snapshot_of_another_keyring_is_unreadable() {
        let ((backend, barrier), (other, _)) = (storage().await, storage().await);
        let found = compared(&other.records(), &backend.records(), &barrier).await;
        // The text of the test's seal is the same.
        assert_eq!((found.has_seal, found.unreadable), (true, 3));
        let records = other.records();
        let seal = seal_record(&mut parts(&records)).await.unwrap();
        assert_eq!(seal.as_deref(), Some(&b"seal"[..]));
        assert!(seal_record(&mut parts(&[])).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn sec_records_out_of_order_are_refused() {
        let (backend, barrier) = storage().await;
        let mut records = backend.records();
        records.swap(1, 2);
        for (new, old) in [(&records, &backend.records()), (&backend.records(), &records)] {
            assert!(compare(&mut parts(new), &mut parts(old), &barrier, |_| None).await.is_err());
        }
        let twice = [&records[..1], &records[..1]].concat();
        assert!(compare(&mut parts(&twice), &mut parts(&[]), &barrier, |_| None).await.is_err());
    }
}
