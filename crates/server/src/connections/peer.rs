//! One connection, as the server accounts for it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::{Connections, network};
use crate::patience::{Activity, Stopwatch};

/// The value of `relief` of an open connection.
const OPEN: usize = usize::MAX;

/// The client of a connection, and what the connection is doing.
pub(crate) struct Peer {
    server: Arc<Connections>,
    address: Option<SocketAddr>,
    /// What the connection is doing.
    pub(crate) activity: Activity,
    stopwatch: Stopwatch,
    /// When a request of it last began or ended, on the server's stopwatch, in milliseconds.
    since: AtomicU64,
    known: AtomicBool,
    /// What the connection holds by itself while it is a stranger's, in bytes; then 0.
    base: AtomicUsize,
    /// What it holds beyond that and counts, in bytes.
    held: AtomicUsize,
    /// What it held when its closing began.
    relief: AtomicUsize,
    closed: Notify,
}

impl Peer {
    pub(super) fn new(
        server: Arc<Connections>,
        address: Option<SocketAddr>,
        base: usize,
        stopwatch: Stopwatch,
    ) -> Self {
        Peer {
            server,
            address,
            activity: Activity::default(),
            stopwatch,
            since: AtomicU64::new(stopwatch.millis()),
            known: AtomicBool::new(false),
            base: AtomicUsize::new(base),
            held: AtomicUsize::new(0),
            relief: AtomicUsize::new(OPEN),
            closed: Notify::new(),
        }
    }

    pub(super) fn server(&self) -> &Connections {
        &self.server
    }

    /// Where it connects from; `None` on a socket in the file system.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// What counts as its source.
    pub(super) fn network(&self) -> Option<IpAddr> {
        self.address.map(|address| network(address.ip()))
    }

    /// Whether a request on it has carried a token that was alive.
    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    /// Notes that a request on it carries a token that is alive. What it holds counts no more.
    pub(crate) fn set_known(&self) {
        if !self.known.swap(true, Ordering::Relaxed) {
            self.server.release(self.base.swap(0, Ordering::Relaxed));
        }
    }

    /// Gives back what it holds by itself.
    pub(super) fn end(&self) {
        self.server.release(self.base.swap(0, Ordering::Relaxed));
    }

    /// Notes that a request of it begins or ends.
    pub(crate) fn stirs(&self) {
        self.since.store(self.stopwatch.millis(), Ordering::Relaxed);
    }

    pub(super) fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        self.server.hold(bytes);
    }

    pub(super) fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.server.release(bytes);
    }

    fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.since.load(Ordering::Relaxed))
    }

    /// How readily it gives way to a new connection: strangers first, then those that are idle, the longest first.
    /// `None` for one that does not.
    pub(super) fn idleness(&self, now: u64) -> Option<(bool, u64)> {
        let stranger = !self.is_known();
        let gives_way = (stranger || !self.activity.is_busy()) && self.relief().is_none();
        gives_way.then(|| (stranger, self.age(now)))
    }

    /// What a stranger's connection holds, times how long it has done so; `None` for others.
    pub(super) fn burden(&self, now: u64) -> Option<u64> {
        /// So that what is new is not for nothing, in milliseconds.
        const LEAST_AGE: u64 = 100;
        let held = self.base.load(Ordering::Relaxed) + self.held.load(Ordering::Relaxed);
        (!self.is_known() && self.relief().is_none())
            .then(|| (held as u64).saturating_mul(self.age(now).saturating_add(LEAST_AGE)))
    }

    /// What it held when its closing began, in bytes; `None` while it is open.
    pub(super) fn relief(&self) -> Option<usize> {
        Some(self.relief.load(Ordering::Relaxed)).filter(|relief| *relief != OPEN)
    }

    /// Begins to close it. Returns what it holds and counts; `None` if it is closing already.
    pub(super) fn close(&self) -> Option<usize> {
        let held = self.base.load(Ordering::Relaxed) + self.held.load(Ordering::Relaxed);
        self.relief.compare_exchange(OPEN, held, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        self.closed.notify_one();
        Some(held)
    }

    /// Waits until its closing begins.
    pub(crate) async fn closed(&self) {
        self.closed.notified().await;
    }

    #[cfg(test)]
    pub(super) fn set_idle_since(&self, millis: u64) {
        self.since.store(millis, Ordering::Relaxed);
    }
}
