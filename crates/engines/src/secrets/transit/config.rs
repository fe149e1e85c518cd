//! `config/keys` and `cache-config`: settings of the mount.

use keepfast_framework::fields::{Flag, Int};
use keepfast_framework::routes::{Exists, Nothing};
use keepfast_framework::{Cx, Data, Error, Records, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Transit;

/// The settings of the mount, in one record.
pub(super) const SETTINGS: Records<Settings> = Records::at("config");
/// The smallest cache size, except 0.
const MIN_CACHE_SIZE: i64 = 10;

/// The stored settings of the mount.
#[derive(Serialize, Deserialize, Default)]
pub(super) struct Settings {
    #[serde(default)]
    pub disable_upsert: bool,
    /// How many keys the cache holds; 0 means the default.
    #[serde(default)]
    pub cache_size: usize,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct WriteKeys {
    /// Whether `encrypt` fails for a missing key instead of creating it. Default: false.
    disable_upsert: Option<Flag>,
}

#[derive(Serialize)]
pub(super) struct KeysResponse {
    disable_upsert: bool,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct WriteCache {
    /// Maximum number of cached keys, at least 10; 0 for the default. Takes effect when the mount is next opened.
    size: Option<Int>,
}

#[derive(Serialize)]
pub(super) struct CacheResponse {
    size: usize,
}

pub(super) async fn read_keys(_: &Transit, cx: &mut Cx, _: Nothing) -> Result<Data<KeysResponse>> {
    let settings = SETTINGS.get(cx, "").await?.unwrap_or_default();
    Ok(Data(KeysResponse { disable_upsert: settings.disable_upsert }))
}

pub(super) async fn write_keys(_: &Transit, cx: &mut Cx, req: WriteKeys) -> Result<Data<KeysResponse>> {
    let mut settings = SETTINGS.get(cx, "").await?.unwrap_or_default();
    if let Some(Flag(disable)) = req.disable_upsert {
        settings.disable_upsert = disable;
        SETTINGS.put(cx, "", &settings)?;
    }
    Ok(Data(KeysResponse { disable_upsert: settings.disable_upsert }))
}

pub(super) async fn cache_exists(_: &Transit, cx: &mut Cx, _: Nothing) -> Result<Exists> {
    Ok(Exists(SETTINGS.get(cx, "").await?.is_some_and(|settings| settings.cache_size != 0)))
}

pub(super) async fn read_cache(_: &Transit, cx: &mut Cx, _: Nothing) -> Result<Data<CacheResponse>> {
    let settings = SETTINGS.get(cx, "").await?.unwrap_or_default();
    Ok(Data(CacheResponse { size: settings.cache_size }))
}

pub(super) async fn write_cache(_: &Transit, cx: &mut Cx, req: WriteCache) -> Result<Data<CacheResponse>> {
    let size = match req.size.unwrap_or_default().0 {
        0 => Some(0),
        size => usize::try_from(size).ok().filter(|_| size >= MIN_CACHE_SIZE),
    };
    let size =
        size.ok_or_else(|| Error::invalid(format!("size must be 0 or a value greater or equal to {MIN_CACHE_SIZE}")))?;
    let mut settings = SETTINGS.get(cx, "").await?.unwrap_or_default();
    settings.cache_size = size;
    SETTINGS.put(cx, "", &settings)?;
    Ok(Data(CacheResponse { size }))
}
