//! The one joint of secrets engines and auth methods.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::BoxFuture;
use crate::cx::Cx;
use crate::error::{Error, Result};
use crate::input::Input;
use crate::lease::{HeldLease, LeaseTerms};
use crate::path::Operation;
use crate::reply::Outcome;
use crate::routes::{Compiled, Routes, Table};
use crate::token_params::TokenTerms;

/// Secrets engine or auth method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Mounted under `sys/mounts`.
    Secrets,
    /// Mounted under `sys/auth`, reached below `auth/`.
    Auth,
}

/// A number that an engine tells of itself: `vault.<name>`, with the mount as a label.
#[derive(Clone, Debug)]
pub struct Gauge {
    /// Parts joined by dots, such as `database.pool.open`.
    pub name: &'static str,
    /// The number.
    pub value: f64,
    /// Further labels, such as the name of a connection.
    pub labels: Vec<(&'static str, String)>,
}

/// A secrets engine or an auth method: anything that can be mounted.
pub trait Engine: Sized + Send + Sync + 'static {
    /// As in `secrets enable TYPE`.
    const TYPE: &'static str;
    /// Which of the two.
    const KIND: Kind;
    /// The mount option that selects this engine among those of its type, such as `("version", "2")`.
    const VARIANT: Option<(&'static str, &'static str)> = None;
    /// Whether it ticks every few seconds and not every minute: for what has to happen on time.
    const TICKS_OFTEN: bool = false;

    /// Its whole surface, in one table.
    fn routes(routes: &mut Routes<Self>);

    /// What it works through that has a name of its own in the catalogue, such as `postgresql-database-plugin`.
    fn plugins() -> Vec<&'static str> {
        Vec::new()
    }

    /// When it is mounted, and when it is first used after an unseal.
    fn open(cx: &mut Cx) -> impl Future<Output = Result<Self>> + Send;

    /// About once a minute, or as [`Engine::TICKS_OFTEN`] says, on the active node. Its context may commit in steps ([`Cx::checkpoint`]), so that a backlog
    /// is worked off in pages.
    fn tick(&self, _cx: &mut Cx) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// A key of this mount changed elsewhere: drop what was cached of it.
    fn invalidate(&self, _key: &str) {}

    /// Numbers that the engine can tell of itself without waiting, such as how many connections a pool holds. Asked when
    /// somebody reads the metrics.
    fn gauges(&self) -> Vec<Gauge> {
        Vec::new()
    }

    /// Numbers that take reading the mount's storage, such as how many secrets it has. Asked in the background.
    fn usage(&self, _cx: &mut Cx) -> impl Future<Output = Result<Vec<Gauge>>> + Send {
        async { Ok(Vec::new()) }
    }

    /// New terms for something leased by this engine.
    fn renew_lease(&self, _cx: &mut Cx, _lease: &HeldLease) -> impl Future<Output = Result<LeaseTerms>> + Send {
        async { Err(Error::invalid("lease is not renewable")) }
    }

    /// Takes back something leased by this engine. Called again after a failure, so it must be idempotent.
    fn revoke_lease(&self, _cx: &mut Cx, _lease: &HeldLease) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// New terms for a token that this auth method's login made; an error refuses the renewal.
    fn renew_login(
        &self,
        _cx: &mut Cx,
        _internal: &serde_json::Value,
    ) -> impl Future<Output = Result<TokenTerms>> + Send {
        async { Err(Error::invalid("login is not renewable")) }
    }
}

/// An engine with its type forgotten: what a mount holds.
#[async_trait]
pub trait Mountable: Send + Sync {
    /// Its table.
    fn table(&self) -> &Table;
    /// Whether the thing that the input names exists; `None` when the row at this place of the table cannot tell.
    async fn exists(&self, row: usize, cx: &mut Cx, input: &Input) -> Result<Option<bool>>;
    /// Runs the handler of the row at this place of the table.
    async fn call(&self, row: usize, operation: Operation, cx: &mut Cx, input: &Input) -> Result<Outcome>;
    /// See [`Engine::TICKS_OFTEN`].
    fn ticks_often(&self) -> bool;
    /// See [`Engine::tick`].
    async fn tick(&self, cx: &mut Cx) -> Result<()>;
    /// See [`Engine::invalidate`].
    fn invalidate(&self, key: &str);
    /// See [`Engine::gauges`].
    fn gauges(&self) -> Vec<Gauge>;
    /// See [`Engine::usage`].
    async fn usage(&self, cx: &mut Cx) -> Result<Vec<Gauge>>;
    /// See [`Engine::renew_lease`].
    async fn renew_lease(&self, cx: &mut Cx, lease: &HeldLease) -> Result<LeaseTerms>;
    /// See [`Engine::revoke_lease`].
    async fn revoke_lease(&self, cx: &mut Cx, lease: &HeldLease) -> Result<()>;
    /// See [`Engine::renew_login`].
    async fn renew_login(&self, cx: &mut Cx, internal: &serde_json::Value) -> Result<TokenTerms>;
}

/// An engine at one mount, with the table of its type.
pub struct Opened<E> {
    engine: E,
    compiled: Arc<Compiled<E>>,
}

impl<E: Engine> Opened<E> {
    /// Puts an engine and its table together.
    pub fn new(engine: E, compiled: Arc<Compiled<E>>) -> Self {
        Opened { engine, compiled }
    }

    /// The engine itself, for tests of one.
    pub fn engine(&self) -> &E {
        &self.engine
    }
}

#[async_trait]
impl<E: Engine> Mountable for Opened<E> {
    fn table(&self) -> &Table {
        self.compiled.table()
    }

    async fn exists(&self, row: usize, cx: &mut Cx, input: &Input) -> Result<Option<bool>> {
        match self.compiled.look(row) {
            None => Ok(None),
            Some(look) => look(&self.engine, cx, input).await.map(Some),
        }
    }

    async fn call(&self, row: usize, operation: Operation, cx: &mut Cx, input: &Input) -> Result<Outcome> {
        let action = self.compiled.action(row, operation).ok_or_else(Error::unsupported_operation)?;
        let called = action(&self.engine, cx, input).await;
        if self.compiled.looks_first(row, operation) { called } else { called.map_err(Error::in_field_validation) }
    }

    fn ticks_often(&self) -> bool {
        E::TICKS_OFTEN
    }

    async fn tick(&self, cx: &mut Cx) -> Result<()> {
        self.engine.tick(cx).await
    }

    fn invalidate(&self, key: &str) {
        self.engine.invalidate(key);
    }

    fn gauges(&self) -> Vec<Gauge> {
        self.engine.gauges()
    }

    async fn usage(&self, cx: &mut Cx) -> Result<Vec<Gauge>> {
        self.engine.usage(cx).await
    }

    async fn renew_lease(&self, cx: &mut Cx, lease: &HeldLease) -> Result<LeaseTerms> {
        self.engine.renew_lease(cx, lease).await
    }

    async fn revoke_lease(&self, cx: &mut Cx, lease: &HeldLease) -> Result<()> {
        self.engine.revoke_lease(cx, lease).await
    }

    async fn renew_login(&self, cx: &mut Cx, internal: &serde_json::Value) -> Result<TokenTerms> {
        self.engine.renew_login(cx, internal).await
    }
}

type Open = Box<dyn for<'a> Fn(&'a mut Cx) -> BoxFuture<'a, Result<Arc<dyn Mountable>>> + Send + Sync>;

/// A kind of engine that can be mounted: its names, its table, how to open it.
pub struct Registered {
    /// As in `secrets enable TYPE`.
    pub engine: &'static str,
    /// Secrets engine or auth method.
    pub kind: Kind,
    /// See [`Engine::VARIANT`].
    pub variant: Option<(&'static str, &'static str)>,
    /// See [`Engine::plugins`].
    pub plugins: Vec<&'static str>,
    table: Arc<Table>,
    open: Open,
}

impl Registered {
    /// Registers an engine.
    pub fn of<E: Engine>() -> Self {
        Self::with(|cx| Box::pin(E::open(cx)))
    }

    /// Registers an engine that is opened by `open` and not by [`Engine::open`]: core's own, which hold parts of core.
    pub fn with<E: Engine>(
        open: impl for<'a> Fn(&'a mut Cx) -> BoxFuture<'a, Result<E>> + Send + Sync + 'static,
    ) -> Self {
        let mut routes = Routes::new();
        E::routes(&mut routes);
        let compiled = Arc::new(Compiled::new(routes));
        let table = compiled.table().clone();
        let open: Open = Box::new(move |cx| {
            let compiled = compiled.clone();
            let opening = open(cx);
            Box::pin(async move {
                let opened: Arc<dyn Mountable> = Arc::new(Opened::new(opening.await?, compiled));
                Ok(opened)
            })
        });
        Registered { engine: E::TYPE, kind: E::KIND, variant: E::VARIANT, plugins: E::plugins(), table, open }
    }

    /// Its table.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Opens it on the mount of `cx`.
    ///
    /// # Errors
    /// What the engine's [`Engine::open`] fails with.
    pub async fn open(&self, cx: &mut Cx) -> Result<Arc<dyn Mountable>> {
        (self.open)(cx).await
    }
}

/// All engines that the server was built with.
pub struct Registry {
    engines: Vec<Registered>,
}

impl Registry {
    /// A registry of these engines.
    pub fn new(engines: Vec<Registered>) -> Self {
        Registry { engines }
    }

    /// The same with more engines in front.
    #[must_use]
    pub fn preceded_by(mut self, mut first: Vec<Registered>) -> Self {
        first.append(&mut self.engines);
        Registry { engines: first }
    }

    /// The engine of this kind and mount type; among variants the one that the mount's options select, else the first.
    pub fn find(&self, kind: Kind, engine: &str, options: &BTreeMap<String, String>) -> Option<&Registered> {
        let engine = implementation(kind, engine);
        let mut same = self.engines.iter().filter(|e| e.kind == kind && e.engine == engine).peekable();
        let first = *same.peek()?;
        let selected =
            same.find(|e| e.variant.is_some_and(|(name, value)| options.get(name).is_some_and(|v| v == value)));
        Some(selected.unwrap_or(first))
    }

    /// All of them.
    pub fn all(&self) -> &[Registered] {
        &self.engines
    }
}

/// The engine type that serves a mount type: `generic` is Vault's former type of `kv`, and mounts still show it.
fn implementation(kind: Kind, mount_type: &str) -> &str {
    match (kind, mount_type) {
        (Kind::Secrets, "generic") => "kv",
        (_, other) => other,
    }
}
