//! Unseals by the seals of the configuration: tries them in rounds until one opens the root key.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use keepfast_crypto::locked::Key256;
use keepfast_crypto::random;
use keepfast_framework::Result;
use keepfast_framework::seal::{SealError, SealErrorClass};

use super::migrate;
use super::opener::{Action, Round, pause};
use crate::cluster::join::{joiner, retry};
use crate::lifecycle::{Lifecycle, unseal_by_seal};
use crate::seal::access::SealAccess;
use crate::seal::counts::Operation;
use crate::seal::planted::planted;
use crate::seal::record::{SealConfig, Slot, WayIn};

/// How long the records of a cluster may take before the next round.
const JOINED_WITHIN: Duration = Duration::from_secs(600);

/// The shortest time from one round to the next after a failure: a request without a token may begin one.
const SPACING: Duration = Duration::from_secs(1);

/// The result of a round.
pub(crate) enum RoundOutcome {
    /// There is nothing to unseal: the server is unsealed, uninitialised, under shares, or sealed on request.
    Idle,
    /// A seal has unsealed the server.
    Unsealed,
    /// No seal has; the classes of their failures.
    Failed(Vec<SealErrorClass>),
}

/// Starts to unseal, now and whenever the server has sealed itself or has other seals.
pub(crate) fn start(lifecycle: &Arc<Lifecycle>) {
    tokio::spawn(run(Arc::downgrade(lifecycle)));
}

async fn run(lifecycle: Weak<Lifecycle>) {
    let mut rounds = 0u32;
    loop {
        let Some(server) = lifecycle.upgrade() else { return };
        let (seals, clock) = (server.seals.clone(), server.parts.clock.clone());
        let began = clock.now();
        let pause = match round(&server).await {
            Ok(RoundOutcome::Idle | RoundOutcome::Unsealed) => None,
            Ok(RoundOutcome::Failed(failures)) => {
                rounds = rounds.saturating_add(1);
                Some(pause(rounds, &failures, u32::from_le_bytes(random::bytes())))
            }
            Err(error) => {
                let cause = error.cause().map(ToString::to_string).unwrap_or_default();
                tracing::error!(%error, cause, "the server is not unsealed");
                rounds = rounds.saturating_add(1);
                Some(self::pause(rounds, &[SealErrorClass::Unreachable], u32::from_le_bytes(random::bytes())))
            }
        };
        if pause.is_some() && server.administration.joining.seal_config().is_some() {
            // The leader that has responded may be that of another cluster.
            retry::start_configured(&server);
        }
        // The server may end while this task waits.
        drop(server);
        match pause {
            Some(pause) => {
                tracing::debug!(seconds = pause.as_secs(), "the seals are tried again");
                tokio::select! {
                    () = clock.sleep_until(clock.now().after(pause)) => {}
                    () = seals.wake.notified() => clock.sleep_until(began.after(SPACING)).await,
                }
            }
            None => {
                rounds = 0;
                seals.wake.notified().await;
            }
        }
    }
}

/// Tries the seals once, unless the server is sealed on request or waits for a quorum that authorizes a migration.
pub(crate) async fn round(server: &Arc<Lifecycle>) -> Result<RoundOutcome> {
    if server.seals.is_manual() || server.seals.all().is_empty() {
        return Ok(RoundOutcome::Idle);
    }
    try_seals(server, |config| migrate::pending(server, config).is_none_or(|pending| !pending.needs_quorum())).await
}

/// Tries the seals once, as a quorum permits it.
pub(crate) async fn round_now(server: &Arc<Lifecycle>) -> Result<RoundOutcome> {
    try_seals(server, |_| true).await
}

async fn try_seals(server: &Arc<Lifecycle>, may: impl FnOnce(&SealConfig) -> bool) -> Result<RoundOutcome> {
    if !server.is_sealed() {
        return Ok(RoundOutcome::Idle);
    }
    let stored = server.parts.seal_config().await?;
    let joins = stored.is_none();
    let Some(config) = stored.or_else(|| server.administration.joining.seal_config()) else {
        return Ok(RoundOutcome::Idle);
    };
    if !config.has_seals() || !(may(&config) || planted!(PendingMigrationIgnored)) {
        return Ok(RoundOutcome::Idle);
    }
    if joins && server.administration.joining.is_completing() {
        return Ok(RoundOutcome::Idle);
    }
    server.seals.rounds.add();
    let (way, by) = match kek(server, &config, joins).await {
        Ok(found) => found,
        Err(failures) => return Ok(RoundOutcome::Failed(failures)),
    };
    let unsealed = match joins {
        true => joiner::complete(server, way, JOINED_WITHIN).await?,
        false => match unseal_by_seal(server, &way).await? {
            Some(unsealed) => unsealed,
            None => return Ok(RoundOutcome::Idle),
        },
    };
    // The records of the cluster still arrive.
    if joins && unsealed && server.is_sealed() {
        return Ok(RoundOutcome::Idle);
    }
    if !unsealed {
        return Ok(RoundOutcome::Failed(vec![SealErrorClass::WrongKey]));
    }
    if let Some(access) = server.seals.named(&by) {
        access.counts.unseals.add();
    }
    tracing::info!(seal = by, "unsealed by a seal");
    warn_without_shares(&config);
    Ok(RoundOutcome::Unsealed)
}

/// Warns of a storage that nothing opens but its seals.
pub(crate) fn warn_without_shares(config: &SealConfig) {
    if config.has_seals() && config.shares.is_none() {
        tracing::warn!(
            "there are no recovery keys: when the keys of all seals are lost, the data is lost; create recovery keys with \
             \"operator rotate-keys -target=recovery\""
        );
    }
}

/// The KEK of the slot whose seal responds first with a key that opens the root key; otherwise the failures. A record that
/// a leader has sent (`joins`) opens only by the configured keys.
async fn kek(server: &Lifecycle, config: &SealConfig, joins: bool) -> Result<(WayIn, String), Vec<SealErrorClass>> {
    let clock = &*server.parts.clock;
    let slots: Vec<(&Slot, Arc<SealAccess>)> =
        config.seal_slots().filter_map(|slot| Some((slot, server.seals.of_slot(slot)?))).collect();
    if slots.is_empty() {
        tracing::error!(
            "no seal of the configuration has a slot in the seal record: the stanzas are not those of this storage"
        );
        return Err(vec![SealErrorClass::Misconfigured]);
    }
    let mut round = Round::new(slots.iter().map(|(slot, _)| slot.id).collect());
    let mut calls = FuturesUnordered::new();
    loop {
        let until = match round.next(clock.now()) {
            Action::Failed => return Err(round.failures().to_vec()),
            Action::Call(id) => {
                calls.extend(
                    slots.iter().find(|(slot, _)| slot.id == id).map(|(slot, access)| call(slot, access, clock, joins)),
                );
                continue;
            }
            Action::Wait(until) => until,
        };
        let (slot, access, result) = tokio::select! {
            biased;
            Some(called) = calls.next() => called,
            () = async { clock.sleep_until(until.unwrap_or_default()).await }, if until.is_some() => continue,
        };
        let error = match result {
            Ok(kek) => {
                let way = WayIn::Slot(slot.id, kek);
                match config.open(&way) {
                    Err(_) if config.wrap_keys(&way).is_none() => {
                        access.counts.failed(Operation::Unwrap, SealErrorClass::WrongKey);
                        let cause =
                            "the wrap keys in the slot do not open; once another seal has unsealed, the slot gets them";
                        SealError::new(SealErrorClass::WrongKey, cause)
                    }
                    // The record is changed: no other seal helps.
                    Err(error) => {
                        tracing::error!(%error, "the server stays sealed");
                        return Err(vec![SealErrorClass::WrongKey]);
                    }
                    Ok(Some(_)) => {
                        access.has_opened(slot, clock.now());
                        return Ok((way, slot.name.clone()));
                    }
                    Ok(None) => {
                        access.counts.failed(Operation::Unwrap, SealErrorClass::WrongKey);
                        SealError::new(SealErrorClass::WrongKey, "the key does not open the root key")
                    }
                }
            }
            Err(error) => error,
        };
        access.failed(&error, clock.now());
        round.failed(error.class, clock.now());
    }
}

async fn call<'a>(
    slot: &'a Slot,
    access: &'a Arc<SealAccess>,
    clock: &dyn keepfast_framework::Clock,
    joins: bool,
) -> (&'a Slot, &'a Arc<SealAccess>, Result<Key256, SealError>) {
    let checked = match joins {
        true => access.check_key(slot, clock).await,
        false => Ok(()),
    };
    let result = match checked {
        Ok(()) => access.unwrap(slot, clock).await,
        Err(error) => Err(error),
    };
    (slot, access, result)
}
