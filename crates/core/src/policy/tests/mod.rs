//! The rows of the security register on policies, each by its name, and the fast matcher against the naive one.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod conditions;
mod control_groups;
mod differential;
mod expiry;
mod precedence;
mod templates;
mod text;
mod values;

use std::collections::BTreeMap;

use keepfast_framework::{Operation, Timestamp};
use serde_json::{Value, json};

use super::grant::{Capabilities, Capability};
use super::parse::PathRule;
use super::template::{Alias, Entity, Group, Subject};
use super::*;

const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);

fn policy(text: &str) -> Policy {
    parse("test", text).unwrap()
}

fn acl(texts: &[&str]) -> Acl {
    let policies: Vec<_> = texts.iter().map(|text| policy(text)).collect();
    Acl::compile(&policies, &Subject::default())
}

fn ask(acl: &Acl, operation: Operation, path: &str, parameters: &Value) -> Decision {
    let parameters = || parameters.as_object().cloned();
    acl.allow(&AclRequest {
        path,
        operation,
        creates: false,
        parameters: &parameters,
        declared: None,
        wrap_ttl: None,
        now: NOW,
    })
}

fn allowed(acl: &Acl, operation: Operation, path: &str) -> bool {
    ask(acl, operation, path, &json!({})).allowed
}

fn can(texts: &[&str], path: &str) -> String {
    acl(texts).capabilities(path, NOW).join(",")
}

fn subject(value: &str) -> Subject {
    let metadata = BTreeMap::from([("k".to_owned(), value.to_owned())]);
    Subject {
        entity: Some(Entity { id: value.to_owned(), name: value.to_owned(), metadata: metadata.clone() }),
        alias: Some(Alias {
            mount_accessor: "auth_userpass_1".to_owned(),
            id: value.to_owned(),
            name: value.to_owned(),
            metadata: metadata.clone(),
            custom_metadata: metadata.clone(),
        }),
        groups: vec![Group { id: "g-1".to_owned(), name: "dev.ops".to_owned(), metadata }],
    }
}
