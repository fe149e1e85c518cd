//! Every path as a running OpenBao answered it, from 127.0.0.1.

use super::bench;

#[tokio::test]
async fn answers_as_the_peer_does() {
    let mut bench = bench(&[]).await;
    bench.remote = "127.0.0.1".parse().ok();
    crate::peer::compare(&bench, include_str!("peer.jsonl")).await;
}
