//! `hmac/` and the HMACs of `verify/`: with a key of type hmac itself, otherwise with the HMAC key of the version.

use keepfast_crypto::compare;
use keepfast_crypto::keys::digest::Hash;
use keepfast_framework::fields::{Int, Quoted, Text, given};
use keepfast_framework::{Cx, Data, Error, Outcome, Reply, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Transit;
use super::batch::{self, Item};
use super::codec::{self, TagError};
use super::encrypt::{ItemError, require_key};
use super::keys::check_name;
use super::named_key::NamedKey;

#[derive(Deserialize, JsonSchema)]
pub(super) struct HmacRequest {
    /// Name of the key.
    name: Text,
    /// Base64 of the input.
    #[serde(default, deserialize_with = "given")]
    input: Option<Text>,
    /// Hash function, in the path.
    urlalgorithm: Option<Text>,
    /// Hash function; sha2-256 when absent.
    #[serde(default, deserialize_with = "given")]
    algorithm: Option<Text>,
    /// Version of the key; 0 for the latest.
    key_version: Option<Int>,
    /// Several items in one request.
    #[serde(default, deserialize_with = "batch::unless_null")]
    batch_input: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct HmacResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    hmac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ItemError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
}

pub(super) async fn hmac(transit: &Transit, cx: &mut Cx, req: HmacRequest) -> Result<Outcome> {
    let name = check_name(&req.name)?;
    let named_key = require_key(transit, cx, name).await?;
    let version = version_of(&named_key, req.key_version.unwrap_or_default().0)?;
    let requested = req
        .urlalgorithm
        .filter(|name| !name.is_empty())
        .or(req.algorithm)
        .map_or_else(|| "sha2-256".to_owned(), String::from);
    let hash = hash_by_name(&requested, "unsupported algorithm")?;
    let Some(raw) = &req.batch_input else {
        let input = req.input.map(String::from);
        let mac = mac_item(&named_key, version, hash, input.as_deref()).map_err(Error::invalid)?;
        return Data(HmacResult { hmac: Some(mac), error: None, reference: None }).into_outcome();
    };
    let results = batch::lenient_items(raw, false)?.into_iter().map(|item| {
        let (hmac, error) = match mac_item(&named_key, version, hash, item.input.as_deref()) {
            Ok(mac) => (Some(mac), None),
            Err(error) => (None, Some(error)),
        };
        HmacResult { hmac, error, reference: Some(item.reference.unwrap_or_default()) }
    });
    batch::respond(results.collect())
}

fn version_of(named_key: &NamedKey, requested: i64) -> Result<u32> {
    let latest = named_key.record.latest;
    match u32::try_from(requested) {
        Ok(0) => Ok(latest),
        Ok(version) if version > latest => {
            Err(Error::invalid(format!("key version does not exist; latest key version is {latest}")))
        }
        Ok(version) if version < named_key.record.min_encryption => {
            Err(Error::invalid("cannot generate HMAC: version is too old (disallowed by policy)"))
        }
        Ok(version) => Ok(version),
        Err(_) if requested < 0 => Err(Error::invalid("key version does not exist (cannot be negative)")),
        Err(_) => Err(Error::invalid(format!("key version does not exist; latest key version is {latest}"))),
    }
}

fn mac_item(named_key: &NamedKey, version: u32, hash: Hash, input: Option<&str>) -> Result<String, ItemError> {
    let input = input.ok_or("missing input for HMAC")?;
    let input = codec::decode(input).map_err(|why| format!("unable to decode input as base64: {why}"))?;
    Ok(codec::tagged(version, &mac(named_key, version, hash, &input)?))
}

fn mac(named_key: &NamedKey, version: u32, hash: Hash, input: &[u8]) -> Result<Vec<u8>, ItemError> {
    let stored = named_key.record.live_version(version).ok_or("no such key version")?;
    Ok(hash.hmac(stored.hmac.expose(), input))
}

/// The hash function of a verification.
pub(super) fn hash_for_verify(requested: Option<&Text>) -> Result<Hash> {
    let name = requested.map(|text| &**text).filter(|name| !name.is_empty()).unwrap_or("sha2-256");
    hash_by_name(name, "invalid hash algorithm")
}

fn hash_by_name(name: &str, error_text: &str) -> Result<Hash> {
    if name == "none" {
        return Err(Error::invalid("algorithm cannot be none"));
    }
    Hash::from_name(name).ok_or_else(|| Error::invalid(format!("{error_text} {}", Quoted(name))))
}

/// Verifies the HMAC of one item.
pub(super) fn verify_item(named_key: &NamedKey, hash: Hash, item: &Item) -> Result<bool, ItemError> {
    let input = item.input.as_deref().ok_or("missing input")?;
    let input = codec::decode(input).map_err(|why| format!("unable to decode input as base64: {why}"))?;
    let text = item.hmac.as_deref().unwrap_or_default();
    let (version, body) = codec::parse_tagged(text).map_err(|why| match why {
        TagError::NoPrefix => "invalid HMAC to verify: no prefix",
        TagError::WrongFields => "invalid HMAC: wrong number of fields",
        TagError::NoVersion => "invalid HMAC: version number could not be decoded",
    })?;
    let given = codec::decode(body).map_err(|why| format!("unable to decode verification HMAC as base64: {why}"))?;
    if version > i64::from(named_key.record.latest) {
        return Err("invalid HMAC: version is too new".into());
    }
    if version < i64::from(named_key.record.min_decryption) {
        return Err("cannot verify HMAC: version is too old (disallowed by policy)".into());
    }
    let version = u32::try_from(version).map_err(|_| "invalid HMAC: version is too new")?;
    Ok(compare::equal(&given, &mac(named_key, version, hash, &input)?))
}
