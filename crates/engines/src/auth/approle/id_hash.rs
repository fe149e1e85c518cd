//! The HMAC key that turns ids into names of records, so that storage has no id in the clear.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use keepfast_crypto::hmac::HmacKey;
use keepfast_crypto::{Zeroizing, random};
use keepfast_framework::{Cx, Error, Records, Result};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct StoredKey {
    key: String,
}

/// The record of the key.
pub(super) const KEY_NAME: &str = "hmac-key";
const KEY: Records<StoredKey> = Records::at(KEY_NAME);

/// Names of records for role ids and secret ids.
pub(super) struct IdHasher {
    hmac: HmacKey,
    no_role_id: String,
}

impl IdHasher {
    /// The HMAC key of the mount, created with the mount.
    pub(super) async fn open(cx: &mut Cx) -> Result<Self> {
        if let Some(stored) = KEY.get(cx, "").await? {
            let key = STANDARD.decode(Zeroizing::new(stored.key).as_bytes()).map(Zeroizing::new);
            return key
                .map(|key| IdHasher::new(&key))
                .map_err(|_| Error::internal("the stored HMAC key is not base64"));
        }
        let key = Zeroizing::new(random::bytes::<32>());
        KEY.put(cx, "", &StoredKey { key: STANDARD.encode(*key) })?;
        Ok(IdHasher::new(&*key))
    }

    fn new(key: &[u8]) -> Self {
        let mut keys = IdHasher { hmac: HmacKey::new(key), no_role_id: String::new() };
        keys.no_role_id = keys.role_id("");
        keys
    }

    /// The record name of a role id.
    pub(super) fn role_id(&self, role_id: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.hmac.mac_parts(&[b"role-id\0", role_id.as_bytes()]))
    }

    /// A record name that belongs to no role id.
    pub(super) fn no_role_id(&self) -> &str {
        &self.no_role_id
    }

    /// The record name of a secret id within the store of its role; the store's name has no NUL.
    pub(super) fn secret_id(&self, store: &str, secret_id: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.hmac.mac_parts(&[b"secret-id\0", store.as_bytes(), b"\0", secret_id.as_bytes()]))
    }
}
