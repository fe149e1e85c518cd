//! Settling: converts the outcome of a handler to the content of a response, in the transaction of the request. A login
//! creates a token, and leased data creates a lease.

use std::sync::Arc;

use keepfast_framework::lease::Intent;
use keepfast_framework::reply::{LoggedIn, Login, LoginAttempt, Payload};
use keepfast_framework::{Outcome, Result};
use keepfast_storage::Tx;

use super::authorize::AuthorizedParts;
use super::envelope::{Envelope, ResponseContent, Wrapping};
use super::login::LoginIssuer;
use crate::identity::{MFA_PENDING, MfaOutcome, ProvedLogin, SentWithLogin};
use crate::lease::Leases;
use crate::lease::intent::LeaseIssuer;
use crate::mount::{EngineHost, Mounted};
use crate::settings::Settings;
use crate::unsealed::{Access, Observability, Unsealed};

/// A settled outcome.
pub(super) struct Settled {
    /// The response.
    pub(super) content: ResponseContent,
    /// The intent of the lease, written before the engine acted, to be kept once the transaction is committed.
    pub(super) intent: Option<Box<Intent>>,
}

/// Settles outcomes.
pub(super) struct Settler {
    host: Arc<EngineHost>,
    leases: Arc<Leases>,
    access: Arc<Access>,
    settings: Arc<Settings>,
    logins: LoginIssuer,
    observability: Arc<Observability>,
}

impl Settler {
    pub(super) fn new(unsealed: &Unsealed) -> Self {
        Settler {
            host: unsealed.engines.host.clone(),
            leases: unsealed.leases.store.clone(),
            access: unsealed.access.clone(),
            settings: unsealed.settings.clone(),
            logins: LoginIssuer::new(unsealed),
            observability: unsealed.observability.clone(),
        }
    }

    /// The issuer of the leases of this request.
    pub(super) fn lease_issuer(&self, parts: &AuthorizedParts, mounted: &Arc<Mounted>) -> LeaseIssuer {
        LeaseIssuer {
            namespace: self.access.namespace.id.clone(),
            directory: self.observability.directory.clone(),
            leases: self.leases.clone(),
            tokens: self.access.tokens.clone(),
            token: parts.caller.token.clone(),
            last_use: parts.caller.last_use,
            mount: mounted.info.clone(),
            path: parts.routed.incoming.path.as_str().to_owned(),
        }
    }

    /// Settles an outcome: the only place that creates an [`Envelope`] from it.
    ///
    /// Steps that few requests take are boxed, because the future of every request has room for this one.
    pub(super) async fn settle(
        &self,
        tx: &mut Tx,
        parts: &AuthorizedParts,
        mounted: &Arc<Mounted>,
        outcome: Outcome,
    ) -> Result<Settled> {
        let mut envelope = Box::new(Envelope { id: parts.routed.incoming.id.clone(), ..Envelope::default() });
        let mut settled_intent = None;
        match outcome {
            Outcome::Raw(raw) => return Ok(Settled { content: ResponseContent::Raw(raw), intent: None }),
            Outcome::File(file) => return Ok(Settled { content: ResponseContent::File(file), intent: None }),
            Outcome::Empty(status) => envelope.status = status.map(Into::into),
            Outcome::Data(Payload { data, status, is_flat, hint_ttl }) => {
                envelope.data = Some(data.into());
                (envelope.status, envelope.flat, envelope.lease_duration) = (status, is_flat, hint_ttl);
            }
            Outcome::Login(attempt) => Box::pin(self.settle_login(tx, parts, mounted, *attempt, &mut envelope)).await?,
            Outcome::Leased { data, lease } => {
                envelope.data = Some(data.into());
                let issuer = self.lease_issuer(parts, mounted);
                envelope.set_lease(Box::pin(issuer.grant(tx, &lease)).await?);
            }
            // The lease was registered as an intent before the engine acted on an external system.
            Outcome::Intended { data, intent } => {
                envelope.data = Some(data.into());
                let issuer = self.lease_issuer(parts, mounted);
                envelope.set_lease(Box::pin(issuer.confirm(tx, &intent)).await?);
                settled_intent = Some(intent);
            }
            Outcome::Renewed(renewed) => {
                envelope.lease_id = renewed.id;
                envelope.lease_duration = i64::try_from(renewed.ttl).unwrap_or(i64::MAX);
                envelope.renewable = renewed.renewable;
            }
            Outcome::Auth(auth) => envelope.auth = Some(auth),
            Outcome::LoggedIn(LoggedIn { auth, wrap_ttl }) => {
                envelope.set_login(*auth);
                envelope.wrapping = wrap_ttl.map_or(Wrapping::AsRequested, Wrapping::For);
            }
            Outcome::Wrapped(info) => {
                // The wrapped response belongs to another request.
                envelope.id.clear();
                envelope.wrap = Some(info);
            }
        }
        Ok(Settled { content: ResponseContent::Envelope(envelope), intent: settled_intent })
    }

    /// Creates the token of a login. One that needs MFA and has no credentials for it waits for them instead.
    async fn settle_login(
        &self,
        tx: &mut Tx,
        parts: &AuthorizedParts,
        mounted: &Arc<Mounted>,
        attempt: LoginAttempt,
        envelope: &mut Envelope,
    ) -> Result<()> {
        let (login, incoming) = (self.check_lockout(mounted, attempt).await?, &parts.routed.incoming);
        let now = self.host.clock.now();
        let login_identity = self.logins.identify(tx, mounted, &login, now).await?;
        let remote = incoming.remote.map(|remote| remote.ip());
        let proved = ProvedLogin::new(
            *login,
            login_identity,
            mounted,
            (&self.access.namespace.path, incoming.path.as_str()),
            remote,
        )?;
        let sent = SentWithLogin { credentials: &incoming.mfa, wrap_ttl: incoming.wrap_ttl };
        let proved =
            match self.access.identity.require_mfa(tx, &self.access.tokens, &mounted.info, proved, sent, now).await? {
                MfaOutcome::Passed(proved) => *proved,
                MfaOutcome::Pending(requirement) => {
                    // The background tasks delete it when it is expired.
                    self.observability.directory.note_due(tx, &self.access.namespace.id).await?;
                    envelope.warnings.push(MFA_PENDING.to_owned());
                    (envelope.mfa_requirement, envelope.wrapping) = (Some(requirement), Wrapping::Never);
                    return Ok(());
                }
            };
        let (auth, warnings) = self.logins.issue(tx, mounted, proved, now).await?;
        envelope.warnings.extend(warnings);
        envelope.set_login(auth);
        Ok(())
    }

    /// The login, unless it or the lockout of its user refuses it.
    async fn check_lockout(&self, mounted: &Mounted, attempt: LoginAttempt) -> Result<Box<Login>> {
        let LoginAttempt { alias, outcome } = attempt;
        let now = self.host.clock.now();
        let outcome = outcome.map(Box::new);
        let login_result = self.access.lockout.check(&mounted.entry, alias, &self.settings, now, outcome);
        if let Some(change) = login_result.changed {
            // In its own transaction: that of a failed login writes nothing.
            self.access.lockout.store(&mounted.entry.accessor, change, now).await?;
        }
        login_result.outcome
    }
}
