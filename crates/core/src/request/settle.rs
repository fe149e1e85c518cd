//! What an answer obliges us to, in the same transaction: a token for a login, a wrapping token if asked for.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use keepfast_framework::lease::{Intent, LeaseOffer};
use keepfast_framework::reply::{AuthBlock, Login, Raw};
use keepfast_framework::token_params::TokenKind;
use keepfast_framework::{Error, Kind, Outcome, Result, Status};
use keepfast_storage::Tx;

use super::authorize::AuthorizedParts;
use super::envelope::{Answer, Envelope};
use crate::identity::Who;
use crate::lease::intent::{Desk, Granted};
use crate::mount::Mounted;
use crate::policy::builtin;
use crate::token::create::Spec;
use crate::token::life::{self, Asked};
use crate::token::record::Origin;
use crate::token::{Authority, BoundCidrs, create};
use crate::unsealed::Unsealed;
use crate::wrapping::{ToWrap, wrapped_accessor};

impl Unsealed {
    /// Who makes the leases of this request.
    pub(super) fn desk(&self, parts: &AuthorizedParts, mounted: &Arc<Mounted>) -> Desk {
        Desk {
            leases: self.leases.clone(),
            tokens: self.tokens.clone(),
            token: parts.caller.token.clone(),
            last_use: parts.caller.last_use,
            mount: mounted.info.clone(),
            path: parts.routed.incoming.path.as_str().to_owned(),
        }
    }

    /// Settles an outcome; `intent` is the lease that was made known before its engine acted.
    ///
    /// What few requests need waits in a box: the future of every request holds room for this one.
    pub(super) async fn settle(
        &self,
        tx: &mut Tx,
        parts: &AuthorizedParts,
        mounted: &Arc<Mounted>,
        (outcome, login): (Outcome, Option<Box<Login>>),
        intent: Option<&Intent>,
    ) -> Result<Answer> {
        if let Some(raw) = outcome.raw {
            return Ok(Answer::Raw(raw));
        }
        let (lease, renewed) = (outcome.lease, outcome.renewed);
        let mut envelope = Box::new(Envelope {
            // What is kept elsewhere is no answer to this request.
            id: if outcome.wrapped.is_some() { String::new() } else { parts.routed.incoming.id.clone() },
            status: outcome.status,
            decided: outcome.decided,
            data: outcome.data.map(Into::into),
            flat: outcome.flat,
            auth: outcome.auth,
            lease_duration: outcome.hint_ttl,
            wrap: outcome.wrapped,
            ..Envelope::default()
        });
        if let Some(login) = login {
            Box::pin(self.settle_login(tx, parts, mounted, *login, &mut envelope)).await?;
        }
        if let Some(renewed) = renewed {
            envelope.lease_id = renewed.id;
            envelope.lease_duration = i64::try_from(renewed.ttl).unwrap_or(i64::MAX);
            envelope.renewable = renewed.renewable;
        }
        if lease.is_some() || intent.is_some() {
            Box::pin(self.settle_lease(tx, parts, mounted, (lease, intent), &mut envelope)).await?;
        }
        Ok(Answer::Envelope(envelope))
    }

    async fn settle_login(
        &self,
        tx: &mut Tx,
        parts: &AuthorizedParts,
        mounted: &Arc<Mounted>,
        login: Login,
        envelope: &mut Envelope,
    ) -> Result<()> {
        let no_default_policy = login.terms.no_default_policy;
        let (made, warnings, who) = self.log_in(tx, parts, mounted, login).await?;
        envelope.warnings.extend(warnings);
        envelope.logged_in = parts.routed.incoming.wrap_ttl.map(|_| made.record.display_name.clone());
        envelope.is_login = true;
        let identity_policies = self.identity.policies_of(&self.barrier, &who).await?;
        let auth = made.auth_block(identity_policies.to_vec());
        envelope.auth = Some(Box::new(AuthBlock { entity_created: who.created, no_default_policy, ..auth }));
        Ok(())
    }

    async fn settle_lease(
        &self,
        tx: &mut Tx,
        parts: &AuthorizedParts,
        mounted: &Arc<Mounted>,
        (offer, intent): (Option<Box<LeaseOffer>>, Option<&Intent>),
        envelope: &mut Envelope,
    ) -> Result<()> {
        let desk = self.desk(parts, mounted);
        let Granted { id, ttl, renewable, warnings } = match (offer, intent) {
            (None, None) => return Ok(()),
            (_, Some(intent)) => desk.confirm(tx, intent).await?,
            (Some(offer), None) => desk.grant(tx, &offer).await?,
        };
        envelope.lease_id = id;
        envelope.lease_duration = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        envelope.renewable = renewable;
        envelope.warnings.extend(warnings);
        Ok(())
    }

    /// Creates the token of a login. Also returns its warnings and its entity.
    async fn log_in(
        &self,
        tx: &mut Tx,
        parts: &AuthorizedParts,
        mounted: &Arc<Mounted>,
        login: Login,
    ) -> Result<(create::Made, Vec<String>, Who)> {
        let now = self.clock.now();
        let policies = login_policies(&login)?;
        let who = match &login.alias {
            None => Who::default(),
            Some(alias) => self.identity.entity_of(tx, &mounted.info, alias, now).await?,
        };
        let terms = &login.terms;
        let asked = Asked {
            increment: Duration::ZERO,
            ttl: terms.ttl,
            max_ttl: terms.max_ttl,
            period: terms.period,
            explicit_max_ttl: terms.explicit_max_ttl,
        };
        let life = life::given(&asked, mounted.info.ttl, now, now);
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
            display_name: display_name(&mounted.entry.path, &login.display_name),
            meta: login.metadata,
            num_uses: terms.num_uses,
            ttl: Some(life.ttl),
            explicit_max_ttl: terms.explicit_max_ttl.as_secs(),
            period: terms.period.as_secs(),
            max_ttl: terms.max_ttl.as_secs(),
            renewable: terms.renewable && !batch,
            entity_id: who.entity.clone(),
            alias: who.alias.clone(),
            bound_cidrs,
            origin: Origin {
                mount: Some(mounted.entry.path.clone()),
                accessor: Some(mounted.entry.accessor.clone()),
                internal: login.internal,
            },
            batch,
            ..Spec::default()
        };
        let made = self.tokens.create(tx, spec, now).await?;
        made.record.count(&self.metrics, &mounted.entry.engine, &mounted.entry.path);
        Ok((made, life.warnings, who))
    }

    /// The same for an answer that is bytes: one that is JSON is kept as it stands.
    pub(super) async fn wrap_raw_if_asked(&self, tx: &mut Tx, parts: &AuthorizedParts, raw: Raw) -> Result<Answer> {
        let Some(ttl) = parts.routed.incoming.wrap_ttl.filter(|t| !t.is_zero()) else { return Ok(Answer::Raw(raw)) };
        if raw.status.0 >= 300 || raw.body.is_empty() || raw.content_type != "application/json" {
            return Ok(Answer::Raw(raw));
        }
        let json = String::from_utf8(raw.body).map_err(|_| Error::internal("an answer that is not UTF-8"))?;
        let accessor = wrapped_accessor(&json);
        let path = parts.routed.wrapped_path();
        let answer = ToWrap {
            response: json,
            status: raw.status,
            path: &path,
            wrapped_by: &path,
            ttl,
            display_name: caller_name(parts),
            wrapped_accessor: accessor,
        };
        let info = self.wrapper.wrap(tx, answer).await?;
        Ok(Answer::Envelope(Box::new(Envelope { wrap: Some(Box::new(info)), ..Envelope::default() })))
    }

    /// Keeps the answer behind a wrapping token when the caller asked for that: also a 404 that says more than that.
    /// Refusals and empty answers never are.
    pub(super) async fn wrap_if_asked(
        &self,
        tx: &mut Tx,
        parts: &AuthorizedParts,
        envelope: &mut Envelope,
    ) -> Result<()> {
        let Some(ttl) = parts.routed.incoming.wrap_ttl.filter(|t| !t.is_zero()) else { return Ok(()) };
        let refused = envelope.status.is_some_and(|s| s.0 >= 300 && s != Status::NOT_FOUND);
        if envelope.is_empty() || envelope.wrap.is_some() || refused {
            return Ok(());
        }
        // What is unwrapped later has the one form that all answers have.
        envelope.flat = false;
        let json = String::from_utf8(envelope.to_json()).map_err(Error::internal)?;
        let wrapped_accessor = wrapped_accessor(&json);
        let path = parts.routed.wrapped_path();
        let answer = ToWrap {
            response: json,
            status: envelope.status.unwrap_or(Status::OK),
            path: &path,
            wrapped_by: &path,
            ttl,
            // Whoever logs in has no token yet, but a name.
            display_name: envelope.logged_in.as_deref().unwrap_or_else(|| caller_name(parts)),
            wrapped_accessor,
        };
        let info = self.wrapper.wrap(tx, answer).await?;
        let login = envelope.auth.take().filter(|_| envelope.is_login);
        *envelope = Envelope { wrap: Some(Box::new(info)), wrapped_login: login, ..Envelope::default() };
        Ok(())
    }
}

/// The name for people of who asks; empty for a stranger.
fn caller_name(parts: &AuthorizedParts) -> &str {
    parts.caller.token.as_ref().map_or("", |token| &token.record.display_name)
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

fn is_batch(role: TokenKind, mount: TokenKind) -> bool {
    match (role, mount) {
        (TokenKind::Batch | TokenKind::DefaultBatch, _) => true,
        (TokenKind::Service | TokenKind::DefaultService, TokenKind::Batch) => true,
        (TokenKind::Service | TokenKind::DefaultService, _) => false,
        (TokenKind::Default, mount) => matches!(mount, TokenKind::Batch | TokenKind::DefaultBatch),
    }
}

/// The name for people: the mount, then what the method says.
fn display_name(mount: &str, name: &str) -> String {
    let mount = mount.strip_prefix(Kind::Auth.prefix()).unwrap_or(mount).trim_end_matches('/').replace('/', "-");
    if name.is_empty() { mount } else { format!("{mount}-{name}") }
}
