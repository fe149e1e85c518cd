//! Texts of responses, which may hold tokens and passwords: wiped when the last owner drops them.

use bytes::Bytes;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use serde_json::value::RawValue;

/// The JSON of a response's `data`.
pub(crate) struct WipedJson(SecretString);

impl WipedJson {
    /// The text.
    pub(crate) fn get(&self) -> &str {
        self.0.expose()
    }
}

impl From<Box<RawValue>> for WipedJson {
    fn from(json: Box<RawValue>) -> Self {
        WipedJson(SecretString::new(Box::<str>::from(json).into_string()))
    }
}

/// The owner of a body that is sent.
struct Owned(SecretBytes);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

/// A body to send, without a copy.
pub(crate) fn body(bytes: Vec<u8>) -> Bytes {
    if bytes.is_empty() { Bytes::new() } else { Bytes::from_owner(Owned(SecretBytes::new(bytes))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kept_as_they_are_and_not_copied() {
        let bytes = b"{\"a\":1}".to_vec();
        let at = bytes.as_ptr();
        let sent = body(bytes);
        assert_eq!((sent.as_ptr(), &sent[..]), (at, &b"{\"a\":1}"[..]));
        let json = RawValue::from_string("{\"b\": 2}".to_owned()).unwrap();
        let at = json.get().as_ptr();
        let kept = WipedJson::from(json);
        assert_eq!((kept.get().as_ptr(), kept.get()), (at, "{\"b\": 2}"));
        assert!(body(Vec::new()).is_empty());
    }
}
