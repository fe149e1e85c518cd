//! `identity/oidc/provider/:name/userinfo`: the claims of an access token's entity (OpenID Connect Core, 5.3).

use keepfast_framework::reply::Raw;
use keepfast_framework::routes::Help;
use keepfast_framework::{Authorization, Cx, Result, Routes, Status};
use serde_json::json;

use super::claims::Source;
use super::jws::Claims;
use super::lists::ByName;
use super::oauth_error::{self, OAuthError, UNAUTHORIZED};
use super::records::{client_of_id, provider};
use super::{assignment, scope};
use crate::identity::engine::{IdentityEngine, call};

const HELP: Help = Help {
    synopsis: "Returns the claims of the entity of an access token.",
    description: "The access token of the token endpoint is sent in the header 'Authorization: Bearer'.",
};

/// No policy applies to this path: only an access token of the provider can call it, and such a token no other path.
pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    r.path("oidc/provider/{name}/userinfo", HELP)
        .names_only()
        .read(userinfo)
        .update(userinfo)
        .unauthenticated()
        .takes_authorization()
        .here();
}

async fn userinfo(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<Raw> {
    match claims(cx, &req.name).await? {
        Ok(claims) => oauth_error::json(Status::OK, &claims, Vec::new()),
        Err(error) => {
            let challenge = error.challenge();
            error.response(None, vec![challenge])
        }
    }
}

async fn claims(cx: &mut Cx, name: &str) -> Result<Result<Claims, OAuthError>> {
    let invalid = |text: &'static str| Ok(Err(OAuthError::with_status(UNAUTHORIZED, "invalid_token", text)));
    let denied = |text: &'static str| Ok(Err(OAuthError::with_status(Status::FORBIDDEN, "access_denied", text)));
    let call = call(cx)?;
    let Some(token) = &call.token else { return invalid("permission denied") };
    if !matches!(call.authorization, Authorization::Bearer) {
        return invalid("access token must be sent as a Bearer token");
    }
    let Some(grant) = &token.record.userinfo else { return invalid("access token is malformed or invalid") };
    let provider = match provider(cx, name).await? {
        Some(provider) if grant.provider == name => provider,
        _ => return invalid("permission denied"),
    };
    let Some((_, client)) = client_of_id(cx, &grant.client_id).await? else { return denied("client not found") };
    if !provider.allows(&client.client_id) {
        return denied("client is not authorized to use the provider");
    }
    let identity = &call.unsealed.access.identity;
    let Some(effective) = identity.effective(&token.record.entity_id).await? else {
        return denied("identity entity must be associated with the request");
    };
    if !assignment::includes(cx, &client.assignments, &effective).await? {
        return denied("identity entity not authorized by client assignment");
    }
    let (now, source) = (cx.now(), Source::Subject(&effective));
    Ok(match scope::claims_of(cx, &provider, &grant.scopes, &source, now).await? {
        Err(why) => Err(OAuthError::new("invalid_request", why)),
        Ok(mut claims) => {
            claims.insert("sub".to_owned(), json!(effective.entity.id));
            Ok(claims)
        }
    })
}
