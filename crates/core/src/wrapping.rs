//! Response wrapping: an answer kept in the storage of a token that can do nothing but hand it out, once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keepfast_framework::reply::WrapInfo;
use keepfast_framework::{Body, Clock, Error, Result, Status, Timestamp};
use keepfast_storage::Tx;
use serde::{Deserialize, Serialize};

use crate::layout::SYSTEM_MOUNT;
use crate::metrics::Metrics;
use crate::namespace::NamespaceId;
use crate::policy::builtin::RESPONSE_WRAPPING;
use crate::token::create::Spec;
use crate::token::{Authority, Token, TokenKey, Tokens};

/// The warning of a response that a wrapping token has read from its own storage.
pub(crate) const USE_UNWRAP: &str = "Reading from 'cubbyhole/response' is deprecated. Please use sys/wrapping/unwrap to unwrap responses, \
                                     as it provides additional security checks and other benefits.";
/// The name under which a wrapped answer is kept in its token's storage, where its token may read it, too.
const KEPT: &str = "response";
/// The name under which stands what is told of it.
const ABOUT: &str = "wrapinfo";

/// A wrapped answer with what is told of it.
pub(crate) struct Wrapped {
    /// The whole answer as JSON text.
    pub(crate) response: String,
    /// What is told of it.
    pub(crate) about: About,
}

/// What is told of a wrapped answer.
#[derive(Serialize, Deserialize)]
pub(crate) struct About {
    /// The namespace of the wrapping token.
    #[serde(default, skip_serializing_if = "NamespaceId::is_root")]
    pub(crate) namespace: NamespaceId,
    /// When it was wrapped.
    pub(crate) created: Timestamp,
    /// For how long, in seconds.
    pub(crate) ttl: u64,
    /// The path whose answer it is.
    pub(crate) path: String,
    /// The status with which it is unwrapped; zero for 200.
    #[serde(default)]
    pub(crate) status: u16,
}

/// An answer that is to be wrapped.
pub(crate) struct ToWrap<'a> {
    /// The whole answer as JSON text.
    pub(crate) response: String,
    /// Its status.
    pub(crate) status: Status,
    /// The path whose answer it is.
    pub(crate) path: &'a str,
    /// The path that wraps it, which is another when it is wrapped anew.
    pub(crate) wrapped_by: &'a str,
    /// For how long; the longest life of the system bounds it.
    pub(crate) ttl: Duration,
    /// For people: who has it wrapped.
    pub(crate) display_name: &'a str,
    /// The accessor of a token or a secret id in it; empty for none.
    pub(crate) wrapped_accessor: String,
}

/// What spends the use of a wrapping token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UseOf {
    /// The transaction that takes the answer: the token is a parameter of the request.
    ThisTransaction,
    /// The authentication of this request, whose own token it is.
    Authentication,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    response: String,
}

/// Wraps answers and hands them out.
pub(crate) struct Wrapper {
    /// The only source of time.
    pub(crate) clock: Arc<dyn Clock>,
    /// The longest life of the system.
    pub(crate) max_ttl: Duration,
    /// Makes and ends wrapping tokens.
    pub(crate) tokens: Arc<Tokens>,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
}

impl Wrapper {
    /// Keeps an answer for one unwrapping, in this transaction.
    pub(crate) async fn wrap(&self, tx: &mut Tx, answer: ToWrap<'_>) -> Result<WrapInfo> {
        let ToWrap { response, status, path, wrapped_by, ttl, display_name, wrapped_accessor } = answer;
        let now = self.clock.now();
        // No life passes the bound of the system, that of a kept answer neither.
        let ttl = ttl.min(self.max_ttl);
        let spec = Spec {
            authority: Authority::Policies(vec![RESPONSE_WRAPPING.to_owned()]),
            path: wrapped_by.to_owned(),
            display_name: display_name.to_owned(),
            num_uses: 1,
            ttl: Some(ttl),
            explicit_max_ttl: ttl.as_secs(),
            wrapping: true,
            ..Spec::default()
        };
        let made = self.tokens.create(tx, spec, now).await?;
        made.record.count(&self.metrics, "response_wrapping", SYSTEM_MOUNT);
        let namespace = made.record.namespace.clone();
        let about = About { namespace, created: now, ttl: ttl.as_secs(), path: path.to_owned(), status: status.0 };
        let (store, view) = (self.tokens.store_of(&made.record), self.tokens.cubbyhole_view());
        tx.put(view, &format!("{store}/{KEPT}"), Bytes::from(serde_json::to_vec(&Kept { response })?));
        tx.put(view, &format!("{store}/{ABOUT}"), Bytes::from(serde_json::to_vec(&about)?));
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
    pub(crate) async fn wrapping_token(&self, token: &str) -> Result<Option<Arc<Token>>> {
        let key = self.tokens.place(token);
        let found = self.tokens.find(token, &NamespaceId::root(), None, self.clock.now()).await?.ok();
        Ok(found.filter(|t| t.record.wrapping && t.key.as_ref() == Some(&key)))
    }

    /// What a wrapping token keeps, without taking it.
    pub(crate) async fn wrapped(&self, tx: &mut Tx, token: &Token) -> Result<Option<Wrapped>> {
        let (store, view) = (&token.store, self.tokens.cubbyhole_view());
        // Both are deleted at once, so an answer that is there behind this read has its description or is of the old form.
        let about = tx.get(view, &format!("{store}/{ABOUT}")).await?;
        let Some(kept) = tx.get(view, &format!("{store}/{KEPT}")).await? else { return Ok(None) };
        let Kept { response } = serde_json::from_slice(&kept)?;
        // Before there were two records, all stood in the one.
        let about: About = serde_json::from_slice(&about.unwrap_or(kept))?;
        Ok((about.namespace == token.record.namespace).then_some(Wrapped { response, about }))
    }

    /// Takes what a wrapping token keeps and ends the token, in this transaction.
    ///
    /// Fails with 400 when there is nothing (any more), or when the use of the token is not this request's.
    pub(crate) async fn unwrap(&self, tx: &mut Tx, key: &TokenKey, token: &Token, by: UseOf) -> Result<Wrapped> {
        let kept = self.wrapped(tx, token).await?.ok_or_else(invalid)?;
        self.take(tx, key, token, by).await?;
        Ok(kept)
    }

    /// Ends a wrapping token with what it keeps, in this transaction, for the one request that may hand the answer out.
    ///
    /// The use in the record decides which one that is: it is spent once, here or by the authentication of a request with
    /// the token itself, and of transactions that change the record at the same time only one commits.
    ///
    /// Fails with 400 when the use is not this request's.
    pub(crate) async fn take(&self, tx: &mut Tx, key: &TokenKey, token: &Token, by: UseOf) -> Result<()> {
        let record = self.tokens.record(tx, key).await?.ok_or_else(invalid)?;
        let is_ours = match by {
            UseOf::ThisTransaction => record.num_uses == 1,
            UseOf::Authentication => record.num_uses < 0,
        };
        if !is_ours {
            return Err(invalid());
        }
        for name in [KEPT, ABOUT] {
            tx.delete(self.tokens.cubbyhole_view(), &format!("{}/{name}", token.store));
        }
        self.tokens.end_childless(tx, key, &record).await
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
pub(crate) fn invalid() -> Error {
    Error::invalid("wrapping token is not valid or does not exist")
}
