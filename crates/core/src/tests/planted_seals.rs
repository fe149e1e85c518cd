//! Each planted bug of the seals is found: by the model of the record, by that of the start, or by a rule on a server.

use std::sync::Arc;

use keepfast_crypto::random;
use keepfast_framework::seal::SealErrorClass;

use crate::seal::planted::{Bug, plant};
use crate::seal::proven::ProvenKek;
use crate::seal::slots_model::{self, Broken, hold};
use crate::seal::test_seal::{Behaviour, TestSeal};
use crate::seal::{SealAccess, Seals};
use crate::tests::fixture::TestServer;
use crate::tests::seals::{config, server};
use crate::unseal::by_seals::{RoundOutcome, round};
use crate::unseal::{keeper, opener_model};
use crate::{ConfiguredSeal, SealSet};

/// The sequences within which a bug is found.
const SEQUENCES: u32 = 2000;

/// What looks for a bug.
#[derive(Clone, Copy, Debug)]
enum Search {
    /// The model of the record.
    Record,
    /// The model of the start.
    Start,
    /// The rules on a server.
    Server,
}

async fn search(by: Search) -> Result<(), Broken> {
    let seed = hex::encode(random::bytes::<32>());
    match by {
        Search::Record => slots_model::run(&seed, SEQUENCES).await.map(drop),
        Search::Start => opener_model::run(&seed, SEQUENCES),
        Search::Server => rules().await,
    }
}

async fn find(bug: Bug, by: Search) {
    let guard = plant(bug);
    let found = search(by).await;
    drop(guard);
    match found {
        Err(broken) => println!("{bug:?}: {broken}"),
        Ok(()) => panic!("{by:?} does not find {bug:?}"),
    }
}

fn access(server: &TestServer, name: &str) -> Arc<SealAccess> {
    server.node.lifecycle.seals.named(name).unwrap()
}

/// The rules that need a seal or a server.
async fn rules() -> Result<(), Broken> {
    a_kek_is_read_back().await?;
    a_disabled_seal_wraps_nothing().await?;
    a_standby_writes_nothing().await?;
    a_seal_with_another_key_is_not_healthy().await?;
    a_pending_migration_waits_for_a_quorum().await
}

async fn a_kek_is_read_back() -> Result<(), Broken> {
    let seal = TestSeal::new();
    seal.set(Behaviour::WrapsGarbage);
    let created = ProvenKek::create(&*seal).await;
    hold(created.is_err(), || "a seal that wraps other bytes is accepted".into())
}

async fn a_disabled_seal_wraps_nothing() -> Result<(), Broken> {
    let seal = TestSeal::new();
    let disabled = ConfiguredSeal { disabled: true, ..seal.configured("a") };
    let seals = Seals::new(SealSet::new(vec![disabled]).unwrap());
    let clock = keepfast_framework::clock::TestClock::default();
    let wrapped = seals.all()[0].prove(&clock).await;
    hold(wrapped.is_err() && seal.calls() == 0, || "a disabled seal wraps".into())
}

async fn a_standby_writes_nothing() -> Result<(), Broken> {
    let seal = TestSeal::new();
    let server = server(&[&seal]).await;
    seal.rotate();
    let before = config(&server).await;
    keeper::check(&server.unsealed(), &access(&server, "a"), false).await.map_err(|error| error.to_string())?;
    hold(config(&server).await == before, || "a standby changes the record".into())
}

async fn a_seal_with_another_key_is_not_healthy() -> Result<(), Broken> {
    let seal = TestSeal::new();
    let server = server(&[&seal]).await;
    seal.set(Behaviour::UnwrapsAnother);
    keeper::check(&server.unsealed(), &access(&server, "a"), true).await.map_err(|error| error.to_string())?;
    let failure = access(&server, "a").health().failure.map(|(class, _)| class);
    hold(failure == Some(SealErrorClass::WrongKey), || format!("{failure:?}"))
}

async fn a_pending_migration_waits_for_a_quorum() -> Result<(), Broken> {
    let (from, to) = (TestSeal::new(), TestSeal::new());
    let server = server(&[&from]).await;
    let from = ConfiguredSeal { disabled: true, ..from.configured("a") };
    let server = server.under(SealSet::new(vec![from, to.configured("b")]).unwrap());
    let outcome = round(&server.node.lifecycle).await.map_err(|error| error.to_string())?;
    hold(matches!(outcome, RoundOutcome::Idle), || "it unseals before the migration".into())
}

/// Without a planted bug nothing is found.
#[tokio::test]
async fn the_rules_of_seals_hold_on_a_server() {
    search(Search::Server).await.unwrap_or_else(|broken| panic!("{broken}"));
}

macro_rules! planted_bugs {
    ($($test:ident: $bug:ident by $search:ident;)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                find(Bug::$bug, Search::$search).await;
            }
        )*

        #[test]
        fn every_planted_bug_of_seals_has_its_test() {
            let tested = [$(Bug::$bug),*];
            for bug in Bug::ALL {
                assert!(tested.contains(bug), "{bug:?}");
            }
        }
    };
}

planted_bugs! {
    finds_a_kek_that_is_not_read_back: ReadBackSkipped by Server;
    finds_a_record_whose_hmac_is_not_checked: MacIgnored by Record;
    finds_an_escrow_that_is_bound_to_something_else: EscrowMisbound by Record;
    finds_a_slot_that_a_new_root_key_leaves: OldBlobKept by Record;
    finds_a_root_key_of_the_same_generation: GenerationKept by Record;
    finds_the_id_of_a_slot_that_is_used_again: SlotIdReused by Record;
    finds_a_removal_of_the_last_slot: LastSlotRemoved by Record;
    finds_a_seal_with_two_slots: SealEnrolledTwice by Record;
    finds_an_order_of_a_part_of_the_seals: PartOfTheOrder by Record;
    finds_a_slot_under_its_old_kek: OldKekKept by Record;
    finds_a_kek_with_an_old_generation: KekGenerationKept by Record;
    finds_a_slot_of_old_shares: OldSharesKept by Record;
    finds_shares_that_replace_others: StaleSharesReplaced by Record;
    finds_break_glass_by_any_shares: BreakGlassByAnyShares by Record;
    finds_a_slot_of_shares_without_break_glass: BreakGlassSlotKept by Record;
    finds_shares_that_open_without_break_glass: BreakGlassIgnored by Record;
    finds_a_migration_by_any_shares: MigrationByAnyShares by Record;
    finds_the_slot_of_a_seal_before_a_migration: SourceKeptByMigration by Record;
    finds_an_unseal_during_a_pending_migration: PendingMigrationIgnored by Server;
    finds_a_disabled_seal_that_wraps: DisabledSealWraps by Server;
    finds_a_standby_that_heals: StandbyHeals by Server;
    finds_a_healthy_seal_with_another_key: OtherKeyHealthy by Server;
    finds_a_start_that_waits_for_a_seal_that_hangs: NoHedge by Start;
    finds_a_round_that_ends_at_its_first_failure: RoundEndsAtFailure by Start;
    finds_a_pause_without_a_bound: PauseWithoutBound by Start;
    finds_refusals_that_are_repeated_at_once: RefusalsRepeatedAtOnce by Start;
    finds_a_demanded_pause_that_does_not_count: DemandIgnored by Start;
}
