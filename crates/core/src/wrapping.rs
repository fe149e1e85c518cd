//! Response wrapping: an answer kept in the storage of a token that can do nothing but hand it out, once.

use std::time::Duration;

use bytes::Bytes;
use keepfast_framework::reply::WrapInfo;
use keepfast_framework::{Body, Error, Result, Timestamp};
use keepfast_storage::Tx;
use serde::{Deserialize, Serialize};

use crate::policy::builtin::RESPONSE_WRAPPING;
use crate::token::create::Spec;
use crate::token::{Authority, Token, TokenKey};
use crate::unsealed::Unsealed;

/// The name under which a wrapped answer is kept in its token's storage.
const KEPT: &str = "response";

/// What is kept of a wrapped answer.
#[derive(Serialize, Deserialize)]
pub struct Wrapped {
    /// The whole answer as JSON text.
    pub response: String,
    /// When it was wrapped.
    pub created: Timestamp,
    /// For how long, in seconds.
    pub ttl: u64,
    /// The path whose answer it is.
    pub path: String,
}

impl Unsealed {
    /// Keeps `response` (a whole answer as JSON) for one unwrapping, in this transaction.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn wrap(
        &self,
        tx: &mut Tx,
        response: String,
        path: &str,
        ttl: Duration,
        wrapped_accessor: String,
    ) -> Result<WrapInfo> {
        let now = self.clock.now();
        let spec = Spec {
            authority: Authority::Policies(vec![RESPONSE_WRAPPING.to_owned()]),
            path: path.trim_end_matches('/').to_owned(),
            display_name: "token".to_owned(),
            num_uses: 1,
            ttl: Some(ttl),
            explicit_max_ttl: ttl.as_secs(),
            wrapping: true,
            ..Spec::default()
        };
        let made = self.tokens.create(tx, spec, now).await?;
        let kept = Wrapped { response, created: now, ttl: ttl.as_secs(), path: path.to_owned() };
        let place = format!("{}/{KEPT}", self.tokens.store_of(&made.record));
        tx.put(self.tokens.cubbyhole_view(), &place, Bytes::from(serde_json::to_vec(&kept)?));
        Ok(WrapInfo {
            token: made.id,
            accessor: made.record.accessor,
            ttl: ttl.as_secs(),
            creation_time: now.rfc3339(),
            creation_path: path.to_owned(),
            wrapped_accessor,
        })
    }

    /// The wrapping token with this text, alive; `None` for any other.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn wrapping_token(&self, token: &str) -> Result<Option<std::sync::Arc<Token>>> {
        let key = self.tokens.place(token);
        let found = self.tokens.find(token, &crate::namespace::NamespaceId::root(), None, self.clock.now()).await?;
        Ok(found.filter(|t| t.record.wrapping && t.key.as_ref() == Some(&key)))
    }

    /// What a wrapping token keeps, without taking it.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn wrapped(&self, tx: &mut Tx, token: &Token) -> Result<Option<Wrapped>> {
        let place = format!("{}/{KEPT}", token.store);
        match tx.get(self.tokens.cubbyhole_view(), &place).await? {
            None => Ok(None),
            Some(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        }
    }

    /// Takes what a wrapping token keeps and ends the token, in this transaction: of parallel ones only one commits.
    ///
    /// # Errors
    /// 400 when there is nothing (any more); when storage fails.
    pub async fn unwrap(&self, tx: &mut Tx, key: &TokenKey, token: &Token) -> Result<Wrapped> {
        let record = self.tokens.record(tx, key).await?.ok_or_else(invalid)?;
        let kept = self.wrapped(tx, token).await?.ok_or_else(invalid)?;
        tx.delete(self.tokens.cubbyhole_view(), &format!("{}/{KEPT}", token.store));
        self.tokens.end_childless(tx, key, &record).await?;
        Ok(kept)
    }
}

/// The accessor of the token or the secret id in an answer, which the keeper of the wrapped answer may know.
pub(crate) fn wrapped_accessor(response: &str) -> String {
    let body = Body::parse(Bytes::copy_from_slice(response.as_bytes())).unwrap_or_default();
    let inside = |part: &str, name: &str| {
        let object: serde_json::Value = serde_json::from_str(body.field(part)?).ok()?;
        object.get(name)?.as_str().map(str::to_owned)
    };
    inside("auth", "accessor").or_else(|| inside("data", "secret_id_accessor")).unwrap_or_default()
}

/// What every fault of a wrapping token is answered with.
pub fn invalid() -> Error {
    Error::invalid("wrapping token is not valid or does not exist")
}
