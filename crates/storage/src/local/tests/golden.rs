//! Data directories of earlier format versions stay readable.

use std::{fs, path::Path};

use super::{get, open};
use crate::{Backend, Batch, Digest, Index, Key, LocalBackend, LocalOptions, Read, Write};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
const SEGMENT: &str = "log/00000000000000000001.log";

/// Opens a copy of a directory. It has no tree: all records come from the log.
fn golden(version: &str, segment: &str) -> (tempfile::TempDir, LocalBackend) {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("log")).unwrap();
    for name in ["meta.json", segment] {
        fs::copy(Path::new(GOLDEN).join(version).join(name), directory.path().join(name)).unwrap();
    }
    let store = open(directory.path());
    (directory, store)
}

#[tokio::test]
async fn golden_directory_v2_stays_readable() {
    let (_directory, store) = golden("local-v2", SEGMENT);
    assert_eq!(store.node_id().as_deref(), Some("node-1"));
    assert_eq!(store.incarnation().len(), 36);
    assert_eq!(get(&store, "a/first").await.unwrap(), "one");
    assert_eq!(get(&store, "a/ä").await.unwrap(), "two");
    assert_eq!(get(&store, "gone").await, None);
    assert_eq!(store.commit(Batch::default()).await.unwrap(), Index(4));
}

#[tokio::test]
async fn golden_directory_v1_stays_readable() {
    let (_directory, store) = golden("local-v1", "log/00000000000000000001.seg");
    assert_eq!(store.node_id().as_deref(), Some("node-1"));
    assert!(!store.incarnation().is_empty(), "made at the first start of a version that has them");
    assert_eq!(get(&store, "a/first").await.unwrap(), "one");
    assert_eq!(get(&store, "a/ä").await.unwrap(), "two");
    assert_eq!(get(&store, "gone").await, None);
    assert_eq!(store.commit(Batch::default()).await.unwrap(), Index(3));
}

#[tokio::test]
#[ignore = "writes the golden directory of the present format version; to be run once for a version"]
async fn write_golden_directory() {
    let directory = tempfile::tempdir().unwrap();
    let options = LocalOptions { node_id: Some("node-1".into()), ..LocalOptions::default() };
    let store = LocalBackend::open(directory.path(), options).unwrap();
    let put = |path: &str, value: &'static str| Write::Put { key: Key::new(path).unwrap(), value: value.into() };
    for writes in [
        vec![put("a/first", "one"), put("gone", "x")],
        vec![put("a/ä", "two")],
        vec![Write::Delete { key: Key::new("gone").unwrap() }],
    ] {
        let key = Key::new("gone").unwrap();
        let seen = store.get(&key).await.unwrap().map(|value| Digest::of(&value));
        store.commit(Batch { reads: vec![Read::Value { key, seen }], writes }).await.unwrap();
    }
    store.close();
    let golden = Path::new(GOLDEN).join("local-v2");
    fs::create_dir_all(golden.join("log")).unwrap();
    for name in ["meta.json", SEGMENT] {
        fs::copy(directory.path().join(name), golden.join(name)).unwrap();
    }
}
