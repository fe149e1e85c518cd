//! `sys/mounts` and `sys/auth`: enables, lists and disables mounts.

use std::collections::BTreeMap;

use keepfast_framework::engine::Registry;
use keepfast_framework::fields::{Flag, Object, Pairs, Quoted, Text, parse_duration};
use keepfast_framework::path_field::PathText;
use keepfast_framework::reply::Flat;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::token_params::TokenKind;
use keepfast_framework::{Cx, Error, Kind, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::mount_response::MountResponse;
use super::{System, plugin_version, reserved_paths, unsealed};
use crate::mount::entry::or_inherited;
use crate::mount::{MountConfig, MountEntry, mount_path};
use crate::unsealed::Unsealed;

const MOUNTS: Help = Help { synopsis: "Lists the mounted secrets engines.", description: "" };
const MOUNT: Help = Help { synopsis: "Mounts, reads or unmounts a secrets engine.", description: "" };
const AUTHS: Help = Help { synopsis: "Lists the mounted auth methods.", description: "" };
const AUTH: Help = Help { synopsis: "Mounts, reads or unmounts an auth method.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("mounts", MOUNTS).read(list_secrets);
    r.path("mounts/{path...}", MOUNT)
        .name_may_end_in_slash()
        .read(read_secrets)
        .update(enable_secrets)
        .delete(disable_secrets);
    r.path("auth", AUTHS).read(list_auth);
    r.path("auth/{path...}", AUTH)
        .name_may_end_in_slash()
        .read(read_auth)
        .update(enable_auth)
        .delete(disable_auth)
        .sudo();
}

#[derive(Deserialize, JsonSchema)]
struct MountPath {
    /// Path of the mount.
    path: Text,
}

/// The parameters of a new mount.
#[derive(Deserialize, JsonSchema)]
struct Enable {
    /// Path of the mount.
    path: PathText,
    /// Type of the engine, such as `kv`.
    #[serde(rename = "type")]
    engine: Option<Text>,
    /// Description of the mount.
    description: Option<Text>,
    /// Settings of the mount that can also be tuned, such as `default_lease_ttl` and `max_lease_ttl`.
    config: Option<Object>,
    /// Options of the engine, such as `version` of `kv`.
    #[serde(default, deserialize_with = "null_or_pairs")]
    options: Option<Option<Pairs>>,
    /// Whether the mount is local to this cluster. Default: false.
    local: Option<Flag>,
    /// Whether a wrap key encrypts all its values as well. Default: false.
    seal_wrap: Option<Flag>,
    /// Stored without an effect. Default: false.
    external_entropy_access: Option<Flag>,
    /// Deprecated: use `type`.
    plugin_name: Option<Text>,
    /// Version of the plugin; only the built-in version exists.
    plugin_version: Option<Text>,
}

async fn list_secrets(_: &System, cx: &mut Cx, _: Nothing) -> Result<Flat<BTreeMap<String, MountResponse>>> {
    list(&*unsealed(cx)?, Kind::Secrets)
}

async fn list_auth(_: &System, cx: &mut Cx, _: Nothing) -> Result<Flat<BTreeMap<String, MountResponse>>> {
    list(&*unsealed(cx)?, Kind::Auth)
}

fn list(unsealed: &Unsealed, kind: Kind) -> Result<Flat<BTreeMap<String, MountResponse>>> {
    let router = unsealed.engines.mounts.router();
    let mounts = router.all().filter(|m| m.entry.kind() == kind);
    Ok(Flat(mounts.map(|m| (m.entry.shown_path().to_owned(), MountResponse::new(m, None))).collect()))
}

async fn read_secrets(_: &System, cx: &mut Cx, req: MountPath) -> Result<Flat<MountResponse>> {
    let path = mount_path(Kind::Secrets, &req.path);
    let found = unsealed(cx)?.engines.mounts.router().at(&path).map(|m| MountResponse::new(m, None));
    found.map(Flat).ok_or_else(|| Error::invalid(format!("No secret engine mount at {path}")))
}

async fn read_auth(_: &System, cx: &mut Cx, req: MountPath) -> Result<Flat<MountResponse>> {
    let path = mount_path(Kind::Auth, &req.path);
    let found = unsealed(cx)?.engines.mounts.router().at(&path).map(|m| MountResponse::new(m, None));
    found.map(Flat).ok_or_else(|| Error::invalid(format!("No auth engine at {}/", req.path.trim_matches('/'))))
}

async fn enable_secrets(_: &System, cx: &mut Cx, req: Enable) -> Result<()> {
    let path = mount_path(Kind::Secrets, req.path.bare());
    let unsealed = unsealed(cx)?;
    let registry = unsealed.engines.mounts.registry();
    engine_of(registry, &req, Kind::Secrets)?;
    if reserved_paths::is_reserved(registry, &path) {
        return Err(Error::invalid(format!("cannot mount {}", Quoted(&path))));
    }
    enable(&unsealed, Kind::Secrets, &path, req).await
}

async fn enable_auth(_: &System, cx: &mut Cx, req: Enable) -> Result<()> {
    let unsealed = unsealed(cx)?;
    let mut built_in = unsealed.engines.mounts.registry().built_in().filter(|(engine, _)| engine.kind == Kind::Auth);
    if let Some((engine, _)) = built_in.find(|(engine, _)| req.engine.as_deref() == Some(&*engine.engine)) {
        return Err(Error::invalid(format!("{} credential backend cannot be instantiated", engine.engine)));
    }
    let path = mount_path(Kind::Auth, req.path.bare());
    enable(&unsealed, Kind::Auth, &path, req).await
}

async fn enable(unsealed: &Unsealed, kind: Kind, path: &str, req: Enable) -> Result<()> {
    let registry = unsealed.engines.mounts.registry();
    let (engine, options) = engine_of(registry, &req, kind)?;
    let is_versioned = registry.versions(kind, &engine).next().is_some();
    if options.get("version").is_some_and(|version| !version.is_empty()) && !is_versioned {
        let what = if kind == Kind::Auth { "auth method" } else { "secrets engine" };
        return Err(Error::invalid(format!("{what} {engine:?} does not allow setting a version")));
    }
    if kind == Kind::Secrets && reserved_paths::is_built_in_type(registry, &engine) {
        return Err(Error::invalid(format!("mount type of {engine:?} is not mountable")));
    }
    if let Some(version) = req.plugin_version.as_ref().filter(|v| !v.is_empty()) {
        return Err(Error::invalid(format!(
            "{version} version pinned for plugin {engine} is not in this server; only built-in engines are"
        )));
    }
    if let Some(taken) = unsealed.engines.mounts.router().at(path) {
        return Err(Error::invalid(format!("path is already in use at {}", taken.entry.shown_path())));
    }
    let mut entry = unsealed.engines.mounts.entry(kind, path, &engine, Some(options))?;
    if kind == Kind::Auth {
        entry.config.token_type = TokenKind::DefaultService;
    }
    if matches!(req.options, Some(None)) && entry.options.as_ref().is_some_and(BTreeMap::is_empty) {
        entry.options = None;
    }
    entry.description = req.description.map(String::from).unwrap_or_default();
    entry.local = req.local.is_some_and(|f| f.0);
    entry.seal_wrap = req.seal_wrap.is_some_and(|f| f.0);
    entry.external_entropy_access = req.external_entropy_access.is_some_and(|f| f.0);
    if let Some(Object(config)) = &req.config {
        configure(&mut entry, config).map_err(|error| error.of_kind(kind))?;
    }
    check_ttls(&entry.config, unsealed)?;
    unsealed.engines.changes.mount(entry).await
}

/// Distinguishes `null` from an empty object; both mean no options.
fn null_or_pairs<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Option<Pairs>>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(Some(None)),
        value => Pairs::deserialize(value).map(|pairs| Some(Some(pairs))).map_err(serde::de::Error::custom),
    }
}

/// The type and the options of the engine; `kv-v2` and `plugin` are older spellings.
fn engine_of(registry: &Registry, req: &Enable, kind: Kind) -> Result<(String, BTreeMap<String, String>)> {
    let mut options = req.options.clone().flatten().unwrap_or_default().0;
    let named = req.engine.as_deref().unwrap_or_default();
    let plugin = req.plugin_name.as_deref().unwrap_or_default();
    let named = match named {
        "plugin" if plugin.is_empty() => {
            return Err(Error::invalid("plugin_name must be provided for plugin backend"));
        }
        "plugin" => plugin,
        named => named,
    };
    if named.is_empty() {
        return Err(Error::invalid("backend type must be specified as a string"));
    }
    let engine = match named.rsplit_once("-v") {
        Some((engine, version)) if registry.versions(kind, engine).any(|known| known == version) => {
            options.insert("version".into(), version.to_owned());
            engine
        }
        _ => named,
    };
    let versions: Vec<&str> = registry.versions(kind, engine).collect();
    let is_unknown = |version: &String| !version.is_empty() && !versions.contains(&version.as_str());
    if !versions.is_empty() && options.get("version").is_some_and(is_unknown) {
        return Err(Error::invalid(format!("the version of a {engine} mount is {}", versions.join(" or "))));
    }
    Ok((engine.to_owned(), options))
}

/// Reads the `config` object of a new mount.
fn configure(entry: &mut MountEntry, config: &serde_json::Map<String, Value>) -> ConfigResult<()> {
    let auth = entry.auth;
    let tuned = &mut entry.config;
    let mut version = None;
    for (name, value) in config.iter().filter(|(_, value)| !value.is_null()) {
        match name.as_str() {
            "default_lease_ttl" => tuned.default_lease_ttl = lease("default TTL", value)?,
            "max_lease_ttl" => tuned.max_lease_ttl = lease("max TTL", value)?,
            // Auth methods ignore this field.
            "force_no_cache" => tuned.force_no_cache = value.as_bool().ok_or(ConfigError::Unconvertible)? && !auth,
            "audit_non_hmac_request_keys" => tuned.audit_non_hmac_request_keys = names(value)?,
            "audit_non_hmac_response_keys" => tuned.audit_non_hmac_response_keys = names(value)?,
            "passthrough_request_headers" => tuned.passthrough_request_headers = names(value)?,
            "allowed_response_headers" => tuned.allowed_response_headers = names(value)?,
            "listing_visibility" => tuned.listing_visibility = visibility(&text(value)?)?,
            "plugin_version" => version = Some(text(value)?),
            "user_lockout_config" => check_lockout(value)?,
            "token_type" if auth => tuned.token_type = mount_token_kind(&text(value)?)?,
            _ => {}
        }
    }
    Ok(version.map_or(Ok(()), |version| built_in(entry, &version))?)
}

/// Accepts an empty version only: the built-in one has no other name.
fn built_in(entry: &MountEntry, version: &str) -> Result<()> {
    match (version, entry.auth) {
        ("", _) => Ok(()),
        (_, false) => {
            plugin_version::canonical(version)?;
            Err(Error::invalid(format!("cannot select non-builtin version of secrets plugin {}", entry.engine)))
        }
        (_, true) => {
            let version = plugin_version::canonical(version)?;
            Err(Error::invalid(format!("plugin not found in the catalog: {}, version={version}", entry.engine)))
        }
    }
}

type ConfigResult<T> = std::result::Result<T, ConfigError>;

/// Why the `config` object of a new mount is refused.
enum ConfigError {
    /// A member has the wrong type; the error text names the kind of the mount.
    Unconvertible,
    /// A member has the right type and a wrong value.
    Refused(Error),
}

impl From<Error> for ConfigError {
    fn from(error: Error) -> Self {
        ConfigError::Refused(error)
    }
}

impl ConfigError {
    fn of_kind(self, kind: Kind) -> Error {
        match (self, kind) {
            (ConfigError::Refused(error), _) => error,
            (ConfigError::Unconvertible, Kind::Secrets) => {
                Error::invalid("unable to convert given mount config information")
            }
            (ConfigError::Unconvertible, Kind::Auth) => {
                Error::invalid("unable to convert given auth config information")
            }
        }
    }
}

/// Validates the lockout settings in the `config` of a new mount, which ignores them: they are set by tuning.
fn check_lockout(value: &Value) -> ConfigResult<()> {
    let members = value.as_object().ok_or(ConfigError::Unconvertible)?;
    let fits = |(name, value): (&String, &Value)| match name.as_str() {
        "lockout_threshold" => value.is_u64() || value.is_null(),
        "lockout_duration" | "lockout_counter_reset_duration" => value.is_i64() || value.is_null(),
        "lockout_disable" => value.is_boolean() || value.is_null(),
        _ => true,
    };
    if members.iter().all(fits) { Ok(()) } else { Err(ConfigError::Unconvertible) }
}

/// A text, or a number as text; OpenBao reads this object more strictly than other parameters.
fn text(value: &Value) -> ConfigResult<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(ConfigError::Unconvertible),
    }
}

/// A list of texts, or one text with commas.
fn names(value: &Value) -> ConfigResult<Vec<String>> {
    match value {
        Value::Array(items) => items.iter().map(text).collect(),
        other => {
            let whole = text(other)?;
            let parts = whole.split(',').map(|part| part.trim().to_owned());
            Ok(if whole.is_empty() { Vec::new() } else { parts.collect() })
        }
    }
}

/// A lease TTL in seconds; `system` and an empty text mean the system's.
fn lease(name: &str, value: &Value) -> ConfigResult<u64> {
    let text = text(value)?;
    Ok(lease_seconds(name, &text, |why| format!("unable to parse {name} of {text}: {why}"))?)
}

/// See [`lease`].
pub(super) fn lease_text(name: &str, text: &str) -> Result<u64> {
    lease_seconds(name, text, |why| why)
}

fn lease_seconds(name: &str, text: &str, unparsable: impl FnOnce(String) -> String) -> Result<u64> {
    if matches!(text, "" | "system" | "0") {
        return Ok(0);
    }
    let seconds = parse_duration(text).map_err(|why| Error::invalid(unparsable(why)))?;
    u64::try_from(seconds).map_err(|_| Error::invalid(format!("{name} cannot be negative")))
}

/// Checks a `listing_visibility`.
pub(super) fn visibility(text: &str) -> Result<String> {
    match text {
        "" | "hidden" | "unauth" => Ok(text.to_owned()),
        other => Err(Error::invalid(format!("invalid listing_visibility {other}"))),
    }
}

/// Checks the `token_type` of a mount.
pub(super) fn mount_token_kind(text: &str) -> Result<TokenKind> {
    match TokenKind::parse(text) {
        // `default` is a value of roles; a mount has the kind that it leads to.
        _ if text == "default" => Err(Error::invalid("invalid value for 'token_type'")),
        Ok(TokenKind::Default) => Ok(TokenKind::DefaultService),
        Ok(kind) => Ok(kind),
        Err(_) => Err(Error::invalid("invalid value for 'token_type'")),
    }
}

/// Checks that the default TTL is at most the maximum TTL.
fn check_ttls(config: &MountConfig, unsealed: &Unsealed) -> Result<()> {
    let max = or_inherited(config.max_lease_ttl, unsealed.settings.max_lease_ttl).as_secs();
    if config.max_lease_ttl > 0 && config.default_lease_ttl > config.max_lease_ttl {
        return Err(Error::invalid("given default lease TTL greater than given max lease TTL"));
    }
    if config.default_lease_ttl > max {
        return Err(Error::invalid(format!(
            "given default lease TTL greater than system max lease TTL of {}",
            unsealed.settings.max_lease_ttl.as_secs()
        )));
    }
    Ok(())
}

async fn disable_secrets(_: &System, cx: &mut Cx, req: MountPath) -> Result<()> {
    let path = mount_path(Kind::Secrets, &req.path);
    let unsealed = unsealed(cx)?;
    let registry = unsealed.engines.mounts.registry();
    // Command-line clients also send auth methods here, with their whole path.
    if [Kind::Secrets, Kind::Auth].iter().any(|kind| reserved_paths::is_built_in(registry, *kind, &path)) {
        return Err(Error::invalid(format!("cannot unmount {}", Quoted(&path))));
    }
    disable(&unsealed, &path).await
}

async fn disable_auth(_: &System, cx: &mut Cx, req: MountPath) -> Result<()> {
    let path = mount_path(Kind::Auth, &req.path);
    let unsealed = unsealed(cx)?;
    if reserved_paths::is_built_in(unsealed.engines.mounts.registry(), Kind::Auth, &path) {
        let name = path.strip_prefix(Kind::Auth.prefix()).unwrap_or(&path).trim_end_matches('/');
        return Err(Error::invalid(format!("{name} credential backend cannot be disabled")));
    }
    disable(&unsealed, &path).await
}

/// Succeeds for a mount that does not exist.
async fn disable(unsealed: &Unsealed, path: &str) -> Result<()> {
    // The tune path of a mount is no mount.
    if path.ends_with("/tune/") {
        return Err(Error::unsupported_operation());
    }
    let found = unsealed.engines.mounts.router().at(path).map(|m| m.entry.clone());
    match found {
        None => Ok(()),
        Some(entry) => unsealed.engines.changes.unmount(&entry).await,
    }
}
