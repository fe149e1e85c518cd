//! Authorization codes: stored under a keyed hash, for five minutes, and deleted by the first exchange.

use std::sync::Arc;
use std::time::Duration;

use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Cx, Result, Timestamp};
use keepfast_storage::{Barrier, View};

use super::records::{CODES, Code};
use crate::identity::expiring::Place;
use crate::token::Tokens;

/// The time within which a code is exchanged.
pub(super) const LIFETIME: Duration = Duration::from_secs(300);
/// The length of a code, in base62.
const LENGTH: usize = 32;

/// Stores a new code.
pub(super) async fn issue(cx: &mut Cx, tokens: &Tokens, code: &Code) -> Result<SecretString> {
    let text = random::base62(LENGTH);
    let (tx, view) = cx.store();
    CODES.put(tx, view, &place(code, &tokens.hash_of_code(&text)), code).await?;
    Ok(SecretString::new(text))
}

/// Takes a code, so that it exists no more once the transaction commits, whatever the exchange results in.
pub(super) async fn take(cx: &mut Cx, tokens: &Tokens, text: &str) -> Result<Option<Code>> {
    if text.len() != LENGTH {
        return Ok(None);
    }
    let hash = tokens.hash_of_code(text);
    let Some(code) = CODES.records.get(cx, &hash).await? else { return Ok(None) };
    let (tx, view) = cx.store();
    CODES.delete(tx, view, &place(&code, &hash));
    Ok(Some(code).filter(|code| cx.now() < code.expires))
}

fn place<'a>(code: &'a Code, hash: &'a str) -> Place<'a> {
    Place { hash, entity: &code.entity, expires: code.expires }
}

/// Deletes the expired codes of all entities.
///
/// # Errors
/// When storage fails.
pub(crate) async fn delete_expired_codes(barrier: &Arc<Barrier>, view: &View, now: Timestamp) -> Result<()> {
    CODES.delete_expired(barrier, view, now).await
}
