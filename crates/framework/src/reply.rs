//! Reply types: the return type of a handler determines the response.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::time::Duration;

use keepfast_crypto::secret::SecretString;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::error::{Error, Result, Status};
use crate::file_body::FileBody;
use crate::lease::{Intent, LeaseOffer};
use crate::token_params::TokenTerms;

/// The type-erased reply of a handler. Core creates the lease or token that it requires, and writes the response.
pub enum Outcome {
    /// No content: 204, or the given status.
    Empty(Option<Status>),
    /// Only data.
    Data(Payload),
    /// A login: core creates the token, or counts the failed attempt.
    Login(Box<LoginAttempt>),
    /// Leased data: core creates the lease.
    Leased {
        /// The `data` of the response.
        data: Box<RawValue>,
        /// The terms of the lease.
        lease: Box<LeaseOffer>,
    },
    /// Leased data whose lease was registered before the engine acted: core confirms the lease.
    Intended {
        /// The `data` of the response.
        data: Box<RawValue>,
        /// The lease.
        intent: Box<Intent>,
    },
    /// A lease that core has renewed.
    Renewed(Box<RenewedLease>),
    /// A token that core has created or renewed.
    Auth(Box<AuthBlock>),
    /// The token of a login that core has completed.
    LoggedIn(LoggedIn),
    /// A response that core has wrapped.
    Wrapped(Box<WrapInfo>),
    /// Bytes that are sent unchanged, without the envelope.
    Raw(Raw),
    /// The same from a file. They are never wrapped.
    File(RawFile),
}

/// The `data` of a response with its options.
pub struct Payload {
    /// Raw JSON, usually an object.
    pub data: Box<RawValue>,
    /// The status, if not 200.
    pub status: Option<SentStatus>,
    /// Whether the fields of `data` are repeated at the top level, as on some `sys/` paths.
    pub is_flat: bool,
    /// `lease_duration` without a lease, in seconds (in KV v1); negative where the secret contains a negative value.
    pub hint_ttl: i64,
}

/// The status of the response, and the status for metrics where the caller chose the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentStatus {
    /// The status of the response.
    pub sent: Status,
    /// The status that metrics count.
    pub counted: Status,
}

impl From<Status> for SentStatus {
    fn from(status: Status) -> Self {
        SentStatus { sent: status, counted: status }
    }
}

impl Payload {
    /// Data with status 200.
    pub fn of(data: Box<RawValue>) -> Self {
        Payload { data, status: None, is_flat: false, hint_ttl: 0 }
    }
}

impl Outcome {
    /// Data with status 200.
    pub fn of(data: Box<RawValue>) -> Self {
        Outcome::Data(Payload::of(data))
    }

    /// Whether the response has no content.
    pub fn is_empty(&self) -> bool {
        matches!(self, Outcome::Empty(_))
    }

    /// The `data` of the response.
    pub fn data(&self) -> Option<&RawValue> {
        match self {
            Outcome::Data(payload) => Some(&payload.data),
            Outcome::Leased { data, .. } | Outcome::Intended { data, .. } => Some(data),
            _ => None,
        }
    }

    /// The `data` of the response, mutable.
    pub fn data_mut(&mut self) -> Option<&mut Box<RawValue>> {
        match self {
            Outcome::Data(payload) => Some(&mut payload.data),
            Outcome::Leased { data, .. } | Outcome::Intended { data, .. } => Some(data),
            _ => None,
        }
    }
}

/// A renewed lease.
#[derive(Clone, Debug)]
pub struct RenewedLease {
    /// The full lease id.
    pub id: String,
    /// The TTL in seconds from now.
    pub ttl: u64,
    /// Whether it can be renewed again.
    pub renewable: bool,
}

/// The `wrap_info` block of a wrapped response. Only one that core creates contains a valid token.
pub struct WrapInfo {
    /// The wrapping token.
    pub token: SecretString,
    /// Its accessor.
    pub accessor: String,
    /// The TTL in seconds.
    pub ttl: u64,
    /// The creation time in RFC 3339.
    pub creation_time: String,
    /// The path whose response is wrapped.
    pub creation_path: String,
    /// The accessor of a token in the response; empty for none.
    pub wrapped_accessor: String,
}

/// Bytes without the envelope.
#[derive(Clone)]
pub struct Raw {
    /// The status of the response.
    pub status: Status,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Its body.
    pub body: Vec<u8>,
    /// Further headers, such as `cache-control`, by their name in lower case.
    pub headers: Vec<(&'static str, String)>,
}

/// Bytes without the envelope, in a file, with status 200.
#[derive(Clone)]
pub struct RawFile {
    /// The `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub file: FileBody,
}

/// The `auth` block of a response: a token. Only one that core creates contains a valid token.
#[allow(missing_docs, reason = "the names are the API's own")]
pub struct AuthBlock {
    pub client_token: SecretString,
    pub accessor: String,
    /// For audit entries: not part of the response.
    pub display_name: String,
    pub policies: Vec<String>,
    pub token_policies: Vec<String>,
    pub identity_policies: Vec<String>,
    pub metadata: Option<BTreeMap<String, String>>,
    pub lease_duration: u64,
    pub renewable: bool,
    pub entity_id: String,
    /// For audit entries, like the next one: whether the login has created the entity.
    pub entity_created: bool,
    /// Whether the auth method omits the policy `default`.
    pub no_default_policy: bool,
    pub token_type: &'static str,
    pub orphan: bool,
    pub num_uses: i64,
}

/// The token of a login that another request began.
pub struct LoggedIn {
    /// The token.
    pub auth: Box<AuthBlock>,
    /// How long the response stays wrapped, where the first request said so and this one does not.
    pub wrap_ttl: Option<Duration>,
}

/// The trait of the types that a handler may return.
pub trait Reply: Send {
    /// The JSON schema of `data`, for the OpenAPI document.
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema>;
    /// Erases the type.
    ///
    /// # Errors
    /// 404 for a missing object; when the reply cannot be serialized as JSON.
    fn into_outcome(self) -> Result<Outcome>;
}

/// 204.
impl Reply for () {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(Outcome::Empty(None))
    }
}

/// `None` is 404.
impl<R: Reply> Reply for Option<R> {
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        R::schema(generator)
    }
    fn into_outcome(self) -> Result<Outcome> {
        self.ok_or_else(Error::not_found)?.into_outcome()
    }
}

/// 200 with `data`.
pub struct Data<T>(pub T);

impl<T: Serialize + Send> Reply for Data<T> {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(Outcome::of(to_raw_value(&self.0)?))
    }
}

/// 200 with `data` described in the OpenAPI document.
pub struct Described<T>(pub T);

impl<T: Serialize + JsonSchema + Send> Reply for Described<T> {
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<T>())
    }
    fn into_outcome(self) -> Result<Outcome> {
        Data(self.0).into_outcome()
    }
}

/// 200 with `data` whose fields are repeated at the top level.
pub struct Flat<T>(pub T);

impl<T: Serialize + Send> Reply for Flat<T> {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(Outcome::Data(Payload { is_flat: true, ..Payload::of(to_raw_value(&self.0)?) }))
    }
}

/// The names of a list; an empty list is 404, as in Vault.
#[derive(Default)]
pub struct Keys {
    /// The names.
    pub keys: Vec<String>,
    /// Additional data for each name (`key_info`), where the path has it.
    pub info: Option<Box<RawValue>>,
    /// Whether an empty list is 200 with empty data (SCAN) instead of 404.
    pub empty_is_fine: bool,
}

impl Keys {
    /// Names without `key_info`.
    pub fn of(keys: Vec<String>) -> Self {
        Keys { keys, ..Keys::default() }
    }

    /// Names with `key_info`.
    ///
    /// # Errors
    /// When the information cannot be serialized as JSON.
    pub fn with_info<T: Serialize>(keys: Vec<String>, info: &T) -> Result<Self> {
        Ok(Keys { keys, info: Some(to_raw_value(info)?), empty_is_fine: false })
    }
}

#[derive(Serialize)]
struct KeysData<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key_info: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    keys: &'a [String],
}

impl Reply for Keys {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        Some(schemars::json_schema!({
            "type": "object",
            "properties": { "keys": { "type": "array", "items": { "type": "string" } } }
        }))
    }
    fn into_outcome(self) -> Result<Outcome> {
        if self.keys.is_empty() && !self.empty_is_fine {
            return Err(Error::not_found());
        }
        Data(KeysData { key_info: self.info.as_deref(), keys: &self.keys }).into_outcome()
    }
}

/// Leased data: core creates a lease in the same transaction.
pub struct Leased<T> {
    /// The data.
    pub data: T,
    /// The terms of the lease, and the data that the engine needs to revoke it.
    pub offer: LeaseOffer,
}

impl<T: Serialize + Send> Reply for Leased<T> {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(Outcome::Leased { data: to_raw_value(&self.data)?, lease: Box::new(self.offer) })
    }
}

/// Leased data whose lease was made durable before the engine acted ([`crate::Cx::intend`]).
pub struct Intended<T> {
    /// The data.
    pub data: T,
    /// Its lease.
    pub intent: Intent,
}

impl<T: Serialize + Send> Reply for Intended<T> {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(Outcome::Intended { data: to_raw_value(&self.data)?, intent: Box::new(self.intent) })
    }
}

/// Data, or no content, with another status than the default.
pub struct WithStatus<R>(pub Status, pub R);

impl Reply for WithStatus<()> {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(Outcome::Empty(Some(self.0)))
    }
}

impl<T: Serialize + Send> Reply for WithStatus<Data<T>> {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(Outcome::Data(Payload { status: Some(self.0.into()), ..Payload::of(to_raw_value(&self.1.0)?) }))
    }
}

impl Reply for Raw {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(Outcome::Raw(self))
    }
}

impl Reply for RawFile {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(Outcome::File(self))
    }
}

impl Reply for AuthBlock {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(Outcome::Auth(Box::new(self)))
    }
}

impl Reply for LoggedIn {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(Outcome::LoggedIn(self))
    }
}

/// For handlers with several kinds of reply.
impl Reply for Outcome {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(self)
    }
}

/// An outcome that a handler builds itself, with `data` described as a `T` in the OpenAPI document.
pub struct Shaped<T> {
    outcome: Outcome,
    of: PhantomData<fn() -> T>,
}

impl<T> From<Outcome> for Shaped<T> {
    fn from(outcome: Outcome) -> Self {
        Shaped { outcome, of: PhantomData }
    }
}

impl<T: JsonSchema> Reply for Shaped<T> {
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<T>())
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(self.outcome)
    }
}

/// The identity that an auth method has authenticated; core finds the entity and creates the token in the same
/// transaction.
#[derive(Clone, Default)]
pub struct Login {
    /// The alias of the caller at this mount; no entity without one.
    pub alias: Option<Alias>,
    /// The display name in audit entries and `lookup`, without the mount's prefix.
    pub display_name: String,
    /// The token's policies, before `default` is added.
    pub policies: Vec<String>,
    /// Metadata of the token for audit entries and templates.
    pub metadata: BTreeMap<String, String>,
    /// TTLs, number of uses and allowed addresses.
    pub terms: TokenTerms,
    /// Stored with the token and passed to [`crate::Engine::renew_login`].
    pub internal: serde_json::Value,
}

/// The name of a caller at one mount, as identity stores it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alias {
    /// Already normalized by the name-folding function of the mount.
    pub name: String,
    /// Metadata for templates.
    pub metadata: BTreeMap<String, String>,
}

impl Alias {
    /// The form in which identity compares names: in lower case, character by character, as OpenBao compares them. A
    /// method whose names are unique in another form lets two users share an entity.
    pub fn fold(name: &str) -> String {
        name.chars().flat_map(char::to_lowercase).collect()
    }
}

/// An attempt to log in under an alias.
///
/// Its outcome counts for the lockout of the alias, and a locked alias is refused regardless of the outcome. The only
/// reply type for logins requires the alias, so no handler can bypass the lockout.
pub struct LoginAttempt {
    /// The alias.
    pub alias: ClaimedAlias,
    /// The login, or why it is refused.
    pub outcome: Result<Login>,
}

/// The alias that a login attempt claims.
pub struct ClaimedAlias {
    /// Its name.
    pub name: String,
    /// Whether such a user exists. An unknown name is locked after as many failed logins as a user, so that the
    /// responses do not reveal which names exist.
    pub is_known: bool,
}

impl Reply for LoginAttempt {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(Outcome::Login(Box::new(self)))
    }
}
