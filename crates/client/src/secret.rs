//! The envelope that all responses of the API share.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A response: data, a login or wrapping information, with lease and warnings.
///
/// It serialises in the field order of the API. `Debug` prints no values.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Secret {
    /// The id of the request, as in the audit log.
    pub request_id: String,
    /// The id of the lease; empty when there is none.
    pub lease_id: String,
    /// The TTL of the lease in seconds.
    pub lease_duration: i64,
    /// Whether the lease can be renewed.
    pub renewable: bool,
    /// The data of the response.
    pub data: Option<Map<String, Value>>,
    /// Warnings of the server.
    pub warnings: Option<Vec<String>>,
    /// The token of a login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// The wrapping token that holds the actual response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrap_info: Option<WrapInfo>,
}

/// The result of a login, a token creation or a token renewal.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Auth {
    /// The token.
    pub client_token: String,
    /// Its accessor.
    pub accessor: String,
    /// All of its policies.
    pub policies: Option<Vec<String>>,
    /// The policies of the token itself.
    pub token_policies: Option<Vec<String>>,
    /// The policies of its entity.
    pub identity_policies: Option<Vec<String>>,
    /// Key-value metadata.
    pub metadata: Option<Map<String, Value>>,
    /// Whether it has no parent.
    pub orphan: bool,
    /// The entity of the token; may be empty.
    pub entity_id: String,
    /// The TTL in seconds; 0 means no expiry.
    pub lease_duration: i64,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// The MFA requirement that the login still has to meet.
    pub mfa_requirement: Option<Value>,
}

/// Wrapping information instead of a response.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct WrapInfo {
    /// The wrapping token, which unwraps once.
    pub token: String,
    /// Its accessor.
    pub accessor: String,
    /// The TTL in seconds.
    pub ttl: i64,
    /// The time of creation (RFC 3339).
    pub creation_time: String,
    /// The path of the wrapped request.
    pub creation_path: String,
    /// The accessor of the token inside, when a token is wrapped.
    pub wrapped_accessor: String,
}

impl Secret {
    /// A field of `data`.
    pub fn data_field(&self, name: &str) -> Option<&Value> {
        self.data.as_ref()?.get(name)
    }

    /// A field of `data` that is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.data_field(name)?.as_str()
    }

    /// Parses the body of a response. Some old paths have no envelope; their fields become `data`.
    ///
    /// # Errors
    /// When the body is not a JSON object.
    pub fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        let whole: Map<String, Value> = serde_json::from_slice(body)?;
        if is_envelope(&whole) {
            serde_json::from_value(Value::Object(whole))
        } else {
            Ok(Self { data: Some(whole), ..Self::default() })
        }
    }

    /// Whether it has data, a login, wrapping information or a warning.
    pub fn has_content(&self) -> bool {
        let warned = self.warnings.as_ref().is_some_and(|list| !list.is_empty());
        warned || self.data.is_some() || self.auth.is_some() || self.wrap_info.is_some()
    }
}

/// Whether an object has a member of the envelope.
pub(crate) fn is_envelope(object: &Map<String, Value>) -> bool {
    ["data", "auth", "wrap_info", "lease_id", "warnings"].iter().any(|field| object.contains_key(*field))
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("request_id", &self.request_id)
            .field("lease_id", &self.lease_id)
            .field("has_data", &self.data.is_some())
            .field("has_auth", &self.auth.is_some())
            .field("has_wrap_info", &self.wrap_info.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn a_response_without_an_envelope_becomes_data() {
        let bare = Secret::parse(br#"{"sealed":false,"t":1}"#).unwrap();
        assert_eq!(bare.data_field("t"), Some(&Value::from(1)));
        let full = Secret::parse(br#"{"request_id":"r","data":{"a":"b"},"auth":null,"warnings":null}"#).unwrap();
        assert_eq!(full.text("a"), Some("b"));
        assert!(full.auth.is_none());
        assert!(Secret::parse(b"[]").is_err());
    }

    #[test]
    fn debug_prints_no_value() {
        let secret = Secret::parse(br#"{"data":{"password":"hunter2"},"auth":{"client_token":"hvs.x"}}"#).unwrap();
        let printed = format!("{secret:?}");
        assert!(!printed.contains("hunter2") && !printed.contains("hvs.x"), "{printed}");
    }
}
