//! Data directories of earlier format versions stay readable.

use std::{fs, path::Path};

use super::{get, open};
use crate::{Backend, Batch, Index, Key, LocalBackend, LocalOptions, Write};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/local-v1");
const SEGMENT: &str = "log/00000000000000000001.seg";

#[tokio::test]
async fn golden_directory_v1_stays_readable() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("log")).unwrap();
    // Without the tree: all records come from the log.
    for name in ["meta.json", SEGMENT] {
        fs::copy(Path::new(GOLDEN).join(name), directory.path().join(name)).unwrap();
    }
    let store = open(directory.path());
    assert_eq!(store.node_id(), Some("node-1"));
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
        store.commit(Batch { reads: vec![], writes }).await.unwrap();
    }
    store.close();
    fs::create_dir_all(Path::new(GOLDEN).join("log")).unwrap();
    for name in ["meta.json", SEGMENT] {
        fs::copy(directory.path().join(name), Path::new(GOLDEN).join(name)).unwrap();
    }
}
