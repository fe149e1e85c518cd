//! `sys/rotate/root`: a new root key under the current shares, or new shares from a quorum of the old ones.

use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Error, Result, Routes};
use serde::Serialize;

use super::rekey::{
    NewShares, RekeyProgress, RekeyRequest, ShareRequest, Step, VerificationProgress, Verified, Wording,
};
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

const WORDS: Wording = Wording {
    name: "rotation",
    seal: "rotate",
    absent: "no rotation in progress",
    finished: "rotation",
    operation: "rotation",
    collection: "rotation",
    refuses_repeats: false,
};

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("rotate/root", ROOT).update(rotate).sudo().once();
    r.path("rotate/root/init", INIT).read(status).update(begin).delete(cancel).forwarded();
    r.path("rotate/root/update", UPDATE).update(update).once();
    r.path("rotate/root/verify", VERIFY).read(proof).update(verify).delete(restart).once().forwarded();
}

#[derive(Serialize)]
struct Status {
    n: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
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
        let shape = snapshot.as_ref().map(|s| s.shape);
        let mut status = Status {
            n: shape.map_or(0, |s| s.shares),
            nonce: None,
            progress: None,
            required,
            started: snapshot.is_some(),
            t: shape.map_or(0, |s| s.threshold),
            verification_nonce: None,
            verification_required: None,
        };
        if let Some(snapshot) = snapshot {
            status.nonce = Some(snapshot.nonce);
            status.progress = Some(snapshot.progress);
            status.verification_nonce = Some(snapshot.proof_nonce.unwrap_or_default());
            status.verification_required = Some(snapshot.verify);
        }
        status
    }
}

async fn rotate(_: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    let unsealed = unsealed(cx)?;
    unsealed.current_seal.change_root(&unsealed.barrier).await?;
    tracing::info!("root key rotated; the shares stay valid");
    Ok(())
}

async fn status(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<Status>> {
    Ok(Data(Status::of(rekey::rekey_progress(cx).await?, rekey::required_shares(cx).await?)))
}

async fn begin(_: &System, cx: &mut Cx, req: RekeyRequest) -> Result<Data<Status>> {
    let current = rekey::begin_rekey(cx, &WORDS, &req).await?;
    Ok(Data(Status::of(Some(current), rekey::required_shares(cx).await?)))
}

async fn cancel(_: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    rekey::cancel_rekey(cx).await
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

async fn update(_: &System, cx: &mut Cx, req: ShareRequest) -> Result<Data<Step<Status, NewSharesResponse>>> {
    let (share, nonce) = share(req)?;
    Ok(Data(match rekey::submit_share(cx, &WORDS, &share, &nonce).await? {
        Step::Progress(snapshot) => Step::Progress(Status::of(Some(snapshot), rekey::required_shares(cx).await?)),
        Step::Done(made) => {
            let verification_nonce = made.proof_nonce.clone().unwrap_or_default();
            Step::Done(NewSharesResponse { made, verification_nonce })
        }
    }))
}

/// The progress of a verification, which needs issued shares.
fn verification_response(proof: Option<Result<VerificationProgress, SealShape>>) -> Result<Data<VerificationProgress>> {
    match proof {
        Some(Ok(proof)) => Ok(Data(proof)),
        _ => Err(Error::invalid("no rotation configuration found")),
    }
}

async fn proof(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<VerificationProgress>> {
    verification_response(rekey::verification_progress(cx).await?)
}

async fn restart(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<VerificationProgress>> {
    verification_response(rekey::restart_verification(cx).await?)
}

async fn verify(_: &System, cx: &mut Cx, req: ShareRequest) -> Result<Data<Step<VerificationProgress, Verified>>> {
    let (share, nonce) = share(req)?;
    rekey::verify_share(cx, &WORDS, share, nonce).await.map(Data)
}
