//! Wrapped values: their form, what opens them, and the rewrap.

use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::{
    Backend as _, Key, MemoryBackend, Rewrap, Rewrapped, View, Wrapping, Write,
    barrier::{KEYRING, SEAL},
    tx::tests::write,
};

const RECORD: &[u8] = b"seal";

struct Store {
    backend: Arc<MemoryBackend>,
    barrier: Arc<Barrier>,
    root: Key256,
}

/// A storage with these wrap keys.
async fn store(keys: &WrapKeys) -> Store {
    let (backend, root) = (Arc::new(MemoryBackend::new()), random::key());
    Barrier::create(backend.clone(), &root, RECORD.into(), 0).await.unwrap();
    let barrier = Barrier::open(backend.clone(), &root).await.unwrap();
    barrier.set_wrap_keys(keys, RECORD);
    Store { backend, barrier, root }
}

impl Store {
    fn wrapped(&self) -> View {
        self.barrier.view("w").wrapping(Wrapping::Always)
    }

    async fn raw(&self, path: &str) -> Bytes {
        self.backend.get(&Key::new(path).unwrap()).await.unwrap().unwrap()
    }

    async fn read(&self, path: &str) -> Result<Option<Bytes>, StorageError> {
        self.barrier.begin_read().get(&self.barrier.view(""), path).await
    }

    /// The generations under which the wrapped values are, and the number of the values that are not wrapped.
    fn forms(&self) -> (Vec<u32>, usize) {
        let records = self.backend.records().into_iter().filter(|(key, _)| !is_barrier(key));
        let generations: Vec<_> = records.map(|(_, value)| record_format::wrap_generation(&value)).collect();
        let plain = generations.iter().filter(|generation| generation.is_none()).count();
        let mut wrapped: Vec<u32> = generations.into_iter().flatten().collect();
        wrapped.sort_unstable();
        (wrapped, plain)
    }

    /// Changes the seal record, and with it the wrap keys.
    async fn change(&self, keys: &WrapKeys, record: &'static [u8]) {
        let from = self.raw(SEAL).await;
        self.barrier.replace_seal(&from, record.into()).await.unwrap();
        self.barrier.set_wrap_keys(keys, record);
    }
}

fn is_barrier(key: &Key) -> bool {
    super::super::is_reserved(key.as_str())
}

#[tokio::test]
async fn a_value_is_wrapped_below_the_prefixes_of_its_view_only() {
    let store = store(&WrapKeys::first()).await;
    let view = store.barrier.view("m").wrapping(Wrapping::Below(&["key/", "one"]));
    let paths = ["key/a", "one", "keys/a", "other", "sub/key/a"];
    for path in paths {
        write(&store.barrier, &view, path, "v").await;
    }
    write(&store.barrier, &view.sub("key"), "b", "v").await;
    write(&store.barrier, &view.sub("sub"), "key/b", "v").await;
    for (path, is_wrapped) in [("key/a", true), ("one", true), ("keys/a", false), ("other", false), ("key/b", true)] {
        let raw = store.raw(&format!("m/{path}")).await;
        assert_eq!(raw[0], if is_wrapped { 2 } else { 1 }, "{path}");
        assert_eq!(store.read(&format!("m/{path}")).await.unwrap().unwrap(), "v");
    }
    assert_eq!((store.raw("m/sub/key/a").await[0], store.raw("m/sub/key/b").await[0]), (1, 1));
    let view = store.wrapped().sub("deep");
    write(&store.barrier, &view, "x", "v").await;
    assert_eq!(store.raw("w/deep/x").await[0], 2);
    // The last write of a transaction counts.
    let mut tx = store.barrier.begin();
    tx.put(&store.wrapped(), "x", "1".into());
    tx.put(&store.barrier.view("w"), "x", "2".into());
    tx.put(&store.wrapped(), "y", "1".into());
    tx.delete(&store.wrapped(), "y");
    tx.commit().await.unwrap();
    assert_eq!((store.raw("w/x").await[0], store.read("w/y").await.unwrap()), (1, None));
}

#[tokio::test]
async fn without_wrap_keys_every_value_has_the_form_of_before() {
    let store = store(&WrapKeys::default()).await;
    write(&store.barrier, &store.wrapped(), "a", "value").await;
    let raw = store.raw("w/a").await;
    assert_eq!((raw[0], raw.len()), (1, 5 + 5 + 28));
    assert_eq!(store.read("w/a").await.unwrap().unwrap(), "value");
}

/// The form of a wrapped value, computed from the keys by its description.
#[tokio::test]
async fn sec_a_wrapped_value_is_bound_to_both_keys_path_and_generation() {
    let keys = WrapKeys::first();
    let store = store(&keys).await;
    write(&store.barrier, &store.wrapped(), "a", "value").await;
    let raw = store.raw("w/a").await;
    assert_eq!(raw[..9], [2, 1, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(raw.len(), 9 + 5 + 28 + 28);
    // The keyring alone leads to ciphertext.
    let keyring = store.barrier.keyring.load_full();
    let inner = keyring.term(1).unwrap().key.open(b"w/a", &raw[9..]).unwrap();
    assert_eq!(inner.len(), 5 + 28);
    let mut derived = Key256::zeroed();
    hkdf_sha256(keys.newest().unwrap().expose(), b"keepfast wrapped value 1", &[1, 0, 0, 0], derived.expose_mut());
    let cipher = AeadKey::new(&derived);
    assert_eq!(cipher.open(b"w/a\x01\0\0\0", &inner).unwrap(), b"value");
    assert!(cipher.open(b"w/a\x02\0\0\0", &inner).is_err() && cipher.open(b"w/b\x01\0\0\0", &inner).is_err());
    // Neither another path nor another generation is accepted, nor a value without its inner encryption.
    let term = &keyring.term(1).unwrap().key;
    let both = WrapKeys(vec![keys.0[0].clone(), WrapKey { generation: 2, key: keys.0[0].key.clone() }]);
    store.barrier.set_wrap_keys(&both, RECORD);
    for (path, record) in [
        ("w/b", record_format::seal_wrapped(term, (1, 1), "w/b", &inner)),
        ("w/a", record_format::seal_wrapped(term, (1, 2), "w/a", &inner)),
        ("w/a", record_format::seal_wrapped(term, (1, 1), "w/a", b"value")),
        ("w/a", record_format::seal_wrapped(term, (1, 3), "w/a", &inner)),
        ("w/a", raw[..9].to_vec()),
        ("w/a", raw[..7].to_vec()),
    ] {
        let opened = store.barrier.open_record(path, &record).await;
        assert!(matches!(opened, Err(StorageError::Corrupt(_))), "{path}");
        assert!(store.barrier.check_record(&Key::new(path).unwrap(), &record).is_err());
    }
    for at in 0..raw.len() {
        let mut changed = raw.to_vec();
        changed[at] ^= 1;
        assert!(store.barrier.open_record("w/a", &changed).await.is_err(), "byte {at}");
    }
}

#[tokio::test]
async fn sec_a_leaked_root_key_without_the_wrap_keys_opens_no_wrapped_value() {
    let keys = WrapKeys::first();
    let store = store(&keys).await;
    write(&store.barrier, &store.wrapped(), "a", "secret").await;
    write(&store.barrier, &store.barrier.view("p"), "a", "other").await;
    let thief = Barrier::open(store.backend.clone(), &store.root).await.unwrap();
    let mut tx = thief.begin_read();
    let refused = tx.get(&thief.view("w"), "a").await.unwrap_err();
    let text = "the record at 'w/a' is under the wrap key of generation 1, which this node does not have";
    assert!(matches!(&refused, StorageError::Corrupt(why) if **why == *text), "{refused}");
    // Only that record is affected.
    assert_eq!(tx.get(&thief.view("p"), "a").await.unwrap().unwrap(), "other");
    let key = Key::new("w/a").unwrap();
    assert!(thief.open_applied(&key, &store.raw("w/a").await).is_err());
    assert!(thief.check_record(&key, &store.raw("w/a").await).is_err());
    assert!(thief.check_record_with(&key, &store.raw("w/a").await, Some(&keys)).is_ok());
    thief.set_wrap_keys(&WrapKeys::first(), RECORD);
    assert!(tx.get(&thief.view("w"), "a").await.is_err(), "another key of the same generation");
    // A closed barrier has no wrap keys, and gets none.
    store.barrier.close();
    assert!(store.barrier.wrap_keys().is_empty());
    store.barrier.set_wrap_keys(&keys, RECORD);
    assert!(store.barrier.wrap_keys().is_empty());
}

#[tokio::test]
async fn values_of_every_term_and_generation_stay_readable() {
    let first = WrapKeys::first();
    let store = store(&first).await;
    let both = first.rotated().unwrap();
    for term in 1..8 {
        write(&store.barrier, &store.wrapped(), &format!("{term}/1"), "v").await;
        store.barrier.set_wrap_keys(&both, RECORD);
        write(&store.barrier, &store.wrapped(), &format!("{term}/2"), "v").await;
        store.barrier.set_wrap_keys(&first, RECORD);
        assert_eq!(store.barrier.rotate(0).await.unwrap(), term + 1);
    }
    store.barrier.set_wrap_keys(&both, RECORD);
    for term in 1..8 {
        for generation in 1..=2 {
            let path = format!("w/{term}/{generation}");
            assert_eq!(store.read(&path).await.unwrap().unwrap(), "v", "{path}");
            let raw = store.raw(&path).await;
            assert_eq!((raw[1], raw[5]), (u8::try_from(term).unwrap(), generation));
            assert_eq!(super::super::key_term(&raw), Some(term), "it counts for its term");
        }
    }
}

#[test]
fn the_bytes_of_wrap_keys_have_one_form() {
    let first = WrapKeys::first();
    let both = first.rotated().unwrap();
    assert_eq!((first.generation(), both.generation(), both.has_former()), (1, 2, true));
    assert!(both.rotated().is_none() && WrapKeys::default().rotated().is_none());
    assert_eq!(both.newest_only().generation(), 2);
    for keys in [&first, &both] {
        let bytes = keys.to_bytes();
        let read = WrapKeys::from_bytes(bytes.expose()).unwrap();
        assert_eq!(read.to_bytes().expose(), bytes.expose());
        assert_eq!(bytes.expose().len(), bytes.expose().capacity(), "no copy of a key is left behind");
        for length in 0..bytes.expose().len() {
            let cut = WrapKeys::from_bytes(&bytes.expose()[..length]);
            assert!(cut.is_none_or(|cut| length == 37 && !cut.has_former()), "{length}");
        }
    }
    let entry = |generation: u32| [&generation.to_le_bytes()[..], &[7; 32]].concat();
    for wrong in [&[][..], &[0], &[1, 1], &[2, 1], &[1, 2, 3]] {
        let bytes: Vec<u8> = [1].into_iter().chain(wrong.iter().flat_map(|g| entry(*g))).collect();
        assert!(WrapKeys::from_bytes(&bytes).is_none(), "{wrong:?}");
    }
    assert!(WrapKeys::from_bytes(&[vec![2], entry(1)].concat()).is_none(), "another version");
}

/// Creates the first key when it may.
struct Source {
    barrier: Weak<Barrier>,
    keys: WrapKeys,
    may_create: bool,
    calls: Mutex<(u32, u32)>,
}

#[async_trait]
impl WrapKeySource for Source {
    async fn create(&self) {
        self.calls.lock().0 += 1;
        if self.may_create {
            self.barrier.upgrade().unwrap().set_wrap_keys(&self.keys, RECORD);
        }
    }

    async fn refresh(&self) {
        self.calls.lock().1 += 1;
        self.barrier.upgrade().unwrap().set_wrap_keys(&self.keys, RECORD);
    }
}

fn source(store: &Store, may_create: bool) -> Arc<Source> {
    let barrier = Arc::downgrade(&store.barrier);
    let source = Arc::new(Source { barrier, keys: WrapKeys::first(), may_create, calls: Mutex::default() });
    let weak: Weak<dyn WrapKeySource> = Arc::<Source>::downgrade(&source);
    store.barrier.follow_wrap_keys(weak);
    source
}

#[tokio::test]
async fn the_first_wrapped_value_creates_the_key_and_no_other_value_does() {
    let store = store(&WrapKeys::default()).await;
    let source = source(&store, true);
    write(&store.barrier, &store.barrier.view("p"), "a", "v").await;
    assert_eq!(*source.calls.lock(), (0, 0));
    for name in ["a", "b"] {
        write(&store.barrier, &store.wrapped(), name, "v").await;
    }
    assert_eq!((*source.calls.lock(), store.forms()), ((1, 0), (vec![1, 1], 1)));
}

#[tokio::test]
async fn a_value_is_stored_unwrapped_where_no_key_can_be_created() {
    let store = store(&WrapKeys::default()).await;
    let source = source(&store, false);
    write(&store.barrier, &store.wrapped(), "a", "v").await;
    assert_eq!((source.calls.lock().0, store.forms()), (1, (vec![], 1)));
}

#[tokio::test]
async fn a_key_that_a_node_lacks_is_read_again_at_its_first_value() {
    let keys = WrapKeys::first();
    let store = store(&keys).await;
    write(&store.barrier, &store.wrapped(), "a", "v").await;
    store.barrier.set_wrap_keys(&WrapKeys::default(), RECORD);
    let barrier = Arc::downgrade(&store.barrier);
    let source = Arc::new(Source { barrier, keys, may_create: false, calls: Mutex::default() });
    let weak: Weak<dyn WrapKeySource> = Arc::<Source>::downgrade(&source);
    store.barrier.follow_wrap_keys(weak);
    assert_eq!(store.read("w/a").await.unwrap().unwrap(), "v");
    assert_eq!(store.read("w/a").await.unwrap().unwrap(), "v");
    assert_eq!(*source.calls.lock(), (0, 1));
}

#[tokio::test]
async fn sec_no_value_appears_under_a_key_after_the_record_has_lost_it() {
    let first = WrapKeys::first();
    let store = store(&first).await;
    let mut late = store.barrier.begin();
    late.put(&store.wrapped(), "late", "v".into());
    let mut plain = store.barrier.begin();
    plain.put(&store.barrier.view("p"), "late", "v".into());
    let from = store.raw(SEAL).await;
    store.barrier.replace_seal(&from, "next".into()).await.unwrap();
    // The barrier still has the keys of the former record, as a commit that was encrypted before has.
    assert!(matches!(late.commit().await, Err(StorageError::Conflict)));
    plain.commit().await.unwrap();
    assert_eq!(store.forms(), (vec![], 1));
    store.barrier.set_wrap_keys(&first, b"next");
    write(&store.barrier, &store.wrapped(), "late", "v").await;
    let stale = store.barrier.replace_seal(&from, "other".into()).await;
    assert!(matches!(stale, Err(StorageError::Conflict)));
}

#[tokio::test]
async fn a_seal_record_is_not_replaced_over_another_keyring_or_a_restore() {
    let store = store(&WrapKeys::default()).await;
    let from = store.raw(SEAL).await;
    let keyring = store.raw(KEYRING).await;
    let restored = Key::new("barrier/restored").unwrap();
    store.backend.commit(crate::Batch::put(restored.clone(), "1")).await.unwrap();
    assert!(matches!(store.barrier.replace_seal(&from, "next".into()).await, Err(StorageError::Conflict)));
    let delete = crate::Batch { reads: vec![], writes: vec![Write::Delete { key: restored }] };
    store.backend.commit(delete).await.unwrap();
    // Another keyring, whose watcher this barrier's is not.
    let other = Barrier::open(store.backend.clone(), &store.root).await.unwrap();
    other.rotate(0).await.unwrap();
    store.backend.commit(crate::Batch::put(Key::new(KEYRING).unwrap(), keyring)).await.unwrap();
    store.barrier.replace_seal(&from, "next".into()).await.unwrap();
    store.barrier.close();
    assert!(matches!(store.barrier.replace_seal(&from, "next".into()).await, Err(StorageError::Closed)));
}

/// Runs a pass from a cursor, and stops after this many pages. Returns the cursor and what was done.
async fn pass(store: &Store, cursor: &str, pages: usize, wraps: &crate::Wraps<'_>) -> (String, Rewrapped, bool) {
    let mut rewrap = Rewrap::after(store.barrier.clone(), cursor);
    let mut done = Rewrapped::default();
    for _ in 0..pages {
        let Some(page) = rewrap.page(3, wraps).await.unwrap() else { return (String::new(), done, true) };
        done.processed += page.processed;
        done.succeeded += page.succeeded;
        done.failed += page.failed;
    }
    (rewrap.cursor().to_owned(), done, false)
}

fn below_w(path: &str) -> Option<bool> {
    path.starts_with("w/").then_some(true)
}

const NAMES: [&str; 12] = ["a", "a.b", "a/b", "a/b/c", "a/b-c", "a0", "b/c/d/e", "b/c/d/f", "b/c/e", "c", "d/e", "é/ü"];

#[tokio::test]
async fn a_rewrap_resumes_at_any_page_and_leaves_no_value_behind() {
    for pages in 1..8 {
        let first = WrapKeys::first();
        let store = store(&first).await;
        for (at, name) in NAMES.iter().enumerate() {
            let view = if at % 3 == 0 { store.barrier.view("w") } else { store.wrapped() };
            write(&store.barrier, &view, name, "v").await;
            write(&store.barrier, &store.barrier.view("x").wrapping(Wrapping::Always), name, "v").await;
            write(&store.barrier, &store.barrier.view("p"), name, "v").await;
        }
        let both = first.rotated().unwrap();
        store.change(&both, b"both").await;
        let (mut cursor, mut total, mut runs) = (String::new(), 0, 0);
        loop {
            let (next, done, is_complete) = pass(&store, &cursor, pages, &below_w).await;
            assert_eq!((done.failed, done.processed), (0, done.succeeded));
            (total, runs) = (total + done.succeeded, runs + 1);
            if is_complete {
                break;
            }
            assert!(next > cursor, "{next}");
            cursor = next;
        }
        assert!(runs > 1 || pages == 7, "{runs}");
        assert_eq!(total, 24);
        assert_eq!(store.forms(), (vec![2; 24], 12), "the values of x stay wrapped, those of p stay as they are");
        store.change(&both.newest_only(), b"newest").await;
        for name in NAMES {
            for prefix in ["w", "x", "p"] {
                assert_eq!(store.read(&format!("{prefix}/{name}")).await.unwrap().unwrap(), "v");
            }
        }
    }
}

#[tokio::test]
async fn a_rewrap_unwraps_what_must_not_be_wrapped() {
    let store = store(&WrapKeys::first()).await;
    for name in NAMES {
        write(&store.barrier, &store.wrapped(), name, "v").await;
    }
    let (_, done, is_complete) = pass(&store, "", 100, &|_| Some(false)).await;
    assert_eq!((done, is_complete), (Rewrapped { processed: 12, succeeded: 12, ..Rewrapped::default() }, true));
    assert_eq!(store.forms(), (vec![], 12));
    let (_, done, _) = pass(&store, "", 100, &|_| Some(false)).await;
    assert_eq!(done, Rewrapped::default());
    // Without keys there is nothing to wrap.
    store.barrier.set_wrap_keys(&WrapKeys::default(), RECORD);
    assert_eq!(pass(&store, "", 100, &|_| Some(true)).await.1, Rewrapped::default());
}

#[tokio::test]
async fn sec_tl09_a_value_that_cannot_be_rewrapped_affects_no_other() {
    let first = WrapKeys::first();
    let store = store(&first).await;
    for name in NAMES {
        write(&store.barrier, &store.wrapped(), name, "v").await;
    }
    let key = Key::new("w/a/b").unwrap();
    let mut bad = store.raw("w/a/b").await.to_vec();
    *bad.last_mut().unwrap() ^= 1;
    store.backend.commit(crate::Batch::put(key, bad)).await.unwrap();
    let both = first.rotated().unwrap();
    store.change(&both, b"both").await;
    let (_, done, is_complete) = pass(&store, "", 100, &below_w).await;
    assert_eq!((done, is_complete), (Rewrapped { processed: 12, succeeded: 11, failed: 1, kept: 0 }, true));
    assert_eq!(store.forms().0.iter().filter(|generation| **generation == 2).count(), 11);
    assert!(store.read("w/a/b").await.is_err());
    assert_eq!(store.read("w/a").await.unwrap().unwrap(), "v");
}

#[tokio::test]
async fn values_that_have_their_form_are_not_written_again() {
    let store = store(&WrapKeys::first()).await;
    for name in NAMES {
        write(&store.barrier, &store.wrapped(), name, "v").await;
    }
    let before = store.backend.records();
    let (_, done, _) = pass(&store, "", 100, &below_w).await;
    assert_eq!(done, Rewrapped { processed: 12, succeeded: 12, ..Rewrapped::default() });
    assert!(store.backend.records() == before);
}

#[tokio::test]
async fn one_transaction_holds_wrapped_and_other_values() {
    let store = store(&WrapKeys::first()).await;
    let mut tx = store.barrier.begin();
    tx.put(&store.wrapped(), "m", "v".into());
    tx.put(&store.barrier.view("p"), "m", "v".into());
    tx.commit().await.unwrap();
    assert_eq!((store.raw("w/m").await[0], store.raw("p/m").await[0]), (2, 1));
}

#[tokio::test]
async fn a_page_of_a_rewrap_is_bounded_by_values_reads_and_bytes() {
    let store = store(&WrapKeys::default()).await;
    for name in 0..1_200 {
        write(&store.barrier, &store.barrier.view("a"), &format!("{name:04}"), "v").await;
    }
    // A record is 33 bytes longer than its value: two of these fill a page exactly.
    let large = "v".repeat((1 << 19) - 33);
    let mut tx = store.barrier.begin();
    for name in 0..3 {
        tx.put(&store.barrier.view("b"), &name.to_string(), large.clone().into());
    }
    tx.commit().await.unwrap();
    for name in 0..250 {
        write(&store.barrier, &store.barrier.view("w"), &format!("{name:03}"), "v").await;
    }
    assert_eq!(store.raw("b/0").await.len(), 1 << 19);
    store.barrier.set_wrap_keys(&WrapKeys::first(), RECORD);
    let wraps = |path: &str| (!path.starts_with("a/")).then_some(true);
    let mut rewrap = Rewrap::after(store.barrier.clone(), "");
    let mut pages = Vec::new();
    while let Some(page) = rewrap.page(100, &wraps).await.unwrap() {
        assert_eq!((page.processed, page.failed, page.kept), (page.succeeded, 0, 0));
        pages.push((rewrap.cursor().to_owned(), page.processed));
    }
    let expected = [("a/0999", 0), ("b/1", 2), ("w/098", 100), ("w/198", 100), ("w/249", 51)];
    let pages: Vec<_> = pages.iter().map(|(cursor, processed)| (cursor.as_str(), *processed)).collect();
    assert_eq!(pages, expected);
    assert_eq!(store.forms(), (vec![1; 253], 1_200));
}

/// A backend that refuses larger batches of writes, and any batch with this record.
struct Limited {
    memory: MemoryBackend,
    limit: std::sync::atomic::AtomicUsize,
    refused: &'static str,
    refusals: Mutex<Vec<usize>>,
}

#[async_trait]
impl crate::Backend for Limited {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StorageError> {
        self.memory.get(key).await
    }

    async fn list(&self, prefix: &Key, page: &crate::Page) -> Result<Vec<String>, StorageError> {
        self.memory.list(prefix, page).await
    }

    async fn commit(&self, batch: crate::Batch) -> Result<crate::Index, StorageError> {
        let limit = self.limit.load(std::sync::atomic::Ordering::Relaxed);
        let size = batch.writes.len();
        let has_refused = batch.writes.iter().any(|write| write.key().as_str() == self.refused);
        if limit > 0 && (size > limit || has_refused) {
            self.refusals.lock().push(size);
            return Err(StorageError::TooLarge { size, limit });
        }
        self.memory.commit(batch).await
    }

    fn watch(&self, watcher: Weak<dyn crate::Watch>) {
        self.memory.watch(watcher);
    }
}

#[tokio::test]
async fn a_page_that_is_too_large_is_rewrapped_value_by_value() {
    let backend =
        Arc::new(Limited { memory: MemoryBackend::new(), limit: 0.into(), refused: "w/c", refusals: Mutex::default() });
    let root = random::key();
    Barrier::create(backend.clone(), &root, RECORD.into(), 0).await.unwrap();
    let barrier = Barrier::open(backend.clone(), &root).await.unwrap();
    for name in NAMES {
        write(&barrier, &barrier.view("w"), name, "v").await;
    }
    let mut bad = backend.get(&Key::new("w/a0").unwrap()).await.unwrap().unwrap().to_vec();
    *bad.last_mut().unwrap() ^= 1;
    backend.memory.commit(crate::Batch::put(Key::new("w/a0").unwrap(), bad)).await.unwrap();
    barrier.set_wrap_keys(&WrapKeys::first(), RECORD);
    backend.limit.store(1, std::sync::atomic::Ordering::Relaxed);
    let mut rewrap = Rewrap::after(barrier, "");
    let done = rewrap.page(100, &below_w).await.unwrap().unwrap();
    assert_eq!(done, Rewrapped { processed: 12, succeeded: 10, failed: 2, kept: 1 });
    assert_eq!(*backend.refusals.lock(), [11, 1], "the page, and the value that is too large on its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rewrap_loses_no_write_that_runs_beside_it() {
    let first = WrapKeys::first();
    let store = store(&first).await;
    let both = first.rotated().unwrap();
    for name in 0..200 {
        write(&store.barrier, &store.wrapped(), &format!("{name:03}"), "0").await;
    }
    store.change(&both, b"both").await;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (barrier, view) = (store.barrier.clone(), store.wrapped());
            tokio::spawn(async move {
                for name in (0..200).filter(|name| name % 4 == writer) {
                    let name = &format!("{name:03}");
                    let view = &view;
                    let added = barrier.transact(|mut tx| async move {
                        let before = tx.get(view, name).await?.unwrap();
                        tx.put(view, name, [&before[..], b"+"].concat().into());
                        Ok::<_, StorageError>((tx, ()))
                    });
                    added.await.unwrap();
                }
            })
        })
        .collect();
    let (_, done, is_complete) = pass(&store, "", 1_000, &below_w).await;
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(is_complete && done.failed == 0);
    assert_eq!(store.forms(), (vec![2; 200], 0));
    for name in 0..200 {
        assert_eq!(store.read(&format!("w/{name:03}")).await.unwrap().unwrap(), "0+");
    }
}

#[tokio::test]
async fn a_view_narrows_what_it_wraps_by_the_whole_path() {
    let store = store(&WrapKeys::default()).await;
    let view = store.barrier.view("logical/u").wrapping(Wrapping::Below(&["key/"]));
    assert!(view.wraps("logical/u/key/a") && !view.wraps("logical/u/a") && !view.wraps(""));
    assert!(view.sub("key").wraps("logical/u/key/a"));
    assert!(!store.barrier.view("logical/u").wraps("logical/u/key/a"));
}

/// A wrapped record of the term 7 and the generation 3; the key of the term is 32 times 1, the wrap key 32 times 2.
const GOLDEN: &str = "0207000000030000000708e0539c2fb9e375a84511a73d69cbb97b7eb49ded1ac16d0a6b465c2be3fcecb0cf0b1f6cc2741fbab64512f6b2ba2f70bd905a70f172dcb23e501d";

#[test]
fn a_stored_wrapped_record_stays_readable() {
    let keys = WrapKeys::from_bytes(&[&[1, 3, 0, 0, 0][..], &[2; 32]].concat()).unwrap();
    let record = hex::decode(GOLDEN).unwrap();
    assert_eq!((record_format::term(&record), record_format::wrap_generation(&record)), (Some(7), Some(3)));
    let wrapped = record_format::open(&AeadKey::from_bytes(&[1; 32]), "w/a", &record).unwrap();
    assert_eq!(keys.open((7, 3), "w/a", &wrapped).unwrap(), b"value");
}
