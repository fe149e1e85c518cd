//! `sys/unseal`: takes shares of the unseal key, and unseals the server with them.

use std::time::Duration;

use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::fields::{Flag, Text};
use keepfast_framework::routes::Help;
use keepfast_framework::sealed::SealedResponse;
use keepfast_framework::{Error, Result, Routes};
use schemars::JsonSchema;
use serde::Deserialize;

use super::System;
use super::seal_status::SealStatus;
use crate::cluster::join::joiner;
use crate::lifecycle::Lifecycle;
use crate::seal::SealConfig;
use crate::seal::shares::{Attempt, check_share, decode_share};

const HELP: Help = Help {
    synopsis: "Submits a share of the unseal key. The threshold of shares unseals the server.",
    description: "",
};

/// How long the response waits for the records of a cluster that the node joins.
const RECORDS_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("unseal", HELP).unauthenticated().update_sealed(unseal);
}

#[derive(Deserialize, JsonSchema)]
struct UnsealRequest {
    /// A share of the unseal key, in hex or base64.
    #[serde(default)]
    key: Text,
    /// Whether the shares submitted so far are discarded. Default: false.
    #[serde(default)]
    reset: Flag,
    /// Not supported: there is no other seal to migrate to.
    #[serde(default)]
    migrate: Flag,
}

async fn unseal(sys: &System, req: UnsealRequest) -> Result<SealedResponse<SealStatus>> {
    let server = sys.lifecycle()?;
    if req.migrate.0 {
        return Err(Error::invalid("there is no seal to migrate from or to"));
    }
    if req.reset.0 {
        if !server.is_sealed() {
            return Err(Error::invalid("vault is unsealed"));
        }
        server.administration.joining.check_not_completing()?;
        server.unsealing.lock().reset();
        return status(&server).await;
    }
    if req.key.is_empty() {
        return Err(Error::invalid("'key' must be specified in request body as JSON, or 'reset' set to true"));
    }
    let share = decode_share(&req.key)?;
    if !server.is_sealed() {
        return status(&server).await;
    }
    let stored = server.parts.seal_config().await?;
    let joins = stored.is_none();
    let Some(config) = stored.or_else(|| server.administration.joining.seal_config()) else {
        return Err(Error::invalid("Vault is not initialized"));
    };
    // Its shares were accepted, and the records of the cluster are on their way.
    if joins && server.administration.joining.is_completing() {
        return status(&server).await;
    }
    check_share(&share)?;
    let Some((attempt, shares)) = enough(&server, &config, &share) else { return status(&server).await };
    let unsealed = match joins {
        true => joiner::complete(&server, &shares, RECORDS_WITHIN).await,
        false => server.unseal(&shares).await,
    };
    match unsealed {
        // Storage is not read here: the server is unsealed by now, and a failure would hide it.
        Ok(true) => Ok(SealedResponse::ok(SealStatus::of(&server, Some(config)))),
        Ok(false) => Err(Error::invalid("Unsealing failed, invalid key")),
        Err(error) => {
            // The shares may be right: all but the last are kept, so that the caller can send the same request again.
            server.unsealing.lock().restore(attempt, &shares[..shares.len().saturating_sub(1)]);
            Err(error)
        }
    }
}

async fn status(server: &Lifecycle) -> Result<SealedResponse<SealStatus>> {
    Ok(SealedResponse::ok(SealStatus::load(server).await?))
}

/// Takes a share; returns all shares and the attempt once the threshold is reached.
fn enough(server: &Lifecycle, config: &SealConfig, share: &SecretBytes) -> Option<(Attempt, Vec<SecretBytes>)> {
    let mut unsealing = server.unsealing.lock();
    // Another request has completed the unseal. A share that is added now would not be wiped.
    if !server.is_sealed() {
        return None;
    }
    unsealing.add(share);
    (unsealing.progress() >= usize::from(config.shape.threshold)).then(|| unsealing.attempt())
}
