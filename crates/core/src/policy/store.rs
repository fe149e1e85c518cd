//! Stored policies, and the compiled ACLs of tokens.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use keepfast_framework::cx::{Caller, Grants};
use keepfast_framework::{Clock, Error, Records, Result, Timestamp};
use keepfast_storage::{Barrier, Page, ReadTx, Tx, View};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::template::{Alias, Entity, Group, Subject, TemplateOptions};
use super::{Acl, Policy, builtin};
use crate::identity::{Effective, Identity};
use crate::invalidation::{CacheOwner, CommittedChange};
use crate::layout;
use crate::metrics::{Metrics, Timing};
use crate::namespace::NamespaceId;
use crate::token::{Authority, Token, TokenRecord};
use crate::unreadable::{self, Stored};

/// The stored record of a policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PolicyRecord {
    /// Its canonical name.
    pub(crate) name: String,
    /// Its text as written.
    pub(crate) text: String,
    /// Incremented by each write.
    #[serde(default)]
    pub(crate) version: u64,
    /// The time of the last write.
    pub(crate) modified: Timestamp,
    /// The expiration; `None` for none.
    #[serde(default)]
    pub(crate) expiration: Option<Timestamp>,
    /// Whether a write must have the current version (`cas`).
    #[serde(default)]
    pub(crate) cas_required: bool,
    /// Whether identity values in its templates may span several segments.
    #[serde(default)]
    pub(crate) allow_slashes_in_identity_templates: bool,
    /// Whether identity values in its templates may hold wildcards.
    #[serde(default)]
    pub(crate) allow_wildcards_in_identity_templates: bool,
}

impl PolicyRecord {
    /// A policy with this text and defaults, first written at `modified`.
    pub(crate) fn new(name: &str, text: &str, modified: Timestamp) -> Self {
        PolicyRecord {
            name: name.to_owned(),
            text: text.to_owned(),
            version: 1,
            modified,
            expiration: None,
            cas_required: false,
            allow_slashes_in_identity_templates: false,
            allow_wildcards_in_identity_templates: false,
        }
    }
}

const POLICIES: Records<PolicyRecord> = Records::at(layout::POLICIES);

/// The compiled policies of a token, valid until an input of them changes.
pub(crate) struct CompiledAcl {
    /// The policies that compiled it: those of one namespace, as long as they are open.
    owner: u64,
    generation: u64,
    /// The entity of the token with its groups; `None` without one.
    entity: Option<Arc<Effective>>,
    /// The ACL of the token.
    pub(crate) acl: Arc<Acl>,
    /// Policies of its entity and of the groups of that.
    pub(crate) identity_policies: IdentityPolicies,
    /// The token as engines see it.
    pub(crate) caller: Arc<Caller>,
}

/// The policies that an entity gives to a token. All tokens of the entity share them.
#[derive(Default)]
pub(crate) struct IdentityPolicies(Option<Arc<Effective>>);

impl Deref for IdentityPolicies {
    type Target = Vec<String>;

    fn deref(&self) -> &Vec<String> {
        static NONE: Vec<String> = Vec::new();
        self.0.as_ref().map_or(&NONE, |effective| &effective.policies)
    }
}

impl CompiledAcl {
    fn is_current(&self, owner: u64, generation: u64) -> bool {
        self.owner == owner
            && self.generation == generation
            && self.entity.as_ref().is_none_or(|entity| entity.is_unchanged())
    }
}

/// The policies that decide for a token, an entity or a list of names.
pub(crate) struct PolicySubject {
    /// The names of all policies, stored or not.
    pub(crate) names: Vec<String>,
    /// The stored policies.
    pub(crate) policies: Vec<Arc<Policy>>,
    /// The values of templates.
    pub(crate) values: Subject,
    /// The ACL of all of them.
    pub(crate) acl: Acl,
}

impl Default for PolicySubject {
    fn default() -> Self {
        let acl = Acl::compile([], &Subject::default());
        PolicySubject { names: Vec::new(), policies: Vec::new(), values: Subject::default(), acl }
    }
}

/// The capabilities of a token, for engines that check other paths.
struct TokenGrants {
    acl: Arc<Acl>,
    clock: Arc<dyn Clock>,
}

impl Grants for TokenGrants {
    fn capabilities(&self, path: &str) -> Vec<&'static str> {
        self.acl.capabilities(path, self.clock.now())
    }
}

/// The number of the next [`Policies`].
static NEXT_OWNER: AtomicU64 = AtomicU64::new(0);

/// All policies of a namespace.
pub(crate) struct Policies {
    namespace: NamespaceId,
    /// Distinguishes the policies of this process, so that no ACL of others counts as current.
    owner: u64,
    barrier: Arc<Barrier>,
    view: View,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// Incremented by each change of a policy.
    generation: AtomicU64,
    parsed: RwLock<HashMap<String, Option<Arc<Policy>>>>,
    shared: RwLock<SharedAcls>,
}

/// Compiled policies by the set of their names, with the generation that they were compiled in.
type SharedAcls = HashMap<Vec<String>, (u64, Arc<Acl>)>;

/// The most compiled sets of policies in the cache; beyond it, all are compiled again.
const SHARED: usize = 1024;
/// The most parsed policies in the cache.
const REMEMBERED: usize = 4096;

impl Policies {
    /// The policies of a namespace under `view`; reads nothing yet.
    pub(crate) fn new(
        namespace: NamespaceId,
        barrier: &Arc<Barrier>,
        view: View,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Policies {
            namespace,
            owner: NEXT_OWNER.fetch_add(1, Ordering::Relaxed),
            barrier: barrier.clone(),
            view,
            clock,
            metrics,
            generation: AtomicU64::new(0),
            parsed: RwLock::default(),
            shared: RwLock::default(),
        })
    }

    /// Writes the built-in policies where `default` is missing.
    pub(crate) async fn write_built_in(tx: &mut Tx, view: &View, now: Timestamp) -> Result<()> {
        let Stored::Absent = unreadable::read((&POLICIES, "policy"), tx, view, builtin::DEFAULT).await? else {
            return Ok(());
        };
        for (name, text) in
            [(builtin::DEFAULT, builtin::DEFAULT_TEXT), (builtin::RESPONSE_WRAPPING, builtin::RESPONSE_WRAPPING_TEXT)]
        {
            POLICIES.put_in(tx, view, name, &PolicyRecord::new(name, text, now))?;
        }
        Ok(())
    }

    /// A stored policy.
    pub(crate) async fn read(&self, tx: &mut ReadTx, name: &str) -> Result<Option<PolicyRecord>> {
        let started = self.clock.now();
        let found = POLICIES.get_in(tx, &self.view, name).await;
        self.took(&self.metrics.policies.get, started);
        found
    }

    fn took(&self, timing: &Timing, started: Timestamp) {
        timing.record(self.clock.now().since(started));
    }

    /// A stored policy, for operations that must work in spite of damage: a record that cannot be read counts as none.
    pub(crate) async fn readable(&self, tx: &mut ReadTx, name: &str) -> Result<Option<PolicyRecord>> {
        Ok(unreadable::read((&POLICIES, "policy"), tx, &self.view, name).await?.readable())
    }

    /// Writes a policy, whose text the caller has parsed.
    pub(crate) fn write(&self, tx: &mut Tx, record: &PolicyRecord) -> Result<()> {
        let started = self.clock.now();
        POLICIES.put_in(tx, &self.view, &record.name, record)?;
        self.took(&self.metrics.policies.set, started);
        Ok(())
    }

    /// Deletes a policy.
    pub(crate) fn delete(&self, tx: &mut Tx, name: &str) {
        let started = self.clock.now();
        POLICIES.delete_in(tx, &self.view, name);
        self.took(&self.metrics.policies.delete, started);
    }

    /// The names of stored policies, sorted.
    pub(crate) async fn list(&self, tx: &mut ReadTx, prefix: &str, page: &Page) -> Result<Vec<String>> {
        let started = self.clock.now();
        let names = POLICIES.list_in(tx, &self.view, prefix, page).await;
        self.took(&self.metrics.policies.list, started);
        names
    }

    /// Whether a policy of this name is stored.
    pub(crate) async fn exists(&self, name: &str) -> Result<bool> {
        Ok(name == builtin::ROOT || self.parsed(name).await?.is_some())
    }

    /// The ACL of a token, compiled again when a policy or the entity of the token has changed.
    ///
    /// Fails when storage fails: then every request is denied.
    pub(crate) async fn acl_of(&self, token: &Token, identity: &Identity) -> Result<Arc<CompiledAcl>> {
        let generation = self.generation.load(Ordering::Acquire);
        if let Some(compiled) = token.acl.load_full().filter(|c| c.is_current(self.owner, generation)) {
            return Ok(compiled);
        }
        let record = &token.record;
        if record.namespace != self.namespace {
            return Err(Error::internal("the policies of another namespace do not apply to the token"));
        }
        // The generation is read before any record, so that the next request reads concurrent changes.
        let entity = identity.effective(&record.entity_id).await?;
        let (acl, identity_policies) = match &record.authority {
            _ if is_without_rights(record, entity.as_deref()) => {
                (Arc::new(Acl::compile([], &Subject::default())), None)
            }
            Authority::Root => (Arc::new(Acl::Root), None),
            Authority::Policies(names) => {
                (Box::pin(self.compile(token, names, entity.as_deref(), generation)).await?, entity.clone())
            }
        };
        let identity_policies = IdentityPolicies(identity_policies);
        // Without the entity no change of it is noticed.
        let is_kept = record.entity_id.is_empty() || entity.is_some();
        let caller = Arc::new(Caller {
            display_name: record.display_name.clone(),
            entity_id: record.entity_id.clone(),
            accessor: record.accessor.clone(),
            grants: Some(Arc::new(TokenGrants { acl: acl.clone(), clock: self.clock.clone() })),
            token_store: (!record.batch).then(|| token.store.clone()),
            is_root: record.authority.is_root(),
        });
        let compiled = Arc::new(CompiledAcl { owner: self.owner, generation, entity, acl, identity_policies, caller });
        if is_kept {
            token.acl.store(Some(compiled.clone()));
        }
        Ok(compiled)
    }

    async fn compile(
        &self,
        token: &Token,
        names: &[String],
        entity: Option<&Effective>,
        generation: u64,
    ) -> Result<Arc<Acl>> {
        let of_identity = entity.into_iter().flat_map(|entity| &entity.policies);
        let mut all: Vec<String> = names.iter().chain(of_identity).cloned().collect();
        all.sort();
        all.dedup();
        let mut policies = Vec::with_capacity(all.len());
        for name in &all {
            policies.extend(self.parsed(name).await?);
        }
        if let Some(unreadable) = policies.iter().find(|policy| policy.unreadable) {
            tracing::debug!(policy = %unreadable.name, "a token has a policy that cannot be read");
            return Err(Error::denied().because("a stored policy of the token cannot be read"));
        }
        let templated = policies.iter().any(|p| p.is_templated());
        if !templated && let Some((_, acl)) = self.shared.read().get(&all).filter(|(g, _)| *g == generation) {
            return Ok(acl.clone());
        }
        let subject = subject(entity, token);
        let acl = Arc::new(Acl::compile(policies.iter().map(Arc::as_ref), &subject));
        if !templated {
            let mut shared = self.shared.write();
            if shared.len() >= SHARED {
                shared.clear();
            }
            shared.insert(all, (generation, acl.clone()));
        }
        Ok(acl)
    }

    /// The policies of a token, of its entity included.
    ///
    /// # Errors
    /// When storage fails; 403 when a policy of it cannot be read.
    pub(crate) async fn of_token(&self, token: &Token, identity: &Identity) -> Result<PolicySubject> {
        let compiled = self.acl_of(token, identity).await?;
        let Authority::Policies(names) = &token.record.authority else {
            return Ok(PolicySubject { acl: Acl::Root, ..PolicySubject::default() });
        };
        let entity = compiled.entity.as_deref();
        if is_without_rights(&token.record, entity) {
            return self.compiled_subject(Vec::new(), Subject::default()).await;
        }
        let names = names.iter().chain(compiled.identity_policies.iter()).cloned().collect();
        self.compiled_subject(names, subject(entity, token)).await
    }

    /// The policies of an entity and of its groups; none while it is disabled.
    ///
    /// # Errors
    /// When storage fails; 403 when a policy of it cannot be read.
    pub(crate) async fn of_entity(&self, id: &str, identity: &Identity) -> Result<Option<PolicySubject>> {
        let Some(effective) = identity.effective(id).await? else { return Ok(None) };
        let policies = if effective.entity.disabled { Vec::new() } else { effective.policies.clone() };
        self.compiled_subject(policies, subject_of_entity(&effective)).await.map(Some)
    }

    /// The policies of these names, without an identity; none when one is missing.
    ///
    /// # Errors
    /// When storage fails; 403 when a policy cannot be read.
    pub(crate) async fn of_names(&self, names: Vec<String>) -> Result<Option<PolicySubject>> {
        let subject = self.compiled_subject(names, Subject::default()).await?;
        Ok(Some(subject).filter(|subject| subject.policies.len() == subject.names.len()))
    }

    async fn compiled_subject(&self, mut names: Vec<String>, values: Subject) -> Result<PolicySubject> {
        names.sort();
        names.dedup();
        let mut policies = Vec::with_capacity(names.len());
        for name in &names {
            policies.extend(self.parsed(name).await?);
        }
        if policies.iter().any(|policy| policy.unreadable) {
            return Err(Error::denied().because("a stored policy of the subject cannot be read"));
        }
        let acl = Acl::compile(policies.iter().map(Arc::as_ref), &values);
        Ok(PolicySubject { names, policies, values, acl })
    }

    /// Logs the stored policies that exceed newer limits or cannot be read.
    pub(crate) async fn log_limits(&self) -> Result<()> {
        let mut tx = self.barrier.begin_read();
        for name in self.list(&mut tx, "", &Page::all()).await? {
            let Some(record) = self.readable(&mut self.barrier.begin_read(), &name).await? else { continue };
            let Err(error) = super::parse(&name, &record.text) else { continue };
            match super::parse_stored(&name, &record.text) {
                Ok(_) => tracing::warn!(
                    policy = name,
                    %error,
                    "a stored policy exceeds a limit: it applies, but a list filter beyond the limit returns no names"
                ),
                Err(error) => {
                    tracing::error!(policy = name, %error, "a stored policy cannot be read; tokens with it are denied everything")
                }
            }
        }
        Ok(())
    }

    /// The number of names in the cache of parsed policies.
    #[cfg(test)]
    pub(crate) fn remembered(&self) -> usize {
        self.parsed.read().len()
    }

    /// Whether all inputs of compiled policies are unchanged.
    #[cfg(test)]
    pub(crate) fn is_current(&self, compiled: &CompiledAcl) -> bool {
        compiled.is_current(self.owner, self.generation.load(Ordering::Acquire))
    }

    /// A parsed stored policy, from the cache; the cache also holds absent ones.
    async fn parsed(&self, name: &str) -> Result<Option<Arc<Policy>>> {
        let known = self.parsed.read().get(name).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let generation = self.generation.load(Ordering::Acquire);
        let mut tx = self.barrier.begin_read();
        let parsed = match self.read(&mut tx, name).await? {
            None => None,
            Some(record) => {
                let mut policy = super::parse_stored(&record.name, &record.text).unwrap_or_else(|error| {
                    tracing::error!(policy = name, %error, "a stored policy cannot be read; tokens with it are denied everything");
                    Policy { unreadable: true, ..Policy::empty(name) }
                });
                policy.expiration = record.expiration;
                policy.templates = TemplateOptions {
                    allow_slashes: record.allow_slashes_in_identity_templates,
                    allow_wildcards: record.allow_wildcards_in_identity_templates,
                };
                Some(Arc::new(policy))
            }
        };
        let mut memory = self.parsed.write();
        if self.generation.load(Ordering::Acquire) == generation {
            // The cache also holds names of absent policies, which callers choose.
            if memory.len() >= REMEMBERED {
                memory.clear();
            }
            memory.insert(name.to_owned(), parsed.clone());
        }
        Ok(parsed)
    }
}

/// Follows the records of policies: compiled policies become stale.
impl CacheOwner for Policies {
    fn applied(&self, change: &CommittedChange<'_>) {
        let mut memory = self.parsed.write();
        self.generation.fetch_add(1, Ordering::AcqRel);
        memory.remove(change.key);
    }
}

/// Whether no policy counts for a token: its entity is disabled or deleted, so that authentication refuses it, or it is an
/// access token of an OIDC provider.
fn is_without_rights(record: &TokenRecord, entity: Option<&Effective>) -> bool {
    let is_refused = !record.entity_id.is_empty() && entity.is_none_or(|effective| effective.entity.disabled);
    is_refused || record.userinfo.is_some()
}

/// The subject of the templates of a token's policies: its entity with its groups, and the one alias that authenticated
/// it.
fn subject(effective: Option<&Effective>, token: &Token) -> Subject {
    let Some(effective) = effective else { return Subject::default() };
    let alias = effective.entity.alias(&token.record.alias).map(|a| Alias {
        mount_accessor: a.mount_accessor.clone(),
        id: a.id.clone(),
        name: a.name.clone(),
        metadata: a.metadata.clone(),
        custom_metadata: a.custom_metadata.clone(),
    });
    Subject { alias, ..subject_of_entity(effective) }
}

fn subject_of_entity(effective: &Effective) -> Subject {
    let entity = &effective.entity;
    let groups = effective.groups().map(|group| Group {
        id: group.id.clone(),
        name: group.name.clone(),
        metadata: group.metadata.clone(),
    });
    Subject {
        entity: Some(Entity { id: entity.id.clone(), name: entity.name.clone(), metadata: entity.metadata.clone() }),
        alias: None,
        groups: groups.collect(),
    }
}
