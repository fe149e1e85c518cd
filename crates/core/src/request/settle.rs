//! Settling: converts the outcome of a handler to the content of a response, in the transaction of the request. A login
//! creates a token, and leased data creates a lease.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use keepfast_framework::lease::Intent;
use keepfast_framework::reply::{AuthBlock, Login, LoginAttempt, Payload};
use keepfast_framework::token_params::TokenKind;
use keepfast_framework::{Error, Kind, Outcome, Result};
use keepfast_storage::Tx;

use super::authorize::AuthorizedParts;
use super::envelope::{Envelope, ResponseContent};
use crate::identity::LoginIdentity;
use crate::lease::Leases;
use crate::lease::intent::LeaseIssuer;
use crate::metrics::Metrics;
use crate::mount::{EngineHost, Mounted};
use crate::namespace::directory::Directory;
use crate::policy::builtin;
use crate::settings::Settings;
use crate::token::create::Spec;
use crate::token::record::Origin;
use crate::token::ttl::{self, RequestedTtls};
use crate::token::{Authority, BoundCidrs, create};
use crate::unsealed::{Access, Unsealed};

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
    metrics: Arc<Metrics>,
    directory: Arc<Directory>,
}

impl Settler {
    pub(super) fn new(unsealed: &Unsealed) -> Self {
        Settler {
            host: unsealed.engines.host.clone(),
            leases: unsealed.leases.store.clone(),
            access: unsealed.access.clone(),
            settings: unsealed.settings.clone(),
            metrics: unsealed.observability.metrics.clone(),
            directory: unsealed.observability.directory.clone(),
        }
    }

    /// The issuer of the leases of this request.
    pub(super) fn lease_issuer(&self, parts: &AuthorizedParts, mounted: &Arc<Mounted>) -> LeaseIssuer {
        LeaseIssuer {
            namespace: self.access.namespace.id.clone(),
            directory: self.directory.clone(),
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
            Outcome::Wrapped(info) => {
                // The wrapped response belongs to another request.
                envelope.id.clear();
                envelope.wrap = Some(info);
            }
        }
        Ok(Settled { content: ResponseContent::Envelope(envelope), intent: settled_intent })
    }

    async fn settle_login(
        &self,
        tx: &mut Tx,
        parts: &AuthorizedParts,
        mounted: &Arc<Mounted>,
        attempt: LoginAttempt,
        envelope: &mut Envelope,
    ) -> Result<()> {
        let login = self.check_lockout(mounted, attempt).await?;
        let no_default_policy = login.terms.no_default_policy;
        let (created, warnings, login_identity) = self.log_in(tx, parts, mounted, *login).await?;
        envelope.warnings.extend(warnings);
        envelope.logged_in = parts.routed.incoming.wrap_ttl.map(|_| created.record.display_name.clone());
        envelope.is_login = true;
        let identity_policies = self.access.identity.policies_of_login(tx, &login_identity).await?;
        let auth = created.auth_block(identity_policies);
        envelope.auth = Some(Box::new(AuthBlock { entity_created: login_identity.created, no_default_policy, ..auth }));
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

    /// Creates the token of a login. Also returns its warnings and its entity.
    async fn log_in(
        &self,
        tx: &mut Tx,
        parts: &AuthorizedParts,
        mounted: &Arc<Mounted>,
        login: Login,
    ) -> Result<(create::CreatedToken, Vec<String>, LoginIdentity)> {
        let now = self.host.clock.now();
        let policies = login_policies(&login)?;
        let mut login_identity = match &login.alias {
            None => LoginIdentity::default(),
            Some(alias) => self.access.identity.entity_of(tx, &mounted.info, alias, now).await?,
        };
        if let (Some(groups), false) = (&login.terms.groups, login_identity.entity.is_empty()) {
            let (entity, accessor) = (&login_identity.entity, &mounted.entry.accessor);
            login_identity.regrouped =
                Box::pin(self.access.identity.set_external_groups(tx, entity, accessor, groups)).await?;
        }
        let terms = &login.terms;
        let requested = RequestedTtls {
            increment: Duration::ZERO,
            ttl: terms.ttl,
            max_ttl: terms.max_ttl,
            period: terms.period,
            explicit_max_ttl: terms.explicit_max_ttl,
        };
        let effective = ttl::effective_ttl(&requested, mounted.info.ttl, now, now);
        let bound_cidrs: BoundCidrs = match parts.routed.incoming.remote.filter(|_| terms.strictly_bind_ip) {
            Some(remote) => std::iter::once(IpNet::from(remote.ip())).collect(),
            None => terms.bound_cidrs.iter().copied().collect(),
        };
        let batch = is_batch(terms.kind, mounted.entry.config.token_type);
        if batch && (!terms.period.is_zero() || terms.num_uses > 0) {
            return Err(Error::invalid("batch tokens cannot be periodic or have a limited number of uses"));
        }
        let spec = Spec {
            authority: Authority::Policies(policies),
            path: parts.routed.incoming.path.as_str().to_owned(),
            display_name: display_name(&self.access.namespace.path, &mounted.entry.path, &login.display_name),
            meta: login.metadata,
            num_uses: terms.num_uses,
            ttl: Some(effective.ttl),
            explicit_max_ttl: terms.explicit_max_ttl.as_secs(),
            period: terms.period.as_secs(),
            max_ttl: terms.max_ttl.as_secs(),
            renewable: terms.renewable && !batch,
            entity_id: login_identity.entity.clone(),
            alias: login_identity.alias.clone(),
            bound_cidrs,
            origin: Origin {
                mount: Some(mounted.entry.path.clone()),
                accessor: Some(mounted.entry.accessor.clone()),
                internal: login.internal,
            },
            batch,
            ..Spec::default()
        };
        let created = self.access.tokens.create(tx, &self.access.namespace.id, spec, now).await?;
        created.record.count(&self.metrics, &mounted.entry.engine, &mounted.entry.path);
        Ok((created, effective.warnings, login_identity))
    }
}

/// The policies of a login's token: canonical, with `default` unless left out, and never root.
fn login_policies(login: &Login) -> Result<Vec<String>> {
    let mut policies = keepfast_framework::token_params::canonical_policies(login.policies.clone());
    if policies.iter().any(|p| builtin::reads_like_root(p)) {
        return Err(Error::invalid("auth methods cannot create root tokens"));
    }
    if !login.terms.no_default_policy && !policies.iter().any(|p| p == builtin::DEFAULT) {
        policies.push(builtin::DEFAULT.to_owned());
        policies.sort();
    }
    Ok(policies)
}

/// Whether a login creates a batch token. The role decides, but a mount of type `batch` overrides `service`; `default`
/// leaves it to the mount.
fn is_batch(role: TokenKind, mount: TokenKind) -> bool {
    match (role, mount) {
        (TokenKind::Batch | TokenKind::DefaultBatch, _) => true,
        (TokenKind::Service | TokenKind::DefaultService, TokenKind::Batch) => true,
        (TokenKind::Service | TokenKind::DefaultService, _) => false,
        (TokenKind::Default, mount) => matches!(mount, TokenKind::Batch | TokenKind::DefaultBatch),
    }
}

/// The display name of a token: the mount, in a namespace other than root with the whole path, then the name from the
/// auth method.
fn display_name(namespace: &str, mount: &str, name: &str) -> String {
    let own = mount.strip_prefix(Kind::Auth.prefix()).filter(|_| namespace.is_empty()).unwrap_or(mount);
    let mount = format!("{namespace}{own}").trim_end_matches('/').replace('/', "-");
    if name.is_empty() { mount } else { format!("{mount}-{name}") }
}
