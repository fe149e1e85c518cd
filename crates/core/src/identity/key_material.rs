//! The encoding of keys in locked memory in stored records: base64. For `#[serde(with = …)]`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::Zeroize as _;
use keepfast_crypto::locked::LockedBytes;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::Serializer;

/// Writes base64.
pub(crate) fn serialize<S: Serializer>(material: &LockedBytes, to: S) -> Result<S::Ok, S::Error> {
    let mut text = STANDARD.encode(material.expose());
    let written = to.serialize_str(&text);
    text.zeroize();
    written
}

/// Reads base64.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<LockedBytes, D::Error> {
    let mut text = String::deserialize(from)?;
    let decoded = STANDARD.decode(&text);
    text.zeroize();
    let mut bytes = decoded.map_err(|_| D::Error::custom("not base64"))?;
    let material = LockedBytes::new(&bytes);
    bytes.zeroize();
    Ok(material)
}
