//! `sys/seal-status`: whether the server is sealed, and the shares of the unseal key.

use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::sealed::SealedResponse;
use keepfast_framework::{Result, Routes};
use schemars::JsonSchema;
use serde::Serialize;

use super::System;
use crate::cluster::join::joiner::known_seal;
use crate::lifecycle::Lifecycle;
use crate::seal::SealConfig;
use crate::version_history;

const HELP: Help = Help { synopsis: "Returns the seal status of the server.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("seal-status", HELP).unauthenticated().read_sealed(read);
}

/// The state of the seal.
#[derive(Serialize, JsonSchema)]
pub(super) struct SealStatus {
    #[serde(rename = "type")]
    kind: &'static str,
    initialized: bool,
    sealed: bool,
    t: u8,
    n: u8,
    progress: usize,
    nonce: String,
    recovery_seal: bool,
    version: String,
    commit_date: &'static str,
    migration: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_id: Option<String>,
    storage_type: String,
    /// Only there while it lasts: `sys/leases/quarantine`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    lease_quarantine: bool,
}

impl SealStatus {
    /// The state with the stored seal configuration.
    pub(super) async fn load(server: &Lifecycle) -> Result<Self> {
        Ok(Self::of(server, known_seal(server).await?))
    }

    /// The state with this seal configuration.
    pub(super) fn of(server: &Lifecycle, config: Option<SealConfig>) -> Self {
        let unsealing = server.unsealing.lock();
        let sealed = server.is_sealed();
        let (t, n) = config.as_ref().map_or((0, 0), |c| (c.shape.threshold, c.shape.shares));
        let kind = config.as_ref().map_or(server.parts.settings.seal, |c| c.kind).name();
        let initialized = config.is_some();
        let (cluster_name, cluster_id) = config.filter(|_| !sealed).map(|c| (c.cluster_name, c.cluster_id)).unzip();
        SealStatus {
            kind,
            initialized,
            sealed,
            t,
            n,
            progress: unsealing.progress(),
            nonce: unsealing.nonce().to_owned(),
            recovery_seal: false,
            version: server.parts.settings.version.clone(),
            commit_date: version_history::RELEASED,
            migration: false,
            cluster_name,
            cluster_id,
            storage_type: server.parts.settings.storage_type.clone(),
            lease_quarantine: has_lease_quarantine(server),
        }
    }
}

/// Whether leases are under quarantine; false while sealed.
pub(super) fn has_lease_quarantine(server: &Lifecycle) -> bool {
    server.unsealed().is_some_and(|unsealed| unsealed.leases.store.is_quarantined())
}

async fn read(sys: &System, _: Nothing) -> Result<SealedResponse<SealStatus>> {
    Ok(SealedResponse::ok(SealStatus::load(&*sys.lifecycle()?).await?))
}
