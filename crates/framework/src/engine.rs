//! The trait of secrets engines and auth methods.

use std::borrow::Cow;
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
use crate::token_params::{TokenKind, TokenTerms};

/// Secrets engine or auth method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Mounted under `sys/mounts`.
    Secrets,
    /// Mounted under `sys/auth`, with paths below `auth/`.
    Auth,
}

impl Kind {
    /// The prefix of the paths of all mounts of this kind; empty for secrets engines.
    pub const fn prefix(self) -> &'static str {
        match self {
            Kind::Secrets => "",
            Kind::Auth => "auth/",
        }
    }
}

/// The built-in mount of an engine, which every server has. Callers can neither mount, move nor unmount it.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// Its path with the final slash, such as `cubbyhole/` or `auth/token/`.
    pub path: &'static str,
    /// Its description in `sys/mounts`.
    pub description: &'static str,
    /// The prefix of its storage; `None` for a prefix of its own, like other mounts.
    pub storage: Option<&'static str>,
    /// Reported as not replicated.
    pub local: bool,
    /// Reported as seal-wrapped, although only [`Engine::WRAPPED`] is wrapped.
    pub seal_wrap: bool,
    /// Request headers that are reported as passed to the engine.
    pub passthrough_request_headers: &'static [&'static str],
    /// The kind of its tokens.
    pub token_type: TokenKind,
}

impl BuiltIn {
    /// A mount at this path with its own storage and default settings.
    pub const fn at(path: &'static str, description: &'static str) -> Self {
        BuiltIn {
            path,
            description,
            storage: None,
            local: false,
            seal_wrap: false,
            passthrough_request_headers: &[],
            token_type: TokenKind::Default,
        }
    }
}

/// The properties of an engine type, so that the server depends on no type by name.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    /// See [`Engine::BUILT_IN`].
    pub built_in: Option<BuiltIn>,
    /// See [`Engine::FORMER_TYPE`].
    pub former_type: Option<&'static str>,
    /// See [`Engine::plugins`].
    pub plugins: fn() -> Vec<&'static str>,
    /// See [`Engine::IN_CORE`].
    pub in_core: bool,
    /// See [`Engine::PER_TOKEN`].
    pub per_token: bool,
    /// See [`Engine::IN_BACKGROUND`].
    pub in_background: bool,
    /// See [`Engine::LOCKS_OUT`].
    pub locks_out: bool,
    /// See [`Engine::WRAPPED`].
    pub wrapped: &'static [&'static str],
}

impl Traits {
    fn of<E: Engine>() -> Self {
        Traits {
            built_in: E::BUILT_IN,
            former_type: E::FORMER_TYPE,
            plugins: E::plugins,
            in_core: E::IN_CORE,
            per_token: E::PER_TOKEN,
            in_background: E::IN_BACKGROUND,
            locks_out: E::LOCKS_OUT,
            wrapped: E::WRAPPED,
        }
    }
}

/// A gauge of an engine: `vault.<name>`, with the mount as a label.
#[derive(Clone, Debug)]
pub struct Gauge {
    /// Name segments joined by dots, such as `database.pool.open`.
    pub name: &'static str,
    /// The value.
    pub value: f64,
    /// Further labels, such as the name of a connection.
    pub labels: Vec<(&'static str, String)>,
}

/// A secrets engine or an auth method: anything that can be mounted.
pub trait Engine: Sized + Send + Sync + 'static {
    /// The type as in `secrets enable TYPE`.
    const TYPE: &'static str;
    /// Secrets engine or auth method.
    const KIND: Kind;
    /// The mount option that selects this engine among those of its type, such as `("version", "2")`.
    const VARIANT: Option<(&'static str, &'static str)> = None;
    /// Whether it ticks every few seconds instead of every minute, for time-critical tasks.
    const TICKS_OFTEN: bool = false;
    /// The built-in mount of every server. Callers cannot mount another one.
    const BUILT_IN: Option<BuiltIn> = None;
    /// The type that its mounts had in former versions of Vault. Mounts may still have and report it.
    const FORMER_TYPE: Option<&'static str> = None;
    /// Whether it is a part of the kernel: its handlers get the kernel's data about the call ([`Cx::core`]).
    const IN_CORE: bool = false;
    /// Whether its stored data belongs to the calling token and is deleted with it. A wrapping token finds its response
    /// there.
    const PER_TOKEN: bool = false;
    /// Whether it has work that no request starts, such as a rotation: the leader then keeps the mount open.
    const IN_BACKGROUND: bool = false;
    /// Whether failed logins lock a user out (`user_lockout`).
    const LOCKS_OUT: bool = false;
    /// The prefixes of the records of a mount that are wrapped (seal wrap), as their values open other systems or protect
    /// other data: folders with their final slash, or whole keys.
    const WRAPPED: &'static [&'static str] = &[];

    /// Declares the routing table with all paths.
    fn routes(routes: &mut Routes<Self>);

    /// Names of its plugins in the catalogue, such as `postgresql-database-plugin`.
    fn plugins() -> Vec<&'static str> {
        Vec::new()
    }

    /// Opens the engine: when it is mounted, and at its first use after an unseal.
    fn open(cx: &mut Cx) -> impl Future<Output = Result<Self>> + Send;

    /// Runs about once a minute, or as [`Engine::TICKS_OFTEN`] says, on the active node. Its context may commit in
    /// steps ([`Cx::checkpoint`]), so that a backlog is processed in pages.
    fn tick(&self, _cx: &mut Cx) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// Invalidates cached data: a commit of any node, including this one, has written or deleted the record at `key` of
    /// this mount. Called before the commit is acknowledged, also for commits of [`Engine::open`] itself; it must be
    /// fast.
    fn invalidate(&self, _key: &str, _exists: bool) {}

    /// Gauges that are available without waiting, such as the number of connections in a pool. Called when the metrics
    /// are read.
    fn gauges(&self) -> Vec<Gauge> {
        Vec::new()
    }

    /// Gauges that require reads of the mount's storage, such as the number of secrets. Called in the background.
    fn usage(&self, _cx: &mut Cx) -> impl Future<Output = Result<Vec<Gauge>>> + Send {
        async { Ok(Vec::new()) }
    }

    /// Returns new terms for a lease of this engine.
    fn renew_lease(&self, _cx: &mut Cx, _lease: &HeldLease) -> impl Future<Output = Result<LeaseTerms>> + Send {
        async { Err(Error::invalid("lease is not renewable")) }
    }

    /// Revokes a lease of this engine. Called again after an error, so it must be idempotent.
    fn revoke_lease(&self, _cx: &mut Cx, _lease: &HeldLease) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// Returns new terms for a token from a login of this auth method; an error refuses the renewal.
    fn renew_login(
        &self,
        _cx: &mut Cx,
        _internal: &serde_json::Value,
    ) -> impl Future<Output = Result<TokenTerms>> + Send {
        async { Err(Error::invalid("login is not renewable")) }
    }
}

/// A type-erased engine, as a mount holds it.
#[async_trait]
pub trait Mountable: Send + Sync {
    /// Its routing table.
    fn table(&self) -> &Table;
    /// Whether the object that the input names exists; `None` when the row at this index of the table has no `.exists`
    /// handler.
    async fn exists(&self, row: usize, cx: &mut Cx, input: &Input) -> Result<Option<bool>>;
    /// Runs the handler of the row at this index of the table.
    async fn call(&self, row: usize, operation: Operation, cx: &mut Cx, input: &Input) -> Result<Outcome>;
    /// See [`Engine::TICKS_OFTEN`].
    fn ticks_often(&self) -> bool;
    /// See [`Engine::tick`].
    async fn tick(&self, cx: &mut Cx) -> Result<()>;
    /// See [`Engine::invalidate`].
    fn invalidate(&self, key: &str, exists: bool);
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

/// An engine at one mount, with the routing table of its type.
pub struct Opened<E> {
    engine: E,
    compiled: Arc<Compiled<E>>,
}

impl<E: Engine> Opened<E> {
    /// Combines an engine with its table.
    pub fn new(engine: E, compiled: Arc<Compiled<E>>) -> Self {
        Opened { engine, compiled }
    }

    /// The engine itself, for tests.
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
        match self.compiled.existence_check(row) {
            None => Ok(None),
            Some(existence_check) => existence_check(&self.engine, cx, input).await.map(Some),
        }
    }

    async fn call(&self, row: usize, operation: Operation, cx: &mut Cx, input: &Input) -> Result<Outcome> {
        let action = self.compiled.action(row, operation).ok_or_else(Error::unsupported_operation)?;
        let called = action(&self.engine, cx, input).await;
        if self.compiled.checks_existence(row, operation) { called } else { called.map_err(Error::in_field_validation) }
    }

    fn ticks_often(&self) -> bool {
        E::TICKS_OFTEN
    }

    async fn tick(&self, cx: &mut Cx) -> Result<()> {
        self.engine.tick(cx).await
    }

    fn invalidate(&self, key: &str, exists: bool) {
        self.engine.invalidate(key, exists);
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

/// A registered engine type: its names, its table, and the function that opens it.
pub struct Registered {
    /// The type as in `secrets enable TYPE`.
    pub engine: Cow<'static, str>,
    /// Secrets engine or auth method.
    pub kind: Kind,
    /// See [`Engine::VARIANT`].
    pub variant: Option<(&'static str, &'static str)>,
    /// The other properties that it declares.
    pub traits: Traits,
    table: Arc<Table>,
    open: Open,
}

impl Registered {
    /// Registers an engine.
    pub fn of<E: Engine>() -> Self {
        Self::with(|cx| Box::pin(E::open(cx)))
    }

    /// Registers an engine that is opened by `open` instead of [`Engine::open`]: for core's own engines, which hold
    /// parts of core.
    pub fn with<E: Engine>(
        open: impl for<'a> Fn(&'a mut Cx) -> BoxFuture<'a, Result<E>> + Send + Sync + 'static,
    ) -> Self {
        Self::with_table(Arc::new(Compiled::of_engine()), open)
    }

    /// Registers an engine with a compiled table, which can be shared.
    pub fn with_table<E: Engine>(
        compiled: Arc<Compiled<E>>,
        open: impl for<'a> Fn(&'a mut Cx) -> BoxFuture<'a, Result<E>> + Send + Sync + 'static,
    ) -> Self {
        let table = compiled.table().clone();
        let open: Open = Box::new(move |cx| {
            let compiled = compiled.clone();
            let opening = open(cx);
            Box::pin(async move {
                let opened: Arc<dyn Mountable> = Arc::new(Opened::new(opening.await?, compiled));
                Ok(opened)
            })
        });
        let (engine, kind, variant) = (Cow::Borrowed(E::TYPE), E::KIND, E::VARIANT);
        Registered { engine, kind, variant, traits: Traits::of::<E>(), table, open }
    }

    /// Its routing table.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The value of the mount option `version` that selects it, where its type has several versions.
    pub fn version(&self) -> Option<&'static str> {
        self.variant.filter(|(option, _)| *option == "version").map(|(_, version)| version)
    }

    /// Opens it on the mount of `cx`.
    ///
    /// # Errors
    /// Those of [`Engine::open`].
    pub async fn open(&self, cx: &mut Cx) -> Result<Arc<dyn Mountable>> {
        (self.open)(cx).await
    }
}

/// All engines of the server.
pub struct Registry {
    engines: Vec<Registered>,
}

impl Registry {
    /// Creates a registry of these engines.
    pub fn new(engines: Vec<Registered>) -> Self {
        Registry { engines }
    }

    /// Inserts more engines before the existing ones.
    #[must_use]
    pub fn preceded_by(mut self, mut first: Vec<Registered>) -> Self {
        first.append(&mut self.engines);
        Registry { engines: first }
    }

    /// Finds the engine of this kind and mount type: the variant that the mount's options select, otherwise the first.
    pub fn find(&self, kind: Kind, engine: &str, options: &BTreeMap<String, String>) -> Option<&Registered> {
        let is_named = |e: &&Registered| e.engine == engine || e.traits.former_type == Some(engine);
        let mut same = self.engines.iter().filter(|e| e.kind == kind).filter(is_named).peekable();
        let first = *same.peek()?;
        let selected =
            same.find(|e| e.variant.is_some_and(|(name, value)| options.get(name).is_some_and(|v| v == value)));
        Some(selected.unwrap_or(first))
    }

    /// The built-in mounts of every server, each with its engine.
    pub fn built_in(&self) -> impl Iterator<Item = (&Registered, &BuiltIn)> {
        self.engines.iter().filter_map(|engine| Some((engine, engine.traits.built_in.as_ref()?)))
    }

    /// The allowed values of the option `version` for mounts of this type; none where the type has only one version.
    pub fn versions<'r>(&'r self, kind: Kind, engine: &'r str) -> impl Iterator<Item = &'static str> + use<'r> {
        self.engines.iter().filter(move |e| e.kind == kind && e.engine == engine).filter_map(Registered::version)
    }

    /// All registered engines.
    pub fn all(&self) -> &[Registered] {
        &self.engines
    }
}
