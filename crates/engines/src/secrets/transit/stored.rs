//! The encoding of secret bytes and key kinds in stored records: base64 and names.

use keepfast_crypto::Zeroize;
use keepfast_crypto::keys::{EXTERNAL, KeyKind};
use keepfast_crypto::locked::LockedBytes;
use keepfast_framework::Timestamp;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::ser::{Serialize, Serializer};

use super::codec;

/// Secret bytes of a stored record, in locked memory. Only the barrier may use its `Serialize`; responses consist of
/// other types, so none can contain it.
#[derive(Clone)]
pub(super) struct Material(LockedBytes);

impl Material {
    /// Copies bytes into locked memory.
    pub(super) fn new(bytes: &[u8]) -> Self {
        Material(LockedBytes::new(bytes))
    }

    /// The bytes.
    pub(super) fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}

impl Serialize for Material {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = codec::encode(self.expose());
        let written = serializer.serialize_str(&text);
        text.zeroize();
        written
    }
}

impl<'de> Deserialize<'de> for Material {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Material;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("base64")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Material, E> {
                let mut bytes = codec::decode(text).map_err(|_| E::custom("not base64"))?;
                let material = Material::new(&bytes);
                bytes.zeroize();
                Ok(material)
            }
        }
        deserializer.deserialize_str(Read)
    }
}

/// The name of a key kind in the API.
pub(super) mod by_name {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(kind: &KeyKind, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(kind.name())
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<KeyKind, D::Error> {
        let name = String::deserialize(deserializer)?;
        let external = (name == EXTERNAL).then_some(KeyKind::External);
        external.or(KeyKind::from_name(&name)).ok_or_else(|| D::Error::custom("unknown kind of key"))
    }
}

/// Public DER as base64.
pub(super) mod der {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(der: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        der.as_deref().map(codec::encode).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| codec::decode(&text).map_err(|_| D::Error::custom("not base64"))).transpose()
    }
}

/// A time as text (RFC 3339), as in OpenBao.
pub(super) mod rfc3339 {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&time.rfc3339())
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        Timestamp::parse_rfc3339(&text).ok_or_else(|| D::Error::custom("not a time"))
    }
}
