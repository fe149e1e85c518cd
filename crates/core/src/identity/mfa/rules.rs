//! The enforcements that bind a login.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use keepfast_framework::mount::MountInfo;
use keepfast_framework::{Error, Page, Result};
use keepfast_storage::Tx;

use super::records::{ENFORCEMENTS, Enforcement, METHODS, Method};
use crate::identity::login_identity::LoginIdentity;
use crate::identity::store::Identity;
use crate::invalidation::{CacheOwner, CommittedChange};

/// What is in memory of the enforcements: whether there are any. Most servers have none, and their logins read nothing.
#[derive(Default)]
pub(crate) struct MfaRules {
    /// Incremented by each commit of an enforcement.
    generation: AtomicU64,
    /// The generation after the one in which there was no enforcement.
    empty: AtomicU64,
}

/// Follows the enforcements.
impl CacheOwner for MfaRules {
    fn applied(&self, _: &CommittedChange<'_>) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

/// The methods of an enforcement, one of which a login needs.
pub(crate) struct RequiredMfa {
    /// The name of the enforcement.
    pub(super) name: String,
    /// Its methods.
    pub(super) methods: Vec<Method>,
}

impl Identity {
    /// The enforcements that bind a login at a mount: those of its namespace and of the ones above. A login needs all of
    /// them. The commit of the transaction conflicts with a change of any enforcement.
    ///
    /// # Errors
    /// When an enforcement or a method cannot be read: the login is refused.
    pub(super) async fn required_mfa(
        &self,
        tx: &mut Tx,
        login: &LoginIdentity,
        mount: &MountInfo,
    ) -> Result<Vec<RequiredMfa>> {
        let mut required = Vec::new();
        let mut subject = None;
        for identity in self.with_ancestors() {
            let enforcements = identity.enforcements(tx).await?;
            let names_subjects = |found: &Enforcement| !found.groups.is_empty() || !found.entities.is_empty();
            if subject.is_none() && enforcements.iter().any(names_subjects) {
                subject = Some(self.subject(tx, &login.entity).await?);
            }
            let none = Subject::default();
            let subject = subject.as_ref().unwrap_or(&none);
            for enforcement in enforcements.into_iter().filter(|found| found.binds(mount, subject)) {
                required.push(identity.with_methods(tx, enforcement).await?);
            }
        }
        Ok(required)
    }

    /// All enforcements of this namespace.
    async fn enforcements(&self, tx: &mut Tx) -> Result<Vec<Enforcement>> {
        let generation = self.mfa.generation.load(Ordering::Acquire) + 1;
        if self.mfa.empty.load(Ordering::Acquire) == generation {
            return Ok(Vec::new());
        }
        let names = ENFORCEMENTS.list_verified_in(tx, &self.view, "", &Page::all()).await?;
        if names.is_empty() {
            self.mfa.empty.store(generation, Ordering::Release);
        }
        let mut enforcements = Vec::with_capacity(names.len());
        for name in names {
            enforcements.extend(self.read(&ENFORCEMENTS, tx, &name).await?);
        }
        Ok(enforcements)
    }

    async fn with_methods(&self, tx: &mut Tx, enforcement: Enforcement) -> Result<RequiredMfa> {
        let mut methods = Vec::with_capacity(enforcement.methods.len());
        for id in &enforcement.methods {
            let method = self.read(&METHODS, tx, id).await?;
            methods.push(method.ok_or_else(|| Error::internal("an MFA method of an enforcement is missing"))?);
        }
        Ok(RequiredMfa { name: enforcement.name, methods })
    }

    /// The MFA method with this id, of this namespace or one above.
    ///
    /// # Errors
    /// When storage fails.
    pub(super) async fn mfa_method(&self, tx: &mut Tx, id: &str) -> Result<Option<Method>> {
        for identity in self.with_ancestors() {
            if let Some(method) = identity.read(&METHODS, tx, id).await? {
                return Ok(Some(method));
            }
        }
        Ok(None)
    }

    /// The ids by which enforcements may name an entity, as the transaction sees them.
    async fn subject(&self, tx: &mut Tx, entity: &str) -> Result<Subject> {
        if entity.is_empty() {
            return Ok(Subject::default());
        }
        let Some(effective) = Box::pin(self.read_effective(tx, entity)).await? else { return Ok(Subject::default()) };
        let groups = effective.groups().map(|group| group.id.clone()).collect();
        // An enforcement about an entity also binds the one that it was merged into.
        let entities = effective.entity.merged.into_iter().chain([effective.entity.id]).collect();
        Ok(Subject { entities, groups })
    }
}

/// The ids of the entity of a login and of its groups.
#[derive(Default)]
struct Subject {
    entities: HashSet<String>,
    groups: HashSet<String>,
}

impl Enforcement {
    /// Whether it binds a login at a mount. Any of its conditions is enough, as on OpenBao.
    fn binds(&self, mount: &MountInfo, subject: &Subject) -> bool {
        self.accessors.contains(&mount.accessor)
            || self.types.contains(&mount.engine)
            || self.entities.iter().any(|id| subject.entities.contains(id))
            || self.groups.iter().any(|id| subject.groups.contains(id))
    }
}
