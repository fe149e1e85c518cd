//! Pending logins: stored until their MFA is validated, for five minutes. A request on any node completes one, once.

use std::sync::Arc;
use std::time::Duration;

use keepfast_crypto::random;
use keepfast_framework::{Result, Timestamp};
use keepfast_storage::{Barrier, Tx, View};
use serde::{Deserialize, Serialize};

use crate::identity::expiring::{ExpiringRecords, Place};
use crate::identity::proved_login::ProvedLogin;
use crate::identity::record::namespaced;
use crate::identity::store::Identity;
use crate::namespace::NamespaceId;
use crate::token::Tokens;

/// Pending logins by the keyed hash of their request id.
const PENDING: ExpiringRecords<PendingLogin> = ExpiringRecords::at("mfa/pending/", "mfa/pending-of/", MOST_PENDING);

/// The time within which the MFA of a login is validated.
const LIFETIME: Duration = Duration::from_secs(300);
/// The maximum number of pending logins of an entity; the oldest are replaced.
const MOST_PENDING: usize = 8;
/// The length of a request id.
const ID_LENGTH: usize = 36;

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

namespaced!(PendingLogin);

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
        PENDING.put(tx, &self.view, &place(pending, &hash_of(tokens, &id)), pending).await?;
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
        let found = self.read(&PENDING.records, tx, &hash_of(tokens, id)).await?;
        Ok(found.filter(|pending| now < pending.expires))
    }

    /// Deletes a pending login, with the commit of this transaction.
    pub(super) fn delete_pending(&self, tx: &mut Tx, tokens: &Tokens, id: &str, pending: &PendingLogin) {
        PENDING.delete(tx, &self.view, &place(pending, &hash_of(tokens, id)));
    }
}

/// The keyed hash of a request id.
fn hash_of(tokens: &Tokens, id: &str) -> String {
    tokens.hash_of_code(&format!("mfa:{id}"))
}

fn place<'a>(pending: &'a PendingLogin, hash: &'a str) -> Place<'a> {
    Place { hash, entity: &pending.login.identity.entity, expires: pending.expires }
}

/// Deletes the expired pending logins of all entities.
///
/// # Errors
/// When storage fails.
pub(crate) async fn delete_expired_logins(barrier: &Arc<Barrier>, view: &View, now: Timestamp) -> Result<()> {
    PENDING.delete_expired(barrier, view, now).await
}
