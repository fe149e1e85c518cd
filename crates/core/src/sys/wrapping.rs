//! `sys/wrapping/`: wrap, lookup, unwrap and rewrap.

use std::time::Duration;

use keepfast_framework::fields::{RawObject, Text};
use keepfast_framework::reply::{Outcome, Raw};
use keepfast_framework::routes::Help;
use keepfast_framework::rows::RunsIn;
use keepfast_framework::{Cx, Data, Error, Result, Routes, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{System, call, control_group, unsealed};
use crate::token::{Token, TokenKey};
use crate::wrapping::{ResponseToWrap, TokenUse, invalid};

const HELP: Help = Help { synopsis: "Wraps, looks up, unwraps and rewraps responses.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("wrapping/wrap", HELP).update(wrap).stores_body();
    r.path("wrapping/lookup", HELP)
        .runs_in(RunsIn::CallerWithout("token"))
        .takes_wrapping_token()
        .update(lookup)
        .read(lookup)
        .unauthenticated()
        .here();
    r.path("wrapping/unwrap", HELP).runs_in(RunsIn::CallerWithout("token")).takes_wrapping_token().update(unwrap);
    r.path("wrapping/rewrap", HELP).runs_in(RunsIn::CallerWithout("token")).takes_wrapping_token().update(rewrap);
}

#[derive(Deserialize, JsonSchema)]
struct WrappingTokenRequest {
    /// The wrapping token. Default: the caller's token.
    token: Option<Text>,
}

/// Whatever the caller wants wrapped.
#[derive(Deserialize, JsonSchema)]
struct WrapRequest {
    /// The whole body, which the response contains.
    #[serde(rename = "$body")]
    body: RawObject,
}

async fn wrap(_: &System, cx: &mut Cx, req: WrapRequest) -> Result<Data<Box<RawValue>>> {
    if !call(cx)?.facts.wraps {
        return Err(Error::invalid("endpoint requires response wrapping to be used"));
    }
    Ok(Data(req.body.0))
}

/// The wrapping token of a request.
struct WrappingToken {
    key: TokenKey,
    token: std::sync::Arc<Token>,
    /// How the unwrap spends the use of the token.
    by: TokenUse,
}

async fn token_of(cx: &Cx, req: &WrappingTokenRequest) -> Result<WrappingToken> {
    let unsealed = unsealed(cx)?;
    let own = call(cx)?;
    let text = match (req.token.as_ref().filter(|t| !t.is_empty()), &own.id) {
        (Some(text), _) => text.0.clone(),
        (None, Some(id)) => id.expose().clone(),
        (None, None) => return Err(invalid()),
    };
    // Authentication has spent the use of the caller's own token, so it is found by the result of authentication only.
    let is_own = |token: &std::sync::Arc<Token>| {
        token.record.wrapping && token.key.as_ref() == Some(&unsealed.access.tokens.place(&text))
    };
    let (found, by) = match own.token.clone().filter(is_own) {
        Some(token) if own.facts.last_use => (Some(token), TokenUse::Authentication),
        Some(token) => (Some(token), TokenUse::ThisTransaction),
        None => (unsealed.access.wrapper.wrapping_token(&text).await?, TokenUse::ThisTransaction),
    };
    let token = found.ok_or_else(invalid)?;
    if own.token.as_ref().is_none_or(|own| own.key != token.key)
        && !unsealed.access.reaches(&token.record.namespace).await?
    {
        return Err(invalid());
    }
    let key = token.key.clone().ok_or_else(invalid)?;
    Ok(WrappingToken { key, token, by })
}

#[derive(Serialize)]
struct LookupResponse {
    creation_path: String,
    creation_time: String,
    creation_ttl: u64,
}

async fn lookup(_: &System, cx: &mut Cx, req: WrappingTokenRequest) -> Result<Data<LookupResponse>> {
    let token_of = token_of(cx, &req).await?;
    let unsealed = unsealed(cx)?;
    let (tx, _) = cx.store();
    let about = unsealed.access.wrapper.about(tx, &token_of.token).await?.ok_or_else(invalid)?;
    Ok(Data(LookupResponse {
        creation_path: about.path,
        creation_time: about.created.rfc3339(),
        creation_ttl: about.ttl,
    }))
}

async fn unwrap(_: &System, cx: &mut Cx, req: WrappingTokenRequest) -> Result<Outcome> {
    let WrappingToken { key, token, by } = token_of(cx, &req).await?;
    if token.record.control_group {
        return Box::pin(control_group::run(cx, key, token)).await;
    }
    let unsealed = unsealed(cx)?;
    let (tx, _) = cx.store();
    let wrapped = unsealed.access.wrapper.unwrap(tx, &key, &token, by).await?;
    let status = if wrapped.about.status == 0 { Status::OK } else { Status(wrapped.about.status) };
    let body = wrapped.response.into_bytes();
    Ok(Outcome::Raw(Raw { status, content_type: "application/json", body, headers: Vec::new() }))
}

async fn rewrap(_: &System, cx: &mut Cx, req: WrappingTokenRequest) -> Result<Outcome> {
    let WrappingToken { key, token, by } = token_of(cx, &req).await?;
    let unsealed = unsealed(cx)?;
    if token.record.control_group {
        // Its approvals are for this accessor.
        return Err(invalid());
    }
    let (tx, _) = cx.store();
    // The response moves from the old token to the new one in one transaction.
    let wrapped = unsealed.access.wrapper.unwrap(tx, &key, &token, by).await?;
    let answer = ResponseToWrap {
        response: wrapped.response,
        status: Status(wrapped.about.status),
        path: &wrapped.about.path,
        wrapped_by: &cx.request().path.clone(),
        ttl: Duration::from_secs(wrapped.about.ttl),
        display_name: &token.record.display_name,
        // Only the response of the first wrapping has the accessor of the wrapped token.
        wrapped_accessor: String::new(),
    };
    let (tx, _) = cx.store();
    let info = unsealed.access.wrapper.wrap(tx, answer).await?;
    Ok(Outcome::Wrapped(Box::new(info)))
}
