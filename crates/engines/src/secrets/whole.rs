//! A secret that is the whole body of its write, as KV version 1 and the cubbyhole keep it.

use bytes::Bytes;
use keepfast_framework::fields::{RawObject, Text};
use keepfast_framework::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use super::raw_json;

/// A request that names a secret or a folder.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Named {
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
    /// The secret as it is stored: the text that was sent.
    ///
    /// # Errors
    /// 400 for an empty object, and for one whose escapes stand for no character.
    pub(crate) fn into_bytes(self) -> Result<Bytes> {
        if raw_json::is_empty(&self.data) {
            return Err(Error::invalid("missing data fields"));
        }
        raw_json::check_text(&self.data)?;
        Ok(Bytes::from(Box::<str>::from(self.data.0).into_string()))
    }
}

/// 400 for a write to a folder.
pub(crate) fn no_write_to_a_folder() -> Error {
    Error::invalid("cannot write to a path ending in '/'")
}
