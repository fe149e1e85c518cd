//! Control groups: a request whose rule has a control group is stored, members of groups approve it, and the unwrapping of
//! its wrapping token runs it.
//!
//! | in the cubbyhole of the wrapping token | record |
//! |---|---|
//! | `control-group-request` | a [`StoredRequest`], with its body and the token of the requester |
//! | `control-group-approvals` | the [`GivenApproval`]s |
//! | `wrapinfo` | the description, as of a wrapped response |
//!
//! The records are in the namespace of the wrapping token, which is that of the request, and are deleted with the token.
//! The groups are those of the namespace of the requester's token, whose policies have the rule.
//!
//! Nothing is decided when an approval is given: approvals are counted when the request runs, with the memberships of
//! that moment, and again in `request/authorize.rs` with the rules of that moment. The transaction of the request
//! deletes the wrapping token, so that it runs once.

mod approvals;
mod stored;

pub(crate) use approvals::{Approval, Counted, GivenApproval, needs_approvals, read_approvals, write_approvals};
pub(crate) use stored::{StoredRequest, read_request};

/// The response of a stored request that has run.
pub(crate) struct ApprovedResponse {
    /// The response, as the outcome of the handler that unwraps it.
    pub(crate) outcome: keepfast_framework::Outcome,
    /// The index of its commit.
    pub(crate) committed: Option<keepfast_storage::Index>,
}
