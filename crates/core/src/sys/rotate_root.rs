//! `sys/rotate/root` and `sys/rotate/recovery`: a new root key under the current shares, or new shares from a quorum of
//! the old ones.

use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Error, Result, Routes};
use serde::Serialize;

use super::rekey::{NewShares, RekeyProgress, Step, Verification, VerificationProgress, Verified};
use super::rekey_request::{RekeyRequest, ShareRequest, Target, Wording};
use super::{System, rekey, unsealed};
use crate::seal::SealShape;
use crate::seal::shares::decode_share;

const ROOT: Help = Help { synopsis: "Rotates the root key. The shares stay valid.", description: "" };
const INIT: Help = Help {
    synopsis: "Returns, starts or cancels a rekey: the replacement of the unseal key shares.",
    description: "The current shares stay valid until the rekey is complete and, with require_verification, verified.",
};
const UPDATE: Help = Help { synopsis: "Submits a current share of the unseal key to the rekey.", description: "" };
const VERIFY: Help = Help { synopsis: "Submits a new share to the verification of the rekey.", description: "" };

const RECOVERY_INIT: Help = Help {
    synopsis: "Returns, starts or cancels the replacement of the recovery keys.",
    description: "Without recovery keys, the first ones are created at once. The current ones stay valid until the rotation is complete and, with require_verification, verified.",
};
const RECOVERY_UPDATE: Help = Help { synopsis: "Submits a current recovery key to the rotation.", description: "" };
const RECOVERY_VERIFY: Help =
    Help { synopsis: "Submits a new recovery key to the verification of the rotation.", description: "" };

const ROOT_WORDS: Wording = Wording { target: Target::Root, ..WORDS };
const RECOVERY_WORDS: Wording = Wording { target: Target::Recovery, seal: "recovery", ..WORDS };
const WORDS: Wording = Wording {
    target: Target::Root,
    name: "rotation",
    doing: "rotating",
    seal: "rotate seal",
    absent: "no rotation in progress",
    finished: "rotation",
    operation: "rotation",
    collection: "rotation",
    refuses_repeats: false,
};

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("rotate/root", ROOT).update(rotate).sudo().once().sealable_namespaces_only();
    r.path("rotate/root/init", INIT).read(status).update(begin).delete(cancel).forwarded().sealable_namespaces_only();
    r.path("rotate/root/update", UPDATE).update(update).once().sealable_namespaces_only();
    r.path("rotate/root/verify", VERIFY)
        .read(proof)
        .update(verify)
        .delete(restart)
        .once()
        .forwarded()
        .sealable_namespaces_only();
    // The first recovery keys open the storage without another quorum.
    r.path("rotate/recovery/init", RECOVERY_INIT)
        .read(recovery_status)
        .update(begin_recovery)
        .delete(cancel_recovery)
        .sudo()
        .once()
        .forwarded()
        .sealable_namespaces_only();
    r.path("rotate/recovery/update", RECOVERY_UPDATE).update(update_recovery).once().sealable_namespaces_only();
    r.path("rotate/recovery/verify", RECOVERY_VERIFY)
        .read(recovery_proof)
        .update(verify_recovery)
        .delete(restart_recovery)
        .once()
        .forwarded()
        .sealable_namespaces_only();
}

#[derive(Serialize)]
struct Status {
    /// Only there for shares that are encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<bool>,
    n: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pgp_fingerprints: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<usize>,
    required: u8,
    started: bool,
    t: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    verification_nonce: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verification_required: Option<bool>,
}

#[derive(Serialize)]
struct NewSharesResponse {
    #[serde(flatten)]
    made: NewShares,
    verification_nonce: String,
}

impl Status {
    fn of(snapshot: Option<RekeyProgress>, required: u8) -> Self {
        let root_only = SealShape { shares: 1, threshold: 1 };
        let shape = snapshot.as_ref().map(|s| s.shape.unwrap_or(root_only));
        let mut status = Status {
            backup: None,
            n: shape.map_or(0, |s| s.shares),
            nonce: None,
            pgp_fingerprints: None,
            progress: None,
            required,
            started: snapshot.is_some(),
            t: shape.map_or(0, |s| s.threshold),
            verification_nonce: None,
            verification_required: None,
        };
        if let Some(snapshot) = snapshot {
            status.backup = snapshot.fingerprints.is_some().then_some(snapshot.backup);
            status.nonce = Some(snapshot.nonce);
            status.pgp_fingerprints = snapshot.fingerprints;
            status.progress = Some(snapshot.progress);
            status.verification_nonce = Some(snapshot.proof_nonce.unwrap_or_default());
            status.verification_required = Some(snapshot.verify);
        }
        status
    }
}

async fn rotate(sys: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    rekey::change_root(&*unsealed(cx)?, &sys.lifecycle()?.seals).await
}

async fn current(cx: &Cx, words: &Wording) -> Result<Data<Status>> {
    Ok(Data(Status::of(rekey::rekey_progress(cx, words).await?, rekey::required_shares(cx).await?)))
}

async fn started(sys: &System, cx: &mut Cx, words: &Wording, req: &RekeyRequest) -> Result<Data<Steps>> {
    let step = rekey::begin_rekey(cx, sys, words, req).await?;
    shown(cx, step).await
}

async fn submitted(sys: &System, cx: &mut Cx, words: &Wording, req: ShareRequest) -> Result<Data<Steps>> {
    let (share, nonce) = share(req)?;
    let step = rekey::submit_share(cx, sys, words, &share, &nonce).await?;
    shown(cx, step).await
}

type Steps = Step<Status, NewSharesResponse>;

async fn shown(cx: &Cx, step: Step<RekeyProgress, NewShares>) -> Result<Data<Steps>> {
    Ok(Data(match step {
        Step::Progress(snapshot) => Step::Progress(Status::of(Some(snapshot), rekey::required_shares(cx).await?)),
        Step::Done(made) => {
            let verification_nonce = made.proof_nonce.clone().unwrap_or_default();
            Step::Done(NewSharesResponse { made, verification_nonce })
        }
    }))
}

/// The share and the nonce of a request.
fn share(req: ShareRequest) -> Result<(SecretBytes, String)> {
    let Some(key) = req.key.filter(|k| !k.expose().is_empty()) else {
        return Err(Error::invalid("missing required field 'key'"));
    };
    let Some(nonce) = req.nonce.filter(|n| !n.is_empty()) else {
        return Err(Error::invalid("missing required field 'nonce'"));
    };
    let share = decode_share(key.expose())?;
    match share.expose().len() {
        0 | 1 => Err(Error::invalid("'key' must be a valid hex or base64 string")),
        2..=33 => Ok((share, nonce.0)),
        _ => Err(Error::invalid("invalid key: key is longer than maximum 33 bytes")),
    }
}

/// The progress of a verification, which needs issued shares.
fn verification_response(proof: Verification) -> Result<Data<VerificationProgress>> {
    match proof {
        Verification::Begun(proof) => Ok(Data(proof)),
        _ => Err(Error::invalid("no rotation configuration found")),
    }
}

async fn verified(
    sys: &System,
    cx: &mut Cx,
    words: &Wording,
    req: ShareRequest,
) -> Result<Data<Step<VerificationProgress, Verified>>> {
    let (share, nonce) = share(req)?;
    rekey::verify_share(cx, sys, words, share, nonce).await.map(Data)
}

async fn status(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<Status>> {
    current(cx, &ROOT_WORDS).await
}

async fn begin(sys: &System, cx: &mut Cx, req: RekeyRequest) -> Result<Data<Steps>> {
    started(sys, cx, &ROOT_WORDS, &req).await
}

async fn cancel(_: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    rekey::cancel_rekey(cx, &ROOT_WORDS).await
}

async fn update(sys: &System, cx: &mut Cx, req: ShareRequest) -> Result<Data<Steps>> {
    submitted(sys, cx, &ROOT_WORDS, req).await
}

async fn proof(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<VerificationProgress>> {
    verification_response(rekey::verification_progress(cx, &ROOT_WORDS).await?)
}

async fn restart(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<VerificationProgress>> {
    verification_response(rekey::restart_verification(cx, &ROOT_WORDS).await?)
}

async fn verify(sys: &System, cx: &mut Cx, req: ShareRequest) -> Result<Data<Step<VerificationProgress, Verified>>> {
    verified(sys, cx, &ROOT_WORDS, req).await
}

async fn recovery_status(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<Status>> {
    rekey::check_recovery(cx).await?;
    current(cx, &RECOVERY_WORDS).await
}

async fn begin_recovery(sys: &System, cx: &mut Cx, req: RekeyRequest) -> Result<Data<Steps>> {
    started(sys, cx, &RECOVERY_WORDS, &req).await
}

async fn cancel_recovery(_: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    rekey::cancel_rekey(cx, &RECOVERY_WORDS).await
}

async fn update_recovery(sys: &System, cx: &mut Cx, req: ShareRequest) -> Result<Data<Steps>> {
    submitted(sys, cx, &RECOVERY_WORDS, req).await
}

async fn recovery_proof(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<VerificationProgress>> {
    verification_response(rekey::verification_progress(cx, &RECOVERY_WORDS).await?)
}

async fn restart_recovery(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<VerificationProgress>> {
    verification_response(rekey::restart_verification(cx, &RECOVERY_WORDS).await?)
}

async fn verify_recovery(
    sys: &System,
    cx: &mut Cx,
    req: ShareRequest,
) -> Result<Data<Step<VerificationProgress, Verified>>> {
    verified(sys, cx, &RECOVERY_WORDS, req).await
}
