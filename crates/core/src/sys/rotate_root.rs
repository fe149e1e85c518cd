//! `sys/rotate/root`: a new root key under the same shares, or new shares from a quorum of the old ones.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::fields::{Flag, Int, SecretText, Strings, Text};
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Error, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::System;
use crate::seal::custody::is_quorum;
use crate::seal::rotation::{Pending, Rotation, give};
use crate::seal::shares::decode_share;
use crate::seal::{SealConfig, SealShape};
use crate::unsealed::Unsealed;

const ROOT: Help =
    Help { synopsis: "Puts the keyring under a new root key; the shares stay the same.", description: "" };
const INIT: Help = Help {
    synopsis: "New shares of the unseal key in the making.",
    description: "The old shares hold until the new ones are complete and, where so asked, verified.",
};
const UPDATE: Help = Help { synopsis: "Takes a share of the unseal key towards new shares.", description: "" };
const VERIFY: Help = Help { synopsis: "Takes a new share, as a proof that it arrived.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("rotate/root", ROOT).update(rotate).sudo().once();
    r.path("rotate/root/init", INIT).read(status).update(begin).delete(cancel);
    r.path("rotate/root/update", UPDATE).update(update).once();
    r.path("rotate/root/verify", VERIFY).read(proof).update(verify).delete(restart).once();
}

#[derive(Deserialize, JsonSchema)]
struct Begin {
    /// How many shares there will be.
    secret_shares: Option<Int>,
    /// How many of them will unseal.
    secret_threshold: Option<Int>,
    /// Not supported: shares are handed out in clear.
    pgp_keys: Option<Strings>,
    /// Without PGP nothing is kept.
    backup: Option<Flag>,
    /// Whether the new shares count only when a quorum of them was given back.
    require_verification: Option<Flag>,
}

#[derive(Deserialize, JsonSchema)]
struct Share {
    /// A share, in hex or base64.
    key: Option<SecretText>,
    /// The nonce of the operation.
    nonce: Option<Text>,
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
struct Made {
    backup: bool,
    complete: bool,
    keys: Vec<String>,
    keys_base64: Vec<String>,
    nonce: String,
    pgp_fingerprints: Option<Vec<String>>,
    verification_nonce: String,
    verification_required: bool,
}

#[derive(Serialize)]
struct Proof {
    n: u8,
    nonce: String,
    progress: usize,
    started: bool,
    t: u8,
}

#[derive(Serialize)]
struct Proved {
    complete: bool,
    nonce: String,
}

/// What a share brings: progress, or what it was all for.
#[derive(Serialize)]
#[serde(untagged)]
enum Step<P, D> {
    Progress(P),
    Done(D),
}

impl Status {
    fn of(rotation: Option<&Rotation>, required: u8) -> Self {
        let Some(rotation) = rotation else {
            return Status {
                n: 0,
                nonce: None,
                progress: None,
                required,
                started: false,
                t: 0,
                verification_nonce: None,
                verification_required: None,
            };
        };
        Status {
            n: rotation.shape.shares,
            nonce: Some(rotation.nonce.clone()),
            progress: Some(rotation.given.progress()),
            required,
            started: true,
            t: rotation.shape.threshold,
            verification_nonce: Some(rotation.pending.as_ref().map(|p| p.nonce.clone()).unwrap_or_default()),
            verification_required: Some(rotation.verify),
        }
    }
}

impl Proof {
    fn of(pending: &Pending) -> Self {
        let shape = pending.config.shape;
        let (n, t) = (shape.shares, shape.threshold);
        Proof { n, nonce: pending.nonce.clone(), progress: pending.given.len(), started: true, t }
    }
}

async fn rotate(sys: &System, _: &mut Cx, _: Nothing) -> Result<()> {
    let unsealed = sys.unsealed()?;
    unsealed.custody.change_root(&*sys.node()?, &unsealed.barrier).await
}

async fn status(sys: &System, _: &mut Cx, _: Nothing) -> Result<Data<Status>> {
    let required = sys.seal_config().await?.shape.threshold;
    let unsealed = sys.unsealed()?;
    let rotation = unsealed.custody.rotation.lock().await;
    Ok(Data(Status::of(rotation.as_ref(), required)))
}

async fn begin(sys: &System, _: &mut Cx, req: Begin) -> Result<Data<Status>> {
    let required = sys.seal_config().await?.shape.threshold;
    let unsealed = sys.unsealed()?;
    let mut rotation = unsealed.custody.rotation.lock().await;
    if rotation.is_some() {
        return Err(Error::invalid("rotation already in progress"));
    }
    let refused = |why: &str| Error::invalid(format!("invalid rotate seal configuration: {why}"));
    let number = |given: Option<Int>| given.map_or(0, |n| n.0);
    let shape = SealShape::check(number(req.secret_shares), number(req.secret_threshold)).map_err(refused)?;
    if req.pgp_keys.is_some_and(|k| !k.0.is_empty()) {
        return Err(refused("encrypting shares with PGP keys is not supported by this server"));
    }
    let flag = |given: Option<Flag>| given.is_some_and(|f| f.0);
    let begun = rotation.insert(Rotation::new(shape, flag(req.backup), flag(req.require_verification)));
    Ok(Data(Status::of(Some(begun), required)))
}

async fn cancel(sys: &System, _: &mut Cx, _: Nothing) -> Result<()> {
    *sys.unsealed()?.custody.rotation.lock().await = None;
    Ok(())
}

/// The share and the nonce of a request.
fn share(req: Share) -> Result<(SecretBytes, String)> {
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

async fn update(sys: &System, _: &mut Cx, req: Share) -> Result<Data<Step<Status, Made>>> {
    let (share, nonce) = share(req)?;
    let config = sys.seal_config().await?;
    let required = config.shape.threshold;
    let unsealed = sys.unsealed()?;
    let mut slot = unsealed.custody.rotation.lock().await;
    let Some(rotation) = slot.as_mut() else { return Err(Error::invalid("no rotation in progress")) };
    if let Some(pending) = &rotation.pending {
        return Err(Error::invalid(format!(
            "rotation already finished; verification must be performed; nonce for the verification operation is {:?}",
            pending.nonce
        )));
    }
    if rotation.nonce != nonce {
        let right = &rotation.nonce;
        return Err(Error::invalid(format!("incorrect nonce supplied; nonce for rotation is {right:?}")));
    }
    give(&mut rotation.given, &share, "rotation")?;
    if rotation.given.progress() < usize::from(required) {
        return Ok(Data(Step::Progress(Status::of(Some(rotation), required))));
    }
    if !is_quorum(&config, &rotation.given.take())? {
        return Err(Error::invalid("failed to read root key: the shares do not unseal"));
    }
    let made = hand_out(&unsealed, &config, rotation).await?;
    if !rotation.verify {
        *slot = None;
    }
    Ok(Data(Step::Done(made)))
}

/// Makes the new shares. They count at once, or when they were given back.
async fn hand_out(unsealed: &Unsealed, present: &SealConfig, rotation: &mut Rotation) -> Result<Made> {
    let (pending, shares) = rotation.make(present)?;
    let mut made = Made {
        backup: rotation.backup,
        complete: true,
        keys: shares.iter().map(|s| hex::encode(s.expose())).collect(),
        keys_base64: shares.iter().map(|s| STANDARD.encode(s.expose())).collect(),
        nonce: rotation.nonce.clone(),
        pgp_fingerprints: None,
        verification_nonce: String::new(),
        verification_required: rotation.verify,
    };
    if rotation.verify {
        made.verification_nonce.clone_from(&pending.nonce);
        rotation.pending = Some(pending);
    } else {
        commit(unsealed, &pending).await?;
    }
    Ok(made)
}

/// Makes the new shares count, and the old ones not.
async fn commit(unsealed: &Unsealed, pending: &Pending) -> Result<()> {
    let Pending { root, unseal_key, config, .. } = pending;
    unsealed.custody.change_shares(&unsealed.barrier, root, unseal_key.clone(), config).await?;
    tracing::info!(shares = config.shape.shares, threshold = config.shape.threshold, "the unseal key has new shares");
    Ok(())
}

async fn proof(sys: &System, _: &mut Cx, _: Nothing) -> Result<Data<Proof>> {
    let unsealed = sys.unsealed()?;
    let rotation = unsealed.custody.rotation.lock().await;
    let pending = rotation.as_ref().ok_or_else(nothing_to_verify)?.pending.as_ref();
    Ok(Data(Proof::of(pending.ok_or_else(nothing_to_verify)?)))
}

async fn restart(sys: &System, _: &mut Cx, _: Nothing) -> Result<Data<Proof>> {
    let unsealed = sys.unsealed()?;
    let mut rotation = unsealed.custody.rotation.lock().await;
    let pending = rotation.as_mut().ok_or_else(nothing_to_verify)?.pending.as_mut().ok_or_else(nothing_to_verify)?;
    pending.restart();
    Ok(Data(Proof::of(pending)))
}

fn nothing_to_verify() -> Error {
    Error::invalid("no rotation configuration found")
}

async fn verify(sys: &System, _: &mut Cx, req: Share) -> Result<Data<Step<Proof, Proved>>> {
    let (share, nonce) = share(req)?;
    let unsealed = sys.unsealed()?;
    let mut slot = unsealed.custody.rotation.lock().await;
    let Some(pending) = slot.as_mut().and_then(|r| r.pending.as_mut()) else {
        return Err(Error::invalid("no rotation in progress"));
    };
    if pending.nonce != nonce {
        let right = &pending.nonce;
        return Err(Error::invalid(format!("incorrect nonce supplied; nonce for this verify operation is {right:?}")));
    }
    match pending.give(share)? {
        None => return Ok(Data(Step::Progress(Proof::of(pending)))),
        Some(false) => {
            pending.restart();
            return Err(Error::invalid("rotation verification failed; incorrect key shares supplied"));
        }
        Some(true) => {}
    }
    // Taken out only when it is stored: a failure must not lose shares that people hold by now.
    commit(&unsealed, pending).await?;
    *slot = None;
    Ok(Data(Step::Done(Proved { complete: true, nonce })))
}
