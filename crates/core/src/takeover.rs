//! The writes of the leader before it serves: all records that the opening of services and the handling of requests
//! need.
//!
//! At init it runs on the storage that is prepared in memory. At an unseal it adds the records that an older version or
//! an older configuration did not write. It uses only storage, and runs before the services are opened, which then only
//! read: `Unsealed::open` gets a [`keepfast_storage::ReadTx`].

use std::sync::Arc;

use keepfast_framework::engine::Registry;
use keepfast_framework::{Result, Timestamp};
use keepfast_storage::{Barrier, Tx};

use crate::audit::make_salts;
use crate::identity::convert::convert_entities;
use crate::layout::{AUDIT_STORAGE, SYSTEM_STORAGE, TOKEN_STORAGE};
use crate::lease::quarantine::{self, NodeDirectory};
use crate::mount::Mounts;
use crate::namespace::NamespaceId;
use crate::policy::store::Policies;
use crate::settings::Settings;
use crate::token::TokenSecrets;
use crate::version_history;

/// Writes missing and changed records in one transaction, then converts entities of earlier versions in steps; commits
/// nothing when nothing is missing.
pub(crate) async fn take_over(
    barrier: &Arc<Barrier>,
    settings: &Settings,
    engines: &Registry,
    directory: Option<&NodeDirectory>,
    now: Timestamp,
) -> Result<()> {
    let is_quarantined = barrier
        .transact(|mut tx| async move {
            bootstrap(barrier, &mut tx, (settings, engines), now).await?;
            let system = barrier.view(SYSTEM_STORAGE);
            version_history::note(&mut tx, &system, &settings.version, now).await?;
            let tokens = barrier.view(TOKEN_STORAGE);
            let is_quarantined = quarantine::check_data_directory(&mut tx, &tokens, directory, now).await?;
            Ok::<_, keepfast_framework::Error>((tx, is_quarantined))
        })
        .await?;
    convert_entities(barrier).await?;
    if is_quarantined {
        tracing::warn!(
            "leases are under quarantine until an operator ends it: the data directory was restored, copied or moved, or an \
             operator began the quarantine; see sys/leases/quarantine"
        );
    }
    Ok(())
}

/// Writes the records that every storage has: mounts, policies, secrets, and a salt for each declared audit device.
async fn bootstrap(
    barrier: &Arc<Barrier>,
    tx: &mut Tx,
    (settings, engines): (&Settings, &Registry),
    now: Timestamp,
) -> Result<()> {
    let system = barrier.view(SYSTEM_STORAGE);
    Mounts::write_built_in(tx, &system, engines, &NamespaceId::root()).await?;
    Policies::write_built_in(tx, &system, now).await?;
    TokenSecrets::make(tx, &barrier.view(TOKEN_STORAGE)).await?;
    make_salts(tx, &barrier.view(AUDIT_STORAGE), &settings.audit).await
}
