//! A new root key reaches the other members before its record does, so that they stay unsealed.

use std::sync::Arc;

use futures_util::future::join_all;
use keepfast_framework::{Error, Result, Status};
use keepfast_storage::{Consensus, Member, Origin};

use super::announced::{disables_sealwrap, format_of};
use super::membership::Membership;
use super::port::{ClusterPort, ComingRoot};

/// The other members of the cluster, as a change of the root key needs them.
pub(crate) struct Announcer {
    consensus: Arc<dyn Consensus>,
    port: Arc<dyn ClusterPort>,
}

impl Announcer {
    /// Those of a node of a cluster; `None` without a cluster port.
    pub(crate) fn of(membership: &Membership) -> Option<Self> {
        let (consensus, port) = membership.consensus().zip(membership.port())?;
        Some(Announcer { consensus: consensus.clone(), port: port.clone() })
    }

    /// Whether there are any.
    pub(crate) fn has_others(&self) -> bool {
        !self.consensus.is_alone()
    }

    /// The other members whose version does not read this form of stored data.
    pub(crate) fn without_format(&self, format: u32) -> Vec<String> {
        self.members_of(|announced| format_of(announced) < format)
    }

    /// The other members whose `disable_sealwrap` is not this value.
    pub(crate) fn with_other_sealwrap(&self, disable_sealwrap: bool) -> Vec<String> {
        self.members_of(|announced| disables_sealwrap(announced).is_some_and(|theirs| theirs != disable_sealwrap))
    }

    fn members_of(&self, is_meant: impl Fn(&str) -> bool) -> Vec<String> {
        let own = self.consensus.identity();
        let is_own = |member: &Member| member.node == own.node && member.incarnation == own.incarnation;
        let members = self.consensus.status().members.into_iter();
        members.filter(|member| !is_own(member) && is_meant(&member.version)).map(|member| member.node).collect()
    }

    /// Sends a root key, or wrap keys, to all other members.
    ///
    /// # Errors
    /// 503 when it did not reach a quorum of the voters: those that it did not reach seal with the change.
    pub(crate) async fn announce(&self, coming: &ComingRoot) -> Result<()> {
        let (members, own) = (self.consensus.status().members, self.consensus.identity());
        let reached = join_all(members.iter().map(|member| self.reach(&own, member, coming))).await;
        let voters = || members.iter().zip(&reached).filter(|(member, _)| member.voter);
        let (all, with_root) = (voters().count(), voters().filter(|(_, is_reached)| **is_reached).count());
        let what = if coming.wrap_keys().is_some() { "wrap keys" } else { "root key" };
        for (member, _) in members.iter().zip(&reached).filter(|(_, is_reached)| !**is_reached) {
            tracing::warn!(node = %member.node, "a member did not get the new {what}, and may need the current shares");
        }
        if with_root > all / 2 {
            return Ok(());
        }
        let text = format!(
            "the new {what} reached {with_root} of {all} voters, which is no quorum; nothing was changed: send the request \
             again when more members are unsealed and in contact"
        );
        Err(Error::new(Status::UNAVAILABLE, text))
    }

    /// Whether a member has the root key then; this node has it.
    async fn reach(&self, own: &Origin, member: &Member, coming: &ComingRoot) -> bool {
        let is_own = member.node == own.node && member.incarnation == own.incarnation;
        is_own || self.port.announce_root(member, coming).await
    }
}
