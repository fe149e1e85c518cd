//! Approvals of a stored request, and how they are counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use keepfast_framework::{Error, Result, Timestamp};
use keepfast_storage::{ReadTx, Tx};
use serde::{Deserialize, Serialize};

use super::StoredRequest;
use crate::identity::names::fold;
use crate::identity::{Effective, Identity};
use crate::policy::control_group::Factor;
use crate::token::{Token, TokenKey, Tokens};
use crate::wrapping::{APPROVALS_NAME, TokenUse, Wrapper};

/// The approval of one entity.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct GivenApproval {
    /// The entity, in the namespace of the requester's token.
    pub(crate) entity: String,
    /// The time of the approval.
    pub(crate) time: Timestamp,
}

/// An entity whose approval counts, if its groups may approve.
pub(crate) struct Approver {
    /// The entity with its groups.
    pub(crate) effective: Arc<Effective>,
    /// The time of its last approval.
    time: Timestamp,
}

/// The approvals of a request at one time: each entity once, after merges, and without those that are disabled or deleted.
pub(crate) struct Counted {
    /// By the id of the entity.
    approvers: BTreeMap<String, Approver>,
    /// The entity of the requester after merges; empty for none.
    requester: String,
    now: Timestamp,
}

impl Counted {
    /// Counts approvals.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn of(
        identity: &Identity,
        requester: &str,
        given: &[GivenApproval],
        now: Timestamp,
    ) -> Result<Self> {
        let current = identity.effective(requester).await?;
        let requester = current.map_or_else(|| requester.to_owned(), |effective| effective.entity.id.clone());
        let mut approvers = BTreeMap::<String, Approver>::new();
        for GivenApproval { entity, time } in given {
            let found = identity.effective(entity).await?.filter(|found| !found.entity.disabled);
            let Some(effective) = found else { continue };
            let last = approvers.get(&effective.entity.id).map_or(*time, |approver| approver.time.max(*time));
            approvers.insert(effective.entity.id.clone(), Approver { effective, time: last });
        }
        Ok(Counted { approvers, requester, now })
    }

    /// Whether the approvals satisfy every factor.
    pub(crate) fn satisfy(&self, factors: &[Factor]) -> bool {
        factors.iter().all(|factor| {
            let count = self.approvers.values().filter(|approver| self.counts(approver, factor)).count();
            count >= usize::try_from(factor.approvals).unwrap_or(usize::MAX)
        })
    }

    /// Whether the approval of an entity counts for each factor that it may approve.
    pub(crate) fn has(&self, effective: &Effective, factors: &[Factor]) -> bool {
        let Some(approver) = self.approvers.get(&effective.entity.id) else { return false };
        factors.iter().filter(|factor| self.allows(effective, factor)).all(|factor| self.counts(approver, factor))
    }

    /// Whether an entity may approve for a factor: as a member of a group, and not as the requester.
    pub(crate) fn allows(&self, effective: &Effective, factor: &Factor) -> bool {
        (factor.self_authorization || !self.is_requester(effective)) && is_member(effective, factor)
    }

    /// Whether an entity is that of the requester.
    pub(crate) fn is_requester(&self, effective: &Effective) -> bool {
        effective.entity.id == self.requester
    }

    /// The entities, by id.
    pub(crate) fn approvers(&self) -> impl Iterator<Item = &Approver> {
        self.approvers.values()
    }

    fn counts(&self, approver: &Approver, factor: &Factor) -> bool {
        let is_current =
            factor.ttl.is_none_or(|ttl| self.now < approver.time.after(std::time::Duration::from_secs(ttl)));
        is_current && self.allows(&approver.effective, factor)
    }
}

/// Whether an entity is in a group of a factor, directly or not.
fn is_member(effective: &Effective, factor: &Factor) -> bool {
    effective.groups().any(|group| {
        factor.group_ids.contains(&group.id) || factor.group_names.iter().any(|name| fold(name) == fold(&group.name))
    })
}

/// The proof that a stored request was approved, by which its stages let it run.
pub(crate) struct Approval {
    key: TokenKey,
    token: Arc<Token>,
    requester: String,
    given: Vec<GivenApproval>,
}

impl Approval {
    /// The approval of the request of a wrapping token, if its approvals satisfy the factors with which it was stored.
    ///
    /// # Errors
    /// 400 when it needs further approvals.
    pub(crate) async fn of(
        (key, token): (TokenKey, Arc<Token>),
        stored: &StoredRequest,
        given: Vec<GivenApproval>,
        identity: &Identity,
        now: Timestamp,
    ) -> Result<Self> {
        let approval = Approval { key, token, requester: stored.entity.clone(), given };
        match approval.satisfies(&stored.factors, identity, now).await? {
            true => Ok(approval),
            false => Err(needs_approvals()),
        }
    }

    /// Whether the approvals satisfy these factors, which are the current ones of the rules.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn satisfies(&self, factors: &[Factor], identity: &Identity, now: Timestamp) -> Result<bool> {
        Ok(Counted::of(identity, &self.requester, &self.given, now).await?.satisfy(factors))
    }

    /// Deletes the stored request with its wrapping token, in the transaction of its run.
    ///
    /// # Errors
    /// 400 when another run has deleted it.
    pub(crate) async fn spend(&self, wrapper: &Wrapper, tx: &mut Tx) -> Result<()> {
        wrapper.take(tx, &self.key, &self.token, TokenUse::ThisTransaction).await
    }
}

/// The error of a request that runs without its approvals.
pub(crate) fn needs_approvals() -> Error {
    Error::invalid("request needs further approval")
}

/// The approvals of the request of a wrapping token, as a transaction sees them.
pub(crate) async fn read_approvals(tokens: &Tokens, tx: &mut ReadTx, token: &Token) -> Result<Vec<GivenApproval>> {
    let view = &tokens.cubbyhole_of(&token.record.namespace);
    let record = tx.get(view, &format!("{}/{APPROVALS_NAME}", token.store)).await?;
    Ok(record.map(|record| serde_json::from_slice(&record)).transpose()?.unwrap_or_default())
}

/// Writes the approvals of the request of a wrapping token.
pub(crate) fn write_approvals(tokens: &Tokens, tx: &mut Tx, token: &Token, given: &[GivenApproval]) -> Result<()> {
    let view = &tokens.cubbyhole_of(&token.record.namespace);
    tx.put(view, &format!("{}/{APPROVALS_NAME}", token.store), Bytes::from(serde_json::to_vec(given)?));
    Ok(())
}
