//! `sys/seals` and `sys/seal-backend-status`: the seals of the configuration and their slots.

use std::sync::Arc;

use keepfast_crypto::random;
use keepfast_framework::fields::{SecretText, Strings, Text};
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::sealed::SealedResponse;
use keepfast_framework::{Cx, Data, Error, Result, Routes, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{System, unsealed};
use crate::cluster::join::joiner::known_seal;
use crate::lifecycle::Lifecycle;
use crate::seal::record::Slot;
use crate::seal::rolling::Goal;
use crate::seal::shares::{check_share, decode_share};
use crate::seal::slots::Change;
use crate::seal::{BreakGlass, SealAccess, SealConfig, Seals, rekey};
use crate::unseal::keeper::{self, none_opens, opened_slot, turn_off_break_glass};

const LIST: Help = Help { synopsis: "Returns the seals of the configuration and of the storage.", description: "" };
const SEAL: Help = Help {
    synopsis: "Enrolls a seal of the configuration, so that it unseals, or removes it.",
    description: "With the first seal, the unseal keys become recovery keys; without the last one, they become unseal keys again. What alone opens the storage cannot be removed.",
};
const CHECK: Help =
    Help { synopsis: "Checks whether a seal opens its slot, and renews the slot if that is due.", description: "" };
const ORDER: Help = Help { synopsis: "Sets the order in which the seals are tried.", description: "" };
const BREAK_GLASS: Help = Help {
    synopsis: "Submits a recovery key, of which a quorum lets recovery keys unseal; or turns that off.",
    description: "",
};
const STATUS: Help = Help { synopsis: "Returns the health of the seals.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("seal-backend-status", STATUS).unauthenticated().read_sealed(status).node_wide();
    r.path("seals", LIST).read(list).sudo().here().not_in_namespaces();
    r.path("seals/order", ORDER).update(order).sudo().once().not_in_namespaces();
    r.path("seals/break-glass", BREAK_GLASS)
        .update(enable_break_glass)
        .delete(disable_break_glass)
        .sudo()
        .once()
        .not_in_namespaces();
    r.path("seals/{name}", SEAL).update(add).delete(remove).sudo().once().not_in_namespaces();
    r.path("seals/{name}/check", CHECK).update(check).sudo().once().not_in_namespaces();
}

#[derive(Deserialize, JsonSchema)]
struct SealPath {
    /// The name of the seal.
    name: Text,
}

#[derive(Deserialize, JsonSchema)]
struct OrderRequest {
    /// The names of all enrolled seals, the first to be tried first.
    #[serde(default)]
    names: Strings,
}

#[derive(Deserialize, JsonSchema)]
struct BreakGlassRequest {
    /// A recovery key, in hex or base64.
    key: Option<SecretText>,
}

#[derive(Serialize)]
struct BreakGlassResponse {
    complete: bool,
    progress: usize,
    required: u8,
}

#[derive(Serialize)]
struct SealsResponse {
    break_glass: BreakGlass,
    generation: u64,
    recovery_shares: u8,
    recovery_threshold: u8,
    seals: Vec<SealResponse>,
    /// Only there while seals or shares of a cluster take over from others.
    #[serde(skip_serializing_if = "Option::is_none")]
    migration: Option<MigrationResponse>,
}

/// What the configuration of this node requests of the leader.
#[derive(Serialize)]
struct MigrationResponse {
    /// `seal`: seals take over from shares; `shares`: the reverse; `retire`: from disabled seals; `forbid_break_glass`.
    goal: &'static str,
    /// What the leader waits for.
    awaits: Vec<String>,
}

/// A seal of the configuration or of the storage.
#[derive(Serialize)]
struct SealResponse {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    configured: bool,
    disabled: bool,
    enrolled: bool,
    healthy: bool,
    priority: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kek_generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unhealthy_since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_success: Option<String>,
    description: std::collections::BTreeMap<&'static str, String>,
}

#[derive(Serialize, JsonSchema)]
struct BackendStatus {
    healthy: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    unhealthy_since: Option<String>,
    /// Whether every enabled seal has a slot with a key that is as new as the root key.
    fully_wrapped: bool,
    backends: Vec<Backend>,
}

#[derive(Serialize, JsonSchema)]
struct Backend {
    name: String,
    healthy: bool,
    configured: bool,
    disabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    unhealthy_since: Option<String>,
}

/// A seal of the configuration, with its slot; or a slot without a seal.
fn joined<'a>(seals: &Seals, config: Option<&'a SealConfig>) -> Vec<(Option<Arc<SealAccess>>, Option<&'a Slot>)> {
    let slots: Vec<&Slot> = config.into_iter().flat_map(SealConfig::seal_slots).collect();
    let all = seals.all();
    let is_of =
        |slot: &Slot, access: &Arc<SealAccess>| access.configured.name == slot.name && access.kind() == slot.kind;
    let of_slot = |slot: &&'a Slot| (all.iter().find(|access| is_of(slot, access)).cloned(), Some(*slot));
    let without = all.iter().filter(|access| !slots.iter().any(|slot| is_of(slot, access)));
    slots.iter().map(of_slot).chain(without.map(|access| (Some(access.clone()), None))).collect()
}

fn failing_since(access: Option<&Arc<SealAccess>>) -> Option<Timestamp> {
    access.and_then(|access| access.health().failure).map(|(_, since)| since)
}

async fn status(sys: &System, _: Nothing) -> Result<SealedResponse<BackendStatus>> {
    let server = sys.lifecycle()?;
    let config = known_seal(&server).await?;
    let all = joined(&server.seals, config.as_ref());
    let is_wrapped = |(access, slot): &(Option<Arc<SealAccess>>, Option<&Slot>)| match (access, slot) {
        (Some(access), None) => access.configured.disabled,
        // A disabled seal wraps nothing.
        (Some(access), Some(_)) if access.configured.disabled => true,
        (Some(_), Some(slot)) => config.as_ref().is_none_or(|config| slot.kek_generation >= config.generation),
        (None, _) => true,
    };
    let fully_wrapped = all.iter().all(is_wrapped);
    let first_failure = all.iter().filter_map(|(access, _)| failing_since(access.as_ref())).min();
    let backends = all.iter().map(|(access, slot)| {
        let since = failing_since(access.as_ref());
        let name = access.as_ref().map(|access| &access.configured.name).or(slot.map(|slot| &slot.name));
        Backend {
            name: name.cloned().unwrap_or_default(),
            healthy: access.is_some() && since.is_none(),
            configured: access.is_some(),
            disabled: access.as_ref().is_some_and(|access| access.configured.disabled),
            unhealthy_since: since.map(Timestamp::rfc3339_seconds),
        }
    });
    Ok(SealedResponse::ok(BackendStatus {
        healthy: first_failure.is_none() && all.iter().all(|(access, _)| access.is_some()),
        unhealthy_since: first_failure.map(Timestamp::rfc3339_seconds),
        fully_wrapped,
        backends: backends.collect(),
    }))
}

async fn list(sys: &System, cx: &mut Cx, _: Nothing) -> Result<Data<SealsResponse>> {
    let server = sys.lifecycle()?;
    let config = unsealed(cx)?.current_seal.seal_config().await?;
    let joined = joined(&server.seals, Some(&config));
    let seals = joined.iter().map(|(access, slot)| shown(access.as_ref(), *slot)).collect();
    let migration = migration(&server, &config);
    let shape = config.shape();
    let (recovery_shares, recovery_threshold) = match config.has_seals() {
        true => (shape.shares, shape.threshold),
        false => (0, 0),
    };
    let (break_glass, generation) = (config.break_glass, config.generation);
    Ok(Data(SealsResponse { break_glass, generation, recovery_shares, recovery_threshold, seals, migration }))
}

fn migration(server: &Lifecycle, config: &SealConfig) -> Option<MigrationResponse> {
    server.parts.membership.with_others()?;
    let goal = Goal::of(config, &server.seals, server.parts.settings.disable_break_glass)?;
    let awaits = match server.parts.is_active() {
        true => server.seals.rolling.awaited(),
        false => vec!["the leader, if its configuration requests it, too".to_owned()],
    };
    Some(MigrationResponse { goal: goal.name(), awaits })
}

fn shown(access: Option<&Arc<SealAccess>>, slot: Option<&Slot>) -> SealResponse {
    let health = access.map(|access| access.health()).unwrap_or_default();
    let configured = access.map(|access| &access.configured);
    let name = slot.map(|slot| &slot.name).or(configured.map(|configured| &configured.name));
    let kind = slot.map(|slot| slot.kind.as_str()).or(access.map(|access| access.kind()));
    SealResponse {
        name: name.cloned().unwrap_or_default(),
        kind: kind.unwrap_or_default().to_owned(),
        configured: access.is_some(),
        disabled: configured.is_some_and(|configured| configured.disabled),
        enrolled: slot.is_some(),
        healthy: access.is_some() && health.failure.is_none(),
        priority: slot.map(|slot| slot.priority).or(configured.map(|c| c.priority)).unwrap_or_default(),
        slot: slot.map(|slot| slot.id),
        key_id: slot.and_then(|slot| slot.kek.as_ref()).map(|kek| kek.key_id.clone()),
        kek_generation: slot.map(|slot| slot.kek_generation),
        error: health.failure.map(|(class, _)| class.name()),
        unhealthy_since: health.failure.map(|(_, since)| since.rfc3339_seconds()),
        last_success: health.success.map(Timestamp::rfc3339_seconds),
        description: configured.map(|c| c.seal.description().into_iter().collect()).unwrap_or_default(),
    }
}

/// The seal of the configuration with this name.
fn configured(seals: &Seals, name: &str) -> Result<Arc<SealAccess>> {
    let unknown = || Error::invalid(format!("the configuration of this node has no seal {name:?}"));
    seals.named(name).ok_or_else(unknown)
}

async fn add(sys: &System, cx: &mut Cx, req: SealPath) -> Result<()> {
    let (server, unsealed) = (sys.lifecycle()?, unsealed(cx)?);
    let access = configured(&server.seals, &req.name)?;
    if access.configured.disabled {
        return Err(Error::invalid("the seal is disabled in the configuration"));
    }
    if unsealed.current_seal.seal_config().await?.slot_named(&req.name).is_some() {
        return Err(Error::invalid("the seal is enrolled already"));
    }
    keeper::enroll(&unsealed, &access).await?.map_err(|error| keeper::unusable(&access, &error))?;
    server.seals.check_slots();
    Ok(())
}

async fn remove(sys: &System, cx: &mut Cx, req: SealPath) -> Result<()> {
    let (server, unsealed) = (sys.lifecycle()?, unsealed(cx)?);
    let config = unsealed.current_seal.seal_config().await?;
    if config.slot_named(&req.name).is_none() {
        return Err(Error::invalid(format!("the seal {:?} is not enrolled", req.name.0)));
    }
    check_stays_removed(&server.seals, &req.name)?;
    let is_last = config.seal_slots().count() < 2;
    let mut opened = None;
    if !is_last && !config.opens_by_shares() {
        let slot = opened_slot(&server.seals, &config, Some(&req.name), &*unsealed.clock).await;
        opened = Some(slot.ok_or_else(none_opens)?);
    }
    let change = Change::Remove { name: req.name.0.clone(), root: random::key() };
    // Without shares that open, the slot that was opened must still exist.
    let is_due = |config: &SealConfig| {
        let opens = is_last || config.opens_by_shares();
        let stays = opens || opened.is_some_and(|opened| config.slot(opened).is_some());
        if stays { Ok(true) } else { Err(none_opens()) }
    };
    unsealed.current_seal.change_if(&unsealed.barrier, change, is_due).await?;
    server.seals.check_slots();
    tracing::warn!(seal = req.name.0, "the seal is removed: it does not unseal any more");
    Ok(())
}

/// Refuses to remove a seal that the leader would enroll again.
fn check_stays_removed(seals: &Seals, name: &str) -> Result<()> {
    let is_automatic = |access: &Arc<SealAccess>| !access.configured.disabled && !access.configured.enroll_manually;
    if seals.named(name).filter(is_automatic).is_none() {
        return Ok(());
    }
    let text = "set `disabled = \"true\"` or `enroll = \"manual\"` in its stanza first: it would be enrolled again";
    Err(Error::invalid(text))
}

async fn check(sys: &System, cx: &mut Cx, req: SealPath) -> Result<Data<SealResponse>> {
    let (server, unsealed) = (sys.lifecycle()?, unsealed(cx)?);
    let access = configured(&server.seals, &req.name)?;
    keeper::check(&unsealed, &access, server.parts.is_active()).await?;
    let config = unsealed.current_seal.seal_config().await?;
    Ok(Data(shown(Some(&access), config.slot_named(&req.name))))
}

async fn order(_: &System, cx: &mut Cx, req: OrderRequest) -> Result<()> {
    let unsealed = unsealed(cx)?;
    unsealed.current_seal.change(&unsealed.barrier, Change::Reorder(req.names.0)).await
}

/// Takes a recovery key; the last one of a quorum lets recovery keys unseal.
async fn enable_break_glass(sys: &System, cx: &mut Cx, req: BreakGlassRequest) -> Result<Data<BreakGlassResponse>> {
    let Some(key) = req.key.filter(|key| !key.expose().is_empty()) else {
        return Err(Error::invalid("missing required field 'key'"));
    };
    let share = decode_share(key.expose())?;
    check_share(&share)?;
    let (server, unsealed) = (sys.lifecycle()?, unsealed(cx)?);
    if unsealed.settings.disable_break_glass {
        return Err(Error::invalid("the configuration forbids that recovery keys unseal (disable_break_glass)"));
    }
    let mut submitted = unsealed.current_seal.break_glass.clone().lock_owned().await;
    let config = unsealed.current_seal.seal_config().await?;
    let required = config.shape().threshold;
    if !config.has_seals() || required == 0 {
        return Err(Error::invalid("there are no recovery keys"));
    }
    rekey::add_share(&mut submitted, &share, "operation")?;
    let progress = submitted.progress();
    if progress < usize::from(required) {
        return Ok(Data(BreakGlassResponse { complete: false, progress, required }));
    }
    let Some(quorum) = config.quorum(&submitted.take()) else {
        return Err(Error::invalid("the shares are no quorum of the recovery keys"));
    };
    cx.after_record(move || async move {
        let change = Change::BreakGlass { to: BreakGlass::On, quorum: Some(quorum), root: random::key() };
        unsealed.current_seal.change(&unsealed.barrier, change).await?;
        server.seals.check_slots();
        tracing::warn!("recovery keys unseal from now on");
        Ok(())
    });
    Ok(Data(BreakGlassResponse { complete: true, progress, required }))
}

async fn disable_break_glass(sys: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    let (server, unsealed) = (sys.lifecycle()?, unsealed(cx)?);
    let to = if unsealed.settings.disable_break_glass { BreakGlass::Forbidden } else { BreakGlass::Off };
    let config = unsealed.current_seal.seal_config().await?;
    if !config.has_seals() {
        return Err(Error::invalid("the unseal keys unseal: there is no other seal"));
    }
    if config.break_glass == to {
        return Ok(());
    }
    let opened = opened_slot(&server.seals, &config, None, &*unsealed.clock).await.ok_or_else(none_opens)?;
    turn_off_break_glass(&unsealed, opened, to).await?;
    server.seals.check_slots();
    Ok(())
}
