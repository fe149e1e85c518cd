//! What a handler may reach: its own mount's storage in one transaction, the time, the caller.

use std::any::Any;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use keepfast_crypto::secret::SecretString;
use keepfast_storage::{Barrier, Index, StorageError, Tries, Tx, View};

use crate::clock::{Clock, Timestamp};
use crate::error::{Error, Result};
use crate::lease::{Intent, LeaseOffer, Lessor};
use crate::mount::MountInfo;
use crate::path::Operation;
use crate::services::{Pick, Services};
use crate::tls_session::TlsSession;

/// Who makes the request, as far as an engine may know.
#[derive(Clone, Default)]
pub struct Caller {
    /// For people; empty without a token.
    pub display_name: String,
    /// The entity behind the token; empty if there is none.
    pub entity_id: String,
    /// The accessor of the token; empty without one.
    pub accessor: String,
    /// Names what the token may do; for engines that filter lists.
    pub grants: Option<Arc<dyn Grants>>,
    /// A stable, unguessable name of this token's own storage, made by core; cubbyhole needs it.
    pub token_store: Option<Arc<str>>,
    /// Whether the token is root.
    pub is_root: bool,
}

/// What a token may do, for engines that must ask.
pub trait Grants: Send + Sync {
    /// The capabilities on a full path (`secret/data/a`), in the order of the API.
    fn capabilities(&self, path: &str) -> Vec<&'static str>;
}

/// The request beyond its parameters.
#[derive(Clone, Debug)]
pub struct Request {
    /// The id in the answer and in the audit entries.
    pub id: String,
    /// What is done.
    pub operation: Operation,
    /// The full path with the mount.
    pub path: String,
    /// Where the caller connects from, after `X-Forwarded-For` was judged.
    pub remote: Option<IpAddr>,
    /// The TLS session of the connection, with the client's certificates. `None` without TLS, and for background work.
    pub tls: Option<Arc<TlsSession>>,
}

/// The context of one call of one handler.
///
/// Core makes it from a transaction and takes it apart by value; an engine only borrows it. Nothing in it reaches
/// beyond the mount: the transaction needs a [`View`], and the only one here is the mount's own.
pub struct Cx {
    barrier: Arc<Barrier>,
    tx: Tx,
    view: View,
    mount: Arc<MountInfo>,
    clock: Arc<dyn Clock>,
    caller: Arc<Caller>,
    request: Arc<Request>,
    warnings: Vec<String>,
    once: bool,
    checkpointed: bool,
    after_commit: Vec<Box<dyn FnOnce() + Send + Sync>>,
    last_step: Option<LastStep>,
    core: Option<Arc<dyn Any + Send + Sync>>,
    lessor: Option<Arc<dyn Lessor>>,
    services: Option<Arc<dyn Services>>,
}

/// The last step of a request: see [`Cx::after_record`].
pub type LastStep = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Result<()>> + Send>> + Send + Sync>;

/// What core gets back when the handler is done.
pub struct Parts {
    /// The transaction, not yet committed.
    pub tx: Tx,
    /// What the handler warned of.
    pub warnings: Vec<String>,
    /// What runs once the transaction is committed.
    pub after_commit: Vec<Box<dyn FnOnce() + Send + Sync>>,
    /// What runs once the answer is recorded.
    pub last_step: Option<LastStep>,
    /// Whether the handler has committed a part of its work: it must not run again.
    pub checkpointed: bool,
}

impl Cx {
    /// Core's door: engines have no transaction to make one from.
    pub fn new(
        barrier: Arc<Barrier>,
        tx: Tx,
        view: View,
        mount: Arc<MountInfo>,
        clock: Arc<dyn Clock>,
        caller: Arc<Caller>,
        request: Arc<Request>,
    ) -> Self {
        Cx {
            barrier,
            tx,
            view,
            mount,
            clock,
            caller,
            request,
            warnings: Vec::new(),
            once: false,
            checkpointed: false,
            after_commit: Vec::new(),
            last_step: None,
            core: None,
            lessor: None,
            services: None,
        }
    }

    /// The same with something that only core's own engines can name.
    #[must_use]
    pub fn with_core(mut self, core: Arc<dyn Any + Send + Sync>) -> Self {
        self.core = Some(core);
        self
    }

    /// What core put in for its own engines; other engines cannot name its type.
    pub fn core<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.core.clone().and_then(|c| c.downcast().ok())
    }

    /// The same with who makes this request's leases.
    #[must_use]
    pub fn with_lessor(mut self, lessor: Arc<dyn Lessor>) -> Self {
        self.lessor = Some(lessor);
        self
    }

    /// The same with what core does for engines.
    #[must_use]
    pub fn with_services(mut self, services: Arc<dyn Services>) -> Self {
        self.services = Some(services);
        self
    }

    /// A password after a policy of `sys/policies/password`.
    ///
    /// # Errors
    /// 400 when there is no such policy, 500 where nobody knows policies.
    pub async fn password(&mut self, policy: &str) -> Result<SecretString> {
        self.services()?.password(&mut self.tx, policy).await
    }

    /// What `pick` takes of what engines of this type stored with each of their leases, pending and irrevocable ones included,
    /// as committed now: not as this request's transaction sees it.
    ///
    /// The leases of other mounts are among them, because two mounts may work on one other system. It is the same engine's
    /// code that reads them; what is another mount's is not to be answered, only to be left alone.
    ///
    /// # Errors
    /// When storage fails or a record cannot be read; 500 where nobody knows leases.
    pub async fn leased(&self, pick: Pick<'_>) -> Result<Vec<String>> {
        self.services()?.leased(&self.mount.engine, pick).await
    }

    /// The directories below which the settings of a database connection may name local files and sockets, as the operator
    /// configured them (`database_file_directories`).
    pub fn file_directories(&self) -> Vec<std::path::PathBuf> {
        let Some(services) = &self.services else { return Vec::new() };
        services.file_directories()
    }

    fn services(&self) -> Result<Arc<dyn Services>> {
        self.services.clone().ok_or_else(|| Error::internal("core does nothing for engines in this context"))
    }

    /// The same for a row declared `.once()` and for [`crate::Engine::tick`], which may commit in steps.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// The present moment.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The clock, for what outlives the request.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Who asks.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The request beyond its parameters.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The mount that the request reached.
    pub fn mount(&self) -> &MountInfo {
        &self.mount
    }

    /// Adds a warning to the answer.
    pub fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Runs `action` once this request's writes are committed; it is dropped when they are not. It runs on this node alone:
    /// what memory has of the storage follows [`crate::Engine::invalidate`].
    pub fn after_commit(&mut self, action: impl FnOnce() + Send + Sync + 'static) {
        self.after_commit.push(Box::new(action));
    }

    /// Runs `step` once an audit device has the answer and before the answer is sent; when it fails, its error is the
    /// answer. It is dropped when the answer cannot be recorded. For effects that cannot be undone and whose answer
    /// cannot be read again, such as new shares of the unseal key, in rows declared `.once()`.
    pub fn after_record<F>(&mut self, step: impl FnOnce() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.last_step = Some(Box::new(move || Box::pin(step())));
    }

    /// The transaction together with the mount's own view.
    pub fn store(&mut self) -> (&mut Tx, &View) {
        (&mut self.tx, &self.view)
    }

    /// Commits what was written so far and goes on in a new transaction: for rows declared `.once()`, which make an
    /// intent durable before they act on another system, and for ticks.
    ///
    /// # Errors
    /// 500 outside such a row, and what the commit fails with.
    pub async fn checkpoint(&mut self) -> Result<Option<Index>> {
        if !self.once {
            return Err(Error::internal("checkpoint in a row that is not declared once"));
        }
        let next = self.barrier.begin();
        let written = std::mem::replace(&mut self.tx, next).commit().await.map_err(Error::from)?;
        self.checkpointed = true;
        for action in self.after_commit.drain(..) {
            action();
        }
        Ok(written)
    }

    /// Registers a lease before the engine acts on another system, for rows declared `.once()`:
    ///
    /// 1. `cx.intend(offer)`, with all that revoking needs (such as the name of the user that is about to be made);
    /// 2. [`Cx::checkpoint`], which makes it durable ([`Cx::intend_durably`] does both);
    /// 3. act;
    /// 4. answer with [`crate::reply::Intended`], which confirms the lease in the transaction of the answer.
    ///
    /// A failure or a crash after the second step leaves a pending lease that core revokes by [`crate::Engine::revoke_lease`].
    ///
    /// # Errors
    /// 403 when the caller's token has ended meanwhile; 400 when another lease holds what this one claims; 500 where there
    /// is nobody to lease to.
    pub async fn intend(&mut self, offer: &LeaseOffer) -> Result<Intent> {
        let lessor = self.lessor.clone().ok_or_else(|| Error::internal("nothing can be leased in this context"))?;
        let (intent, warnings) = lessor.intend(&mut self.tx, offer).await?;
        self.warnings.extend(warnings);
        Ok(intent)
    }

    /// [`Cx::intend`] and [`Cx::checkpoint`], again after a conflict: nothing was done yet in the other system.
    ///
    /// # Errors
    /// As both of them.
    pub async fn intend_durably(&mut self, offer: &LeaseOffer) -> Result<Intent> {
        let mut tries = Tries::default();
        loop {
            let intent = self.intend(offer).await?;
            if tries.settle(self.checkpoint().await)?.is_some() {
                return Ok(intent);
            }
        }
    }

    /// Forgets an intent, durably, of which it is certain that nothing was done for it: nothing is undone.
    ///
    /// # Errors
    /// When storage fails: the intent is then undone like any other.
    pub async fn withdraw(&mut self, intent: Intent) -> Result<()> {
        let lessor = self.lessor.clone().ok_or_else(|| Error::internal("nothing can be leased in this context"))?;
        let mut tries = Tries::default();
        loop {
            lessor.withdraw(&mut self.tx, &intent).await?;
            // After a conflict the worker has moved it meanwhile.
            if tries.settle(self.checkpoint().await)?.is_some() {
                break;
            }
        }
        intent.keep();
        Ok(())
    }

    /// Takes the context apart; core's door.
    pub fn into_parts(self) -> Parts {
        Parts {
            tx: self.tx,
            warnings: self.warnings,
            after_commit: self.after_commit,
            last_step: self.last_step,
            checkpointed: self.checkpointed,
        }
    }

    /// Commits and runs what waits for it; for contexts that core makes outside of requests.
    ///
    /// # Errors
    /// As [`Tx::commit`].
    pub async fn commit(self) -> Result<(), StorageError> {
        self.tx.commit().await?;
        for action in self.after_commit {
            action();
        }
        Ok(())
    }
}
