//! Calls of the configured seals: one at a time for each seal, with a deadline, and with what is known of its health.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keepfast_crypto::locked::Key256;
use keepfast_framework::seal::{SealError, SealErrorClass, WrappedKey};
use keepfast_framework::{Clock, Timestamp};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use super::counts::{Operation, SealCounts};
use super::metered::Metered;
use super::planted::planted;
use super::proven::ProvenKek;
use super::record::{SealConfig, Slot, StoredKey};
use super::rolling::Rolling;
use super::set::{ConfiguredSeal, SealSet};
use super::slots::NewSlot;
use crate::metrics::Counter;

/// The interval in which a failure that lasts is logged.
const REMINDER: Duration = Duration::from_secs(600);

/// The configured seals of a process.
#[derive(Default)]
pub(crate) struct Seals {
    all: RwLock<Arc<[Arc<SealAccess>]>>,
    /// Notified when they were replaced.
    pub(crate) replaced: watch::Sender<()>,
    /// Set while the server stays sealed on request.
    is_manual: AtomicBool,
    /// Begins a round of the seals.
    pub(crate) wake: Notify,
    /// The rounds.
    pub(crate) rounds: Counter,
    /// The migration of a cluster.
    pub(crate) rolling: Rolling,
}

/// One configured seal.
pub(crate) struct SealAccess {
    pub(crate) configured: ConfiguredSeal,
    /// Held during a call.
    calls: tokio::sync::Mutex<()>,
    health: Mutex<SealHealth>,
    /// The slot that the seal has opened in its last call, with its KEK as it was then, and when.
    opened: Mutex<Option<(u32, StoredKey, Timestamp)>>,
    /// Begins a check.
    pub(crate) check: Notify,
    /// For the metrics.
    pub(crate) counts: Arc<SealCounts>,
}

/// What is known of a seal.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SealHealth {
    /// The last failure, and since when calls fail.
    pub(crate) failure: Option<(SealErrorClass, Timestamp)>,
    /// The last call that succeeded.
    pub(crate) success: Option<Timestamp>,
    /// When the failure was logged.
    logged: Option<Timestamp>,
}

impl Seals {
    /// The seals of this configuration.
    pub(crate) fn new(set: SealSet) -> Self {
        let seals = Seals::default();
        replace(&seals, set);
        seals
    }

    /// All, by priority.
    pub(crate) fn all(&self) -> Arc<[Arc<SealAccess>]> {
        self.all.read().clone()
    }

    /// Those that wrap keys.
    pub(crate) fn enabled(&self) -> impl Iterator<Item = Arc<SealAccess>> + use<> {
        let enabled: Vec<_> = self.all().iter().filter(|access| !access.configured.disabled).cloned().collect();
        enabled.into_iter()
    }

    /// The seal of this name.
    pub(crate) fn named(&self, name: &str) -> Option<Arc<SealAccess>> {
        self.all().iter().find(|access| access.configured.name == name).cloned()
    }

    /// The seal of a slot: its name and its type are the same.
    pub(crate) fn of_slot(&self, slot: &Slot) -> Option<Arc<SealAccess>> {
        self.named(&slot.name).filter(|access| access.kind() == slot.kind)
    }

    /// Whether the server stays sealed until a quorum of shares, or a restart.
    pub(crate) fn is_manual(&self) -> bool {
        self.is_manual.load(Ordering::Acquire)
    }

    /// Sets [`is_manual`](Self::is_manual).
    pub(crate) fn set_manual(&self, is_manual: bool) {
        self.is_manual.store(is_manual, Ordering::Release);
    }

    /// Begins a round of the seals now.
    pub(crate) fn begin_round(&self) {
        self.wake.notify_one();
    }

    /// Checks all slots now.
    pub(crate) fn check_slots(&self) {
        self.all().iter().for_each(|access| access.check.notify_one());
        self.rolling.wake.notify_one();
    }

    /// Creates slots for these seals; also returns a text with the names and the classes of those that fail.
    pub(crate) async fn prove_all(&self, clock: &dyn Clock, seals: &[Arc<SealAccess>]) -> (Vec<NewSlot>, String) {
        let proofs = futures_util::future::join_all(seals.iter().map(|access| access.prove(clock))).await;
        let (mut slots, mut failures) = (Vec::new(), Vec::new());
        for (access, proof) in seals.iter().zip(proofs) {
            match proof {
                Ok(kek) => {
                    access.succeeded(clock.now());
                    slots.push(access.new_slot(kek));
                }
                Err(error) => {
                    access.failed(&error, clock.now());
                    failures.push(format!("{} ({})", access.configured.name, error.class.name()));
                }
            }
        }
        (slots, failures.join(", "))
    }
}

/// Replaces the seals by those of another configuration. A seal whose name and type stay keeps its health and its counts.
pub(crate) fn replace(seals: &Seals, set: SealSet) {
    let old = seals.all();
    let access = |configured: ConfiguredSeal| {
        let is_same =
            |old: &&Arc<SealAccess>| old.configured.name == configured.name && old.kind() == configured.seal.kind();
        let old = old.iter().find(is_same);
        let health = old.map(|old| old.health()).unwrap_or_default();
        let counts = old.map(|old| old.counts.clone()).unwrap_or_default();
        let (calls, opened, check) = Default::default();
        Arc::new(SealAccess { configured, calls, health: Mutex::new(health), opened, check, counts })
    };
    *seals.all.write() = set.into_seals().into_iter().map(access).collect();
    seals.replaced.send_replace(());
}

/// Why a server with this record is sealed, for `sys/seal-status`.
pub(crate) fn sealed_reason(seals: &Seals, config: Option<&SealConfig>) -> &'static str {
    let Some(config) = config else { return "uninitialized" };
    if !config.has_seals() {
        return "shares";
    }
    if seals.is_manual() {
        return "manual";
    }
    let tried = config.seal_slots().filter_map(|slot| seals.of_slot(slot));
    let mut failures = tried.map(|access| access.health().failure.map(|(class, _)| class));
    match failures.next() {
        None => SealErrorClass::Misconfigured.name(),
        Some(first) => first.map_or("unsealing", SealErrorClass::name),
    }
}

impl SealAccess {
    /// The type of the seal.
    pub(crate) fn kind(&self) -> &'static str {
        self.configured.seal.kind()
    }

    /// A slot for it.
    pub(crate) fn new_slot(&self, kek: ProvenKek) -> NewSlot {
        let ConfiguredSeal { name, priority, .. } = &self.configured;
        NewSlot { name: name.clone(), kind: self.kind(), priority: *priority, kek }
    }

    /// What is known of it.
    pub(crate) fn health(&self) -> SealHealth {
        *self.health.lock()
    }

    /// Unwraps the KEK of a slot.
    pub(crate) async fn unwrap(&self, slot: &Slot, clock: &dyn Clock) -> Result<Key256, SealError> {
        let Some(wrapped) = slot.kek.as_ref().and_then(StoredKey::wrapped) else {
            return Err(SealError::new(SealErrorClass::WrongKey, "the stored key is damaged"));
        };
        self.unwrap_key(&wrapped, clock).await
    }

    async fn unwrap_key(&self, wrapped: &WrappedKey, clock: &dyn Clock) -> Result<Key256, SealError> {
        let within = self.configured.timing.timeout;
        self.within(Operation::Unwrap, within, clock, self.metered(clock).unwrap(wrapped)).await
    }

    /// The seal, whose calls are timed and whose failures are counted.
    fn metered<'a>(&'a self, clock: &'a dyn Clock) -> Metered<'a> {
        Metered { seal: &*self.configured.seal, counts: &self.counts, clock }
    }

    /// Creates a KEK that the seal has wrapped and unwrapped.
    pub(crate) async fn prove(&self, clock: &dyn Clock) -> Result<ProvenKek, SealError> {
        if self.configured.disabled && !planted!(DisabledSealWraps) {
            return Err(SealError::new(SealErrorClass::Misconfigured, "the seal is disabled"));
        }
        // Two calls.
        let within = self.configured.timing.timeout.saturating_mul(2);
        self.within(Operation::Wrap, within, clock, ProvenKek::by(&self.metered(clock))).await
    }

    /// The version of the key that wraps now, if the seal can tell it.
    pub(crate) async fn current_key(&self, clock: &dyn Clock) -> Result<Option<String>, SealError> {
        let within = self.configured.timing.timeout;
        self.within(Operation::CurrentKey, within, clock, self.metered(clock).current_key()).await
    }

    /// Checks that the KEK of a slot was wrapped under the configured key, where the seal can tell it.
    pub(crate) async fn check_key(&self, slot: &Slot, clock: &dyn Clock) -> Result<(), SealError> {
        let Some(stored) = &slot.kek else { return Ok(()) };
        let (within, metered) = (self.configured.timing.timeout, self.metered(clock));
        let called = metered.is_configured_key(&stored.key_id);
        match self.within(Operation::CurrentKey, within, clock, called).await? {
            true => Ok(()),
            false => {
                Err(SealError::new(SealErrorClass::WrongKey, "the slot is of another key than the configured one"))
            }
        }
    }

    /// Runs one call, after the one before it. Both waits are within the deadline.
    async fn within<T>(
        &self,
        operation: Operation,
        within: Duration,
        clock: &dyn Clock,
        call: impl Future<Output = Result<T, SealError>>,
    ) -> Result<T, SealError> {
        let called = async {
            let _one = self.calls.lock().await;
            call.await
        };
        tokio::select! {
            biased;
            result = called => result,
            () = clock.sleep_until(clock.now().after(within)) => {
                self.counts.failed(operation, SealErrorClass::Unreachable);
                Err(SealError::new(SealErrorClass::Unreachable, format!("no response within {} s", within.as_secs())))
            }
        }
    }

    /// Records that the seal has opened this slot.
    pub(crate) fn has_opened(&self, slot: &Slot, now: Timestamp) {
        *self.opened.lock() = slot.kek.clone().map(|kek| (slot.id, kek, now));
        self.succeeded(now);
    }

    /// Whether the seal has opened this slot, with the KEK that it has, in its last call, at one of these times. So the call
    /// was after the commit of the KEK.
    pub(crate) fn opens(&self, slot: &Slot, at: &RangeInclusive<Timestamp>) -> bool {
        let opened = self.opened.lock();
        let is_of = |(id, kek, opened): &(u32, StoredKey, Timestamp)| {
            *id == slot.id && Some(kek) == slot.kek.as_ref() && at.contains(opened)
        };
        opened.as_ref().is_some_and(is_of)
    }

    /// Records a call that succeeded.
    pub(crate) fn succeeded(&self, now: Timestamp) {
        let mut health = self.health.lock();
        if let Some((class, since)) = health.failure.take() {
            let seconds = now.since(since).as_secs();
            tracing::info!(seal = self.configured.name, was = class.name(), seconds, "the seal works again");
        }
        *health = SealHealth { failure: None, success: Some(now), logged: None };
    }

    /// Records a call that failed. The first failure and each other class are logged as errors, a failure that lasts
    /// every ten minutes.
    pub(crate) fn failed(&self, error: &SealError, now: Timestamp) {
        *self.opened.lock() = None;
        let mut health = self.health.lock();
        let (seal, class) = (&self.configured.name, error.class.name());
        let known = health.failure;
        let is_same = known.is_some_and(|(known, _)| known.name() == class);
        let is_due = health.logged.is_none_or(|logged| now.since(logged) >= REMINDER);
        match (is_same, is_due) {
            (false, _) => tracing::error!(seal, class, cause = error.cause, "the seal fails"),
            (true, true) => tracing::warn!(seal, class, cause = error.cause, "the seal still fails"),
            (true, false) => tracing::debug!(seal, class, cause = error.cause, "the seal still fails"),
        }
        if !is_same || is_due {
            health.logged = Some(now);
        }
        health.failure = Some((error.class, known.map_or(now, |(_, since)| since)));
    }
}
