//! The context of a handler: the storage of its own mount in one transaction, the time, the caller.

use std::any::Any;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use keepfast_crypto::secret::SecretString;
use keepfast_storage::{Barrier, Index, StorageError, Tries, Tx, View};

use crate::clock::{Clock, Timestamp};
use crate::error::{Error, Result};
use crate::external_key::ExternalKey;
use crate::lease::{Intent, LeaseOffer, Lessor};
use crate::mount::MountInfo;
use crate::path::Operation;
use crate::services::{Extract, Services};
use crate::tls_session::TlsSession;

/// The caller of the request, as visible to an engine.
#[derive(Clone, Default)]
pub struct Caller {
    /// The display name; empty without a token.
    pub display_name: String,
    /// The entity id of the token; empty if it has none.
    pub entity_id: String,
    /// The accessor of the token; empty without one.
    pub accessor: String,
    /// The capabilities of the token, for engines that filter lists.
    pub grants: Option<Arc<dyn Grants>>,
    /// A stable, unguessable name for the storage of this token, created by core; cubbyhole needs it.
    pub token_store: Option<Arc<str>>,
    /// Whether the token is root.
    pub is_root: bool,
}

/// The capabilities of a token, for engines that check them.
pub trait Grants: Send + Sync {
    /// The capabilities on a full path (`secret/data/a`), in the order of the API.
    fn capabilities(&self, path: &str) -> Vec<&'static str>;
}

/// The request without its parameters.
#[derive(Clone, Debug)]
pub struct Request {
    /// The request id in the response and in the audit entries.
    pub id: String,
    /// The operation.
    pub operation: Operation,
    /// The full path, including the mount.
    pub path: String,
    /// The IP address of the client, after `X-Forwarded-For` was evaluated.
    pub remote: Option<IpAddr>,
    /// The TLS session of the connection, with the client's certificates. `None` without TLS, and in background tasks.
    pub tls: Option<Arc<TlsSession>>,
}

/// The context of one call of one handler.
///
/// Core creates it from a transaction and consumes it afterwards; an engine only borrows it. It gives access to no data
/// outside the mount: the transaction requires a [`View`], and the only view here is that of the mount.
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

/// The parts that core takes from the context when the handler has returned.
pub struct Parts {
    /// The transaction, not yet committed.
    pub tx: Tx,
    /// The warnings of the handler.
    pub warnings: Vec<String>,
    /// Actions to run after the commit.
    pub after_commit: Vec<Box<dyn FnOnce() + Send + Sync>>,
    /// The step to run after the response is audited.
    pub last_step: Option<LastStep>,
    /// Whether the handler has committed a part of its work: it must not run again.
    pub checkpointed: bool,
}

impl Cx {
    /// Creates a context. Only core calls this: engines have no transaction to pass.
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

    /// Adds a value whose type only core's own engines can name.
    #[must_use]
    pub fn with_core(mut self, core: Arc<dyn Any + Send + Sync>) -> Self {
        self.core = Some(core);
        self
    }

    /// The value that core added for its own engines; other engines cannot name its type.
    pub fn core<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.core.clone().and_then(|c| c.downcast().ok())
    }

    /// Adds the issuer of this request's leases.
    #[must_use]
    pub fn with_lessor(mut self, lessor: Arc<dyn Lessor>) -> Self {
        self.lessor = Some(lessor);
        self
    }

    /// Adds the services that core offers to engines.
    #[must_use]
    pub fn with_services(mut self, services: Arc<dyn Services>) -> Self {
        self.services = Some(services);
        self
    }

    /// Generates a password by a policy of `sys/policies/password`.
    ///
    /// # Errors
    /// 400 when there is no such policy, 500 in a context without password policies.
    pub async fn password(&mut self, policy: &str) -> Result<SecretString> {
        self.services()?.password(&mut self.tx, policy).await
    }

    /// Applies `extract` to the data that engines of this type stored with each of their leases, including pending and
    /// irrevocable ones, and returns the results. Reads the committed state, not the transaction of this request.
    ///
    /// The leases of all mounts are included, because two mounts may manage the same external system. An engine may use
    /// the data of other mounts to leave their objects alone, but must not return it to callers.
    ///
    /// # Errors
    /// When storage fails or a record cannot be read; 500 in a context without leases.
    pub async fn leased(&self, extract: Extract<'_>) -> Result<Vec<String>> {
        self.services()?.leased(&self.mount.engine, extract).await
    }

    /// The directories that may contain the local files and sockets named in the settings of a database connection, as
    /// the operator configured them (`database_file_directories`).
    pub fn file_directories(&self) -> Vec<std::path::PathBuf> {
        let Some(services) = &self.services else { return Vec::new() };
        services.file_directories()
    }

    /// Checks, as a part of this request's transaction, that the external key `CONFIG:KEY` exists and is granted to this
    /// mount. Sends nothing.
    ///
    /// # Errors
    /// 400 when this mount may not use the key.
    pub async fn check_external_key(&mut self, reference: &str) -> Result<()> {
        self.services()?.check_external_key(&mut self.tx, &self.mount, reference).await
    }

    /// The external key `CONFIG:KEY`, if it is granted to this mount. Its calls take long, so a handler with writes that
    /// are not committed gets none.
    ///
    /// # Errors
    /// 400 when this mount may not use the key; 500 after a write.
    pub async fn external_key(&mut self, reference: &str) -> Result<Arc<dyn ExternalKey>> {
        if self.tx.is_dirty() {
            return Err(Error::internal("an external key is used in a transaction with writes"));
        }
        self.services()?.external_key(&self.mount, reference).await
    }

    fn services(&self) -> Result<Arc<dyn Services>> {
        self.services.clone().ok_or_else(|| Error::internal("core does nothing for engines in this context"))
    }

    /// Allows commits in steps, for a row declared `.once()` and for [`crate::Engine::tick`].
    #[must_use]
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The clock, for values that outlive the request.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The caller of the request.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The request without its parameters.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The mount of the request.
    pub fn mount(&self) -> &MountInfo {
        &self.mount
    }

    /// Adds a warning to the response.
    pub fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Runs `action` after this request's writes are committed; drops it when they are not. It runs only on this node:
    /// caches of stored data follow [`crate::Engine::invalidate`] instead.
    pub fn after_commit(&mut self, action: impl FnOnce() + Send + Sync + 'static) {
        self.after_commit.push(Box::new(action));
    }

    /// Runs `step` after an audit device has written the response and before the response is sent. When `step` fails,
    /// its error becomes the response. It is dropped when the response cannot be audited. For irreversible effects
    /// whose response cannot be read again, such as new shares of the unseal key, in rows declared `.once()`.
    pub fn after_record<F>(&mut self, step: impl FnOnce() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.last_step = Some(Box::new(move || Box::pin(step())));
    }

    /// The transaction and the view of the mount.
    pub fn store(&mut self) -> (&mut Tx, &View) {
        (&mut self.tx, &self.view)
    }

    /// Commits the writes so far and continues in a new transaction: for rows declared `.once()`, which make an intent
    /// durable before they act on an external system, and for ticks.
    ///
    /// # Errors
    /// 500 outside such a row, and the errors of the commit.
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

    /// Registers a lease before the engine acts on an external system, for rows declared `.once()`:
    ///
    /// 1. `cx.intend(offer)`, with all data that a revocation needs (such as the name of the user to create);
    /// 2. [`Cx::checkpoint`], which makes the intent durable ([`Cx::intend_durably`] does both);
    /// 3. the action on the external system;
    /// 4. a [`crate::reply::Intended`] reply, which confirms the lease in the transaction of the response.
    ///
    /// An error or a crash after the second step leaves a pending lease, which core revokes by
    /// [`crate::Engine::revoke_lease`].
    ///
    /// # Errors
    /// 403 when the caller's token has expired or was revoked in the meantime; 400 when another lease holds the same
    /// claim; 500 in a context without leases.
    pub async fn intend(&mut self, offer: &LeaseOffer) -> Result<Intent> {
        let lessor = self.lessor.clone().ok_or_else(|| Error::internal("nothing can be leased in this context"))?;
        let (intent, warnings) = lessor.intend(&mut self.tx, offer).await?;
        self.warnings.extend(warnings);
        Ok(intent)
    }

    /// Calls [`Cx::intend`] and [`Cx::checkpoint`], and retries after a conflict: nothing was done in the external
    /// system yet.
    ///
    /// # Errors
    /// Those of both methods.
    pub async fn intend_durably(&mut self, offer: &LeaseOffer) -> Result<Intent> {
        let mut tries = Tries::default();
        loop {
            let intent = self.intend(offer).await?;
            if tries.settle(self.checkpoint().await)?.is_some() {
                return Ok(intent);
            }
        }
    }

    /// Deletes an intent durably, without a revocation. Only for an intent for which nothing was done in the external
    /// system.
    ///
    /// # Errors
    /// When storage fails: the intent is then revoked like any other.
    pub async fn withdraw(&mut self, intent: Intent) -> Result<()> {
        let lessor = self.lessor.clone().ok_or_else(|| Error::internal("nothing can be leased in this context"))?;
        let mut tries = Tries::default();
        loop {
            lessor.withdraw(&mut self.tx, &intent).await?;
            // After a conflict: the expiry worker has moved the lease in the meantime.
            if tries.settle(self.checkpoint().await)?.is_some() {
                break;
            }
        }
        intent.keep();
        Ok(())
    }

    /// Consumes the context. Only core calls this.
    pub fn into_parts(self) -> Parts {
        Parts {
            tx: self.tx,
            warnings: self.warnings,
            after_commit: self.after_commit,
            last_step: self.last_step,
            checkpointed: self.checkpointed,
        }
    }

    /// Commits and runs the `after_commit` actions; for contexts that core creates outside of requests.
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
