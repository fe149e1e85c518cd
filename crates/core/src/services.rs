//! The services of core for engines besides storage and leases.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::external_key::ExternalKey;
use keepfast_framework::mount::MountInfo;
use keepfast_framework::services::{Extract, Services};
use keepfast_framework::{Error, Result};
use keepfast_storage::{Page, Tx, View};

use crate::external_keys::ExternalKeys;
use crate::lease::record::LeaseId;
use crate::lease::{Leases, index};
use crate::mount::Mounts;
use crate::policy::password::{self, PASSWORD_POLICIES};
use crate::settings::Settings;

/// The services that engines may use, and no others.
pub(crate) struct EngineServices {
    /// The view of policies.
    pub(crate) system: View,
    /// The records of leases.
    pub(crate) leases: Arc<Leases>,
    /// All mounts.
    pub(crate) mounts: Arc<Mounts>,
    /// The configuration.
    pub(crate) settings: Arc<Settings>,
    /// The external keys.
    pub(crate) external_keys: Arc<ExternalKeys>,
}

#[async_trait]
impl Services for EngineServices {
    async fn password(&self, tx: &mut Tx, policy: &str) -> Result<SecretString> {
        let missing = || Error::invalid("no password policy found");
        let record = PASSWORD_POLICIES.get_in(tx, &self.system, policy).await?.ok_or_else(missing)?;
        let parsed = password::parse(&record.policy).map_err(|e| Error::internal(e.to_string()))?;
        Ok(parsed.generate())
    }

    async fn leased(&self, engine: &str, pick: Extract<'_>) -> Result<Vec<String>> {
        let mut out = Vec::new();
        for mount in self.mounts_of(engine).await? {
            // Each list is read as a whole, because renewals move leases in it; and in this order, because a lease that
            // becomes irrevocable in the meantime moves from the first to the second.
            for (folder, skip) in [(index::ENDS, 10), (index::IRREVOCABLE, 0)] {
                for name in self.leases.of_mount(folder, &mount, &Page::all()).await? {
                    let id = name.get(skip..).and_then(LeaseId::parse);
                    let id = id.ok_or_else(|| Error::internal("an entry among the ends of leases that is none"))?;
                    let record = self.leases.record(&mut self.leases.begin_read(), &id).await?;
                    out.extend(record.and_then(|record| pick(&record.internal)));
                }
            }
        }
        Ok(out)
    }

    fn file_directories(&self) -> Vec<PathBuf> {
        self.settings.database_file_directories.clone()
    }

    async fn check_external_key(&self, tx: &mut Tx, mount: &MountInfo, reference: &str) -> Result<()> {
        self.external_keys.check(tx, mount, reference).await.map(|_| ())
    }

    async fn external_key(&self, mount: &MountInfo, reference: &str) -> Result<Arc<dyn ExternalKey>> {
        self.external_keys.open(mount, reference).await
    }
}

impl EngineServices {
    /// The mounts of an engine that have leases, including those that are being unmounted.
    async fn mounts_of(&self, engine: &str) -> Result<BTreeSet<String>> {
        let mut others: HashSet<String> =
            self.mounts.leaving().into_iter().filter(|m| m.engine != engine).map(|m| m.uuid).collect();
        let router = self.mounts.router();
        others.extend(router.all().filter(|m| m.entry.engine != engine).map(|m| m.entry.uuid.clone()));
        let mut mounts: BTreeSet<String> = self.leases.expiry_queue.mounts().await?.into_iter().collect();
        mounts.extend(self.leases.irrevocable_mounts().await?);
        mounts.retain(|mount| !others.contains(mount));
        Ok(mounts)
    }
}
