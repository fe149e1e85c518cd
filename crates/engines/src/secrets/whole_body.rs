//! A secret that is the whole body of its write, for KV version 1 and the cubbyhole.

use bytes::Bytes;
use keepfast_framework::fields::{RawObject, Text};
use keepfast_framework::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use super::raw_json;

/// The path parameter of a secret or folder.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct SecretPath {
    /// Location of the secret.
    pub(crate) path: Text,
}

/// A write of a secret.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Write {
    /// Location of the secret.
    pub(crate) path: Text,
    /// The secret.
    #[serde(rename = "$body")]
    data: RawObject,
}

impl Write {
    /// The secret as it is stored: the text of the body.
    ///
    /// # Errors
    /// 400 for an empty object and for escapes of unpaired surrogates.
    pub(crate) fn into_bytes(self) -> Result<Bytes> {
        if raw_json::is_empty(&self.data) {
            return Err(Error::invalid("missing data fields"));
        }
        raw_json::check_text(&self.data)?;
        Ok(Bytes::from(Box::<str>::from(self.data.0).into_string()))
    }
}

/// 400 for a write to a path with a final slash.
pub(crate) fn cannot_write_to_folder() -> Error {
    Error::invalid("cannot write to a path ending in '/'")
}
