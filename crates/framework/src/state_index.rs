//! `X-Vault-Index`: a position of the log of a cluster, in the form of OpenBao 2.7.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::write::EncoderStringWriter;
use serde::{Deserialize, Serialize, Serializer};

/// The bytes of the JSON beside the id of the cluster, with the longest index.
const FRAME: usize = r#"{"cluster":"","value":"18446744073709551615"}"#.len();
/// The longest header value that is decoded.
const MAX_LENGTH: usize = 512;

/// A position of the log of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateIndex {
    /// The id of the cluster.
    pub cluster: String,
    /// The index of the log.
    pub value: u64,
}

/// The decoded form of the header: the index is a text.
#[derive(Deserialize)]
struct Decoded {
    cluster: String,
    value: String,
}

/// The same, to encode it.
#[derive(Serialize)]
struct Encoded<'a> {
    cluster: &'a str,
    #[serde(serialize_with = "text")]
    value: u64,
}

fn text<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

impl StateIndex {
    /// Decodes the value of a header: base64 of JSON. `None` when it has another form.
    pub fn decode(header: &[u8]) -> Option<Self> {
        if header.len() > MAX_LENGTH {
            return None;
        }
        let json = STANDARD.decode(header).ok()?;
        let Decoded { cluster, value } = serde_json::from_slice(&json).ok()?;
        let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let value = value.parse().ok().filter(|_| is_number)?;
        Some(StateIndex { cluster, value })
    }

    /// The value of the header for a position of the log of a cluster. One allocation: every successful response has one.
    pub fn encode(cluster: &str, value: u64) -> String {
        let header = String::with_capacity(4 * (FRAME + cluster.len()).div_ceil(3));
        let mut out = EncoderStringWriter::from_consumer(header, &STANDARD);
        // Writing to a text does not fail.
        let _ = serde_json::to_writer(&mut out, &Encoded { cluster, value });
        out.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_has_the_form_of_openbao() {
        let header = "eyJjbHVzdGVyIjoiZTdmYWEzODItMzkzYS0zOWEyLWIzNTItMjBiZTU5NzQ2MGYyIiwidmFsdWUiOiIzNCJ9";
        let index = StateIndex { cluster: "e7faa382-393a-39a2-b352-20be597460f2".to_owned(), value: 34 };
        assert_eq!(StateIndex::encode(&index.cluster, index.value), header);
        assert_eq!(StateIndex::decode(header.as_bytes()), Some(index));
    }

    #[test]
    fn every_index_comes_back_and_has_room() {
        for (cluster, value) in [("", 0), ("a", 1), ("e7faa382-393a-39a2-b352-20be597460f2", u64::MAX), ("\"ä\n", 7)] {
            let header = StateIndex::encode(cluster, value);
            let index = StateIndex { cluster: cluster.to_owned(), value };
            assert_eq!(StateIndex::decode(header.as_bytes()), Some(index));
        }
        let header = StateIndex::encode("e7faa382-393a-39a2-b352-20be597460f2", u64::MAX);
        assert_eq!(header.capacity(), header.len(), "it did not grow");
    }

    #[test]
    fn another_form_of_an_index_is_not_decoded() {
        let encode = |text: &str| STANDARD.encode(text);
        for text in [
            r#"{"cluster":"a","value":34}"#,
            r#"{"cluster":"a","value":""}"#,
            r#"{"cluster":"a","value":"+3"}"#,
            r#"{"cluster":"a","value":"18446744073709551616"}"#,
            r#"{"cluster":"a"}"#,
            "{}",
            "null",
            "text",
        ] {
            assert_eq!(StateIndex::decode(encode(text).as_bytes()), None, "{text}");
        }
        assert_eq!(StateIndex::decode(b"!!!"), None);
        let long = format!(r#"{{"cluster":"{}","value":"1"}}"#, "a".repeat(MAX_LENGTH));
        assert_eq!(StateIndex::decode(encode(&long).as_bytes()), None);
    }
}
