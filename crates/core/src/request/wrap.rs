//! Wraps the response of a request with a wrap TTL.

use keepfast_framework::reply::Raw;
use keepfast_framework::{Error, Result, Status};
use keepfast_storage::Tx;

use super::authorize::AuthorizedParts;
use super::envelope::{Envelope, ResponseContent};
use crate::wrapping::{ResponseToWrap, Wrapper, wrapped_accessor};

/// Wraps a response of bytes, when the request has a wrap TTL and the bytes are JSON.
pub(super) async fn wrap_raw(
    wrapper: &Wrapper,
    tx: &mut Tx,
    parts: &AuthorizedParts,
    raw: Raw,
) -> Result<ResponseContent> {
    let Some(ttl) = parts.routed.incoming.wrap_ttl.filter(|t| !t.is_zero()) else {
        return Ok(ResponseContent::Raw(raw));
    };
    if raw.status.0 >= 300 || raw.body.is_empty() || raw.content_type != "application/json" {
        return Ok(ResponseContent::Raw(raw));
    }
    let json = String::from_utf8(raw.body).map_err(|_| Error::internal("a response that is not UTF-8"))?;
    let accessor = wrapped_accessor(&json);
    let path = parts.routed.wrapped_path();
    let content = ResponseToWrap {
        response: json,
        status: raw.status,
        path: &path,
        wrapped_by: &path,
        ttl,
        display_name: caller_name(parts),
        wrapped_accessor: accessor,
    };
    let info = wrapper.wrap(tx, content).await?;
    Ok(ResponseContent::Envelope(Box::new(Envelope { wrap: Some(Box::new(info)), ..Envelope::default() })))
}

/// Wraps a response in Vault's shape when it has a wrap TTL: also a 404 with data, but no error and no empty
/// response.
pub(super) async fn wrap_envelope(
    wrapper: &Wrapper,
    tx: &mut Tx,
    parts: &AuthorizedParts,
    envelope: &mut Envelope,
) -> Result<()> {
    let Some(ttl) = envelope.wrap_ttl(parts.routed.incoming.wrap_ttl) else { return Ok(()) };
    let status = envelope.status.map_or(Status::OK, |status| status.sent);
    let refused = status.0 >= 300 && status != Status::NOT_FOUND;
    if envelope.is_empty() || envelope.wrap.is_some() || refused {
        return Ok(());
    }
    // An unwrapped response has the same form as all others.
    envelope.flat = false;
    let json = String::from_utf8(envelope.to_json()).map_err(Error::internal)?;
    let wrapped_accessor = wrapped_accessor(&json);
    let path = parts.routed.wrapped_path();
    let content = ResponseToWrap {
        response: json,
        status,
        path: &path,
        wrapped_by: &path,
        ttl,
        // The caller of a login has no token yet.
        display_name: envelope.login_auth().map_or_else(|| caller_name(parts), |auth| &auth.display_name),
        wrapped_accessor,
    };
    let info = wrapper.wrap(tx, content).await?;
    let login = envelope.auth.take().filter(|_| envelope.is_login);
    *envelope = Envelope { wrap: Some(Box::new(info)), wrapped_login: login, ..Envelope::default() };
    Ok(())
}

/// The display name of the caller; empty without a token.
fn caller_name(parts: &AuthorizedParts) -> &str {
    parts.caller.token.as_ref().map_or("", |token| &token.record.display_name)
}
