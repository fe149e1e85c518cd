//! Tokens: how they are made, what they may do, when they end.

use serde_json::json;

use crate::fixture::{House, ROOT};

#[tokio::test]
async fn a_token_is_made_looked_up_renewed_and_revoked_in_every_form() {
    let house = House::new().await;
    let made = house.post("auth/token/create", ROOT, json!({ "policies": ["default"], "ttl": "1h", "meta": { "a": "b" } })).await.ok();
    assert_eq!(made.body["auth"]["lease_duration"], 3600);
    let (token, accessor) = (made.token(), made.accessor());
    for looked in [
        house.get("auth/token/lookup-self", &token).await,
        house.post("auth/token/lookup", ROOT, json!({ "token": token })).await,
        house.post("auth/token/lookup-accessor", ROOT, json!({ "accessor": accessor })).await,
    ] {
        let looked = looked.ok();
        assert_eq!(looked.data()["accessor"], accessor);
        assert_eq!(looked.data()["meta"], json!({ "a": "b" }));
        assert_eq!(looked.data()["ttl"], 3600);
    }
}
