//! What can be set when something is mounted, and tuned later.

use keepfast_client::duration;
use serde_json::{Map, Value, json};

use crate::args::{Flag, FlagSet, Kind, Words};

/// Settings of both engines and auth methods.
pub(super) const SHARED: FlagSet = FlagSet {
    title: "Settings",
    flags: &[
        Flag::new("allowed-response-headers", Kind::List, "A response header that it may set; may be repeated."),
        Flag::new(
            "audit-non-hmac-request-keys",
            Kind::List,
            "A request field that the audit log shows in the clear; may be repeated.",
        ),
        Flag::new(
            "audit-non-hmac-response-keys",
            Kind::List,
            "A response field that the audit log shows in the clear; may be repeated.",
        ),
        Flag::new("default-lease-ttl", Kind::Duration, "How long its leases last when nothing else is asked for."),
        Flag::new("description", Kind::Text, "What it is for."),
        Flag::new(
            "listing-visibility",
            Kind::Text,
            "unauth: list it also for callers without a token. hidden: do not.",
        ),
        Flag::new("max-lease-ttl", Kind::Duration, "How long its leases may last."),
        Flag::new("options", Kind::Pairs, "An option of its own; may be repeated."),
        Flag::new("passthrough-request-headers", Kind::List, "A request header that it gets to see; may be repeated."),
        Flag::new("plugin-version", Kind::Text, "The version of the plugin to run."),
        Flag::new("version", Kind::Int, "The version of the engine; kv has 1 and 2."),
    ],
};

/// Only auth methods give tokens.
pub(super) const TOKEN_TYPE: Flag =
    Flag::new("token-type", Kind::Text, "The type of token it gives: default-service, default-batch, service, batch.");

/// Flags that are a field of the configuration as they are.
const TEXTS: &[(&str, &str)] =
    &[("listing-visibility", "listing_visibility"), ("token-type", "token_type"), ("plugin-version", "plugin_version")];
const DURATIONS: &[(&str, &str)] = &[("default-lease-ttl", "default_lease_ttl"), ("max-lease-ttl", "max_lease_ttl")];
const LISTS: &[(&str, &str)] = &[
    ("allowed-response-headers", "allowed_response_headers"),
    ("audit-non-hmac-request-keys", "audit_non_hmac_request_keys"),
    ("audit-non-hmac-response-keys", "audit_non_hmac_response_keys"),
    ("passthrough-request-headers", "passthrough_request_headers"),
];

/// The configuration that flags give.
pub(super) fn config(words: &Words) -> Map<String, Value> {
    let texts = TEXTS.iter().filter_map(|(flag, field)| Some((*field, json!(words.text(flag)?))));
    let durations =
        DURATIONS.iter().filter_map(|(flag, field)| Some((*field, json!(duration::format(words.duration(flag)?)))));
    let lists = LISTS.iter().filter(|(flag, _)| words.has(flag)).map(|(flag, field)| (*field, json!(words.list(flag))));
    texts.chain(durations).chain(lists).map(|(field, value)| (field.to_owned(), value)).collect()
}

/// The options that flags give; `-version` is one.
pub(super) fn options(words: &Words) -> Option<Value> {
    let mut options = words.pairs("options");
    if let Some(version) = words.int("version") {
        options.insert("version".to_owned(), version.to_string().into());
    }
    (!options.is_empty()).then_some(Value::Object(options))
}
