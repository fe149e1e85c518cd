//! The stored record of a secret with its versions.
//!
//! The record `secret/PATH` holds the metadata, the states of all versions and the data of the current one. So a read
//! of the current version is one read of storage, and a write is one record plus, if there was a version before, its
//! data at `version/PATH/N`. All of it changes in the transaction of the request, so metadata and data are consistent.
//!
//! The record has three parts of JSON: the metadata with the state of the current version, the states of the older
//! versions, and the data as the client sent it. A header of a format byte and the lengths of the first two parts (4
//! bytes each, little endian) comes first, so a read parses the first part and copies the third, however long the
//! second is.

use std::collections::BTreeMap;

use bytes::Bytes;
use keepfast_framework::{Cx, Error, Result, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::V2;
use super::config::Config;
use super::settings::{Settings, is_zero};

/// The prefix of secrets by path.
pub(super) const SECRETS: &str = "secret/";
/// The prefix of the data of older versions by path and number.
const VERSIONS: &str = "version/";

/// The state of one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    pub created: Timestamp,
    /// When it was marked deleted, or will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub destroyed: bool,
}

impl Version {
    /// Whether reads no longer return its data.
    pub(super) fn is_gone(&self, now: Timestamp) -> bool {
        self.destroyed || self.deleted.is_some_and(|at| at <= now)
    }
}

/// The metadata of a secret without the states of older versions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Metadata {
    pub created: Timestamp,
    pub updated: Timestamp,
    /// The number of the current version; 0 if there never was one.
    #[serde(default)]
    pub current: u64,
    /// The state of the current version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// The lowest number that is kept after versions were pruned; 0 before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub oldest: u64,
    /// How often the settings were written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub revision: u64,
    #[serde(default, skip_serializing_if = "Settings::is_default")]
    pub settings: Settings,
}

/// A decoded secret, for changes.
#[derive(Clone)]
pub(super) struct Secret {
    pub metadata: Metadata,
    /// The states of the older versions, lowest number first.
    pub older: Vec<(u64, Version)>,
    /// The data of the current version, if it exists and is not destroyed.
    pub data: Option<Box<RawValue>>,
}

/// A record for reads: the data and the older versions stay unparsed text.
pub(super) struct Record<'a> {
    pub metadata: Metadata,
    older: &'a [u8],
    pub data: Option<&'a RawValue>,
}

/// The version of the record format.
const FORMAT: u8 = 1;
const LENGTHS: usize = 9;

impl<'a> Record<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let (metadata, older, data) = parts(bytes).ok_or_else(|| Error::internal("malformed record of a secret"))?;
        let data = if data.is_empty() { None } else { Some(serde_json::from_slice(data)?) };
        Ok(Record { metadata: serde_json::from_slice(metadata)?, older, data })
    }

    pub(super) fn older(&self) -> Result<Vec<(u64, Version)>> {
        Ok(serde_json::from_slice(self.older)?)
    }
}

/// The three parts of a record.
fn parts(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (&[FORMAT, a, b, c, d, e, f, g, h], rest) = bytes.split_first_chunk::<LENGTHS>()? else {
        return None;
    };
    let (metadata, rest) = rest.split_at_checked(u32::from_le_bytes([a, b, c, d]) as usize)?;
    let (older, data) = rest.split_at_checked(u32::from_le_bytes([e, f, g, h]) as usize)?;
    Some((metadata, older, data))
}

/// The bytes of the record at `path`.
///
/// # Errors
/// When storage fails.
pub(super) async fn bytes(kv: &V2, cx: &mut Cx, path: &str) -> Result<Option<Bytes>> {
    let (tx, view) = cx.store();
    match tx.get(view, &format!("{SECRETS}{path}")).await? {
        // During an upgrade of the mount the secret may still be one of version 1.
        None => kv.upgrade.find(cx, path).await?.map(|secret| secret.encode()).transpose(),
        found => Ok(found),
    }
}

/// The data of an older version, as JSON text.
///
/// # Errors
/// When storage fails.
pub(super) async fn older_data(cx: &mut Cx, path: &str, number: u64) -> Result<Option<Bytes>> {
    let (tx, view) = cx.store();
    Ok(tx.get(view, &version_key(path, number)).await?)
}

fn version_key(path: &str, number: u64) -> String {
    format!("{VERSIONS}{path}/{number}")
}

impl Secret {
    /// A secret without versions.
    pub(super) fn new(now: Timestamp) -> Self {
        let metadata = Metadata {
            created: now,
            updated: now,
            current: 0,
            version: None,
            oldest: 0,
            revision: 0,
            settings: Settings::default(),
        };
        Secret { metadata, older: Vec::new(), data: None }
    }

    /// The secret at `path`.
    ///
    /// # Errors
    /// When storage fails.
    pub(super) async fn load(kv: &V2, cx: &mut Cx, path: &str) -> Result<Option<Self>> {
        bytes(kv, cx, path).await?.map(|bytes| Self::decode(&bytes)).transpose()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let record = Record::parse(bytes)?;
        Ok(Secret { older: record.older()?, data: record.data.map(ToOwned::to_owned), metadata: record.metadata })
    }

    pub(super) fn encode(&self) -> Result<Bytes> {
        let data = self.data.as_deref().map_or("", RawValue::get);
        let mut out = Vec::with_capacity(LENGTHS + 256 + 48 * self.older.len() + data.len());
        out.resize(LENGTHS, FORMAT);
        serde_json::to_writer(&mut out, &self.metadata)?;
        let metadata_end = out.len();
        serde_json::to_writer(&mut out, &self.older)?;
        for (at, length) in [(1, metadata_end - LENGTHS), (5, out.len() - metadata_end)] {
            let length = u32::try_from(length).map_err(Error::internal)?;
            out[at..at + 4].copy_from_slice(&length.to_le_bytes());
        }
        out.extend_from_slice(data.as_bytes());
        Ok(Bytes::from(out))
    }

    /// Writes the record when the request's transaction commits.
    ///
    /// # Errors
    /// When it cannot be encoded as JSON.
    pub(super) fn save(&self, kv: &V2, cx: &mut Cx, path: &str) -> Result<()> {
        let bytes = self.encode()?;
        kv.upgrade.delete_v1(cx, path);
        let (tx, view) = cx.store();
        tx.put(view, &format!("{SECRETS}{path}"), bytes);
        Ok(())
    }

    /// Removes the secret with all its versions when the request's transaction commits.
    pub(super) fn remove(self, kv: &V2, cx: &mut Cx, path: &str) {
        kv.upgrade.delete_v1(cx, path);
        let (tx, view) = cx.store();
        tx.delete(view, &format!("{SECRETS}{path}"));
        for (number, version) in self.older {
            if !version.destroyed {
                tx.delete(view, &version_key(path, number));
            }
        }
    }

    /// The state of a version.
    pub(super) fn version_mut(&mut self, number: u64) -> Option<&mut Version> {
        if number == self.metadata.current {
            return self.metadata.version.as_mut();
        }
        let at = self.older.binary_search_by_key(&number, |(n, _)| *n).ok()?;
        self.older.get_mut(at).map(|(_, version)| version)
    }

    /// Sets and returns the time of the last change; for a new secret that is the time of its creation.
    pub(super) fn touch(&mut self, cx: &Cx) -> Timestamp {
        let now = cx.now();
        if self.metadata.current == 0 && self.metadata.revision == 0 {
            self.metadata.created = now;
        }
        self.metadata.updated = now;
        now
    }

    /// Makes `data` the next version, moves the current one to the older versions and prunes those beyond the limit.
    /// The caller calls [`Secret::save`] afterwards.
    pub(super) fn add_version(&mut self, cx: &mut Cx, path: &str, data: Box<RawValue>, config: &Config) {
        let now = self.touch(cx);
        let (tx, view) = cx.store();
        if let Some(version) = self.metadata.version {
            self.older.push((self.metadata.current, version));
            if !version.destroyed {
                let data =
                    self.data.take().map_or_else(|| "null".to_owned(), |data| Box::<str>::from(data).into_string());
                tx.put(view, &version_key(path, self.metadata.current), Bytes::from(data));
            }
        }
        self.metadata.current += 1;
        let deleted = self.metadata.settings.deletion(config, now);
        self.metadata.version = Some(Version { created: now, deleted, destroyed: false });
        self.data = Some(data);

        let keep = self.metadata.settings.versions_to_keep(config);
        let excess = (self.older.len() as u64 + 1).saturating_sub(keep) as usize;
        for (number, version) in self.older.drain(..excess) {
            if !version.destroyed {
                tx.delete(view, &version_key(path, number));
            }
        }
        if excess > 0 {
            self.metadata.oldest = self.older.first().map_or(self.metadata.current, |(number, _)| *number);
        }
    }

    /// Permanently removes the data of a version; returns whether there was any.
    pub(super) fn destroy(&mut self, cx: &mut Cx, path: &str, number: u64) -> bool {
        let Some(version) = self.version_mut(number).filter(|version| !version.destroyed) else {
            return false;
        };
        version.destroyed = true;
        if number == self.metadata.current {
            self.data = None;
        } else {
            let (tx, view) = cx.store();
            tx.delete(view, &version_key(path, number));
        }
        true
    }
}

/// A version in responses.
#[derive(Serialize, JsonSchema)]
#[allow(missing_docs, reason = "the names are the API's own")]
pub(super) struct VersionResponse {
    created_time: String,
    custom_metadata: Option<BTreeMap<String, String>>,
    deletion_time: String,
    destroyed: bool,
    version: u64,
}

impl VersionResponse {
    pub(super) fn new(metadata: &mut Metadata, number: u64, version: &Version) -> Self {
        VersionResponse {
            created_time: version.created.rfc3339(),
            custom_metadata: metadata.settings.custom_metadata.take(),
            deletion_time: format_time(version.deleted),
            destroyed: version.destroyed,
            version: number,
        }
    }

    /// The current version of a secret.
    ///
    /// # Errors
    /// When it has none; the caller has excluded that.
    pub(super) fn current(mut secret: Secret) -> Result<Self> {
        let version = secret.metadata.version.ok_or_else(|| Error::internal("a secret without a version"))?;
        let number = secret.metadata.current;
        Ok(Self::new(&mut secret.metadata, number, &version))
    }
}

/// A time in responses; empty for `None`.
pub(super) fn format_time(time: Option<Timestamp>) -> String {
    time.map(Timestamp::rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by the first version of this format, with each of its fields. It must stay readable.
    const GOLDEN: &str = concat!(
        r#"{"created":1767225600000000000,"updated":1767225600000000003,"current":3,"version":{"created":1767225600000000003,"#,
        r#""deleted":1767225600000000009,"destroyed":true},"oldest":2,"revision":7,"settings":{"max_versions":2,"#,
        r#""cas_required":true,"metadata_cas_required":true,"delete_version_after":60,"custom_metadata":{"a":"b"}}}"#,
    );

    #[test]
    fn the_first_record_format_is_read_and_written() {
        let older = r#"[[2,{"created":1767225600000000002}]]"#;
        let data = r#"{"n": 1.10}"#;
        let mut golden = vec![1];
        golden.extend_from_slice(&(GOLDEN.len() as u32).to_le_bytes());
        golden.extend_from_slice(&(older.len() as u32).to_le_bytes());
        golden.extend_from_slice(format!("{GOLDEN}{older}{data}").as_bytes());
        let secret = Secret::decode(&golden).unwrap();
        let at = |nanos: i64| Timestamp::from_nanos(1_767_225_600_000_000_000 + nanos);
        assert_eq!((secret.metadata.current, secret.metadata.oldest, secret.metadata.revision), (3, 2, 7));
        let current = Version { created: at(3), deleted: Some(at(9)), destroyed: true };
        assert_eq!(secret.metadata.version, Some(current));
        assert_eq!(secret.older, [(2, Version { created: at(2), deleted: None, destroyed: false })]);
        assert_eq!(secret.metadata.settings.custom_metadata.as_ref().unwrap()["a"], "b");
        assert_eq!(secret.data.as_ref().unwrap().get(), data);
        assert_eq!(secret.encode().unwrap(), golden);
    }

    #[test]
    fn a_damaged_record_is_an_error_and_not_a_panic() {
        let whole = Secret::new(Timestamp::EPOCH).encode().unwrap();
        assert!(Secret::decode(&whole).is_ok());
        for cut in 0..whole.len() {
            assert!(Secret::decode(&whole[..cut]).is_err(), "cut at {cut}");
        }
        let mut other = whole.to_vec();
        other[0] = 2;
        assert!(Secret::decode(&other).is_err());
    }
}
