//! The MFA of a login: at once, or in another request.

use std::time::Duration;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::mount::MountInfo;
use keepfast_framework::{Error, Result, Status, Timestamp};
use keepfast_storage::Tx;

use super::credentials::MfaCredentials;
use super::pending::PendingLogin;
use super::requirement::MfaRequirement;
use crate::identity::proved_login::ProvedLogin;
use crate::identity::store::Identity;
use crate::token::Tokens;

/// The warning of the response to a login that waits for its MFA.
pub(crate) const MFA_PENDING: &str = "A login request was issued that is subject to MFA validation. Please make sure to \
                                      validate the login by sending another request to mfa/validate endpoint.";

/// What a caller sends with a login for its MFA.
pub(crate) struct SentWithLogin<'a> {
    /// The values of `X-Vault-MFA`.
    pub(crate) credentials: &'a [SecretString],
    /// The wrap TTL of the response.
    pub(crate) wrap_ttl: Option<Duration>,
}

/// The result of the MFA of a login.
pub(crate) enum MfaOutcome {
    /// The login gets its token.
    Passed(Box<ProvedLogin>),
    /// The login is stored and waits for another request.
    Pending(Box<MfaRequirement>),
}

impl Identity {
    /// Checks the MFA of a login in its transaction, or stores the login until another request sends its credentials.
    ///
    /// # Errors
    /// 403 for wrong credentials, and for a login without an entity; when the rules cannot be read.
    pub(crate) async fn require_mfa(
        &self,
        tx: &mut Tx,
        tokens: &Tokens,
        mount: &MountInfo,
        login: ProvedLogin,
        sent: SentWithLogin<'_>,
        now: Timestamp,
    ) -> Result<MfaOutcome> {
        let required = self.required_mfa(tx, &login.identity, mount).await?;
        if required.is_empty() {
            return Ok(MfaOutcome::Passed(Box::new(login)));
        }
        // Secrets belong to entities.
        if login.identity.entity.is_empty() {
            return Err(Error::denied().because("the login needs MFA and has no entity"));
        }
        if sent.credentials.is_empty() {
            let pending = PendingLogin::new(login, self.namespace.clone(), sent.wrap_ttl, now);
            let id = Box::pin(self.store_pending(tx, tokens, &pending)).await?;
            return Ok(MfaOutcome::Pending(Box::new(MfaRequirement::new(id, required))));
        }
        let credentials = MfaCredentials::of_headers(sent.credentials);
        let checked = Box::pin(self.check_mfa(tx, &login.identity.entity, &required, &credentials, now)).await;
        match checked {
            Ok(()) => Ok(MfaOutcome::Passed(Box::new(login))),
            // As on OpenBao the response of a login does not say what is wrong.
            Err(error) if error.status() == Status::FORBIDDEN => {
                Err(Error::denied().because("the MFA credentials do not satisfy an enforcement"))
            }
            Err(error) => Err(error),
        }
    }

    /// Checks the MFA of a pending login by the present enforcements, and deletes it with the commit of this transaction.
    /// So it is completed once.
    ///
    /// # Errors
    /// 403 for wrong credentials, and for an entity that is disabled or deleted; 400 when no enforcement binds the login
    /// any more; when the rules cannot be read.
    pub(crate) async fn complete_mfa(
        &self,
        tx: &mut Tx,
        tokens: &Tokens,
        mount: &MountInfo,
        (request_id, pending): (&str, PendingLogin),
        credentials: &MfaCredentials,
        now: Timestamp,
    ) -> Result<ProvedLogin> {
        self.delete_pending(tx, tokens, request_id, &pending);
        let mut login = pending.login;
        let effective = self.effective(&login.identity.entity).await?.filter(|found| !found.entity.disabled);
        let effective = effective.ok_or_else(|| Error::denied().because("the entity is disabled or deleted"))?;
        // It may have been merged into another one.
        login.identity.entity.clone_from(&effective.entity.id);
        let required = self.required_mfa(tx, &login.identity, mount).await?;
        if required.is_empty() {
            return Err(Error::invalid("the login is no longer subject to MFA validation: log in again"));
        }
        self.check_mfa(tx, &login.identity.entity, &required, credentials, now).await?;
        Ok(login)
    }
}
