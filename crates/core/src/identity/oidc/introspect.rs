//! `identity/oidc/introspect`: whether an identity token of a role is valid.

use keepfast_framework::fields::{SecretText, Text};
use keepfast_framework::reply::Raw;
use keepfast_framework::routes::Help;
use keepfast_framework::{Cx, Page, Result, Routes, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::jws::{Claims, Unverified};
use super::ring::KEYS;
use super::{issuer, oauth_error};
use crate::identity::engine::{IdentityEngine, identity, named};

const HELP: Help = Help { synopsis: "Verifies an identity token.", description: "" };
const INVALID: &str = "error validating claims: go-jose/go-jose/jwt: validation failed,";

pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    r.path("oidc/introspect", HELP).update(introspect).here();
}

#[derive(Deserialize, JsonSchema)]
struct Introspect {
    /// The token.
    token: Option<SecretText>,
    /// The client id that the audience must have. Default: any.
    client_id: Option<Text>,
}

#[derive(Serialize)]
struct Active {
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

async fn introspect(_: &IdentityEngine, cx: &mut Cx, req: Introspect) -> Result<Raw> {
    let token = req.token.as_ref().map(SecretText::expose).unwrap_or_default();
    let client_id = named(req.client_id);
    let error = verify(cx, token, client_id.as_deref()).await?.err();
    oauth_error::json(Status::OK, &Active { active: error.is_none(), error }, Vec::new())
}

/// Verifies a token: its signature, its issuer, its audience, its expiry and its entity.
async fn verify(cx: &mut Cx, token: &str, client_id: Option<&str>) -> Result<Result<(), String>> {
    let parsed = match Unverified::parse(token) {
        Ok(parsed) => parsed,
        Err(why) => return Ok(Err(format!("error parsing token: {why}"))),
    };
    if !is_signed(cx, &parsed).await? {
        return Ok(Err("unable to validate the token signature".to_owned()));
    }
    let claims = parsed.claims().unwrap_or_default();
    let text = |name: &str| claims.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
    if text("iss") != issuer::of_roles(cx).await? {
        return Ok(Err(format!("{INVALID} invalid issuer claim (iss)")));
    }
    if client_id.is_some_and(|id| id != text("aud")) {
        return Ok(Err(format!("{INVALID} invalid audience claim (aud)")));
    }
    if is_expired(cx, &claims) {
        return Ok(Err(format!("{INVALID} token is expired (exp)")));
    }
    Ok(match identity(cx)?.effective(text("sub")).await? {
        None => Err("entity was not found".to_owned()),
        Some(effective) if effective.entity.disabled => Err("entity is disabled".to_owned()),
        Some(_) => Ok(()),
    })
}

fn is_expired(cx: &Cx, claims: &Claims) -> bool {
    let expiry = claims.get("exp").and_then(serde_json::Value::as_i64);
    expiry.is_none_or(|expiry| cx.now().unix() >= expiry)
}

/// Whether a published key has signed the token.
async fn is_signed(cx: &mut Cx, token: &Unverified<'_>) -> Result<bool> {
    // Checked first, because the search reads all keys.
    if !is_uuid(&token.key_id) {
        return Ok(false);
    }
    let now = cx.now();
    for name in KEYS.list(cx, "", &Page::all()).await? {
        let Some(key) = KEYS.get(cx, &name).await? else { continue };
        if let Some(key) = key.published(now).find(|key| key.id == token.key_id) {
            let fits = key.algorithm == token.algorithm;
            return Ok(fits && key.algorithm.verifies(key.public, token.message.as_bytes(), &token.signature));
        }
    }
    Ok(false)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}
