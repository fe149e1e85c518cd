//! What members of a cluster send to each other, and what they have in their logs.

use std::sync::LazyLock;

use bytes::Bytes;
use keepfast_server::fuzzing;
use keepfast_storage::fuzzing::open_log;
use tokio::runtime::Runtime;

/// The longest frame.
const LIMIT: usize = 4096;

/// Frames of the cluster port and the first bytes of a connection: what is read has the form in which it is sent.
pub fn frames(data: &[u8]) {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().build().expect("a runtime"));
    let again = RUNTIME.block_on(fuzzing::frames(data, LIMIT));
    assert!(data.starts_with(&again), "one frame, one form");
    if let Some(again) = fuzzing::greeting(data) {
        assert_eq!(again, data, "one greeting, one form");
    }
}

/// Bodies of frames of the cluster port: any bytes are refused, or decoded to what is encoded again.
pub fn call(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    if let Some(again) = fuzzing::request(data.clone()) {
        // In a body, a byte that is no UTF-8 becomes the replacement character, which has three.
        assert!(again.len() <= 3 * data.len(), "a request grows by what was replaced only");
        let twice = fuzzing::request(Bytes::from(again.clone()));
        assert_eq!(twice.as_deref(), Some(&again[..]), "one request, one form");
    }
    if let Some(again) = fuzzing::response(data.clone()) {
        assert_eq!(again, data, "one response, one form");
    }
    if let Some(again) = fuzzing::coming_root(data.clone()) {
        assert_eq!(again, data, "one root key, one form");
    }
    if let Some(again) = fuzzing::failure(data.clone()) {
        assert_eq!(again.len(), data.len());
        assert_eq!(fuzzing::failure(Bytes::from(again.clone())), Some(again), "one error, one form");
    }
}

/// Segments of the log: refused or opened, and then opened again with the same entries, and with one that is added.
pub fn log_segment(data: &[u8]) {
    let Some([first, second, third]) = open_log(Bytes::copy_from_slice(data)) else { return };
    assert_eq!(first, second, "nothing was changed");
    assert!(first.base <= first.last && first.committed <= first.last);
    assert_eq!((third.base, third.last), (first.base, first.last + 1), "an entry was added");
    if let (Some(before), Some(after)) = (first.entries, third.entries) {
        assert_eq!(after.split_last().map(|(_, kept)| kept), Some(&before[..]), "no entry was lost");
    }
}
