//! The auth method at `auth/token/`, and the core data of a call of its handlers.

use std::sync::Arc;

use keepfast_framework::{Cx, Error, Result};

use super::Token;
use crate::request::dispatch::CoreCall;
use crate::unsealed::Unsealed;

/// The built-in auth method at `auth/token/`.
pub(crate) struct TokenAuth;

/// The core data of the call.
pub(super) fn call(cx: &Cx) -> Result<Arc<CoreCall>> {
    cx.core::<CoreCall>().ok_or_else(|| Error::internal("a token request without core's part"))
}

/// The unsealed server that authorized the call.
pub(super) fn unsealed(cx: &Cx) -> Result<Arc<Unsealed>> {
    Ok(call(cx)?.unsealed.clone())
}

/// The caller's own token and its text.
pub(super) fn own(cx: &Cx) -> Result<(Arc<Token>, String)> {
    let call = call(cx)?;
    match (&call.token, &call.id) {
        (Some(token), Some(id)) => Ok((token.clone(), id.expose().clone())),
        _ => Err(Error::denied()),
    }
}
