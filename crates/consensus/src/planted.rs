//! Planted bugs: each leaves one obligation out, and the simulator has to find it. They exist in tests and in the
//! feature `suite` only; elsewhere `planted!` is the constant `false`.

/// Whether the settings plant a bug.
macro_rules! planted {
    ($settings:expr, $bug:ident) => {{
        #[cfg(any(test, feature = "suite"))]
        {
            $settings.planted == Some($crate::planted::Bug::$bug)
        }
        #[cfg(not(any(test, feature = "suite")))]
        {
            let _ = &$settings;
            false
        }
    }};
}

/// A bug that a test plants.
#[cfg(any(test, feature = "suite"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Messages of a follower leave before its frame is synced.
    AckBeforeSync,
    /// A restarted node votes at once.
    NoVotePauseAfterRestart,
    /// A follower votes although it has heard from a leader; only the check of the crate is left.
    NoPromise,
    /// The lease continues while leadership is transferred.
    LeaseKeptInTransfer,
    /// A repeated ReadIndex round reuses its context for callers that came later.
    RetriedReadContext,
    /// The rest of an older connection is accepted.
    OldConnection,
    /// A learner counts in quorums.
    LearnerCounts,
    /// A node with a new disk speaks as the member that it was.
    IncarnationIgnored,
    /// A node that is added again gets its old id.
    IdReused,
    /// A vote is written with the next frame, and its response leaves with this one.
    VoteInLaterFrame,
    /// A removed leader continues to lead.
    RemovedLeaderLeads,
    /// A leader sends while its term and vote are not synced.
    LeaderSendsBeforeVote,
    /// The committed index is not part of a frame.
    NoCommitInFrame,
    /// A restarted node has forgotten the longest election timeout that it has announced.
    PromiseForgotten,
    /// A removed node learns of it before the removal is on a majority of the disks that are left.
    GoneTooEarly,
    /// A candidate takes votes before its own is synced.
    VotesBeforeSync,
    /// A member that has lost entries keeps its vote.
    LostEntriesKept,
}

#[cfg(any(test, feature = "suite"))]
impl Bug {
    /// Every bug.
    pub const ALL: [Bug; 17] = [
        Bug::AckBeforeSync,
        Bug::NoVotePauseAfterRestart,
        Bug::NoPromise,
        Bug::LeaseKeptInTransfer,
        Bug::RetriedReadContext,
        Bug::OldConnection,
        Bug::LearnerCounts,
        Bug::IncarnationIgnored,
        Bug::IdReused,
        Bug::VoteInLaterFrame,
        Bug::RemovedLeaderLeads,
        Bug::LeaderSendsBeforeVote,
        Bug::NoCommitInFrame,
        Bug::PromiseForgotten,
        Bug::GoneTooEarly,
        Bug::VotesBeforeSync,
        Bug::LostEntriesKept,
    ];
}
