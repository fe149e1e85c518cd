//! The state of the server: `sys/config/state/sanitized`, `sys/ha-status`, `sys/version-history`,
//! `sys/internal/counters`, `sys/internal/ui/namespaces`.

use std::collections::BTreeMap;
use std::time::Duration;

use keepfast_framework::reply::Flat;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Error, Keys, Result, Routes, Status};
use keepfast_storage::{Page, View};
use serde::Serialize;
use serde_json::{Value, json};

use super::{System, call, unsealed};
use crate::layout::{ENTITIES, IDENTITY_STORAGE, TOKEN_STORAGE, TOKENS};
use crate::settings::{Settings, TelemetrySettings};
use crate::unsealed::Unsealed;
use crate::versions;

const SANITIZED: Help = Help { synopsis: "The configuration without what is secret.", description: "" };
const HA: Help = Help { synopsis: "The nodes of the cluster.", description: "" };
const VERSIONS: Help = Help { synopsis: "The versions that this storage was unsealed with.", description: "" };
const COUNTERS: Help =
    Help { synopsis: "How many there are.", description: "Every one is looked at: not for polling." };
const REMOVED: Help = Help { synopsis: "Removed: see sys/metrics.", description: "" };
const NAMESPACES: Help = Help { synopsis: "The namespaces that the caller may enter.", description: "" };

/// Names per storage page.
const PAGE: usize = 1000;

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("config/state/sanitized", SANITIZED).read(sanitized);
    r.path("ha-status", HA).read(ha_status);
    r.path("version-history/", VERSIONS).list(version_history);
    r.path("internal/counters/requests", REMOVED).read(removed);
    r.path("internal/counters/tokens", COUNTERS).read(tokens);
    r.path("internal/counters/entities", COUNTERS).read(entities);
    r.path("internal/ui/namespaces", NAMESPACES).read(namespaces).unauthenticated();
}

#[derive(Serialize)]
struct Nodes {
    nodes: [HaNode; 1],
}

#[derive(Serialize)]
struct HaNode {
    hostname: String,
    api_address: String,
    cluster_address: String,
    active_node: bool,
    last_echo: Option<String>,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    upgrade_version: Option<String>,
}

#[derive(Serialize)]
struct Installed {
    commit_date: &'static str,
    previous_version: Option<String>,
    timestamp_installed: String,
}

async fn ha_status(sys: &System, _: &mut Cx, _: Nothing) -> Result<Flat<Nodes>> {
    let server = sys.lifecycle()?;
    let settings = &server.parts.settings;
    let node = HaNode {
        hostname: settings.hostname.clone(),
        api_address: settings.api_addr.clone(),
        cluster_address: settings.cluster_addr.clone(),
        active_node: server.parts.is_active(),
        last_echo: None,
        version: settings.version.clone(),
        upgrade_version: server.parts.role().map(|_| settings.version.clone()),
    };
    Ok(Flat(Nodes { nodes: [node] }))
}

async fn version_history(_: &System, cx: &mut Cx, _: Nothing) -> Result<Keys> {
    let (tx, view) = cx.store();
    let installed = versions::all(tx, view).await?;
    let mut previous = None;
    let mut info = BTreeMap::new();
    let mut keys = Vec::new();
    for (version, at) in installed {
        let shown = Installed {
            commit_date: versions::RELEASED,
            previous_version: previous.replace(version.clone()),
            timestamp_installed: at.rfc3339_seconds(),
        };
        info.insert(version.clone(), shown);
        keys.push(version);
    }
    Keys::with_info(keys, &info)
}

async fn removed(_: &System, _: &mut Cx, _: Nothing) -> Result<()> {
    Err(Error::new(Status::NOT_FOUND, "The functionality has been removed on this path"))
}

async fn namespaces(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<Value>> {
    call(cx)?.token.as_ref().ok_or_else(Error::denied)?;
    Ok(Data(json!({})))
}

async fn tokens(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<Value>> {
    let unsealed = unsealed(cx)?;
    let total = records(&unsealed, &unsealed.barrier.view(TOKEN_STORAGE), TOKENS).await?;
    Ok(Data(json!({ "counters": { "service_tokens": { "total": total } } })))
}

async fn entities(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<Value>> {
    let unsealed = unsealed(cx)?;
    let total = records(&unsealed, &unsealed.barrier.view(IDENTITY_STORAGE), ENTITIES).await?;
    Ok(Data(json!({ "counters": { "entities": { "total": total } } })))
}

/// The number of records in a folder.
async fn records(unsealed: &Unsealed, view: &View, folder: &str) -> Result<usize> {
    let mut tx = unsealed.barrier.begin_read();
    let mut page = Page { after: None, limit: Some(PAGE) };
    let mut total = 0;
    loop {
        let names = tx.list(view, folder, &page).await?;
        total += names.len();
        if names.len() < PAGE {
            return Ok(total);
        }
        page.after = names.last().cloned();
    }
}

async fn sanitized(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<Value>> {
    Ok(Data(shown(&unsealed(cx)?.settings)))
}

fn shown(settings: &Settings) -> Value {
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
    let mut shown = json!({
        "api_addr": settings.api_addr,
        "audits": audits,
        "cluster_addr": settings.cluster_addr,
        "cluster_name": settings.cluster_name,
        "default_lease_ttl": unless_standard(settings.default_lease_ttl),
        "introspection_endpoint": settings.introspection_endpoint,
        "listeners": listeners,
        "log_level": settings.log_level,
        "max_lease_ttl": unless_standard(settings.max_lease_ttl),
        "disable_ssct_tokens": true,
        "raw_storage_endpoint": false,
        "seals": [{ "type": settings.seal.name(), "disabled": false }],
        "storage": {
            "type": settings.storage_type,
            "cluster_addr": settings.cluster_addr,
            "redirect_addr": settings.api_addr,
            "disable_clustering": false,
        },
        "unsafe_allow_api_audit_creation": false,
    });
    if let Value::Object(all) = &mut shown {
        if settings.telemetry.is_given {
            all.insert("telemetry".to_owned(), telemetry(&settings.telemetry));
        }
        all.extend(NOT_SET.iter().map(|&(name, value)| (name.to_owned(), value.shown())));
    }
    shown
}

/// A TTL in seconds; zero for the default of the server.
fn unless_standard(life: Duration) -> u64 {
    if life == Settings::default().default_lease_ttl { 0 } else { life.as_secs() }
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
    fn shown(self) -> Value {
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
    ("disable_sealwrap", Unset::No),
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
