//! Response wrapping: a response is stored in the cubbyhole of a token that can only unwrap it, once.

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

/// The warning of a response that a wrapping token reads from its own cubbyhole.
pub(crate) const USE_UNWRAP: &str = "Reading from 'cubbyhole/response' is deprecated. Please use sys/wrapping/unwrap to unwrap responses, \
                                     as it provides additional security checks and other benefits.";
/// The name of a wrapped response in the cubbyhole of its token, which the token may also read.
const RESPONSE_NAME: &str = "response";
/// The name of its description in the cubbyhole.
const INFO_NAME: &str = "wrapinfo";

/// The name of a request that a control group stores, beside its description.
pub(crate) const REQUEST_NAME: &str = "control-group-request";
/// The name of its approvals.
pub(crate) const APPROVALS_NAME: &str = "control-group-approvals";

/// A wrapped response with its description.
pub(crate) struct Wrapped {
    /// The whole response as JSON text.
    pub(crate) response: String,
    /// Its description.
    pub(crate) about: WrappedInfo,
}

/// The description of a wrapped response.
#[derive(Serialize, Deserialize)]
pub(crate) struct WrappedInfo {
    /// The namespace of the wrapping token.
    #[serde(default, skip_serializing_if = "NamespaceId::is_root")]
    pub(crate) namespace: NamespaceId,
    /// The time of the wrapping.
    pub(crate) created: Timestamp,
    /// The TTL in seconds.
    pub(crate) ttl: u64,
    /// The path that returned the response.
    pub(crate) path: String,
    /// The status of the unwrapped response; zero for 200.
    #[serde(default)]
    pub(crate) status: u16,
}

/// A response to wrap.
pub(crate) struct ResponseToWrap<'a> {
    /// The whole response as JSON text.
    pub(crate) response: String,
    /// The status of the response.
    pub(crate) status: Status,
    /// The path that returned the response.
    pub(crate) path: &'a str,
    /// The path that wraps it; a different one on rewrap.
    pub(crate) wrapped_by: &'a str,
    /// The TTL; the max_ttl of the system bounds it.
    pub(crate) ttl: Duration,
    /// The display name of the caller.
    pub(crate) display_name: &'a str,
    /// The accessor of a token or a secret id in the response; empty for none.
    pub(crate) wrapped_accessor: String,
}

/// A request that a control group stores.
pub(crate) struct RequestToStore<'a> {
    /// Its record, which is wiped when dropped.
    pub(crate) request: Bytes,
    /// Its path.
    pub(crate) path: &'a str,
    /// How long it waits for approvals.
    pub(crate) ttl: Duration,
    /// The display name of the caller.
    pub(crate) display_name: &'a str,
}

/// Where the use of a wrapping token is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenUse {
    /// In the transaction that unwraps: the token is a parameter of the request.
    ThisTransaction,
    /// In the authentication of the request: the token is the token of the request.
    Authentication,
}

#[derive(Serialize, Deserialize)]
struct StoredResponse {
    response: String,
}

/// Wraps and unwraps responses.
pub(crate) struct Wrapper {
    /// The namespace of the requests whose responses it wraps.
    pub(crate) namespace: NamespaceId,
    /// The clock.
    pub(crate) clock: Arc<dyn Clock>,
    /// The max_ttl of the system.
    pub(crate) max_ttl: Duration,
    /// Creates and revokes wrapping tokens.
    pub(crate) tokens: Arc<Tokens>,
    /// Counts wrapping tokens.
    pub(crate) metrics: Arc<Metrics>,
}

impl Wrapper {
    /// Wraps a response, in this transaction.
    pub(crate) async fn wrap(&self, tx: &mut Tx, answer: ResponseToWrap<'_>) -> Result<WrapInfo> {
        let ResponseToWrap { response, status, path, wrapped_by, ttl, display_name, wrapped_accessor } = answer;
        let spec = Spec { path: wrapped_by.to_owned(), display_name: display_name.to_owned(), ..Spec::default() };
        let record = Bytes::from(serde_json::to_vec(&StoredResponse { response })?);
        let info = self.store(tx, Spec { ttl: Some(ttl), ..spec }, (path, status.0), (RESPONSE_NAME, record)).await?;
        Ok(WrapInfo { wrapped_accessor, ..info })
    }

    /// Stores a request that needs approvals, in this transaction.
    pub(crate) async fn store_request(&self, tx: &mut Tx, stored: RequestToStore<'_>) -> Result<WrapInfo> {
        let RequestToStore { request, path, ttl, display_name } = stored;
        let (own_path, display_name) = (path.to_owned(), display_name.to_owned());
        let spec = Spec { path: own_path, display_name, ttl: Some(ttl), control_group: true, ..Spec::default() };
        self.store(tx, spec, (path, 0), (REQUEST_NAME, request)).await
    }

    /// Creates a wrapping token with the path, the name and the TTL of `spec`, and stores a record of it. `about` is the
    /// path and the status of the description.
    async fn store(&self, tx: &mut Tx, spec: Spec, about: (&str, u16), stored: (&str, Bytes)) -> Result<WrapInfo> {
        let now = self.clock.now();
        // The max_ttl of the system bounds every TTL.
        let ttl = spec.ttl.unwrap_or_default().min(self.max_ttl);
        let spec = Spec {
            authority: Authority::Policies(vec![RESPONSE_WRAPPING.to_owned()]),
            num_uses: 1,
            ttl: Some(ttl),
            explicit_max_ttl: ttl.as_secs(),
            wrapping: true,
            ..spec
        };
        let made = self.tokens.create(tx, &self.namespace, spec, now).await?;
        made.record.count(&self.metrics, "response_wrapping", SYSTEM_MOUNT);
        let namespace = made.record.namespace.clone();
        let ((path, status), (name, record)) = (about, stored);
        let about = WrappedInfo { namespace, created: now, ttl: ttl.as_secs(), path: path.to_owned(), status };
        let (store, view) = (self.tokens.store_of(&made.record), self.tokens.cubbyhole_of(&self.namespace));
        tx.put(&view, &format!("{store}/{name}"), record);
        tx.put(&view, &format!("{store}/{INFO_NAME}"), Bytes::from(serde_json::to_vec(&about)?));
        Ok(WrapInfo {
            token: made.id,
            accessor: made.record.accessor,
            ttl: ttl.as_secs(),
            creation_time: now.rfc3339(),
            creation_path: path.to_owned(),
            wrapped_accessor: String::new(),
        })
    }

    /// The valid wrapping token with this text, of any namespace; `None` for any other text.
    pub(crate) async fn wrapping_token(&self, token: &str) -> Result<Option<Arc<Token>>> {
        let key = self.tokens.place(token);
        let found = self.tokens.find_anywhere(token, self.clock.now()).await?;
        Ok(found.filter(|t| t.record.wrapping && t.key.as_ref() == Some(&key)))
    }

    /// The description of a stored response or request.
    pub(crate) async fn about(&self, tx: &mut Tx, token: &Token) -> Result<Option<WrappedInfo>> {
        if !token.record.control_group {
            return Ok(self.wrapped(tx, token).await?.map(|wrapped| wrapped.about));
        }
        let view = &self.tokens.cubbyhole_of(&token.record.namespace);
        let about = tx.get(view, &format!("{}/{INFO_NAME}", token.store)).await?;
        Ok(about.map(|about| serde_json::from_slice(&about)).transpose()?)
    }

    /// The response of a wrapping token, which stays wrapped.
    pub(crate) async fn wrapped(&self, tx: &mut Tx, token: &Token) -> Result<Option<Wrapped>> {
        let (store, view) = (&token.store, &self.tokens.cubbyhole_of(&token.record.namespace));
        // Both records are deleted in one transaction, so a response that is read after this has its description or is
        // in the old format.
        let about = tx.get(view, &format!("{store}/{INFO_NAME}")).await?;
        let Some(kept) = tx.get(view, &format!("{store}/{RESPONSE_NAME}")).await? else { return Ok(None) };
        let StoredResponse { response } = serde_json::from_slice(&kept)?;
        // An older version stores both in one record.
        let about: WrappedInfo = serde_json::from_slice(&about.unwrap_or(kept))?;
        Ok((about.namespace == token.record.namespace).then_some(Wrapped { response, about }))
    }

    /// Unwraps the response of a wrapping token and revokes the token, in this transaction.
    ///
    /// Fails with 400 when there is no response, or when another request has spent the use of the token.
    pub(crate) async fn unwrap(&self, tx: &mut Tx, key: &TokenKey, token: &Token, by: TokenUse) -> Result<Wrapped> {
        let wrapped = self.wrapped(tx, token).await?.ok_or_else(invalid)?;
        self.take(tx, key, token, by).await?;
        Ok(wrapped)
    }

    /// Revokes a wrapping token and deletes its response, in this transaction, for the one request that may return it.
    ///
    /// The use in the record selects this request: it is spent once, here or by the authentication of a request with
    /// the token itself, and of concurrent transactions that change the record only one commits.
    ///
    /// Fails with 400 when another request has spent the use.
    pub(crate) async fn take(&self, tx: &mut Tx, key: &TokenKey, token: &Token, by: TokenUse) -> Result<()> {
        let record = self.tokens.record(tx, key).await?.ok_or_else(invalid)?;
        let is_ours = match by {
            TokenUse::ThisTransaction => record.num_uses == 1,
            TokenUse::Authentication => record.num_uses < 0,
        };
        if !is_ours {
            return Err(invalid());
        }
        let names: &[&str] = match record.control_group {
            true => &[REQUEST_NAME, APPROVALS_NAME, INFO_NAME],
            false => &[RESPONSE_NAME, INFO_NAME],
        };
        for name in names {
            tx.delete(&self.tokens.cubbyhole_of(&record.namespace), &format!("{}/{name}", token.store));
        }
        self.tokens.end_childless(tx, key, &record).await
    }
}

/// The accessor of the token or the secret id in a response, for `wrap_info`.
pub(crate) fn wrapped_accessor(response: &str) -> String {
    let body = Body::parse(Bytes::copy_from_slice(response.as_bytes())).unwrap_or_default();
    let inside = |part: &str, name: &str| {
        let object: serde_json::Value = serde_json::from_str(body.field(part)?).ok()?;
        object.get(name)?.as_str().map(str::to_owned)
    };
    inside("auth", "accessor").or_else(|| inside("data", "secret_id_accessor")).unwrap_or_default()
}

/// The error for every invalid wrapping token.
pub(crate) fn invalid() -> Error {
    Error::invalid("wrapping token is not valid or does not exist")
}
