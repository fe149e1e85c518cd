//! Authorization codes: stored under a keyed hash, for five minutes, and deleted by the first exchange.

use std::sync::Arc;
use std::time::Duration;

use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Cx, Page, Result, Timestamp};
use keepfast_storage::{Barrier, View};

use super::records::{CODES, CODES_OF, Code, Mark};
use crate::token::Tokens;

/// The time within which a code is exchanged.
pub(super) const LIFETIME: Duration = Duration::from_secs(300);
/// The maximum number of codes of an entity at a time; the oldest are deleted. Requests at the same time may exceed it
/// until the next one.
const MOST_CODES: usize = 32;
/// The length of a code, in base62.
const LENGTH: usize = 32;
/// The number of names per read.
const PAGE: usize = 500;

/// Stores a new code.
pub(super) async fn issue(cx: &mut Cx, tokens: &Tokens, code: &Code) -> Result<SecretString> {
    let text = random::base62(LENGTH);
    let hash = tokens.hash_of_code(&text);
    let folder = format!("{}/", code.entity);
    let known = CODES_OF.list(cx, &folder, &Page::all()).await?;
    for old in known.iter().take((known.len() + 1).saturating_sub(MOST_CODES)) {
        CODES_OF.delete(cx, &format!("{folder}{old}"));
        CODES.delete(cx, hash_in(old));
    }
    CODES.put(cx, &hash, code)?;
    CODES_OF.put(cx, &format!("{folder}{}", entry(code.expires, &hash)), &Mark {})?;
    Ok(SecretString::new(text))
}

/// Takes a code, so that it exists no more once the transaction commits, whatever the exchange results in.
pub(super) async fn take(cx: &mut Cx, tokens: &Tokens, text: &str) -> Result<Option<Code>> {
    if text.len() != LENGTH {
        return Ok(None);
    }
    let hash = tokens.hash_of_code(text);
    let Some(code) = CODES.get(cx, &hash).await? else { return Ok(None) };
    CODES.delete(cx, &hash);
    CODES_OF.delete(cx, &format!("{}/{}", code.entity, entry(code.expires, &hash)));
    Ok(Some(code).filter(|code| cx.now() < code.expires))
}

/// The name of the entry of a code under its entity. Names are sorted by the expiry.
fn entry(expires: Timestamp, hash: &str) -> String {
    format!("{:010x}-{hash}", expires.unix().max(0))
}

fn hash_in(entry: &str) -> &str {
    entry.split_once('-').map_or("", |(_, hash)| hash)
}

fn is_expired(entry: &str, now: Timestamp) -> bool {
    let expiry = entry.split_once('-').and_then(|(expiry, _)| i64::from_str_radix(expiry, 16).ok());
    expiry.is_some_and(|expiry| expiry < now.unix())
}

/// Deletes the expired codes of all entities, in transactions of at most a page of one entity.
///
/// # Errors
/// When storage fails.
pub(crate) async fn delete_expired_codes(barrier: &Arc<Barrier>, view: &View, now: Timestamp) -> Result<()> {
    let mut page = Page::first(PAGE);
    loop {
        let folders = CODES_OF.list_in(&mut barrier.begin_read(), view, "", &page).await?;
        for folder in &folders {
            while delete_page(barrier, view, folder, now).await? == PAGE {}
        }
        page.after = folders.last().cloned();
        if folders.len() < PAGE {
            return Ok(());
        }
    }
}

/// Deletes the expired codes among the first page of an entity. Returns their number.
async fn delete_page(barrier: &Arc<Barrier>, view: &View, folder: &str, now: Timestamp) -> Result<usize> {
    let entries = CODES_OF.list_in(&mut barrier.begin_read(), view, folder, &Page::first(PAGE)).await?;
    let expired: Vec<&String> = entries.iter().filter(|entry| is_expired(entry, now)).collect();
    if expired.is_empty() {
        return Ok(0);
    }
    let mut tx = barrier.begin();
    for entry in &expired {
        CODES.delete_in(&mut tx, view, hash_in(entry));
        CODES_OF.delete_in(&mut tx, view, &format!("{folder}{entry}"));
    }
    tx.commit().await.map_err(keepfast_framework::Error::from)?;
    Ok(expired.len())
}
