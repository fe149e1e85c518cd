//! The migration of the seals of a cluster, of which no member may lose its way to the root key: what the configuration of
//! the leader requests, and the next step. New seals get their slots in one commit. Retiring ones lose theirs in a later
//! one, when every member can do without them.

use std::ops::RangeInclusive;
use std::sync::Arc;

use keepfast_crypto::locked::Key256;
use keepfast_framework::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::access::{SealAccess, Seals};
use super::record::{BreakGlass, SealConfig, Slot};

/// The bit of a member whose configuration has no enabled seal: shares unseal it. Bit `n` is that of the slot at `n`, which
/// the member opens by its seal.
const BY_SHARES: u64 = 1 << 63;
/// The place of the bit of the first slot whose seal is enabled in the configuration of the member, which would give the seal
/// a slot again.
const ENABLED: usize = 32;

/// What a process knows of the migration.
#[derive(Default)]
pub(crate) struct Rolling {
    /// Begins the next step.
    pub(crate) wake: Notify,
    /// The key of a quorum of the shares, which has authorized the migration.
    quorum: Mutex<Option<Key256>>,
    /// What the leader waits for.
    awaited: Mutex<Vec<String>>,
}

impl Rolling {
    /// A quorum of the shares authorizes the migration that the configuration requests.
    pub(crate) fn authorize(&self, quorum: Key256) {
        *self.quorum.lock() = Some(quorum);
        self.wake.notify_one();
    }

    /// Wipes the key of the quorum.
    pub(crate) fn forget(&self) {
        *self.quorum.lock() = None;
    }

    /// Whether a quorum has authorized a migration.
    pub(crate) fn is_authorized(&self) -> bool {
        self.quorum.lock().is_some()
    }

    /// The key of the quorum, if it is that of the shares of this record.
    pub(crate) fn quorum(&self, config: &SealConfig) -> Option<Key256> {
        self.quorum.lock().clone().filter(|key| config.is_share_key(key))
    }

    /// What the leader waits for.
    pub(crate) fn awaited(&self) -> Vec<String> {
        self.awaited.lock().clone()
    }

    /// Sets what the leader waits for. Returns whether it is another than before.
    pub(crate) fn set_awaited(&self, awaited: Vec<String>) -> bool {
        let mut current = self.awaited.lock();
        let is_new = *current != awaited;
        *current = awaited;
        is_new
    }
}

/// What the configuration of the leader requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// A seal takes over from shares.
    FirstSeal,
    /// Shares take over from all seals.
    Shares,
    /// Seals take over from those that are disabled.
    Retire,
    /// Recovery shares do not unseal any more (`disable_break_glass`).
    ForbidBreakGlass,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Gives the first seal that works a slot.
    Enroll,
    /// Gives the shares a slot.
    LetSharesUnseal,
    /// Removes the slot of this seal.
    Remove(String),
    /// Removes the slot of the shares.
    ForbidBreakGlass,
    /// Waits.
    Await(Vec<String>),
}

/// What a member has said of the slots of the record.
pub(crate) struct Report {
    pub(crate) member: String,
    /// Its bits, or why it has said nothing.
    pub(crate) slots: Result<u64, String>,
}

impl Goal {
    /// What the configuration requests for this record; `None` when they agree. Seals that are not configured here stay,
    /// unless shares take over.
    pub(crate) fn of(config: &SealConfig, seals: &Seals, forbids_break_glass: bool) -> Option<Self> {
        let has_enabled = seals.enabled().next().is_some();
        if !config.has_seals() {
            return (has_enabled && config.shares.is_some()).then_some(Goal::FirstSeal);
        }
        match (has_enabled, config.seal_slots().any(|slot| is_retiring(seals, slot))) {
            (false, true) => Some(Goal::Shares),
            (true, true) => Some(Goal::Retire),
            (true, false) if forbids_break_glass && config.break_glass != BreakGlass::Forbidden => {
                Some(Goal::ForbidBreakGlass)
            }
            _ => None,
        }
    }

    /// Its name in `sys/seals`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Goal::FirstSeal => "seal",
            Goal::Shares => "shares",
            Goal::Retire => "retire",
            Goal::ForbidBreakGlass => "forbid_break_glass",
        }
    }

    /// The step that no member can prevent, or what is awaited before the members count.
    pub(crate) fn prepare(self, config: &SealConfig, seals: &Seals, has_quorum: bool) -> Option<Step> {
        let quorum = "a quorum of the shares: \"operator unseal -migrate\" at the member that is to lead";
        match self {
            Goal::FirstSeal if has_quorum => Some(Step::Enroll),
            Goal::FirstSeal => Some(Step::Await(vec![format!("{quorum}, or \"operator seals add\"")])),
            Goal::Shares if !has_quorum => Some(Step::Await(vec![quorum.to_owned()])),
            Goal::Shares if !config.opens_by_shares() => Some(Step::LetSharesUnseal),
            Goal::Shares => None,
            Goal::Retire | Goal::ForbidBreakGlass => {
                let enabled: Vec<Arc<SealAccess>> = seals.enabled().collect();
                let has_slot = |access: &Arc<SealAccess>| config.slot_named(&access.configured.name).is_some();
                let is_missing = !enabled.iter().any(has_slot);
                is_missing.then(|| Step::Await(enabled.iter().map(|access| without_slot(access)).collect()))
            }
        }
    }

    /// The step that needs all members, or those that are awaited.
    pub(crate) fn complete(self, config: &SealConfig, seals: &Seals, reports: &[Report]) -> Step {
        let stays: Vec<(usize, &Slot)> = staying(config, seals);
        let all = config.slots.iter().enumerate();
        let retiring: Vec<(usize, &Slot)> = all.filter(|(_, slot)| is_retiring(seals, slot)).collect();
        let names = || stays.iter().map(|(_, slot)| slot.name.as_str()).collect::<Vec<_>>().join(", ");
        let awaited = reports.iter().filter_map(|report| {
            let member = &report.member;
            match (&report.slots, self) {
                (Err(reason), _) => Some(format!("member {member:?}: {reason}")),
                (Ok(slots), Goal::Shares) => (slots & BY_SHARES == 0)
                    .then(|| format!("member {member:?}: its configuration has an enabled seal")),
                (Ok(slots), _) if stays.iter().all(|(at, _)| slots & bit(*at) == 0) => {
                    Some(format!("member {member:?}: does not unseal by: {}", names()))
                }
                (Ok(slots), _) => {
                    let keeps = retiring.iter().find(|(at, _)| slots & bit(ENABLED + at) != 0);
                    keeps.map(|(_, slot)| format!("member {member:?}: its configuration has {:?} enabled", slot.name))
                }
            }
        });
        let awaited: Vec<String> = awaited.collect();
        if !awaited.is_empty() {
            return Step::Await(awaited);
        }
        let removed = config.seal_slots().find(|slot| self == Goal::Shares || is_retiring(seals, slot));
        match (self, removed) {
            (Goal::ForbidBreakGlass, _) => Step::ForbidBreakGlass,
            (_, Some(slot)) => Step::Remove(slot.name.clone()),
            (_, None) => Step::Await(Vec::new()),
        }
    }
}

/// The slots that stay when the retiring ones are removed, with their places.
fn staying<'a>(config: &'a SealConfig, seals: &Seals) -> Vec<(usize, &'a Slot)> {
    let is_staying = |slot: &Slot| slot.kek.is_some() && !is_retiring(seals, slot);
    config.slots.iter().enumerate().filter(|(_, slot)| is_staying(slot)).collect()
}

/// Whether the stanza of the slot has `disabled = "true"`.
fn is_retiring(seals: &Seals, slot: &Slot) -> bool {
    seals.of_slot(slot).is_some_and(|access| access.configured.disabled)
}

fn without_slot(access: &SealAccess) -> String {
    let name = &access.configured.name;
    match access.health().failure {
        _ if access.configured.enroll_manually => format!("\"operator seals add {name}\""),
        Some((class, _)) => format!("the seal {name:?}, which fails: {}", class.name()),
        None => format!("the seal {name:?}, which has no slot yet"),
    }
}

fn bit(at: usize) -> u64 {
    1_u64.checked_shl(u32::try_from(at).unwrap_or(u32::MAX)).unwrap_or(0)
}

/// The bits of this member, from what its seals have opened at one of these times. A slot of an enabled seal that they have
/// not opened then is checked soon.
pub(crate) fn open_slots(seals: &Seals, config: &SealConfig, within: &RangeInclusive<Timestamp>) -> u64 {
    let mut bits = if seals.enabled().next().is_none() { BY_SHARES } else { 0 };
    for (at, slot) in config.slots.iter().enumerate().filter(|(_, slot)| slot.kek.is_some()) {
        let Some(access) = seals.of_slot(slot) else { continue };
        if !access.configured.disabled {
            bits |= bit(ENABLED + at);
        }
        if access.opens(slot, within) {
            bits |= bit(at);
        } else if !access.configured.disabled {
            access.check.notify_one();
        }
    }
    bits
}

/// The id of a slot that stays, which a member with these bits opens.
pub(crate) fn opened_by(config: &SealConfig, seals: &Seals, slots: u64) -> Option<u32> {
    staying(config, seals).iter().find(|(at, _)| slots & bit(*at) != 0).map(|(_, slot)| slot.id)
}

#[cfg(test)]
#[path = "rolling_tests.rs"]
mod tests;
