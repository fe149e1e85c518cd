//! The response type of a mount.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::mount::{LockoutConfig, MountConfig, MountEntry, Mounted};
use crate::version_history::BUILT_IN;

/// A mount in the responses of `sys/mounts` and `sys/auth`.
#[derive(Serialize)]
pub(super) struct MountResponse {
    accessor: String,
    config: MountConfigResponse,
    #[serde(skip_serializing_if = "Option::is_none")]
    deprecation_status: Option<&'static str>,
    description: String,
    external_entropy_access: bool,
    local: bool,
    options: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    plugin_version: String,
    running_plugin_version: &'static str,
    running_sha256: &'static str,
    seal_wrap: bool,
    #[serde(rename = "type")]
    engine: String,
    uuid: String,
}

#[derive(Serialize)]
struct MountConfigResponse {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed_response_headers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    audit_non_hmac_request_keys: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    audit_non_hmac_response_keys: Vec<String>,
    default_lease_ttl: u64,
    force_no_cache: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    listing_visibility: String,
    max_lease_ttl: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    passthrough_request_headers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_lockout_config: Option<LockoutResponse>,
}

/// The tuned lockout settings of a mount in a response.
#[derive(Serialize)]
pub(super) struct LockoutResponse {
    user_lockout_counter_reset_duration: u64,
    user_lockout_disable: bool,
    user_lockout_duration: u64,
    user_lockout_threshold: u64,
}

impl From<&LockoutConfig> for LockoutResponse {
    fn from(config: &LockoutConfig) -> Self {
        LockoutResponse {
            user_lockout_counter_reset_duration: config.counter_reset,
            user_lockout_disable: config.disable,
            user_lockout_duration: config.duration,
            user_lockout_threshold: config.threshold,
        }
    }
}

impl MountResponse {
    /// The response of a mount; `path` only where the API has it.
    pub(super) fn new(mounted: &Mounted, path: Option<String>) -> Self {
        let (entry, traits) = (&mounted.entry, &mounted.traits);
        let is_former = traits.former_type == Some(entry.engine.as_str());
        let without_status = traits.built_in.is_some() || !(traits.plugins)().is_empty() || is_former;
        MountResponse {
            accessor: entry.accessor.clone(),
            config: config(entry),
            deprecation_status: (!without_status).then_some("supported"),
            description: entry.description.clone(),
            external_entropy_access: entry.external_entropy_access,
            local: entry.local,
            options: entry.options.clone(),
            path,
            plugin_version: entry.config.plugin_version.clone(),
            running_plugin_version: BUILT_IN,
            running_sha256: "",
            seal_wrap: entry.seal_wrap,
            engine: mounted.shown_type().into_owned(),
            uuid: entry.uuid.clone(),
        }
    }
}

fn config(entry: &MountEntry) -> MountConfigResponse {
    let MountConfig {
        default_lease_ttl,
        max_lease_ttl,
        force_no_cache,
        audit_non_hmac_request_keys,
        audit_non_hmac_response_keys,
        listing_visibility,
        passthrough_request_headers,
        allowed_response_headers,
        token_type,
        user_lockout,
        ..
    } = entry.config.clone();
    MountConfigResponse {
        allowed_response_headers,
        audit_non_hmac_request_keys,
        audit_non_hmac_response_keys,
        default_lease_ttl,
        force_no_cache,
        listing_visibility,
        max_lease_ttl,
        passthrough_request_headers,
        token_type: entry.auth.then(|| token_type.name()),
        user_lockout_config: user_lockout.as_ref().map(LockoutResponse::from),
    }
}
