//! One connection, as the server accounts for it.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Context;

use futures_util::task::AtomicWaker;
use keepfast_framework::tls_session::{ClientChain, TlsSession};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Connections, network};
use crate::patience::{Activity, Stopwatch};

/// How many bytes of heads the requests of a connection of HTTP/2 without a live token may have, and how many more for
/// each received byte.
const HEADS: u64 = 8 << 10;
/// See [`HEADS`].
const HEADS_PER_BYTE: u64 = 4;

/// The client of a connection, and what the connection is doing.
pub(crate) struct Peer {
    server: Arc<Connections>,
    address: Option<SocketAddr>,
    tls: OnceLock<Arc<TlsSession>>,
    /// What the connection is doing.
    pub(crate) activity: Activity,
    stopwatch: Stopwatch,
    /// When a request of it last began or ended, on the server's stopwatch, in milliseconds.
    since: AtomicU64,
    known: AtomicBool,
    closing: AtomicBool,
    /// Bytes received, and bytes of heads of HTTP/2 that were decoded from them, without a live token.
    received: AtomicU64,
    heads: AtomicU64,
    account: Mutex<Account>,
    closed: Notify,
    /// What reads from the client, while it must not.
    reader: AtomicWaker,
}

/// What a connection holds and counts, in bytes. The sums of the server follow it under its lock.
struct Account {
    /// What the connection holds by itself while it is a stranger's; then 0.
    base: usize,
    /// What its requests hold.
    requests: usize,
    /// Whether its closing has begun.
    closing: bool,
}

impl Account {
    fn held(&self) -> usize {
        self.base + self.requests
    }
}

impl Peer {
    pub(super) fn new(
        server: Arc<Connections>,
        address: Option<SocketAddr>,
        base: usize,
        stopwatch: Stopwatch,
    ) -> Self {
        server.count_held(base, false);
        Peer {
            server,
            address,
            tls: OnceLock::new(),
            activity: Activity::default(),
            stopwatch,
            since: AtomicU64::new(stopwatch.millis()),
            known: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            received: AtomicU64::new(0),
            heads: AtomicU64::new(0),
            account: Mutex::new(Account { base, requests: 0, closing: false }),
            closed: Notify::new(),
            reader: AtomicWaker::new(),
        }
    }

    pub(super) fn server(&self) -> &Connections {
        &self.server
    }

    /// Where it connects from; `None` on a socket in the file system.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The session of its TLS; `None` without TLS and before the handshake is complete.
    pub(crate) fn tls(&self) -> Option<&Arc<TlsSession>> {
        self.tls.get()
    }

    /// Keeps the session of its TLS, once. The client chooses the length of its certificates, so that they count as held,
    /// here and in rustls.
    pub(crate) fn set_tls(&self, session: TlsSession) {
        let bytes = 2 * session.client_chain.as_ref().map_or(0, ClientChain::size);
        if self.tls.set(Arc::new(session)).is_ok() && !self.is_known() {
            let mut account = self.account.lock();
            account.base += bytes;
            self.server.count_held(bytes, account.closing);
            drop(account);
            self.server.relieve();
        }
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
            let mut account = self.account.lock();
            let base = std::mem::take(&mut account.base);
            self.server.count_released(base, account.closing);
            drop(account);
            self.server.eases();
            self.reader.wake();
        }
    }

    /// Notes that a request of it begins or ends.
    pub(crate) fn stirs(&self) {
        self.since.store(self.stopwatch.millis(), Ordering::Relaxed);
    }

    /// Notes that so many bytes came.
    pub(crate) fn received(&self, bytes: usize) {
        self.activity.received();
        if !self.is_known() {
            self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// Counts what a request without a live token keeps of its head, in bytes. HPACK (RFC 7541) makes any number of them
    /// of a few received bytes, and all are written to audit devices: returns whether they are in proportion.
    pub(crate) fn count_head(&self, bytes: usize) -> bool {
        if self.is_known() {
            return true;
        }
        let heads = self.heads.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        let received = self.received.load(Ordering::Relaxed);
        heads <= HEADS.saturating_add(received.saturating_mul(HEADS_PER_BYTE))
    }

    pub(super) fn hold(&self, bytes: usize) {
        let mut account = self.account.lock();
        account.requests += bytes;
        self.server.count_held(bytes, account.closing);
        drop(account);
        self.server.relieve();
    }

    pub(super) fn release(&self, bytes: usize) {
        let mut account = self.account.lock();
        account.requests -= bytes;
        self.server.count_released(bytes, account.closing);
        drop(account);
        self.server.eases();
    }

    /// Whether nothing may be read from the client now, because strangers hold too much. The task is woken when more may.
    /// A connection that holds nothing but itself may be `exempt`, so that small requests are answered at all times.
    pub(crate) fn must_wait(&self, cx: &Context<'_>, exempt: bool) -> bool {
        if self.is_known() || !self.server.is_pressed() || (exempt && self.account.lock().requests == 0) {
            return false;
        }
        self.wake_later(cx);
        // A release before the waker was registered has woken no task.
        self.server.is_pressed_now() && !self.is_known()
    }

    /// Wakes the task when more may be read.
    pub(crate) fn wake_later(&self, cx: &Context<'_>) {
        self.reader.register(cx.waker());
    }

    /// Wakes what waits to read from the client.
    pub(super) fn wake(&self) {
        self.reader.wake();
    }

    fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.since.load(Ordering::Relaxed))
    }

    /// How readily it gives way to a new connection: strangers first, then those that are idle, the longest first.
    /// `None` for one that does not.
    pub(super) fn idleness(&self, now: u64) -> Option<(bool, u64)> {
        let stranger = !self.is_known();
        let gives_way = (stranger || !self.activity.is_busy()) && !self.is_closing();
        gives_way.then(|| (stranger, self.age(now)))
    }

    /// What a stranger's connection holds, times how long it has done so; `None` for others.
    pub(super) fn burden(&self, now: u64) -> Option<u64> {
        /// So that what is new is not for nothing, in milliseconds.
        const LEAST_AGE: u64 = 100;
        if self.is_known() || self.is_closing() {
            return None;
        }
        let held = self.account.lock().held() as u64;
        Some(held.saturating_mul(self.age(now).saturating_add(LEAST_AGE)))
    }

    /// Whether its closing has begun.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Begins to close it. Returns what it holds and counts; `None` if it is closing already.
    pub(super) fn close(&self) -> Option<usize> {
        let mut account = self.account.lock();
        if std::mem::replace(&mut account.closing, true) {
            return None;
        }
        let held = account.held();
        self.server.count_closing(held);
        drop(account);
        self.closing.store(true, Ordering::Relaxed);
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

/// What the connection holds by itself counts until the last request of it has ended, also one whose client is gone.
impl Drop for Peer {
    fn drop(&mut self) {
        let account = self.account.get_mut();
        self.server.count_released(account.held(), account.closing);
        self.server.eases();
    }
}
