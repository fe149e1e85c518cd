//! A test bench: an engine on memory storage with a test clock, without a server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_storage::{Backend, Barrier, Batch, Index, Key, MemoryBackend, Page, StorageError, Tx, Watch, Write};
use parking_lot::Mutex;
use serde_json::Value;

use crate::clock::{Clock, TestClock, Timestamp};
use crate::cx::{Caller, Cx, Request};
use crate::engine::{Engine, Mountable, Registered};
use crate::error::{Error, Result, Status};
use crate::input::{Body, Input};
use crate::lease::{HeldLease, Intent, IntentGuard, LeaseOffer, LeaseTerms, Lessor};
use crate::mount::{MountInfo, TtlBounds};
use crate::path::Operation;
use crate::reply::{Login, Outcome};
use crate::routes::Table;
use crate::services::{Extract, Services};

/// Maximum number of tries of a request that conflicts, as in the server.
const TRIES: usize = 64;

/// An engine under test.
pub struct Bench {
    /// The clock of the engine; tests advance it.
    pub clock: TestClock,
    /// The caller; tests may change it between calls.
    pub caller: Caller,
    /// The IP address of the client.
    pub remote: Option<std::net::IpAddr>,
    backend: Arc<Counted>,
    barrier: Arc<Barrier>,
    mount: Arc<MountInfo>,
    engine: Arc<dyn Mountable>,
    records: Arc<EngineRecords>,
    offered: Offered,
}

/// Passes the commits in the mount to the open engine, as the server does.
struct EngineRecords(Mutex<Arc<dyn Mountable>>);

impl Watch for EngineRecords {
    fn applied(&self, _: Index, writes: &[Write]) {
        let engine = self.0.lock().clone();
        for write in writes {
            if let Some(key) = write.key().as_str().strip_prefix("logical/test/") {
                engine.invalidate(key, matches!(write, Write::Put { .. }));
            }
        }
    }

    /// The barrier closes: an engine is not used afterwards.
    fn replaced(&self, _: Index) {}
}

/// All leases that were offered so far.
type Offered = Arc<Mutex<Vec<Offer>>>;

/// An offered lease and the state of its intent.
struct Offer {
    offer: LeaseOffer,
    /// Confirmed or withdrawn: not to be revoked.
    settled: bool,
}

/// The result of a call.
pub struct BenchResponse {
    /// The outcome that the engine returned; empty for a login.
    pub outcome: Outcome,
    /// The login, if the call was a successful login.
    pub login: Option<Login>,
    /// The warnings.
    pub warnings: Vec<String>,
}

impl BenchResponse {
    /// `data` as a JSON value; null when there is none.
    pub fn data(&self) -> Value {
        self.outcome.data().and_then(|d| serde_json::from_str(d.get()).ok()).unwrap_or(Value::Null)
    }

    /// The status, if not 200 or 204.
    pub fn status(&self) -> Option<Status> {
        match &self.outcome {
            Outcome::Empty(status) => *status,
            Outcome::Data(payload) => payload.status.map(|status| status.sent),
            _ => None,
        }
    }

    /// `lease_duration` in seconds without a lease.
    pub fn hint_ttl(&self) -> i64 {
        match &self.outcome {
            Outcome::Data(payload) => payload.hint_ttl,
            _ => 0,
        }
    }
}

impl Bench {
    /// Mounts an engine with these options at `test/`.
    ///
    /// # Errors
    /// Those of [`Engine::open`].
    pub async fn with_options<E: Engine>(options: &[(&str, &str)]) -> Result<Self> {
        let registered = Registered::of::<E>();
        let backend = Arc::new(Counted::default());
        let root = random::key();
        Barrier::create(backend.clone(), &root, Bytes::new(), 0).await.map_err(Error::internal)?;
        let barrier = Barrier::open(backend.clone(), &root).await.map_err(Error::internal)?;
        let mount = Arc::new(MountInfo {
            path: "test/".into(),
            engine: E::TYPE.into(),
            accessor: format!("{}_0000", E::TYPE),
            uuid: "test".into(),
            options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ttl: TtlBounds::default(),
        });
        let clock = TestClock::default();
        let offered = Offered::default();
        let request = (Operation::Read, String::new());
        let mut cx = context(&barrier, &mount, &clock, &offered, Caller::default(), request, None);
        let engine = registered.open(&mut cx).await?;
        cx.commit().await?;
        let records = Arc::new(EngineRecords(Mutex::new(engine.clone())));
        let watcher: Arc<dyn Watch> = records.clone();
        barrier.watch(Arc::downgrade(&watcher));
        Ok(Bench { clock, caller: Caller::default(), remote: None, backend, barrier, mount, engine, records, offered })
    }

    /// Mounts an engine without options at `test/`.
    ///
    /// # Errors
    /// Those of [`Engine::open`].
    pub async fn new<E: Engine>() -> Result<Self> {
        Self::with_options::<E>(&[]).await
    }

    /// Mounts another engine with these options over the same storage, as after a change of the mount's options or an
    /// unseal.
    ///
    /// # Errors
    /// Those of [`Engine::open`].
    pub async fn remount<E: Engine>(&mut self, options: &[(&str, &str)]) -> Result<()> {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.mount = Arc::new(MountInfo { options, ..MountInfo::clone(&self.mount) });
        let mut cx = self.context(Caller::default(), Operation::Read, String::new());
        self.engine = Registered::of::<E>().open(&mut cx).await?;
        cx.commit().await?;
        *self.records.0.lock() = self.engine.clone();
        Ok(())
    }

    /// The number of reads of the backend (cache misses) and of commits so far, for tests of the cost of a request.
    pub fn storage_use(&self) -> (usize, usize) {
        (self.backend.reads.load(Ordering::Relaxed), self.backend.commits.load(Ordering::Relaxed))
    }

    /// The engine's table.
    pub fn table(&self) -> &Table {
        self.engine.table()
    }

    /// Runs one request in one transaction, with retries after conflicts, as the server does. `path` may have a query
    /// (`a?list=true` without percent-encoding).
    ///
    /// # Errors
    /// Those of the request.
    pub async fn call(&self, operation: Operation, path: &str, body: Value) -> Result<BenchResponse> {
        match body {
            Value::Null => self.call_raw(operation, path, "").await,
            other => self.call_raw(operation, path, &other.to_string()).await,
        }
    }

    /// Like [`Bench::call`], with the body as text.
    ///
    /// # Errors
    /// Those of the request.
    pub async fn call_raw(&self, operation: Operation, path: &str, body: &str) -> Result<BenchResponse> {
        let body = Body::parse(Bytes::copy_from_slice(body.as_bytes()))?;
        for _ in 0..TRIES {
            match self.try_call(operation, path, body.clone()).await {
                Err(error) if error.is_conflict() => {}
                other => return other,
            }
        }
        Err(Error::internal("conflicts without end"))
    }

    async fn try_call(&self, operation: Operation, path: &str, body: Body) -> Result<BenchResponse> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query =
            query.split('&').filter_map(|q| q.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        let found = self.engine.table().find(operation, path).ok_or_else(Error::unsupported_path)?;
        let input = Input { captures: found.captures, query, body };
        let full = format!("{}{path}", self.mount.path);
        let mut cx = self.context(self.caller.clone(), operation, full);
        if self.engine.table().rows()[found.row].once {
            cx = cx.once();
        }
        let (outcome, login) = match self.engine.call(found.row, operation, &mut cx, &input).await? {
            Outcome::Login(attempt) => (Outcome::Empty(None), Some(attempt.outcome?)),
            outcome => (outcome, None),
        };
        let parts = cx.into_parts();
        parts.tx.commit().await?;
        if let Outcome::Intended { intent, .. } = &outcome {
            intent.keep();
        }
        for action in parts.after_commit {
            action();
        }
        Ok(BenchResponse { outcome, login, warnings: parts.warnings })
    }

    /// GET.
    ///
    /// # Errors
    /// Those of the request.
    pub async fn read(&self, path: &str) -> Result<BenchResponse> {
        self.call(Operation::Read, path, Value::Null).await
    }

    /// POST.
    ///
    /// # Errors
    /// Those of the request.
    pub async fn write(&self, path: &str, body: Value) -> Result<BenchResponse> {
        self.call(Operation::Update, path, body).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// Those of the request.
    pub async fn delete(&self, path: &str) -> Result<BenchResponse> {
        self.call(Operation::Delete, path, Value::Null).await
    }

    /// LIST.
    ///
    /// # Errors
    /// Those of the request.
    pub async fn list(&self, path: &str) -> Result<BenchResponse> {
        self.call(Operation::List, path, Value::Null).await
    }

    /// SCAN.
    ///
    /// # Errors
    /// Those of the request.
    pub async fn scan(&self, path: &str) -> Result<BenchResponse> {
        self.call(Operation::Scan, path, Value::Null).await
    }

    /// PATCH.
    ///
    /// # Errors
    /// Those of the request.
    pub async fn patch(&self, path: &str, body: Value) -> Result<BenchResponse> {
        self.call(Operation::Patch, path, body).await
    }

    /// Whether the object at `path` exists, according to the engine.
    ///
    /// # Errors
    /// Those of the existence check.
    pub async fn exists(&self, path: &str) -> Result<Option<bool>> {
        let found = self.engine.table().find(Operation::Update, path).ok_or_else(Error::unsupported_path)?;
        let input = Input { captures: found.captures, ..Input::default() };
        let mut cx = self.context(self.caller.clone(), Operation::Update, path.to_owned());
        self.engine.exists(found.row, &mut cx, &input).await
    }

    /// Advances the clock by `span` and runs a tick of the engine.
    ///
    /// # Errors
    /// Those of the tick.
    pub async fn tick_after(&self, span: Duration) -> Result<()> {
        self.clock.advance(span);
        let mut cx = self.context(Caller::default(), Operation::Update, String::new()).once();
        self.engine.tick(&mut cx).await?;
        Ok(cx.commit().await?)
    }

    /// The terms of all leases that were offered so far.
    pub fn offers(&self) -> Vec<LeaseOffer> {
        self.offered.lock().iter().map(|o| o.offer.clone()).collect()
    }

    /// Adds a lease of another mount of the same engine type.
    pub fn lease_elsewhere(&self, internal: Value) {
        let offer = LeaseOffer { internal, ..LeaseOffer::default() };
        self.offered.lock().push(Offer { offer, settled: true });
    }

    /// The leases that core would revoke: those of requests that failed after the intent.
    pub fn abandoned(&self) -> Vec<HeldLease> {
        let offered = self.offered.lock();
        let open = offered.iter().filter(|o| !o.settled).map(|o| &o.offer);
        let as_held = |offer: &LeaseOffer| HeldLease {
            until_confirmed: offer.until_confirmed.clone(),
            ..held("", offer.internal.clone(), Duration::ZERO, &self.clock)
        };
        open.map(as_held).collect()
    }

    /// The type-erased engine, and a context to call it with (for leases and logins).
    pub fn engine_and_cx(&self) -> (Arc<dyn Mountable>, Cx) {
        (self.engine.clone(), self.context(self.caller.clone(), Operation::Update, String::new()))
    }

    fn context(&self, caller: Caller, operation: Operation, path: String) -> Cx {
        context(&self.barrier, &self.mount, &self.clock, &self.offered, caller, (operation, path), self.remote)
    }
}

fn context(
    barrier: &Arc<Barrier>,
    mount: &Arc<MountInfo>,
    clock: &TestClock,
    offered: &Offered,
    caller: Caller,
    (operation, path): (Operation, String),
    remote: Option<std::net::IpAddr>,
) -> Cx {
    let clock: Arc<dyn Clock> = Arc::new(clock.clone());
    let request = Request { id: random::uuid(), operation, path, remote, tls: None };
    let view = barrier.view(format!("logical/{}/", mount.uuid));
    let lessor = Arc::new(BenchLessor { now: clock.now(), offered: offered.clone() });
    let services = Arc::new(BenchServices(offered.clone()));
    Cx::new(barrier.clone(), barrier.begin(), view, mount.clone(), clock, Arc::new(caller), Arc::new(request))
        .with_lessor(lessor)
        .with_services(services)
}

/// A memory backend that counts reads and commits.
#[derive(Default)]
struct Counted {
    backend: MemoryBackend,
    reads: AtomicUsize,
    commits: AtomicUsize,
}

#[async_trait]
impl Backend for Counted {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StorageError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.backend.get(key).await
    }

    async fn list(&self, prefix: &Key, page: &Page) -> Result<Vec<String>, StorageError> {
        self.backend.list(prefix, page).await
    }

    async fn commit(&self, batch: Batch) -> Result<Index, StorageError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.backend.commit(batch).await
    }

    fn watch(&self, watcher: Weak<dyn Watch>) {
        self.backend.watch(watcher);
    }
}

/// Issues every offered lease with the offered TTL, and keeps the stored data.
struct BenchLessor {
    now: Timestamp,
    offered: Offered,
}

/// Knows the offered leases, and no password policy.
struct BenchServices(Offered);

#[async_trait]
impl Services for BenchServices {
    async fn password(&self, _: &mut Tx, _: &str) -> Result<SecretString> {
        Err(Error::invalid("no password policy found"))
    }

    async fn leased(&self, _: &str, pick: Extract<'_>) -> Result<Vec<String>> {
        Ok(self.0.lock().iter().filter_map(|o| pick(&o.offer.internal)).collect())
    }
}

/// Settles one of the offers.
struct Place(Offered, usize);

impl IntentGuard for Place {
    fn keep(&self) {
        self.0.lock()[self.1].settled = true;
    }
}

#[async_trait]
impl Lessor for BenchLessor {
    async fn intend(&self, _: &mut Tx, offer: &LeaseOffer) -> Result<(Intent, Vec<String>)> {
        let mut offered = self.offered.lock();
        let claims = |o: &Offer| o.offer.claim.as_ref().map(|c| c.key.clone());
        if let Some(claim) = &offer.claim
            && offered.iter().any(|o| claims(o).as_ref() == Some(&claim.key))
        {
            return Err(Error::invalid(claim.taken.clone()));
        }
        let place = Box::new(Place(self.offered.clone(), offered.len()));
        let id = format!("test/lease/{}", offered.len());
        offered.push(Offer { offer: offer.clone(), settled: false });
        Ok((Intent::new(id, self.now.after(offer.ttl), place), Vec::new()))
    }

    async fn withdraw(&self, _: &mut Tx, intent: &Intent) -> Result<()> {
        let place = intent.id().rsplit_once('/').and_then(|(_, n)| n.parse::<usize>().ok());
        if let Some(offer) = self.offered.lock().get_mut(place.unwrap_or(usize::MAX)) {
            offer.offer.claim = None;
        }
        Ok(())
    }
}

/// A lease as an engine receives it, without limits beyond its own terms.
pub fn held(path: &str, internal: Value, increment: Duration, clock: &TestClock) -> HeldLease {
    let now = clock.now();
    HeldLease {
        path: path.to_owned(),
        internal,
        until_confirmed: Value::Null,
        increment,
        expiry_of: Arc::new(move |terms: &LeaseTerms| now.after(terms.ttl)),
    }
}
