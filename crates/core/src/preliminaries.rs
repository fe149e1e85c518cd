//! What the edge needs of a node before it has read a request: the commits of other nodes, the validity of a token, and the
//! audit of a refusal.

use std::net::IpAddr;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::Incoming;
use keepfast_storage::Role;

use crate::cluster::service::SETTLES_WITHIN;
use crate::lifecycle::Lifecycle;
use crate::token::finds_live_token;

/// The checks before a request is read.
pub struct Preliminaries<'a> {
    lifecycle: &'a Lifecycle,
}

impl<'a> Preliminaries<'a> {
    pub(crate) fn new(lifecycle: &'a Lifecycle) -> Self {
        Preliminaries { lifecycle }
    }

    /// Waits until the commits that were acknowledged before are applied here: the rules of admission then contain them.
    /// While no leader is known the last known rules apply, and nothing waits.
    pub async fn settle(&self) {
        if !matches!(self.lifecycle.parts.membership.role(), Some(Role::Following { leader: None })) {
            self.wait_for_commits().await;
        }
    }

    async fn wait_for_commits(&self) {
        if self.lifecycle.unsealed().is_some()
            && let Some(consensus) = self.lifecycle.parts.membership.with_others()
        {
            // Without a leader the request itself is refused.
            let _ = consensus.settled(SETTLES_WITHIN).await;
        }
    }

    /// Whether a token is valid and may be used from this address. Counts no use of it; false while sealed.
    pub async fn is_live_token(&self, token: &SecretString, remote: Option<IpAddr>) -> bool {
        if self.finds(token, remote).await {
            return true;
        }
        if self.lifecycle.parts.membership.with_others().is_none() {
            return false;
        }
        // Another node may have issued it just now.
        self.wait_for_commits().await;
        self.finds(token, remote).await
    }

    async fn finds(&self, token: &SecretString, remote: Option<IpAddr>) -> bool {
        let Some(unsealed) = self.lifecycle.unsealed() else { return false };
        finds_live_token(&unsealed.access.tokens, token, remote, unsealed.clock.now()).await
    }

    /// Audits a request that a quota refused before it was read.
    pub async fn audit_refusal(&self, refused: Box<Incoming>) {
        if let Some(pipeline) = self.lifecycle.pipeline() {
            pipeline.audit_refusal(refused).await;
        }
    }
}
