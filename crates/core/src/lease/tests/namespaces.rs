//! A lease of another namespace is not found.

use serde_json::Value;

use super::LeaseFixture;
use crate::namespace::NamespaceId;

#[tokio::test]
async fn sec_ns03_a_lease_of_another_namespace_is_not_found() {
    let fixture = LeaseFixture::new().await;
    let leases = &fixture.unsealed.leases.store;
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    let record = leases.at(&NamespaceId::root(), &path, &id).await.unwrap().unwrap();
    assert_eq!(record.namespace, NamespaceId::root());
    let mut moved = serde_json::to_value(&record).unwrap();
    assert_eq!(moved.get("namespace"), None, "leases of the root namespace are stored as before");
    moved["namespace"] = Value::from("other");
    let mut tx = fixture.unsealed.barrier.begin();
    let key = format!("secret/{}", id.as_str());
    tx.put(&leases.view, &key, moved.to_string().into());
    tx.commit().await.unwrap();
    assert!(leases.at(&NamespaceId::root(), &path, &id).await.unwrap().is_none());
}
