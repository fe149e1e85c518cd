//! Batch tokens: the record is encrypted into the text of the token, so issuing one needs no write.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keepfast_crypto::aead::AeadKey;
use keepfast_crypto::hash::sha256;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Error, Result, Timestamp};
use serde::{Deserialize, Serialize};

use super::bound_cidrs::BoundCidrs;
use super::id::{BATCH, TokenKey};
use super::record::{Authority, Origin, TokenExpiry, TokenRecord, UserinfoGrant};
use crate::namespace::NamespaceId;

/// The first byte of the content of a batch token, with the context of its encryption.
type Form = (u8, &'static [u8]);

/// A batch token for any request.
const ORDINARY: Form = (1, b"keepfast batch token");
/// The same of a namespace other than root. A version that does not know namespaces would open it as a token of root.
const NAMESPACED: Form = (3, b"keepfast batch token of a namespace");
/// An access token of an OIDC provider of such a namespace.
const NAMESPACED_ACCESS: Form = (4, b"keepfast access token of a namespace");
/// An access token of an OIDC provider. A version that does not know it would open it as an ordinary token with the
/// policies of its entity, also with another first byte.
const ACCESS: Form = (2, b"keepfast access token");

fn form(is_access: bool, namespace: &NamespaceId) -> Form {
    match (is_access, namespace.is_root()) {
        (false, true) => ORDINARY,
        (true, true) => ACCESS,
        (false, false) => NAMESPACED,
        (true, false) => NAMESPACED_ACCESS,
    }
}

/// Encrypts records into batch tokens and decrypts them.
pub(crate) struct BatchCipher {
    key: AeadKey,
}

/// The content of a batch token, with short field names because every request carries it. It lacks the fields that a
/// batch token cannot have: uses, a period, renewals, an accessor.
#[derive(Serialize, Deserialize)]
struct BatchContent<'a> {
    #[serde(rename = "p")]
    policies: Cow<'a, [String]>,
    #[serde(rename = "a")]
    path: Cow<'a, str>,
    #[serde(rename = "d")]
    display_name: Cow<'a, str>,
    #[serde(rename = "m", default, skip_serializing_if = "has_none")]
    meta: Cow<'a, BTreeMap<String, String>>,
    #[serde(rename = "c")]
    created: Timestamp,
    #[serde(rename = "t")]
    ttl: u64,
    #[serde(rename = "e", default, skip_serializing_if = "str::is_empty")]
    entity_id: Cow<'a, str>,
    #[serde(rename = "l", default, skip_serializing_if = "str::is_empty")]
    alias: Cow<'a, str>,
    #[serde(rename = "b", default, skip_serializing_if = "BoundCidrs::is_empty")]
    bound_cidrs: BoundCidrs,
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
    #[serde(rename = "r", default, skip_serializing_if = "str::is_empty")]
    role: Cow<'a, str>,
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    parent: Option<TokenKey>,
    #[serde(rename = "n", default, skip_serializing_if = "NamespaceId::is_root")]
    namespace: NamespaceId,
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    userinfo: Option<Box<UserinfoGrant>>,
}

fn has_none(meta: &BTreeMap<String, String>) -> bool {
    meta.is_empty()
}

impl BatchCipher {
    /// A cipher with a key that is stored behind the barrier.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        BatchCipher { key: AeadKey::from_bytes(key) }
    }

    /// The text of a batch token with this record.
    ///
    /// Fails with 500 for a root token, because no batch token can be root, and when the record cannot be serialized as
    /// JSON.
    pub(crate) fn seal(&self, record: &TokenRecord) -> Result<SecretString> {
        let Authority::Policies(policies) = &record.authority else {
            return Err(Error::internal("a batch token cannot be root"));
        };
        let Origin { mount, accessor, internal: _ } = &record.origin;
        let origin = mount.is_some().then(|| Origin {
            mount: mount.clone(),
            accessor: accessor.clone(),
            internal: serde_json::Value::Null,
        });
        let json = serde_json::to_vec(&BatchContent {
            policies: Cow::Borrowed(policies),
            path: Cow::Borrowed(&record.path),
            display_name: Cow::Borrowed(&record.display_name),
            meta: Cow::Borrowed(&record.meta),
            created: record.created,
            ttl: record.creation_ttl,
            entity_id: Cow::Borrowed(&record.entity_id),
            alias: Cow::Borrowed(&record.alias),
            bound_cidrs: record.bound_cidrs.clone(),
            origin,
            role: Cow::Borrowed(&record.role),
            parent: record.parent.clone(),
            namespace: record.namespace.clone(),
            userinfo: record.userinfo.clone(),
        })?;
        let (version, context) = form(record.userinfo.is_some(), &record.namespace);
        let sealed = self.key.seal_after(&[version], context, &json);
        Ok(SecretString::new(format!("{BATCH}{}", URL_SAFE_NO_PAD.encode(sealed))))
    }

    /// The record in a batch token; `None` if this cluster did not issue it.
    pub(crate) fn open(&self, token: &str) -> Option<TokenRecord> {
        let sealed = URL_SAFE_NO_PAD.decode(token.strip_prefix(BATCH)?).ok()?;
        let (version, sealed) = sealed.split_first()?;
        let (_, context) =
            [ORDINARY, ACCESS, NAMESPACED, NAMESPACED_ACCESS].into_iter().find(|(known, _)| known == version)?;
        let json = self.key.open(context, sealed).ok()?;
        let found: BatchContent<'_> = serde_json::from_slice(&json).ok()?;
        if *version != form(found.userinfo.is_some(), &found.namespace).0 {
            return None;
        }
        let end = found.created.after(std::time::Duration::from_secs(found.ttl));
        Some(TokenRecord {
            counter: None,
            // The nonce makes each text unique, so its hash can name the storage of the token.
            hash: sha256(token.as_bytes()),
            accessor: String::new(),
            parent: found.parent,
            authority: Authority::Policies(found.policies.into_owned()),
            path: found.path.into_owned(),
            display_name: found.display_name.into_owned(),
            meta: found.meta.into_owned(),
            empty_meta: false,
            num_uses: 0,
            created: found.created,
            creation_ttl: found.ttl,
            expiry: TokenExpiry::At(end),
            explicit_max_ttl: 0,
            period: 0,
            requested: None,
            max_ttl: 0,
            last_renewal: None,
            renewable: false,
            entity_id: found.entity_id.into_owned(),
            alias: found.alias.into_owned(),
            bound_cidrs: found.bound_cidrs,
            role: found.role.into_owned(),
            origin: found.origin.unwrap_or_default(),
            namespace: found.namespace,
            batch: true,
            wrapping: false,
            control_group: false,
            userinfo: found.userinfo,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn sec_an_access_token_does_not_open_as_an_ordinary_token() {
        let cipher = BatchCipher::new(&[7; 32]);
        let sealed = |(version, context): Form, json: &Value| {
            let sealed = cipher.key.seal_after(&[version], context, json.to_string().as_bytes());
            format!("{BATCH}{}", URL_SAFE_NO_PAD.encode(sealed))
        };
        let ordinary = json!({ "p": ["x"], "a": "x", "d": "x", "c": Timestamp::from_unix(0), "t": 60, "e": "x" });
        let mut access = ordinary.clone();
        access["i"] = json!({ "p": "default", "c": "x" });
        assert!(cipher.open(&sealed(ORDINARY, &ordinary)).unwrap().userinfo.is_none());
        let record = cipher.open(&sealed(ACCESS, &access)).unwrap();
        assert!(record.userinfo.is_some());
        assert!(cipher.open(&sealed(ORDINARY, &access)).is_none(), "with the form that older versions open");
        assert!(cipher.open(&sealed(ACCESS, &ordinary)).is_none());
        let token = cipher.seal(&record).unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(token.expose().strip_prefix(BATCH).unwrap()).unwrap();
        assert_eq!(bytes[0], 2, "an older version knows version 1 only");
        bytes[0] = 1;
        assert!(cipher.open(&format!("{BATCH}{}", URL_SAFE_NO_PAD.encode(&bytes))).is_none());
        assert!(cipher.key.open(ORDINARY.1, &bytes[1..]).is_err(), "nor with another first byte");
    }
}
