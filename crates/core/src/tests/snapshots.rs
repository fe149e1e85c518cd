//! Bounds of the snapshots that `sys/storage/raft/snapshot` takes.

use bytes::Bytes;

use crate::cluster::fake::status;
use crate::tests::fixture::{ROOT, RequestOptions, incoming};
use crate::tests::raft::{RAFT, leader, upload};

#[tokio::test]
async fn sec_ds08_a_snapshot_that_expands_a_hundredfold_is_refused() {
    let (server, consensus) = leader(status(&[1])).await;
    // More than any file may become.
    const PARTS: usize = 260;
    *consensus.parts.lock() = vec![Bytes::from(vec![0; 256 * 1024]); PARTS];
    let get = RequestOptions { token: Some(ROOT.to_owned()), ..RequestOptions::default() };
    let saved = server.node.handle(incoming("GET", &format!("{RAFT}/snapshot"), get)).await;
    let file = saved.into_body();
    assert!(file.len() * 100 < PARTS * 256 * 1024, "{}", file.len());
    for path in ["snapshot", "snapshot-force"] {
        let refused = upload(&server, &format!("{RAFT}/{path}"), &file).await;
        assert!(refused.0 == 400 && refused.1.contains("is larger than"), "{refused:?}");
    }
    assert!(consensus.restored.lock().is_empty());
}
