//! `identity/oidc/provider/:name/authorize`: the authorization endpoint (OpenID Connect Core, 3.1.2).

use keepfast_crypto::secret::SecretString;
use keepfast_framework::fields::{Int, Text};
use keepfast_framework::reply::Raw;
use keepfast_framework::routes::Help;
use keepfast_framework::{Cx, Result, Routes, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::oauth_error::{self, OAuthError};
use super::pkce::Challenge;
use super::records::{Client, ClientType, Code, LONGEST_TEXT, client_of_id, provider};
use super::stored::secret_text;
use super::{assignment, codes, redirect, scope};
use crate::identity::engine::{IdentityEngine, call};

const HELP: Help = Help {
    synopsis: "Returns an authorization code for a client.",
    description: "The caller's entity logs in to the client. The code is exchanged once, within five minutes.",
};

pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    r.path("oidc/provider/{name}/authorize", HELP).names_only().read(authorize).update(authorize).once().forwarded();
}

#[derive(Deserialize, JsonSchema)]
struct Authorize {
    /// Name of the provider.
    name: Text,
    /// Space-separated scopes, of which one is `openid`.
    scope: Option<Text>,
    /// `code`.
    response_type: Option<Text>,
    /// Id of the client.
    client_id: Option<Text>,
    /// The URI to which the code is sent, one of those of the client.
    redirect_uri: Option<Text>,
    /// A value that the response repeats.
    state: Option<Text>,
    /// A value that the identity token repeats.
    nonce: Option<Text>,
    /// Seconds since the caller's authentication, at most.
    max_age: Option<Int>,
    /// The code challenge of PKCE, required for public clients.
    code_challenge: Option<Text>,
    /// The method of the code challenge: `S256` or `plain`. Default: `plain`.
    code_challenge_method: Option<Text>,
    /// Not supported.
    request: Option<Text>,
    /// Not supported.
    request_uri: Option<Text>,
}

#[derive(Serialize)]
struct CodeResponse<'a> {
    #[serde(with = "secret_text")]
    code: Option<SecretString>,
    #[serde(skip_serializing_if = "str::is_empty")]
    state: &'a str,
}

fn text(field: &Option<Text>) -> &str {
    field.as_deref().unwrap_or_default()
}

async fn authorize(_: &IdentityEngine, cx: &mut Cx, req: Authorize) -> Result<Raw> {
    let state = text(&req.state);
    match issue(cx, &req).await? {
        Ok(code) => oauth_error::json(Status::OK, &CodeResponse { code: Some(code), state }, Vec::new()),
        // As on OpenBao, these errors do not repeat the state.
        Err(error) if error.code().ends_with("_not_supported") => error.response("", Vec::new()),
        Err(error) => error.response(state, Vec::new()),
    }
}

/// Checks a request in the order of OpenBao, so that the first error is the same, and stores a code.
async fn issue(cx: &mut Cx, req: &Authorize) -> Result<Result<SecretString, OAuthError>> {
    let denied = |text: &'static str| Ok(Err(OAuthError::new("access_denied", text)));
    let (client, scopes) = match checked(cx, req).await? {
        Ok(checked) => checked,
        Err(error) => return Ok(Err(error)),
    };
    let call = call(cx)?;
    let identity = &call.unsealed.access.identity;
    let entity = cx.caller().entity_id.clone();
    let Some(effective) = identity.effective(&entity).await? else {
        return denied("identity entity must be associated with the request");
    };
    if !assignment::includes(cx, &client.assignments, &effective).await? {
        return denied("identity entity not authorized by client assignment");
    }
    let challenge = match challenge_of(req, &client) {
        Ok(challenge) => challenge,
        Err(why) => return Ok(Err(OAuthError::new("invalid_request", why))),
    };
    let authenticated = call.token.as_ref().map(|token| token.record.created);
    let auth_time = match &req.max_age {
        None => None,
        Some(Int(seconds)) => {
            let most = u64::try_from(*seconds).unwrap_or(0);
            if most == 0 {
                return Ok(Err(OAuthError::new("invalid_request", "max_age must be greater than zero")));
            }
            let age = authenticated.map(|at| cx.now().since(at).as_secs());
            if age.is_none_or(|age| age > most) {
                let text = "active re-authentication is required by max_age";
                return Ok(Err(OAuthError::new("max_age_violation", text)));
            }
            authenticated
        }
    };
    let code = Code {
        provider: req.name.to_string(),
        client_id: client.client_id,
        redirect_uri: text(&req.redirect_uri).to_owned(),
        scopes,
        nonce: text(&req.nonce).to_owned(),
        entity: effective.entity.id.clone(),
        auth_time,
        challenge,
        expires: cx.now().after(codes::LIFETIME),
    };
    Ok(Ok(codes::issue(cx, &call.unsealed.access.tokens, &code).await?))
}

/// The client and the scopes of a request, without the checks of the caller.
async fn checked(cx: &mut Cx, req: &Authorize) -> Result<Result<(Client, Vec<String>), OAuthError>> {
    let refused = |error, text: &'static str| Ok(Err(OAuthError::new(error, text)));
    let id = text(&req.client_id);
    if id.is_empty() {
        return refused("invalid_client_id", "client_id parameter is required");
    }
    let Some((_, client)) = client_of_id(cx, id).await? else {
        return refused("invalid_client_id", "client with client_id not found");
    };
    if !client.authorization_code {
        return refused("invalid_grant", "client not allowed to perform authorization code credential flow");
    }
    let uri = text(&req.redirect_uri);
    if uri.is_empty() {
        return refused("invalid_request", "redirect_uri parameter is required");
    }
    if !redirect::is_allowed(&client.redirect_uris, uri) {
        return refused("invalid_redirect_uri", "redirect_uri is not allowed for the client");
    }
    let Some(provider) = provider(cx, &req.name).await? else {
        return refused("invalid_request", "provider not found");
    };
    if !provider.allows(&client.client_id) {
        return refused("unauthorized_client", "client is not authorized to use the provider");
    }
    if !text(&req.request).is_empty() {
        return refused("request_not_supported", "request parameter is not supported");
    }
    if !text(&req.request_uri).is_empty() {
        return refused("request_uri_not_supported", "request_uri parameter is not supported");
    }
    let fields = [&req.scope, &req.state, &req.nonce, &req.redirect_uri];
    if fields.into_iter().any(|field| text(field).len() > LONGEST_TEXT) {
        return refused("invalid_request", "scope, state, nonce and redirect_uri have at most 2048 bytes");
    }
    let Some(scopes) = scope::requested(&provider, text(&req.scope)) else {
        return refused("invalid_request", "scope parameter must contain the \"openid\" value");
    };
    match text(&req.response_type) {
        "" => refused("invalid_request", "response_type parameter is required"),
        "code" => Ok(Ok((client, scopes))),
        _ => refused("unsupported_response_type", "unsupported response_type value"),
    }
}

fn challenge_of(req: &Authorize, client: &Client) -> Result<Option<Challenge>, &'static str> {
    match &req.code_challenge {
        Some(challenge) => Challenge::new(challenge, text(&req.code_challenge_method)).map(Some),
        None if client.client_type == ClientType::Public => Err("PKCE is required for public clients"),
        None => Ok(None),
    }
}
