//! Identity on two nodes: a change counts at the next request on the other one.

use serde_json::json;

use crate::tests::two_nodes::Pair;

#[tokio::test]
async fn sec_id01_membership_now_on_the_other_node() {
    let pair = Pair::new().await;
    pair.write("secret/data/a", json!({ "data": {} })).await;
    pair.write("sys/policies/acl/reads", json!({ "policy": r#"path "secret/data/a" { capabilities = ["read"] }"# }))
        .await;
    pair.write("sys/auth/up", json!({ "type": "userpass" })).await;
    pair.write("auth/up/users/anna", json!({ "password": "p" })).await;
    let login = pair.leader.post("auth/up/login/anna", "", json!({ "password": "p" })).await.ok();
    let (token, entity) = (login.token(), login.body["auth"]["entity_id"].clone());
    let reads = async || pair.standby.get("secret/data/a", &token).await.status;
    assert_eq!(reads().await, 403);
    pair.write("identity/group/name/inner", json!({ "member_entity_ids": [entity] })).await;
    let inner = pair.read("identity/group/name/inner").await.ok().data()["id"].clone();
    pair.write("identity/group/name/outer", json!({ "policies": ["reads"], "member_group_ids": [inner] })).await;
    assert_eq!(reads().await, 200);
    for (removed, added) in [
        (("identity/group/name/inner", json!({ "member_entity_ids": [] })), json!({ "member_entity_ids": [entity] })),
        (("identity/group/name/outer", json!({ "member_group_ids": [] })), json!({ "member_group_ids": [inner] })),
        (("identity/group/name/outer", json!({ "policies": [] })), json!({ "policies": ["reads"] })),
    ] {
        pair.write(removed.0, removed.1).await;
        assert_eq!(reads().await, 403, "the next request on the other node, after {}", removed.0);
        pair.write(removed.0, added).await;
        assert_eq!(reads().await, 200);
    }
    let path = format!("identity/entity/id/{}", entity.as_str().unwrap());
    pair.write(&path, json!({ "disabled": true })).await;
    assert_eq!(reads().await, 403);
    pair.write(&path, json!({ "disabled": false })).await;
    assert_eq!(reads().await, 200);
    pair.delete("identity/group/name/outer").await;
    assert_eq!(reads().await, 403);
    pair.write("identity/group/name/inner", json!({ "policies": ["reads"] })).await;
    assert_eq!(reads().await, 200);
    pair.delete(&path).await;
    assert_eq!(reads().await, 403);
    pair.check();
}
