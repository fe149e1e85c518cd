//! `sys/generate-root-token/` and `sys/decode-token`: generates a root token from a quorum of the shares.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use keepfast_crypto::random;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::fields::{SecretText, Text};
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Error, Result, Routes, Timestamp};
use keepfast_storage::Tx;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rekey::{WRONG_RECOVERY_KEY, required_shares};
use super::rekey_request::ShareRequest;
use super::tools::base64_fault;
use super::{System, unsealed};
use crate::seal::generate_root::{self, Delivery, RootGeneration};
use crate::seal::pgp::certificate;
use crate::seal::rekey::add_share;
use crate::seal::shares::{check_share, decode_share};
use crate::seal::slots::current_root;
use crate::token::Authority;
use crate::token::create::Spec;
use crate::token::id::SERVICE_LENGTH;
use crate::token::record::FIRST_TOKEN_PATH;
use crate::unsealed::Unsealed;

const ATTEMPT: Help = Help {
    synopsis: "Reads, starts or cancels the generation of a root token.",
    description: "The response to the last share contains the token, encrypted with the OTP or to the PGP key of the attempt.",
};
const UPDATE: Help = Help { synopsis: "Submits a share of the unseal key to generate a root token.", description: "" };
const DECODE: Help = Help { synopsis: "Decrypts a generated root token with its OTP.", description: "" };

/// Reads base64 as OpenBao does: the unused bits of the last character may have any value.
const LENIENT_NO_PAD: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, NO_PAD.with_decode_allow_trailing_bits(true));

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("generate-root-token/attempt", ATTEMPT)
        .read(status)
        .update(begin)
        .delete(cancel)
        .forwarded()
        .sealable_namespaces_only();
    r.path("generate-root-token/update", UPDATE).update(update).once().sealable_namespaces_only();
    r.path("decode-token", DECODE).update(decode).unauthenticated().here();
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct GenerateRootRequest {
    /// The one-time password that encrypts the token; it has the length of a token. Default: a generated one, which the
    /// response contains.
    otp: Option<SecretText>,
    /// The PGP public key to which the token is encrypted, in base64 without armor. Without effect if there is an OTP.
    pgp_key: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
struct Decode {
    /// The encoded token, from the response to the last share.
    encoded_token: Option<SecretText>,
    /// The one-time password of the attempt.
    otp: Option<SecretText>,
}

#[derive(Serialize)]
struct Progress {
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoded_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    otp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    otp_length: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pgp_fingerprint: Option<String>,
    progress: usize,
    required: u8,
    started: bool,
}

impl Progress {
    fn of(snapshot: Option<&RootProgress>, required: u8) -> Self {
        Progress {
            complete: false,
            encoded_token: None,
            nonce: snapshot.map(|s| s.nonce.clone()),
            otp: Some(String::new()),
            otp_length: Some(SERVICE_LENGTH),
            pgp_fingerprint: snapshot.map(|s| s.fingerprint.clone()),
            progress: snapshot.map_or(0, |s| s.progress),
            required,
            started: snapshot.is_some(),
        }
    }

    /// The response to a share; with the token after the last one.
    fn after(snapshot: &RootProgress, required: u8, token: Option<String>) -> Self {
        Progress {
            complete: token.is_some(),
            encoded_token: Some(token.unwrap_or_default()),
            otp: None,
            otp_length: None,
            ..Progress::of(Some(snapshot), required)
        }
    }
}

#[derive(Serialize)]
struct Decoded {
    token: String,
}

async fn status(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<Progress>> {
    Ok(Data(Progress::of(root_generation_progress(cx).await?.as_ref(), required_shares(cx).await?)))
}

async fn begin(_: &System, cx: &mut Cx, req: GenerateRootRequest) -> Result<Data<Progress>> {
    let current = begin_root(cx, req).await?;
    let otp = current.otp.clone();
    Ok(Data(Progress { otp: Some(otp), ..Progress::of(Some(&current), required_shares(cx).await?) }))
}

async fn cancel(_: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    cancel_root(cx).await
}

async fn update(_: &System, cx: &mut Cx, req: ShareRequest) -> Result<Data<Progress>> {
    let Some(nonce) = req.nonce.filter(|n| !n.is_empty()) else { return Err(Error::invalid("nonce is required")) };
    let Some(key) = req.key.filter(|k| !k.expose().is_empty()) else { return Err(Error::invalid("key is required")) };
    let (snapshot, token) = submit_root_share(cx, key.expose(), &nonce).await?;
    Ok(Data(Progress::after(&snapshot, required_shares(cx).await?, token)))
}

async fn decode(_: &System, _: &mut Cx, req: Decode) -> Result<Data<Decoded>> {
    let submitted = |text: Option<SecretText>| text.map(|t| t.0).filter(|t| !t.expose().is_empty());
    let (Some(encoded), Some(otp)) = (submitted(req.encoded_token), submitted(req.otp)) else {
        return Err(Error::invalid("provided 'encoded_token' or 'otp' is empty"));
    };
    let decoded = LENIENT_NO_PAD
        .decode(encoded.expose())
        .map_err(|e| Error::invalid(format!("error decoding base64'd token: {}", base64_fault(&e))))?;
    let token = generate_root::decode(SecretBytes::new(decoded).expose(), otp.expose())?;
    Ok(Data(Decoded { token: token.expose().clone() }))
}

/// A snapshot of the progress of a root token generation.
#[derive(Default)]
pub(super) struct RootProgress {
    pub(super) nonce: String,
    pub(super) progress: usize,
    /// The one-time pad for the caller that began the attempt, when the server generated it; empty otherwise.
    pub(super) otp: String,
    /// The fingerprint of the certificate to which the token is encrypted; empty for one under a one-time pad.
    pub(super) fingerprint: String,
}

impl RootProgress {
    fn of(generation: &RootGeneration, progress: usize) -> Self {
        let fingerprint = generation.fingerprint().to_owned();
        RootProgress { nonce: generation.nonce.clone(), progress, otp: String::new(), fingerprint }
    }
}

pub(super) async fn root_generation_progress(cx: &Cx) -> Result<Option<RootProgress>> {
    let unsealed = unsealed(cx)?;
    let generation = unsealed.current_seal.root_generation.lock().await;
    Ok(generation.as_ref().map(|g| RootProgress::of(g, g.submitted.progress())))
}

pub(super) async fn begin_root(cx: &Cx, request: GenerateRootRequest) -> Result<RootProgress> {
    let pad = request.otp.map(|t| t.0).filter(|t| !t.expose().is_empty());
    let key = request.pgp_key.filter(|key| !key.is_empty());
    let (current, otp) = match (pad, key) {
        (None, Some(key)) => {
            let certificate = certificate(&key, cx.now()).await;
            let refused = |error| Error::invalid(format!("error parsing PGP key: {error}"));
            (RootGeneration::to(Delivery::Pgp(certificate.map_err(refused)?))?, String::new())
        }
        (Some(pad), _) => (RootGeneration::to(Delivery::Otp(pad))?, String::new()),
        (None, None) => {
            let pad = SecretString::new(random::base62(SERVICE_LENGTH));
            let otp = pad.expose().clone();
            (RootGeneration::to(Delivery::Otp(pad))?, otp)
        }
    };
    let unsealed = unsealed(cx)?;
    let mut generation = unsealed.current_seal.root_generation.lock().await;
    if generation.is_some() {
        return Err(Error::invalid("root generation already in progress for this namespace"));
    }
    let current = generation.insert(current);
    Ok(RootProgress { otp, ..RootProgress::of(current, 0) })
}

pub(super) async fn cancel_root(cx: &Cx) -> Result<()> {
    *unsealed(cx)?.current_seal.root_generation.lock().await = None;
    Ok(())
}

/// Takes a share; the last one returns the new encoded token. The token is valid once an audit device has the response.
pub(super) async fn submit_root_share(cx: &mut Cx, key: &str, nonce: &str) -> Result<(RootProgress, Option<String>)> {
    let share = decode_share(key)?;
    check_share(&share)?;
    let unsealed = unsealed(cx)?;
    let mut slot = unsealed.current_seal.root_generation.clone().lock_owned().await;
    // Read under the lock: the shares may have changed while this request waited.
    let config = unsealed.current_seal.seal_config().await?;
    let Some(generation) = slot.as_mut() else { return Err(Error::invalid("no root generation in progress")) };
    if generation.nonce != nonce {
        return Err(Error::invalid(format!(
            "incorrect nonce supplied; nonce for this root generation operation is {:?}",
            generation.nonce
        )));
    }
    add_share(&mut generation.submitted, &share, "generation operation")?;
    let snapshot = RootProgress::of(generation, generation.submitted.progress());
    if snapshot.progress < usize::from(config.shape().threshold) {
        return Ok((snapshot, None));
    }
    // The record may have been changed by someone without the root key.
    current_root(&config, &unsealed.barrier, &unsealed.current_seal.known_keys())?;
    if config.quorum(&generation.submitted.take()).is_none() {
        let why = if config.has_seals() { WRONG_RECOVERY_KEY } else { "the shares do not unseal" };
        return Err(Error::invalid(format!("root generation aborted: unable to authenticate: {why}")));
    }
    let mut tx = unsealed.barrier.begin();
    let token = generation.encode(&root_token(&unsealed, &mut tx, cx.now()).await?)?;
    cx.after_record(move || async move {
        tx.commit().await?;
        *slot = None;
        tracing::info!("root token generated");
        Ok(())
    });
    Ok((snapshot, Some(token)))
}

/// Creates a root token like the one of the initialization.
async fn root_token(unsealed: &Unsealed, tx: &mut Tx, now: Timestamp) -> Result<SecretString> {
    let spec = Spec {
        authority: Authority::Root,
        path: FIRST_TOKEN_PATH.to_owned(),
        display_name: "root".to_owned(),
        ttl: None,
        ..Spec::default()
    };
    Ok(unsealed.access.tokens.create(tx, &unsealed.access.namespace.id, spec, now).await?.id)
}
