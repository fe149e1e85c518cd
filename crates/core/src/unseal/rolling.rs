//! The task of the leader that migrates the seals of a cluster, one commit after another: each leaves a record that every
//! member opens. Another leader goes on from the record.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use keepfast_crypto::hash::sha256;
use keepfast_crypto::random;
use keepfast_framework::{Result, Timestamp};
use keepfast_storage::{Consensus, Member};

use super::keeper::{checked_slots, enroll, turn_off_break_glass};
use crate::cluster::announced::is_same_build;
use crate::cluster::membership::Membership;
use crate::cluster::port::ClusterPort;
use crate::seal::current::stored_record;
use crate::seal::rolling::{Goal, Report, Step, opened_by};
use crate::seal::slots::Change;
use crate::seal::{BreakGlass, SealConfig, Seals};
use crate::unsealed::Unsealed;

/// The pause after a step, and the first one of a wait.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest pause of a wait. Each one asks the members, which may call their seals.
const LONGEST: Duration = Duration::from_secs(30);
/// The pause while there is nothing to do.
const IDLE: Duration = Duration::from_secs(60);
/// The interval in which a wait that lasts is logged.
const REMINDER: Duration = Duration::from_secs(600);

/// The task; it stops when this is dropped.
pub(crate) struct RollingMigration {
    task: tokio::task::JoinHandle<()>,
    seals: Arc<Seals>,
}

impl Drop for RollingMigration {
    fn drop(&mut self) {
        self.task.abort();
        self.seals.rolling.set_awaited(Vec::new());
    }
}

/// The leader.
struct Leader {
    seals: Arc<Seals>,
    unsealed: Arc<Unsealed>,
    consensus: Arc<dyn Consensus>,
    port: Arc<dyn ClusterPort>,
}

/// What was done.
enum Progress {
    /// Configuration and record agree.
    Done,
    /// A commit; the next step may follow.
    Advanced,
    /// The migration waits.
    Waits,
}

impl RollingMigration {
    /// Starts the task; `None` without a cluster port.
    pub(crate) fn start(membership: &Membership, seals: &Arc<Seals>, unsealed: &Arc<Unsealed>) -> Option<Self> {
        let (consensus, port) = (membership.consensus()?.clone(), membership.port()?.clone());
        let leader = Leader { seals: seals.clone(), unsealed: unsealed.clone(), consensus, port };
        Some(RollingMigration { task: tokio::spawn(run(leader)), seals: seals.clone() })
    }
}

async fn run(leader: Leader) {
    let clock = leader.unsealed.clock.clone();
    let (mut pause, mut waits) = (SHORTEST, SHORTEST);
    let mut logged = Timestamp::default();
    let mut differences = Differences::default();
    loop {
        leader.report_differences(&mut differences);
        tokio::select! {
            () = leader.seals.rolling.wake.notified() => waits = SHORTEST,
            () = clock.sleep_until(clock.now().after(pause)) => {}
        }
        pause = match leader.advance(&mut logged).await {
            Ok(Progress::Waits) => {
                let now = waits;
                waits = waits.saturating_mul(2).min(LONGEST);
                now
            }
            Ok(done) => {
                waits = SHORTEST;
                if matches!(done, Progress::Done) { IDLE } else { SHORTEST }
            }
            Err(error) => {
                let cause = error.cause().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(%error, cause, "the migration of the seals is tried again");
                LONGEST
            }
        };
    }
}

/// The members whose `disable_sealwrap` differs from that of the leader, and when they were logged.
#[derive(Default)]
struct Differences {
    members: Vec<String>,
    logged: Timestamp,
}

impl Leader {
    /// Logs each change of the members whose `disable_sealwrap` differs, and a difference that lasts every ten minutes.
    fn report_differences(&self, known: &mut Differences) {
        let (now, disable_sealwrap) = (self.unsealed.clock.now(), self.unsealed.settings.disable_sealwrap);
        let members = self.unsealed.current_seal.wrap.members_that_differ(disable_sealwrap);
        let is_same = members == known.members;
        if is_same && (members.is_empty() || now.since(known.logged) < REMINDER) {
            return;
        }
        match members.is_empty() {
            true => tracing::info!("disable_sealwrap is the same at all members"),
            false => tracing::error!(
                disable_sealwrap,
                differs_at = members.join(", "),
                "disable_sealwrap differs between members: the leader writes by its own, and no rewrap runs"
            ),
        }
        *known = Differences { members, logged: now };
    }

    /// Takes the next step.
    async fn advance(&self, logged: &mut Timestamp) -> Result<Progress> {
        let (seals, current) = (&self.seals, &self.unsealed.current_seal);
        if self.consensus.is_alone() {
            return Ok(self.done());
        }
        let (record, config) = stored_record(current).await?;
        let Some(goal) = Goal::of(&config, seals, self.unsealed.settings.disable_break_glass) else {
            return Ok(self.done());
        };
        let quorum = seals.rolling.quorum(&config);
        let step = match goal.prepare(&config, seals, quorum.is_some()) {
            Some(step) => step,
            None => goal.complete(&config, seals, &self.reports(&config, sha256(&record)).await),
        };
        let (barrier, clock) = (&self.unsealed.barrier, &*self.unsealed.clock);
        let unchanged = |stored: &SealConfig| Ok(*stored == config);
        let root = random::key();
        match step {
            Step::Await(awaited) => return Ok(self.waits(goal, awaited, logged)),
            Step::Enroll if config.version == 1 => {
                current.change_if(barrier, Change::NewRoot(root), unchanged).await?;
            }
            Step::Enroll => return self.enroll(goal, logged).await,
            Step::LetSharesUnseal => {
                let change = Change::BreakGlass { to: BreakGlass::On, quorum, root };
                current.change_if(barrier, change, unchanged).await?;
                tracing::warn!("the shares unseal from now on, beside the seals");
            }
            Step::Remove(name) => {
                let change = Change::Remove { name: name.clone(), root };
                if current.change_if(barrier, change, unchanged).await? {
                    tracing::warn!(seal = name, "the seal is removed: no member needs it any more");
                }
            }
            Step::ForbidBreakGlass => {
                let Some(opened) = opened_by(&config, seals, checked_slots(seals, &config, clock).await) else {
                    return Ok(Progress::Waits);
                };
                turn_off_break_glass(&self.unsealed, opened, BreakGlass::Forbidden).await?;
            }
        }
        // The root key is another one: the slots get other KEKs, and an old record opens it no more.
        seals.check_slots();
        seals.rolling.set_awaited(Vec::new());
        Ok(Progress::Advanced)
    }

    fn done(&self) -> Progress {
        self.seals.rolling.forget();
        if self.seals.rolling.set_awaited(Vec::new()) {
            tracing::info!("the migration of the seals is complete");
        }
        Progress::Done
    }

    /// Logs each change of what is awaited, and a wait that lasts every ten minutes.
    fn waits(&self, goal: Goal, awaited: Vec<String>, logged: &mut Timestamp) -> Progress {
        let now = self.unsealed.clock.now();
        let text = awaited.join("; ");
        let is_new = self.seals.rolling.set_awaited(awaited);
        if is_new || now.since(*logged) >= REMINDER {
            *logged = now;
            tracing::warn!(goal = goal.name(), awaits = text, "the migration of the seals waits");
        }
        Progress::Waits
    }

    /// Gives the first seal that works a slot; the others get theirs by the checks of the seals.
    async fn enroll(&self, goal: Goal, logged: &mut Timestamp) -> Result<Progress> {
        let mut awaited = Vec::new();
        for access in self.seals.enabled() {
            match enroll(&self.unsealed, &access).await? {
                Ok(()) => {
                    self.seals.check_slots();
                    return Ok(Progress::Advanced);
                }
                Err(error) => {
                    awaited.push(format!("the seal {:?}, which fails: {}", access.configured.name, error.class.name()));
                }
            }
        }
        Ok(self.waits(goal, awaited, logged))
    }

    /// What the members that vote, or are to vote, say of the slots of this record.
    async fn reports(&self, config: &SealConfig, record: [u8; 32]) -> Vec<Report> {
        let (status, own) = (self.consensus.status(), self.consensus.identity());
        let is_own = |member: &&Member| member.node == own.node && member.incarnation == own.incarnation;
        let version = status.members.iter().find(is_own).map(|member| member.version.clone());
        let counted = status.members.iter().filter(|member| member.voter || member.wants_vote);
        let reports = counted.map(async |member| {
            let slots = if is_own(&member) {
                Ok(checked_slots(&self.seals, config, &*self.unsealed.clock).await)
            } else if !version.as_ref().is_some_and(|own| is_same_build(own, &member.version)) {
                // Another version may not have this request.
                Err(format!("runs version {}", member.version))
            } else {
                let opened = self.port.open_slots(member, &record).await;
                opened.ok_or_else(|| "is sealed, has not the current seal record, or is not in contact".to_owned())
            };
            Report { member: member.node.clone(), slots }
        });
        join_all(reports).await
    }
}
