//! `sys/seal-status`: whether the server is sealed, and the shares of the unseal key or of the recovery key.

use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::sealed::SealedResponse;
use keepfast_framework::{Result, Routes};
use schemars::JsonSchema;
use serde::Serialize;

use super::System;
use crate::cluster::join::joiner::known_seal;
use crate::lifecycle::Lifecycle;
use crate::seal::access::sealed_reason;
use crate::seal::record::SHAMIR;
use crate::seal::{SealConfig, SealShape};
use crate::unseal::migrate;
use crate::version_history;

const HELP: Help = Help { synopsis: "Returns the seal status of the server.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("seal-status", HELP).unauthenticated().read_sealed(read).node_wide();
}

/// The state of the seal.
#[derive(Serialize, JsonSchema)]
pub(super) struct SealStatus {
    #[serde(rename = "type")]
    kind: String,
    initialized: bool,
    sealed: bool,
    t: u8,
    n: u8,
    progress: usize,
    nonce: String,
    recovery_seal: bool,
    /// Only there with a seal whose key is outside of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_seal_type: Option<&'static str>,
    version: String,
    commit_date: &'static str,
    migration: bool,
    /// Only there with seals in the configuration. Why the server is sealed: `uninitialized`, `shares`, `manual`, `migration`, `unsealing`, or why its seals fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed_reason: Option<&'static str>,
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
        let SealShape { shares: n, threshold: t } =
            config.as_ref().map_or(SealShape { shares: 0, threshold: 0 }, SealConfig::shape);
        let seals = &server.seals;
        let migration = config.as_ref().filter(|_| sealed).and_then(|config| migrate::pending(server, config));
        let kind = match (&migration, &config) {
            (Some(migration), _) => migration.target().to_owned(),
            (None, Some(config)) => config.kind().to_owned(),
            (None, None) => seals.enabled().next().map_or(SHAMIR, |access| access.kind()).to_owned(),
        };
        let initialized = config.is_some();
        let recovery_seal = kind != SHAMIR;
        let has_reason = sealed && !seals.all().is_empty();
        let sealed_reason = has_reason.then(|| match &migration {
            Some(migration) if migration.needs_quorum() => "migration",
            _ => sealed_reason(seals, config.as_ref()),
        });
        let (cluster_name, cluster_id) = config.filter(|_| !sealed).map(|c| (c.cluster_name, c.cluster_id)).unzip();
        SealStatus {
            kind,
            initialized,
            sealed,
            t,
            n,
            progress: unsealing.progress(),
            nonce: unsealing.nonce().to_owned(),
            recovery_seal,
            recovery_seal_type: recovery_seal.then_some(SHAMIR),
            version: server.parts.settings.version.clone(),
            commit_date: version_history::RELEASED,
            migration: migration.is_some(),
            sealed_reason,
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
