//! `config`: the settings for every secret of the mount.

use keepfast_framework::fields::{Flag, Int, SignedSeconds, given};
use keepfast_framework::reply::Described;
use keepfast_framework::routes::Nothing;
use keepfast_framework::{Cx, Error, Records, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::V2;
use super::settings::format_duration;

const CONFIG: Records<Config> = Records::at("config");

/// The stored record.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    /// How many versions of a secret are kept; 0 means the default.
    pub max_versions: u64,
    /// Whether each write must give the version that it replaces.
    pub cas_required: bool,
    /// Whether each change of a secret's settings must give their revision.
    pub metadata_cas_required: bool,
    /// The TTL of versions in seconds; 0 means no TTL unless the secret has one, negative means no TTL for any secret.
    pub delete_version_after: i64,
}

impl Config {
    /// The mount's configuration.
    ///
    /// # Errors
    /// When storage fails.
    pub(super) async fn load(cx: &mut Cx) -> Result<Self> {
        Ok(CONFIG.get(cx, "").await?.unwrap_or_default())
    }
}

#[derive(Serialize, JsonSchema)]
pub(super) struct ConfigResponse {
    cas_required: bool,
    delete_version_after: String,
    max_versions: u64,
    metadata_cas_required: bool,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Change {
    /// Whether writes require `options.cas`, the version that they replace. Default: false.
    #[serde(default, deserialize_with = "given")]
    cas_required: Option<Flag>,
    /// Time in seconds after which a version is marked deleted. 0 means never unless the secret has its own time, a
    /// negative value never for any secret. Default: 0.
    #[serde(default, deserialize_with = "given")]
    delete_version_after: Option<SignedSeconds>,
    /// Number of versions of a secret that are kept; 0 means 10. Default: 0.
    #[serde(default, deserialize_with = "given")]
    max_versions: Option<Int>,
    /// Whether changes of a secret's metadata require `metadata_cas`. Default: false.
    #[serde(default, deserialize_with = "given")]
    metadata_cas_required: Option<Flag>,
}

pub(super) async fn read(_: &V2, cx: &mut Cx, _: Nothing) -> Result<Described<ConfigResponse>> {
    let config = Config::load(cx).await?;
    Ok(Described(ConfigResponse {
        cas_required: config.cas_required,
        delete_version_after: format_duration(config.delete_version_after),
        max_versions: config.max_versions,
        metadata_cas_required: config.metadata_cas_required,
    }))
}

pub(super) async fn write(_: &V2, cx: &mut Cx, change: Change) -> Result<()> {
    let mut config = Config::load(cx).await?;
    if let Some(Flag(required)) = change.cas_required {
        config.cas_required = required;
    }
    if let Some(Flag(required)) = change.metadata_cas_required {
        config.metadata_cas_required = required;
    }
    if let Some(number) = change.max_versions {
        config.max_versions = versions(number)?;
    }
    if let Some(SignedSeconds(ttl)) = change.delete_version_after {
        // Every negative value means the same.
        config.delete_version_after = ttl.max(-1);
    }
    CONFIG.put(cx, "", &config)
}

/// Converts a number of versions.
///
/// # Errors
/// 400 for a negative number or one above 4294967295.
pub(super) fn versions(number: Int) -> Result<u64> {
    match u32::try_from(number.0) {
        Ok(n) => Ok(u64::from(n)),
        Err(_) => Err(Error::invalid("max_versions must be between 0 and 4294967295")),
    }
}
