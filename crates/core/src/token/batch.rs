//! Batch tokens: the record encrypted into the token's own text, so that issuing one costs no write.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keepfast_crypto::aead::AeadKey;
use keepfast_crypto::secret::SecretString;

use super::id::BATCH;
use super::record::TokenRecord;
use keepfast_framework::Result;

const VERSION: u8 = 1;
const CONTEXT: &[u8] = b"keepfast batch token";

/// Seals records into batch tokens and opens them again.
pub struct BatchCipher {
    key: AeadKey,
}

impl BatchCipher {
    /// From a key that is stored behind the barrier.
    pub fn new(key: &[u8; 32]) -> Self {
        BatchCipher { key: AeadKey::from_bytes(key) }
    }

    /// The text of a batch token with this record.
    ///
    /// # Errors
    /// When the record cannot be written as JSON.
    pub fn seal(&self, record: &TokenRecord) -> Result<SecretString> {
        let json = serde_json::to_vec(record)?;
        let sealed = self.key.seal_after(&[VERSION], CONTEXT, &json);
        Ok(SecretString::new(format!("{BATCH}{}", URL_SAFE_NO_PAD.encode(sealed))))
    }

    /// The record in a batch token; `None` for what is not one of this cluster's.
    pub fn open(&self, token: &str) -> Option<TokenRecord> {
        let sealed = URL_SAFE_NO_PAD.decode(token.strip_prefix(BATCH)?).ok()?;
        let (version, sealed) = sealed.split_first()?;
        if *version != VERSION {
            return None;
        }
        let json = self.key.open(CONTEXT, sealed).ok()?;
        serde_json::from_slice(&json).ok()
    }
}
