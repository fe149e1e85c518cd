//! Init: the storage is written last and in one commit, so that a failure or a crash before it leaves nothing behind.

use std::sync::Arc;

use keepfast_crypto::locked::Key256;
use keepfast_crypto::random;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::{Engine as _, Error, Result, Status};
use keepfast_storage::{Barrier, MemoryBackend, StorageError, WrapKeys};

use crate::admission::Admission;
use crate::audit::{self, DeviceOptions};
use crate::cluster::join::joiner::known_seal;
use crate::lifecycle::Lifecycle;
use crate::namespace::NamespaceId;
use crate::operator_error::explained;
use crate::parts::ServerParts;
use crate::seal::slots::{self, Initial, NewSlot};
use crate::seal::{CurrentSeal, SealConfig, SealShape, WayIn, share_key};
use crate::self_init::SelfInitPlan;
use crate::token::create::Spec;
use crate::token::record::{CREATED_TOKEN_PATH, FIRST_TOKEN_PATH};
use crate::token::{Authority, TokenAuth};
use crate::unsealed::{OpenInputs, Unsealed};

/// The shares and the root token of a new server, which are returned once.
pub struct Initialized {
    /// The shares of the unseal key, or of the recovery key of a server with another seal.
    pub shares: Vec<SecretBytes>,
    /// The first root token.
    pub root_token: SecretString,
}

/// Initialises the storage: keyring, seal record, mounts, policies, salts and first root token, all prepared in memory and
/// written in one commit. Leaves a server sealed whose root key is under shares; a server with seals is unsealed, if it
/// can be. `shape` is that of the unseal keys, or of the recovery keys of a server with seals, which may have none.
/// `respond` creates the response before the commit.
///
/// Fails with 400 when it is initialised already; with 500 and the reason when an audit device cannot be opened or
/// storage fails; with 503 when no seal works; when `respond` fails. In all cases nothing is written.
pub(crate) async fn initialize<T>(
    server: &Lifecycle,
    shape: Option<SealShape>,
    root_token: Option<SecretString>,
    respond: impl FnOnce(Initialized) -> Result<T>,
) -> Result<T> {
    initialize_with(server, shape, root_token, None, respond).await
}

/// The same by the stanzas of the configuration, whose progress is in the same commit. The recovery keys, if there are any,
/// are in their file before it.
pub(crate) async fn initialize_by(server: &Lifecycle, plan: &Arc<SelfInitPlan>) -> Result<Initialized> {
    initialize_with(server, plan.shape(), None, Some(plan), Ok).await
}

async fn initialize_with<T>(
    server: &Lifecycle,
    shape: Option<SealShape>,
    root_token: Option<SecretString>,
    plan: Option<&Arc<SelfInitPlan>>,
    respond: impl FnOnce(Initialized) -> Result<T>,
) -> Result<T> {
    let (key, shares) = shape.map(share_key::generate).transpose()?.unzip();
    let changing = server.changing.lock().await;
    let keys = shape.zip(key.as_ref());
    let first = FirstToken { id: root_token, plan, shares: shares.unwrap_or_default() };
    let initialized = initialize_once(server, keys, first, respond).await;
    let (response, opens) =
        initialized.map_err(|error| if may_take_effect(&error) { error } else { explained("init", error) })?;
    drop(changing);
    let shape = shape.unwrap_or(SealShape { shares: 0, threshold: 0 });
    tracing::info!(shares = shape.shares, threshold = shape.threshold, "security barrier initialized");
    if let Some(way) = opens
        && let Err(error) = server.unseal_by(way).await
    {
        // The storage is initialized, and the seals are tried again.
        tracing::error!(%error, "the new server is not unsealed");
        server.seals.begin_round();
    }
    Ok(response)
}

/// The commit of the init has failed, and may take effect after a restart or later.
#[derive(Debug, thiserror::Error)]
#[error("the outcome of the init is not known: {0}")]
struct MayTakeEffect(#[source] StorageError);

/// Whether an init with this error may take effect later.
pub(crate) fn may_take_effect(error: &Error) -> bool {
    error.cause().is_some_and(|cause| cause.is::<MayTakeEffect>())
}

/// How the first root token is created.
struct FirstToken<'a> {
    /// A chosen text.
    id: Option<SecretString>,
    /// The stanzas for which it is created, if it is not for an operator.
    plan: Option<&'a Arc<SelfInitPlan>>,
    /// The shares, for the file of the stanzas and the response.
    shares: Vec<SecretBytes>,
}

/// Returns the response, and what unseals the server if a seal does.
async fn initialize_once<T>(
    server: &Lifecycle,
    shares: Option<(SealShape, &Key256)>,
    first_token: FirstToken<'_>,
    respond: impl FnOnce(Initialized) -> Result<T>,
) -> Result<(T, Option<WayIn>)> {
    let initialized = || Error::invalid("Vault is already initialized");
    if known_seal(server).await?.is_some() {
        return Err(initialized());
    }
    let allowed = audit::AllowedTargets::declared(&server.parts.settings.own_files);
    audit::target::prepare_all(&server.parts.settings.audit, &allowed)?;
    let root = random::key();
    let name = match server.parts.settings.cluster_name.as_str() {
        "" => format!("keepfast-cluster-{}", hex::encode(random::bytes::<4>())),
        chosen => chosen.to_owned(),
    };
    let seals = working_seals(server).await?;
    let kek = seals.first().map(|seal| seal.kek.kek().clone());
    // Later the recovery keys are not at hand, whose slot must have the wrap keys.
    let wraps = !seals.is_empty() && !server.parts.settings.disable_sealwrap;
    let wrap_keys = if wraps { WrapKeys::first() } else { WrapKeys::default() };
    let initial = Initial {
        cluster_name: name,
        cluster_id: random::uuid(),
        root: &root,
        seals,
        shares,
        forbids_break_glass: server.parts.settings.disable_break_glass,
    };
    let config = slots::first_with(initial, wrap_keys)?;
    let first = config.seal_slots().next().map(|slot| slot.id);
    let opens = first.zip(kek).map(|(id, kek)| WayIn::Slot(id, kek));
    let staged = Arc::new(MemoryBackend::new());
    Barrier::create(staged.clone(), &root, config.to_bytes()?, server.parts.clock.now().unix()).await?;
    let by = (&config, opens.as_ref());
    let then = match first_token.plan {
        Some(_) => "it goes on with the recovery keys of this attempt: restart it",
        None => "its shares are lost: empty the storage, in which there is nothing yet, and initialize again",
    };
    let response = respond(fill(&server.parts, staged.clone(), &root, by, first_token).await?)?;
    match Barrier::publish(&staged, &*server.parts.backend).await {
        Ok(()) => Ok((response, opens)),
        Err(StorageError::Conflict) => Err(initialized()),
        Err(error @ (StorageError::Stopped(_) | StorageError::Unknown | StorageError::Io { .. })) => {
            let text =
                format!("init failed: {error}; if the server says after a restart that it is initialized, {then}");
            Err(Error::new(Status::INTERNAL, text).caused_by(MayTakeEffect(error)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Slots for the seals that work; a seal that does not is enrolled later. Without any, nothing is initialised.
async fn working_seals(server: &Lifecycle) -> Result<Vec<NewSlot>> {
    let enabled: Vec<_> = server.seals.enabled().collect();
    let (slots, failures) = server.seals.prove_all(&*server.parts.clock, &enabled).await;
    if slots.is_empty() && !enabled.is_empty() {
        let text = format!("no seal works, so nothing was initialized: {failures}");
        return Err(Error::new(Status::UNAVAILABLE, text));
    }
    Ok(slots)
}

/// Writes the initial records of a storage to `staged`, and the first root token, which is returned with the shares.
async fn fill(
    parts: &ServerParts,
    staged: Arc<MemoryBackend>,
    root: &Key256,
    (config, way): (&SealConfig, Option<&WayIn>),
    first_token: FirstToken<'_>,
) -> Result<Initialized> {
    // The devices are opened at unseal; here they only get their salts.
    let unopened = |settings| Ok((DeviceOptions::of(settings)?, audit::device::discard()));
    let devices = parts.settings.audit.iter().map(unopened).collect::<Result<_>>()?;
    let barrier = parts.open_barrier(staged.clone(), root).await?;
    parts.take_over(&barrier).await?;
    // No rules apply to a storage that no server serves yet.
    let rules = Arc::new(Admission::without_rules(parts.clock.clone())).source();
    let nothing = WayIn::Known(Default::default());
    let current_seal = CurrentSeal::new(config, way.unwrap_or(&nothing), staged, None, &barrier, parts.clock.clone());
    let unsealed = Unsealed::open(parts, OpenInputs { barrier, current_seal, devices, rules }).await?;
    let mut tx = unsealed.barrier.begin();
    // A chosen token has the path of a token that another token created, as in OpenBao.
    let FirstToken { id, plan, shares } = first_token;
    let (path, display_name) = match id {
        Some(_) => (CREATED_TOKEN_PATH, TokenAuth::TYPE),
        None => (FIRST_TOKEN_PATH, "root"),
    };
    let spec = Spec {
        id,
        authority: Authority::Root,
        path: path.to_owned(),
        display_name: display_name.to_owned(),
        ttl: None,
        ..Spec::default()
    };
    let made = unsealed.access.tokens.create(&mut tx, &NamespaceId::root(), spec, parts.clock.now()).await?;
    if let Some(plan) = plan {
        let state = plan.first_state(&made.record.accessor, &shares).await?;
        state.put(&unsealed.barrier, &mut tx)?;
    }
    tx.commit().await?;
    unsealed.barrier.close();
    Ok(Initialized { shares, root_token: made.id })
}
