//! Every path compared with recorded responses of OpenBao.

use keepfast_framework::testing::Bench;

use super::AppRole;

#[tokio::test]
async fn responses_match_openbao() {
    let bench = Bench::new::<AppRole>().await.unwrap();
    crate::openbao::compare(bench, include_str!("../../../openbao/approle.jsonl")).await;
}
