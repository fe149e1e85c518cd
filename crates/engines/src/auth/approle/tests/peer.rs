//! Every path as a running OpenBao answered it.

use keepfast_framework::testing::Bench;

use super::AppRole;

#[tokio::test]
async fn answers_as_the_peer_does() {
    let bench = Bench::new::<AppRole>().await.unwrap();
    crate::peer::compare(bench, include_str!("../../../peer/approle.jsonl")).await;
}
