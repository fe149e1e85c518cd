//! Migration between seals, and between seals and shares: a quorum of the shares authorizes it, one commit does it.

use std::sync::Arc;

use keepfast_crypto::locked::Key256;
use keepfast_crypto::random;
use keepfast_framework::{Error, Result, Status};
use keepfast_storage::SealChange;

use crate::lifecycle::Lifecycle;
use crate::seal::access::{SealAccess, Seals};
use crate::seal::current::stored;
use crate::seal::record::{KnownKeys, SHAMIR, SealConfig, WayIn};
use crate::seal::slots::{self, Change, Changed, Migration, NewSlot, apply};
use crate::seal::wrapped_slot::OpenedSlot;

/// A migration that the configuration requests.
pub(crate) struct PendingMigration {
    /// The seals that are to unseal; none: the shares are.
    to: Vec<Arc<SealAccess>>,
    /// Whether this is a member of a cluster, whose leader migrates: see `rolling.rs`.
    pub(crate) is_rolling: bool,
}

impl PendingMigration {
    /// The type of the seal that is to unseal.
    pub(crate) fn target(&self) -> &'static str {
        self.to.first().map_or(SHAMIR, |access| access.kind())
    }

    /// Whether only a quorum that authorizes it unseals. A member unseals by the seals of the record meanwhile, unless
    /// shares are to take over: that somebody has them must be proved.
    pub(crate) fn needs_quorum(&self) -> bool {
        !self.is_rolling || self.to.is_empty()
    }
}

/// The migration that is pending on this sealed server; `None` when configuration and record agree. A node that joins a
/// cluster unseals by what the record has.
pub(crate) fn pending(server: &Lifecycle, config: &SealConfig) -> Option<PendingMigration> {
    if server.administration.joining.seal_config().is_some() {
        return None;
    }
    let to = requested(config, &server.seals)?;
    Some(PendingMigration { to, is_rolling: server.parts.membership.with_others().is_some() })
}

/// The seals to which the configuration requests to migrate this record. As on Vault: seals appear and the record has none; all
/// seals are disabled; or those of the record are disabled and others appear.
fn requested(config: &SealConfig, seals: &Seals) -> Option<Vec<Arc<SealAccess>>> {
    let enabled: Vec<Arc<SealAccess>> = seals.enabled().collect();
    let is_enrolled = |access: &Arc<SealAccess>| {
        config.slot_named(&access.configured.name).is_some_and(|slot| slot.kind == access.kind())
    };
    let leaves = seals.all().iter().any(|access| access.configured.disabled && is_enrolled(access));
    let is_requested = match (config.has_seals(), enabled.is_empty()) {
        (false, is_empty) => !is_empty,
        (true, true) => leaves,
        (true, false) => leaves && !enabled.iter().any(is_enrolled),
    };
    is_requested.then_some(enabled)
}

/// Migrates a sealed server and unseals it. `quorum` is the key of a quorum of the shares.
///
/// # Errors
/// 503 when neither the shares nor a seal of the record opens the root key, or no new seal works; nothing is changed then.
pub(crate) async fn complete(server: &Lifecycle, quorum: Key256) -> Result<bool> {
    let (from, config) = stored(&*server.parts.backend).await?;
    let Some(migration) = pending(server, &config) else { return Err(none()) };
    let kind = migration.target();
    let (root, opened) = open_root(server, &config, &quorum).await?;
    let v1 = (config.version == 1).then(|| quorum.clone());
    let known = KnownKeys { v1, opened, ..KnownKeys::default() };
    let to = new_slots(server, &migration.to).await?;
    let next_root = random::key();
    let forbids_break_glass = server.parts.settings.disable_break_glass;
    let change = Migration { to, quorum, forbids_break_glass, root: next_root.clone() };
    let Changed { config: next, opened, .. } = apply(&config, Change::Migrate(change), &root, &known)?;
    let opens = KnownKeys { slots: slots::slot_keys(&next, &next_root, &KnownKeys::default()), v1: None, opened };
    let barrier = server.parts.open_barrier(server.parts.backend.clone(), &root).await?;
    barrier.rewrap_root(&next_root, Some(SealChange { from, to: next.to_bytes()?, with: None })).await?;
    barrier.close();
    tracing::info!(seal = kind, "the seal migration is complete");
    server.unseal_by(WayIn::Known(opens)).await
}

/// The error for a server without a migration.
pub(crate) fn none() -> Error {
    Error::invalid("can't perform a seal migration, no migration seal found")
}

/// The root key and the keys of the slot that has it: of the shares if they open it, otherwise of a seal of the record.
async fn open_root(server: &Lifecycle, config: &SealConfig, quorum: &Key256) -> Result<(Key256, Vec<OpenedSlot>)> {
    let way = WayIn::Shares(quorum.clone());
    if let Some(root) = config.open(&way)? {
        return Ok((root, config.opened(&way)));
    }
    let clock = &*server.parts.clock;
    for slot in config.seal_slots() {
        let Some(access) = server.seals.of_slot(slot) else { continue };
        match access.unwrap(slot, clock).await {
            Ok(kek) => {
                let way = WayIn::Slot(slot.id, kek);
                if let Some(root) = config.open(&way)? {
                    return Ok((root, config.opened(&way)));
                }
            }
            Err(error) => access.failed(&error, clock.now()),
        }
    }
    Err(Error::new(Status::UNAVAILABLE, "no seal of the storage opens the root key; nothing was changed"))
}

/// Slots for the seals that work, of which there is at least one.
async fn new_slots(server: &Lifecycle, seals: &[Arc<SealAccess>]) -> Result<Vec<NewSlot>> {
    let (slots, failures) = server.seals.prove_all(&*server.parts.clock, seals).await;
    if slots.is_empty() && !seals.is_empty() {
        return Err(Error::new(Status::UNAVAILABLE, format!("no seal works; nothing was changed: {failures}")));
    }
    Ok(slots)
}
