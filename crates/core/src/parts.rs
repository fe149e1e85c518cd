//! The parts of a server for the lifetime of the process, sealed or unsealed.

use std::sync::Arc;

use keepfast_crypto::locked::Key256;
use keepfast_framework::engine::Registry;
use keepfast_framework::{Clock, Error, Result};
use keepfast_storage::{Backend, Barrier, BarrierError, Role};

use crate::admission::Admission;
use crate::audit::target::OpenedDevice;
use crate::audit::{self, AllowedTargets};
use crate::cluster::membership::Membership;
use crate::cluster::{members, restored};
use crate::lease::quarantine::NodeDirectory;
use crate::metrics::Metrics;
use crate::metrics::transport::Observed;
use crate::request::in_flight::InFlight;
use crate::seal::SealConfig;
use crate::settings::{DataDirectory, Settings};
use crate::takeover::take_over;

/// The parts of a server that live as long as the process.
pub(crate) struct ServerParts {
    /// The storage backend, which gets only ciphertext.
    pub(crate) backend: Arc<dyn Backend>,
    /// The place of this node in its cluster.
    pub(crate) membership: Membership,
    /// The clock.
    pub(crate) clock: Arc<dyn Clock>,
    /// The configuration.
    pub(crate) settings: Arc<Settings>,
    /// The engines that the server was built with.
    pub(crate) engines: Arc<Registry>,
    /// The rules that apply before a request is read.
    pub(crate) admission: Arc<Admission>,
    /// The metrics.
    pub(crate) metrics: Arc<Metrics>,
    /// The requests in flight.
    pub(crate) in_flight: Arc<InFlight>,
}

impl ServerParts {
    /// The role of this node in its cluster; `None` when the storage has no cluster.
    pub(crate) fn role(&self) -> Option<Role> {
        self.membership.role()
    }

    /// Whether this node takes the commits of this storage.
    pub(crate) fn is_active(&self) -> bool {
        self.membership.is_active()
    }

    /// The clock and the metrics.
    pub(crate) fn observed(&self) -> Observed {
        Observed { clock: self.clock.clone(), metrics: self.metrics.clone() }
    }

    /// A name of this data directory; `None` on a storage that is not replicated.
    fn name_of(&self, directory: &DataDirectory) -> Option<String> {
        let identity = self.membership.consensus()?.identity();
        Some(format!("{}.{}", directory.node, hex::encode(identity.incarnation)))
    }

    /// The stored seal configuration; `None` when the server is not initialised.
    pub(crate) async fn seal_config(&self) -> Result<Option<SealConfig>> {
        SealConfig::load(&*self.backend).await
    }

    /// Writes the records that the leader writes before it serves, and rotates the keyring if that is due.
    pub(crate) async fn take_over(&self, barrier: &Arc<Barrier>) -> Result<()> {
        restored::complete(&*self.backend, barrier, self.clock.now()).await?;
        members::rotate_when_due(barrier, self.clock.now()).await?;
        let directory = self.node_directory();
        take_over(barrier, &self.settings, &self.engines, directory.as_ref(), self.clock.now()).await
    }

    /// The data directory of this node; `None` if it cannot be distinguished from a copy.
    pub(crate) fn node_directory(&self) -> Option<NodeDirectory> {
        let mut directory = self.settings.data_directory.clone()?;
        let (as_member, is_lone) = (self.name_of(&directory), self.membership.is_alone());
        if let Some(member) = as_member.as_ref().filter(|_| !is_lone) {
            directory.node = member.clone();
        }
        Some(NodeDirectory { directory, as_member, is_lone })
    }

    /// Opens the audit devices of the configuration.
    pub(crate) fn open_devices(&self) -> Result<Vec<OpenedDevice>> {
        Ok(audit::target::open_all(&self.settings.audit, &AllowedTargets::declared(&self.settings.own_files))?)
    }

    /// Opens an initialised storage.
    pub(crate) async fn open_barrier(&self, backend: Arc<dyn Backend>, root: &Key256) -> Result<Arc<Barrier>> {
        Barrier::open(backend, root).await.map_err(|error| match error {
            BarrierError::Storage(error) => Error::from(error),
            other => Error::internal(other),
        })
    }
}
