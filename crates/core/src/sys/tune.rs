//! `sys/mounts/{path}/tune` and `sys/auth/{path}/tune`.

use std::collections::BTreeMap;

use keepfast_framework::engine::Registry;
use keepfast_framework::fields::{CommaList, Object, Pairs, Text};
use keepfast_framework::reply::Flat;
use keepfast_framework::routes::Help;
use keepfast_framework::{Cx, Error, Kind, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mount_response::LockoutResponse;
use super::mounts::{lease_text, mount_token_kind, visibility};
use super::{System, plugin_version, reserved_paths, unsealed};
use crate::mount::{MountEntry, mount_path};
use crate::unsealed::Unsealed;

const TUNE: Help = Help { synopsis: "Reads or changes the settings of a mount.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("mounts/{path...}/tune", TUNE).name_may_end_in_slash().read(read_secrets).update(tune_secrets);
    r.path("auth/{path...}/tune", TUNE).name_may_end_in_slash().read(read_auth).update(tune_auth).sudo();
}

#[derive(Deserialize, JsonSchema)]
struct MountPath {
    /// Path of the mount.
    path: Text,
}

#[derive(Deserialize, JsonSchema)]
struct Tune {
    /// Path of the mount.
    path: Text,
    /// Default TTL of leases, in seconds; `system` for that of the server.
    default_lease_ttl: Option<Text>,
    /// Maximum TTL of leases, in seconds; `system` for that of the server.
    max_lease_ttl: Option<Text>,
    /// Description of the mount.
    description: Option<Text>,
    /// Comma-separated request fields that audit entries contain without HMAC.
    audit_non_hmac_request_keys: Option<CommaList>,
    /// Comma-separated response fields that audit entries contain without HMAC.
    audit_non_hmac_response_keys: Option<CommaList>,
    /// Whether callers without a token see the mount: `unauth`, `hidden` or empty.
    listing_visibility: Option<Text>,
    /// Comma-separated request headers that are passed to the engine.
    passthrough_request_headers: Option<CommaList>,
    /// Comma-separated response headers that the engine can set.
    allowed_response_headers: Option<CommaList>,
    /// Type of the tokens of logins: `default-service`, `default-batch`, `service` or `batch`.
    token_type: Option<Text>,
    /// Options of the engine.
    options: Option<Pairs>,
    /// Version of the plugin; only the built-in version exists.
    plugin_version: Option<Text>,
    /// User lockout: `lockout_threshold`, `lockout_duration`, `lockout_counter_reset_duration`, `lockout_disable`.
    user_lockout_config: Option<Object>,
}

#[derive(Serialize)]
struct TuneResponse {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed_response_headers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    audit_non_hmac_request_keys: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    audit_non_hmac_response_keys: Vec<String>,
    default_lease_ttl: u64,
    description: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    external_entropy_access: bool,
    force_no_cache: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    listing_visibility: String,
    max_lease_ttl: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    options: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    passthrough_request_headers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    #[serde(flatten)]
    lockout: Option<LockoutResponse>,
}

async fn read_secrets(_: &System, cx: &mut Cx, req: MountPath) -> Result<Flat<TuneResponse>> {
    read(&*unsealed(cx)?, &mount_path(Kind::Secrets, &req.path))
}

async fn read_auth(_: &System, cx: &mut Cx, req: MountPath) -> Result<Flat<TuneResponse>> {
    read(&*unsealed(cx)?, &mount_path(Kind::Auth, &req.path))
}

fn read(unsealed: &Unsealed, path: &str) -> Result<Flat<TuneResponse>> {
    let router = unsealed.engines.mounts.router();
    let mounted = router.at(path).ok_or_else(|| Error::invalid(format!("cannot fetch sysview for path {path:?}")))?;
    let (entry, ttl) = (&mounted.entry, mounted.info.ttl);
    let config = entry.config.clone();
    Ok(Flat(TuneResponse {
        allowed_response_headers: config.allowed_response_headers,
        audit_non_hmac_request_keys: config.audit_non_hmac_request_keys,
        audit_non_hmac_response_keys: config.audit_non_hmac_response_keys,
        default_lease_ttl: ttl.default.as_secs(),
        description: entry.description.clone(),
        external_entropy_access: entry.external_entropy_access,
        force_no_cache: config.force_no_cache,
        listing_visibility: config.listing_visibility,
        max_lease_ttl: ttl.max.as_secs(),
        options: entry.options(),
        passthrough_request_headers: config.passthrough_request_headers,
        token_type: entry.auth.then(|| config.token_type.name()),
        lockout: config.user_lockout.as_ref().map(LockoutResponse::from),
    }))
}

async fn tune_secrets(_: &System, cx: &mut Cx, req: Tune) -> Result<()> {
    let unsealed = unsealed(cx)?;
    let path = mount_path(Kind::Secrets, &req.path);
    // Command-line clients tune auth methods here too, as `sys/mounts/auth/PATH/tune`.
    let registry = unsealed.engines.mounts.registry();
    refuse_token_type(registry, &path, &req)?;
    refuse_untunable(registry, &path, &req)?;
    let is_secrets = unsealed.engines.mounts.router().at(&path).is_some_and(|mounted| !mounted.entry.auth);
    if req.token_type.is_some() && is_secrets {
        return Err(Error::invalid("'token_type' can only be modified on auth mounts"));
    }
    let version = || {
        let entry = unsealed.engines.mounts.router().at(&path)?.entry.clone();
        let is_versioned = registry.find(entry.kind(), &entry.engine, &entry.options())?.version().is_some();
        Some((is_versioned, entry.options().remove("version")))
    };
    let before = version();
    tune(&unsealed, Kind::Secrets, req).await?;
    if let (Some((true, old)), Some((_, Some(new)))) = (before, version())
        && old.as_deref() != Some("2")
        && new == "2"
    {
        cx.warn("Upgrading mount from version 1 to version 2. The mount stays available; what it holds is converted as it is used.");
    }
    Ok(())
}

async fn tune_auth(_: &System, cx: &mut Cx, req: Tune) -> Result<()> {
    let unsealed = unsealed(cx)?;
    refuse_token_type(unsealed.engines.mounts.registry(), &mount_path(Kind::Auth, &req.path), &req)?;
    tune(&unsealed, Kind::Auth, req).await
}

/// Refuses `token_type` for the token method, whose requests and roles set the type.
fn refuse_token_type(registry: &Registry, path: &str, req: &Tune) -> Result<()> {
    if req.token_type.is_some() && reserved_paths::is_built_in(registry, Kind::Auth, path) {
        return Err(Error::invalid("'token_type' cannot be set for 'token' or 'ns_token' auth mounts"));
    }
    Ok(())
}

/// Refuses all fields but the audit ones for the built-in mounts.
fn refuse_untunable(registry: &Registry, path: &str, req: &Tune) -> Result<()> {
    if !reserved_paths::is_built_in(registry, Kind::Secrets, path) {
        return Ok(());
    }
    let given = [
        ("plugin_version", req.plugin_version.is_some()),
        ("options", req.options.is_some()),
        ("listing_visibility", req.listing_visibility.is_some()),
        ("description", req.description.is_some()),
        ("default_lease_ttl", req.default_lease_ttl.is_some()),
        ("max_lease_ttl", req.max_lease_ttl.is_some()),
        ("token_type", req.token_type.is_some()),
        ("passthrough_request_headers", req.passthrough_request_headers.is_some()),
        ("allowed_response_headers", req.allowed_response_headers.is_some()),
        ("user_lockout_config", req.user_lockout_config.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Error::invalid(format!("cannot tune parameter {name} of {path}"))),
        None => Ok(()),
    }
}

async fn tune(unsealed: &Unsealed, kind: Kind, req: Tune) -> Result<()> {
    let path = mount_path(kind, &req.path);
    let locks_out = unsealed.engines.mounts.router().at(&path).is_some_and(|mounted| mounted.traits.locks_out);
    let changed = unsealed.engines.changes.change_mount(&path, |entry| {
        apply(entry, req, locks_out)?;
        // As on OpenBao, only the values of the mount itself are compared; every TTL is bounded by both anyway.
        let (default, max) = (entry.config.default_lease_ttl, entry.config.max_lease_ttl);
        if max > 0 && default > max {
            return Err(Error::invalid(format!(
                "backend max lease TTL of {max} would be less than backend default lease TTL of {default}"
            )));
        }
        Ok(())
    });
    changed.await?.ok_or_else(|| Error::invalid(format!("tune of path {path:?} failed: no mount entry found")))
}

fn apply(entry: &mut MountEntry, req: Tune, locks_out: bool) -> Result<()> {
    if let Some(version) = &req.plugin_version {
        let version = plugin_version::canonical(version)?;
        return Err(Error::invalid(format!("plugin not found in the catalog: {}, version={version}", entry.engine)));
    }
    let config = &mut entry.config;
    // Command-line clients send an empty text for a flag that was not given; it keeps the bound.
    for (name, text, bound) in [
        ("default_lease_ttl", &req.default_lease_ttl, &mut config.default_lease_ttl),
        ("max_lease_ttl", &req.max_lease_ttl, &mut config.max_lease_ttl),
    ] {
        let Some(text) = text.as_ref().filter(|text| !text.is_empty()) else { continue };
        *bound = lease_text(name, text)?;
    }
    if let Some(text) = &req.listing_visibility {
        config.listing_visibility = visibility(text)?;
    }
    if let Some(text) = &req.token_type {
        config.token_type = mount_token_kind(text)?;
    }
    let lists = [
        (&mut config.audit_non_hmac_request_keys, req.audit_non_hmac_request_keys),
        (&mut config.audit_non_hmac_response_keys, req.audit_non_hmac_response_keys),
        (&mut config.passthrough_request_headers, req.passthrough_request_headers),
        (&mut config.allowed_response_headers, req.allowed_response_headers),
    ];
    for (list, given) in lists {
        if let Some(CommaList(given)) = given {
            *list = given;
        }
    }
    if let Some(Object(given)) = req.user_lockout_config.filter(|given| !given.0.is_empty()) {
        if !locks_out {
            let engine = &entry.engine;
            return Err(Error::invalid(format!(
                "tuning of user lockout configuration for auth type {engine:?} not allowed"
            )));
        }
        let mut lockout = config.user_lockout.take().unwrap_or_default();
        lockout.tune(&given)?;
        config.user_lockout = Some(lockout);
    }
    if let Some(text) = req.description {
        entry.description = text.into();
    }
    if let Some(Pairs(given)) = req.options {
        let mut options = entry.options();
        if let Some(version) = given.get("version").filter(|v| !matches!(v.as_str(), "1" | "2")) {
            let version = if version.is_empty() { "0" } else { version };
            return Err(Error::invalid(format!("invalid version provided: {version}")));
        }
        let upgraded = options.get("version").is_some_and(|v| v == "2");
        if upgraded && given.get("version").is_some_and(|v| v != "2") {
            return Err(Error::invalid("cannot downgrade mount from version 2"));
        }
        // An empty value removes an option; an empty object changes nothing.
        if !given.is_empty() {
            options.extend(given);
            options.retain(|_, value| !value.is_empty());
            entry.options = Some(options);
        }
    }
    Ok(())
}
