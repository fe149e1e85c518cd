//! The settings of a mount, for enabling and tuning.

use keepfast_client::duration;
use serde_json::{Map, Value, json};

use crate::args::{Flag, FlagSet, Kind, Words};

/// Settings of secrets engines and auth methods.
pub(super) const SHARED: FlagSet = FlagSet {
    title: "Settings",
    flags: &[
        Flag::new("allowed-response-headers", Kind::List, "A response header that the mount may set; may be repeated."),
        Flag::new(
            "audit-non-hmac-request-keys",
            Kind::List,
            "A request field without HMAC in the audit log; may be repeated.",
        ),
        Flag::new(
            "audit-non-hmac-response-keys",
            Kind::List,
            "A response field without HMAC in the audit log; may be repeated.",
        ),
        Flag::new("default-lease-ttl", Kind::Duration, "The default TTL of its leases."),
        Flag::new("description", Kind::Text, "A description."),
        Flag::new(
            "listing-visibility",
            Kind::Text,
            "unauth: also list it for callers without a token. hidden: do not.",
        ),
        Flag::new("max-lease-ttl", Kind::Duration, "The maximum TTL of its leases."),
        Flag::new("options", Kind::Pairs, "A mount option; may be repeated."),
        Flag::new(
            "passthrough-request-headers",
            Kind::List,
            "A request header that the mount receives; may be repeated.",
        ),
        Flag::new("plugin-version", Kind::Text, "The plugin version."),
        Flag::new("version", Kind::Int, "The version of the engine: 1 or 2 for kv."),
    ],
};

/// Only auth methods issue tokens.
pub(super) const TOKEN_TYPE: Flag =
    Flag::new("token-type", Kind::Text, "The type of its tokens: default-service, default-batch, service, batch.");

/// Flags that are copied to a field of the configuration.
const TEXTS: &[(&str, &str)] =
    &[("listing-visibility", "listing_visibility"), ("token-type", "token_type"), ("plugin-version", "plugin_version")];
const DURATIONS: &[(&str, &str)] = &[("default-lease-ttl", "default_lease_ttl"), ("max-lease-ttl", "max_lease_ttl")];
const LISTS: &[(&str, &str)] = &[
    ("allowed-response-headers", "allowed_response_headers"),
    ("audit-non-hmac-request-keys", "audit_non_hmac_request_keys"),
    ("audit-non-hmac-response-keys", "audit_non_hmac_response_keys"),
    ("passthrough-request-headers", "passthrough_request_headers"),
];

/// The configuration from the flags.
pub(super) fn config(words: &Words) -> Map<String, Value> {
    let texts = TEXTS.iter().filter_map(|(flag, field)| Some((*field, json!(words.text(flag)?))));
    let durations =
        DURATIONS.iter().filter_map(|(flag, field)| Some((*field, json!(duration::format(words.duration(flag)?)))));
    let lists = LISTS.iter().filter(|(flag, _)| words.has(flag)).map(|(flag, field)| (*field, json!(words.list(flag))));
    texts.chain(durations).chain(lists).map(|(field, value)| (field.to_owned(), value)).collect()
}

/// The options from the flags; `-version` is one.
pub(super) fn options(words: &Words) -> Option<Value> {
    let mut options = words.pairs("options");
    if let Some(version) = words.int("version") {
        options.insert("version".to_owned(), version.to_string().into());
    }
    (!options.is_empty()).then_some(Value::Object(options))
}
