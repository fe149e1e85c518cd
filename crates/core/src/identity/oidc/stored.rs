//! The encoding of secret texts in stored records and in responses.

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
