//! Creation of tokens.

use std::collections::BTreeMap;
use std::time::Duration;

use keepfast_crypto::hash::sha256;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::reply::AuthBlock;
use keepfast_framework::{Error, Result, Timestamp};
use keepfast_storage::Tx;

use super::bound_cidrs::BoundCidrs;
use super::id::{BATCH, SERVICE, TokenKey};
use super::record::{Authority, Origin, TokenExpiry, TokenRecord, UserinfoGrant};
use super::store::{RECORDS, Tokens};
use crate::lease::index;
use crate::metrics::Metrics;
use crate::metrics::labelled::ttl_bucket;
use crate::namespace::NamespaceId;
use crate::policy::builtin::RESPONSE_WRAPPING;

/// The properties of a new token. The policies are final and the TTL is already bounded.
pub(crate) struct Spec {
    /// A chosen id; `None` for a generated one.
    pub(crate) id: Option<SecretString>,
    /// The token that creates it; `None` for an orphan.
    pub(crate) parent: Option<TokenKey>,
    /// Its policies, or root.
    pub(crate) authority: Authority,
    /// The path that creates it.
    pub(crate) path: String,
    /// The display name.
    pub(crate) display_name: String,
    /// The metadata.
    pub(crate) meta: BTreeMap<String, String>,
    /// See [`TokenRecord::empty_meta`].
    pub(crate) empty_meta: bool,
    /// The number of uses; zero for no limit.
    pub(crate) num_uses: u64,
    /// The TTL; `None` for no expiry, which only root can have.
    pub(crate) ttl: Option<Duration>,
    /// See [`TokenRecord::explicit_max_ttl`].
    pub(crate) explicit_max_ttl: u64,
    /// See [`TokenRecord::period`].
    pub(crate) period: u64,
    /// See [`TokenRecord::requested`].
    pub(crate) requested: Option<(u64, u64)>,
    /// See [`TokenRecord::max_ttl`].
    pub(crate) max_ttl: u64,
    /// Whether it can be renewed.
    pub(crate) renewable: bool,
    /// The entity; empty for none.
    pub(crate) entity_id: String,
    /// See [`TokenRecord::alias`].
    pub(crate) alias: String,
    /// The networks from which it may be used.
    pub(crate) bound_cidrs: BoundCidrs,
    /// The token role that creates it.
    pub(crate) role: String,
    /// The auth method that creates it.
    pub(crate) origin: Origin,
    /// Whether it is a batch token.
    pub(crate) batch: bool,
    /// Whether it is a wrapping token.
    pub(crate) wrapping: bool,
    /// See [`TokenRecord::control_group`].
    pub(crate) control_group: bool,
    /// See [`TokenRecord::userinfo`].
    pub(crate) userinfo: Option<Box<UserinfoGrant>>,
}

impl Default for Spec {
    /// A service token without a TTL, policies or a parent.
    fn default() -> Self {
        Spec {
            id: None,
            parent: None,
            authority: Authority::Policies(Vec::new()),
            path: String::new(),
            display_name: String::new(),
            meta: BTreeMap::new(),
            empty_meta: false,
            num_uses: 0,
            ttl: Some(Duration::ZERO),
            explicit_max_ttl: 0,
            period: 0,
            requested: None,
            max_ttl: 0,
            renewable: false,
            entity_id: String::new(),
            alias: String::new(),
            bound_cidrs: BoundCidrs::default(),
            role: String::new(),
            origin: Origin::default(),
            batch: false,
            wrapping: false,
            control_group: false,
            userinfo: None,
        }
    }
}

/// A token that was just created.
pub(crate) struct CreatedToken {
    /// Its text: returned once, never stored.
    pub(crate) id: SecretString,
    /// Its record.
    pub(crate) record: TokenRecord,
    /// The key of the record; `None` for a batch token.
    #[cfg(test)]
    pub(crate) key: Option<TokenKey>,
}

impl CreatedToken {
    /// The `auth` block of the response.
    pub(crate) fn auth_block(self, identity_policies: Vec<String>) -> AuthBlock {
        let lease_duration = self.record.creation_ttl;
        self.record.into_auth_block(self.id, lease_duration, identity_policies)
    }
}

impl TokenRecord {
    /// The `auth` block of this token, with its text, if the caller knows it, and its new TTL.
    pub(super) fn into_auth_block(
        self,
        id: SecretString,
        lease_duration: u64,
        identity_policies: Vec<String>,
    ) -> AuthBlock {
        let metadata = self.meta_response();
        let token_policies = self.authority.names();
        let mut policies = token_policies.clone();
        policies.extend(identity_policies.iter().cloned());
        policies.sort();
        policies.dedup();
        AuthBlock {
            client_token: id,
            accessor: self.accessor.clone(),
            display_name: self.display_name.clone(),
            policies,
            token_policies,
            identity_policies,
            lease_duration,
            renewable: self.renewable,
            token_type: self.kind(),
            orphan: self.is_orphan(),
            num_uses: self.num_uses,
            entity_id: self.entity_id,
            entity_created: false,
            no_default_policy: false,
            metadata,
        }
    }
}

impl Tokens {
    /// Creates a token of a namespace that exists once `tx` is committed. A batch token exists at once.
    ///
    /// Fails with 400 when a chosen id is taken or invalid, and for the policy of wrapping tokens on any other token;
    /// with 403 when the parent does not exist any more; with 429 when the lease count quota is exceeded; with 500 for a token without expiry that is not root.
    pub(crate) async fn create(
        &self,
        tx: &mut Tx,
        namespace: &NamespaceId,
        spec: Spec,
        now: Timestamp,
    ) -> Result<CreatedToken> {
        if !spec.wrapping && spec.authority.has(RESPONSE_WRAPPING) {
            return Err(Error::invalid(format!("cannot assign policy {RESPONSE_WRAPPING:?}")));
        }
        if spec.authority.is_root() && !namespace.is_root() {
            return Err(Error::internal("a root token of a namespace"));
        }
        let started = self.now();
        let expiry = match spec.ttl {
            Some(ttl) => TokenExpiry::At(now.after(ttl)),
            None if spec.authority.is_root() => TokenExpiry::Never,
            None => return Err(Error::internal("a token without an end that is not root")),
        };
        let chosen = spec.id.as_ref().map(|id| checked_id(id).cloned()).transpose()?;
        if spec.batch {
            self.leases.quotas.check(tx, namespace, &spec.path).await?;
            return self.seal_batch(namespace, spec, expiry, now);
        }
        let is_chosen = chosen.is_some();
        let id = match chosen {
            Some(chosen) => SecretString::new(format!("{}{}", chosen.expose(), namespace.suffix())),
            None => self.ids.service(now, namespace),
        };
        let located = self.ids.locate(id.expose());
        let mut record = record_of(namespace, spec, expiry, (located.hash, located.accessor), now);
        // The parent is read in this transaction: if it is revoked before the commit, the child is not created.
        if let Some(parent) = &record.parent
            && self.record(tx, parent).await?.is_none()
        {
            return Err(Error::denied());
        }
        if is_chosen && self.is_under_collection(tx, &located.key).await? {
            return Err(Error::invalid("cannot create a token with a duplicate ID"));
        }
        if RECORDS.get_in(tx, &self.view, located.key.as_str()).await?.is_some() {
            return Err(Error::invalid("cannot create a token with a duplicate ID"));
        }
        if record.expiry != TokenExpiry::Never {
            record.counter = self.leases.quotas.count(tx, namespace, &record.path).await?;
        }
        index::note_counter(tx, &self.view, &located.key, record.counter.as_deref());
        self.save(tx, &located.key, &record)?;
        if let Some(parent) = &record.parent {
            tx.put(&self.view, &child_key(parent, &located.key), bytes::Bytes::new());
        }
        if let TokenExpiry::At(end) = record.expiry {
            index::add_token(tx, &self.view, &record, &located.key, end);
        }
        let took = self.now().since(started);
        self.metrics().tokens.create.record(took);
        if record.authority.is_root() {
            self.metrics().root_tokens.add();
        }
        if record.expiry != TokenExpiry::Never {
            self.metrics().leases.register_auth.record(took);
        }
        Ok(CreatedToken {
            id,
            record,
            #[cfg(test)]
            key: Some(located.key),
        })
    }

    /// Creates a batch token. It has no accessor and no stored record, and the name of its storage is a hash of its
    /// text.
    fn seal_batch(
        &self,
        namespace: &NamespaceId,
        spec: Spec,
        expiry: TokenExpiry,
        now: Timestamp,
    ) -> Result<CreatedToken> {
        let mut record = record_of(namespace, spec, expiry, ([0; 32], String::new()), now);
        record.renewable = false;
        let sealed = self.batch.seal(&record)?;
        record.hash = sha256(sealed.expose().as_bytes());
        let id = SecretString::new(format!("{}{}", sealed.expose(), namespace.suffix()));
        Ok(CreatedToken {
            id,
            record,
            #[cfg(test)]
            key: None,
        })
    }
}

impl TokenRecord {
    /// Counts a token that an auth method of this type at this mount has created.
    pub(crate) fn count(&self, metrics: &Metrics, auth_method: &str, mount_point: &str) {
        let ttl = if self.expiry == TokenExpiry::Never { "+Inf" } else { ttl_bucket(self.creation_ttl) };
        metrics.token_creation.add(&[
            ("auth_method", auth_method),
            ("creation_ttl", ttl),
            ("mount_point", mount_point),
            ("namespace", self.namespace.as_str()),
            ("token_type", self.kind()),
        ]);
    }
}

/// The key of a child under its parent.
pub(super) fn child_key(parent: &TokenKey, child: &TokenKey) -> String {
    format!("child/{}/{}", parent.as_str(), child.as_str())
}

fn checked_id(id: &SecretString) -> Result<&SecretString> {
    let text = id.expose();
    for prefix in [SERVICE, BATCH, "s."] {
        if text.starts_with(prefix) {
            return Err(Error::invalid(format!("custom token ID cannot have the '{prefix}' prefix")));
        }
    }
    if text.contains('.') {
        return Err(Error::invalid("custom token ID cannot have a '.' in the value"));
    }
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(Error::invalid("custom token ID has characters that are not allowed"));
    }
    Ok(id)
}

fn record_of(
    namespace: &NamespaceId,
    spec: Spec,
    expiry: TokenExpiry,
    (hash, accessor): ([u8; 32], String),
    now: Timestamp,
) -> TokenRecord {
    TokenRecord {
        hash,
        accessor,
        parent: spec.parent,
        authority: spec.authority,
        path: spec.path,
        display_name: spec.display_name,
        meta: spec.meta,
        empty_meta: spec.empty_meta,
        num_uses: i64::try_from(spec.num_uses).unwrap_or(i64::MAX),
        created: now,
        creation_ttl: spec.ttl.map_or(0, |ttl| ttl.as_secs()),
        expiry,
        explicit_max_ttl: spec.explicit_max_ttl,
        period: spec.period,
        requested: spec.requested,
        max_ttl: spec.max_ttl,
        last_renewal: None,
        renewable: spec.renewable,
        entity_id: spec.entity_id,
        alias: spec.alias,
        bound_cidrs: spec.bound_cidrs,
        role: spec.role,
        origin: spec.origin,
        namespace: namespace.clone(),
        batch: spec.batch,
        wrapping: spec.wrapping,
        counter: None,
        control_group: spec.control_group,
        userinfo: spec.userinfo,
    }
}
