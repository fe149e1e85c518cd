//! `sys/rekey/`, `sys/rekey-recovery-key/` and `sys/generate-root/`: the older forms of `sys/rotate/root/`,
//! `sys/rotate/recovery/` and `sys/generate-root-token/`, which need shares and no token. Any client could begin or cancel an operation here, so they are off unless the listener
//! enables them.

use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::fields::SecretText;
use keepfast_framework::reply::Raw;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Error, Result, Routes, Status, UnauthedEndpoints};
use serde::Serialize;

use super::generate_root::{GenerateRootRequest, RootProgress};
use super::rekey::{NewShares, RekeyProgress, Step, Verification};
use super::rekey_request::{RekeyRequest, ShareRequest, Target, Wording};
use super::{System, call, generate_root, rekey, unsealed};
use crate::seal::shares::decode_share;
use crate::token::id::SERVICE_LENGTH;

const REKEY: Help = Help {
    synopsis: "Rekeys the unseal key without a token.",
    description: "Disabled unless the listener sets disable_unauthed_rekey_endpoints = false. Use sys/rotate/root instead.",
};
const GENERATE: Help = Help {
    synopsis: "Generates a root token without a token.",
    description: "Disabled unless the listener sets disable_unauthed_generate_root_endpoints = false. Use sys/generate-root-token instead.",
};

const REKEY_RECOVERY: Help = Help {
    synopsis: "Replaces the recovery keys without a token.",
    description: "Disabled unless the listener sets disable_unauthed_rekey_endpoints = false. Use sys/rotate/recovery instead.",
};

const RECOVERY_WORDS: Wording =
    Wording { target: Target::Recovery, seal: "recovery", absent: "no recovery rekey in progress", ..ROOT_WORDS };
const ROOT_WORDS: Wording = Wording {
    target: Target::Root,
    name: "rekey",
    doing: "rekeying",
    seal: "rekey seal",
    absent: "no barrier rekey in progress",
    finished: "rekey operation",
    operation: "this rekey operation",
    collection: "generation operation",
    refuses_repeats: true,
};

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("rekey/init", REKEY)
        .read(status)
        .update(begin)
        .delete(cancel)
        .unauthenticated()
        .forwarded()
        .not_in_namespaces();
    r.path("rekey/update", REKEY).update(update).unauthenticated().once().not_in_namespaces();
    r.path("rekey/verify", REKEY)
        .read(proof)
        .update(verify)
        .delete(restart)
        .unauthenticated()
        .once()
        .forwarded()
        .not_in_namespaces();
    r.path("rekey-recovery-key/init", REKEY_RECOVERY)
        .read(recovery_status)
        .update(begin_recovery)
        .delete(cancel_recovery)
        .unauthenticated()
        .forwarded()
        .not_in_namespaces();
    r.path("rekey-recovery-key/update", REKEY_RECOVERY)
        .update(update_recovery)
        .unauthenticated()
        .once()
        .not_in_namespaces();
    r.path("rekey-recovery-key/verify", REKEY_RECOVERY)
        .read(recovery_proof)
        .update(verify_recovery)
        .delete(restart_recovery)
        .unauthenticated()
        .once()
        .forwarded()
        .not_in_namespaces();
    // The folder of both paths has help only.
    r.path("generate-root", GENERATE).hidden().not_in_namespaces();
    r.path("generate-root/attempt", GENERATE)
        .read(root_status)
        .update(begin_root)
        .delete(cancel_root)
        .unauthenticated()
        .forwarded()
        .not_in_namespaces();
    r.path("generate-root/update", GENERATE).update(update_root).unauthenticated().once().not_in_namespaces();
}

#[derive(Serialize)]
struct RekeyStatus {
    backup: bool,
    n: u8,
    nonce: String,
    pgp_fingerprints: Option<Vec<String>>,
    progress: usize,
    required: u8,
    started: bool,
    t: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    verification_nonce: Option<String>,
    verification_required: bool,
}

#[derive(Serialize)]
struct NewSharesResponse {
    #[serde(flatten)]
    made: NewShares,
    #[serde(skip_serializing_if = "Option::is_none")]
    verification_nonce: Option<String>,
}

#[derive(Serialize)]
struct GenerateRootStatus {
    complete: bool,
    encoded_root_token: String,
    encoded_token: String,
    nonce: String,
    otp: String,
    otp_length: usize,
    pgp_fingerprint: String,
    progress: usize,
    required: u8,
    started: bool,
}

impl RekeyStatus {
    fn of(snapshot: Option<RekeyProgress>, required: u8) -> Self {
        let shape = snapshot.as_ref().and_then(|s| s.shape);
        let (backup, verify) = snapshot.as_ref().map_or((false, false), |s| (s.backup, s.verify));
        let progress = snapshot.as_ref().map_or(0, |s| s.progress);
        let started = snapshot.is_some();
        let of_snapshot = |s: RekeyProgress| (s.nonce, s.proof_nonce, s.fingerprints);
        let (nonce, verification_nonce, pgp_fingerprints) = snapshot.map(of_snapshot).unwrap_or_default();
        RekeyStatus {
            backup,
            n: shape.map_or(0, |s| s.shares),
            nonce,
            pgp_fingerprints,
            progress,
            required,
            started,
            t: shape.map_or(0, |s| s.threshold),
            verification_nonce,
            verification_required: verify,
        }
    }
}

impl GenerateRootStatus {
    fn of(snapshot: Option<RootProgress>, required: u8) -> Self {
        let started = snapshot.is_some();
        let RootProgress { nonce, progress, otp, fingerprint } = snapshot.unwrap_or_default();
        GenerateRootStatus {
            complete: false,
            encoded_root_token: String::new(),
            encoded_token: String::new(),
            nonce,
            otp,
            otp_length: SERVICE_LENGTH,
            pgp_fingerprint: fingerprint,
            progress,
            required,
            started,
        }
    }
}

/// A response without the envelope.
fn plain<T: Serialize>(value: &T) -> Result<Raw> {
    Ok(Raw {
        status: Status::OK,
        content_type: "application/json",
        body: serde_json::to_vec(value)?,
        headers: Vec::new(),
    })
}

/// Refuses paths that the listener does not enable.
fn check_open(cx: &Cx, is_open: fn(UnauthedEndpoints) -> bool) -> Result<()> {
    if is_open(call(cx)?.facts.open) {
        return Ok(());
    }
    Err(Error::new(Status::METHOD_NOT_ALLOWED, "unsupported operation"))
}

fn check_rekey(cx: &Cx) -> Result<()> {
    check_open(cx, |open| open.rekey)
}

fn check_generate_root(cx: &Cx) -> Result<()> {
    check_open(cx, |open| open.generate_root)
}

fn submitted(req: ShareRequest) -> Result<(SecretText, String)> {
    let missing = || Error::invalid("'key' must be specified in request body as JSON");
    let key = req.key.filter(|k| !k.expose().is_empty()).ok_or_else(missing)?;
    Ok((key, req.nonce.map(|n| n.0).unwrap_or_default()))
}

/// The share and the nonce of a request.
fn share(req: ShareRequest) -> Result<(SecretBytes, String)> {
    let (key, nonce) = submitted(req)?;
    let share = decode_share(key.expose())?;
    match share.expose().len() {
        ..16 => Err(Error::invalid("key is shorter than minimum 16 bytes")),
        16..=33 => Ok((share, nonce)),
        _ => Err(Error::invalid("key is longer than maximum 33 bytes")),
    }
}

async fn current(cx: &Cx, words: &Wording) -> Result<Raw> {
    check_rekey(cx)?;
    plain(&RekeyStatus::of(rekey::rekey_progress(cx, words).await?, rekey::required_shares(cx).await?))
}

async fn started(sys: &System, cx: &mut Cx, words: &Wording, req: RekeyRequest) -> Result<Raw> {
    check_rekey(cx)?;
    let keys = req.pgp_keys();
    if req.has_backup() && keys.is_empty() {
        let why = "cannot request a backup of the new keys without providing PGP keys for encryption";
        return Err(Error::invalid(why));
    }
    if !keys.is_empty() && i64::try_from(keys.len()).ok() != Some(req.secret_shares()) {
        return Err(Error::invalid("incorrect number of PGP keys for rekey"));
    }
    let config = unsealed(cx)?.current_seal.seal_config().await?;
    if words.target == Target::Root && config.has_seals() && !keys.is_empty() {
        let why = "PGP key encryption not supported when rekeying the barrier key with recovery keys";
        return Err(Error::invalid(why));
    }
    if words.target == Target::Recovery && config.shares.is_none() {
        // Nothing would authorize the first ones here.
        return Err(Error::invalid("there are no recovery keys: create them with sys/rotate/recovery"));
    }
    let step = rekey::begin_rekey(cx, sys, words, &req).await?;
    shown(cx, step).await
}

async fn advanced(sys: &System, cx: &mut Cx, words: &Wording, req: ShareRequest) -> Result<Raw> {
    check_rekey(cx)?;
    let (share, nonce) = share(req)?;
    let step = rekey::submit_share(cx, sys, words, &share, &nonce).await?;
    shown(cx, step).await
}

async fn shown(cx: &Cx, step: Step<RekeyProgress, NewShares>) -> Result<Raw> {
    match step {
        Step::Progress(snapshot) => plain(&RekeyStatus::of(Some(snapshot), rekey::required_shares(cx).await?)),
        Step::Done(made) => {
            let verification_nonce = made.proof_nonce.clone();
            plain(&NewSharesResponse { made, verification_nonce })
        }
    }
}

async fn proof_response(cx: &Cx, words: &Wording, restarts: bool) -> Result<Raw> {
    check_rekey(cx)?;
    let proof = match restarts {
        true => rekey::restart_verification(cx, words).await?,
        false => rekey::verification_progress(cx, words).await?,
    };
    match proof {
        Verification::Begun(proof) => plain(&proof),
        Verification::NotIssued(shape) => plain(&rekey::VerificationProgress::not_yet(shape)),
        Verification::NoRotation => Err(Error::invalid("no rekey configuration found")),
    }
}

async fn verified(sys: &System, cx: &mut Cx, words: &Wording, req: ShareRequest) -> Result<Raw> {
    check_rekey(cx)?;
    let (share, nonce) = share(req)?;
    plain(&rekey::verify_share(cx, sys, words, share, nonce).await?)
}

async fn status(_: &System, cx: &mut Cx, _: Nothing) -> Result<Raw> {
    current(cx, &ROOT_WORDS).await
}

async fn begin(sys: &System, cx: &mut Cx, req: RekeyRequest) -> Result<Raw> {
    started(sys, cx, &ROOT_WORDS, req).await
}

async fn cancel(_: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    check_rekey(cx)?;
    rekey::cancel_rekey(cx, &ROOT_WORDS).await
}

async fn update(sys: &System, cx: &mut Cx, req: ShareRequest) -> Result<Raw> {
    advanced(sys, cx, &ROOT_WORDS, req).await
}

async fn proof(_: &System, cx: &mut Cx, _: Nothing) -> Result<Raw> {
    proof_response(cx, &ROOT_WORDS, false).await
}

async fn restart(_: &System, cx: &mut Cx, _: Nothing) -> Result<Raw> {
    proof_response(cx, &ROOT_WORDS, true).await
}

async fn verify(sys: &System, cx: &mut Cx, req: ShareRequest) -> Result<Raw> {
    verified(sys, cx, &ROOT_WORDS, req).await
}

async fn recovery_status(_: &System, cx: &mut Cx, _: Nothing) -> Result<Raw> {
    current(cx, &RECOVERY_WORDS).await
}

async fn begin_recovery(sys: &System, cx: &mut Cx, req: RekeyRequest) -> Result<Raw> {
    started(sys, cx, &RECOVERY_WORDS, req).await
}

async fn cancel_recovery(_: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    check_rekey(cx)?;
    rekey::cancel_rekey(cx, &RECOVERY_WORDS).await
}

async fn update_recovery(sys: &System, cx: &mut Cx, req: ShareRequest) -> Result<Raw> {
    advanced(sys, cx, &RECOVERY_WORDS, req).await
}

async fn recovery_proof(_: &System, cx: &mut Cx, _: Nothing) -> Result<Raw> {
    proof_response(cx, &RECOVERY_WORDS, false).await
}

async fn restart_recovery(_: &System, cx: &mut Cx, _: Nothing) -> Result<Raw> {
    proof_response(cx, &RECOVERY_WORDS, true).await
}

async fn verify_recovery(sys: &System, cx: &mut Cx, req: ShareRequest) -> Result<Raw> {
    verified(sys, cx, &RECOVERY_WORDS, req).await
}

async fn root_status(_: &System, cx: &mut Cx, _: Nothing) -> Result<Raw> {
    check_generate_root(cx)?;
    plain(&GenerateRootStatus::of(
        generate_root::root_generation_progress(cx).await?,
        rekey::required_shares(cx).await?,
    ))
}

async fn begin_root(_: &System, cx: &mut Cx, req: GenerateRootRequest) -> Result<Raw> {
    check_generate_root(cx)?;
    let current = generate_root::begin_root(cx, req).await?;
    plain(&GenerateRootStatus::of(Some(current), rekey::required_shares(cx).await?))
}

async fn cancel_root(_: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    check_generate_root(cx)?;
    generate_root::cancel_root(cx).await
}

async fn update_root(_: &System, cx: &mut Cx, req: ShareRequest) -> Result<Raw> {
    check_generate_root(cx)?;
    let (key, nonce) = submitted(req)?;
    let (snapshot, token) = generate_root::submit_root_share(cx, key.expose(), &nonce).await?;
    let required = rekey::required_shares(cx).await?;
    let complete = token.is_some();
    let encoded = token.unwrap_or_default();
    plain(&GenerateRootStatus {
        complete,
        encoded_root_token: encoded.clone(),
        encoded_token: encoded,
        otp_length: 0,
        ..GenerateRootStatus::of(Some(snapshot), required)
    })
}
