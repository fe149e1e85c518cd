//! `seal "static"`: the key is a text of the configuration, a variable or a file.
//!
//! Source: <https://openbao.org/docs/configuration/seal/static>.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use keepfast_crypto::aead::AeadKey;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::seal::{Seal, SealError, WrappedKey};

use crate::call::wrong_key;
use crate::stanza::{Key, SealConfigError, Stanza};

/// The keys of the stanza.
pub(crate) const KEYS: &[Key] = &[
    ("current_key", &["VAULT_STATIC_SEAL_CURRENT_KEY"]),
    ("current_key_id", &["VAULT_STATIC_SEAL_CURRENT_KEY_ID"]),
    ("previous_key", &["VAULT_STATIC_SEAL_PREVIOUS_KEY"]),
    ("previous_key_id", &["VAULT_STATIC_SEAL_PREVIOUS_KEY_ID"]),
];

/// The longest id of a key.
const MAX_ID: usize = 256;
/// The only mechanism.
const MECHANISM: &str = "AES-256-GCM";
/// The first byte of a blob: its version.
const VERSION: u8 = 1;
/// The associated data of a blob.
const BOUND: &[u8] = b"keepfast static seal 1";

/// Base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The seal: the current key wraps, and both keys unwrap.
struct StaticSeal {
    current: Identified,
    previous: Option<Identified>,
}

/// A key with its id.
struct Identified {
    id: String,
    key: AeadKey,
}

/// Creates the seal of a stanza.
pub(crate) fn create(stanza: &Stanza<'_>) -> Result<Arc<dyn Seal>, SealConfigError> {
    let current = read(stanza, "current_key", "current_key_id")?;
    let current = current.ok_or_else(|| stanza.refused("current_key and current_key_id are required"))?;
    let previous = read(stanza, "previous_key", "previous_key_id")?;
    if previous.as_ref().is_some_and(|previous| previous.id == current.id) {
        return Err(stanza.refused("current_key_id and previous_key_id are equal; a new key needs an id of its own"));
    }
    Ok(Arc::new(StaticSeal { current, previous }))
}

/// A key and its id, which are set together.
fn read(stanza: &Stanza<'_>, key: &str, id: &str) -> Result<Option<Identified>, SealConfigError> {
    match (stanza.secret_bytes(key)?, stanza.text(id)) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(stanza.refused(format!("{key} needs {id}, the permanent name of the key"))),
        (None, Some(_)) => Err(stanza.refused(format!("{id} is set without {key}"))),
        (Some(_), Some(text)) if text.len() > MAX_ID => {
            Err(stanza.refused(format!("{id} is longer than {MAX_ID} bytes")))
        }
        (Some(bytes), Some(id)) => {
            let bytes = key_of(&bytes)
                .ok_or_else(|| stanza.refused_value(key, format!("{key} is not 32 bytes, raw, hex or base64")))?;
            Ok(Some(Identified { id, key: AeadKey::new(&bytes) }))
        }
    }
}

/// The key of a value: 32 raw bytes, or their hex or base64 text, which a line break may follow.
fn key_of(value: &SecretBytes) -> Option<Key256> {
    let raw = value.expose().as_slice();
    if let Some(key) = Key256::from_slice(raw) {
        return Some(key);
    }
    let text = raw.trim_ascii();
    let mut decoded = SecretBytes::new(vec![0; 64]);
    let length = match text.len() {
        64 => hex::decode_to_slice(text, &mut decoded.expose_mut()[..32]).ok().map(|()| 32),
        43 | 44 => BASE64.decode_slice(text, decoded.expose_mut()).ok(),
        _ => None,
    };
    Key256::from_slice(&decoded.expose()[..length?])
}

#[async_trait]
impl Seal for StaticSeal {
    fn kind(&self) -> &'static str {
        "static"
    }

    fn description(&self) -> Vec<(&'static str, String)> {
        let previous = self.previous.iter().map(|previous| ("previous_key_id", previous.id.clone()));
        std::iter::once(("current_key_id", self.current.id.clone())).chain(previous).collect()
    }

    async fn wrap(&self, key: &Key256) -> Result<WrappedKey, SealError> {
        let blob = self.current.key.seal_after(&[VERSION], BOUND, key.expose());
        let key_id = self.current.id.clone();
        Ok(WrappedKey { key_id, mechanism: MECHANISM.to_owned(), blob: Bytes::from(blob), iv: None, tag: None })
    }

    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<Key256, SealError> {
        let mut known = std::iter::once(&self.current).chain(&self.previous);
        let Some(with) = known.find(|key| key.id == wrapped.key_id) else {
            return Err(wrong_key(
                "the key was wrapped under an id that is neither current_key_id nor previous_key_id",
            ));
        };
        let sealed = wrapped.blob.strip_prefix(&[VERSION]).filter(|_| wrapped.mechanism == MECHANISM);
        let sealed = sealed.ok_or_else(|| wrong_key("the wrapped key has an unknown version"))?;
        let opened = with.key.open(BOUND, sealed).map(SecretBytes::new);
        let opened = opened.map_err(|_| wrong_key(format!("the key with the id {:?} did not wrap this", with.id)))?;
        Key256::from_slice(opened.expose()).ok_or_else(|| wrong_key("the wrapped key does not have 32 bytes"))
    }

    async fn current_key(&self) -> Result<Option<String>, SealError> {
        Ok(Some(self.current.id.clone()))
    }
}

#[cfg(test)]
mod tests {
    use keepfast_framework::seal::SealErrorClass;

    use super::*;
    use crate::suite::{build, seal_suite};

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn seal(options: &[(&str, &str)]) -> Arc<dyn Seal> {
        build("static", options, &[]).unwrap()
    }

    fn current(id: &str, key: u8) -> Arc<dyn Seal> {
        seal(&[("current_key", &hex::encode([key; 32])), ("current_key_id", id)])
    }

    seal_suite!(cases, async || current("a", 7), async || current("a", 8));

    #[tokio::test]
    async fn one_key_is_read_raw_as_hex_and_as_base64() {
        let hex = hex::encode((0..32).collect::<Vec<u8>>());
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = format!("file://{}", file.path().display());
        let wrapped = seal(&[("current_key", KEY), ("current_key_id", "a")]).wrap(&Key256::zeroed()).await.unwrap();
        for value in [KEY, KEY.trim_end_matches('='), &hex, &hex.to_uppercase()] {
            let read = seal(&[("current_key", value), ("current_key_id", "a")]);
            assert!(read.unwrap(&wrapped).await.is_ok(), "{value}");
            std::fs::write(file.path(), format!("{value}\n")).unwrap();
            let read = seal(&[("current_key", &path), ("current_key_id", "a")]);
            assert!(read.unwrap(&wrapped).await.is_ok(), "{value} in a file");
        }
        std::fs::write(file.path(), (0..32).collect::<Vec<u8>>()).unwrap();
        assert!(seal(&[("current_key", &path), ("current_key_id", "a")]).unwrap(&wrapped).await.is_ok());
    }

    #[tokio::test]
    async fn the_previous_key_unwraps_and_the_current_one_wraps() {
        let (old, new) = (current("old", 1), current("new", 2));
        let (first, second) = (hex::encode([1; 32]), hex::encode([2; 32]));
        let both = seal(&[
            ("current_key", &second),
            ("current_key_id", "new"),
            ("previous_key", &first),
            ("previous_key_id", "old"),
        ]);
        assert!(both.unwrap(&old.wrap(&Key256::zeroed()).await.unwrap()).await.is_ok());
        assert!(new.unwrap(&both.wrap(&Key256::zeroed()).await.unwrap()).await.is_ok());
        assert_eq!(both.current_key().await.unwrap().as_deref(), Some("new"));
        let error = new.unwrap(&old.wrap(&Key256::zeroed()).await.unwrap()).await.err().unwrap();
        assert_eq!(error.class, SealErrorClass::WrongKey);
    }

    #[test]
    fn keys_and_ids_are_set_together() {
        let hidden = "hidden".repeat(6);
        for (options, cause) in [
            (&[][..], "required"),
            (&[("current_key", KEY)], "current_key needs current_key_id"),
            (&[("current_key_id", "a")], "current_key_id is set without current_key"),
            (&[("current_key", &hidden), ("current_key_id", "a")], "not 32 bytes"),
            (&[("current_key", KEY), ("current_key_id", "a"), ("previous_key", KEY)], "previous_key needs"),
            (
                &[("current_key", KEY), ("current_key_id", "a"), ("previous_key", KEY), ("previous_key_id", "a")],
                "are equal",
            ),
        ] {
            let error = build("static", options, &[]).err().unwrap().to_string();
            assert!(error.contains(cause) && !error.contains("hidden") && !error.contains(KEY), "{error}");
        }
    }
}
