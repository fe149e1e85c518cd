//! The routing table of a mount: patterns, operations, access and help.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use keepfast_storage::Page;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::cx::Cx;
use crate::engine::Engine;
use crate::error::Result;
use crate::fields::{Int, Text};
use crate::input::Input;
use crate::path::{Captures, Operation, Pattern};
use crate::reply::{Outcome, Reply};
use crate::rows::{NamespaceScope, OperationInfo, RowInfo, Runs, RunsIn, is_id, is_name};
use crate::sealed::SealedAction;

/// A boxed future of a handler.
pub type HandlerFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// Any `async fn(&E, &mut Cx, Request) -> Result<impl Reply>`; no type implements it explicitly.
pub trait Handler<'a, E, Q>: Send + Sync {
    /// The reply type.
    type Reply;
    /// The future of the handler.
    type Future: Future<Output = Result<Self::Reply>> + Send + 'a;
    /// Calls the handler.
    fn call(&self, engine: &'a E, cx: &'a mut Cx, request: Q) -> Self::Future;
}

impl<'a, E: 'a, Q, R, F, Fut> Handler<'a, E, Q> for F
where
    F: Fn(&'a E, &'a mut Cx, Q) -> Fut + Send + Sync,
    Fut: Future<Output = Result<R>> + Send + 'a,
{
    type Reply = R;
    type Future = Fut;
    fn call(&self, engine: &'a E, cx: &'a mut Cx, request: Q) -> Fut {
        self(engine, cx, request)
    }
}

/// A request type of a handler.
pub trait Request: DeserializeOwned + JsonSchema + Send + 'static {}
impl<T: DeserializeOwned + JsonSchema + Send + 'static> Request for T {}

/// The request of a handler that takes no parameters.
#[derive(serde::Deserialize, JsonSchema)]
pub struct Nothing {}

/// The result of an `.exists` handler.
pub struct Exists(pub bool);

type Action<E> = Box<dyn for<'a> Fn(&'a E, &'a mut Cx, &'a Input) -> HandlerFuture<'a, Outcome> + Send + Sync>;
type ExistenceCheck<E> = Box<dyn for<'a> Fn(&'a E, &'a mut Cx, &'a Input) -> HandlerFuture<'a, bool> + Send + Sync>;

type Actions<E> = [Option<Action<E>>; Operation::ALL.len()];
type SealedActions<E> = [Option<SealedAction<E>>; Operation::ALL.len()];

/// A page of a list.
#[derive(Deserialize, JsonSchema)]
pub struct Paged {
    /// Returns only names after this one, which need not exist.
    after: Option<Text>,
    /// Maximum number of names; no limit if it is not positive.
    limit: Option<Int>,
}

impl Paged {
    /// A page of these parameters.
    pub fn new(after: Option<Text>, limit: Option<Int>) -> Self {
        Paged { after, limit }
    }

    /// Converts to the page type of storage.
    pub fn page(self) -> Page {
        let limit = self.limit.and_then(|Int(limit)| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
        Page { after: self.after.map(String::from).filter(|after| !after.is_empty()), limit }
    }
}

/// The help of a path, as a constant of the code.
#[derive(Clone, Copy, Debug)]
pub struct Help {
    /// The synopsis, one line.
    pub synopsis: &'static str,
    /// The description; may be empty.
    pub description: &'static str,
}

/// The help of a row: borrowed from a constant table of the code, or owned texts.
#[derive(Clone, Debug)]
pub struct RowHelp {
    /// The synopsis, one line.
    pub synopsis: Cow<'static, str>,
    /// The description; may be empty.
    pub description: Cow<'static, str>,
}

impl From<Help> for RowHelp {
    fn from(help: Help) -> Self {
        RowHelp { synopsis: Cow::Borrowed(help.synopsis), description: Cow::Borrowed(help.description) }
    }
}

/// The access rule of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Requires a policy.
    #[default]
    Policy,
    /// Requires a policy with `sudo`.
    Sudo,
    /// Requires no token.
    Unauthenticated,
}

/// One row with its handlers.
pub struct Row<E> {
    pub(crate) info: RowInfo,
    pub(crate) handlers: Handlers<E>,
}

/// The handlers of a row.
pub(crate) struct Handlers<E> {
    actions: Actions<E>,
    pub(crate) sealed: SealedActions<E>,
    exists: Option<ExistenceCheck<E>>,
}

/// The rows of an engine during their declaration.
pub struct Routes<E> {
    rows: Vec<Row<E>>,
}

/// A row during its declaration.
pub struct RowBuilder<'r, E> {
    pub(crate) row: &'r mut Row<E>,
}

impl<E: Send + Sync + 'static> Default for Routes<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: Send + Sync + 'static> Routes<E> {
    /// Creates an empty table.
    pub fn new() -> Self {
        Routes { rows: Vec::new() }
    }

    /// Adds a row with one pattern; see [`Pattern`].
    pub fn path(&mut self, pattern: impl Into<Cow<'static, str>>, help: impl Into<RowHelp>) -> RowBuilder<'_, E> {
        self.paths([pattern], help)
    }

    /// Adds a row with several patterns, for paths with an optional part.
    pub fn paths<const N: usize>(
        &mut self,
        patterns: [impl Into<Cow<'static, str>>; N],
        help: impl Into<RowHelp>,
    ) -> RowBuilder<'_, E> {
        let at = self.rows.len();
        self.rows.push(Row {
            info: RowInfo {
                patterns: patterns.into_iter().map(Pattern::new).collect(),
                help: help.into(),
                access: Access::default(),
                once: false,
                hidden: false,
                fallback: false,
                names_only: false,
                ids_only: false,
                stores_body: false,
                nested: None,
                final_slash: false,
                name_may_end_in_slash: false,
                found_by_lists: false,
                login: false,
                takes_wrapping_token: false,
                token_in_body: false,
                raw_body: false,
                takes_authorization: false,
                without_leader: false,
                sealed: false,
                runs: None,
                namespace_scope: NamespaceScope::default(),
                runs_in: RunsIn::default(),
                has_existence_check: false,
                operations: Vec::new(),
            },
            handlers: Handlers { actions: Default::default(), sealed: Default::default(), exists: None },
        });
        RowBuilder { row: &mut self.rows[at] }
    }
}

impl<E: Send + Sync + 'static> RowBuilder<'_, E> {
    /// GET.
    pub fn read<Q: Request, R: Reply, H>(self, handler: H) -> Self
    where
        H: for<'a> Handler<'a, E, Q, Reply = R> + 'static,
    {
        self.on(Operation::Read, handler)
    }

    /// POST and PUT, whether the object exists or not.
    pub fn update<Q: Request, R: Reply, H>(self, handler: H) -> Self
    where
        H: for<'a> Handler<'a, E, Q, Reply = R> + 'static,
    {
        self.on(Operation::Update, handler)
    }

    /// PATCH.
    pub fn patch<Q: Request, R: Reply, H>(self, handler: H) -> Self
    where
        H: for<'a> Handler<'a, E, Q, Reply = R> + 'static,
    {
        self.on(Operation::Patch, handler)
    }

    /// DELETE.
    pub fn delete<Q: Request, R: Reply, H>(self, handler: H) -> Self
    where
        H: for<'a> Handler<'a, E, Q, Reply = R> + 'static,
    {
        self.on(Operation::Delete, handler)
    }

    /// LIST.
    pub fn list<Q: Request, R: Reply, H>(self, handler: H) -> Self
    where
        H: for<'a> Handler<'a, E, Q, Reply = R> + 'static,
    {
        self.on(Operation::List, handler)
    }

    /// SCAN.
    pub fn scan<Q: Request, R: Reply, H>(self, handler: H) -> Self
    where
        H: for<'a> Handler<'a, E, Q, Reply = R> + 'static,
    {
        self.on(Operation::Scan, handler)
    }

    /// Checks whether the object exists, so that policies can distinguish `create` and `update`. Its context cannot
    /// write.
    pub fn exists<Q: Request, H>(self, handler: H) -> Self
    where
        H: for<'a> Handler<'a, E, Q, Reply = Exists> + 'static,
    {
        self.row.info.has_existence_check = true;
        self.row.handlers.exists = Some(Box::new(move |engine, cx, input| match input.read::<Q>() {
            Err(error) => Box::pin(std::future::ready(Err(error))),
            Ok(request) => {
                let answer = handler.call(engine, cx, request);
                Box::pin(async move { answer.await.map(|Exists(yes)| yes) })
            }
        }));
        self
    }

    /// Requires `sudo`.
    pub fn sudo(self) -> Self {
        self.row.info.access = Access::Sudo;
        self
    }

    /// Requires no token.
    pub fn unauthenticated(self) -> Self {
        self.row.info.access = Access::Unauthenticated;
        self
    }

    /// A login path; requires no token.
    pub fn login(self) -> Self {
        self.row.info.login = true;
        self.unauthenticated()
    }

    /// The request is about a wrapping token: `token` of the body or the query, otherwise the caller's own. It is
    /// checked before anything else, so that the response says when it was already used.
    pub fn takes_wrapping_token(self) -> Self {
        self.row.info.takes_wrapping_token = true;
        self
    }

    /// `token` in the body is a token: a value that is no JSON string is refused before authentication.
    pub fn token_in_body(self) -> Self {
        self.row.info.token_in_body = true;
        self
    }

    /// The body of an update is bytes and no JSON ([`crate::Body::bytes`]); only core's own engines read them.
    pub fn raw_body(self) -> Self {
        self.row.info.raw_body = true;
        self
    }

    /// Reads the scheme and the credentials of the `Authorization` header ([`crate::Authorization`]). For other rows the
    /// members of a cluster do not pass them on.
    pub fn takes_authorization(self) -> Self {
        self.row.info.takes_authorization = true;
        self
    }

    /// Acts on an external system: may commit in steps ([`Cx::checkpoint`]) and never runs twice.
    pub fn once(self) -> Self {
        self.row.info.once = true;
        self
    }

    /// Every node of a cluster runs it, although it is no read: it reads records, and writes at most rarely.
    pub fn here(self) -> Self {
        self.runs(Runs::Here)
    }

    /// The leader of a cluster runs it, although it is a read: it reads the memory of the leader.
    pub fn forwarded(self) -> Self {
        self.runs(Runs::Leader)
    }

    /// The node that receives the request runs it in every case: it acts on that node.
    pub fn of_own_node(self) -> Self {
        self.runs(Runs::OwnNode)
    }

    /// A node of a cluster that has no leader runs it on its own state, which may be old.
    pub fn without_leader(self) -> Self {
        self.row.info.without_leader = true;
        self
    }

    fn runs(self, runs: Runs) -> Self {
        self.row.info.runs = Some(runs);
        self
    }

    /// Exists only in the root namespace: see [`NamespaceScope::RootOnly`].
    pub fn root_only(self) -> Self {
        self.in_namespaces(NamespaceScope::RootOnly)
    }

    /// Exists only in the root namespace: see [`NamespaceScope::NotInNamespaces`].
    pub fn not_in_namespaces(self) -> Self {
        self.in_namespaces(NamespaceScope::NotInNamespaces)
    }

    /// Exists in the root namespace and in namespaces with their own seal: see [`NamespaceScope::SealableOnly`].
    pub fn sealable_namespaces_only(self) -> Self {
        self.in_namespaces(NamespaceScope::SealableOnly)
    }

    /// Exists only in the root namespace: see [`NamespaceScope::AbsentInNamespaces`].
    pub fn absent_in_namespaces(self) -> Self {
        self.in_namespaces(NamespaceScope::AbsentInNamespaces)
    }

    /// Runs in another namespace than that of the request: see [`RunsIn`].
    pub fn runs_in(self, namespace: RunsIn) -> Self {
        self.row.info.runs_in = namespace;
        self
    }

    /// Ignores the namespace of the request: see [`NamespaceScope::NodeWide`].
    pub fn node_wide(self) -> Self {
        self.in_namespaces(NamespaceScope::NodeWide)
    }

    fn in_namespaces(self, scope: NamespaceScope) -> Self {
        self.row.info.namespace_scope = scope;
        self
    }

    /// Omitted from the OpenAPI document.
    pub fn hidden(self) -> Self {
        self.row.info.hidden = true;
        self
    }

    /// Only for paths that no other row matches, for any operation: for a mount that describes its paths to callers who
    /// do not know them.
    pub fn fallback(self) -> Self {
        self.row.info.fallback = true;
        self
    }

    /// Stores the whole body unchanged ([`crate::input::WHOLE_BODY`]): policies compare its fields with denied values
    /// in their letter case. In other rows fields are compared in every spelling that a handler may accept.
    pub fn stores_body(self) -> Self {
        self.row.info.stores_body = true;
        self
    }

    /// Lets policies constrain the fields of the object in `parameter` by `parameter.field`; see [`RowInfo::nested`].
    pub fn nested(self, parameter: &'static str) -> Self {
        self.row.info.nested = Some(parameter);
        self
    }

    /// Only for paths whose captures, except `urlalgorithm`, `version` and the rest of a path, are names ([`is_name`]):
    /// any other path is unsupported.
    pub fn names_only(self) -> Self {
        self.row.info.names_only = true;
        self
    }

    /// Only for paths whose captures are UUIDs in lower case: any other path is unsupported.
    pub fn ids_only(self) -> Self {
        self.row.info.ids_only = true;
        self
    }

    /// Also for the path with a final slash, as in OpenBao at some paths.
    pub fn final_slash(self) -> Self {
        self.row.info.final_slash = true;
        self
    }

    /// The path ends in the path of a mount, a device or a policy, which callers may write with a final slash: the row
    /// also applies where another row matches the path with the slash but does not have the operation.
    pub fn name_may_end_in_slash(self) -> Self {
        self.row.info.name_may_end_in_slash = true;
        self
    }

    /// A list of the path matches this row, which has no list: the error is an unsupported operation instead of an
    /// unsupported path.
    pub fn found_by_lists(self) -> Self {
        self.row.info.found_by_lists = true;
        self
    }

    fn on<Q: Request, R: Reply, H>(self, operation: Operation, handler: H) -> Self
    where
        H: for<'a> Handler<'a, E, Q, Reply = R> + 'static,
    {
        self.row.info.operations.push(OperationInfo::new::<Q, R>(operation, &self.row.info.patterns));
        self.row.handlers.actions[operation.index()] =
            Some(Box::new(move |engine, cx, input| match input.read::<Q>() {
                Err(error) => Box::pin(std::future::ready(Err(error))),
                Ok(request) => {
                    let reply = handler.call(engine, cx, request);
                    Box::pin(async move { reply.await?.into_outcome() })
                }
            }));
        self
    }
}

/// Whether a capture is the name of an object, as opposed to a parameter at the end of the path.
fn is_object_name(capture: &str) -> bool {
    !matches!(capture, "urlalgorithm" | "version")
}

/// A row whose pattern matches a path.
#[derive(Clone, Debug)]
pub struct Match {
    /// The index of the row in the table.
    pub row: usize,
    /// The captures of the pattern.
    pub captures: Captures,
}

/// A compiled table with its handlers, shared by all mounts of an engine.
pub struct Compiled<E> {
    table: Arc<Table>,
    pub(crate) handlers: Vec<Handlers<E>>,
}

/// A compiled table without its engine's type: for dispatch, help, the OpenAPI document and derived tests.
pub struct Table {
    rows: Vec<RowInfo>,
    order: Vec<(usize, Pattern)>,
}

impl<E: Send + Sync + 'static> Compiled<E> {
    /// Compiles a table.
    pub fn new(routes: Routes<E>) -> Self {
        let (rows, handlers) = routes.rows.into_iter().map(|row| (row.info, row.handlers)).unzip();
        Compiled { table: Arc::new(Table::new(rows)), handlers }
    }

    /// Compiles the table of an engine's type.
    pub fn of_engine() -> Self
    where
        E: Engine,
    {
        let mut routes = Routes::new();
        E::routes(&mut routes);
        Self::new(routes)
    }

    /// The table.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    pub(crate) fn action(&self, row: usize, operation: Operation) -> Option<&Action<E>> {
        self.handlers.get(row)?.actions[operation.index()].as_ref()
    }

    /// Whether OpenBao runs an existence check before the handler: that check then reports wrong parameters, otherwise
    /// the later field validation does, with other texts.
    pub(crate) fn checks_existence(&self, row: usize, operation: Operation) -> bool {
        operation == Operation::Update && self.existence_check(row).is_some()
    }

    pub(crate) fn existence_check(&self, row: usize) -> Option<&ExistenceCheck<E>> {
        self.handlers.get(row)?.exists.as_ref()
    }
}

impl Table {
    fn new(mut rows: Vec<RowInfo>) -> Self {
        for row in &mut rows {
            for operation in &mut row.operations {
                operation.stores_body = row.stores_body;
                operation.nested = row.nested;
            }
        }
        let mut order: Vec<(usize, Pattern)> =
            rows.iter().enumerate().flat_map(|(at, row)| row.patterns.iter().map(move |p| (at, p.clone()))).collect();
        order.sort_by_key(|(at, pattern)| (pattern.specificity(), *at));
        Table { rows, order }
    }

    /// The rows as declared.
    pub fn rows(&self) -> &[RowInfo] {
        &self.rows
    }

    /// Finds the row for an operation on a path within the mount: the most literal pattern that matches and has it.
    ///
    /// A list uses patterns that end in `/`. A row that matches without the operation is the last choice, so that the
    /// caller can distinguish "unsupported operation" from "unsupported path".
    pub fn find(&self, operation: Operation, path: &str) -> Option<Match> {
        let mut without = None;
        for (row, pattern) in &self.order {
            if self.rows[*row].fallback && without.is_some() {
                continue;
            }
            let Some(captures) = pattern.matches(path) else { continue };
            let is_object = |what: &str| is_object_name(what) && !pattern.is_rest(what);
            if self.rows[*row].names_only && captures.iter().any(|(what, text)| !is_name(text) && is_object(what)) {
                continue;
            }
            if self.rows[*row].ids_only && captures.iter().any(|(_, text)| !is_id(text)) {
                continue;
            }
            let captures = self.rows[*row].completed(captures);
            let found = Match { row: *row, captures };
            if operation == Operation::Help || self.rows[*row].operation(operation).is_some() {
                return Some(found);
            }
            without.get_or_insert(found);
        }
        without
    }

    /// Whether a path without a row lies below an unauthenticated path, as in OpenBao.
    pub fn is_unauthenticated(&self, path: &str) -> bool {
        let open = self.rows.iter().filter(|row| row.access == Access::Unauthenticated);
        open.flat_map(|row| &row.patterns).any(|pattern| pattern.covers(path))
    }

    /// Pairs of patterns that match the same paths for the same operation: must be empty.
    pub fn ambiguities(&self) -> Vec<(&str, &str)> {
        let mut out = Vec::new();
        for (i, (a_row, a)) in self.order.iter().enumerate() {
            for (b_row, b) in &self.order[i + 1..] {
                let share =
                    self.rows[*a_row].operations.iter().any(|o| self.rows[*b_row].operation(o.operation).is_some());
                if a.is_ambiguous_with(b) && share {
                    out.push((a.source(), b.source()));
                }
            }
        }
        out
    }
}
