//! `sys/init`: reports whether the storage is initialized, and initializes it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_framework::fields::{Int, Strings, Text};
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::sealed::SealedResponse;
use keepfast_framework::{Error, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::System;
use crate::cluster::join::joiner::known_seal;
use crate::init::initialize;
use crate::seal::SealShape;

const HELP: Help = Help {
    synopsis: "Returns whether the server is initialized, or initializes it.",
    description: "The response to the initialization contains the unseal key shares and the root token. It is the only one that contains them.",
};

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("init", HELP).unauthenticated().read_sealed(status).update_sealed(init);
}

#[derive(Serialize, JsonSchema)]
struct InitStatus {
    initialized: bool,
}

#[derive(Deserialize, JsonSchema)]
struct InitRequest {
    /// Number of shares into which the unseal key is split.
    #[serde(default)]
    secret_shares: Int,
    /// Number of shares that unseal the server.
    #[serde(default)]
    secret_threshold: Int,
    /// Not supported: shares are not encrypted with PGP keys.
    #[serde(default)]
    pgp_keys: Strings,
    /// Not supported: the root token is not encrypted with a PGP key.
    #[serde(default)]
    root_token_pgp_key: Text,
    /// Not supported: the seal `shamir` has no recovery key.
    #[serde(default)]
    recovery_shares: Int,
    /// Not supported: the seal `shamir` has no recovery key.
    #[serde(default)]
    recovery_threshold: Int,
}

#[derive(Serialize, JsonSchema)]
struct InitResponse {
    keys: Vec<String>,
    keys_base64: Vec<String>,
    root_token: String,
}

async fn status(sys: &System, _: Nothing) -> Result<SealedResponse<InitStatus>> {
    let initialized = known_seal(&*sys.lifecycle()?).await?.is_some();
    Ok(SealedResponse::ok(InitStatus { initialized }))
}

async fn init(sys: &System, req: InitRequest) -> Result<SealedResponse<InitResponse>> {
    let server = sys.lifecycle()?;
    if !req.pgp_keys.0.is_empty() || !req.root_token_pgp_key.is_empty() {
        return Err(Error::invalid("encrypting shares with PGP keys is not supported by this server"));
    }
    let recovery = [("recovery_shares", req.recovery_shares), ("recovery_threshold", req.recovery_threshold)];
    let given: Vec<&str> = recovery.iter().filter(|(_, n)| n.0 != 0).map(|(name, _)| *name).collect();
    if !given.is_empty() {
        let given = given.join(",");
        let seal = server.parts.settings.seal.name();
        return Err(Error::invalid(format!("parameters {given} not applicable to seal type {seal}")));
    }
    let shape = SealShape::new(req.secret_shares.0, req.secret_threshold.0)?;
    if known_seal(&server).await?.is_some() {
        return Err(Error::invalid("Vault is already initialized"));
    }
    let made = initialize(&server, shape, None).await?;
    Ok(SealedResponse::ok(InitResponse {
        keys: made.shares.iter().map(|s| hex::encode(s.expose())).collect(),
        keys_base64: made.shares.iter().map(|s| STANDARD.encode(s.expose())).collect(),
        root_token: made.root_token.expose().clone(),
    }))
}
