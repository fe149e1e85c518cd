//! What the edge needs of a node before it has read a request: the commits of other nodes, the validity of a token, and the
//! audit of a refusal.

use std::net::IpAddr;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Error, Incoming, Result, Status};
use keepfast_storage::Role;

use crate::admission::quota::{QuotaRequest, QuotaResult};
use crate::cluster::service::SETTLES_WITHIN;
use crate::cluster::uploads::UploadTurn;
use crate::lifecycle::Lifecycle;
use crate::namespace::NamespaceId;
use crate::namespace::open::locate;
use crate::settings::SnapshotFiles;
use crate::token::finds_live_token;

/// Where the body of a request is received into a file.
pub struct BodyPlace {
    /// The directory, and the longest body.
    pub files: SnapshotFiles,
    /// Held until the request is handled.
    pub turn: UploadTurn,
}

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

    /// Counts a request against its quota. `None` if no quota applies to it. The path within an unknown namespace is no
    /// path of root, so that only a quota of the whole server applies to it.
    pub async fn check_quota(&self, header: &str, path: &str, remote: Option<IpAddr>) -> Option<QuotaResult> {
        let admission = &self.lifecycle.parts.admission;
        let namespaces = self.lifecycle.namespaces()?;
        let root = namespaces.root().namespace();
        if header.is_empty() && !namespaces.root().server().observability.directory.has_any() {
            return admission.check_quota(&QuotaRequest { sent: path, lineage: &[&root.id], path }, remote);
        }
        let found = locate(&namespaces, header, path).await.ok();
        let (namespace, within) = match &found {
            Some(found) => (found.pipeline.namespace(), path.get(found.start..).unwrap_or_default()),
            None => (root, ""),
        };
        let lineage: Vec<&NamespaceId> = namespace.lineage().collect();
        admission.check_quota(&QuotaRequest { sent: path, lineage: &lineage, path: within }, remote)
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

    /// Where the body of a request is received into a file: at the node that runs it, of a caller whose policies allow it,
    /// one at a time. `None` for a body that is received in memory, as far as that allows it; `fits` is whether its
    /// announced length is short enough for that.
    ///
    /// # Errors
    /// While another body is received; for a long body at a standby.
    pub async fn upload(&self, head: &Incoming, fits: bool) -> Result<Option<BodyPlace>> {
        let Lifecycle { parts, administration, .. } = self.lifecycle;
        let Some(files) = parts.settings.snapshot_files.clone() else { return Ok(None) };
        if !self.may_update(head).await? {
            return Ok(None);
        }
        if parts.membership.with_others().is_some() && !parts.is_active() {
            return match fits {
                true => Ok(None),
                false => {
                    Err(Error::invalid("a snapshot of more than max_request_size bytes must be sent to the leader"))
                }
            };
        }
        let turn = administration.uploads.begin(parts.clock.now());
        let turn = turn.ok_or_else(|| Error::new(Status::UNAVAILABLE, "another snapshot is being uploaded"))?;
        Ok(Some(BodyPlace { files, turn }))
    }

    /// Whether the policies of the caller allow an update of the path. The stages check it again.
    async fn may_update(&self, head: &Incoming) -> Result<bool> {
        let Some((unsealed, token)) = self.lifecycle.unsealed().zip(head.token.as_ref()) else { return Ok(false) };
        let Some(token) = unsealed.access.tokens.find_anywhere(token.expose(), unsealed.clock.now()).await? else {
            return Ok(false);
        };
        if !token.record.namespace.is_root() {
            return Ok(false);
        }
        let compiled = unsealed.access.policies.acl_of(&token, &unsealed.access.identity).await?;
        let capabilities = compiled.acl.capabilities(head.path.as_str(), unsealed.clock.now());
        let allows = capabilities.iter().any(|capability| matches!(*capability, "update" | "root"));
        Ok(allows && head.namespace.is_empty() && token.record.allows_from(head.remote.map(|address| address.ip())))
    }

    /// Audits a request that a quota refused before it was read.
    pub async fn audit_refusal(&self, refused: Box<Incoming>) {
        if let Some(pipeline) = self.lifecycle.namespaces().map(|namespaces| namespaces.root().clone()) {
            pipeline.audit_refusal(refused).await;
        }
    }
}
