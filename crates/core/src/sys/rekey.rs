//! New shares step by step, for `sys/rotate/root/`, `sys/rotate/recovery/` and their older open forms `sys/rekey/` and
//! `sys/rekey-recovery-key/`, which differ in error texts only.

use std::sync::Arc;

use keepfast_crypto::secret::SecretBytes;
use keepfast_crypto::{compare, random};
use keepfast_framework::{Cx, Error, Result, Status};
use serde::Serialize;

use super::rekey_request::{RekeyRequest, Target, Wording};
use super::{System, unsealed};
use crate::seal::pgp::{IssuedShares, Recipients};
use crate::seal::rekey::{Pending, Rekey, add_share};
use crate::seal::slots::Change;
use crate::seal::{SealShape, Seals};
use crate::unsealed::Unsealed;

/// The error for shares that are no quorum of the recovery keys.
pub(super) const WRONG_RECOVERY_KEY: &str =
    "recovery key verification failed: recovery key does not match submitted values";

/// The error at a storage that opens by Shamir shares alone.
const NO_RECOVERY_KEYS: &str = "recovery keys not supported";

/// A snapshot of the progress of new shares.
pub(super) struct RekeyProgress {
    pub(super) nonce: String,
    /// The new shares; `None` for another root key without new shares.
    pub(super) shape: Option<SealShape>,
    pub(super) progress: usize,
    /// The fingerprints of the certificates to which the new shares are encrypted.
    pub(super) fingerprints: Option<Vec<String>>,
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
    /// Only there when the shares needed no quorum.
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
    pgp_fingerprints: Option<Vec<String>>,
    /// Only there when the shares needed no quorum.
    #[serde(skip_serializing_if = "Option::is_none")]
    t: Option<u8>,
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
            fingerprints: rotation.recipients.as_ref().map(Recipients::fingerprints),
            backup: rotation.backup,
            verify: rotation.verify,
            proof_nonce: rotation.pending.as_ref().map(|p| p.nonce.clone()),
        }
    }
}

impl VerificationProgress {
    fn of(pending: &Pending) -> Self {
        let SealShape { shares, threshold } = pending.shape;
        VerificationProgress {
            n: shares,
            nonce: pending.nonce.clone(),
            progress: pending.submitted.len(),
            started: true,
            t: threshold,
        }
    }

    /// The state of a verification before the shares are issued.
    pub(super) fn not_yet(shape: Option<SealShape>) -> Self {
        let shape = shape.unwrap_or(SealShape { shares: 0, threshold: 0 });
        VerificationProgress { n: shape.shares, nonce: String::new(), progress: 0, started: false, t: shape.threshold }
    }
}

impl NewShares {
    fn of(rotation: &Rekey, pending: Option<&Pending>, issued: IssuedShares) -> Self {
        NewShares {
            backup: rotation.backup,
            complete: true,
            keys: issued.hex(),
            keys_base64: issued.base64(),
            n: None,
            nonce: Some(rotation.nonce.clone()),
            pgp_fingerprints: issued.fingerprints,
            t: None,
            verification_required: rotation.verify,
            proof_nonce: pending.filter(|_| rotation.verify).map(|pending| pending.nonce.clone()),
        }
    }
}

/// The threshold of the current shares.
pub(super) async fn required_shares(cx: &Cx) -> Result<u8> {
    Ok(unsealed(cx)?.current_seal.seal_config().await?.shape().threshold)
}

pub(super) type Rotation = Arc<tokio::sync::Mutex<Option<Rekey>>>;

/// The rotation of this target.
pub(super) fn rotation_of(unsealed: &Unsealed, target: Target) -> Rotation {
    let seal = &unsealed.current_seal;
    match target {
        Target::Root => seal.rekey.clone(),
        Target::Recovery => seal.recovery_rekey.clone(),
    }
}

pub(super) async fn rekey_progress(cx: &Cx, words: &Wording) -> Result<Option<RekeyProgress>> {
    Ok(rotation_of(&*unsealed(cx)?, words.target).lock().await.as_ref().map(RekeyProgress::of))
}

/// Fails when the storage opens by Shamir shares alone, which has no recovery keys.
pub(super) async fn check_recovery(cx: &Cx) -> Result<()> {
    match unsealed(cx)?.current_seal.seal_config().await?.has_seals() {
        true => Ok(()),
        false => Err(Error::invalid(NO_RECOVERY_KEYS)),
    }
}

/// Begins a rotation. Without recovery keys the first ones are created at once: no share could authorize it.
pub(super) async fn begin_rekey(
    cx: &mut Cx,
    sys: &System,
    words: &Wording,
    req: &RekeyRequest,
) -> Result<Step<RekeyProgress, NewShares>> {
    let unsealed = unsealed(cx)?;
    let mut rotation = rotation_of(&unsealed, words.target).lock_owned().await;
    if rotation.is_some() {
        return Err(Error::invalid(format!("{} already in progress", words.name)));
    }
    let config = unsealed.current_seal.seal_config().await?;
    if words.target == Target::Root && config.has_seals() {
        req.check_root_only(words)?;
        return Ok(Step::Progress(RekeyProgress::of(rotation.insert(Rekey::new(None)))));
    }
    if words.target == Target::Recovery && !config.has_seals() {
        return Err(Error::invalid(NO_RECOVERY_KEYS));
    }
    let started = req.rotation(words, cx.now()).await?;
    if let (None, Some(shape)) = (&config.shares, started.shape) {
        return first_shares(cx, sys, unsealed, &Rekey { verify: false, ..started }, shape);
    }
    Ok(Step::Progress(RekeyProgress::of(rotation.insert(started))))
}

/// Creates the first recovery keys.
fn first_shares(
    cx: &mut Cx,
    sys: &System,
    unsealed: Arc<Unsealed>,
    rotation: &Rekey,
    shape: SealShape,
) -> Result<Step<RekeyProgress, NewShares>> {
    let seals = sys.lifecycle()?.seals.clone();
    let (pending, issued) = rotation.issue(shape, None)?;
    let (n, t) = (Some(shape.shares), Some(shape.threshold));
    let made = NewShares { n, t, nonce: None, ..NewShares::of(rotation, None, issued) };
    cx.after_record(move || async move { commit(&unsealed, &seals, Target::Recovery, &pending).await });
    Ok(Step::Done(made))
}

pub(super) async fn cancel_rekey(cx: &Cx, words: &Wording) -> Result<()> {
    *rotation_of(&*unsealed(cx)?, words.target).lock().await = None;
    Ok(())
}

/// Takes a share of the current kind. New shares without verification are valid once an audit device has the response:
/// a response that cannot be sent must not make lost shares the valid ones.
pub(super) async fn submit_share(
    cx: &mut Cx,
    sys: &System,
    words: &Wording,
    share: &SecretBytes,
    nonce: &str,
) -> Result<Step<RekeyProgress, NewShares>> {
    let unsealed = unsealed(cx)?;
    let mut slot = rotation_of(&unsealed, words.target).lock_owned().await;
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
    if rotation.submitted.progress() < usize::from(config.shape().threshold) {
        return Ok(Step::Progress(RekeyProgress::of(rotation)));
    }
    let Some(quorum) = config.quorum(&rotation.submitted.take()) else {
        return Err(Error::invalid(match config.has_seals() {
            true => WRONG_RECOVERY_KEY,
            false => "failed to read root key: the shares do not unseal",
        }));
    };
    let seals = sys.lifecycle()?.seals.clone();
    let Some(shape) = rotation.shape else {
        let made = NewShares::of(rotation, None, IssuedShares::default());
        cx.after_record(move || async move {
            change_root(&unsealed, &seals).await?;
            *slot = None;
            Ok(())
        });
        return Ok(Step::Done(made));
    };
    let (pending, issued) = rotation.issue(shape, Some(&quorum))?;
    let made = NewShares::of(rotation, Some(&pending), issued);
    let target = words.target;
    if rotation.verify {
        rotation.pending = Some(pending);
    } else {
        cx.after_record(move || async move {
            let committed = commit(&unsealed, &seals, target, &pending).await;
            end(&mut slot, committed)
        });
    }
    Ok(Step::Done(made))
}

/// The state of a verification.
pub(super) enum Verification {
    /// There is no rotation.
    NoRotation,
    /// Shares of this shape are not issued yet; `None` for a rotation without new shares.
    NotIssued(Option<SealShape>),
    /// Shares are being verified.
    Begun(VerificationProgress),
}

/// The progress of the verification.
pub(super) async fn verification_progress(cx: &Cx, words: &Wording) -> Result<Verification> {
    let rotation = rotation_of(&*unsealed(cx)?, words.target).lock_owned().await;
    Ok(match rotation.as_ref().map(|rotation| (&rotation.pending, rotation.shape)) {
        None => Verification::NoRotation,
        Some((None, shape)) => Verification::NotIssued(shape),
        Some((Some(pending), _)) => Verification::Begun(VerificationProgress::of(pending)),
    })
}

/// Restarts the verification; returns as [`verification_progress`].
pub(super) async fn restart_verification(cx: &Cx, words: &Wording) -> Result<Verification> {
    if let Some(pending) =
        rotation_of(&*unsealed(cx)?, words.target).lock().await.as_mut().and_then(|rotation| rotation.pending.as_mut())
    {
        pending.restart();
    }
    verification_progress(cx, words).await
}

/// Takes a share of the new kind. The new shares are valid once an audit device has the response to the last one.
pub(super) async fn verify_share(
    cx: &mut Cx,
    sys: &System,
    words: &Wording,
    share: SecretBytes,
    nonce: String,
) -> Result<Step<VerificationProgress, Verified>> {
    let unsealed = unsealed(cx)?;
    let mut slot = rotation_of(&unsealed, words.target).lock_owned().await;
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
    match pending.add_share(share) {
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
    let (seals, target) = (sys.lifecycle()?.seals.clone(), words.target);
    cx.after_record(move || async move {
        let committed = match slot.as_ref().and_then(|rotation| rotation.pending.as_ref()) {
            Some(pending) => commit(&unsealed, &seals, target, pending).await,
            None => Ok(()),
        };
        end(&mut slot, committed)
    });
    Ok(Step::Done(Verified { complete: true, nonce }))
}

/// Ends a rotation that is committed, or whose commit is refused however often it is repeated.
fn end(rotation: &mut Option<Rekey>, committed: Result<()>) -> Result<()> {
    if committed.as_ref().err().is_none_or(|error| error.status() == Status::BAD_REQUEST) {
        *rotation = None;
    }
    committed
}

/// Commits the new shares, which replace the old ones, with another root key and their backup.
async fn commit(unsealed: &Unsealed, seals: &Seals, target: Target, pending: &Pending) -> Result<()> {
    let Pending { shape, key, replaces, backup, .. } = pending;
    let (key, replaces) = (key.clone(), replaces.clone());
    let backup = backup.as_ref().map(|backup| backup.record(target.name())).transpose()?;
    let change = Change::NewShares { shape: *shape, key, replaces, root: random::key(), backup };
    unsealed.current_seal.change(&unsealed.barrier, change).await?;
    seals.check_slots();
    tracing::info!(shares = shape.shares, threshold = shape.threshold, "rekeyed: there are new shares");
    Ok(())
}

/// Commits another root key. The slots of seals get new keys afterwards, as soon as their seals respond.
pub(super) async fn change_root(unsealed: &Unsealed, seals: &Seals) -> Result<()> {
    unsealed.current_seal.change(&unsealed.barrier, Change::NewRoot(random::key())).await?;
    seals.check_slots();
    tracing::info!("root key rotated; the shares stay valid");
    Ok(())
}
