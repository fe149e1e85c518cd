//! The tests that every implementation of [`Backend`](crate::Backend) passes; see [`backend_suite!`](crate::backend_suite).
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{Backend, Batch, Digest, Index, Key, Page, Read, StorageError, Watch, Write};

/// Defines one test per case for a backend: `backend_suite!(name, || async { (Arc::new(new_and_empty()), guard) });`
/// The guard lives until the end of the test; it may own a directory.
#[macro_export]
macro_rules! backend_suite {
    ($name:ident, $new:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $crate::backend_suite!(@cases $new;
                reads_what_was_committed, deletes, applies_writes_in_order, indexes_grow,
                lists_one_level, lists_a_name_twice_when_it_is_both, pages_listings, pages_behind_names_that_do_not_exist,
                skips_large_subtrees, conflicts_on_a_changed_value, conflicts_on_presence_and_absence,
                conflicts_on_a_changed_listing, conflicts_on_a_changed_content, a_conflict_writes_nothing, a_batch_without_writes_only_checks,
                keeps_large_and_empty_values, notifies_watchers_in_order, counts_encryptions_by_key_term, loses_no_concurrent_increment,
                leads_its_cluster_if_it_has_one);
        }
    };
    (@cases $new:expr; $($case:ident),*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $case() {
            let (store, _guard) = ($new)().await;
            $crate::suite::$case(store).await;
        }
    )*};
}

type Store = Arc<dyn Backend>;

fn key(path: &str) -> Key {
    Key::new(path).unwrap()
}

fn put(path: &str, value: &str) -> Write {
    Write::Put { key: key(path), value: Bytes::copy_from_slice(value.as_bytes()) }
}

fn delete(path: &str) -> Write {
    Write::Delete { key: key(path) }
}

fn saw(path: &str, value: Option<&str>) -> Read {
    Read::Value { key: key(path), seen: value.map(|value| Digest::of(value.as_bytes())) }
}

async fn write(store: &Store, writes: Vec<Write>) -> Index {
    store.commit(Batch { reads: vec![], writes }).await.unwrap()
}

async fn fill(store: &Store, paths: &[&str]) {
    write(store, paths.iter().map(|path| put(path, path)).collect()).await;
}

async fn get(store: &Store, path: &str) -> Option<Bytes> {
    store.get(&key(path)).await.unwrap()
}

async fn list(store: &Store, prefix: &str, after: &str, limit: usize) -> Vec<String> {
    let page =
        Page { after: (!after.is_empty()).then(|| after.to_owned()), limit: (limit != usize::MAX).then_some(limit) };
    store.list(&Key::prefix(prefix).unwrap(), &page).await.unwrap()
}

const ALL: usize = usize::MAX;

pub async fn reads_what_was_committed(store: Store) {
    assert_eq!(get(&store, "a").await, None);
    write(&store, vec![put("a", "1"), put("a/b", "2"), put("ä/b c", "3")]).await;
    assert_eq!(get(&store, "a").await.unwrap(), "1");
    assert_eq!(get(&store, "a/b").await.unwrap(), "2");
    assert_eq!(get(&store, "ä/b c").await.unwrap(), "3");
    write(&store, vec![put("a", "4")]).await;
    assert_eq!(get(&store, "a").await.unwrap(), "4");
}

pub async fn deletes(store: Store) {
    fill(&store, &["a", "b/c"]).await;
    write(&store, vec![delete("a"), delete("never/there")]).await;
    assert_eq!(get(&store, "a").await, None);
    assert_eq!(list(&store, "", "", ALL).await, ["b/"]);
    write(&store, vec![delete("b/c")]).await;
    assert!(list(&store, "", "", ALL).await.is_empty());
}

pub async fn applies_writes_in_order(store: Store) {
    write(&store, vec![put("a", "1"), put("a", "2"), delete("b"), put("b", "3"), put("c", "4"), delete("c")]).await;
    assert_eq!(get(&store, "a").await.unwrap(), "2");
    assert_eq!(get(&store, "b").await.unwrap(), "3");
    assert_eq!(get(&store, "c").await, None);
}

pub async fn indexes_grow(store: Store) {
    let first = write(&store, vec![put("a", "1")]).await;
    let second = write(&store, vec![put("a", "2")]).await;
    assert!(second > first);
    // A batch without writes needs no entry, but other entries may have followed.
    assert!(store.commit(Batch::default()).await.unwrap() >= second);
}

pub async fn lists_one_level(store: Store) {
    fill(&store, &["x/b", "x/a", "x/c/d", "x/c/e/f", "xx", "x!", "y/z"]).await;
    assert_eq!(list(&store, "", "", ALL).await, ["x!", "x/", "xx", "y/"]);
    assert_eq!(list(&store, "x", "", ALL).await, ["a", "b", "c/"]);
    assert_eq!(list(&store, "x/", "", ALL).await, ["a", "b", "c/"]);
    assert_eq!(list(&store, "x/c", "", ALL).await, ["d", "e/"]);
    assert!(list(&store, "x/a", "", ALL).await.is_empty());
    assert!(list(&store, "none", "", ALL).await.is_empty());
}

pub async fn lists_a_name_twice_when_it_is_both(store: Store) {
    fill(&store, &["p/a/x", "p/a", "p/a-b", "p/a0"]).await;
    assert_eq!(list(&store, "p", "", ALL).await, ["a", "a-b", "a/", "a0"]);
}

pub async fn pages_listings(store: Store) {
    fill(&store, &["p/a", "p/a-b", "p/a/x", "p/a/y", "p/b", "p/c/x", "q"]).await;
    let all = ["a", "a-b", "a/", "b", "c/"];
    assert_eq!(list(&store, "p", "", ALL).await, all);
    for limit in 0..=6 {
        assert_eq!(list(&store, "p", "", limit).await, all[..limit.min(5)]);
        for (place, after) in all.iter().enumerate() {
            let rest = &all[place + 1..];
            assert_eq!(list(&store, "p", after, limit).await, rest[..limit.min(rest.len())], "{after} {limit}");
        }
    }
}

pub async fn pages_behind_names_that_do_not_exist(store: Store) {
    fill(&store, &["p/a", "p/b/x", "p/d"]).await;
    assert_eq!(list(&store, "p", "!", ALL).await, ["a", "b/", "d"]);
    assert_eq!(list(&store, "p", "aa", ALL).await, ["b/", "d"]);
    assert_eq!(list(&store, "p", "b", ALL).await, ["b/", "d"]);
    assert_eq!(list(&store, "p", "b/x/y", ALL).await, ["d"]);
    assert!(list(&store, "p", "e", ALL).await.is_empty());
    assert!(list(&store, "p", "🔑", ALL).await.is_empty());
}

pub async fn skips_large_subtrees(store: Store) {
    let paths: Vec<String> = (0..300).map(|number| format!("p/{}/{number:03}", number / 100)).collect();
    write(&store, paths.iter().map(|path| put(path, "v")).collect()).await;
    fill(&store, &["p/0", "p/1/0/deep", "p/9"]).await;
    assert_eq!(list(&store, "p", "", ALL).await, ["0", "0/", "1/", "2/", "9"]);
    assert_eq!(list(&store, "p/1", "", 2).await, ["0/", "100"]);
    assert_eq!(list(&store, "p/2", "297", ALL).await, ["298", "299"]);
}

pub async fn conflicts_on_a_changed_value(store: Store) {
    fill(&store, &["a"]).await;
    let batch = |seen| Batch { reads: vec![saw("a", seen)], writes: vec![put("a", "new")] };
    assert!(matches!(store.commit(batch(Some("other"))).await, Err(StorageError::Conflict)));
    store.commit(batch(Some("a"))).await.unwrap();
    assert!(matches!(store.commit(batch(Some("a"))).await, Err(StorageError::Conflict)));
}

pub async fn conflicts_on_presence_and_absence(store: Store) {
    let batch = |seen| Batch { reads: vec![saw("a", seen)], writes: vec![put("b", "new")] };
    assert!(matches!(store.commit(batch(Some("a"))).await, Err(StorageError::Conflict)));
    store.commit(batch(None)).await.unwrap();
    fill(&store, &["a"]).await;
    assert!(matches!(store.commit(batch(None)).await, Err(StorageError::Conflict)));
}

pub async fn conflicts_on_a_changed_listing(store: Store) {
    fill(&store, &["p/a", "p/b", "p/c/d"]).await;
    let prefix = Key::prefix("p").unwrap();
    let page = Page::first(2);
    let names = store.list(&prefix, &page).await.unwrap();
    let read = Read::Listing { prefix, page, seen: Digest::of_names(&names) };
    let batch = Batch { reads: vec![read], writes: vec![put("done", "1")] };
    // Neither other values nor names outside the page matter.
    write(&store, vec![put("p/a", "new"), put("p/c/e", "1"), put("p/z", "1")]).await;
    store.commit(batch.clone()).await.unwrap();
    fill(&store, &["p/aa"]).await;
    assert!(matches!(store.commit(batch).await, Err(StorageError::Conflict)));
}

pub async fn conflicts_on_a_changed_content(store: Store) {
    let [first, second] = ["1: the same last 16 bytes", "2: the same last 16 bytes"];
    let seen = Digest::of_content(first.as_bytes());
    let batch = Batch { reads: vec![Read::Content { key: key("a"), seen }], writes: vec![put("b", "new")] };
    assert!(matches!(store.commit(batch.clone()).await, Err(StorageError::Conflict)));
    write(&store, vec![put("a", first)]).await;
    store.commit(batch.clone()).await.unwrap();
    write(&store, vec![put("a", second)]).await;
    assert!(matches!(store.commit(batch).await, Err(StorageError::Conflict)));
}

pub async fn a_conflict_writes_nothing(store: Store) {
    fill(&store, &["a", "b"]).await;
    let batch = Batch {
        reads: vec![saw("a", Some("a")), saw("b", Some("stale"))],
        writes: vec![put("a", "new"), put("c", "new"), delete("b")],
    };
    assert!(matches!(store.commit(batch).await, Err(StorageError::Conflict)));
    assert_eq!(get(&store, "a").await.unwrap(), "a");
    assert_eq!(list(&store, "", "", ALL).await, ["a", "b"]);
}

pub async fn a_batch_without_writes_only_checks(store: Store) {
    let index = write(&store, vec![put("a", "a")]).await;
    let check = |seen| Batch { reads: vec![saw("a", seen)], writes: vec![] };
    assert!(store.commit(check(Some("a"))).await.unwrap() >= index);
    assert!(matches!(store.commit(check(None)).await, Err(StorageError::Conflict)));
    assert!(write(&store, vec![put("b", "b")]).await > index);
}

pub async fn keeps_large_and_empty_values(store: Store) {
    let large = Bytes::from((0..3_000_000_u32).map(|number| (number % 251) as u8).collect::<Vec<_>>());
    let long = "k".repeat(2_000);
    let writes = vec![
        Write::Put { key: key("large"), value: large.clone() },
        Write::Put { key: key("empty"), value: Bytes::new() },
        put(&long, "1"),
    ];
    write(&store, writes).await;
    assert_eq!(get(&store, "large").await.unwrap(), large);
    assert_eq!(get(&store, "empty").await.unwrap(), Bytes::new());
    assert_eq!(get(&store, &long).await.unwrap(), "1");
}

/// The batches that a watcher received: index and paths.
#[derive(Default)]
struct Notified(Mutex<Vec<(u64, Vec<String>)>>);

impl Watch for Notified {
    fn applied(&self, index: Index, writes: &[Write]) {
        let paths = writes.iter().map(|write| write.key().to_string()).collect();
        self.0.lock().push((index.0, paths));
    }

    fn replaced(&self, index: Index) {
        panic!("no case replaces the records: {index:?}");
    }
}

pub async fn notifies_watchers_in_order(store: Store) {
    let notified = Arc::new(Notified::default());
    let watcher: Arc<dyn Watch> = notified.clone();
    store.watch(Arc::downgrade(&watcher));
    store.watch(Weak::<Notified>::new());
    let first = write(&store, vec![put("a", "1"), delete("b")]).await;
    // The watcher runs before the commit is acknowledged.
    assert_eq!(*notified.0.lock(), [(first.0, vec!["a".to_owned(), "b".to_owned()])]);
    let stale = Batch { reads: vec![saw("a", None)], writes: vec![put("a", "2")] };
    store.commit(stale).await.unwrap_err();
    let commits: Vec<_> = (0..50)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { write(&store, vec![put(&format!("c/{number}"), "1")]).await })
        })
        .collect();
    let mut returned = vec![first.0];
    for commit in commits {
        returned.push(commit.await.unwrap().0);
    }
    let indexes: Vec<u64> = notified.0.lock().iter().map(|(index, _)| *index).collect();
    assert!(indexes.is_sorted_by(|earlier, later| earlier < later), "{indexes:?}");
    returned.sort_unstable();
    assert_eq!(indexes, returned);
}

pub async fn counts_encryptions_by_key_term(store: Store) {
    let sealed = |path: &str, term: u32| {
        let value = [&[1], &term.to_le_bytes()[..], &[0; 28]].concat();
        Write::Put { key: key(path), value: value.into() }
    };
    let count = |term| store.encryptions(term).unwrap();
    write(&store, vec![sealed("a", 1), sealed("a", 1), sealed("b", 2), put("plain", "text"), delete("a")]).await;
    assert_eq!((count(1), count(2), count(3)), (2, 1, 0));
    write(&store, vec![sealed("a", 4), sealed("b", 1), sealed("keyring", 0)]).await;
    write(&store, vec![sealed("a", 4)]).await;
    assert_eq!((count(0), count(1), count(2), count(4)), (0, 3, 1, 2));
}

pub async fn loses_no_concurrent_increment(store: Store) {
    write(&store, vec![put("n", "0")]).await;
    let tasks: Vec<_> = (0..16).map(|_| tokio::spawn(increment(store.clone(), 20))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(get(&store, "n").await.unwrap(), "320");
}

async fn increment(store: Store, times: usize) {
    let mut done = 0;
    while done < times {
        let before = String::from_utf8(get(&store, "n").await.unwrap().into()).unwrap();
        let after = (before.parse::<u64>().unwrap() + 1).to_string();
        let batch = Batch { reads: vec![saw("n", Some(&before))], writes: vec![put("n", &after)] };
        match store.commit(batch).await {
            Ok(_) => done += 1,
            Err(StorageError::Conflict) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

pub async fn leads_its_cluster_if_it_has_one(store: Store) {
    let is_leading = || store.roles().is_none_or(|roles| roles.borrow().is_leading());
    assert!(is_leading());
    fill(&store, &["a"]).await;
    assert!(is_leading());
}
