//! Init: the storage is written last and in one commit, so that a failure or a crash before it leaves nothing behind.

use std::sync::Arc;

use keepfast_crypto::locked::Key256;
use keepfast_crypto::random;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::{Engine as _, Error, Result};
use keepfast_storage::{Barrier, MemoryBackend, StorageError};

use crate::admission::Admission;
use crate::audit::{self, DeviceOptions};
use crate::cluster::join::joiner::known_seal;
use crate::lifecycle::{Lifecycle, explained};
use crate::parts::ServerParts;
use crate::seal::{CurrentSeal, Seal, SealConfig, SealShape, by_shares};
use crate::token::create::Spec;
use crate::token::record::{CREATED_TOKEN_PATH, FIRST_TOKEN_PATH};
use crate::token::{Authority, TokenAuth};
use crate::unsealed::{OpenInputs, Unsealed};

/// The shares and the root token of a new server, which are returned once.
pub struct Initialized {
    /// The shares of the unseal key.
    pub shares: Vec<SecretBytes>,
    /// The first root token.
    pub root_token: SecretString,
}

/// Initialises the storage: keyring, seal configuration, mounts, policies, salts and first root token, all prepared in
/// memory and written in one commit. Leaves the server sealed.
///
/// Fails with 400 when it is initialised already; with 500 and the reason when an audit device cannot be opened or
/// storage fails. In both cases nothing is written.
pub(crate) async fn initialize(
    server: &Lifecycle,
    shape: SealShape,
    root_token: Option<SecretString>,
) -> Result<Initialized> {
    let (seal, shares) = by_shares::generate(server.parts.settings.seal, shape)?;
    let root_token = initialize_under(server, seal, shape, root_token).await?;
    Ok(Initialized { shares, root_token })
}

/// The same under an existing seal. Returns the root token.
pub(crate) async fn initialize_under(
    server: &Lifecycle,
    seal: Arc<dyn Seal>,
    shape: SealShape,
    root_token: Option<SecretString>,
) -> Result<SecretString> {
    let _changing = server.changing.lock().await;
    let made = initialize_once(server, seal, shape, root_token).await.map_err(|e| explained("init", e))?;
    tracing::info!(shares = shape.shares, threshold = shape.threshold, "security barrier initialized");
    Ok(made)
}

async fn initialize_once(
    server: &Lifecycle,
    seal: Arc<dyn Seal>,
    shape: SealShape,
    root_token: Option<SecretString>,
) -> Result<SecretString> {
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
    let config = SealConfig::new(&*seal, &root, shape, name, random::uuid()).await?;
    let staged = Arc::new(MemoryBackend::new());
    Barrier::create(staged.clone(), &root, config.to_bytes()?, server.parts.clock.now().unix()).await?;
    let root_token = fill(&server.parts, staged.clone(), &root, seal, root_token).await?;
    match Barrier::publish(&staged, &*server.parts.backend).await {
        Ok(()) => Ok(root_token),
        Err(StorageError::Conflict) => Err(initialized()),
        Err(error @ (StorageError::Stopped(_) | StorageError::Io { .. })) => Err(Error::internal(format!(
            "{error}; if the server says after a restart that it is initialized, its shares are lost: empty the \
             storage, in which there is nothing yet, and initialize again"
        ))),
        Err(error) => Err(error.into()),
    }
}

/// Writes the initial records of a storage to `staged`, and the first root token, which is returned.
async fn fill(
    parts: &ServerParts,
    staged: Arc<MemoryBackend>,
    root: &Key256,
    seal: Arc<dyn Seal>,
    root_token: Option<SecretString>,
) -> Result<SecretString> {
    // The devices are opened at unseal; here they only get their salts.
    let unopened = |settings| Ok((DeviceOptions::of(settings)?, audit::device::discard()));
    let devices = parts.settings.audit.iter().map(unopened).collect::<Result<_>>()?;
    let barrier = parts.open_barrier(staged.clone(), root).await?;
    parts.take_over(&barrier).await?;
    // No rules apply to a storage that no server serves yet.
    let rules = Arc::new(Admission::without_rules(parts.clock.clone())).source();
    let current_seal = CurrentSeal::new(seal, staged, None, &barrier);
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
