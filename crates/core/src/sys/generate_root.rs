//! `sys/generate-root-token/` and `sys/decode-token`: generates a root token from a quorum of the shares.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::fields::{SecretText, Text};
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Error, Result, Routes, Timestamp};
use keepfast_storage::Tx;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::new_shares::{Share, required_shares};
use super::tools::base64_fault;
use super::{System, unsealed};
use crate::seal::custody::is_quorum;
use crate::seal::generation::{self, Generation};
use crate::seal::rotation::give;
use crate::seal::shares::{check_share, decode_share};
use crate::token::Authority;
use crate::token::create::Spec;
use crate::token::id::SERVICE_LENGTH;
use crate::token::record::FIRST_TOKEN_PATH;
use crate::unsealed::Unsealed;

const ATTEMPT: Help = Help {
    synopsis: "Reads, starts or cancels the generation of a root token.",
    description: "The response to the last share contains the token, encrypted with the OTP of the attempt.",
};
const UPDATE: Help = Help { synopsis: "Submits a share of the unseal key to generate a root token.", description: "" };
const DECODE: Help = Help { synopsis: "Decrypts a generated root token with its OTP.", description: "" };

/// Reads base64 as OpenBao does: the unused bits of the last character may have any value.
const LENIENT_NO_PAD: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, NO_PAD.with_decode_allow_trailing_bits(true));

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("generate-root-token/attempt", ATTEMPT).read(status).update(begin).delete(cancel);
    r.path("generate-root-token/update", UPDATE).update(update).once();
    r.path("decode-token", DECODE).update(decode).unauthenticated();
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Begin {
    /// As long as a token; one is made when there is none.
    otp: Option<SecretText>,
    /// Not supported: the token is encrypted with the OTP only.
    pgp_key: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
struct Decode {
    /// What the last update answered.
    encoded_token: Option<SecretText>,
    /// The OTP that the attempt began with.
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
    pgp_fingerprint: Option<&'static str>,
    progress: usize,
    required: u8,
    started: bool,
}

impl Progress {
    fn of(standing: Option<&Standing>, required: u8) -> Self {
        Progress {
            complete: false,
            encoded_token: None,
            nonce: standing.map(|s| s.nonce.clone()),
            otp: Some(String::new()),
            otp_length: Some(SERVICE_LENGTH),
            pgp_fingerprint: standing.map(|_| ""),
            progress: standing.map_or(0, |s| s.progress),
            required,
            started: standing.is_some(),
        }
    }

    /// The response to a share; with the token after the last one.
    fn after(standing: &Standing, required: u8, token: Option<String>) -> Self {
        Progress {
            complete: token.is_some(),
            encoded_token: Some(token.unwrap_or_default()),
            otp: None,
            otp_length: None,
            ..Progress::of(Some(standing), required)
        }
    }
}

#[derive(Serialize)]
struct Decoded {
    token: String,
}

async fn status(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<Progress>> {
    Ok(Data(Progress::of(root_in_the_making(cx).await?.as_ref(), required_shares(cx).await?)))
}

async fn begin(_: &System, cx: &mut Cx, req: Begin) -> Result<Data<Progress>> {
    let begun = begin_root(cx, req).await?;
    let otp = begun.otp.clone();
    Ok(Data(Progress { otp: Some(otp), ..Progress::of(Some(&begun), required_shares(cx).await?) }))
}

async fn cancel(_: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    cancel_root(cx).await
}

async fn update(_: &System, cx: &mut Cx, req: Share) -> Result<Data<Progress>> {
    let Some(nonce) = req.nonce.filter(|n| !n.is_empty()) else { return Err(Error::invalid("nonce is required")) };
    let Some(key) = req.key.filter(|k| !k.expose().is_empty()) else { return Err(Error::invalid("key is required")) };
    let (standing, token) = give_share_for_root(cx, key.expose(), &nonce).await?;
    Ok(Data(Progress::after(&standing, required_shares(cx).await?, token)))
}

async fn decode(_: &System, _: &mut Cx, req: Decode) -> Result<Data<Decoded>> {
    let given = |text: Option<SecretText>| text.map(|t| t.0).filter(|t| !t.expose().is_empty());
    let (Some(encoded), Some(otp)) = (given(req.encoded_token), given(req.otp)) else {
        return Err(Error::invalid("provided 'encoded_token' or 'otp' is empty"));
    };
    let told = LENIENT_NO_PAD
        .decode(encoded.expose())
        .map_err(|e| Error::invalid(format!("error decoding base64'd token: {}", base64_fault(&e))))?;
    let token = generation::decode(SecretBytes::new(told).expose(), otp.expose())?;
    Ok(Data(Decoded { token: token.expose().clone() }))
}

/// A snapshot of the progress of a root token generation.
pub(super) struct Standing {
    pub(super) nonce: String,
    pub(super) progress: usize,
    /// The one-time pad for the caller that began the attempt, when the server generated it; empty otherwise.
    pub(super) otp: String,
}

impl Standing {
    fn of(generation: &Generation, progress: usize) -> Self {
        Standing { nonce: generation.nonce.clone(), progress, otp: String::new() }
    }
}

pub(super) async fn root_in_the_making(cx: &Cx) -> Result<Option<Standing>> {
    let unsealed = unsealed(cx)?;
    let generation = unsealed.custody.generation.lock().await;
    Ok(generation.as_ref().map(|g| Standing::of(g, g.given.progress())))
}

pub(super) async fn begin_root(cx: &Cx, asked: Begin) -> Result<Standing> {
    let pad = asked.otp.map(|t| t.0).filter(|t| !t.expose().is_empty());
    let is_made = pad.is_none();
    if is_made && asked.pgp_key.is_some_and(|k| !k.is_empty()) {
        return Err(Error::invalid("encrypting the token with a PGP key is not supported by this server; use an OTP"));
    }
    let begun = Generation::new(pad)?;
    let unsealed = unsealed(cx)?;
    let mut generation = unsealed.custody.generation.lock().await;
    if generation.is_some() {
        return Err(Error::invalid("root generation already in progress for this namespace"));
    }
    let begun = generation.insert(begun);
    let otp = if is_made { begun.pad().expose().clone() } else { String::new() };
    Ok(Standing { otp, ..Standing::of(begun, 0) })
}

pub(super) async fn cancel_root(cx: &Cx) -> Result<()> {
    *unsealed(cx)?.custody.generation.lock().await = None;
    Ok(())
}

/// Takes a share; the last one returns the new encoded token. The token is valid once an audit device has the response.
pub(super) async fn give_share_for_root(cx: &mut Cx, key: &str, nonce: &str) -> Result<(Standing, Option<String>)> {
    let share = decode_share(key)?;
    check_share(&share)?;
    let unsealed = unsealed(cx)?;
    let mut slot = unsealed.custody.generation.clone().lock_owned().await;
    // Read under the lock: the shares may have changed while this request waited.
    let config = unsealed.custody.seal_config().await?;
    let Some(generation) = slot.as_mut() else { return Err(Error::invalid("no root generation in progress")) };
    if generation.nonce != nonce {
        return Err(Error::invalid(format!(
            "incorrect nonce supplied; nonce for this root generation operation is {:?}",
            generation.nonce
        )));
    }
    give(&mut generation.given, &share, "generation operation")?;
    let standing = Standing::of(generation, generation.given.progress());
    if standing.progress < usize::from(config.shape.threshold) {
        return Ok((standing, None));
    }
    if !is_quorum(&config, &generation.given.take()).await? {
        return Err(Error::invalid("root generation aborted: unable to authenticate: the shares do not unseal"));
    }
    let mut tx = unsealed.barrier.begin();
    let token = generation.encode(&root_token(&unsealed, &mut tx, cx.now()).await?);
    cx.after_record(move || async move {
        tx.commit().await?;
        *slot = None;
        tracing::info!("root token generated");
        Ok(())
    });
    Ok((standing, Some(token)))
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
    Ok(unsealed.access.tokens.create(tx, spec, now).await?.id)
}
