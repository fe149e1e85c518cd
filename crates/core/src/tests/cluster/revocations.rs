//! A revocation is effective at every node once it has returned.

use serde_json::json;

use super::fake::Cluster;
use crate::tests::fixture::ROOT;

#[tokio::test]
async fn sec_rl06_a_revoked_token_is_refused_at_every_node_at_once() {
    let cluster = Cluster::new().await;
    for revokes in cluster.nodes() {
        let token = revokes.token(json!({ "ttl": "1h" })).await;
        for node in cluster.nodes() {
            node.get("auth/token/lookup-self", &token).await.ok();
        }
        revokes.post("auth/token/revoke", ROOT, json!({ "token": token })).await.ok();
        for node in cluster.nodes() {
            node.get("auth/token/lookup-self", &token).await.is(403);
        }
    }
}
