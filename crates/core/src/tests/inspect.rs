//! What the server shows of its router and of the requests under way.

use serde_json::json;

use crate::tests::fixture::{House, ROOT};

const TAGS: [&str; 4] = ["root", "uuid", "accessor", "storage"];

fn path(tag: &str) -> String {
    format!("sys/internal/inspect/router/{tag}")
}

#[tokio::test]
async fn the_tables_of_the_router_are_shown_where_the_configuration_says_so() {
    let house = House::with(|settings, _| settings.introspection_endpoint = true, keepfast_engines::all()).await;
    for tag in TAGS {
        let answer = house.get(&path(tag), ROOT).await.ok();
        let entries = answer.data()[tag].as_array().unwrap();
        let token = entries.iter().find(|entry| entry["mount_type"] == "token").unwrap();
        assert_eq!((&token["mount_path"], &token["mount_namespace"]), (&json!("token/"), &json!("")));
        let is_whole = matches!(tag, "root" | "storage");
        assert_eq!(token["storage_prefix"], if is_whole { json!("token/") } else { json!(null) }, "{tag}");
        assert_eq!(token["tainted"], if is_whole { json!(false) } else { json!(null) }, "{tag}");
        if !is_whole {
            let keys: Vec<&str> = entries.iter().map(|entry| entry[tag].as_str().unwrap()).collect();
            assert!(keys.is_sorted(), "{keys:?}");
        }
    }
    house.get(&path("nope"), ROOT).await.is(404);
}

#[tokio::test]
async fn without_the_setting_only_unknown_tables_are_told_apart() {
    let house = House::new().await;
    let refused = house.get(&path("root"), ROOT).await.is(400);
    assert!(refused.error().contains("introspection_endpoint"), "{refused:?}");
    house.get(&path("nope"), ROOT).await.is(404);
}

#[tokio::test]
async fn a_request_under_way_is_shown_without_its_token() {
    let house = House::new().await;
    let shown = house.get("sys/in-flight-req", ROOT).await.ok();
    let requests: Vec<_> = shown.body.as_object().unwrap().values().collect();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0]["request_path"], "/v1/sys/in-flight-req");
    // The hash of the policies of a root token, as OpenBao forms it.
    assert_eq!(requests[0]["client_id"], "0DHqvq2D77kL2/JTPSZkTMJbkFVmUu0TzMi0jiXcFy8=");
    assert!(!shown.body.to_string().contains(ROOT));
    assert_eq!(house.node.unsealed().unwrap().in_flight.count(), 0);
}
