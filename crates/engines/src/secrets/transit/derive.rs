//! `derive-key/`: key agreement with another public key (ECDH, then HKDF-SHA-256).

use keepfast_crypto::kdf;
use keepfast_crypto::keys::ecdsa::EcKey;
use keepfast_crypto::keys::symmetric::Cipher;
use keepfast_crypto::keys::{Key, KeyKind, pem};
use keepfast_crypto::locked::LockedBytes;
use keepfast_framework::fields::{Int, Text, given};
use keepfast_framework::{Cx, Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Transit;
use super::keys::check_name;
use super::named_key::{KEYS, NewKey};

#[derive(Deserialize, JsonSchema)]
pub(super) struct Derive {
    /// Name of the derived key; an existing key gets a new version.
    name: Text,
    /// Name of the ECDSA key of this mount.
    base_key_name: Option<Text>,
    /// Version of that key; 0 for the latest.
    base_key_version: Option<Int>,
    /// PEM of the other public key.
    peer_public_key: Option<Text>,
    /// `ecdh`.
    #[serde(default, deserialize_with = "given")]
    key_derivation_algorithm: Option<Text>,
    /// Type of the derived key, a cipher; aes256-gcm96 when absent.
    #[serde(default, deserialize_with = "given")]
    derived_key_type: Option<Text>,
}

pub(super) async fn derive(transit: &Transit, cx: &mut Cx, req: Derive) -> Result<()> {
    let name = check_name(&req.name)?;
    match req.key_derivation_algorithm.as_deref() {
        None | Some("ecdh") => {}
        Some(other) => return Err(Error::invalid(format!("key derivation algorithm {other} not supported"))),
    }
    let peer = req.peer_public_key.filter(|text| !text.is_empty());
    let peer = peer.ok_or_else(|| Error::invalid("peer public key not provided"))?;
    let base = transit.key_cache.get(cx, req.base_key_name.as_deref().unwrap_or_default()).await?;
    let base = base.ok_or_else(|| Error::invalid("specified base key not found"))?;
    base.record.usable()?;
    let KeyKind::Ecdsa(curve) = base.record.kind else {
        return Err(Error::invalid(format!(
            "base key type {} does not support key agreement",
            base.record.kind.name()
        )));
    };
    let cipher = cipher_by_name(req.derived_key_type.as_deref())?;
    let requested = req.base_key_version.unwrap_or_default().0;
    let version = match u32::try_from(requested) {
        Ok(0) => base.record.latest,
        Ok(version) if version <= base.record.latest => version,
        Ok(_) => return Err(Error::invalid("requested version of the base key is higher than the latest key version")),
        Err(_) => return Err(Error::invalid("requested version of the base key is negative")),
    };
    let (_, spki) = pem::decode(&peer).ok_or_else(|| {
        Error::invalid("failed to parse supplied peer public key PEM: data does not contain any valid public keys")
    })?;
    let peer = EcKey::from_spki(curve, &spki)
        .map_err(|_| Error::invalid(format!("supplied peer public key is not an ECDSA key on {}", curve.name())))?;
    let Some(Key::Ecdsa(own)) = base.key(version).map_err(Error::internal)?.map(|key| &**key) else {
        return Err(Error::invalid("no such base key version"));
    };
    let shared = own.agree(&peer).map_err(|_| Error::invalid("the base key version does not have a private part"))?;
    let mut derived = LockedBytes::zeroed(cipher.key_size());
    kdf::hkdf_sha256(shared.expose(), &[], &[], derived.expose_mut());
    let kind = KeyKind::Symmetric(cipher);
    let mut record = match KEYS.get(cx, name).await? {
        Some(existing) if existing.kind != kind => {
            let why = format!("the existing key is of type {}, not {}", existing.kind.name(), kind.name());
            return Err(Error::invalid(why));
        }
        // The owner of the other key can compute the new version, so ciphertexts of a generated key must not use it.
        Some(existing) if !existing.imported => {
            return Err(Error::invalid(
                "the existing key was generated; only imported and derived keys take a derived version",
            ));
        }
        Some(existing) => existing,
        None => {
            let mut record = NewKey::of(kind).record();
            record.imported = true;
            record
        }
    };
    record.add(Some(derived.expose()), None, cx.now());
    KEYS.put(cx, name, &record)
}

/// The cipher of the derived key.
fn cipher_by_name(name: Option<&str>) -> Result<Cipher> {
    let name = name.unwrap_or("aes256-gcm96");
    match KeyKind::from_name(name) {
        Some(KeyKind::Symmetric(cipher)) => Ok(cipher),
        _ => Err(Error::invalid(format!("unknown key type {name}"))),
    }
}
