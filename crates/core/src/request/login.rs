//! A login from its first factor to its token. Between both is its MFA, which may take another request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use keepfast_framework::reply::{AuthBlock, Login};
use keepfast_framework::token_params::{TokenKind, TokenTerms};
use keepfast_framework::{Error, Kind, Result, Timestamp};
use keepfast_storage::Tx;

use crate::identity::{LoginIdentity, ProvedLogin, ProvedTerms};
use crate::metrics::Metrics;
use crate::mount::Mounted;
use crate::policy::builtin;
use crate::token::Authority;
use crate::token::create::Spec;
use crate::token::record::Origin;
use crate::token::ttl::{self, RequestedTtls};
use crate::unsealed::{Access, Unsealed};

impl ProvedLogin {
    /// A login at a mount by this path, in the namespace with this path, from this address.
    ///
    /// # Errors
    /// 400 when the token would be root, or a batch token that no batch token can be.
    pub(super) fn new(
        login: Login,
        identity: LoginIdentity,
        mounted: &Mounted,
        (namespace, path): (&str, &str),
        remote: Option<IpAddr>,
    ) -> Result<Self> {
        let policies = policies(&login)?;
        let terms = login.terms;
        if is_batch(terms.kind, mounted) && (!terms.period.is_zero() || terms.num_uses > 0) {
            return Err(Error::invalid("batch tokens cannot be periodic or have a limited number of uses"));
        }
        Ok(ProvedLogin {
            identity,
            mount_accessor: mounted.entry.accessor.clone(),
            path: path.to_owned(),
            policies,
            display_name: display_name(namespace, &mounted.entry.path, &login.display_name),
            metadata: login.metadata,
            internal: login.internal,
            terms: ProvedTerms::new(terms, remote),
        })
    }
}

impl ProvedTerms {
    fn new(terms: TokenTerms, remote: Option<IpAddr>) -> Self {
        let bound_cidrs = match remote.filter(|_| terms.strictly_bind_ip) {
            Some(remote) => std::iter::once(IpNet::from(remote)).collect(),
            None => terms.bound_cidrs.into_iter().collect(),
        };
        ProvedTerms {
            ttl: terms.ttl,
            max_ttl: terms.max_ttl,
            explicit_max_ttl: terms.explicit_max_ttl,
            period: terms.period,
            num_uses: terms.num_uses,
            bound_cidrs,
            kind: terms.kind,
            renewable: terms.renewable,
            no_default_policy: terms.no_default_policy,
        }
    }
}

/// Issues the tokens of logins.
pub(crate) struct LoginIssuer {
    access: Arc<Access>,
    metrics: Arc<Metrics>,
}

impl LoginIssuer {
    /// The issuer of an unsealed server.
    pub(crate) fn new(unsealed: &Unsealed) -> Self {
        LoginIssuer { access: unsealed.access.clone(), metrics: unsealed.observability.metrics.clone() }
    }

    /// Finds or creates the entity of a login, and makes it a member of the groups that the auth method reports.
    ///
    /// # Errors
    /// 403 when the entity is disabled.
    pub(super) async fn identify(
        &self,
        tx: &mut Tx,
        mounted: &Mounted,
        login: &Login,
        now: Timestamp,
    ) -> Result<LoginIdentity> {
        let mut found = match &login.alias {
            None => LoginIdentity::default(),
            Some(alias) => self.access.identity.entity_of(tx, &mounted.info, alias, now).await?,
        };
        if let (Some(groups), false) = (&login.terms.groups, found.entity.is_empty()) {
            let accessor = &mounted.entry.accessor;
            found.regrouped =
                Box::pin(self.access.identity.set_external_groups(tx, &found.entity, accessor, groups)).await?;
        }
        Ok(found)
    }

    /// Creates the token of a login. Also returns its warnings.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn issue(
        &self,
        tx: &mut Tx,
        mounted: &Mounted,
        login: ProvedLogin,
        now: Timestamp,
    ) -> Result<(AuthBlock, Vec<String>)> {
        let ProvedLogin { identity, path, policies, display_name, metadata, internal, terms, .. } = login;
        let requested = RequestedTtls {
            increment: Duration::ZERO,
            ttl: terms.ttl,
            max_ttl: terms.max_ttl,
            period: terms.period,
            explicit_max_ttl: terms.explicit_max_ttl,
        };
        let effective = ttl::effective_ttl(&requested, mounted.info.ttl, now, now);
        let batch = is_batch(terms.kind, mounted);
        let spec = Spec {
            authority: Authority::Policies(policies),
            path,
            display_name,
            meta: metadata,
            num_uses: terms.num_uses,
            ttl: Some(effective.ttl),
            explicit_max_ttl: terms.explicit_max_ttl.as_secs(),
            period: terms.period.as_secs(),
            max_ttl: terms.max_ttl.as_secs(),
            renewable: terms.renewable && !batch,
            entity_id: identity.entity.clone(),
            alias: identity.alias.clone(),
            bound_cidrs: terms.bound_cidrs,
            origin: Origin {
                mount: Some(mounted.entry.path.clone()),
                accessor: Some(mounted.entry.accessor.clone()),
                internal,
            },
            batch,
            ..Spec::default()
        };
        let created = self.access.tokens.create(tx, &self.access.namespace.id, spec, now).await?;
        created.record.count(&self.metrics, &mounted.entry.engine, &mounted.entry.path);
        let identity_policies = self.access.identity.policies_of_login(tx, &identity).await?;
        let auth = created.auth_block(identity_policies);
        let (entity_created, no_default_policy) = (identity.created, terms.no_default_policy);
        Ok((AuthBlock { entity_created, no_default_policy, ..auth }, effective.warnings))
    }
}

/// The policies of a login's token.
fn policies(login: &Login) -> Result<Vec<String>> {
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
fn is_batch(role: TokenKind, mounted: &Mounted) -> bool {
    match (role, mounted.entry.config.token_type) {
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
