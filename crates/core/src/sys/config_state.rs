//! `sys/config/state/sanitized`: the effective configuration without its secrets.

use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Result, Routes};
use serde_json::{Value, json};

use super::{System, unsealed};
use crate::seal::record::SHAMIR;
use crate::seal::{SealAccess, Seals};
use crate::settings::{Settings, TelemetrySettings};

const HELP: Help = Help { synopsis: "Returns the configuration of the server without its secrets.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("config/state/sanitized", HELP).read(sanitized).root_only();
}

async fn sanitized(sys: &System, cx: &mut Cx, _: Nothing) -> Result<Data<Value>> {
    Ok(Data(document(&unsealed(cx)?.settings, &seals(&sys.lifecycle()?.seals))))
}

/// The stanzas of the seals; without any, the seal is that of unseal keys.
fn seals(seals: &Seals) -> Vec<Value> {
    let shown = |access: &Arc<SealAccess>| {
        let configured = &access.configured;
        json!({ "type": access.kind(), "name": configured.name, "disabled": configured.disabled, "priority": configured.priority })
    };
    match &*seals.all() {
        [] => vec![json!({ "type": SHAMIR, "disabled": false })],
        all => all.iter().map(shown).collect(),
    }
}

fn document(settings: &Settings, seals: &[Value]) -> Value {
    let listeners: Vec<Value> = settings
        .listeners
        .iter()
        .map(|l| json!({ "type": l.kind, "config": { "address": l.address, "tls_disable": l.tls_disable } }))
        .collect();
    let audits: Vec<Value> = settings
        .audit
        .iter()
        .map(|a| json!({ "type": a.device, "path": format!("{}/", a.name), "description": a.description }))
        .collect();
    let mut document = json!({
        "api_addr": settings.api_addr,
        "audits": audits,
        "cluster_addr": settings.cluster_addr,
        "cluster_name": settings.cluster_name,
        "default_lease_ttl": unless_default(settings.default_lease_ttl),
        "introspection_endpoint": settings.introspection_endpoint,
        "listeners": listeners,
        "log_level": settings.log_level,
        "max_lease_ttl": unless_default(settings.max_lease_ttl),
        "disable_sealwrap": settings.disable_sealwrap,
        "disable_ssct_tokens": true,
        "raw_storage_endpoint": false,
        "seals": seals,
        "storage": {
            "type": settings.storage_type,
            "cluster_addr": settings.cluster_addr,
            "redirect_addr": settings.api_addr,
            "disable_clustering": false,
        },
        "unsafe_allow_api_audit_creation": false,
    });
    if let Value::Object(all) = &mut document {
        if settings.telemetry.is_given {
            all.insert("telemetry".to_owned(), telemetry(&settings.telemetry));
        }
        all.extend(NOT_SET.iter().map(|&(name, value)| (name.to_owned(), value.value())));
    }
    document
}

/// A TTL in seconds; zero for the default of the server.
fn unless_default(ttl: Duration) -> u64 {
    if ttl == Settings::default().default_lease_ttl { 0 } else { ttl.as_secs() }
}

fn telemetry(settings: &TelemetrySettings) -> Value {
    json!({
        "disable_hostname": settings.disable_hostname,
        "metrics_prefix": settings.prefix,
        "prometheus_retention_time": u64::try_from(settings.prometheus_retention.as_nanos()).unwrap_or(u64::MAX),
    })
}

/// The value in responses of a key of Vault's configuration that this server does not have.
#[derive(Clone, Copy)]
enum Unset {
    No,
    Zero,
    Empty,
}

impl Unset {
    fn value(self) -> Value {
        match self {
            Unset::No => Value::from(false),
            Unset::Zero => Value::from(0),
            Unset::Empty => Value::from(""),
        }
    }
}

/// Keys of Vault's configuration that clients look for.
const NOT_SET: &[(&str, Unset)] = &[
    ("allow_audit_log_prefixing", Unset::No),
    ("cache_size", Unset::Zero),
    ("cluster_cipher_suites", Unset::Empty),
    ("default_max_request_duration", Unset::Zero),
    ("detect_deadlocks", Unset::Empty),
    ("disable_cache", Unset::No),
    ("disable_clustering", Unset::No),
    ("disable_indexing", Unset::No),
    ("disable_performance_standby", Unset::No),
    ("disable_printable_check", Unset::No),
    ("disable_sentinel_trace", Unset::No),
    ("disable_standby_reads", Unset::No),
    ("enable_response_header_hostname", Unset::No),
    ("enable_response_header_raft_node_id", Unset::No),
    ("enable_ui", Unset::No),
    ("imprecise_lease_role_tracking", Unset::No),
    ("log_format", Unset::Empty),
    ("log_requests_level", Unset::Empty),
    ("pid_file", Unset::Empty),
    ("plugin_directory", Unset::Empty),
    ("plugin_file_permissions", Unset::Zero),
    ("plugin_file_uid", Unset::Zero),
    ("unsafe_cross_namespace_identity", Unset::No),
    ("unsafe_relative_paths", Unset::No),
    ("allow_unauthenticated_workflows", Unset::No),
];
