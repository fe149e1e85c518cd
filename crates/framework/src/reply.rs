//! Replies are types: what a handler returns says how it is answered.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use keepfast_crypto::secret::SecretString;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::error::{Error, Result, Status};
use crate::lease::{Intent, LeaseOffer};
use crate::token_params::TokenTerms;

/// What an engine answered, types forgotten. Core settles what it obliges us to (a lease, a token) and sends it.
#[derive(Default)]
pub struct Outcome {
    /// The status, where it is not 200 (with content) or 204 (without).
    pub status: Option<Status>,
    /// The status that metrics count, where the caller chose `status`.
    pub decided: Option<Status>,
    /// The `data` of the answer: raw JSON, usually an object.
    pub data: Option<Box<RawValue>>,
    /// Whether the fields of `data` also stand at the top level, as some `sys/` paths have it.
    pub flat: bool,
    /// `lease_duration` in seconds without a lease (KV v1 has it); negative where the secret says so.
    pub hint_ttl: i64,
    /// A login: core makes the token, or counts the refusal.
    pub login: Option<Box<LoginAttempt>>,
    /// What is leased: core makes the lease.
    pub lease: Option<Box<LeaseOffer>>,
    /// What is leased and was made known beforehand: core confirms the lease.
    pub intent: Option<Box<Intent>>,
    /// A lease that core has renewed.
    pub renewed: Option<Box<RenewedLease>>,
    /// A token that core has made.
    pub auth: Option<Box<AuthBlock>>,
    /// Where core keeps the answer instead of sending it.
    pub wrapped: Option<Box<WrapInfo>>,
    /// Bytes that are sent as they are, without the envelope.
    pub raw: Option<Raw>,
}

/// A lease with its new life, as the answer tells it.
#[derive(Clone, Debug)]
pub struct RenewedLease {
    /// The whole id.
    pub id: String,
    /// Seconds from now.
    pub ttl: u64,
    /// Whether it can be renewed again.
    pub renewable: bool,
}

/// What the caller is told of an answer that is kept for one unwrapping. Only core makes one that is worth anything.
pub struct WrapInfo {
    /// The wrapping token.
    pub token: SecretString,
    /// Its accessor.
    pub accessor: String,
    /// Seconds.
    pub ttl: u64,
    /// RFC 3339.
    pub creation_time: String,
    /// The path whose answer is wrapped.
    pub creation_path: String,
    /// The accessor of a token in the answer; empty for none.
    pub wrapped_accessor: String,
}

impl Outcome {
    /// Whether there is nothing to say: 204.
    pub fn is_empty(&self) -> bool {
        self.data.is_none()
            && self.login.is_none()
            && self.auth.is_none()
            && self.raw.is_none()
            && self.lease.is_none()
            && self.renewed.is_none()
    }
}

/// Bytes without the envelope.
#[derive(Clone)]
pub struct Raw {
    /// The status of the answer.
    pub status: Status,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Its body.
    pub body: Vec<u8>,
}

/// The `auth` block of an answer: a token that was made. Only core makes one that is worth anything.
#[allow(missing_docs, reason = "the names are the API's own")]
pub struct AuthBlock {
    pub client_token: SecretString,
    pub accessor: String,
    /// For audit entries: no answer shows it.
    pub display_name: String,
    pub policies: Vec<String>,
    pub token_policies: Vec<String>,
    pub identity_policies: Vec<String>,
    pub metadata: Option<BTreeMap<String, String>>,
    pub lease_duration: u64,
    pub renewable: bool,
    pub entity_id: String,
    /// For audit entries, like the next one: whether the login has made the entity.
    pub entity_created: bool,
    /// Whether the auth method leaves `default` out.
    pub no_default_policy: bool,
    pub token_type: &'static str,
    pub orphan: bool,
    pub num_uses: i64,
}

/// Anything that a handler may return.
pub trait Reply: Send {
    /// The JSON schema of `data`, for the OpenAPI document.
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema>;
    /// Forgets the type.
    ///
    /// # Errors
    /// When the reply says that there is nothing (404), or cannot be written as JSON.
    fn into_outcome(self) -> Result<Outcome>;
}

/// 204.
impl Reply for () {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(Outcome::default())
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
        Ok(Outcome { data: Some(to_raw_value(&self.0)?), ..Outcome::default() })
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

/// 200 with `data` whose fields also stand at the top level.
pub struct Flat<T>(pub T);

impl<T: Serialize + Send> Reply for Flat<T> {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(Outcome { flat: true, ..Data(self.0).into_outcome()? })
    }
}

/// The names of a list; an empty one is 404, as Vault answers.
#[derive(Default)]
pub struct Keys {
    /// The names.
    pub keys: Vec<String>,
    /// More about each name, where the path has it.
    pub info: Option<Box<RawValue>>,
    /// Whether an empty list is 200 with empty data (SCAN) and not 404.
    pub empty_is_fine: bool,
}

impl Keys {
    /// Names and nothing else.
    pub fn of(keys: Vec<String>) -> Self {
        Keys { keys, ..Keys::default() }
    }

    /// Names with `key_info`.
    ///
    /// # Errors
    /// When the information cannot be written as JSON.
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

/// Data that expires: core makes a lease in the same transaction.
pub struct Leased<T> {
    /// What is leased.
    pub data: T,
    /// For how long, and what the engine needs to take it back.
    pub offer: LeaseOffer,
}

impl<T: Serialize + Send> Reply for Leased<T> {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(Outcome { lease: Some(Box::new(self.offer)), ..Data(self.data).into_outcome()? })
    }
}

/// Data that expires, whose lease was made durable before the engine acted ([`crate::Cx::intend`]).
pub struct Intended<T> {
    /// What is leased.
    pub data: T,
    /// Its lease.
    pub intent: Intent,
}

impl<T: Serialize + Send> Reply for Intended<T> {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(Outcome { intent: Some(Box::new(self.intent)), ..Data(self.data).into_outcome()? })
    }
}

/// Any reply with another status than its own.
pub struct WithStatus<R>(pub Status, pub R);

impl<R: Reply> Reply for WithStatus<R> {
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        R::schema(generator)
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(Outcome { status: Some(self.0), ..self.1.into_outcome()? })
    }
}

impl Reply for Raw {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(Outcome { raw: Some(self), ..Outcome::default() })
    }
}

impl Reply for AuthBlock {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(Outcome { auth: Some(Box::new(self)), ..Outcome::default() })
    }
}

/// For handlers that decide the kind of reply as they go.
impl Reply for Outcome {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(self)
    }
}

/// An outcome that a handler has put together itself, with `data` described as a `T` in the OpenAPI document.
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

/// Who an auth method says that this is; core finds the entity and makes the token, in the same transaction.
#[derive(Clone, Default)]
pub struct Login {
    /// The name by which identity knows the caller at this mount; no entity without one.
    pub alias: Option<Alias>,
    /// For people: what audit entries and `lookup` show, without the mount's prefix.
    pub display_name: String,
    /// The token's policies, before `default` is added.
    pub policies: Vec<String>,
    /// What the token carries for audit and templates.
    pub metadata: BTreeMap<String, String>,
    /// How long, how often and from where.
    pub terms: TokenTerms,
    /// Kept with the token and handed back to [`crate::Engine::renew_login`].
    pub internal: serde_json::Value,
}

/// A name by which identity knows a caller at one mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alias {
    /// Already folded by the mount's one name-folding function.
    pub name: String,
    /// What templates may use.
    pub metadata: BTreeMap<String, String>,
}

/// An attempt to log in as somebody.
///
/// Its outcome counts for the lockout of the alias, and a locked one is refused whatever the outcome: the only reply by which
/// a handler logs in has the alias, so none can leave the lockout out.
pub struct LoginAttempt {
    /// As whom.
    pub alias: ClaimedAlias,
    /// The login, or why it is refused.
    pub outcome: Result<Login>,
}

/// The alias as which a caller tries to log in.
pub struct ClaimedAlias {
    /// Its name.
    pub name: String,
    /// Whether there is such a user. An unknown name is locked after as many failed logins as a user, so that the answers do
    /// not tell which names exist.
    pub is_known: bool,
}

impl Reply for LoginAttempt {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_outcome(self) -> Result<Outcome> {
        Ok(Outcome { login: Some(Box::new(self)), ..Outcome::default() })
    }
}
