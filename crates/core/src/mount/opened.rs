//! An open engine, which runs only with a permit.

use std::sync::Arc;

use keepfast_framework::clock::BoxFuture;
use keepfast_framework::engine::Gauge;
use keepfast_framework::token_params::TokenTerms;
use keepfast_framework::{Cx, Error, HeldLease, Input, LeaseTerms, Mountable, Operation, Outcome, Result};

use super::engine_cell::Invalidate;
use super::host::EngineHost;
use super::permit::{ExistencePermit, RequestPermit, RevocationPermit, TickPermit, UsagePermit};
use super::router::Mounted;

/// The engine of a mount.
pub(crate) struct OpenedEngine(Arc<dyn Mountable>);

impl OpenedEngine {
    /// Opens the engine of a mount, in a transaction of its own.
    pub(super) async fn open(host: &EngineHost, mounted: &Mounted) -> Result<Self> {
        let entry = &mounted.entry;
        let registered = host
            .registry
            .find(entry.kind(), &entry.engine, &entry.options())
            .ok_or_else(|| Error::internal(format!("engine type {:?} is not in this server", entry.engine)))?;
        loop {
            let mut cx = host.context(mounted, Operation::Update, String::new());
            let engine = registered.open(&mut cx).await?;
            match cx.commit().await {
                Ok(()) => return Ok(OpenedEngine(engine)),
                Err(error) if error.may_run_again() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// See [`Mountable::exists`].
    pub(crate) fn exists<'a>(
        &'a self,
        _permit: &'a ExistencePermit,
        row: usize,
        cx: &'a mut Cx,
        input: &'a Input,
    ) -> BoxFuture<'a, Result<Option<bool>>> {
        self.0.exists(row, cx, input)
    }

    /// See [`Mountable::call`].
    pub(crate) fn call<'a>(
        &'a self,
        _permit: &'a RequestPermit,
        row: usize,
        operation: Operation,
        cx: &'a mut Cx,
        input: &'a Input,
    ) -> BoxFuture<'a, Result<Outcome>> {
        self.0.call(row, operation, cx, input)
    }

    /// See [`Mountable::renew_lease`].
    pub(crate) fn renew_lease<'a>(
        &'a self,
        _permit: &'a RequestPermit,
        cx: &'a mut Cx,
        lease: &'a HeldLease,
    ) -> BoxFuture<'a, Result<LeaseTerms>> {
        self.0.renew_lease(cx, lease)
    }

    /// See [`Mountable::renew_login`].
    pub(crate) fn renew_login<'a>(
        &'a self,
        _permit: &'a RequestPermit,
        cx: &'a mut Cx,
        internal: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<TokenTerms>> {
        self.0.renew_login(cx, internal)
    }

    /// See [`Mountable::tick`].
    pub(crate) fn tick<'a>(&'a self, _permit: &'a TickPermit, cx: &'a mut Cx) -> BoxFuture<'a, Result<()>> {
        self.0.tick(cx)
    }

    /// See [`Mountable::revoke_lease`].
    pub(crate) fn revoke_lease<'a>(
        &'a self,
        _permit: &'a RevocationPermit,
        cx: &'a mut Cx,
        lease: &'a HeldLease,
    ) -> BoxFuture<'a, Result<()>> {
        self.0.revoke_lease(cx, lease)
    }

    /// See [`Mountable::usage`].
    pub(crate) fn usage<'a>(&'a self, _permit: &'a UsagePermit, cx: &'a mut Cx) -> BoxFuture<'a, Result<Vec<Gauge>>> {
        self.0.usage(cx)
    }

    /// See [`Mountable::ticks_often`].
    pub(crate) fn ticks_often(&self) -> bool {
        self.0.ticks_often()
    }

    /// See [`Mountable::gauges`].
    pub(crate) fn gauges(&self) -> Vec<Gauge> {
        self.0.gauges()
    }
}

impl Invalidate for OpenedEngine {
    fn invalidate(&self, key: &str, exists: bool) {
        self.0.invalidate(key, exists);
    }
}
