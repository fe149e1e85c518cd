//! The exchange of clocks between the leader and the other members.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use keepfast_framework::{Clock, Timestamp};
use keepfast_storage::{Consensus, Member};

use super::clocks::difference;
use super::membership::Membership;
use super::port::ClusterPort;

/// The interval in which the leader compares its clock.
const INTERVAL: Duration = Duration::from_secs(5);

/// Takes the clock of the leader and returns that of this node.
pub(crate) fn exchange(membership: &Membership, clock: &dyn Clock, leader: Timestamp) -> Timestamp {
    let now = clock.now();
    let before = membership.clocks.skew().is_some();
    membership.clocks.note_leader(leader, now);
    match membership.clocks.skew() {
        Some(skew) if !before => {
            tracing::error!(skew = ?skew, "the clock of this standby differs from that of its leader, which runs all requests");
        }
        None if before => tracing::info!("the clock of this standby is that of its leader again"),
        _ => {}
    }
    now
}

/// The comparisons of the leader; they stop when this is dropped.
pub(crate) struct ClockTask(tokio::task::JoinHandle<()>);

impl Drop for ClockTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ClockTask {
    /// Starts the comparisons of this server; `None` without a cluster.
    pub(crate) fn start(membership: &Membership, clock: Arc<dyn Clock>) -> Option<Self> {
        let (consensus, port) = (membership.consensus()?.clone(), membership.port()?.clone());
        let clocks = membership.clocks.clone();
        Some(ClockTask(tokio::spawn(async move {
            loop {
                if !consensus.is_alone() {
                    clocks.note_voters(compare(&*consensus, &*port, &*clock).await);
                }
                clock.sleep_until(clock.now().after(INTERVAL)).await;
            }
        })))
    }
}

/// The clocks of the other voters minus that of this leader.
async fn compare(consensus: &dyn Consensus, port: &dyn ClusterPort, clock: &dyn Clock) -> Vec<i64> {
    let (status, own) = (consensus.status(), consensus.identity());
    let others = status.members.iter().filter(|member| member.incarnation != own.incarnation);
    let exchanged = others.map(async |member: &Member| {
        let sent = clock.now();
        let theirs = port.exchange_clock(member, sent).await?;
        let took = clock.now().since(sent);
        member.voter.then(|| difference(theirs, sent.after(took / 2)))
    });
    join_all(exchanged).await.into_iter().flatten().collect()
}
