//! Init: the storage is written last and in one commit, so that a failure or a crash before it leaves nothing behind.

use std::sync::Arc;

use keepfast_crypto::locked::Key256;
use keepfast_crypto::random;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::{Engine as _, Error, Result, Status};
use keepfast_storage::{Barrier, MemoryBackend, StorageError};

use crate::admission::Admission;
use crate::audit::{self, DeviceOptions};
use crate::cluster::join::joiner::known_seal;
use crate::lifecycle::{Lifecycle, explained};
use crate::parts::ServerParts;
use crate::seal::slots::{self, Initial, NewSlot};
use crate::seal::{CurrentSeal, SealConfig, SealShape, WayIn, share_key};
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
///
/// Fails with 400 when it is initialised already; with 500 and the reason when an audit device cannot be opened or
/// storage fails; with 503 when no seal works. In all cases nothing is written.
pub(crate) async fn initialize(
    server: &Lifecycle,
    shape: Option<SealShape>,
    root_token: Option<SecretString>,
) -> Result<Initialized> {
    let (key, shares) = shape.map(share_key::generate).transpose()?.unzip();
    let changing = server.changing.lock().await;
    let keys = shape.zip(key.as_ref());
    let (root_token, opens) = initialize_once(server, keys, root_token).await.map_err(|e| explained("init", e))?;
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
    Ok(Initialized { shares: shares.unwrap_or_default(), root_token })
}

/// Returns the root token, and what unseals the server if a seal does.
async fn initialize_once(
    server: &Lifecycle,
    shares: Option<(SealShape, &Key256)>,
    root_token: Option<SecretString>,
) -> Result<(SecretString, Option<WayIn>)> {
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
    let config = slots::first(Initial {
        cluster_name: name,
        cluster_id: random::uuid(),
        root: &root,
        seals,
        shares,
        forbids_break_glass: server.parts.settings.disable_break_glass,
    })?;
    let first = config.seal_slots().next().map(|slot| slot.id);
    let opens = first.zip(kek).map(|(id, kek)| WayIn::Slot(id, kek));
    let staged = Arc::new(MemoryBackend::new());
    Barrier::create(staged.clone(), &root, config.to_bytes()?, server.parts.clock.now().unix()).await?;
    let root_token = fill(&server.parts, staged.clone(), &root, &config, root_token).await?;
    match Barrier::publish(&staged, &*server.parts.backend).await {
        Ok(()) => Ok((root_token, opens)),
        Err(StorageError::Conflict) => Err(initialized()),
        Err(error @ (StorageError::Stopped(_) | StorageError::Io { .. })) => Err(Error::internal(format!(
            "{error}; if the server says after a restart that it is initialized, its shares are lost: empty the \
             storage, in which there is nothing yet, and initialize again"
        ))),
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

/// Writes the initial records of a storage to `staged`, and the first root token, which is returned.
async fn fill(
    parts: &ServerParts,
    staged: Arc<MemoryBackend>,
    root: &Key256,
    config: &SealConfig,
    root_token: Option<SecretString>,
) -> Result<SecretString> {
    // The devices are opened at unseal; here they only get their salts.
    let unopened = |settings| Ok((DeviceOptions::of(settings)?, audit::device::discard()));
    let devices = parts.settings.audit.iter().map(unopened).collect::<Result<_>>()?;
    let barrier = parts.open_barrier(staged.clone(), root).await?;
    parts.take_over(&barrier).await?;
    // No rules apply to a storage that no server serves yet.
    let rules = Arc::new(Admission::without_rules(parts.clock.clone())).source();
    let nothing = WayIn::Known(Default::default());
    let current_seal = CurrentSeal::new(config, &nothing, staged, None, &barrier);
    let unsealed = Unsealed::open(parts, OpenInputs { barrier, current_seal, devices, rules }).await?;
    let mut tx = unsealed.barrier.begin();
    // A chosen token has the path of a token that another token created, as in OpenBao.
    let (path, display_name) = match root_token {
        Some(_) => (CREATED_TOKEN_PATH, TokenAuth::TYPE),
        None => (FIRST_TOKEN_PATH, "root"),
    };
    let spec = Spec {
        id: root_token,
        authority: Authority::Root,
        path: path.to_owned(),
        display_name: display_name.to_owned(),
        ttl: None,
        ..Spec::default()
    };
    let made = unsealed.access.tokens.create(&mut tx, spec, parts.clock.now()).await?;
    tx.commit().await?;
    unsealed.barrier.close();
    Ok(made.id)
}
