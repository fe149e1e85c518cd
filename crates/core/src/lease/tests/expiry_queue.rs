//! The expiry queue in memory, compared with the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_framework::Clock;
use keepfast_storage::{Backend, Batch, Index, Key, MemoryBackend, Page, StorageError, Watch, Write};
use proptest::test_runner::TestRng;

use super::{HOUR, LeaseFixture, below, reader, seeded};
use crate::background::BackgroundTasks;
use crate::lease::expiry_queue::{ExpiryQueue, folder_of};
use crate::lease::record::LeaseId;
use crate::lease::revoke::RevokeMode;
use crate::mount::permit::RequestPermit;

/// Storage that counts the reads of the expiry index.
#[derive(Default)]
struct Counted {
    backend: MemoryBackend,
    looks: AtomicUsize,
}

impl Counted {
    fn looks(&self) -> usize {
        self.looks.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Backend for Counted {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StorageError> {
        self.backend.get(key).await
    }

    async fn list(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError> {
        if ["token/ends", "token/expiry"].iter().any(|folder| prefix.as_str().starts_with(folder)) {
            self.looks.fetch_add(1, Ordering::Relaxed);
        }
        self.backend.list(prefix, page).await
    }

    async fn commit(&self, batch: Batch) -> Result<Index, StorageError> {
        self.backend.commit(batch).await
    }

    fn watch(&self, watcher: std::sync::Weak<dyn Watch>) {
        self.backend.watch(watcher);
    }
}

async fn counted() -> (LeaseFixture, Arc<Counted>) {
    let backend = Arc::new(Counted::default());
    (LeaseFixture::on(backend.clone(), "here").await, backend)
}

/// A second expiry queue of the same storage, with little room.
struct Narrow(ExpiryQueue);

impl Watch for Narrow {
    fn applied(&self, _: Index, writes: &[Write]) {
        for write in writes {
            if let Some(key) = write.key().as_str().strip_prefix("token/") {
                self.0.applied(key, matches!(write, Write::Put { .. }));
            }
        }
    }

    fn replaced(&self, index: Index) {
        panic!("no test replaces the records: {index:?}");
    }
}

fn narrow(fixture: &LeaseFixture, room: usize) -> Arc<Narrow> {
    let barrier = &fixture.unsealed.barrier;
    let narrow = Arc::new(Narrow(ExpiryQueue::new(Arc::clone(barrier), barrier.view("token/"), room)));
    let watcher: Arc<dyn Watch> = narrow.clone();
    barrier.watch(Arc::downgrade(&watcher));
    narrow
}

fn seconds(rng: &mut TestRng, most: usize) -> Duration {
    Duration::from_secs(below(rng, most) as u64 + 1)
}

#[tokio::test]
async fn without_expired_leases_nothing_is_read() {
    let (mut fixture, storage) = counted().await;
    fixture.user(&fixture.root, "a").await;
    fixture.restart("here").await;
    assert_eq!(storage.looks(), 0, "an unseal reads no ends");
    fixture.pass(Duration::ZERO).await;
    let looks = storage.looks();
    assert!(looks <= 4, "the folders and a page of each: {looks}");
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    for _ in 0..50 {
        fixture.pass(Duration::from_secs(60)).await;
    }
    fixture.unsealed.leases.renewer.renew_lease(&RequestPermit::new(), &path, &id, HOUR * 3).await.unwrap();
    fixture.pass(HOUR).await;
    assert_eq!((fixture.users(), storage.looks()), (1, looks), "one has ended, the other was renewed");
    fixture.pass(HOUR * 3).await;
    assert_eq!((fixture.users(), storage.looks()), (0, looks));
}

#[tokio::test]
async fn the_queue_equals_the_disk_after_any_commits() {
    let (mut fixture, mut rng) = (LeaseFixture::new().await, seeded());
    let mut other = narrow(&fixture, 5);
    let parent = fixture.token(None, reader(false, HOUR * 1000)).await;
    let (mut leases, mut most) = (Vec::<(String, LeaseId)>::new(), 0);
    for round in 0..400 {
        *fixture.external.ttl.lock() = Some(seconds(&mut rng, 3000));
        let chosen = below(&mut rng, 256);
        let lease = leases.get(chosen % leases.len().max(1)).cloned();
        match (chosen % 11, lease) {
            (0, Some((path, id))) => drop(
                fixture
                    .unsealed
                    .leases
                    .renewer
                    .renew_lease(&RequestPermit::new(), &path, &id, seconds(&mut rng, 9000))
                    .await,
            ),
            (1, Some((path, id))) => {
                fixture.unsealed.leases.revoker.revoke_lease(&path, &id, RevokeMode::Now).await.unwrap_or_default()
            }
            (2, _) => fixture.pass(seconds(&mut rng, 600)).await,
            (3, _) => drop(fixture.token(Some(&parent), reader(false, seconds(&mut rng, 9000))).await),
            (4, _) => {
                let made = fixture.token(None, reader(false, HOUR)).await;
                let (path, id, _) = fixture.user(&made.id, "b").await;
                leases.push((path, id));
                fixture.unsealed.access.tokens.revoke(made.key.as_ref().unwrap()).await.unwrap();
            }
            (5, _) => fixture.external.down.store(round % 2 == 0, Ordering::Relaxed),
            (6, _) => fixture.unsealed.leases.store.set_quarantine(round % 3 == 0, fixture.clock.now()).await.unwrap(),
            (7, _) if round % 5 == 0 => {
                fixture.restart("here").await;
                other = narrow(&fixture, 5);
            }
            (8, _) => drop(other.0.next(true).await.unwrap()),
            _ => {
                let (path, id, _) = fixture.user(&fixture.root, if round % 3 == 0 { "a" } else { "b" }).await;
                leases.push((path, id));
            }
        }
        fixture.unsealed.leases.store.expiry_queue.check().await;
        most = most.max(other.0.check().await);
    }
    assert!(most > 5, "the narrow one has seen some of several folders");
    fixture.external.down.store(false, Ordering::Relaxed);
    fixture.unsealed.leases.store.set_quarantine(false, fixture.clock.now()).await.unwrap();
    fixture.pass(HOUR * 9000).await;
    // Page after page, the small expiry queue finds no lease left of any mount.
    for mount in other.0.mounts().await.unwrap() {
        assert_eq!(other.0.due(&folder_of(&mount), fixture.clock.now(), "", 9).await.unwrap(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn more_expiries_than_room_are_revoked_in_order_page_by_page() {
    let (fixture, storage) = counted().await;
    let (other, mut rng) = (narrow(&fixture, 8), seeded());
    fixture.pass(Duration::ZERO).await;
    for _ in 0..60 {
        *fixture.external.ttl.lock() = Some(seconds(&mut rng, 3000));
        fixture.user(&fixture.root, "a").await;
    }
    let mount = other.0.mounts().await.unwrap().remove(0);
    let now = fixture.clock.now().after(HOUR);
    let (all, mut after, mut found) = (fixture.stored().await, String::new(), Vec::new());
    loop {
        let names = other.0.due(&folder_of(&mount), now, &after, 7).await.unwrap();
        let Some(last) = names.last() else { break };
        assert!(found.len() < 60, "a page is repeated: {names:?}");
        after = last.clone();
        found.extend(names);
    }
    let expected: Vec<&str> = all.iter().filter_map(|n| n.strip_prefix(&folder_of(&mount))).collect();
    assert!(found.is_sorted() && found.len() == 60, "{found:?} {expected:?}");
    assert_eq!(other.0.check().await, 8, "what was only looked at takes no room");
    let looks = storage.looks();
    fixture.pass(HOUR).await;
    assert_eq!((fixture.users(), storage.looks() - looks), (0, 1), "the first page of a new folder");
    assert_eq!(other.0.check().await, 0);
    assert_eq!(other.0.due(&folder_of(&mount), now, "", 7).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn the_worker_sleeps_until_the_next_expiry_and_an_earlier_one_wakes_it() {
    let (fixture, storage) = counted().await;
    let _duties = BackgroundTasks::start(fixture.unsealed.clone(), Arc::default());
    let settle = || async {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    };
    settle().await;
    fixture.user(&fixture.root, "a").await;
    *fixture.external.ttl.lock() = Some(Duration::from_secs(100));
    fixture.user(&fixture.root, "b").await;
    settle().await;
    let looks = storage.looks();
    for (span, users) in [(90, 2), (9, 2), (2, 1), (3000, 1), (498, 1), (2, 0)] {
        fixture.clock.advance(Duration::from_secs(span));
        settle().await;
        assert_eq!(fixture.users(), users, "after {span} more seconds");
    }
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    settle().await;
    fixture.unsealed.leases.revoker.revoke_lease(&path, &id, RevokeMode::Queued).await.unwrap();
    settle().await;
    assert_eq!((fixture.users(), storage.looks()), (0, looks), "nothing was read in all that time");
}

#[tokio::test]
async fn the_worker_pauses_under_quarantine_and_continues_afterwards() {
    let (mut fixture, _) = counted().await;
    fixture.user(&fixture.root, "a").await;
    fixture.restart("elsewhere").await;
    let _duties = BackgroundTasks::start(fixture.unsealed.clone(), Arc::default());
    for _ in 0..20 {
        fixture.clock.advance(HOUR);
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(fixture.users(), 1);
    fixture.unsealed.leases.store.set_quarantine(false, fixture.clock.now()).await.unwrap();
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.users(), 0);
}

#[tokio::test]
async fn names_in_memory_are_not_read_from_disk_again() {
    let (fixture, storage) = counted().await;
    for _ in 0..3 {
        fixture.user(&fixture.root, "a").await;
    }
    let mount = fixture.unsealed.engines.mounts.router().at("a/").unwrap().entry.uuid.clone();
    let (folder, far) = (super::super::expiry_queue::folder_of(&mount), fixture.clock.now().after(HOUR * 9));
    let queue = &narrow(&fixture, 2).0;
    let due = async |after: &str| {
        let before = storage.looks();
        let names = queue.due(&folder, far, after, 9).await.unwrap();
        (names, storage.looks() - before)
    };
    let (names, looks) = due("").await;
    assert_eq!((names.len(), looks), (2, 1));
    assert_eq!(due(&names[0]).await, (vec![names[1].clone()], 0), "in memory");
    let (last, looks) = due(&names[1]).await;
    assert_eq!((last.len(), looks), (1, 1), "beyond the coverage of memory");
    let queue = &fixture.unsealed.leases.store.expiry_queue;
    let all = queue.due(&folder, far, "", 9).await.unwrap();
    let before = storage.looks();
    assert_eq!(queue.due(&folder, far, &all[2], 9).await.unwrap(), Vec::<String>::new());
    assert_eq!(storage.looks(), before, "memory has all names");
}
