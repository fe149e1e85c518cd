//! `sys/unseal`: takes shares of the unseal key, and unseals the server with them.

use std::sync::Arc;
use std::time::Duration;

use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::fields::{Flag, Text};
use keepfast_framework::routes::Help;
use keepfast_framework::sealed::SealedResponse;
use keepfast_framework::{Error, Result, Routes, Status};
use schemars::JsonSchema;
use serde::Deserialize;

use super::System;
use super::seal_status::SealStatus;
use crate::cluster::join::joiner;
use crate::lifecycle::Lifecycle;
use crate::seal::shares::{Attempt, check_share, decode_share};
use crate::seal::{SealConfig, WayIn};
use crate::unseal::by_seals::{self, RoundOutcome};
use crate::unseal::migrate;

const HELP: Help = Help {
    synopsis: "Submits a share of the unseal key. The threshold of shares unseals the server.",
    description: "",
};

/// The error for shares that are no quorum of the recovery keys.
const WRONG_RECOVERY_KEY: &str =
    "invalid key: failed to verify recovery key: recovery key does not match submitted values";

/// How long the response waits for the records of a cluster that the node joins.
const RECORDS_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("unseal", HELP).unauthenticated().update_sealed(unseal).not_in_namespaces();
}

#[derive(Deserialize, JsonSchema)]
struct UnsealRequest {
    /// A share of the unseal key, or of the recovery key, in hex or base64.
    #[serde(default)]
    key: Text,
    /// Whether the shares submitted so far are discarded. Default: false.
    #[serde(default)]
    reset: Flag,
    /// Whether the share authorizes the migration to the seal of the configuration. Default: false.
    #[serde(default)]
    migrate: Flag,
}

async fn unseal(sys: &System, req: UnsealRequest) -> Result<SealedResponse<SealStatus>> {
    let server = sys.lifecycle()?;
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
    let is_rolling = check_migration(&server, &config, req.migrate.0)?;
    // Its shares were accepted, and the records of the cluster are on their way.
    if joins && server.administration.joining.is_completing() {
        return status(&server).await;
    }
    if config.shares.is_none() {
        return Err(Error::invalid("there are no recovery keys: only a seal unseals this server"));
    }
    check_share(&share)?;
    let Some((attempt, shares)) = enough(&server, &config, &share) else { return status(&server).await };
    let outcome = match config.quorum(&shares) {
        Some(key) if req.migrate.0 && is_rolling => {
            let unsealed = unseal_by_quorum(&server, &config, key.clone(), joins).await;
            // The migration follows when this member leads.
            unsealed.inspect(|unsealed| {
                if *unsealed {
                    server.seals.rolling.authorize(key)
                }
            })
        }
        Some(key) if req.migrate.0 => migrate::complete(&server, key).await,
        Some(key) => unseal_by_quorum(&server, &config, key, joins).await,
        None => Ok(false),
    };
    match outcome {
        Ok(true) if req.migrate.0 => {
            let migrated = server.parts.seal_config().await.ok().flatten();
            Ok(SealedResponse::ok(SealStatus::of(&server, Some(migrated.unwrap_or(config)))))
        }
        // Storage is not read here: the server is unsealed by now, and a failure would hide it.
        Ok(true) => Ok(SealedResponse::ok(SealStatus::of(&server, Some(config)))),
        Ok(false) if config.has_seals() => Err(Error::invalid(WRONG_RECOVERY_KEY)),
        Ok(false) => Err(Error::invalid("Unsealing failed, invalid key")),
        Err(error) => {
            // The shares may be right: all but the last are kept, so that the caller can send the same request again.
            server.unsealing.lock().restore(attempt, &shares[..shares.len().saturating_sub(1)]);
            Err(error)
        }
    }
}

/// Refuses a share that does not migrate while a migration is pending that needs a quorum, and a share that migrates without
/// any. Returns whether the leader of the cluster migrates.
fn check_migration(server: &Lifecycle, config: &SealConfig, migrates: bool) -> Result<bool> {
    match (migrate::pending(server, config), migrates) {
        (Some(pending), false) if pending.needs_quorum() => {
            Err(Error::invalid("migrate option not provided and seal migration is pending"))
        }
        (None, true) => Err(migrate::none()),
        (pending, _) => Ok(pending.is_some_and(|pending| pending.is_rolling)),
    }
}

/// Unseals by the key of a quorum: by the slot of the shares, or if they have none by a seal, which the quorum permits.
async fn unseal_by_quorum(server: &Arc<Lifecycle>, config: &SealConfig, key: Key256, joins: bool) -> Result<bool> {
    if config.opens_by_shares() {
        let unsealed = match joins {
            true => {
                let joined = joiner::complete(server, WayIn::Shares(key), RECORDS_WITHIN).await;
                joined.inspect_err(|_| server.seals.begin_round())?
            }
            false => server.unseal_by(WayIn::Shares(key)).await?,
        };
        if unsealed && config.has_seals() {
            tracing::warn!("unsealed by recovery keys, without a seal");
        }
        return Ok(unsealed);
    }
    server.seals.set_manual(false);
    match by_seals::round_now(server).await? {
        RoundOutcome::Failed(failures) => {
            let classes: Vec<&str> = failures.iter().map(|class| class.name()).collect();
            server.seals.begin_round();
            let text = format!("the recovery keys are right, and no seal works: {}", classes.join(", "));
            Err(Error::new(Status::UNAVAILABLE, text))
        }
        RoundOutcome::Idle | RoundOutcome::Unsealed => Ok(!server.is_sealed()),
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
    (unsealing.progress() >= usize::from(config.shape().threshold)).then(|| unsealing.attempt())
}
