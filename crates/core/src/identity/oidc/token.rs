//! `identity/oidc/provider/:name/token`: the token endpoint (OpenID Connect Core, 3.1.3).

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_crypto::{compare, random};
use keepfast_framework::fields::{SecretText, Text};
use keepfast_framework::reply::Raw;
use keepfast_framework::routes::Help;
use keepfast_framework::{Authorization, Cx, Result, Routes, Status, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::claims::Source;
use super::id_token::{self, IdToken};
use super::oauth_error::{self, OAuthError, UNAUTHORIZED};
use super::records::{Client, ClientType, Code, Provider, client_of_id, provider, ring};
use super::ring::KeyRecord;
use super::stored::secret_text;
use super::{assignment, codes, issuer, scope};
use crate::identity::engine::{IdentityEngine, call};
use crate::token::create::Spec;
use crate::token::{Authority, UserinfoGrant};

const HELP: Help = Help { synopsis: "Exchanges an authorization code for tokens.", description: "" };

pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    r.path("oidc/provider/{name}/token", HELP).names_only().update(token).unauthenticated().takes_authorization();
}

#[derive(Deserialize, JsonSchema)]
struct Exchange {
    /// Name of the provider.
    name: Text,
    /// `authorization_code` or `client_credentials`.
    grant_type: Option<Text>,
    /// The authorization code.
    code: Option<SecretText>,
    /// The redirect URI of the authorization request.
    redirect_uri: Option<Text>,
    /// Id of the client, unless the request has it in `Authorization: Basic`.
    client_id: Option<Text>,
    /// Secret of a confidential client, unless the request has it in `Authorization: Basic`.
    client_secret: Option<SecretText>,
    /// The code verifier of PKCE.
    code_verifier: Option<SecretText>,
    /// Space-separated scopes of client credentials, of which one is `openid`.
    scope: Option<Text>,
}

#[derive(Serialize)]
struct TokenResponse {
    #[serde(with = "secret_text")]
    access_token: Option<SecretString>,
    expires_in: u64,
    #[serde(with = "secret_text", skip_serializing_if = "Option::is_none")]
    id_token: Option<SecretString>,
    token_type: &'static str,
}

type Checked<T> = Result<Result<T, OAuthError>>;

/// The provider and the authenticated client of a request.
struct Grantor {
    provider: Provider,
    client: Client,
    key: KeyRecord,
    now: Timestamp,
}

async fn token(_: &IdentityEngine, cx: &mut Cx, req: Exchange) -> Result<Raw> {
    // A response in the form of OAuth, also an error, commits: a code that was presented is used up.
    let no_cache = || ("pragma", "no-cache".to_owned());
    match exchange(cx, &req).await? {
        Ok(response) => oauth_error::json(Status::OK, &response, vec![no_cache()]),
        Err(error) if error.status() == UNAUTHORIZED => {
            error.response(None, vec![no_cache(), ("www-authenticate", "Basic".to_owned())])
        }
        Err(error) => error.response(None, vec![no_cache()]),
    }
}

async fn exchange(cx: &mut Cx, req: &Exchange) -> Checked<TokenResponse> {
    let grantor = match grantor(cx, req).await? {
        Ok(grantor) => grantor,
        Err(error) => return Ok(Err(error)),
    };
    let allowed = match req.grant_type.as_deref().unwrap_or_default() {
        "authorization_code" => grantor.client.authorization_code,
        "client_credentials" => grantor.client.client_credentials,
        _ => {
            let text = "unsupported grant_type or parameter is empty value";
            return Ok(Err(OAuthError::new("unsupported_grant_type", text)));
        }
    };
    if !allowed {
        let text = "client is not authorized to use given credentials flow";
        return Ok(Err(OAuthError::new("invalid_grant", text)));
    }
    match req.grant_type.as_deref() {
        Some("client_credentials") => Box::pin(client_credentials(cx, &grantor, req)).await,
        _ => Box::pin(authorization_code(cx, &grantor, req)).await,
    }
}

/// Authenticates the client.
async fn grantor(cx: &mut Cx, req: &Exchange) -> Checked<Grantor> {
    let unauthorized = |text: &'static str| Ok(Err(OAuthError::with_status(UNAUTHORIZED, "invalid_client", text)));
    let Some(provider) = provider(cx, &req.name).await? else {
        return Ok(Err(OAuthError::new("invalid_request", "provider not found")));
    };
    let basic = match &call(cx)?.authorization {
        Authorization::Basic(credentials) => basic_credentials(credentials.expose()),
        _ => None,
    };
    let (id, secret) = match basic {
        Some((id, secret)) => (id, Some(secret)),
        None => (req.client_id.as_deref().unwrap_or_default().to_owned(), req.client_secret.clone()),
    };
    if id.is_empty() {
        return Ok(Err(OAuthError::new("invalid_request", "client_id parameter is required")));
    }
    let failed = "client failed to authenticate";
    let Some((_, client)) = client_of_id(cx, &id).await? else { return unauthorized(failed) };
    let secret = secret.as_ref().map(SecretText::expose).unwrap_or_default();
    let is_authentic = match (&client.client_type, &client.secret) {
        (ClientType::Public, _) => true,
        (ClientType::Confidential, Some(known)) => compare::equal(known.expose().as_bytes(), secret.as_bytes()),
        (ClientType::Confidential, None) => false,
    };
    if !is_authentic {
        return unauthorized(failed);
    }
    if !provider.allows(&client.client_id) {
        return unauthorized("client is not authorized to use the provider");
    }
    let key = ring(cx, &client.key).await?;
    if !key.settings.allows(&client.client_id) {
        return unauthorized("client is not authorized to use the key");
    }
    Ok(Ok(Grantor { provider, client, key, now: cx.now() }))
}

/// The id and the secret in `Authorization: Basic`. Ids and secrets have no characters that the form encoding of RFC
/// 6749 changes.
fn basic_credentials(text: &str) -> Option<(String, SecretText)> {
    let decoded = SecretBytes::new(STANDARD.decode(text).ok()?);
    let (id, secret) = std::str::from_utf8(decoded.expose()).ok()?.split_once(':')?;
    Some((id.to_owned(), SecretText(SecretString::new(secret.to_owned()))))
}

/// Takes the code and checks that it belongs to this request.
async fn taken_code(cx: &mut Cx, grantor: &Grantor, req: &Exchange) -> Checked<Code> {
    let refused = |error, text: &'static str| Ok(Err(OAuthError::new(error, text)));
    let text = req.code.as_ref().map(SecretText::expose).unwrap_or_default();
    if text.is_empty() {
        return refused("invalid_request", "code parameter is required");
    }
    let tokens = call(cx)?.unsealed.access.tokens.clone();
    let Some(code) = codes::take(cx, &tokens, text).await? else {
        return refused("invalid_grant", "authorization grant is invalid or expired");
    };
    if code.client_id != grantor.client.client_id {
        return refused("invalid_grant", "authorization code was not issued to the client");
    }
    if code.provider != *req.name {
        return refused("invalid_grant", "authorization code was not issued by the provider");
    }
    let uri = req.redirect_uri.as_deref().unwrap_or_default();
    if uri.is_empty() {
        return refused("invalid_request", "redirect_uri parameter is required");
    }
    if uri != code.redirect_uri {
        let text = "redirect_uri does not match the redirect_uri used in the authorization request";
        return refused("invalid_grant", text);
    }
    let verifier = req.code_verifier.as_ref().map(SecretText::expose).unwrap_or_default();
    match &code.challenge {
        None if !verifier.is_empty() => refused("invalid_request", "unexpected code_verifier for token exchange"),
        Some(_) if verifier.is_empty() => refused("invalid_request", "expected code_verifier for token exchange"),
        Some(challenge) if !challenge.accepts(verifier) => {
            refused("invalid_grant", "invalid code_verifier for token exchange")
        }
        _ => Ok(Ok(code)),
    }
}

async fn authorization_code(cx: &mut Cx, grantor: &Grantor, req: &Exchange) -> Checked<TokenResponse> {
    let code = match taken_code(cx, grantor, req).await? {
        Ok(code) => code,
        Err(error) => return Ok(Err(error)),
    };
    let Grantor { provider, client, key, now } = grantor;
    let unsealed = call(cx)?.unsealed.clone();
    let refused = |text| Ok(Err(OAuthError::new("invalid_request", text)));
    let Some(effective) = unsealed.access.identity.effective(&code.entity).await? else {
        return refused("identity entity associated with the request not found".to_owned());
    };
    if !assignment::includes(cx, &client.assignments, &effective).await? {
        return refused("identity entity not authorized by client assignment".to_owned());
    }
    let source = Source::Subject(&effective);
    let mut claims = match scope::claims_of(cx, provider, &code.scopes, &source, *now).await? {
        Ok(claims) => claims,
        Err(why) => return refused(why),
    };
    let spec = Spec {
        authority: Authority::Policies(Vec::new()),
        path: format!("oidc/provider/{}/token", req.name),
        meta: BTreeMap::from([("oidc_token_type".to_owned(), "access token".to_owned())]),
        ttl: Some(Duration::from_secs(client.access_token_ttl)),
        entity_id: effective.entity.id.clone(),
        batch: true,
        userinfo: Some(Box::new(UserinfoGrant {
            provider: req.name.to_string(),
            client_id: client.client_id.clone(),
            scopes: code.scopes.clone(),
        })),
        ..Spec::default()
    };
    let access_token = unsealed.access.tokens.create(cx.store().0, &unsealed.access.namespace.id, spec, *now).await?.id;
    let algorithm = key.current.algorithm();
    claims.insert("at_hash".to_owned(), json!(algorithm.half_hash(access_token.expose())));
    let presented = req.code.as_ref().map(SecretText::expose).unwrap_or_default();
    claims.insert("c_hash".to_owned(), json!(algorithm.half_hash(presented)));
    if !code.nonce.is_empty() {
        claims.insert("nonce".to_owned(), json!(code.nonce));
    }
    if let Some(auth_time) = code.auth_time {
        claims.insert("auth_time".to_owned(), json!(auth_time.unix()));
    }
    let issuer = issuer::of_provider(cx, &req.name, &provider.issuer)?;
    let token = IdToken {
        issuer: &issuer,
        audience: &client.client_id,
        subject: &effective.entity.id,
        namespace: effective.entity.namespace.as_str(),
        ttl: client.id_token_ttl,
    };
    Ok(Ok(TokenResponse {
        access_token: Some(access_token),
        expires_in: client.access_token_ttl,
        id_token: Some(id_token::sign(&key.current, token, claims, *now)?),
        token_type: "Bearer",
    }))
}

/// Client credentials (RFC 6749, 4.4): a signed access token of the client itself.
async fn client_credentials(cx: &mut Cx, grantor: &Grantor, req: &Exchange) -> Checked<TokenResponse> {
    let Grantor { provider, client, key, now } = grantor;
    let Some(scopes) = scope::requested(provider, req.scope.as_deref().unwrap_or_default()) else {
        let text = "scope parameter must contain the \"openid\" value";
        return Ok(Err(OAuthError::new("invalid_request", text)));
    };
    let mut claims = match scope::claims_of(cx, provider, &scopes, &Source::Nobody, *now).await? {
        Ok(claims) => claims,
        Err(why) => return Ok(Err(OAuthError::new("invalid_request", why))),
    };
    claims.insert("jti".to_owned(), json!(random::uuid()));
    let issuer = issuer::of_provider(cx, &req.name, &provider.issuer)?;
    let identity = &call(cx)?.unsealed.access.identity;
    let token = IdToken {
        issuer: &issuer,
        audience: &client.client_id,
        subject: &client.client_id,
        namespace: identity.namespace.as_str(),
        ttl: client.access_token_ttl,
    };
    Ok(Ok(TokenResponse {
        access_token: Some(id_token::sign(&key.current, token, claims, *now)?),
        expires_in: client.access_token_ttl,
        id_token: None,
        token_type: "Bearer",
    }))
}
