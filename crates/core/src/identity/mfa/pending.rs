//! Pending logins: stored until their MFA is validated, for five minutes. A request on any node completes one, once.

use std::sync::Arc;
use std::time::Duration;

use keepfast_crypto::random;
use keepfast_framework::{Error, Page, Records, Result, Timestamp};
use keepfast_storage::{Barrier, Tx, View};
use serde::{Deserialize, Serialize};

use super::records::Mark;
use crate::identity::proved_login::ProvedLogin;
use crate::identity::record::Namespaced;
use crate::identity::store::Identity;
use crate::namespace::NamespaceId;
use crate::token::Tokens;

/// Pending logins by the keyed hash of their request id.
const PENDING: Records<PendingLogin> = Records::at("mfa/pending/");
/// The pending logins of an entity: `<entity>/<expiry in hex>-<keyed hash>`.
const PENDING_OF: Records<Mark> = Records::at("mfa/pending-of/");

/// The time within which the MFA of a login is validated.
const LIFETIME: Duration = Duration::from_secs(300);
/// The maximum number of pending logins of an entity; the oldest are replaced. Logins at the same time may exceed it until
/// the next one.
const MOST_PENDING: usize = 8;
/// The length of a request id.
const ID_LENGTH: usize = 36;
/// The number of names per read.
const PAGE: usize = 500;

/// A login that waits for its MFA, stored under a keyed hash of its request id.
#[derive(Serialize, Deserialize)]
pub(crate) struct PendingLogin {
    /// The namespace of the login.
    #[serde(default, skip_serializing_if = "NamespaceId::is_root")]
    namespace: NamespaceId,
    /// The login.
    pub(crate) login: ProvedLogin,
    /// How long the response with the token stays wrapped; `None` for one that is not wrapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wrap_ttl: Option<Duration>,
    /// The expiry.
    expires: Timestamp,
}

impl Namespaced for PendingLogin {
    fn namespace(&self) -> &NamespaceId {
        &self.namespace
    }
}

impl PendingLogin {
    /// A login of this namespace that waits from now on.
    pub(super) fn new(login: ProvedLogin, namespace: NamespaceId, wrap_ttl: Option<Duration>, now: Timestamp) -> Self {
        PendingLogin { namespace, login, wrap_ttl, expires: now.after(LIFETIME) }
    }
}

impl Identity {
    /// Stores a pending login. Returns its request id, which is stored as a keyed hash only.
    ///
    /// # Errors
    /// When storage fails.
    pub(super) async fn store_pending(&self, tx: &mut Tx, tokens: &Tokens, pending: &PendingLogin) -> Result<String> {
        let id = random::uuid();
        let (hash, folder) = (hash_of(tokens, &id), folder(pending));
        let known = PENDING_OF.list_in(tx, &self.view, &folder, &Page::all()).await?;
        for old in known.iter().take((known.len() + 1).saturating_sub(MOST_PENDING)) {
            PENDING_OF.delete_in(tx, &self.view, &format!("{folder}{old}"));
            PENDING.delete_in(tx, &self.view, hash_in(old));
        }
        PENDING.put_in(tx, &self.view, &hash, pending)?;
        PENDING_OF.put_in(tx, &self.view, &format!("{folder}{}", entry(pending.expires, &hash)), &Mark {})?;
        Ok(id)
    }

    /// The pending login with this request id that is not expired.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn pending_login(
        &self,
        tx: &mut Tx,
        tokens: &Tokens,
        id: &str,
        now: Timestamp,
    ) -> Result<Option<PendingLogin>> {
        if id.len() != ID_LENGTH {
            return Ok(None);
        }
        let found = self.read(&PENDING, tx, &hash_of(tokens, id)).await?;
        Ok(found.filter(|pending| now < pending.expires))
    }

    /// Deletes a pending login, with the commit of this transaction.
    pub(super) fn delete_pending(&self, tx: &mut Tx, tokens: &Tokens, id: &str, pending: &PendingLogin) {
        let hash = hash_of(tokens, id);
        PENDING.delete_in(tx, &self.view, &hash);
        PENDING_OF.delete_in(tx, &self.view, &format!("{}{}", folder(pending), entry(pending.expires, &hash)));
    }
}

/// The keyed hash of a request id.
fn hash_of(tokens: &Tokens, id: &str) -> String {
    tokens.hash_of_code(&format!("mfa:{id}"))
}

fn folder(pending: &PendingLogin) -> String {
    format!("{}/", pending.login.identity.entity)
}

/// The name of the entry of a pending login under its entity. Names are sorted by the expiry.
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

/// Deletes the expired pending logins of all entities, in transactions of at most a page of one entity.
///
/// # Errors
/// When storage fails.
pub(crate) async fn delete_expired_logins(barrier: &Arc<Barrier>, view: &View, now: Timestamp) -> Result<()> {
    let mut page = Page::first(PAGE);
    loop {
        let folders = PENDING_OF.list_in(&mut barrier.begin_read(), view, "", &page).await?;
        for folder in &folders {
            while delete_page(barrier, view, folder, now).await? == PAGE {}
        }
        page.after = folders.last().cloned();
        if folders.len() < PAGE {
            return Ok(());
        }
    }
}

/// Deletes the expired logins among the first page of an entity. Returns their number.
async fn delete_page(barrier: &Arc<Barrier>, view: &View, folder: &str, now: Timestamp) -> Result<usize> {
    let entries = PENDING_OF.list_in(&mut barrier.begin_read(), view, folder, &Page::first(PAGE)).await?;
    let expired: Vec<&String> = entries.iter().filter(|entry| is_expired(entry, now)).collect();
    if expired.is_empty() {
        return Ok(0);
    }
    let mut tx = barrier.begin();
    for entry in &expired {
        PENDING.delete_in(&mut tx, view, hash_in(entry));
        PENDING_OF.delete_in(&mut tx, view, &format!("{folder}{entry}"));
    }
    tx.commit().await.map_err(Error::from)?;
    Ok(expired.len())
}
