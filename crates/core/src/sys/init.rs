//! `sys/init`: reports whether the storage is initialized, and initializes it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_framework::fields::{Int, Strings, Text};
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::sealed::SealedResponse;
use keepfast_framework::{Error, Result, Routes, Timestamp};
use keepfast_pgp::Certificate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::System;
use crate::cluster::join::joiner::known_seal;
use crate::init::initialize;
use crate::lifecycle::Lifecycle;
use crate::seal::SealShape;
use crate::seal::pgp::{IssuedShares, Recipients, certificate, encrypt};
use crate::seal::record::SHAMIR;
use crate::self_init::gate::in_progress;
use crate::self_init::run;

const HELP: Help = Help {
    synopsis: "Returns whether the server is initialized, or initializes it.",
    description: "The response to the initialization contains the unseal key shares and the root token. It is the only one that contains them.",
};

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("init", HELP).unauthenticated().read_sealed(status).update_sealed(init).not_in_namespaces();
}

#[derive(Serialize, JsonSchema)]
struct InitStatus {
    initialized: bool,
}

#[derive(Deserialize, JsonSchema)]
struct InitRequest {
    /// Number of shares into which the unseal key is split, with the seal `shamir`.
    #[serde(default)]
    secret_shares: Int,
    /// Number of shares that unseal the server.
    #[serde(default)]
    secret_threshold: Int,
    /// The PGP public keys to which the unseal key shares are encrypted, one for each, in base64 without armor.
    #[serde(default)]
    pgp_keys: Strings,
    /// The PGP public key to which the root token is encrypted, in base64 without armor.
    #[serde(default)]
    root_token_pgp_key: Text,
    /// Number of shares into which the recovery key is split, with a seal other than `shamir`. Default: no recovery key.
    #[serde(default)]
    recovery_shares: Int,
    /// Number of shares that authorize operations, and unseal when no seal works.
    #[serde(default)]
    recovery_threshold: Int,
    /// The PGP public keys to which the recovery key shares are encrypted, one for each, in base64 without armor.
    #[serde(default)]
    recovery_pgp_keys: Strings,
}

#[derive(Serialize, JsonSchema)]
struct InitResponse {
    keys: Vec<String>,
    keys_base64: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_keys: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_keys_base64: Option<Vec<String>>,
    root_token: String,
}

async fn status(sys: &System, _: Nothing) -> Result<SealedResponse<InitStatus>> {
    let initialized = known_seal(&*sys.lifecycle()?).await?.is_some();
    Ok(SealedResponse::ok(InitStatus { initialized }))
}

async fn init(sys: &System, req: InitRequest) -> Result<SealedResponse<InitResponse>> {
    let server = sys.lifecycle()?;
    let has_seals = server.seals.enabled().next().is_some();
    let shape = shape(&server, &req)?;
    if run::initializes(&server) && known_seal(&server).await?.is_none() {
        return Err(in_progress());
    }
    if known_seal(&server).await?.is_some() {
        return Err(Error::invalid("Vault is already initialized"));
    }
    let (recipients, certificate) = certificates(&req, has_seals, shape, server.parts.clock.now()).await?;
    let response = initialize(&server, shape, None, |made| {
        let shares = IssuedShares::new(made.shares, recipients.as_ref())?;
        let root_token = match &certificate {
            Some(certificate) => STANDARD.encode(encrypt(certificate, &made.root_token)?),
            None => made.root_token.expose().clone(),
        };
        Ok(response(has_seals, shape, &shares, root_token))
    });
    response.await.map(SealedResponse::ok)
}

fn response(has_seals: bool, shape: Option<SealShape>, shares: &IssuedShares, root_token: String) -> InitResponse {
    let (keys, keys_base64) = (shares.hex(), shares.base64());
    match has_seals {
        false => InitResponse { keys, keys_base64, recovery_keys: None, recovery_keys_base64: None, root_token },
        true => InitResponse {
            keys: Vec::new(),
            keys_base64: Vec::new(),
            recovery_keys: shape.map(|_| keys),
            recovery_keys_base64: shape.map(|_| keys_base64),
            root_token,
        },
    }
}

/// The certificates of the shares and of the root token.
async fn certificates(
    req: &InitRequest,
    has_seals: bool,
    shape: Option<SealShape>,
    now: Timestamp,
) -> Result<(Option<Recipients>, Option<Certificate>)> {
    let (keys, what) = if has_seals { (&req.recovery_pgp_keys, "recovery") } else { (&req.pgp_keys, "seal") };
    let shares = shape.map_or(0, |shape| shape.shares.into());
    let recipients = Recipients::read(&keys.0, shares, now).await;
    let recipients = recipients.map_err(|why| Error::invalid(format!("invalid {what} configuration: {why}")))?;
    if req.root_token_pgp_key.is_empty() {
        return Ok((recipients, None));
    }
    let certificate = certificate(&req.root_token_pgp_key, now).await;
    let refused = |error| Error::invalid(format!("error parsing root_token_pgp_key: {error}"));
    Ok((recipients, Some(certificate.map_err(refused)?)))
}

/// The shape of the unseal keys, or of the recovery keys of a server with seals; `None` for no recovery keys.
fn shape(server: &Lifecycle, req: &InitRequest) -> Result<Option<SealShape>> {
    let secret = [("secret_shares", &req.secret_shares), ("secret_threshold", &req.secret_threshold)];
    let recovery = [("recovery_shares", &req.recovery_shares), ("recovery_threshold", &req.recovery_threshold)];
    let seal = server.seals.enabled().next().map(|access| access.kind());
    let (applicable, other) = if seal.is_some() { (recovery, secret) } else { (secret, recovery) };
    let (name, keys) = match seal {
        Some(_) => ("pgp_keys", &req.pgp_keys),
        None => ("recovery_pgp_keys", &req.recovery_pgp_keys),
    };
    let mut given: Vec<&str> = other.iter().filter(|(_, n)| n.0 != 0).map(|(name, _)| *name).collect();
    given.extend((!keys.0.is_empty()).then_some(name));
    if !given.is_empty() {
        let (given, seal) = (given.join(","), seal.unwrap_or(SHAMIR));
        return Err(Error::invalid(format!("parameters {given} not applicable to seal type {seal}")));
    }
    let [(_, shares), (_, threshold)] = applicable;
    match (seal, shares.0, threshold.0) {
        (Some(_), 0, 0) => Ok(None),
        (Some(_), shares, threshold) => {
            let refused = |why| Error::invalid(format!("invalid recovery configuration: {why}"));
            SealShape::check(shares, threshold).map_err(refused).map(Some)
        }
        (None, shares, threshold) => SealShape::new(shares, threshold).map(Some),
    }
}
