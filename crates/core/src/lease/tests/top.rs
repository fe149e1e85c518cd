//! `sys/leases/top`: which callers issue the most leases; and what engines learn of leases of other mounts.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{HOUR, LeaseFixture, reader};
use crate::sys::lease_top;
use crate::token::create::Spec;

async fn top(fixture: &LeaseFixture, limit: usize) -> Value {
    serde_json::to_value(lease_top::rank(&fixture.unsealed, limit).await.unwrap()).unwrap()
}

/// Creates `count` users of a mount, with a token of this entity.
async fn users(fixture: &LeaseFixture, mount: &str, entity: &str, count: usize) {
    let record = json!({ "id": entity, "name": entity, "namespace": "root", "created": 0 });
    let view = fixture.unsealed.barrier.view("identity/");
    let mut tx = fixture.unsealed.barrier.begin();
    tx.put(&view, &format!("entity/{entity}"), Bytes::from(record.to_string()));
    tx.commit().await.unwrap();
    let spec = Spec { entity_id: entity.into(), ..reader(false, HOUR * 9) };
    let made = fixture.token(None, spec).await;
    for _ in 0..count {
        fixture.user(&made.id, mount).await;
    }
}

fn of(ranked: &Value) -> Vec<(String, u64)> {
    let one = |r: &Value| (r["name"].as_str().unwrap().to_owned(), r["leases"].as_u64().unwrap());
    ranked.as_array().unwrap().iter().map(one).collect()
}

fn ranks(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test]
async fn mounts_paths_and_entities_are_ranked_by_their_leases() {
    let fixture = LeaseFixture::new().await;
    let before = top(&fixture, 20).await;
    users(&fixture, "a", "ada", 7).await;
    users(&fixture, "b", "bob", 3).await;
    users(&fixture, "b", "ada", 2).await;
    let shown = top(&fixture, 20).await;
    // Three tokens and their leases.
    assert_eq!(shown["total"].as_u64().unwrap() - before["total"].as_u64().unwrap(), 15);
    assert_eq!(shown["entities_sampled"], shown["total"]);
    assert_eq!(of(&shown["mounts"])[..2], ranks(&[("a/", 7), ("b/", 5)]));
    assert_eq!(of(&shown["paths"])[..2], ranks(&[("a/creds", 7), ("b/creds", 5)]));
    let entities = of(&shown["entities"]);
    assert!(entities.contains(&("ada".into(), 11)) && entities.contains(&("bob".into(), 4)), "{entities:?}");
    let limited = top(&fixture, 1).await;
    assert_eq!(of(&limited["mounts"]), ranks(&[("a/", 7)]));
    assert_eq!(limited["total"], shown["total"], "a limit shortens the lists and counts all the same");
}

#[tokio::test]
async fn an_unreadable_record_is_counted_for_no_entity() {
    let fixture = LeaseFixture::new().await;
    users(&fixture, "a", "ada", 1).await;
    let (_, broken, _) = fixture.user(&fixture.root, "b").await;
    let token = fixture.token(None, Spec { entity_id: "eve".into(), ..reader(false, HOUR) }).await;
    let view = fixture.unsealed.barrier.view("token/");
    let mut tx = fixture.unsealed.barrier.begin();
    for key in [format!("secret/{}", broken.as_str()), format!("id/{}", token.key.unwrap().as_str())] {
        tx.put(&view, &key, Bytes::from_static(b"{\"path\":7"));
    }
    tx.commit().await.unwrap();
    let shown = top(&fixture, 20).await;
    let entities = of(&shown["entities"]);
    assert!(entities.contains(&("ada".into(), 2)) && !entities.iter().any(|(name, _)| name == "eve"), "{entities:?}");
    assert_eq!(entities.iter().map(|(_, count)| count).sum::<u64>(), shown["total"].as_u64().unwrap());
}

#[tokio::test]
async fn an_engine_sees_the_leases_of_all_mounts_of_its_type() {
    let fixture = LeaseFixture::new().await;
    users(&fixture, "a", "ada", 2).await;
    users(&fixture, "b", "bob", 3).await;
    let user = |lease: &Value| lease["user"].as_str().map(str::to_owned);
    let mut leased = fixture.unsealed.engines.host.services.leased("users", &user).await.unwrap();
    leased.sort();
    assert_eq!(leased, fixture.external.users.lock().iter().cloned().collect::<Vec<_>>());
    assert_eq!(fixture.unsealed.engines.host.services.leased("others", &user).await.unwrap(), Vec::<String>::new());
    let none = fixture.unsealed.engines.host.services.leased("users", &|_: &Value| None).await.unwrap();
    assert_eq!(json!(none), json!([]), "what is not asked for is not told");
}
