//! Tests of transactions on a memory backend.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use keepfast_crypto::random;
use proptest::prelude::*;

use crate::{Backend, Barrier, Batch, Index, Key, MemoryBackend, Page, ReadTx, StorageError, Tx, View, Write};

pub(crate) async fn barrier() -> (Arc<Barrier>, Arc<MemoryBackend>) {
    let backend = Arc::new(MemoryBackend::new());
    let root = random::key();
    Barrier::create(backend.clone(), &root, "seal".into(), 0).await.unwrap();
    (Barrier::open(backend.clone(), &root).await.unwrap(), backend)
}

async fn list(tx: &mut ReadTx, view: &View, prefix: &str, page: Page) -> Vec<String> {
    tx.list(view, prefix, &page).await.unwrap()
}

pub(crate) async fn write(barrier: &Arc<Barrier>, view: &View, key: &str, value: &'static str) {
    let mut tx = barrier.begin();
    tx.put(view, key, value.into());
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_folder_is_listed_while_any_record_in_it_remains() {
    let (barrier, _) = barrier().await;
    let view = barrier.view("a");
    for name in 0..65 {
        write(&barrier, &view, &format!("f/{name:02}"), "v").await;
    }
    let mut tx = barrier.begin();
    for name in 0..64 {
        tx.delete(&view, &format!("f/{name:02}"));
    }
    assert_eq!(list(&mut tx, &view, "", Page::all()).await, ["f/"]);
    tx.delete(&view, "f/64");
    assert!(list(&mut tx, &view, "", Page::all()).await.is_empty());
}

#[tokio::test]
async fn reads_its_own_writes_and_others_do_not_until_commit() {
    let (barrier, _) = barrier().await;
    let view = barrier.view("a").sub("b");
    assert_eq!(view.prefix(), "a/b/");
    let (mut tx, mut other) = (barrier.begin(), barrier.begin_read());
    assert!(!tx.is_dirty());
    tx.put(&view, "k", "v".into());
    assert!(tx.is_dirty());
    assert_eq!(tx.get(&view, "k").await.unwrap().unwrap(), "v");
    assert_eq!(other.get(&view, "k").await.unwrap(), None);
    tx.commit().await.unwrap().unwrap();
    assert_eq!(other.get(&view, "k").await.unwrap().unwrap(), "v");
    let mut tx = barrier.begin();
    tx.delete(&view, "k");
    assert_eq!(tx.get(&view, "k").await.unwrap(), None);
    assert_eq!(other.get(&view, "k").await.unwrap().unwrap(), "v");
    tx.commit().await.unwrap();
    assert_eq!(other.get(&view, "k").await.unwrap(), None);
}

#[tokio::test]
async fn dropping_writes_nothing_and_an_empty_commit_is_free() {
    let (barrier, backend) = barrier().await;
    let view = barrier.view("a");
    let before = backend.commit(Batch::default()).await.unwrap();
    let mut tx = barrier.begin();
    tx.put(&view, "k", "v".into());
    drop(tx);
    let mut tx = barrier.begin();
    tx.get(&view, "k").await.unwrap();
    assert_eq!(tx.commit().await.unwrap(), None::<Index>);
    assert_eq!(backend.commit(Batch::default()).await.unwrap(), before);
}

#[tokio::test]
async fn a_stale_read_conflicts_and_a_stale_cache_does_not_last() {
    let (barrier, _) = barrier().await;
    let view = barrier.view("a");
    write(&barrier, &view, "k", "1").await;
    let (mut first, mut second) = (barrier.begin(), barrier.begin());
    for tx in [&mut first, &mut second] {
        assert_eq!(tx.get(&view, "k").await.unwrap().unwrap(), "1");
    }
    first.put(&view, "k", "2".into());
    second.put(&view, "k", "3".into());
    second.put(&view, "other", "3".into());
    first.commit().await.unwrap();
    assert!(matches!(second.commit().await, Err(StorageError::Conflict)));
    let mut again = barrier.begin();
    assert_eq!(again.get(&view, "k").await.unwrap().unwrap(), "2");
    assert_eq!(again.get(&view, "other").await.unwrap(), None);
    again.put(&view, "k", "3".into());
    again.commit().await.unwrap();
}

#[tokio::test]
async fn a_second_read_of_a_changed_record_conflicts_at_once() {
    let (barrier, _) = barrier().await;
    let view = barrier.view("a");
    let mut tx = barrier.begin();
    assert_eq!(tx.get(&view, "k").await.unwrap(), None);
    write(&barrier, &view, "k", "1").await;
    assert!(matches!(tx.get(&view, "k").await, Err(StorageError::Conflict)));
}

#[tokio::test]
async fn a_read_only_transaction_refuses_writes_and_sees_the_newest_state() {
    let (barrier, _) = barrier().await;
    let view = barrier.view("a");
    let mut tx = barrier.begin_read().refusing_writes();
    assert_eq!(tx.get(&view, "k").await.unwrap(), None);
    write(&barrier, &view, "k", "1").await;
    assert_eq!(tx.get(&view, "k").await.unwrap().unwrap(), "1");
    tx.put(&view, "k", "2".into());
    assert!(!tx.is_dirty());
    assert!(matches!(tx.commit().await, Err(StorageError::ReadOnly)));
}

#[tokio::test]
async fn a_view_reaches_nothing_beside_it() {
    let (barrier, _) = barrier().await;
    write(&barrier, &barrier.view("a"), "secret", "1").await;
    let mut tx = barrier.begin();
    let inner = barrier.view("a").sub("b");
    for (view, key) in [
        (inner.clone(), "../secret"),
        (inner.clone(), "/secret"),
        (inner.sub(".."), "secret"),
        (inner.clone(), ""),
        (barrier.view("barrier"), "keyring"),
        (barrier.view(""), "barrier/keyring"),
        (barrier.view("/"), "barrier/keyring"),
    ] {
        assert!(matches!(tx.get(&view, key).await, Err(StorageError::InvalidKey(_))), "{view:?} {key}");
        let mut tx = barrier.begin();
        tx.put(&view, key, "2".into());
        assert!(matches!(tx.commit().await, Err(StorageError::InvalidKey(_))), "{view:?} {key}");
    }
    assert!(tx.list(&inner, "..", &Page::all()).await.is_err());
    assert!(tx.list(&barrier.view(""), "barrier", &Page::all()).await.is_err());
}

#[tokio::test]
async fn a_listing_enters_the_read_set_only_when_verified() {
    let (barrier, _) = barrier().await;
    let view = barrier.view("a");
    write(&barrier, &view, "x", "1").await;
    for verified in [false, true] {
        let mut tx = barrier.begin();
        let page = Page::all();
        let names = if verified { tx.list_verified(&view, "", &page).await } else { tx.list(&view, "", &page).await };
        assert!(names.unwrap().contains(&"x".to_owned()));
        tx.put(&view, "seen", "1".into());
        write(&barrier, &view, if verified { "z" } else { "y" }, "1").await;
        assert_eq!(tx.commit().await.is_err(), verified);
    }
}

#[tokio::test]
async fn listings_contain_own_writes() {
    let (barrier, _) = barrier().await;
    let view = barrier.view("a");
    let mut tx = barrier.begin();
    for key in ["a", "b/1", "b/2", "c/d/e", "f"] {
        tx.put(&view, key, "1".into());
    }
    tx.commit().await.unwrap();
    let mut tx = barrier.begin();
    for key in ["a", "b/1", "c/d/e", "none"] {
        tx.delete(&view, key);
    }
    for key in ["e", "g/h"] {
        tx.put(&view, key, "1".into());
    }
    assert_eq!(list(&mut tx, &view, "", Page::all()).await, ["b/", "e", "f", "g/"]);
    assert_eq!(list(&mut tx, &view, "", Page::first(2)).await, ["b/", "e"]);
    assert_eq!(list(&mut tx, &view, "", Page::after("e")).await, ["f", "g/"]);
    assert_eq!(list(&mut tx, &view, "b", Page::all()).await, ["2"]);
    assert!(list(&mut tx, &view, "c", Page::all()).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn none_of_200_concurrent_read_modify_writes_is_lost() {
    let (barrier, _) = barrier().await;
    let view = barrier.view("a");
    let tasks: Vec<_> = (0..200).map(|_| tokio::spawn(increment(barrier.clone(), view.clone()))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(barrier.begin_read().get(&view, "n").await.unwrap().unwrap(), "200");
}

async fn increment(barrier: Arc<Barrier>, view: View) {
    loop {
        let mut tx = barrier.begin();
        let before = match tx.get(&view, "n").await.unwrap() {
            Some(text) => std::str::from_utf8(&text).unwrap().parse::<u32>().unwrap(),
            None => 0,
        };
        tx.put(&view, "n", (before + 1).to_string().into());
        match tx.commit().await {
            Ok(_) => return,
            Err(StorageError::Conflict) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// A change of one of a few keys; `None` deletes.
type Change = (String, Option<Vec<u8>>);

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let key = "[ab](/[ab]){0,2}";
    proptest::collection::vec((key, proptest::option::weighted(0.6, any::<Vec<u8>>())), 0..12)
}

/// The names below a prefix of a map of whole paths, computed by the obvious algorithm.
fn model_names(model: &BTreeMap<String, Vec<u8>>, prefix: &str, page: &Page) -> Vec<String> {
    let mut names: Vec<String> = model
        .keys()
        .filter_map(|key| key.strip_prefix(prefix))
        .map(|rest| rest.split_inclusive('/').next().unwrap().to_owned())
        .filter(|name| page.after.as_ref().is_none_or(|after| name > after))
        .collect();
    names.sort();
    names.dedup();
    names.truncate(page.limit.unwrap_or(usize::MAX));
    names
}

fn page() -> impl Strategy<Value = Page> {
    (proptest::option::of("[ab]/?[ab]?"), proptest::option::of(0_usize..4))
        .prop_map(|(after, limit)| Page { after, limit })
}

proptest! {
    #[test]
    fn agrees_with_a_map(committed in changes(), own in changes(), page in page(), prefix in "([ab]/){0,2}") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (barrier, _) = barrier().await;
            let view = barrier.view("m");
            let mut model = BTreeMap::new();
            let mut tx = barrier.begin();
            apply(&mut tx, &view, &mut model, &committed);
            tx.commit().await.unwrap();
            let mut tx = barrier.begin();
            apply(&mut tx, &view, &mut model, &own);
            assert_eq!(list(&mut tx, &view, &prefix, page.clone()).await, model_names(&model, &prefix, &page));
            for (key, _) in committed.iter().chain(&own) {
                let value = tx.get(&view, key).await.unwrap();
                assert_eq!(value.as_deref(), model.get(key).map(Vec::as_slice));
            }
            tx.commit().await.unwrap();
            let mut tx = barrier.begin_read();
            assert_eq!(list(&mut tx, &view, &prefix, page.clone()).await, model_names(&model, &prefix, &page));
        });
    }

    #[test]
    fn the_memory_backend_agrees_with_a_map(batches in proptest::collection::vec(changes(), 1..5), page in page(), prefix in "([ab]/){0,2}") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (backend, mut model) = (MemoryBackend::new(), BTreeMap::new());
            for changes in batches {
                let mut writes = Vec::new();
                for (key, value) in changes {
                    let path = Key::new(&key).unwrap();
                    match value {
                        Some(value) => {
                            model.insert(key, value.clone());
                            writes.push(Write::Put { key: path, value: value.into() });
                        }
                        None => {
                            model.remove(&key);
                            writes.push(Write::Delete { key: path });
                        }
                    }
                }
                backend.commit(Batch { reads: vec![], writes }).await.unwrap();
                let names = backend.list(&Key::prefix(&prefix).unwrap(), &page).await.unwrap();
                assert_eq!(names, model_names(&model, &prefix, &page));
            }
        });
    }
}

fn apply(tx: &mut Tx, view: &View, model: &mut BTreeMap<String, Vec<u8>>, changes: &[Change]) {
    for (key, value) in changes {
        match value {
            Some(value) => {
                tx.put(view, key, Bytes::copy_from_slice(value));
                model.insert(key.clone(), value.clone());
            }
            None => {
                tx.delete(view, key);
                model.remove(key);
            }
        }
    }
}

#[tokio::test]
async fn sec_kf02_listing_a_deleted_deep_name_does_not_recurse() {
    let (barrier, _) = barrier().await;
    let view = barrier.view("logical/x/");
    let deep = "a/".repeat(4000) + "b";
    let mut tx = barrier.begin();
    tx.put(&view, &deep, Bytes::from_static(b"v"));
    tx.commit().await.unwrap();
    let mut tx = barrier.begin();
    tx.delete(&view, &deep);
    assert_eq!(tx.list(&view, "", &Page::all()).await.unwrap(), Vec::<String>::new());
    tx.put(&view, &("a/".repeat(3000) + "c"), Bytes::from_static(b"v"));
    assert_eq!(tx.list(&view, "", &Page::all()).await.unwrap(), ["a/"]);
}

#[tokio::test]
async fn a_transaction_creates_what_it_has_read_as_absent_and_writes() {
    let (barrier, _) = barrier().await;
    let view = barrier.view("a");
    write(&barrier, &view, "present", "v").await;
    for (key, reads, creates) in [("absent", true, true), ("absent", false, false), ("present", true, false)] {
        let mut tx = barrier.begin();
        if reads {
            tx.get(&view, key).await.unwrap();
        }
        assert!(!tx.creates());
        tx.put(&view, key, "v".into());
        assert_eq!(tx.creates(), creates, "{key} {reads}");
        tx.delete(&view, key);
        assert!(!tx.creates());
    }
}
