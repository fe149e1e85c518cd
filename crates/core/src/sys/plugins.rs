//! `sys/plugins/`: the built-in engines. Nothing can be added: a server that runs binaries named by its API has no
//! isolation.

use std::collections::{BTreeMap, BTreeSet};

use keepfast_crypto::random;
use keepfast_framework::fields::{CommaList, Int, Quoted, Strings, Text};
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Error, Keys, Kind, Outcome, Reply, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;

use super::{System, plugin_version, unsealed};
use crate::unsealed::Unsealed;
use crate::version_history::BUILT_IN;

const CATALOG: Help = Help {
    synopsis: "Lists or reads the built-in plugins: secrets engines, auth methods and databases.",
    description: "No plugin can be registered: all plugins are built in.",
};
const RELOAD: Help =
    Help { synopsis: "Accepts the reload of a plugin, without effect: all plugins are built in.", description: "" };

/// The kinds of entries, in the order of the catalogue.
const KINDS: [&str; 3] = ["auth", "database", "secret"];

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("plugins/catalog", CATALOG).found_by_lists().read(catalog);
    r.path("plugins/catalog/{type}/", CATALOG).list(list).sudo();
    r.path("plugins/catalog/{type}/{name}", CATALOG)
        .final_slash()
        .read(read)
        .update(refuse)
        .delete(remove)
        .sudo()
        .absent_in_namespaces();
    r.path("plugins/catalog/{name}", CATALOG)
        .read(unknown_kind)
        .update(refuse)
        .delete(unknown_kind_removed)
        .sudo()
        .absent_in_namespaces();
    r.path("plugins/reload/backend", RELOAD).update(reload);
}

#[derive(Deserialize, JsonSchema)]
struct PluginTypePath {
    /// `auth`, `database` or `secret`.
    r#type: Text,
}

#[derive(Deserialize, JsonSchema)]
struct PluginPath {
    /// `auth`, `database` or `secret`.
    r#type: Option<Text>,
    /// Its name.
    name: Text,
}

#[derive(Deserialize, JsonSchema)]
#[allow(dead_code, reason = "named so that they are known")]
struct Register {
    /// `auth`, `database` or `secret`.
    r#type: Option<Text>,
    /// Its name.
    name: Text,
    /// Not supported: all plugins are built in.
    sha256: Option<Text>,
    /// Not supported: all plugins are built in.
    sha_256: Option<Text>,
    /// Not supported: all plugins are built in.
    command: Option<Text>,
    /// Not supported: all plugins are built in.
    args: Option<Strings>,
    /// Not supported: all plugins are built in.
    env: Option<Strings>,
    /// Version of the plugin.
    version: Option<Text>,
    /// Not supported: all plugins are built in.
    mode: Option<Int>,
}

#[derive(Deserialize, JsonSchema)]
struct Reload {
    /// Name of the plugin. Required unless `mounts` is given.
    plugin: Option<Text>,
    /// Comma-separated paths of mounts. Required unless `plugin` is given.
    mounts: Option<CommaList>,
    /// `global` or empty. Default: empty.
    scope: Option<Text>,
}

#[derive(Serialize)]
struct Detailed {
    builtin: bool,
    deprecation_status: &'static str,
    name: String,
    r#type: &'static str,
    version: String,
}

#[derive(Serialize)]
struct Catalog {
    auth: BTreeSet<String>,
    database: BTreeSet<String>,
    detailed: Vec<Detailed>,
    secret: BTreeSet<String>,
}

#[derive(Serialize)]
struct Entry {
    args: Option<Vec<String>>,
    builtin: bool,
    command: &'static str,
    declarative: bool,
    deprecation_status: &'static str,
    name: String,
    oci: bool,
    sha256: &'static str,
    version: String,
}

#[derive(Serialize)]
struct ReloadResponse {
    reload_id: String,
}

/// The built-in plugins by kind.
fn built_in(unsealed: &Unsealed) -> BTreeMap<&'static str, BTreeSet<String>> {
    let mut out: BTreeMap<&'static str, BTreeSet<String>> =
        KINDS.into_iter().map(|kind| (kind, BTreeSet::new())).collect();
    for registered in unsealed.engines.mounts.registry().all() {
        let kind = if registered.kind == Kind::Auth { "auth" } else { "secret" };
        // An engine that works through plugins is listed by them.
        let plugins = (registered.traits.plugins)();
        let own = registered.traits.built_in.is_none() && plugins.is_empty();
        if own {
            out.entry(kind).or_default().insert(registered.engine.to_string());
        }
        out.entry("database").or_default().extend(plugins.into_iter().map(str::to_owned));
    }
    out
}

async fn catalog(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<Catalog>> {
    let mut all = built_in(&*unsealed(cx)?);
    let detailed = |(kind, names): (&&'static str, &BTreeSet<String>)| {
        let kind = *kind;
        names
            .iter()
            .map(|name| Detailed {
                builtin: true,
                deprecation_status: "supported",
                name: name.clone(),
                r#type: kind,
                version: BUILT_IN.to_owned(),
            })
            .collect::<Vec<_>>()
    };
    let detailed = all.iter().flat_map(detailed).collect();
    let mut take = |kind: &str| all.remove(kind).unwrap_or_default();
    Ok(Data(Catalog { auth: take("auth"), database: take("database"), detailed, secret: take("secret") }))
}

async fn list(_: &System, cx: &mut Cx, req: PluginTypePath) -> Result<Keys> {
    let names = built_in(&*unsealed(cx)?).remove(&*req.r#type).ok_or_else(Error::unsupported_operation)?;
    Ok(Keys::of(names.into_iter().collect()))
}

async fn read(_: &System, cx: &mut Cx, req: PluginPath) -> Result<Outcome> {
    let kind = req.r#type.as_deref().unwrap_or_default();
    let all = built_in(&*unsealed(cx)?);
    let Some(names) = all.get(kind) else {
        return old_path(cx, "read plugin information from", &format!("{kind}/{}", req.name));
    };
    if !names.contains(&req.name.0) {
        return Err(Error::not_found());
    }
    let entry = Entry {
        args: None,
        builtin: true,
        command: "",
        declarative: false,
        deprecation_status: "supported",
        name: req.name.0,
        oci: false,
        sha256: "",
        version: BUILT_IN.to_owned(),
    };
    Data(entry).into_outcome()
}

async fn refuse(_: &System, _: &mut Cx, req: Register) -> Result<()> {
    let given = req.sha256.or(req.sha_256).filter(|h| !h.is_empty());
    let given = given.ok_or_else(|| Error::invalid("missing SHA-256 value"))?;
    let hash = hex::decode(&*given).map_err(|_| Error::invalid("Could not decode SHA-256 value from Hex"))?;
    if hash.len() != 32 {
        return Err(Error::invalid("Decoded SHA-256 value is not 32 bytes"));
    }
    if let Some(version) = req.version.filter(|version| !version.is_empty()) {
        plugin_version::canonical(&version)?;
    }
    Err(Error::invalid("plugins cannot be added: this server runs what is built in and nothing else"))
}

/// Nothing can be removed: built-in plugins stay.
async fn remove(_: &System, cx: &mut Cx, req: PluginPath) -> Result<Outcome> {
    let kind = req.r#type.as_deref().unwrap_or_default();
    if !KINDS.contains(&kind) {
        return old_path(cx, "deregister plugin from", &format!("{kind}/{}", req.name));
    }
    Ok(Outcome::Empty(None))
}

async fn unknown_kind(_: &System, cx: &mut Cx, req: PluginPath) -> Result<Outcome> {
    if KINDS.contains(&&*req.name) {
        return Err(Error::unsupported_operation());
    }
    old_path(cx, "read plugin information from", &req.name)
}

async fn unknown_kind_removed(_: &System, cx: &mut Cx, req: PluginPath) -> Result<Outcome> {
    old_path(cx, "deregister plugin from", &req.name)
}

/// OpenBao's response on the paths without a kind.
fn old_path(cx: &mut Cx, what: &str, name: &str) -> Result<Outcome> {
    cx.warn(format!("Deprecated API endpoint, cannot {what} catalog for {name:?}"));
    Ok(Outcome::of(to_raw_value(&())?))
}

async fn reload(_: &System, cx: &mut Cx, req: Reload) -> Result<Data<ReloadResponse>> {
    let plugin = req.plugin.map(|p| p.0).unwrap_or_default();
    let mounts = req.mounts.map(|m| m.0).unwrap_or_default();
    if req.scope.is_some_and(|s| !matches!(&*s, "" | "global")) {
        return Err(Error::invalid("scope must be unset or \"global\""));
    }
    let unsealed = unsealed(cx)?;
    match (plugin.is_empty(), mounts.is_empty()) {
        (true, true) => return Err(Error::invalid("plugin or mounts must be provided")),
        (false, false) => return Err(Error::invalid("plugin and mounts cannot be set at the same time")),
        (false, true) if !built_in(&unsealed).values().any(|names| names.contains(&plugin)) => {
            return Err(Error::invalid(format!("plugin not found in the catalog: {}", Quoted(&plugin))));
        }
        (false, true) => {}
        (true, false) => mounts.iter().try_for_each(|given| reloadable(&unsealed, given))?,
    }
    // Built-in plugins run in this process and have no state that a reload would change.
    Ok(Data(ReloadResponse { reload_id: random::uuid() }))
}

fn reloadable(unsealed: &Unsealed, given: &str) -> Result<()> {
    let path = format!("{}/", given.trim_matches('/'));
    let why = match unsealed.engines.mounts.router().at(&path) {
        None => format!("cannot fetch mount entry on {}", Quoted(given)),
        Some(m) if m.traits.built_in.is_some() => {
            format!("cannot reload plugin on {given:?}: singleton plugin cannot be reloaded: {:?}", m.entry.engine)
        }
        Some(_) => return Ok(()),
    };
    Err(Error::invalid(format!("1 error occurred:\n\t* {why}\n\n")))
}
