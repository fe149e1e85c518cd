//! Tests of the durable store on real directories.

mod apply;
mod faults;
mod golden;
mod restore;
mod upgrade;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use proptest::prelude::*;

use crate::{
    Backend, Barrier, Batch, Digest, Index, Key, LocalBackend, LocalOptions, MemoryBackend, Page, Read, Role,
    StorageError, Write,
};

crate::backend_suite!(suite, || async {
    let directory = tempfile::tempdir().unwrap();
    (Arc::new(open(directory.path())), directory)
});

crate::backend_suite!(suite_clustered, || async {
    let directory = tempfile::tempdir().unwrap();
    let options = LocalOptions { clustered: true, ..LocalOptions::default() };
    (Arc::new(LocalBackend::open(directory.path(), options).unwrap()), directory)
});

#[test]
fn only_a_clustered_store_has_a_role() {
    let role = |clustered| {
        let directory = tempfile::tempdir().unwrap();
        let options = LocalOptions { clustered, ..LocalOptions::default() };
        LocalBackend::open(directory.path(), options).unwrap().roles().map(|roles| roles.borrow().clone())
    };
    assert_eq!(role(false), None);
    assert_eq!(role(true), Some(Role::Leading));
}

fn open(path: &Path) -> LocalBackend {
    LocalBackend::open(path, LocalOptions::default()).unwrap()
}

fn key(path: &str) -> Key {
    Key::new(path).unwrap()
}

async fn put(store: &LocalBackend, path: &str, value: &str) -> Result<Index, StorageError> {
    store.commit(Batch::put(key(path), value.to_owned())).await
}

async fn get(store: &LocalBackend, path: &str) -> Option<String> {
    let value = store.get(&key(path)).await.unwrap()?;
    Some(String::from_utf8(value.into()).unwrap())
}

/// Every file and directory below a path.
fn walk(path: &Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![path.to_owned()];
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test]
async fn keeps_everything_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..5_u64 {
        let store = open(directory.path());
        for before in 0..round {
            assert_eq!(get(&store, &format!("k{before}")).await.unwrap(), "v");
        }
        assert_eq!(put(&store, &format!("k{round}"), "v").await.unwrap(), Index(round + 2));
    }
}

#[tokio::test]
async fn replays_a_log_that_the_state_has_not_seen() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for number in 0..20 {
        put(&store, &format!("k{number}"), "v").await.unwrap();
    }
    // The state after a kill: the log is complete, the tree is empty.
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("log")).unwrap();
    for path in walk(&directory.path().join("log")).iter().skip(1) {
        fs::copy(path, copy.path().join("log").join(path.file_name().unwrap())).unwrap();
    }
    fs::copy(directory.path().join("meta.json"), copy.path().join("meta.json")).unwrap();
    let recovered = open(copy.path());
    for number in 0..20 {
        assert_eq!(get(&recovered, &format!("k{number}")).await.unwrap(), "v");
    }
    assert_eq!(put(&recovered, "next", "v").await.unwrap(), Index(22));
}

#[tokio::test]
async fn sec_cs04_directories_are_0700_and_files_0600() {
    let outer = tempfile::tempdir().unwrap();
    let path = outer.path().join("a/data");
    fs::create_dir_all(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    for _ in 0..2 {
        let options = LocalOptions { flush_bytes: 1000, ..LocalOptions::default() };
        let store = LocalBackend::open(&path, options).unwrap();
        for number in 0..50 {
            put(&store, &format!("k{number}"), "some value").await.unwrap();
        }
        let found = walk(&path);
        assert!(found.len() >= 6, "{found:?}");
        for path in found {
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
        }
        // Opening restricts the mode of a file that was made readable for others.
        fs::set_permissions(path.join("state.redb"), fs::Permissions::from_mode(0o644)).unwrap();
    }
}

#[tokio::test]
async fn a_second_process_is_refused_with_the_id_of_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let error = LocalBackend::open(directory.path(), LocalOptions::default()).err().unwrap();
    assert!(matches!(error, StorageError::InUse { .. }));
    let text = error.to_string();
    assert!(text.contains(directory.path().to_str().unwrap()), "{text}");
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    drop(store);
    open(directory.path());
}

#[tokio::test]
async fn a_node_keeps_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let named = |name: &str| {
        LocalBackend::open(directory.path(), LocalOptions { node_id: Some(name.into()), ..LocalOptions::default() })
    };
    assert_eq!(open(directory.path()).node_id(), None);
    assert_eq!(named("n1").unwrap().node_id().as_deref(), Some("n1"));
    assert!(matches!(named("n2"), Err(StorageError::Layout(_))));
    assert_eq!(open(directory.path()).node_id().as_deref(), Some("n1"));
}

#[tokio::test]
async fn a_directory_keeps_its_incarnation() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path()).incarnation();
    let options = LocalOptions { node_id: Some("n1".into()), ..LocalOptions::default() };
    let named = LocalBackend::open(directory.path(), options).unwrap().incarnation();
    assert!(!first.is_empty() && first == named && first == open(directory.path()).incarnation());
    let other = tempfile::tempdir().unwrap();
    assert_ne!(open(other.path()).incarnation(), first);
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("meta.json"), r#"{"format":3,"else":1}"#).unwrap();
    let error = LocalBackend::open(directory.path(), LocalOptions::default()).err().unwrap();
    assert!(matches!(error, StorageError::Layout(_)), "{error}");
}

#[tokio::test]
async fn missing_parts_are_noticed() {
    for part in ["meta.json", "state.redb", "log"] {
        let directory = tempfile::tempdir().unwrap();
        let options = LocalOptions { flush_bytes: 100, ..LocalOptions::default() };
        let store = LocalBackend::open(directory.path(), options).unwrap();
        for number in 0..10 {
            put(&store, &format!("k{number}"), "v").await.unwrap();
        }
        drop(store);
        let path = directory.path().join(part);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
        assert!(LocalBackend::open(directory.path(), LocalOptions::default()).is_err(), "{part}");
    }
}

#[tokio::test]
async fn a_closed_store_refuses_commits() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    put(&store, "k", "v").await.unwrap();
    store.close();
    assert!(matches!(put(&store, "k", "w").await, Err(StorageError::Closed)));
    assert_eq!(get(&store, "k").await.unwrap(), "v");
}

#[tokio::test]
async fn refuses_batches_that_are_too_large() {
    let directory = tempfile::tempdir().unwrap();
    let options = LocalOptions { max_batch_bytes: 1000, ..LocalOptions::default() };
    let store = LocalBackend::open(directory.path(), options).unwrap();
    assert!(matches!(put(&store, "k", &"v".repeat(1000)).await, Err(StorageError::TooLarge { .. })));
    put(&store, "k", &"v".repeat(900)).await.unwrap();
}

#[tokio::test]
async fn rl05_a_damaged_state_is_an_error_and_not_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for number in 0..100 {
        put(&store, &format!("k{number}"), "v").await.unwrap();
    }
    drop(store);
    let path = directory.path().join("state.redb");
    let good = fs::read(&path).unwrap();
    for bad in [vec![], good[..1000].to_vec(), vec![0x55; good.len()], vec![0; good.len()]] {
        fs::write(&path, bad).unwrap();
        assert!(LocalBackend::open(directory.path(), LocalOptions::default()).is_err());
    }
    fs::write(&path, good).unwrap();
    assert_eq!(get(&open(directory.path()), "k7").await.unwrap(), "v");
}

#[tokio::test]
async fn rl05_verifying_finds_every_changed_record() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for number in 0..50 {
        put(&store, &format!("some/path/{number:02}"), &format!("value {number:02}")).await.unwrap();
    }
    drop(store);
    let path = directory.path().join("state.redb");
    let good = fs::read(&path).unwrap();
    let mut found = 0;
    for place in (0..good.len())
        .filter(|place| good[*place..].starts_with(b"some/path/") || good[*place..].starts_with(b"value "))
    {
        let mut bad = good.clone();
        bad[place + 3] ^= 4;
        fs::write(&path, bad).unwrap();
        let options = LocalOptions { verify: true, ..LocalOptions::default() };
        match LocalBackend::open(directory.path(), options) {
            Err(StorageError::Corrupt(_)) => found += 1,
            Err(error) => panic!("{error}"),
            // A page that is no longer used.
            Ok(store) => {
                for number in 0..50 {
                    let value = get(&store, &format!("some/path/{number:02}")).await;
                    assert_eq!(value.unwrap(), format!("value {number:02}"));
                }
            }
        }
    }
    assert!(found >= 100, "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn none_of_200_concurrent_read_modify_writes_through_the_barrier_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path()));
    let root = keepfast_crypto::random::key();
    Barrier::create(store.clone(), &root, "seal".into(), 0).await.unwrap();
    let barrier = Barrier::open(store, &root).await.unwrap();
    let tasks: Vec<_> = (0..200).map(|_| tokio::spawn(increment(barrier.clone()))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    let value = barrier.begin_read().get(&barrier.view("a"), "n").await.unwrap().unwrap();
    assert_eq!(value, "200");
}

async fn increment(barrier: Arc<Barrier>) {
    let view = barrier.view("a");
    loop {
        let mut tx = barrier.begin();
        let before = tx.get(&view, "n").await.unwrap().unwrap_or("0".into());
        let after = std::str::from_utf8(&before).unwrap().parse::<u32>().unwrap() + 1;
        tx.put(&view, "n", after.to_string().into());
        match tx.commit().await {
            Ok(_) => return,
            Err(StorageError::Conflict) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn old_segments_are_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let options = LocalOptions { flush_bytes: 5_000, ..LocalOptions::default() };
    let store = LocalBackend::open(directory.path(), options).unwrap();
    for number in 0..200 {
        put(&store, &format!("k{number}"), &"v".repeat(500)).await.unwrap();
    }
    store.close();
    let segments = walk(&directory.path().join("log")).len() - 1;
    assert!(segments <= 2, "{segments}");
    drop(store);
    let store = open(directory.path());
    for number in 0..200 {
        assert_eq!(get(&store, &format!("k{number}")).await.unwrap().len(), 500);
    }
}

/// Batches of puts and deletes of a few keys, some after a read of a record or a listing.
fn batches() -> impl Strategy<Value = Vec<Vec<(String, Option<u8>, bool)>>> {
    let change = ("[ab](/[ab]){0,2}", proptest::option::weighted(0.7, any::<u8>()), proptest::bool::weighted(0.2));
    proptest::collection::vec(proptest::collection::vec(change, 0..5), 1..12)
}

fn batch(changes: &[(String, Option<u8>, bool)], model: &MemoryBackend, stale: bool) -> Batch {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut batch = Batch::default();
    for (path, value, look) in changes {
        let path = key(path);
        if *look {
            let seen = runtime.block_on(model.get(&path)).unwrap().map(|value| Digest::of(&value));
            batch.reads.push(Read::Value { key: path.clone(), seen: if stale { Some(Digest([1; 16])) } else { seen } });
        }
        batch.writes.push(match value {
            Some(value) => Write::Put { key: path, value: vec![*value; usize::from(*value)].into() },
            None => Write::Delete { key: path },
        });
    }
    batch
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn agrees_with_the_memory_backend(batches in batches(), restart in 0_usize..12, stale in 0_usize..12) {
        let directory = tempfile::tempdir().unwrap();
        let model = MemoryBackend::new();
        let mut store = open(directory.path());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (place, changes) in batches.iter().enumerate() {
            if place == restart {
                drop(store);
                store = open(directory.path());
            }
            let batch = batch(changes, &model, place == stale);
            let (expected, found) = (runtime.block_on(model.commit(batch.clone())), runtime.block_on(store.commit(batch)));
            prop_assert_eq!(expected.map(drop).map_err(|error| error.to_string()), found.map(drop).map_err(|error| error.to_string()));
        }
        for prefix in ["", "a", "b", "a/a", "b/a", "a/b", "b/b"] {
            let prefix = Key::prefix(prefix).unwrap();
            for page in [Page::all(), Page::first(1), Page::after("a"), Page::after("a/")] {
                let (expected, found) = (runtime.block_on(model.list(&prefix, &page)), runtime.block_on(store.list(&prefix, &page)));
                prop_assert_eq!(expected.unwrap(), found.unwrap());
            }
        }
        for (path, _, _) in batches.iter().flatten() {
            let path = key(path);
            prop_assert_eq!(runtime.block_on(model.get(&path)).unwrap(), runtime.block_on(store.get(&path)).unwrap());
        }
    }
}
