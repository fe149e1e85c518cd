//! `sys/external-keys`: configs of other systems, keys in them, and grants to mounts.
//!
//! Source: <https://openbao.org/api-docs/system/external-keys>.

use std::collections::BTreeMap;
use std::sync::Arc;

use keepfast_crypto::random;
use keepfast_framework::external_key::ExternalKeyPlugin;
use keepfast_framework::fields::{Flag, Int, Quoted, RawObject, Text};
use keepfast_framework::routes::{Help, Paged};
use keepfast_framework::rows::is_name;
use keepfast_framework::{Cx, Data, Error, Keys, Page, Result, Routes};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{System, unsealed};
use crate::external_keys::connections::connect;
use crate::external_keys::parameters::{check_patch, check_size, checked, shown};
use crate::external_keys::record::{CONFIGS, ConfigRecord, KEYS, KeyRecord, Values, key_name};
use crate::mount::Mounts;

const LIST_CONFIGS: Help = Help { synopsis: "Lists the configs of external keys.", description: "" };
const CONFIG: Help = Help {
    synopsis: "A config of external keys: a plugin (transit, pkcs11 or awskms) with its parameters.",
    description: "A config whose keys are granted to mounts cannot be deleted.",
};
const LIST_KEYS: Help = Help { synopsis: "Lists the keys of a config.", description: "" };
const KEY: Help = Help {
    synopsis: "A key of the other system, with the parameters of the plugin.",
    description: "A key that is granted to mounts cannot be deleted.",
};
const LIST_GRANTS: Help = Help { synopsis: "Lists the mounts that may use a key.", description: "" };
const GRANT: Help = Help { synopsis: "Lets a mount use a key, or not any more.", description: "" };

/// The number of keys that a deletion of a config reads at a time.
const PAGE: usize = 500;
/// The most configs: each may have a connection and a process.
const MAX_CONFIGS: usize = 256;
/// The most keys of a config.
const MAX_KEYS: usize = 1024;
/// The most mounts that may use a key.
const MAX_GRANTS: usize = 1024;
/// The longest name of a plugin, in bytes.
const MAX_PLUGIN: usize = 128;
/// The longest path of a mount in a grant, in bytes.
const MAX_MOUNT: usize = 1024;

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("external-keys/configs/", LIST_CONFIGS).root_only().list(list_configs);
    r.path("external-keys/configs/{config}", CONFIG)
        .root_only()
        .names_only()
        .read(read_config)
        .update(write_config)
        .patch(patch_config)
        .delete(delete_config);
    r.path("external-keys/configs/{config}/keys/", LIST_KEYS).root_only().names_only().list(list_keys);
    r.path("external-keys/configs/{config}/keys/{key}", KEY)
        .root_only()
        .names_only()
        .read(read_key)
        .update(write_key)
        .patch(patch_key)
        .delete(delete_key);
    r.path("external-keys/configs/{config}/keys/{key}/grants/", LIST_GRANTS).root_only().names_only().list(list_grants);
    r.path("external-keys/configs/{config}/keys/{key}/grants/{mount...}", GRANT)
        .root_only()
        .names_only()
        .name_may_end_in_slash()
        .update(write_grant)
        .delete(delete_grant);
}

#[derive(Deserialize, JsonSchema)]
struct ConfigPath {
    /// Name of the config.
    config: Text,
}

#[derive(Deserialize, JsonSchema)]
struct WriteConfig {
    /// Name of the config.
    config: Text,
    /// Name of the plugin: `transit`, `pkcs11` or `awskms`.
    plugin: Option<Text>,
    /// Whether the plugin and its parameters are checked before they are stored. Default: true.
    verify: Option<Flag>,
    /// The parameters of the plugin, beside `plugin` and `verify`.
    #[serde(rename = "$body")]
    body: RawObject,
}

#[derive(Deserialize, JsonSchema)]
struct ListKeys {
    /// Name of the config.
    config: Text,
    /// Returns only names after this one, which need not exist.
    after: Option<Text>,
    /// Maximum number of names; no limit if it is not positive.
    limit: Option<Int>,
}

#[derive(Deserialize, JsonSchema)]
struct KeyPath {
    /// Name of the config.
    config: Text,
    /// Name of the key.
    key: Text,
}

#[derive(Deserialize, JsonSchema)]
struct WriteKey {
    /// Name of the config.
    config: Text,
    /// Name of the key.
    key: Text,
    /// Whether the parameters are checked by the plugin before they are stored. Default: true.
    verify: Option<Flag>,
    /// The parameters of the plugin, beside `verify`.
    #[serde(rename = "$body")]
    body: RawObject,
}

#[derive(Deserialize, JsonSchema)]
struct GrantPath {
    /// Name of the config.
    config: Text,
    /// Name of the key.
    key: Text,
    /// Path of the mount.
    mount: Text,
}

fn no_config(name: &str) -> Error {
    Error::invalid(format!("config {} not found", Quoted(name)))
}

fn no_key(name: &str) -> Error {
    Error::invalid(format!("key {} not found", Quoted(name)))
}

/// The parameters in a body, without the general ones.
fn parameters(body: &RawObject, general: &[&str]) -> Result<Values> {
    let mut values = Values::of(body).ok_or_else(|| Error::invalid("the parameters cannot be read"))?;
    values.0.retain(|name, _| !general.contains(&name.as_str()));
    check_size(&values)?;
    Ok(values)
}

fn plugin_name(given: Option<Text>) -> Result<Option<String>> {
    let name = given.map(String::from).filter(|name| !name.is_empty());
    match name {
        Some(name) if name.len() > MAX_PLUGIN => {
            Err(Error::invalid(format!("the name of the plugin is longer than {MAX_PLUGIN} bytes")))
        }
        name => Ok(name),
    }
}

fn is_verified(verify: Option<Flag>) -> bool {
    verify.is_none_or(|flag| flag.0)
}

fn plugin(cx: &Cx, name: &str) -> Result<Arc<dyn ExternalKeyPlugin>> {
    unsealed(cx)?.engines.external_keys.plugin(name).map_err(Error::invalid)
}

/// The plugin of a record that is read.
fn plugin_of(cx: &Cx, name: &str) -> Result<Arc<dyn ExternalKeyPlugin>> {
    plugin(cx, name).map_err(|error| {
        Error::invalid(format!("failed to read metadata for plugin {}: {}", Quoted(name), error.public()))
    })
}

async fn list_configs(_: &System, cx: &mut Cx, req: Paged) -> Result<Keys> {
    Ok(Keys::of(CONFIGS.list(cx, "", &req.page()).await?))
}

async fn read_config(_: &System, cx: &mut Cx, req: ConfigPath) -> Result<Data<BTreeMap<String, Value>>> {
    let record = CONFIGS.get(cx, &req.config).await?.ok_or_else(|| no_config(&req.config))?;
    let plugin = plugin_of(cx, &record.plugin)?;
    let mut out = shown(plugin.config_parameters(), &record.parameters);
    out.insert("plugin".to_owned(), record.plugin.into());
    Ok(Data(out))
}

async fn write_config(_: &System, cx: &mut Cx, req: WriteConfig) -> Result<()> {
    let plugin = plugin_name(req.plugin)?;
    let plugin = plugin.ok_or_else(|| Error::invalid("missing required field \"plugin\""))?;
    let record = ConfigRecord::new(plugin, parameters(&req.body, &["plugin", "verify"])?);
    if CONFIGS.get(cx, &req.config).await?.is_none() {
        let page = Page { after: None, limit: Some(MAX_CONFIGS) };
        if CONFIGS.list(cx, "", &page).await?.len() >= MAX_CONFIGS {
            return Err(Error::invalid(format!(
                "there are {MAX_CONFIGS} configs of external keys, the most; delete one"
            )));
        }
    }
    put_config(cx, &req.config, &record, req.verify).await
}

async fn patch_config(_: &System, cx: &mut Cx, req: WriteConfig) -> Result<()> {
    let old = CONFIGS.get(cx, &req.config).await?.ok_or_else(|| no_config(&req.config))?;
    let name = plugin_name(req.plugin)?.unwrap_or_else(|| old.plugin.clone());
    let mut values = old.parameters;
    let patch = parameters(&req.body, &["plugin", "verify"])?;
    let known = plugin(cx, &old.plugin).ok().map(|plugin| plugin.config_parameters());
    check_patch(known, &values, &patch, name != old.plugin)?;
    values.patch(patch);
    check_size(&values)?;
    put_config(cx, &req.config, &ConfigRecord::new(name, values), req.verify).await
}

async fn put_config(cx: &mut Cx, name: &str, record: &ConfigRecord, verify: Option<Flag>) -> Result<()> {
    if is_verified(verify) {
        let plugin = plugin(cx, &record.plugin)?;
        let parameters = checked(plugin.config_parameters(), &record.parameters)?;
        connect(&plugin, parameters).await?;
    }
    CONFIGS.put(cx, name, record)
}

async fn delete_config(_: &System, cx: &mut Cx, req: ConfigPath) -> Result<()> {
    let folder = key_name(&req.config, "");
    let mut after = None;
    loop {
        let names = KEYS.list(cx, &folder, &Page { after: after.take(), limit: Some(PAGE) }).await?;
        for name in &names {
            remove_key(cx, &req.config, name).await?;
        }
        match names.into_iter().last() {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    CONFIGS.delete(cx, &req.config);
    Ok(())
}

async fn list_keys(_: &System, cx: &mut Cx, req: ListKeys) -> Result<Keys> {
    Ok(Keys::of(KEYS.list(cx, &key_name(&req.config, ""), &Paged::new(req.after, req.limit).page()).await?))
}

async fn read_key(_: &System, cx: &mut Cx, req: KeyPath) -> Result<Data<BTreeMap<String, Value>>> {
    let record = key(cx, &req.config, &req.key).await?;
    let config = CONFIGS.get(cx, &req.config).await?.ok_or_else(|| no_config(&req.config))?;
    let plugin = plugin_of(cx, &config.plugin)?;
    Ok(Data(shown(plugin.key_parameters(), &record.parameters)))
}

async fn write_key(_: &System, cx: &mut Cx, req: WriteKey) -> Result<()> {
    let config = config(cx, &req.config).await?;
    let values = parameters(&req.body, &["verify"])?;
    let old = KEYS.get(cx, &key_name(&req.config, &req.key)).await?;
    if old.is_none() {
        let page = Page { after: None, limit: Some(MAX_KEYS) };
        if KEYS.list(cx, &key_name(&req.config, ""), &page).await?.len() >= MAX_KEYS {
            return Err(Error::invalid(format!("the config has {MAX_KEYS} keys, the most; delete one")));
        }
    }
    let record = KeyRecord { grants: old.map(|old| old.grants).unwrap_or_default(), ..KeyRecord::new(values) };
    put_key(cx, &config, (&req.config, &req.key), &record, req.verify).await
}

async fn patch_key(_: &System, cx: &mut Cx, req: WriteKey) -> Result<()> {
    let config = config(cx, &req.config).await?;
    let mut record = key(cx, &req.config, &req.key).await?;
    record.parameters.patch(parameters(&req.body, &["verify"])?);
    check_size(&record.parameters)?;
    record.revision = random::uuid();
    put_key(cx, &config, (&req.config, &req.key), &record, req.verify).await
}

async fn put_key(
    cx: &mut Cx,
    config: &ConfigRecord,
    (config_name, name): (&str, &str),
    record: &KeyRecord,
    verify: Option<Flag>,
) -> Result<()> {
    if is_verified(verify) {
        let plugin = plugin(cx, &config.plugin)?;
        let connection = connect(&plugin, checked(plugin.config_parameters(), &config.parameters)?).await?;
        let parameters = checked(plugin.key_parameters(), &record.parameters)?;
        connection.key(&parameters).map_err(Error::invalid)?;
    }
    KEYS.put(cx, &key_name(config_name, name), record)
}

async fn delete_key(_: &System, cx: &mut Cx, req: KeyPath) -> Result<()> {
    remove_key(cx, &req.config, &req.key).await
}

/// Deletes a key, unless mounts may use it: what they encrypted would be lost.
async fn remove_key(cx: &mut Cx, config: &str, name: &str) -> Result<()> {
    let record = key_name(config, name);
    let Some(key) = KEYS.get(cx, &record).await? else { return Ok(()) };
    let in_use = mounted(&unsealed(cx)?.engines.mounts, &key);
    if !in_use.is_empty() {
        let key = Quoted(&format!("{config}:{name}")).to_string();
        return Err(Error::invalid(format!("key {key} is granted to {}: remove the grants first", in_use.join(", "))));
    }
    KEYS.delete(cx, &record);
    Ok(())
}

/// The grants of a key that permit something: those to mounts that exist.
fn mounted(mounts: &Mounts, key: &KeyRecord) -> Vec<String> {
    let router = mounts.router();
    let is_mounted = |path: &&String| router.at(path).is_some_and(|mount| key.is_granted(path, &mount.entry.uuid));
    key.grants.keys().filter(is_mounted).cloned().collect()
}

async fn list_grants(_: &System, cx: &mut Cx, req: KeyPath) -> Result<Keys> {
    let record = key(cx, &req.config, &req.key).await?;
    Ok(Keys::of(record.grants.into_keys().collect()))
}

async fn write_grant(_: &System, cx: &mut Cx, req: GrantPath) -> Result<()> {
    let mount = check_grant(&req)?;
    config(cx, &req.config).await?;
    let mut record = key(cx, &req.config, &req.key).await?;
    let uuid = unsealed(cx)?.engines.mounts.router().at(&mount).map(|mounted| mounted.entry.uuid.clone());
    if record.grants.get(&mount) != Some(&uuid) {
        record.grants.insert(mount, uuid);
        if record.grants.len() > MAX_GRANTS {
            return Err(Error::invalid(format!("a key is granted to at most {MAX_GRANTS} mounts")));
        }
        KEYS.put(cx, &key_name(&req.config, &req.key), &record)?;
    }
    Ok(())
}

async fn delete_grant(_: &System, cx: &mut Cx, req: GrantPath) -> Result<()> {
    let mount = check_grant(&req)?;
    config(cx, &req.config).await?;
    let mut record = key(cx, &req.config, &req.key).await?;
    if record.grants.remove(&mount).is_some() {
        KEYS.put(cx, &key_name(&req.config, &req.key), &record)?;
    }
    Ok(())
}

/// The path of the mount of a grant, with its final slash.
fn check_grant(req: &GrantPath) -> Result<String> {
    if !is_name(&req.config) || !is_name(&req.key) {
        return Err(Error::unsupported_path());
    }
    if req.mount.len() > MAX_MOUNT {
        return Err(Error::invalid("the path of the mount is too long"));
    }
    Ok(format!("{}/", req.mount.trim_matches('/')))
}

/// The config of a request about its keys.
async fn config(cx: &mut Cx, name: &str) -> Result<ConfigRecord> {
    let missing = || Error::invalid(format!("config {} does not exist", Quoted(name)));
    CONFIGS.get(cx, name).await?.ok_or_else(missing)
}

async fn key(cx: &mut Cx, config: &str, name: &str) -> Result<KeyRecord> {
    KEYS.get(cx, &key_name(config, name)).await?.ok_or_else(|| no_key(name))
}
