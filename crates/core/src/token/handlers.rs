//! `auth/token/`: the API of tokens.

use std::collections::BTreeMap;
use std::sync::Arc;

use keepfast_framework::engine::BuiltIn;
use keepfast_framework::fields::{Seconds, Text};
use keepfast_framework::reply::{AuthBlock, Outcome, WithStatus};
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::token_params::TokenKind;
use keepfast_framework::{Cx, Data, Engine, Error, Keys, Kind, Result, Routes, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::auth::{TokenAuth, own, unsealed};
use super::issue::Create;
use super::renew;
use super::roles;
use super::{BoundCidrs, Token, TokenKey, issue};
use crate::layout::{TOKEN_MOUNT, TOKEN_STORAGE};
use crate::namespace::{NamespaceId, split_suffix};
use crate::token::TokenRecord;
use crate::unsealed::Unsealed;
use keepfast_framework::rows::RunsIn;

const HELP: Help = Help { synopsis: "Creates, looks up, renews and revokes tokens.", description: "" };
const ROLES_HELP: Help = Help {
    synopsis: "Configures token roles: bounds and defaults of the tokens that are created with a role.",
    description: "",
};

impl Engine for TokenAuth {
    const TYPE: &'static str = "token";
    const KIND: Kind = Kind::Auth;
    const BUILT_IN: Option<BuiltIn> = Some(BuiltIn {
        storage: Some(TOKEN_STORAGE),
        token_type: TokenKind::DefaultService,
        ..BuiltIn::at(TOKEN_MOUNT, "token based credentials")
    });
    const IN_CORE: bool = true;

    fn routes(r: &mut Routes<Self>) {
        r.path("create", HELP).update(create);
        r.path("create-orphan", HELP).update(create_orphan);
        r.path("create/{role_name}", HELP).names_only().update(create_under_role);
        r.path("lookup", HELP).runs_in(RunsIn::Token("token")).token_in_body().read(lookup).update(lookup).here();
        r.path("lookup-self", HELP).runs_in(RunsIn::Caller).read(lookup_self).update(lookup_self).here();
        r.path("lookup-accessor", HELP).update(lookup_accessor).here();
        r.path("renew", HELP).runs_in(RunsIn::Token("token")).token_in_body().update(renew_token);
        r.path("renew-self", HELP).runs_in(RunsIn::Caller).update(renew_self);
        r.path("renew-accessor", HELP).update(renew_accessor);
        r.path("revoke", HELP).runs_in(RunsIn::Token("token")).token_in_body().update(revoke);
        r.path("revoke-self", HELP).runs_in(RunsIn::Caller).update(revoke_self);
        r.path("revoke-accessor", HELP).update(revoke_accessor);
        r.path("revoke-orphan", HELP).runs_in(RunsIn::Token("token")).token_in_body().update(revoke_orphan);
        r.path("accessors/", HELP).list(accessors).sudo();
        r.path("tidy", HELP).update(tidy);
        r.path("roles/", ROLES_HELP).list(roles::list);
        r.path("roles/{role_name}", ROLES_HELP)
            .names_only()
            .read(roles::read)
            .update(roles::write)
            .delete(roles::delete)
            .exists(roles::exists);
    }

    async fn open(_: &mut Cx) -> Result<Self> {
        Err(Error::internal("opened by core itself"))
    }
}

/// A token in a request body. Any other value than text is as invalid as an unknown token.
#[derive(Default, JsonSchema)]
struct TokenText(#[schemars(with = "Text")] TokenReference);

#[derive(Default)]
enum TokenReference {
    #[default]
    Absent,
    Text(String),
    Other,
}

impl<'de> Deserialize<'de> for TokenText {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        // The raw JSON: parsed as a value, some numbers would become texts.
        let sent = Box::<serde_json::value::RawValue>::deserialize(d)?;
        Ok(TokenText(match serde_json::from_str::<String>(sent.get()) {
            Ok(text) if text.is_empty() => TokenReference::Absent,
            Ok(text) => TokenReference::Text(text),
            Err(_) => TokenReference::Other,
        }))
    }
}

impl TokenText {
    /// The token; `None` if none is given.
    ///
    /// # Errors
    /// 403 when the value is no text.
    fn named(self) -> Result<Option<String>> {
        match self.0 {
            TokenReference::Absent => Ok(None),
            TokenReference::Text(text) => Ok(Some(text)),
            TokenReference::Other => Err(Error::new(Status::FORBIDDEN, "invalid token")),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
struct TokenRequest {
    /// The token. Default: the caller's token.
    #[serde(default)]
    token: TokenText,
}

#[derive(Deserialize, JsonSchema)]
struct Renew {
    /// The token.
    #[serde(default)]
    token: TokenText,
    /// Requested TTL from now, in seconds. Default: the TTL of the token or its role.
    increment: Option<Seconds>,
}

/// The parameters of the paths of the caller's own token, which are ignored.
#[derive(Deserialize, JsonSchema)]
struct OptionalTokenRequest {
    /// Ignored: the token is the caller's token.
    #[allow(dead_code)]
    token: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
struct RenewSelf {
    /// Ignored: the token is the caller's token.
    #[allow(dead_code)]
    token: Option<Text>,
    /// Requested TTL from now, in seconds. Default: the TTL of the token or its role.
    increment: Option<Seconds>,
}

#[derive(Deserialize, JsonSchema)]
struct AccessorRequest {
    /// The accessor of the token.
    accessor: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
struct RenewAccessor {
    /// The accessor of the token.
    accessor: Option<Text>,
    /// Requested TTL from now, in seconds. Default: the TTL of the token or its role.
    increment: Option<Seconds>,
}

async fn create(_: &TokenAuth, cx: &mut Cx, req: Create) -> Result<AuthBlock> {
    issue::issue(&*unsealed(cx)?, cx, req, None, false).await
}

async fn create_orphan(_: &TokenAuth, cx: &mut Cx, req: Create) -> Result<AuthBlock> {
    issue::issue(&*unsealed(cx)?, cx, req, None, true).await
}

async fn create_under_role(_: &TokenAuth, cx: &mut Cx, req: Create) -> Result<AuthBlock> {
    // The name of the role is the last segment of the path, not a parameter.
    let role = cx.request().path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    issue::issue(&*unsealed(cx)?, cx, req, Some(&role), false).await
}

/// The response of `lookup`.
#[derive(Serialize)]
struct TokenResponse {
    accessor: String,
    #[serde(skip_serializing_if = "BoundCidrs::is_empty")]
    bound_cidrs: BoundCidrs,
    creation_time: i64,
    creation_ttl: u64,
    display_name: String,
    entity_id: String,
    expire_time: Option<String>,
    explicit_max_ttl: u64,
    /// Policies of other namespaces; there is no other one.
    #[serde(skip_serializing_if = "Option::is_none")]
    external_namespace_policies: Option<BTreeMap<String, Vec<String>>>,
    id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    identity_policies: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issue_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_renewal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_renewal_time: Option<i64>,
    meta: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace_path: Option<String>,
    num_uses: i64,
    orphan: bool,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<u64>,
    policies: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    renewable: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    ttl: u64,
    #[serde(rename = "type")]
    kind: &'static str,
}

async fn response_of(cx: &Cx, token: &Token, id: &str) -> Result<Data<TokenResponse>> {
    let record = &token.record;
    let own = of_token(cx, record).await?;
    let effective = own.access.identity.effective(&record.entity_id).await?;
    let effective = effective.filter(|effective| record.userinfo.is_none() && !effective.policies.is_empty());
    let now = cx.now();
    // The first token of a cluster has no lease, and OpenBao returns none.
    let leased = record.path != super::record::FIRST_TOKEN_PATH;
    let end = match record.expiry {
        super::record::TokenExpiry::Never => None,
        super::record::TokenExpiry::At(end) => Some(end),
    };
    let (explicit_max_ttl, period) = record.requested.unwrap_or((record.explicit_max_ttl, record.period));
    Ok(Data(TokenResponse {
        accessor: record.accessor.clone(),
        bound_cidrs: record.bound_cidrs.clone(),
        creation_time: record.created.unix(),
        creation_ttl: record.creation_ttl,
        display_name: record.display_name.clone(),
        entity_id: record.entity_id.clone(),
        expire_time: end.map(|e| e.rfc3339()),
        explicit_max_ttl,
        id: id.to_owned(),
        external_namespace_policies: effective.as_ref().map(|_| BTreeMap::new()),
        identity_policies: effective.map(|effective| effective.policies.clone()).unwrap_or_default(),
        issue_time: leased.then(|| record.created.rfc3339()),
        last_renewal: record.last_renewal.map(|t| t.rfc3339()),
        last_renewal_time: record.last_renewal.map(|t| t.unix()),
        meta: record.meta_response(),
        namespace_path: (!record.namespace.is_root()).then(|| own.access.namespace.path.to_string()),
        num_uses: record.num_uses,
        orphan: record.is_orphan(),
        path: record.path.clone(),
        period: (period > 0).then_some(period),
        policies: record.authority.names(),
        renewable: leased.then_some(record.renewable),
        role: (!record.role.is_empty()).then(|| record.role.clone()),
        ttl: record.ttl_at(now),
        kind: record.kind(),
    }))
}

async fn lookup(_: &TokenAuth, cx: &mut Cx, req: TokenRequest) -> Result<Data<TokenResponse>> {
    let Some(text) = req.token.named()? else { return lookup_own(cx).await };
    let unsealed = unsealed(cx)?;
    let found = in_reach(&unsealed, unsealed.access.tokens.find_anywhere(&text, cx.now()).await?).await?;
    let found = found.ok_or_else(|| Error::new(Status::FORBIDDEN, "bad token"))?;
    response_of(cx, &found, &text).await
}

async fn lookup_self(_: &TokenAuth, cx: &mut Cx, _: OptionalTokenRequest) -> Result<Data<TokenResponse>> {
    lookup_own(cx).await
}

async fn lookup_own(cx: &mut Cx) -> Result<Data<TokenResponse>> {
    let (token, id) = own(cx)?;
    // The count of uses was just changed, so the record is read again.
    let current = match &token.key {
        Some(key) => unsealed(cx)?.access.tokens.at(key, cx.now()).await?.unwrap_or(token),
        None => token,
    };
    response_of(cx, &current, &id).await
}

/// The token with this accessor.
async fn by_accessor(cx: &Cx, accessor: Option<Text>) -> Result<Option<(TokenKey, Arc<Token>)>> {
    let Some(accessor) = accessor.filter(|a| !a.is_empty()) else { return Err(listed("missing accessor")) };
    let unsealed = unsealed(cx)?;
    let key = unsealed.access.tokens.place_of(&accessor);
    let found = unsealed.access.tokens.at(&key, cx.now()).await?.filter(|t| t.record.accessor == accessor.0);
    let own = found.filter(|token| token.record.namespace == unsealed.access.namespace.id);
    Ok(own.map(|token| (key, token)))
}

/// The services of the namespace of a token, which is that of the call, above it or below it.
async fn of_token(cx: &Cx, record: &TokenRecord) -> Result<Arc<Unsealed>> {
    let own = unsealed(cx)?;
    if record.namespace == own.access.namespace.id {
        return Ok(own);
    }
    own.access.namespaces()?.usable(&record.namespace).await?.ok_or_else(Error::denied)
}

/// A token that may be named in this namespace: one of it or below it.
async fn in_reach(unsealed: &Unsealed, token: Option<Arc<Token>>) -> Result<Option<Arc<Token>>> {
    match token {
        Some(token) if unsealed.access.reaches(&token.record.namespace).await? => Ok(Some(token)),
        _ => Ok(None),
    }
}

/// The key of the token with this text, valid or not, if it may be named in this namespace.
async fn key_in_reach(unsealed: &Unsealed, text: &str) -> Result<Option<TokenKey>> {
    let namespace = split_suffix(text).1.and_then(NamespaceId::parse).unwrap_or_default();
    let is_in_reach = unsealed.access.reaches(&namespace).await?;
    Ok(is_in_reach.then(|| unsealed.access.tokens.place(text)))
}

/// An error in the format of Vault's lists of errors.
pub(super) fn listed(text: &str) -> Error {
    Error::invalid(format!("1 error occurred:\n\t* {text}\n\n"))
}

async fn lookup_accessor(_: &TokenAuth, cx: &mut Cx, req: AccessorRequest) -> Result<Data<TokenResponse>> {
    let found = by_accessor(cx, req.accessor).await?;
    let (_, token) = found.ok_or_else(|| listed("invalid accessor"))?;
    response_of(cx, &token, "").await
}

async fn renew_token(_: &TokenAuth, cx: &mut Cx, req: Renew) -> Result<Outcome> {
    let Some(text) = req.token.named()? else { return Err(Error::invalid("missing token ID")) };
    let unsealed = unsealed(cx)?;
    let found = in_reach(&unsealed, unsealed.access.tokens.find_anywhere(&text, cx.now()).await?).await?;
    let found = found.ok_or_else(|| Error::invalid("token not found"))?;
    let own = of_token(cx, &found.record).await?;
    Box::pin(renew::renew(&own, cx, &found, req.increment, Some(&text))).await
}

async fn renew_self(_: &TokenAuth, cx: &mut Cx, req: RenewSelf) -> Result<Outcome> {
    let (token, id) = own(cx)?;
    let own = of_token(cx, &token.record).await?;
    Box::pin(renew::renew(&own, cx, &token, req.increment, Some(&id))).await
}

async fn renew_accessor(_: &TokenAuth, cx: &mut Cx, req: RenewAccessor) -> Result<Outcome> {
    let found = by_accessor(cx, req.accessor).await?;
    let (_, token) = found.ok_or_else(|| listed("invalid accessor"))?;
    if !token.record.renewable {
        return Err(listed("invalid request"));
    }
    let own = of_token(cx, &token.record).await?;
    Box::pin(renew::renew(&own, cx, &token, req.increment, None)).await
}

async fn revoke(_: &TokenAuth, cx: &mut Cx, req: TokenRequest) -> Result<()> {
    let Some(text) = req.token.named()? else { return Err(Error::invalid("missing token ID")) };
    let unsealed = unsealed(cx)?;
    if text.starts_with(super::id::BATCH) {
        return Err(Error::invalid("batch tokens cannot be revoked"));
    }
    match key_in_reach(&unsealed, &text).await? {
        Some(key) => unsealed.access.tokens.revoke(&key).await.map(drop),
        None => Ok(()),
    }
}

async fn revoke_self(_: &TokenAuth, cx: &mut Cx, _: Nothing) -> Result<()> {
    let (token, _) = own(cx)?;
    match &token.key {
        None => Err(Error::invalid("batch tokens cannot be revoked")),
        Some(key) => unsealed(cx)?.access.tokens.revoke(key).await.map(drop),
    }
}

async fn revoke_accessor(_: &TokenAuth, cx: &mut Cx, req: AccessorRequest) -> Result<()> {
    match by_accessor(cx, req.accessor).await? {
        Some((key, _)) => unsealed(cx)?.access.tokens.revoke(&key).await.map(drop),
        None => {
            cx.warn("No token found with this accessor");
            Ok(())
        }
    }
}

async fn revoke_orphan(_: &TokenAuth, cx: &mut Cx, req: TokenRequest) -> Result<()> {
    let Some(text) = req.token.named()? else { return Err(Error::invalid("missing token ID")) };
    let (caller, _) = own(cx)?;
    if !issue::has_sudo(&caller, &*unsealed(cx)?, cx).await? {
        return Err(Error::invalid("root or sudo privileges required to revoke and orphan"));
    }
    if text.starts_with(super::id::BATCH) {
        return Err(Error::invalid("batch tokens cannot be revoked"));
    }
    let unsealed = unsealed(cx)?;
    let key = key_in_reach(&unsealed, &text).await?;
    let is_revoked = match &key {
        Some(key) => unsealed.access.tokens.revoke_orphan(key).await?,
        None => false,
    };
    if is_revoked { Ok(()) } else { Err(Error::invalid("token to revoke not found")) }
}

async fn accessors(_: &TokenAuth, cx: &mut Cx, _: Nothing) -> Result<Keys> {
    let access = &unsealed(cx)?.access;
    Ok(Keys::of(access.tokens.accessors(&access.namespace.id).await?))
}

async fn tidy(_: &TokenAuth, cx: &mut Cx, _: Nothing) -> Result<WithStatus<()>> {
    let unsealed = unsealed(cx)?;
    unsealed.leases.expiry.revoke_expired_tokens(cx.now()).await?;
    unsealed.access.tokens.resume_collection().await?;
    cx.warn(
        "Tidy operation successfully started. Any information from the operation will be printed to the server's logs.",
    );
    Ok(WithStatus(Status(202), ()))
}
