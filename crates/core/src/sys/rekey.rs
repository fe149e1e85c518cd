//! New shares step by step, for `sys/rotate/root/` and its older open form `sys/rekey/`, which differ in error texts
//! only.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::compare;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::fields::{Flag, Int, SecretText, Strings, Text};
use keepfast_framework::{Cx, Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::unsealed;
use crate::seal::SealShape;
use crate::seal::current::is_quorum;
use crate::seal::rekey::{Pending, Rekey, add_share};
use crate::unsealed::Unsealed;

/// The error texts in which the two forms differ.
pub(super) struct Wording {
    /// The operation in progress.
    pub(super) name: &'static str,
    /// The kind of seal configuration.
    pub(super) seal: &'static str,
    /// The error for a share of the old kind without an operation in progress.
    pub(super) absent: &'static str,
    /// The operation that is finished while its verification is pending.
    pub(super) finished: &'static str,
    /// The operation to which the nonce belongs.
    pub(super) operation: &'static str,
    /// The operation to which a share was given twice.
    pub(super) collection: &'static str,
    /// Whether the verification refuses a share that was given twice, and does not count it.
    pub(super) refuses_repeats: bool,
}

/// The parameters of a rekey.
#[derive(Deserialize, JsonSchema)]
pub(super) struct RekeyRequest {
    /// Number of new shares.
    secret_shares: Option<Int>,
    /// Number of the new shares that unseal the server.
    secret_threshold: Option<Int>,
    /// Not supported: shares are not encrypted with PGP keys.
    pgp_keys: Option<Strings>,
    /// Without effect: only shares that are encrypted with PGP are backed up.
    backup: Option<Flag>,
    /// Whether the new shares become valid only after a quorum of them has been sent to `verify`. Default: false.
    require_verification: Option<Flag>,
}

impl RekeyRequest {
    pub(super) fn has_pgp_keys(&self) -> bool {
        self.pgp_keys.as_ref().is_some_and(|keys| !keys.0.is_empty())
    }

    pub(super) fn has_backup(&self) -> bool {
        self.backup.as_ref().is_some_and(|backup| backup.0)
    }
}

/// A share of the unseal key for an operation in progress.
#[derive(Deserialize, JsonSchema)]
pub(super) struct ShareRequest {
    /// A share of the unseal key, in hex or base64.
    pub(super) key: Option<SecretText>,
    /// The nonce of the operation.
    pub(super) nonce: Option<Text>,
}

/// A snapshot of the progress of new shares.
pub(super) struct RekeyProgress {
    pub(super) nonce: String,
    pub(super) shape: SealShape,
    pub(super) progress: usize,
    pub(super) backup: bool,
    pub(super) verify: bool,
    /// The nonce of the verification; `None` before the shares are issued.
    pub(super) proof_nonce: Option<String>,
}

/// The progress of the verification.
#[derive(Serialize)]
pub(super) struct VerificationProgress {
    n: u8,
    nonce: String,
    progress: usize,
    started: bool,
    t: u8,
}

#[derive(Serialize)]
pub(super) struct Verified {
    complete: bool,
    nonce: String,
}

/// The new shares.
#[derive(Serialize)]
pub(super) struct NewShares {
    backup: bool,
    complete: bool,
    keys: Vec<String>,
    keys_base64: Vec<String>,
    nonce: String,
    pgp_fingerprints: Option<Vec<String>>,
    verification_required: bool,
    #[serde(skip)]
    pub(super) proof_nonce: Option<String>,
}

/// The response to a share: progress, or the final result.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Step<P, D> {
    Progress(P),
    Done(D),
}

impl RekeyProgress {
    fn of(rotation: &Rekey) -> Self {
        RekeyProgress {
            nonce: rotation.nonce.clone(),
            shape: rotation.shape,
            progress: rotation.submitted.progress(),
            backup: rotation.backup,
            verify: rotation.verify,
            proof_nonce: rotation.pending.as_ref().map(|p| p.nonce.clone()),
        }
    }
}

impl VerificationProgress {
    fn of(pending: &Pending) -> Self {
        let SealShape { shares, threshold } = pending.config.shape;
        VerificationProgress {
            n: shares,
            nonce: pending.nonce.clone(),
            progress: pending.submitted.len(),
            started: true,
            t: threshold,
        }
    }

    /// The state of a verification before the shares are issued.
    pub(super) fn not_yet(shape: SealShape) -> Self {
        VerificationProgress { n: shape.shares, nonce: String::new(), progress: 0, started: false, t: shape.threshold }
    }
}

impl NewShares {
    fn of(rotation: &Rekey, pending: &Pending, shares: &[SecretBytes]) -> Self {
        NewShares {
            backup: rotation.backup,
            complete: true,
            keys: shares.iter().map(|s| hex::encode(s.expose())).collect(),
            keys_base64: shares.iter().map(|s| STANDARD.encode(s.expose())).collect(),
            nonce: rotation.nonce.clone(),
            pgp_fingerprints: None,
            verification_required: rotation.verify,
            proof_nonce: rotation.verify.then(|| pending.nonce.clone()),
        }
    }
}

/// The threshold of the current shares.
pub(super) async fn required_shares(cx: &Cx) -> Result<u8> {
    Ok(unsealed(cx)?.current_seal.seal_config().await?.shape.threshold)
}

pub(super) async fn rekey_progress(cx: &Cx) -> Result<Option<RekeyProgress>> {
    Ok(unsealed(cx)?.current_seal.rekey.lock().await.as_ref().map(RekeyProgress::of))
}

pub(super) async fn begin_rekey(cx: &Cx, words: &Wording, req: &RekeyRequest) -> Result<RekeyProgress> {
    let unsealed = unsealed(cx)?;
    let mut rotation = unsealed.current_seal.rekey.lock().await;
    if rotation.is_some() {
        return Err(Error::invalid(format!("{} already in progress", words.name)));
    }
    let refused = |why: &str| Error::invalid(format!("invalid {} seal configuration: {why}", words.seal));
    let number = |submitted: &Option<Int>| submitted.as_ref().map_or(0, |n| n.0);
    let shape = SealShape::check(number(&req.secret_shares), number(&req.secret_threshold)).map_err(refused)?;
    if req.has_pgp_keys() {
        return Err(refused("encrypting shares with PGP keys is not supported by this server"));
    }
    let verify = req.require_verification.as_ref().is_some_and(|verify| verify.0);
    Ok(RekeyProgress::of(rotation.insert(Rekey::new(shape, req.has_backup(), verify))))
}

pub(super) async fn cancel_rekey(cx: &Cx) -> Result<()> {
    *unsealed(cx)?.current_seal.rekey.lock().await = None;
    Ok(())
}

/// Takes a share of the current kind. New shares without verification are valid once an audit device has the response:
/// a response that cannot be sent must not make lost shares the valid ones.
pub(super) async fn submit_share(
    cx: &mut Cx,
    words: &Wording,
    share: &SecretBytes,
    nonce: &str,
) -> Result<Step<RekeyProgress, NewShares>> {
    let unsealed = unsealed(cx)?;
    let mut slot = unsealed.current_seal.rekey.clone().lock_owned().await;
    // Read under the lock: the shares may have changed while this request waited.
    let config = unsealed.current_seal.seal_config().await?;
    let Some(rotation) = slot.as_mut() else { return Err(Error::invalid(words.absent)) };
    if let Some(pending) = &rotation.pending {
        return Err(Error::invalid(format!(
            "{} already finished; verification must be performed; nonce for the verification operation is {:?}",
            words.finished, pending.nonce
        )));
    }
    if rotation.nonce != nonce {
        let (operation, right) = (words.operation, &rotation.nonce);
        return Err(Error::invalid(format!("incorrect nonce supplied; nonce for {operation} is {right:?}")));
    }
    add_share(&mut rotation.submitted, share, words.collection)?;
    if rotation.submitted.progress() < usize::from(config.shape.threshold) {
        return Ok(Step::Progress(RekeyProgress::of(rotation)));
    }
    if !is_quorum(&config, &rotation.submitted.take()).await? {
        return Err(Error::invalid("failed to read root key: the shares do not unseal"));
    }
    let (pending, shares) = rotation.new_shares(&config).await?;
    let made = NewShares::of(rotation, &pending, &shares);
    if rotation.verify {
        rotation.pending = Some(pending);
    } else {
        cx.after_record(move || async move {
            commit(&unsealed, &pending).await?;
            *slot = None;
            Ok(())
        });
    }
    Ok(Step::Done(made))
}

/// The progress of the verification; `Err` with the shape of shares that are not issued yet; `None` without an
/// operation.
pub(super) async fn verification_progress(cx: &Cx) -> Result<Option<Result<VerificationProgress, SealShape>>> {
    let unsealed = unsealed(cx)?;
    let rotation = unsealed.current_seal.rekey.lock().await;
    Ok(rotation.as_ref().map(|r| r.pending.as_ref().map(VerificationProgress::of).ok_or(r.shape)))
}

/// Restarts the verification; returns as [`verification_progress`].
pub(super) async fn restart_verification(cx: &Cx) -> Result<Option<Result<VerificationProgress, SealShape>>> {
    if let Some(pending) = unsealed(cx)?.current_seal.rekey.lock().await.as_mut().and_then(|r| r.pending.as_mut()) {
        pending.restart();
    }
    verification_progress(cx).await
}

/// Takes a share of the new kind. The new shares are valid once an audit device has the response to the last one.
pub(super) async fn verify_share(
    cx: &mut Cx,
    words: &Wording,
    share: SecretBytes,
    nonce: String,
) -> Result<Step<VerificationProgress, Verified>> {
    let unsealed = unsealed(cx)?;
    let mut slot = unsealed.current_seal.rekey.clone().lock_owned().await;
    let Some(pending) = slot.as_mut().and_then(|r| r.pending.as_mut()) else {
        return Err(Error::invalid(format!("no {} in progress", words.name)));
    };
    if pending.nonce != nonce {
        let right = &pending.nonce;
        return Err(Error::invalid(format!("incorrect nonce supplied; nonce for this verify operation is {right:?}")));
    }
    let repeated = pending.submitted.iter().any(|g| compare::equal(g.expose(), share.expose()));
    if words.refuses_repeats && repeated {
        return Err(Error::invalid("given key has already been provided during this verify operation"));
    }
    match pending.add_share(share).await? {
        None => return Ok(Step::Progress(VerificationProgress::of(pending))),
        Some(false) => {
            pending.restart();
            let name = words.name;
            return Err(Error::invalid(format!("{name} verification failed; incorrect key shares supplied")));
        }
        Some(true) => {}
    }
    // After a failure the last share can be sent again: shares that operators hold by now are kept.
    pending.submitted.pop();
    cx.after_record(move || async move {
        if let Some(pending) = slot.as_ref().and_then(|rotation| rotation.pending.as_ref()) {
            commit(&unsealed, pending).await?;
        }
        *slot = None;
        Ok(())
    });
    Ok(Step::Done(Verified { complete: true, nonce }))
}

/// Commits the new shares, which replace the old ones.
async fn commit(unsealed: &Unsealed, pending: &Pending) -> Result<()> {
    let Pending { root, seal, config, .. } = pending;
    unsealed.current_seal.change_shares(&unsealed.barrier, root, seal.clone(), config).await?;
    tracing::info!(
        shares = config.shape.shares,
        threshold = config.shape.threshold,
        "rekeyed: the unseal key has new shares"
    );
    Ok(())
}
