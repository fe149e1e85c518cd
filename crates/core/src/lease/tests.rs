//! Leases of an engine that creates users, with a test clock; no test sleeps.

mod abandoned;
mod by_path;
mod claims;
mod counted;
mod expiry;
mod expiry_queue;
mod fairness;
mod issue;
mod namespaces;
mod revocation;
mod tidy;
mod top;
mod unmount;
mod unreadable_leases;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::clock::TestClock;
use keepfast_framework::engine::{BuiltIn, Registered, Registry};
use keepfast_framework::lease::{BackOff, LeaseClaim};
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{
    CanonicalPath, Clock, Cx, Engine, Error, HeldLease, Intended, Kind, LeaseOffer, LeaseTerms, Operation, Page,
    Result, Routes,
};
use keepfast_storage::{Backend, MemoryBackend, StorageError};
use parking_lot::Mutex;
use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::{Value, json};

use super::index;
use super::record::{LeaseId, State};
use super::revoke::RevokeMode;
use crate::cluster::place::Site;
use crate::mount::permit::RequestPermit;
use crate::node::Node;
use crate::policy::store::PolicyRecord;
use crate::request::Pipeline;
use crate::seal::{CurrentSeal, SealShape, WayIn};
use crate::settings::{DataDirectory, Settings};
use crate::token::Authority;
use crate::token::create::{CreatedToken, Spec};
use crate::unsealed::{OpenInputs, Unsealed};

const HOUR: Duration = Duration::from_secs(3600);

/// A generator whose seed is printed when the test fails; `KEEPFAST_TEST_SEED` (64 hexadecimal digits) repeats a run.
fn seeded() -> TestRng {
    let seed = match std::env::var("KEEPFAST_TEST_SEED") {
        Ok(text) => hex::decode(text).unwrap(),
        Err(_) => random::bytes::<32>().to_vec(),
    };
    println!("repeat with KEEPFAST_TEST_SEED={}", hex::encode(&seed));
    TestRng::from_seed(RngAlgorithm::ChaCha, &seed)
}

/// A number below `bound`.
fn below(rng: &mut TestRng, bound: usize) -> usize {
    rng.next_u32() as usize % bound
}

/// The external system: its users and whether it is reachable.
#[derive(Default)]
struct ExternalSystem {
    users: Mutex<BTreeSet<String>>,
    down: AtomicBool,
    /// Requests fail after the user was created.
    fails_after: AtomicBool,
    /// Requests never return after the user was created.
    hangs_after: AtomicBool,
    revocations: AtomicUsize,
    /// All users have one name, which a lease claims.
    one_name: AtomicBool,
    /// The TTL of issued leases; one hour by default.
    ttl: Mutex<Option<Duration>>,
    /// The backoff of issued leases.
    back_off: Mutex<Option<BackOff>>,
    /// Requests find the user after the intent and withdraw.
    withdraws: AtomicBool,
    /// Users whose removal never returns.
    stuck: Mutex<BTreeSet<String>>,
    /// Users whose removal makes the engine panic.
    panics: Mutex<BTreeSet<String>>,
    /// Users whose role has an unreadable record.
    damaged: Mutex<BTreeSet<String>>,
    /// The number of removals that never return.
    standing: AtomicUsize,
    /// The data that the last revoked lease still had from before its confirmation.
    unconfirmed: Mutex<Value>,
}

struct Users(Arc<ExternalSystem>);

impl Engine for Users {
    const TYPE: &'static str = "users";
    const KIND: Kind = Kind::Secrets;

    fn routes(r: &mut Routes<Self>) {
        r.path("creds", Help { synopsis: "A user.", description: "" }).read(creds).once();
    }

    async fn open(_: &mut Cx) -> Result<Self> {
        Err(Error::internal("opened by the test"))
    }

    async fn renew_lease(&self, _: &mut Cx, _: &HeldLease) -> Result<LeaseTerms> {
        Ok(LeaseTerms { ttl: HOUR, max_ttl: HOUR * 24 })
    }

    async fn revoke_lease(&self, _: &mut Cx, lease: &HeldLease) -> Result<()> {
        self.0.revocations.fetch_add(1, Ordering::Relaxed);
        *self.0.unconfirmed.lock() = lease.until_confirmed.clone();
        if self.0.down.load(Ordering::Relaxed) {
            return Err(Error::invalid("connection refused"));
        }
        let user = lease.internal["user"].as_str().unwrap();
        assert!(!self.0.panics.lock().contains(user), "a planted panic");
        if self.0.damaged.lock().contains(user) {
            return Err(StorageError::Corrupt("role".into()).into());
        }
        if self.0.stuck.lock().contains(user) {
            self.0.standing.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
        }
        self.0.users.lock().remove(user);
        Ok(())
    }
}

async fn creds(users: &Users, cx: &mut Cx, _: Nothing) -> Result<Intended<Value>> {
    let ttl = users.0.ttl.lock().unwrap_or(HOUR);
    let one_name = users.0.one_name.load(Ordering::Relaxed);
    let user = if one_name { "same".to_owned() } else { random::base62(20) };
    let offer = LeaseOffer {
        ttl,
        max_ttl: HOUR * 24,
        renewable: true,
        internal: json!({ "user": user }),
        until_confirmed: json!("proof"),
        back_off: *users.0.back_off.lock(),
        claim: one_name.then(|| LeaseClaim { key: user.clone(), taken: "the name is held".to_owned() }),
    };
    let intent = cx.intend(&offer).await?;
    cx.checkpoint().await?;
    if users.0.withdraws.load(Ordering::Relaxed) {
        cx.withdraw(intent).await?;
        return Err(Error::invalid("it is there"));
    }
    users.0.users.lock().insert(user.clone());
    if users.0.fails_after.load(Ordering::Relaxed) {
        return Err(Error::invalid("the connection broke"));
    }
    if users.0.hangs_after.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    Ok(Intended { data: json!({ "user": user }), intent })
}

struct LeaseFixture {
    backend: Arc<dyn Backend>,
    clock: TestClock,
    external: Arc<ExternalSystem>,
    share: keepfast_crypto::secret::SecretBytes,
    node: Arc<Node>,
    unsealed: Arc<Unsealed>,
    root: SecretString,
}

impl LeaseFixture {
    /// An unsealed server without background tasks; the tests run them.
    async fn new() -> Self {
        Self::in_directory("here").await
    }

    async fn in_directory(data_directory: &str) -> Self {
        Self::on(Arc::new(MemoryBackend::new()), data_directory).await
    }

    async fn on(backend: Arc<dyn Backend>, data_directory: &str) -> Self {
        let (clock, external) = (TestClock::default(), Arc::new(ExternalSystem::default()));
        let node = node(&backend, &clock, &external, data_directory);
        let made = crate::init::initialize(&node.lifecycle, Some(SealShape { shares: 1, threshold: 1 }), None, Ok)
            .await
            .unwrap();
        let share = made.shares.into_iter().next().unwrap();
        let unsealed = opened(&node, &share).await;
        for path in ["a/", "b/"] {
            unsealed
                .engines
                .changes
                .mount(unsealed.engines.mounts.entry(Kind::Secrets, path, "users", None).unwrap())
                .await
                .unwrap();
        }
        let text = "path \"+/creds\" { capabilities = [\"read\"] }";
        let mut tx = unsealed.barrier.begin();
        unsealed.access.policies.write(&mut tx, &PolicyRecord::new("reader", text, clock.now())).unwrap();
        tx.commit().await.unwrap();
        LeaseFixture { backend, clock, external, share, node, unsealed, root: made.root_token }
    }

    /// Restarts the process after a kill, with the data directory at `data_directory`.
    async fn restart(&mut self, data_directory: &str) {
        self.unsealed.barrier.close();
        self.node = node(&self.backend, &self.clock, &self.external, data_directory);
        self.unsealed = opened(&self.node, &self.share).await;
    }

    async fn send(&self, token: &SecretString, path: &str) -> (u16, Value) {
        let incoming = keepfast_framework::Incoming {
            body_withheld: false,
            id: "r".into(),
            method: "GET",
            operation: Operation::Read,
            path: CanonicalPath::new(path.to_owned()).unwrap(),
            input: keepfast_framework::Input::default(),
            token: Some(token.clone()),
            authorization: keepfast_framework::Authorization::None,
            headers: Vec::new(),
            mfa: Vec::new(),
            namespace: String::new(),
            wrap_ttl: None,
            remote: None,
            tls: None,
            open: keepfast_framework::UnauthedEndpoints::default(),
            accepts_prometheus: false,
            cluster: None,
        };
        let pipeline = Pipeline::new(self.unsealed.clone());
        let response = pipeline.handle(Box::new(incoming), Site::Leader).await.ok().unwrap();
        let status = response.status().0;
        (status, serde_json::from_slice(&response.into_body()).unwrap_or_default())
    }

    /// Creates a user by a request with this token; returns the path and id of the lease.
    async fn user(&self, token: &SecretString, mount: &str) -> (String, LeaseId, u64) {
        let (status, answer) = self.send(token, &format!("{mount}/creds")).await;
        assert_eq!(status, 200, "{answer}");
        let id = answer["lease_id"].as_str().unwrap();
        let (path, index::LeaseName::Lease(id)) = index::parse_lease_id(id).unwrap() else { panic!("{id}") };
        (path.to_owned(), id, answer["lease_duration"].as_u64().unwrap())
    }

    async fn token(&self, parent: Option<&CreatedToken>, spec: Spec) -> CreatedToken {
        let mut tx = self.unsealed.barrier.begin();
        let spec = Spec { parent: parent.and_then(|p| p.key.clone()), path: "auth/token/create".into(), ..spec };
        let made = self
            .unsealed
            .access
            .tokens
            .create(&mut tx, &crate::namespace::NamespaceId::root(), spec, self.clock.now())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        made
    }

    async fn pass(&self, span: Duration) {
        self.clock.advance(span);
        self.unsealed.leases.expiry.revoke_expired_tokens(self.clock.now()).await.unwrap();
        self.unsealed.leases.expiry.revoke_expired_leases(self.clock.now()).await.unwrap();
    }

    fn users(&self) -> usize {
        self.external.users.lock().len()
    }

    /// All stored entries of secret leases, by folder.
    async fn stored(&self) -> Vec<String> {
        let view = self.unsealed.barrier.view("token/");
        let mut out = Vec::new();
        let folders =
            ["secret/", index::ENDS, index::HELD, index::IRREVOCABLE, "lease/a/creds/", "lease/b/creds/", "claim/"];
        for folder in folders {
            out.extend(
                self.unsealed
                    .barrier
                    .begin_read()
                    .list(&view, folder, &Page::all())
                    .await
                    .unwrap()
                    .into_iter()
                    .map(|n| format!("{folder}{n}")),
            );
        }
        out
    }
}

fn node(
    backend: &Arc<dyn Backend>,
    clock: &TestClock,
    external: &Arc<ExternalSystem>,
    data_directory: &str,
) -> Arc<Node> {
    let external = external.clone();
    let users = Registered::with(move |_| {
        let external = external.clone();
        Box::pin(async move { Ok(Users(external)) })
    });
    let cubbyhole = Registered::with(|_| Box::pin(async { Ok(Cubbyhole) }));
    let data_directory = DataDirectory { node: "one".into(), place: data_directory.into() };
    let settings = Settings { data_directory: Some(data_directory), ..Settings::default() };
    Node::new(backend.clone(), Registry::new(vec![users, cubbyhole]), Arc::new(clock.clone()), settings)
}

/// Replaces the cubbyhole engine, which core needs.
struct Cubbyhole;

impl Engine for Cubbyhole {
    const TYPE: &'static str = "cubbyhole";
    const KIND: Kind = Kind::Secrets;
    const BUILT_IN: Option<BuiltIn> = Some(BuiltIn::at("cubbyhole/", ""));
    const PER_TOKEN: bool = true;
    fn routes(_: &mut Routes<Self>) {}
    async fn open(_: &mut Cx) -> Result<Self> {
        Ok(Cubbyhole)
    }
}

async fn opened(node: &Arc<Node>, share: &keepfast_crypto::secret::SecretBytes) -> Arc<Unsealed> {
    let parts = &node.lifecycle.parts;
    let config = parts.seal_config().await.unwrap().unwrap();
    let way = WayIn::Shares(config.quorum(std::slice::from_ref(share)).unwrap());
    let root = config.open(&way).unwrap().unwrap();
    let barrier = parts.open_barrier(parts.backend.clone(), &root).await.unwrap();
    parts.take_over(&barrier).await.unwrap();
    let current_seal = CurrentSeal::new(&config, &way, parts.backend.clone(), None, &barrier, parts.clock.clone());
    let rules = parts.admission.source();
    Unsealed::open(parts, OpenInputs { barrier, current_seal, devices: Vec::new(), rules }).await.unwrap()
}

fn reader(batch: bool, ttl: Duration) -> Spec {
    Spec { authority: Authority::Policies(vec!["reader".into()]), ttl: Some(ttl), batch, ..Spec::default() }
}

#[tokio::test]
async fn a_lease_expires_on_time_and_leaves_no_record() {
    let fixture = LeaseFixture::new().await;
    let (_, _, ttl) = fixture.user(&fixture.root, "a").await;
    assert_eq!((ttl, fixture.users()), (3600, 1));
    fixture.pass(HOUR - Duration::from_secs(1)).await;
    assert_eq!(fixture.users(), 1);
    fixture.pass(Duration::from_secs(2)).await;
    assert_eq!(fixture.users(), 0);
    assert_eq!(fixture.stored().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_renewal_counts_from_issue_and_never_exceeds_the_max_ttl() {
    let fixture = LeaseFixture::new().await;
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    fixture.clock.advance(HOUR / 2);
    let granted =
        fixture.unsealed.leases.renewer.renew_lease(&RequestPermit::new(), &path, &id, HOUR * 2).await.unwrap();
    assert_eq!(granted.ttl, HOUR * 2);
    let granted =
        fixture.unsealed.leases.renewer.renew_lease(&RequestPermit::new(), &path, &id, HOUR * 90).await.unwrap();
    assert_eq!((granted.ttl, granted.warnings.len()), (HOUR * 23 + HOUR / 2, 1));
    fixture.pass(HOUR * 23).await;
    assert_eq!(fixture.users(), 1);
    fixture.pass(HOUR).await;
    assert_eq!(fixture.users(), 0);
    let gone =
        fixture.unsealed.leases.renewer.renew_lease(&RequestPermit::new(), &path, &id, HOUR).await.err().unwrap();
    assert_eq!(gone.public(), "lease not found");
}

#[tokio::test]
async fn an_intent_is_revoked_after_a_failure_and_after_a_crash() {
    let mut fixture = LeaseFixture::new().await;
    fixture.external.fails_after.store(true, Ordering::Relaxed);
    assert_eq!(fixture.send(&fixture.root, "a/creds").await.0, 400);
    assert_eq!(fixture.users(), 1, "the user was made before the failure");
    fixture.pass(Duration::ZERO).await;
    assert_eq!(fixture.users(), 0, "a failed request is undone at the next look");
    fixture.pass(Duration::from_secs(40)).await;
    fixture.external.fails_after.store(false, Ordering::Relaxed);
    fixture.external.hangs_after.store(true, Ordering::Relaxed);
    {
        let request = fixture.send(&fixture.root, "a/creds");
        let mut request = std::pin::pin!(request);
        let made = async {
            while fixture.users() == 0 {
                assert!(futures_util::poll!(&mut request).is_pending());
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), made).await.expect("the user is made");
        fixture.pass(Duration::from_secs(40)).await;
        assert_eq!(fixture.users(), 1, "a request that is under way is left alone, however slow");
        fixture.unsealed.barrier.close();
    }
    fixture.restart("here").await;
    fixture.pass(Duration::from_secs(40)).await;
    assert_eq!(fixture.users(), 0);
    fixture.pass(Duration::from_secs(40)).await;
    assert_eq!(fixture.stored().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_intent_is_revoked_again_for_late_effects_of_a_failed_request() {
    let fixture = LeaseFixture::new().await;
    fixture.external.fails_after.store(true, Ordering::Relaxed);
    assert_eq!(fixture.send(&fixture.root, "a/creds").await.0, 400);
    let late = fixture.external.users.lock().clone();
    fixture.pass(Duration::ZERO).await;
    assert_eq!(fixture.users(), 0);
    // The statement was waiting on a stalled connection.
    fixture.external.users.lock().extend(late);
    fixture.pass(Duration::from_secs(40)).await;
    assert_eq!(fixture.users(), 0);
    assert_eq!(fixture.stored().await, Vec::<String>::new());
}

#[tokio::test]
async fn sec_tl02_a_lease_of_a_batch_token_expires_with_it() {
    let fixture = LeaseFixture::new().await;
    let batch = fixture.token(None, reader(true, Duration::from_secs(3))).await;
    let (path, id, ttl) = fixture.user(&batch.id, "a").await;
    assert_eq!(ttl, 3);
    let renewed = fixture.unsealed.leases.renewer.renew_lease(&RequestPermit::new(), &path, &id, HOUR).await.unwrap();
    assert!(renewed.ttl <= Duration::from_secs(3));
    fixture.pass(Duration::from_secs(5)).await;
    assert_eq!(fixture.users(), 0);
    let parent = fixture.token(None, reader(false, HOUR * 9)).await;
    let child = fixture.token(Some(&parent), reader(true, HOUR * 5)).await;
    fixture.user(&child.id, "a").await;
    fixture.unsealed.access.tokens.revoke(parent.key.as_ref().unwrap()).await.unwrap();
    fixture.pass(Duration::ZERO).await;
    assert_eq!(fixture.users(), 0, "the end of the parent ends what its batch token made");
}

#[tokio::test]
async fn sec_tl04_revoking_a_token_revokes_the_leases_of_its_tree() {
    let (mut fixture, mut rng) = (LeaseFixture::new().await, seeded());
    for round in 0..10 {
        let mut tree = vec![fixture.token(None, reader(false, HOUR * 9)).await];
        for _ in 0..20 {
            let parent = below(&mut rng, tree.len());
            tree.push(fixture.token(Some(&tree[parent]), reader(false, HOUR * 9)).await);
        }
        let outside = fixture.token(None, reader(false, HOUR * 9)).await;
        for made in &tree {
            fixture.user(&made.id, if round % 2 == 0 { "a" } else { "b" }).await;
        }
        fixture.user(&outside.id, "a").await;
        fixture.unsealed.access.tokens.revoke(tree[0].key.as_ref().unwrap()).await.unwrap();
        if round % 3 == 0 {
            fixture.restart("here").await;
        }
        fixture.pass(Duration::ZERO).await;
        assert_eq!(fixture.users(), 1, "only the token outside of the tree has its user left");
        fixture.unsealed.access.tokens.revoke(outside.key.as_ref().unwrap()).await.unwrap();
        fixture.pass(Duration::ZERO).await;
        assert_eq!(fixture.stored().await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn sec_tl09_six_tries_then_irrevocable_visible_and_retriable() {
    let fixture = LeaseFixture::new().await;
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    fixture.external.down.store(true, Ordering::Relaxed);
    fixture.pass(HOUR * 2).await;
    for tries in 1..6 {
        assert_eq!(fixture.external.revocations.load(Ordering::Relaxed), tries);
        fixture.pass(Duration::from_secs(9)).await;
        assert_eq!(fixture.external.revocations.load(Ordering::Relaxed), tries, "not before the pause is over");
        fixture.pass(Duration::from_secs(10 << (tries - 1))).await;
    }
    fixture.pass(HOUR * 100).await;
    assert_eq!(fixture.external.revocations.load(Ordering::Relaxed), 6, "and then no more");
    let record =
        fixture.unsealed.leases.store.at(&crate::namespace::NamespaceId::root(), &path, &id).await.unwrap().unwrap();
    assert_eq!(
        record.state,
        State::Irrevocable { error: "out of retries: failed to revoke entry: connection refused".into() }
    );
    assert_eq!(fixture.unsealed.leases.store.irrevocable_mounts().await.unwrap(), [record.mount]);
    fixture.external.down.store(false, Ordering::Relaxed);
    fixture.unsealed.leases.revoker.revoke_lease(&path, &id, RevokeMode::Now).await.unwrap();
    assert_eq!(fixture.users(), 0);
    assert_eq!(fixture.stored().await, Vec::<String>::new());
}

#[tokio::test]
async fn revocation_retries_use_the_backoff_stored_with_the_lease() {
    let mut fixture = LeaseFixture::new().await;
    *fixture.external.back_off.lock() = Some(BackOff { attempts: 3, pause: 60, longest: 90 });
    let (path, id, _) = fixture.user(&fixture.root, "a").await;
    *fixture.external.back_off.lock() = Some(BackOff::default());
    let (_, other, _) = fixture.user(&fixture.root, "a").await;
    let record =
        fixture.unsealed.leases.store.at(&crate::namespace::NamespaceId::root(), &path, &other).await.unwrap().unwrap();
    assert!(!serde_json::to_string(&record).unwrap().contains("back_off"), "what is as for all is not stored");
    fixture.unsealed.leases.revoker.revoke_lease(&path, &other, RevokeMode::Now).await.unwrap();
    fixture.restart("here").await;
    fixture.external.down.store(true, Ordering::Relaxed);
    fixture.pass(HOUR * 2).await;
    for (pause, tries) in [(59, 2), (2, 3), (89, 3), (2, 4), (100_000, 4)] {
        fixture.pass(Duration::from_secs(pause)).await;
        assert_eq!(fixture.external.revocations.load(Ordering::Relaxed), tries, "one was the other lease's");
    }
    let record =
        fixture.unsealed.leases.store.at(&crate::namespace::NamespaceId::root(), &path, &id).await.unwrap().unwrap();
    assert!(matches!(record.state, State::Irrevocable { .. }));
}

#[tokio::test]
async fn sec_tl09_a_corrupt_record_blocks_neither_unseal_nor_the_others() {
    let mut fixture = LeaseFixture::new().await;
    let (_, broken, _) = fixture.user(&fixture.root, "a").await;
    for _ in 0..999 {
        fixture.user(&fixture.root, "a").await;
    }
    let view = fixture.unsealed.barrier.view("token/");
    let mut tx = fixture.unsealed.barrier.begin();
    tx.put(&view, &format!("secret/{}", broken.as_str()), Bytes::from_static(b"{\"path\":7"));
    tx.commit().await.unwrap();
    fixture.restart("here").await;
    fixture.pass(HOUR * 2).await;
    assert_eq!(fixture.users(), 1);
    let mount = &fixture.unsealed.leases.store.irrevocable_mounts().await.unwrap()[0];
    let listed = fixture.unsealed.leases.store.of_mount(index::IRREVOCABLE, mount, &Page::all()).await.unwrap();
    assert_eq!(listed, [broken.as_str()]);
}

#[tokio::test]
async fn a_mount_that_fails_leaves_the_others_alone() {
    let fixture = LeaseFixture::new().await;
    for _ in 0..300 {
        fixture.user(&fixture.root, "a").await;
    }
    fixture.external.down.store(true, Ordering::Relaxed);
    fixture.pass(HOUR * 2).await;
    assert_eq!(fixture.users(), 300);
    fixture.external.down.store(false, Ordering::Relaxed);
    fixture.user(&fixture.root, "b").await;
    fixture.unsealed.leases.revoker.revoke_prefix("b", RevokeMode::Queued).await.unwrap();
    fixture.pass(Duration::ZERO).await;
    assert_eq!(fixture.users(), 300, "b is done while a waits for its next try");
    fixture.unsealed.leases.revoker.revoke_prefix("a/", RevokeMode::Queued).await.unwrap();
    fixture.pass(Duration::ZERO).await;
    assert_eq!(fixture.users(), 0);
}

#[tokio::test]
async fn a_restored_copy_revokes_nothing_until_an_operator_ends_quarantine() {
    let mut fixture = LeaseFixture::in_directory("here").await;
    fixture.user(&fixture.root, "a").await;
    fixture.restart("here").await;
    assert!(!fixture.unsealed.leases.store.is_quarantined());
    fixture.restart("elsewhere").await;
    assert!(fixture.unsealed.leases.store.is_quarantined());
    fixture.pass(HOUR * 2).await;
    assert_eq!(fixture.users(), 1);
    fixture.restart("elsewhere").await;
    assert!(fixture.unsealed.leases.store.is_quarantined(), "it lasts");
    fixture.unsealed.leases.store.set_quarantine(false, fixture.clock.now()).await.unwrap();
    fixture.pass(Duration::ZERO).await;
    assert_eq!(fixture.users(), 0);
    fixture.restart("elsewhere").await;
    assert!(!fixture.unsealed.leases.store.is_quarantined(), "this is its home now");
}

#[tokio::test]
async fn the_one_home_of_an_older_version_becomes_that_of_its_node() {
    for (place, quarantined) in [("here", false), ("elsewhere", true)] {
        let mut fixture = LeaseFixture::in_directory("here").await;
        let view = fixture.unsealed.barrier.view("token/");
        let mut tx = fixture.unsealed.barrier.begin();
        assert!(tx.get(&view, "home/one").await.unwrap().is_some());
        tx.delete(&view, "home/one");
        tx.put(&view, "home", Bytes::from_static(b"\"here\""));
        tx.commit().await.unwrap();
        fixture.restart(place).await;
        assert_eq!(fixture.unsealed.leases.store.is_quarantined(), quarantined);
        fixture.unsealed.leases.store.set_quarantine(false, fixture.clock.now()).await.unwrap();
        let mut tx = fixture.unsealed.barrier.begin_read();
        assert_eq!(tx.get(&view, "home").await.unwrap(), None);
        let known = tx.get(&view, "home/one").await.unwrap().unwrap();
        assert_eq!(known, format!("{place:?}"));
    }
}
