//! The encoding of secrets in stored records and in responses.

/// A private key in locked memory, stored as base64.
pub(super) mod material {
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
}

/// A secret text: that of a client, `None` for a public one, or a token or code in a response.
pub(super) mod secret_text {
    use keepfast_crypto::secret::SecretString;
    use serde::de::{Deserialize, Deserializer};
    use serde::ser::Serializer;

    /// Writes the text.
    pub(crate) fn serialize<S: Serializer>(secret: &Option<SecretString>, to: S) -> Result<S::Ok, S::Error> {
        match secret {
            Some(secret) => to.serialize_str(secret.expose()),
            None => to.serialize_none(),
        }
    }

    /// Reads the text.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SecretString>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(SecretString::new))
    }
}
