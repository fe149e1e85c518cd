//! Stored formats: records of earlier versions stay readable. A change of a format adds a file and changes none.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::auth::approle::role::Role;
use crate::auth::approle::secret_id::{Accessor, Expiry, SecretId, moment};

/// Reads a golden file and checks that encoding the value again loses nothing.
fn golden<T: Serialize + DeserializeOwned>(text: &str) -> T {
    let read: T = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    read
}

#[test]
fn records_of_version_1_are_read() {
    let role: Role = golden(include_str!("golden/role.v1.json"));
    assert_eq!((role.cidrs(), role.token.token_ttl), (&["10.0.0.0/8".to_owned()][..], 60));
    let secret_id: SecretId = golden(include_str!("golden/secret_id.v1.json"));
    assert_eq!(secret_id.expires.map(|t| t.rfc3339()).as_deref(), Some("2026-01-01T01:00:00Z"));
    let accessor: Accessor = golden(include_str!("golden/accessor.v1.json"));
    assert_eq!(accessor.expires, secret_id.expires);
    let expiry: Expiry = golden(include_str!("golden/expiry.v1.json"));
    assert_eq!(expiry.accessor, secret_id.accessor);
    assert_eq!(moment("188675981eb2a000.x").map(|t| t.unix()), Some(1_767_229_200));
}

#[test]
fn missing_fields_of_a_record_have_defaults() {
    let role: Role = serde_json::from_value(json!({ "role_id": "a", "store": "b", "bind_secret_id": true })).unwrap();
    assert_eq!((role.secret_id_bound_cidrs, role.secret_id_num_uses), (None, 0));
    assert_eq!(serde_json::from_value::<SecretId>(json!({})).unwrap(), SecretId::default());
}
