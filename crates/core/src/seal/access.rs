//! Calls of the configured seals: one at a time for each seal, with a deadline, and with what is known of its health.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keepfast_crypto::locked::Key256;
use keepfast_framework::seal::{SealError, SealErrorClass, WrappedKey};
use keepfast_framework::{Clock, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::counts::SealCounts;
use super::planted::planted;
use super::proven::ProvenKek;
use super::record::{SealConfig, Slot, StoredKey};
use super::set::{ConfiguredSeal, SealSet};
use super::slots::NewSlot;

/// The interval in which a failure that lasts is logged.
const REMINDER: Duration = Duration::from_secs(600);

/// The configured seals of a process.
#[derive(Default)]
pub(crate) struct Seals {
    all: Vec<Arc<SealAccess>>,
    /// Set while the server stays sealed on request.
    is_manual: AtomicBool,
    /// Begins a round of the seals.
    pub(crate) wake: Notify,
}

/// One configured seal.
pub(crate) struct SealAccess {
    pub(crate) configured: ConfiguredSeal,
    /// Held during a call.
    calls: tokio::sync::Mutex<()>,
    health: Mutex<SealHealth>,
    /// Begins a check.
    pub(crate) check: Notify,
    /// For the metrics.
    pub(crate) counts: SealCounts,
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
        let access = |configured| {
            let (calls, health, check, counts) = Default::default();
            Arc::new(SealAccess { configured, calls, health, check, counts })
        };
        Seals { all: set.into_seals().into_iter().map(access).collect(), ..Seals::default() }
    }

    /// All, by priority.
    pub(crate) fn all(&self) -> &[Arc<SealAccess>] {
        &self.all
    }

    /// Those that wrap keys.
    pub(crate) fn enabled(&self) -> impl Iterator<Item = &Arc<SealAccess>> {
        self.all.iter().filter(|access| !access.configured.disabled)
    }

    /// The seal of this name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<SealAccess>> {
        self.all.iter().find(|access| access.configured.name == name)
    }

    /// The seal of a slot: its name and its type are the same.
    pub(crate) fn of_slot(&self, slot: &Slot) -> Option<&Arc<SealAccess>> {
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
        self.all.iter().for_each(|access| access.check.notify_one());
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

/// Checks that the KEK of a slot was wrapped under the configured key, in any version, where the seal can tell its key.
/// Services unwrap by the stored id, which may be that of another one's key.
pub(crate) async fn check_key(access: &SealAccess, slot: &Slot, clock: &dyn Clock) -> Result<(), SealError> {
    let kind = access.kind();
    // This type unwraps by the ids of its configuration only.
    if kind == "static" {
        return Ok(());
    }
    let current = access.current_key(clock).await?;
    let (Some(stored), Some(current)) = (&slot.kek, current) else { return Ok(()) };
    match without_version(kind, &stored.key_id) == without_version(kind, &current) {
        true => Ok(()),
        false => Err(SealError::new(SealErrorClass::WrongKey, "the slot is of another key than the configured one")),
    }
}

/// The part of the id of a key that all its versions have.
fn without_version<'a>(kind: &str, id: &'a str) -> &'a str {
    match kind {
        "azurekeyvault" | "ocikms" => id.rsplit_once('/').map_or(id, |(key, _)| key),
        _ => id,
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
        self.within(self.configured.timing.timeout, clock, self.configured.seal.unwrap(wrapped)).await
    }

    /// Creates a KEK that the seal has wrapped and unwrapped.
    pub(crate) async fn prove(&self, clock: &dyn Clock) -> Result<ProvenKek, SealError> {
        if self.configured.disabled && !planted!(DisabledSealWraps) {
            return Err(SealError::new(SealErrorClass::Misconfigured, "the seal is disabled"));
        }
        // Two calls.
        let within = self.configured.timing.timeout.saturating_mul(2);
        self.within(within, clock, ProvenKek::create(&*self.configured.seal)).await
    }

    /// The version of the key that wraps now, if the seal can tell it.
    pub(crate) async fn current_key(&self, clock: &dyn Clock) -> Result<Option<String>, SealError> {
        self.within(self.configured.timing.timeout, clock, self.configured.seal.current_key()).await
    }

    /// Runs one call, after the one before it. Both waits are within the deadline.
    async fn within<T>(
        &self,
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
                Err(SealError::new(SealErrorClass::Unreachable, format!("no response within {} s", within.as_secs())))
            }
        }
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
        self.counts.failed(error.class);
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
