//! The token in an entry: the caller's, or a new one.

use keepfast_crypto::hmac::HmacKey;
use keepfast_framework::reply::AuthBlock;

use super::entry::{Format, Writer};
use super::entry_size::Extent;
use super::token_members::TokenMembers;
use crate::token::TokenRecord;

impl TokenMembers {
    /// A token with this text, for the device with this key and format.
    pub(crate) fn new(text: &str, token: &TokenRecord, key: &HmacKey, format: &Format) -> Self {
        let written = |write: &dyn Fn(&mut Writer<'_>)| {
            let mut out = Vec::new();
            write(&mut Writer { key, format, extent: Extent::Token, out: &mut out });
            out.into_boxed_slice()
        };
        TokenMembers {
            token: written(&|w| w.hashed(text)),
            accessor: written(&|w| w.accessor_value(&token.accessor)),
            before_policies: written(&|w| before_policies(text, token, w)),
            policies: written(&|w| w.field("policies", &token.authority.names())),
            after_policies: written(&|w| after_policies(token, w)),
            client: written(&|w| w.json(&token.client_id())),
        }
    }
}

fn before_policies(text: &str, token: &TokenRecord, w: &mut Writer<'_>) {
    w.raw("\"token_type\":");
    w.json(token.kind());
    w.secret("client_token", text);
    w.accessor("accessor", &token.accessor);
    w.field("display_name", &token.display_name);
    w.field("token_policies", &token.authority.names());
}

/// The members of `auth` for a new token.
pub(super) fn issued(auth: &AuthBlock, w: &mut Writer<'_>) {
    w.raw("\"token_type\":");
    w.json(auth.token_type);
    w.secret("client_token", auth.client_token.expose());
    w.accessor("accessor", &auth.accessor);
    w.field("display_name", &auth.display_name);
    w.field("policies", &auth.policies);
    w.field("token_policies", &auth.token_policies);
    if !auth.identity_policies.is_empty() {
        w.field("identity_policies", &auth.identity_policies);
    }
    if let Some(metadata) = auth.metadata.as_ref().filter(|metadata| !metadata.is_empty()) {
        w.field("metadata", metadata);
    }
    if auth.num_uses > 0 {
        w.field("num_uses", &auth.num_uses);
    }
    if !auth.entity_id.is_empty() {
        w.field("entity_id", &auth.entity_id);
    }
    if auth.entity_created {
        w.raw(",\"entity_created\":true");
    }
    if auth.no_default_policy {
        w.raw(",\"no_default_policy\":true");
    }
    if auth.lease_duration > 0 {
        w.field("token_ttl", &auth.lease_duration);
    }
}

fn after_policies(token: &TokenRecord, w: &mut Writer<'_>) {
    if !token.meta.is_empty() {
        w.field("metadata", &token.meta);
    }
    if !token.entity_id.is_empty() {
        w.field("entity_id", &token.entity_id);
    }
    if token.num_uses > 0 {
        w.field("remaining_uses", &token.num_uses);
    }
    if token.creation_ttl > 0 {
        w.field("token_ttl", &token.creation_ttl);
    }
    w.field("token_issue_time", &token.created.rfc3339_seconds());
}
