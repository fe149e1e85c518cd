//! The record of a request that waits for approvals.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::{
    AuditedHeader, Authorization, Body, CanonicalPath, Error, Incoming, Input, Operation, QueryValue, Result,
    UnauthedEndpoints,
};
use keepfast_storage::ReadTx;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::namespace::NamespaceId;
use crate::policy::acl::operation_named;
use crate::policy::control_group::Factor;
use crate::request::wiped;
use crate::token::{Token, Tokens};
use crate::wrapping::REQUEST_NAME;

/// The room that a record needs in addition to its texts, in bytes.
const OVERHEAD: usize = 1024;

/// A stored request. Not `Debug`: it holds the token and the body.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredRequest {
    /// The operation, with `create` apart from `update`.
    pub(crate) operation: String,
    /// The path in the namespace of the request.
    pub(crate) path: String,
    /// The query parameters in their order.
    query: Vec<(String, String)>,
    /// The JSON body; empty for none.
    #[serde(with = "secret")]
    body: SecretString,
    /// The token of the requester.
    #[serde(with = "secret")]
    pub(crate) token: SecretString,
    /// The namespace of that token.
    #[serde(default, skip_serializing_if = "NamespaceId::is_root")]
    pub(crate) namespace: NamespaceId,
    /// The entity of that token; empty for none.
    pub(crate) entity: String,
    /// The address of the requester.
    remote: Option<SocketAddr>,
    headers: Vec<StoredHeader>,
    /// The wrap TTL of the response, in seconds.
    wrap_ttl: Option<u64>,
    /// Who must approve it.
    pub(crate) factors: Vec<Factor>,
}

/// An audited header.
#[derive(Serialize, Deserialize)]
struct StoredHeader {
    name: String,
    values: Vec<String>,
    hmac: bool,
}

impl StoredRequest {
    /// The record of a request.
    ///
    /// # Errors
    /// 400 for a body that is no JSON.
    pub(crate) fn of(incoming: &Incoming, token: &Token, creates: bool, factors: Vec<Factor>) -> Result<Self> {
        let body = std::str::from_utf8(incoming.input.body.raw()).map_err(Error::internal)?;
        let text = incoming.token.clone().ok_or_else(Error::denied)?;
        let operation = if creates { "create" } else { incoming.operation.name() };
        let query = incoming.input.query.iter().flat_map(|(name, value)| pairs(name, value)).collect();
        let header = |header: &AuditedHeader| StoredHeader {
            name: header.name.clone(),
            values: header.values.clone(),
            hmac: header.hmac,
        };
        Ok(StoredRequest {
            operation: operation.to_owned(),
            path: incoming.path.as_str().to_owned(),
            query,
            body: SecretString::new(body.to_owned()),
            token: text,
            namespace: token.record.namespace.clone(),
            entity: token.record.entity_id.clone(),
            remote: incoming.remote,
            headers: incoming.headers.iter().map(header).collect(),
            wrap_ttl: incoming.wrap_ttl.map(|ttl| ttl.as_secs()),
            factors,
        })
    }

    /// The record as stored, wiped when the last owner drops it.
    pub(crate) fn to_bytes(&self) -> Result<Bytes> {
        // A buffer that grows leaves copies of the body behind. A character of JSON takes at most two in a text.
        let parameters = self.query.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let headers = self.headers.iter().flat_map(|header| &header.values).map(String::len).sum::<usize>();
        let texts = self.body.expose().len() + self.path.len() + parameters + headers;
        let mut record = Vec::with_capacity(2 * texts + OVERHEAD + 512 * self.factors.len());
        serde_json::to_writer(&mut record, self)?;
        Ok(wiped::body(record))
    }

    /// The request, to run in a namespace of this path.
    ///
    /// # Errors
    /// 500 for a record that no version has written.
    pub(crate) fn incoming(&self, namespace: &str) -> Result<Box<Incoming>> {
        let (operation, _) = operation_named(&self.operation).ok_or_else(|| Error::internal("an unknown operation"))?;
        let header = |header: &StoredHeader| AuditedHeader {
            name: header.name.clone(),
            values: header.values.clone(),
            hmac: header.hmac,
        };
        Ok(Box::new(Incoming {
            // A login runs at once.
            mfa: Default::default(),
            id: random::request_id(),
            method: method(operation),
            operation,
            path: CanonicalPath::new(self.path.clone()).map_err(Error::internal)?,
            input: Input { query: self.query.iter().cloned().collect(), body: self.body()?, ..Input::default() },
            token: Some(self.token.clone()),
            authorization: Authorization::None,
            namespace: namespace.trim_end_matches('/').to_owned(),
            body_withheld: false,
            headers: self.headers.iter().map(header).collect(),
            wrap_ttl: self.wrap_ttl.map(Duration::from_secs),
            remote: self.remote,
            tls: None,
            open: UnauthedEndpoints::default(),
            accepts_prometheus: false,
            cluster: None,
        }))
    }

    /// The parameters of the query and the body; `None` without any.
    pub(crate) fn data(&self) -> Result<Option<serde_json::Map<String, serde_json::Value>>> {
        let query: keepfast_framework::Query = self.query.iter().cloned().collect();
        let mut data: serde_json::Map<_, _> =
            query.iter().map(|(name, value)| (name.to_owned(), value.to_json())).collect();
        for (name, raw) in self.body()?.fields() {
            data.insert(name.to_owned(), serde_json::from_str(raw)?);
        }
        Ok((!data.is_empty()).then_some(data))
    }

    fn body(&self) -> Result<Body> {
        Body::parse(wiped::body(self.body.expose().clone().into_bytes()))
    }
}

/// The request of a wrapping token, as a transaction sees it.
pub(crate) async fn read_request(tokens: &Tokens, tx: &mut ReadTx, token: &Token) -> Result<Option<StoredRequest>> {
    let view = &tokens.cubbyhole_of(&token.record.namespace);
    let record = tx.get(view, &format!("{}/{REQUEST_NAME}", token.store)).await?;
    Ok(record.map(|record| serde_json::from_slice(&record)).transpose()?)
}

/// The values of a query parameter, each with its name.
fn pairs(name: &str, value: &QueryValue) -> Vec<(String, String)> {
    let values = match value {
        QueryValue::One(value) => vec![value.clone()],
        QueryValue::Repeated { json, .. } => serde_json::from_str(json).unwrap_or_default(),
    };
    values.into_iter().map(|value| (name.to_owned(), value)).collect()
}

fn method(operation: Operation) -> &'static str {
    match operation {
        Operation::Update => "POST",
        Operation::Patch => "PATCH",
        Operation::Delete => "DELETE",
        Operation::List => "LIST",
        Operation::Scan => "SCAN",
        Operation::Head => "HEAD",
        Operation::Read | Operation::Help => "GET",
    }
}

/// Secret texts of a record.
mod secret {
    use super::{Deserialize, Deserializer, SecretString, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
        String::deserialize(deserializer).map(SecretString::new)
    }
}
