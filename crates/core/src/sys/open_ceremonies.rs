//! `sys/rekey/` and `sys/generate-root/`: the older forms of `sys/rotate/root/` and `sys/generate-root-token/`, which
//! need shares and no token. Any client could begin or cancel an operation here, so they are off unless the listener
//! enables them.

use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::fields::SecretText;
use keepfast_framework::reply::Raw;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Error, OpenCeremonies, Result, Routes, Status};
use serde::Serialize;

use super::generate_root::{Begin as BeginRoot, Standing as RootStanding};
use super::new_shares::{Begin, Made, Proof, Share, Standing, Step, Words};
use super::{System, call, generate_root, new_shares};
use crate::seal::SealShape;
use crate::seal::shares::decode_share;
use crate::token::id::SERVICE_LENGTH;

const REKEY: Help = Help {
    synopsis: "New shares of the unseal key in the making, without a token.",
    description: "Off unless the listener has disable_unauthed_rekey_endpoints = false. Use sys/rotate/root.",
};
const GENERATE: Help = Help {
    synopsis: "A new root token in the making, without a token.",
    description: "Off unless the listener has disable_unauthed_generate_root_endpoints = false. Use sys/generate-root-token.",
};

const WORDS: Words = Words {
    name: "rekey",
    seal: "rekey",
    absent: "no barrier rekey in progress",
    finished: "rekey operation",
    operation: "this rekey operation",
    collection: "generation operation",
    refuses_repeats: true,
};

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("rekey/init", REKEY).read(status).update(begin).delete(cancel).unauthenticated();
    r.path("rekey/update", REKEY).update(update).unauthenticated().once();
    r.path("rekey/verify", REKEY).read(proof).update(verify).delete(restart).unauthenticated().once();
    // The folder of both paths has help only.
    r.path("generate-root", GENERATE).hidden();
    r.path("generate-root/attempt", GENERATE)
        .read(root_status)
        .update(begin_root)
        .delete(cancel_root)
        .unauthenticated();
    r.path("generate-root/update", GENERATE).update(update_root).unauthenticated().once();
}

#[derive(Serialize)]
struct Rekeying {
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
struct HandedOut {
    #[serde(flatten)]
    made: Made,
    #[serde(skip_serializing_if = "Option::is_none")]
    verification_nonce: Option<String>,
}

#[derive(Serialize)]
struct Generating {
    complete: bool,
    encoded_root_token: String,
    encoded_token: String,
    nonce: String,
    otp: String,
    otp_length: usize,
    pgp_fingerprint: &'static str,
    progress: usize,
    required: u8,
    started: bool,
}

impl Rekeying {
    fn of(standing: Option<Standing>, required: u8) -> Self {
        let shape = standing.as_ref().map(|s| s.shape);
        let (backup, verify) = standing.as_ref().map_or((false, false), |s| (s.backup, s.verify));
        let progress = standing.as_ref().map_or(0, |s| s.progress);
        let started = standing.is_some();
        let (nonce, verification_nonce) = standing.map(|s| (s.nonce, s.proof_nonce)).unwrap_or_default();
        Rekeying {
            backup,
            n: shape.map_or(0, |s| s.shares),
            nonce,
            pgp_fingerprints: None,
            progress,
            required,
            started,
            t: shape.map_or(0, |s| s.threshold),
            verification_nonce,
            verification_required: verify,
        }
    }
}

impl Generating {
    fn of(standing: Option<RootStanding>, required: u8) -> Self {
        let started = standing.is_some();
        let RootStanding { nonce, progress, otp } =
            standing.unwrap_or_else(|| RootStanding { nonce: String::new(), progress: 0, otp: String::new() });
        Generating {
            complete: false,
            encoded_root_token: String::new(),
            encoded_token: String::new(),
            nonce,
            otp,
            otp_length: SERVICE_LENGTH,
            pgp_fingerprint: "",
            progress,
            required,
            started,
        }
    }
}

/// A response without the envelope.
fn plain<T: Serialize>(value: &T) -> Result<Raw> {
    Ok(Raw { status: Status::OK, content_type: "application/json", body: serde_json::to_vec(value)? })
}

/// Refuses paths that the listener does not enable.
fn check_open(cx: &Cx, is_open: fn(OpenCeremonies) -> bool) -> Result<()> {
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

fn given(req: Share) -> Result<(SecretText, String)> {
    let missing = || Error::invalid("'key' must be specified in request body as JSON");
    let key = req.key.filter(|k| !k.expose().is_empty()).ok_or_else(missing)?;
    Ok((key, req.nonce.map(|n| n.0).unwrap_or_default()))
}

/// The share and the nonce of a request.
fn share(req: Share) -> Result<(SecretBytes, String)> {
    let (key, nonce) = given(req)?;
    let share = decode_share(key.expose())?;
    match share.expose().len() {
        ..16 => Err(Error::invalid("key is shorter than minimum 16 bytes")),
        16..=33 => Ok((share, nonce)),
        _ => Err(Error::invalid("key is longer than maximum 33 bytes")),
    }
}

async fn status(_: &System, cx: &mut Cx, _: Nothing) -> Result<Raw> {
    check_rekey(cx)?;
    plain(&Rekeying::of(new_shares::new_shares(cx).await?, new_shares::required_shares(cx).await?))
}

async fn begin(_: &System, cx: &mut Cx, req: Begin) -> Result<Raw> {
    check_rekey(cx)?;
    if req.wants_backup() && !req.has_pgp_keys() {
        let why = "cannot request a backup of the new keys without providing PGP keys for encryption";
        return Err(Error::invalid(why));
    }
    let begun = new_shares::begin_new_shares(cx, &WORDS, &req).await?;
    plain(&Rekeying::of(Some(begun), new_shares::required_shares(cx).await?))
}

async fn cancel(_: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    check_rekey(cx)?;
    new_shares::cancel_new_shares(cx).await
}

async fn update(_: &System, cx: &mut Cx, req: Share) -> Result<Raw> {
    check_rekey(cx)?;
    let (share, nonce) = share(req)?;
    match new_shares::give_old_share(cx, &WORDS, &share, &nonce).await? {
        Step::Progress(standing) => plain(&Rekeying::of(Some(standing), new_shares::required_shares(cx).await?)),
        Step::Done(made) => {
            let verification_nonce = made.proof_nonce.clone();
            plain(&HandedOut { made, verification_nonce })
        }
    }
}

fn proof_response(proof: Option<Result<Proof, SealShape>>) -> Result<Raw> {
    match proof {
        Some(proof) => plain(&proof.unwrap_or_else(Proof::not_yet)),
        None => Err(Error::invalid("no rekey configuration found")),
    }
}

async fn proof(_: &System, cx: &mut Cx, _: Nothing) -> Result<Raw> {
    check_rekey(cx)?;
    proof_response(new_shares::proof_of_new_shares(cx).await?)
}

async fn restart(_: &System, cx: &mut Cx, _: Nothing) -> Result<Raw> {
    check_rekey(cx)?;
    proof_response(new_shares::restart_proof(cx).await?)
}

async fn verify(_: &System, cx: &mut Cx, req: Share) -> Result<Raw> {
    check_rekey(cx)?;
    let (share, nonce) = share(req)?;
    plain(&new_shares::give_new_share(cx, &WORDS, share, nonce).await?)
}

async fn root_status(_: &System, cx: &mut Cx, _: Nothing) -> Result<Raw> {
    check_generate_root(cx)?;
    plain(&Generating::of(generate_root::root_in_the_making(cx).await?, new_shares::required_shares(cx).await?))
}

async fn begin_root(_: &System, cx: &mut Cx, req: BeginRoot) -> Result<Raw> {
    check_generate_root(cx)?;
    let begun = generate_root::begin_root(cx, req).await?;
    plain(&Generating::of(Some(begun), new_shares::required_shares(cx).await?))
}

async fn cancel_root(_: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    check_generate_root(cx)?;
    generate_root::cancel_root(cx).await
}

async fn update_root(_: &System, cx: &mut Cx, req: Share) -> Result<Raw> {
    check_generate_root(cx)?;
    let (key, nonce) = given(req)?;
    let (standing, token) = generate_root::give_share_for_root(cx, key.expose(), &nonce).await?;
    let required = new_shares::required_shares(cx).await?;
    let complete = token.is_some();
    let encoded = token.unwrap_or_default();
    plain(&Generating {
        complete,
        encoded_root_token: encoded.clone(),
        encoded_token: encoded,
        otp_length: 0,
        ..Generating::of(Some(standing), required)
    })
}
