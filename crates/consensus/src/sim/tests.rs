//! The simulator: it is deterministic, finds every planted bug, and finds nothing else.

use super::{Plan, Report, Scene, run};
use crate::planted::Bug;

fn simulate(seed: u64, scene: Scene, planted: Option<Bug>) -> Report {
    run(Plan { seed, seconds: 60, scene, planted })
}

#[test]
fn a_seed_determines_the_trace() {
    for seed in 0..10 {
        let first = simulate(seed, Scene::Any, None);
        assert_eq!(first, simulate(seed, Scene::Any, None), "seed {seed}");
        assert_ne!(first.trace, simulate(seed + 1000, Scene::Any, None).trace, "seed {seed}");
    }
}

/// The long form is `cargo xtask campaign consensus`.
#[test]
fn seeds_break_no_rule_in_any_scene() {
    let (mut faults, mut reads, mut changes, mut departures, mut read_entries, mut snapshots) = (0, 0, 0, 0, 0, 0);
    for scene in [Scene::Any, Scene::Leases, Scene::LoneVoter, Scene::Connections] {
        for seed in 0..40 {
            let report = simulate(seed, scene, None);
            assert_eq!(report.broken, None, "seed {seed} of {scene:?}");
            faults += report.faults;
            reads += report.reads;
            changes += report.changes;
            departures += report.departures;
            read_entries += report.read_entries;
            snapshots += report.snapshots;
        }
    }
    assert!(read_entries > 1000 && snapshots > 100, "{read_entries} entries read, {snapshots} snapshots");
    assert!(departures > 20, "{departures} removed nodes have learned it");
    assert!(faults > 20_000 && reads > 10_000 && changes > 100, "{faults} faults, {reads} reads, {changes} changes");
}

/// Finds a planted bug, and says with which seed. A simulator that does not find it is too weak.
fn find(bug: Bug, scene: Scene, most: u64) {
    let found = (0..most).find_map(|seed| Some((seed, simulate(seed, scene, Some(bug)).broken?)));
    let (seed, broken) = found.unwrap_or_else(|| panic!("{bug:?} is in none of {most} seeds of {scene:?}"));
    println!("{bug:?}: seed {seed} of {scene:?}: {broken}");
}

macro_rules! planted_bugs {
    ($($test:ident: $bug:ident in $scene:ident within $most:literal;)*) => {
        $(
            #[test]
            fn $test() {
                find(Bug::$bug, Scene::$scene, $most);
            }
        )*

        #[test]
        fn every_planted_bug_has_its_test() {
            let tested = [$(Bug::$bug),*];
            // The simulation seldom meets these; directed tests of `steps/tests.rs` cover them.
            let directed = [Bug::NoPromise, Bug::PromiseForgotten, Bug::GoneTooEarly, Bug::LostEntriesKept];
            for bug in Bug::ALL {
                assert!(tested.contains(&bug) || directed.contains(&bug), "{bug:?}");
            }
        }
    };
}

planted_bugs! {
    finds_an_acknowledgement_before_the_sync: AckBeforeSync in Any within 20;
    finds_a_vote_just_after_a_restart: NoVotePauseAfterRestart in Leases within 400;
    finds_a_lease_that_a_transfer_does_not_end: LeaseKeptInTransfer in Any within 200;
    finds_a_read_context_that_is_used_twice: RetriedReadContext in Any within 100;
    finds_the_rest_of_an_older_connection: OldConnection in Connections within 600;
    finds_a_learner_that_counts: LearnerCounts in Any within 20;
    finds_a_new_disk_under_an_old_identity: IncarnationIgnored in Any within 100;
    finds_an_id_that_is_used_twice: IdReused in Any within 100;
    finds_a_vote_in_a_later_frame: VoteInLaterFrame in Any within 200;
    finds_a_removed_leader_that_leads: RemovedLeaderLeads in Any within 100;
    finds_a_leader_that_sends_before_its_vote_is_synced: LeaderSendsBeforeVote in LoneVoter within 100;
    finds_a_frame_without_the_committed_index: NoCommitInFrame in Any within 300;
    finds_votes_that_come_before_the_sync: VotesBeforeSync in Any within 300;
}
