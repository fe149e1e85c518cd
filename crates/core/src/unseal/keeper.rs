//! Checks the seals of an unsealed server in the background, and keeps their slots current: on the leader, a seal without a
//! slot gets one, and a slot gets a new KEK when its seal has rotated its key or the root key has changed. No request waits
//! for it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use keepfast_crypto::{compare, random};
use keepfast_framework::seal::{SealError, SealErrorClass};
use keepfast_framework::{Clock, Error, Result, Status};
use tokio::task::JoinSet;

use super::opener::jittered;
use crate::seal::access::{SealAccess, Seals};
use crate::seal::current::has_others;
use crate::seal::planted::planted;
use crate::seal::proven::ProvenKek;
use crate::seal::record::{BreakGlass, SealConfig, Slot, WayIn, slot_key};
use crate::seal::rolling::{Goal, open_slots};
use crate::seal::slots::Change;
use crate::unsealed::Unsealed;

/// The interval in which a node looks whether the migration that a quorum has authorized is complete.
const AUTHORIZATION_CHECK: Duration = Duration::from_secs(60);
/// The pause between the unseal and the first check.
const FIRST: Duration = Duration::from_secs(1);
/// The time in which the seals open their slots for the leader, which waits two seconds.
const CHECKED_WITHIN: Duration = Duration::from_millis(1500);
/// The age from which an earlier call is no evidence. The leader requests the bits again within 30 seconds.
const EVIDENCE: Duration = Duration::from_secs(60);

/// Checks the seals; the tasks stop when this is dropped.
pub(crate) struct Keeper(tokio::task::JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether this node leads, and so writes.
pub(crate) type Leads = Arc<dyn Fn() -> bool + Send + Sync>;

impl Keeper {
    /// Starts a task for each seal, and others when the seals of the configuration are replaced.
    pub(crate) fn start(seals: &Arc<Seals>, unsealed: &Arc<Unsealed>, leads: &Leads) -> Self {
        Keeper(tokio::spawn(run_all(seals.clone(), Arc::downgrade(unsealed), leads.clone(), unsealed.clock.clone())))
    }
}

async fn run_all(seals: Arc<Seals>, unsealed: Weak<Unsealed>, leads: Leads, clock: Arc<dyn Clock>) {
    let mut replacements = seals.replaced.subscribe();
    loop {
        let has_seals = !seals.all().is_empty();
        // They stop with the set.
        let mut tasks = JoinSet::new();
        for access in &*seals.all() {
            tasks.spawn(run(unsealed.clone(), access.clone(), leads.clone(), clock.clone()));
        }
        loop {
            tokio::select! {
                replaced = replacements.changed() => match replaced {
                    Ok(()) => break,
                    Err(_) => return,
                },
                () = clock.sleep_until(clock.now().after(AUTHORIZATION_CHECK)), if has_seals || seals.rolling.is_authorized() => {
                    let Some(unsealed) = unsealed.upgrade() else { return };
                    forget_quorum(&seals, &unsealed).await;
                }
            }
        }
    }
}

/// Wipes the key of a quorum that has authorized a migration, once it is complete: another node may have led.
async fn forget_quorum(seals: &Seals, unsealed: &Unsealed) {
    if !seals.rolling.is_authorized() {
        return;
    }
    let config = unsealed.current_seal.seal_config().await;
    if config.is_ok_and(|config| Goal::of(&config, seals, unsealed.settings.disable_break_glass).is_none()) {
        seals.rolling.forget();
    }
}

async fn run(unsealed: Weak<Unsealed>, access: Arc<SealAccess>, leads: Leads, clock: Arc<dyn Clock>) {
    let timing = access.configured.timing;
    let mut pause = Some(FIRST);
    loop {
        tokio::select! {
            () = access.check.notified() => {}
            () = clock.sleep_until(clock.now().after(pause.unwrap_or_default())), if pause.is_some() => {}
        }
        let Some(unsealed) = unsealed.upgrade() else { return };
        let checked = check(&unsealed, &access, leads()).await;
        if let Err(error) = &checked {
            let cause = error.cause().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(seal = access.configured.name, %error, cause, "the slot of the seal is not checked");
        }
        let is_healthy = checked.is_ok() && access.health().failure.is_none();
        let interval = if is_healthy { timing.health_check_interval } else { timing.health_check_interval_unhealthy };
        let interval = jittered(interval, u32::from_le_bytes(random::bytes()));
        pause = timing.health_check_enabled.then(|| interval.max(FIRST));
    }
}

/// Checks one seal, and on the leader heals its slot.
///
/// # Errors
/// Those of the storage; a failure of the seal is in its health.
pub(crate) async fn check(unsealed: &Unsealed, access: &SealAccess, leads: bool) -> Result<()> {
    let config = unsealed.current_seal.seal_config().await?;
    if !config.has_seals() {
        return Ok(());
    }
    let configured = &access.configured;
    match config.slot_named(&configured.name) {
        Some(slot) => {
            access.counts.set_lag(config.generation.saturating_sub(slot.kek_generation));
            let is_opened = heal(unsealed, access, (&config, slot), leads).await?;
            // Not before a seal has opened its slot: nothing else opens the storage then.
            // In a cluster, not before every member can do without the shares: see `rolling.rs`.
            let forbids = unsealed.settings.disable_break_glass && !has_others(&unsealed.current_seal);
            if is_opened && leads && forbids {
                turn_off_break_glass(unsealed, slot.id, BreakGlass::Forbidden).await?;
                // The root key may be another one, for which the slot gets another KEK.
                access.check.notify_one();
            }
            Ok(())
        }
        None if leads && !configured.disabled && !configured.enroll_manually => {
            // The failure is in the health of the seal.
            let _ = enroll(unsealed, access).await?;
            Ok(())
        }
        None => Ok(()),
    }
}

/// Recovery keys do not unseal any more. `opened` is the slot that its seal has just opened. Does nothing if that is so
/// already.
///
/// # Errors
/// 503 when the slot was removed meanwhile; see [`CurrentSeal::change`](crate::seal::CurrentSeal::change).
pub(crate) async fn turn_off_break_glass(unsealed: &Unsealed, opened: u32, to: BreakGlass) -> Result<()> {
    let change = Change::BreakGlass { to, quorum: None, root: random::key() };
    let is_due = |config: &SealConfig| match config.break_glass == to {
        true => Ok(false),
        false => config.slot(opened).map(|_| true).ok_or_else(none_opens),
    };
    if unsealed.current_seal.change_if(&unsealed.barrier, change, is_due).await? {
        tracing::info!("recovery keys do not unseal any more");
    }
    Ok(())
}

/// The error of a request after which only seals would open the root key, and none does.
pub(crate) fn none_opens() -> Error {
    Error::new(Status::UNAVAILABLE, "no seal opens its slot now")
}

/// The id of a slot that its seal opens now. The slot of the seal `except` does not count.
pub(crate) async fn opened_slot(
    seals: &Seals,
    config: &SealConfig,
    except: Option<&str>,
    clock: &dyn Clock,
) -> Option<u32> {
    let slots = config.seal_slots().filter(|slot| except != Some(slot.name.as_str()));
    let calls = slots.filter_map(|slot| Some(opens(config, slot, seals.of_slot(slot)?, clock)));
    let mut calls: FuturesUnordered<_> = calls.collect();
    while let Some(opened) = calls.next().await {
        if opened.is_some() {
            return opened;
        }
    }
    None
}

/// The bits of this member for the leader, which may remove a slot on this evidence: its enabled seals open their slots now.
/// A seal that takes longer counts by its last call within [`EVIDENCE`].
pub(crate) async fn checked_slots(seals: &Seals, config: &SealConfig, clock: &dyn Clock) -> u64 {
    let calls = config.seal_slots().filter_map(|slot| {
        let access = seals.of_slot(slot).filter(|access| !access.configured.disabled)?;
        Some(opens(config, slot, access, clock))
    });
    tokio::select! {
        biased;
        _ = join_all(calls) => {}
        () = clock.sleep_until(clock.now().after(CHECKED_WITHIN)) => {}
    }
    let now = clock.now();
    open_slots(seals, config, &(now.before(EVIDENCE)..=now))
}

/// The id of the slot, if its seal opens it.
async fn opens(config: &SealConfig, slot: &Slot, access: Arc<SealAccess>, clock: &dyn Clock) -> Option<u32> {
    let opened = access.unwrap(slot, clock).await.and_then(|kek| match config.open(&WayIn::Slot(slot.id, kek)) {
        Ok(Some(_)) => Ok(slot.id),
        _ => Err(SealError::new(SealErrorClass::WrongKey, "the key does not open the root key")),
    });
    match &opened {
        Ok(_) => access.has_opened(slot, clock.now()),
        Err(error) => access.failed(error, clock.now()),
    }
    opened.ok()
}

/// Gives a seal a slot. Returns the failure of the seal, if it fails.
///
/// # Errors
/// See [`CurrentSeal::change`](crate::seal::CurrentSeal::change).
pub(crate) async fn enroll(unsealed: &Unsealed, access: &SealAccess) -> Result<std::result::Result<(), SealError>> {
    let clock = &*unsealed.clock;
    let kek = match access.prove(clock).await {
        Ok(kek) => kek,
        Err(error) => {
            access.failed(&error, clock.now());
            return Ok(Err(error));
        }
    };
    access.succeeded(clock.now());
    let (slot, current) = (access.new_slot(kek), &unsealed.current_seal);
    let change = if has_others(current) { Change::EnrollBesideShares(slot) } else { Change::Enroll(slot) };
    current.change(&unsealed.barrier, change).await?;
    // The first slot of a seal may be the one without which `disable_break_glass` could not apply.
    access.check.notify_one();
    tracing::info!(seal = access.configured.name, kind = access.kind(), "the seal is enrolled: it unseals from now on");
    Ok(Ok(()))
}

/// The error of a request that needs a seal which fails.
pub(crate) fn unusable(access: &SealAccess, error: &SealError) -> Error {
    let text = format!("the seal {:?} fails: {}", access.configured.name, error.class.name());
    Error::new(Status::UNAVAILABLE, text)
}

/// Opens the stored slot, and on the leader renews a KEK that is not under the seal's current key, or older than the root
/// key. Returns whether the slot opens.
async fn heal(
    unsealed: &Unsealed,
    access: &SealAccess,
    (config, slot): (&SealConfig, &Slot),
    leads: bool,
) -> Result<bool> {
    let clock = &*unsealed.clock;
    let checked = tokio::select! {
        biased;
        checked = next_kek(unsealed, access, (config, slot), leads, clock) => checked,
        () = clock.sleep_until(clock.now().after(access.configured.timing.health_check_timeout)) => {
            Err(SealError::new(SealErrorClass::Unreachable, "the check took too long"))
        }
    };
    let renewed = match checked {
        Ok(renewed) => renewed,
        Err(error) => {
            access.failed(&error, clock.now());
            return Ok(false);
        }
    };
    access.has_opened(slot, clock.now());
    if let Some(kek) = renewed {
        let (seal, key) = (&access.configured.name, kek.key_id().to_owned());
        let change = Change::NewKek(seal.clone(), kek);
        unsealed.current_seal.change(&unsealed.barrier, change).await?;
        access.counts.renewals.add();
        access.counts.set_lag(0);
        tracing::info!(seal, key, "the slot of the seal has a new key");
    }
    Ok(true)
}

/// Checks that the stored slot opens; the KEK that replaces its KEK, if that is due.
async fn next_kek(
    unsealed: &Unsealed,
    access: &SealAccess,
    (config, slot): (&SealConfig, &Slot),
    leads: bool,
    clock: &dyn Clock,
) -> std::result::Result<Option<ProvenKek>, SealError> {
    if slot.kind != access.kind() {
        return Err(SealError::new(SealErrorClass::Misconfigured, "the slot of this name is of another type"));
    }
    let kek = access.unwrap(slot, clock).await?;
    // A slot that was replaced meanwhile is checked the next time.
    if let Some(known) = unsealed.current_seal.knows(slot.id)
        && !compare::equal(slot_key(&kek).expose(), known.expose())
        && !planted!(OtherKeyHealthy)
        && unsealed.current_seal.seal_config().await.is_ok_and(|current| current.slot(slot.id) == Some(slot))
    {
        return Err(SealError::new(SealErrorClass::WrongKey, "the seal unwraps another key than that of the slot"));
    }
    unsealed.current_seal.learn(slot.id, &kek);
    let may_write = leads || planted!(StandbyHeals);
    if !may_write || access.configured.disabled {
        return Ok(None);
    }
    let stored = slot.kek.as_ref().map(|kek| kek.key_id.as_str());
    // With another KEK, a slot whose wrap keys do not open gets them again.
    let known = unsealed.current_seal.knows(slot.id);
    let is_own = known.is_some_and(|known| compare::equal(slot_key(&kek).expose(), known.expose()));
    let is_damaged = is_own && config.wrap_keys(&WayIn::Slot(slot.id, kek)).is_none();
    let is_old = is_damaged || slot.kek_generation < config.generation;
    let current = access.current_key(clock).await?;
    if !is_old && current.as_deref().is_some_and(|current| Some(current) == stored) {
        return Ok(None);
    }
    let kek = access.prove(clock).await?;
    // A seal that cannot tell its current key: only wrapping shows it.
    let is_due = is_old || Some(kek.key_id()) != stored;
    Ok(is_due.then_some(kek))
}
