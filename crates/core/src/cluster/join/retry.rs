//! Joins the leaders of the configuration (`retry_join`), again and again until one responds.

use std::sync::{Arc, Weak};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use keepfast_crypto::random;
use keepfast_framework::{Error, Result};

use super::client::JoinTarget;
use super::joiner;
use super::pause::pause;
use super::pending::Intent;
use crate::lifecycle::Lifecycle;

/// Tries the leaders of the configuration, if there are any, until one has responded or the node is initialized.
pub(crate) fn start_configured(server: &Arc<Lifecycle>) {
    let join = &server.parts.settings.join;
    let intent = Intent { targets: join.retry.clone(), non_voter: join.non_voter };
    if !intent.targets.is_empty() && server.administration.joining.begin_configured(intent) {
        tokio::spawn(run(Arc::downgrade(server)));
    }
}

/// Tries the leader of a request. If attempts are under way already, they go on with this leader as well: no caller can
/// hold up another one.
pub(crate) fn start(server: &Arc<Lifecycle>, target: JoinTarget, non_voter: bool) {
    if server.administration.joining.begin_retry(Intent { targets: vec![target], non_voter }) {
        tokio::spawn(run(Arc::downgrade(server)));
    }
}

// The lifecycle is not kept: a server that is dropped ends its attempts.
async fn run(server: Weak<Lifecycle>) {
    for attempt in 0.. {
        let Some(server) = server.upgrade() else { return };
        match request(&server).await {
            Ok(()) => {
                server.administration.joining.end_retry();
                return;
            }
            Err(error) => log(&error, attempt),
        }
        let clock = server.parts.clock.clone();
        drop(server);
        let next = clock.now().after(pause(attempt, u32::from_le_bytes(random::bytes())));
        clock.sleep_until(next).await;
    }
}

/// Calls all leaders at once, until one responds. Otherwise returns the last error.
async fn request(server: &Lifecycle) -> Result<()> {
    let intents = server.administration.joining.retried();
    let mut calls: FuturesUnordered<_> = intents.into_iter().map(|intent| joiner::request(server, intent)).collect();
    let mut last = Ok(());
    while let Some(outcome) = calls.next().await {
        if outcome.is_ok() {
            return outcome;
        }
        last = outcome;
    }
    last
}

fn log(error: &Error, attempt: u32) {
    let cause = error.cause().map(ToString::to_string).unwrap_or_default();
    tracing::warn!(%error, cause, attempt, "no leader of retry_join was reached; trying again");
}
