//! `metadata/PATH` and `detailed-metadata/PATH`: settings and versions of secrets, lists and scans.

use std::collections::BTreeMap;

use keepfast_framework::fields::{Flag, Int, RawObject, Seconds, Text, given};
use keepfast_framework::reply::Described;
use keepfast_framework::{Cx, Error, Keys, Outcome, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::config::{self, Config};
use super::custom_metadata;
use super::data::bare_not_found;
use super::secret::{Secret, Version, format_time};
use super::settings::{Settings, format_duration};
use super::{SecretPath, V2};
use crate::secrets::tree::{Listing, Tree};

#[derive(Deserialize, JsonSchema)]
pub(super) struct Change {
    /// Location of the secret.
    path: Text,
    /// Whether writes require `options.cas`, the version that they replace. The mount can require it too. Default:
    /// false.
    #[serde(default, deserialize_with = "given")]
    cas_required: Option<Flag>,
    /// Name-value pairs that describe the secret: at most 64, with names of at most 128 and values of at most 512
    /// bytes.
    #[serde(default, deserialize_with = "given")]
    custom_metadata: Option<RawObject>,
    /// Time in seconds after which a version is marked deleted. 0 means that of the mount, which also applies if it is
    /// shorter. Default: 0.
    #[serde(default, deserialize_with = "given")]
    delete_version_after: Option<Seconds>,
    /// Number of versions that are kept. 0 means the number of the mount, which also applies if it is greater. Default:
    /// 0.
    #[serde(default, deserialize_with = "given")]
    max_versions: Option<Int>,
    /// Check-and-set of the metadata: the `current_metadata_version` that the change replaces; 0 if the secret must not
    /// exist.
    #[serde(default, deserialize_with = "given")]
    metadata_cas: Option<Int>,
    /// Whether changes of the metadata require `metadata_cas`. The mount can require it too. Default: false.
    #[serde(default, deserialize_with = "given")]
    metadata_cas_required: Option<Flag>,
    /// Ignored; for lists, which have the same path.
    #[allow(dead_code, reason = "a known parameter is type-checked")]
    after: Option<Text>,
    /// Ignored; for lists, which have the same path.
    #[allow(dead_code, reason = "a known parameter is type-checked")]
    limit: Option<Int>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct MetadataResponse {
    cas_required: bool,
    created_time: String,
    current_metadata_version: u64,
    current_version: u64,
    custom_metadata: Option<BTreeMap<String, String>>,
    delete_version_after: String,
    max_versions: u64,
    metadata_cas_required: bool,
    oldest_version: u64,
    updated_time: String,
    versions: BTreeMap<u64, VersionTimes>,
}

#[derive(Serialize, JsonSchema)]
struct VersionTimes {
    created_time: String,
    deletion_time: String,
    destroyed: bool,
}

impl MetadataResponse {
    fn new(secret: Secret) -> Self {
        let Secret { metadata, older, .. } = secret;
        let current = metadata.version.map(|version| (metadata.current, version));
        let times = |version: Version| VersionTimes {
            created_time: version.created.rfc3339(),
            deletion_time: format_time(version.deleted),
            destroyed: version.destroyed,
        };
        MetadataResponse {
            cas_required: metadata.settings.cas_required,
            created_time: metadata.created.rfc3339(),
            current_metadata_version: metadata.revision,
            current_version: metadata.current,
            custom_metadata: metadata.settings.custom_metadata,
            delete_version_after: format_duration(
                i64::try_from(metadata.settings.delete_version_after).unwrap_or(i64::MAX),
            ),
            max_versions: metadata.settings.max_versions,
            metadata_cas_required: metadata.settings.metadata_cas_required,
            oldest_version: metadata.oldest,
            updated_time: metadata.updated.rfc3339(),
            versions: older.into_iter().chain(current).map(|(number, version)| (number, times(version))).collect(),
        }
    }
}

/// The parameters of a read. Those of lists, which have the same path, are accepted and ignored.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Read {
    /// Location of the secret.
    path: Text,
    /// Ignored; for lists, which have the same path.
    #[allow(dead_code, reason = "a known parameter is type-checked")]
    after: Option<Text>,
    /// Ignored; for lists, which have the same path.
    #[allow(dead_code, reason = "a known parameter is type-checked")]
    limit: Option<Int>,
}

pub(super) async fn read(kv: &V2, cx: &mut Cx, req: Read) -> Result<Option<Described<MetadataResponse>>> {
    Ok(Secret::load(kv, cx, &req.path).await?.map(MetadataResponse::new).map(Described))
}

pub(super) async fn write(kv: &V2, cx: &mut Cx, change: Change) -> Result<()> {
    if change.is_empty() {
        return Ok(());
    }
    let found = Secret::load(kv, cx, &change.path).await?;
    let config = Config::load(cx).await?;
    change.check_cas(found.as_ref(), &config)?;
    let secret = found.unwrap_or_else(|| Secret::new(cx.now()));
    let custom = change.custom_metadata.as_ref().map(custom_metadata::read).transpose()?;
    change.apply(kv, cx, secret, custom, &config)
}

pub(super) async fn patch(kv: &V2, cx: &mut Cx, change: Change) -> Result<Outcome> {
    // A patch without settings skips all checks.
    if change.is_empty() {
        return Ok(Outcome::Empty(None));
    }
    let Some(mut secret) = Secret::load(kv, cx, &change.path).await? else {
        if let Some(sent) = &change.custom_metadata {
            custom_metadata::patch(BTreeMap::new(), sent)?;
        }
        return Ok(bare_not_found());
    };
    let config = Config::load(cx).await?;
    change.check_cas(Some(&secret), &config)?;
    let before = secret.metadata.settings.custom_metadata.take().unwrap_or_default();
    let custom = match &change.custom_metadata {
        Some(sent) => custom_metadata::patch(before, sent)?,
        None => before,
    };
    change.apply(kv, cx, secret, Some(custom), &config)?;
    Ok(Outcome::Empty(None))
}

impl Change {
    /// Whether the request has no settings.
    fn is_empty(&self) -> bool {
        self.cas_required.is_none()
            && self.custom_metadata.is_none()
            && self.delete_version_after.is_none()
            && self.max_versions.is_none()
            && self.metadata_cas_required.is_none()
    }

    /// Checks the revision of the settings.
    fn check_cas(&self, found: Option<&Secret>, config: &Config) -> Result<()> {
        let required = config.metadata_cas_required || found.is_some_and(|s| s.metadata.settings.metadata_cas_required);
        match (self.metadata_cas, found) {
            (None, _) if required => Err(Error::invalid("metadata check-and-set parameter required for this call")),
            (Some(Int(cas)), None) if cas != 0 => {
                Err(Error::invalid("metadata_cas must be 0 when creating new metadata"))
            }
            (Some(Int(cas)), Some(secret)) if u64::try_from(cas) != Ok(secret.metadata.revision) => {
                Err(Error::invalid("metadata check-and-set parameter does not match the current version"))
            }
            _ => Ok(()),
        }
    }

    /// Writes the settings; `custom` replaces the custom metadata if present.
    fn apply(
        self,
        kv: &V2,
        cx: &mut Cx,
        mut secret: Secret,
        custom: Option<BTreeMap<String, String>>,
        config: &Config,
    ) -> Result<()> {
        let settings = &mut secret.metadata.settings;
        let Settings { max_versions, cas_required, metadata_cas_required, delete_version_after, custom_metadata } =
            settings;
        if let Some(number) = self.max_versions {
            *max_versions = config::versions(number)?;
        }
        if let Some(Seconds(ttl)) = self.delete_version_after {
            *delete_version_after = ttl;
        }
        if let Some(custom) = custom {
            *custom_metadata = Some(custom).filter(|pairs| !pairs.is_empty());
        }
        for (sent, required, mandated, name) in [
            (self.cas_required, cas_required, config.cas_required, "cas_required"),
            (self.metadata_cas_required, metadata_cas_required, config.metadata_cas_required, "metadata_cas_required"),
        ] {
            let Some(Flag(yes)) = sent else { continue };
            *required = yes;
            if mandated && !yes {
                cx.warn(format!(
                    "\"{name}\" set to false, but is mandated by backend config. This value will be ignored."
                ));
            }
        }
        secret.touch(cx);
        secret.metadata.revision += 1;
        secret.save(kv, cx, &self.path)
    }
}

/// Deletes the secret with all its versions.
pub(super) async fn delete(kv: &V2, cx: &mut Cx, req: SecretPath) -> Result<()> {
    if let Some(secret) = Secret::load(kv, cx, &req.path).await? {
        secret.remove(kv, cx, &req.path);
    }
    Ok(())
}

pub(super) async fn list(kv: &V2, cx: &mut Cx, req: Listing) -> Result<Keys> {
    Ok(Keys::of(Tree::under(kv.upgrade.prefixes()).list(cx, &req.folder(), &req.page()).await?))
}

pub(super) async fn scan(kv: &V2, cx: &mut Cx, req: Listing) -> Result<Keys> {
    let keys = Tree::under(kv.upgrade.prefixes()).scan(cx, &req.folder(), &req.page()).await?;
    Ok(Keys { keys, empty_is_fine: true, ..Keys::default() })
}

pub(super) async fn list_detailed(kv: &V2, cx: &mut Cx, req: Listing) -> Result<Keys> {
    let keys = list(kv, cx, req.clone()).await?.keys;
    with_details(kv, cx, &req.folder(), keys).await
}

pub(super) async fn scan_detailed(kv: &V2, cx: &mut Cx, req: Listing) -> Result<Keys> {
    let keys = scan(kv, cx, req.clone()).await?.keys;
    if keys.is_empty() {
        return Ok(Keys { empty_is_fine: true, ..Keys::default() });
    }
    with_details(kv, cx, &req.folder(), keys).await
}

/// The entry of a key in `key_info`: the metadata of the secret with its name, or `{}` for a folder without such a
/// secret.
#[derive(Serialize)]
#[serde(untagged)]
enum Detail {
    Folder {},
    Secret(Box<MetadataResponse>),
}

async fn with_details(kv: &V2, cx: &mut Cx, folder: &str, keys: Vec<String>) -> Result<Keys> {
    let mut details = BTreeMap::new();
    for name in &keys {
        let secret = Secret::load(kv, cx, &format!("{folder}{}", name.trim_end_matches('/'))).await?;
        let detail = match secret {
            Some(secret) => Detail::Secret(Box::new(MetadataResponse::new(secret))),
            None if name.ends_with('/') => Detail::Folder {},
            // Deleted since the names were listed.
            None => continue,
        };
        details.insert(name, detail);
    }
    Keys::with_info(keys.clone(), &details)
}
