//! The accounting of one connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Context;

use futures_util::task::AtomicWaker;
use keepfast_framework::tls_session::{ClientChain, TlsSession};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Connections, network};
use crate::timeouts::{Activity, RequestTimer, Stopwatch};

/// The bytes of request heads that an HTTP/2 connection may have without a live token, and how many more for each
/// received byte.
const HEADS: u64 = 8 << 10;
/// See [`HEADS`].
const HEADS_PER_BYTE: u64 = 4;

/// The client of a connection, and the activity of the connection.
pub(crate) struct Peer {
    server: Arc<Connections>,
    address: Option<SocketAddr>,
    tls: OnceLock<Arc<TlsSession>>,
    /// The activity of the connection.
    pub(crate) activity: Activity,
    /// The timer of its requests.
    pub(crate) timer: RequestTimer,
    stopwatch: Stopwatch,
    /// The time of the last begin or end of a request, in milliseconds of the server's stopwatch.
    since: AtomicU64,
    authenticated: AtomicBool,
    closing: AtomicBool,
    /// Received bytes, and the bytes of HTTP/2 heads decoded from them, without a live token.
    received: AtomicU64,
    heads: AtomicU64,
    account: Mutex<Account>,
    closed: Notify,
    /// The task that waits to read from the client.
    reader: AtomicWaker,
}

/// The memory of a connection in bytes. The sums of the server change under the lock of the account.
struct Account {
    /// The memory of the connection without requests while it is unauthenticated; then 0.
    base: usize,
    /// The memory of its requests.
    requests: usize,
    /// Whether the connection is closing.
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
            timer: RequestTimer::default(),
            stopwatch,
            since: AtomicU64::new(stopwatch.millis()),
            authenticated: AtomicBool::new(false),
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

    /// The address of the client; `None` on a Unix socket.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The TLS session; `None` without TLS and before the end of the handshake.
    pub(crate) fn tls(&self) -> Option<&Arc<TlsSession>> {
        self.tls.get()
    }

    /// Stores the TLS session, once. The client chooses the length of its certificates, so they count as held memory,
    /// here and in rustls.
    pub(crate) fn set_tls(&self, session: TlsSession) {
        let bytes = 2 * session.client_chain.as_ref().map_or(0, ClientChain::size);
        if self.tls.set(Arc::new(session)).is_ok() && !self.is_authenticated() {
            let mut account = self.account.lock();
            account.base += bytes;
            self.server.count_held(bytes, account.closing);
            drop(account);
            self.server.close_excess();
        }
    }

    /// The network that limits of a source address apply to.
    pub(super) fn network(&self) -> Option<IpAddr> {
        self.address.map(|address| network(address.ip()))
    }

    /// Whether a request of the connection has had a live token.
    pub(crate) fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Relaxed)
    }

    /// Marks the connection as authenticated: its memory no longer counts.
    pub(crate) fn set_authenticated(&self) {
        if !self.authenticated.swap(true, Ordering::Relaxed) {
            let mut account = self.account.lock();
            let base = std::mem::take(&mut account.base);
            self.server.count_released(base, account.closing);
            drop(account);
            self.server.wake_waiting();
            self.reader.wake();
        }
    }

    /// Notes the begin or end of a request.
    pub(crate) fn touch(&self) {
        self.since.store(self.stopwatch.millis(), Ordering::Relaxed);
    }

    /// Counts received bytes.
    pub(crate) fn received(&self, bytes: usize) {
        self.activity.received();
        if !self.is_authenticated() {
            self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// Counts the head of a request without a live token, in bytes. HPACK (RFC 7541) expands a few received bytes to
    /// many, and audit devices write all of them: returns whether they are in proportion.
    pub(crate) fn count_head(&self, bytes: usize) -> bool {
        if self.is_authenticated() {
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
        self.server.close_excess();
    }

    pub(super) fn release(&self, bytes: usize) {
        let mut account = self.account.lock();
        account.requests -= bytes;
        self.server.count_released(bytes, account.closing);
        drop(account);
        self.server.wake_waiting();
    }

    /// Whether the connection must not read now, because unauthenticated connections hold too much memory. The task is
    /// woken when it may read again. A connection without memory for requests may be `exempt`, so that small requests
    /// are always answered.
    pub(crate) fn must_wait(&self, cx: &Context<'_>, exempt: bool) -> bool {
        if self.is_authenticated() || !self.server.must_stop_reading() || (exempt && self.account.lock().requests == 0)
        {
            return false;
        }
        self.wake_later(cx);
        // A release before the waker was registered woke no task.
        self.server.must_stop_reading_now() && !self.is_authenticated()
    }

    /// Wakes the task when more may be read.
    pub(crate) fn wake_later(&self, cx: &Context<'_>) {
        self.reader.register(cx.waker());
    }

    /// Wakes the task that waits to read.
    pub(super) fn wake(&self) {
        self.reader.wake();
    }

    fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.since.load(Ordering::Relaxed))
    }

    /// The order in which connections are closed for a new one: unauthenticated ones first, then idle ones, the longest
    /// idle first. `None` for a connection that is not closed.
    pub(super) fn idleness(&self, now: u64) -> Option<(bool, u64)> {
        let unauthenticated = !self.is_authenticated();
        let can_close = (unauthenticated || !self.activity.is_busy()) && !self.is_closing();
        can_close.then(|| (unauthenticated, self.age(now)))
    }

    /// The memory of an unauthenticated connection multiplied by its age; `None` for others.
    pub(super) fn weight(&self, now: u64) -> Option<u64> {
        /// Added to the age, so that a new connection has a weight, in milliseconds.
        const MIN_AGE: u64 = 100;
        if self.is_authenticated() || self.is_closing() {
            return None;
        }
        let held = self.account.lock().held() as u64;
        Some(held.saturating_mul(self.age(now).saturating_add(MIN_AGE)))
    }

    /// Whether the connection is closing.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Begins to close the connection. Returns its memory in bytes; `None` when it is already closing.
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

    /// Waits until the connection is closing.
    pub(crate) async fn closed(&self) {
        self.closed.notified().await;
    }

    #[cfg(test)]
    pub(super) fn set_idle_since(&self, millis: u64) {
        self.since.store(millis, Ordering::Relaxed);
    }
}

/// The memory of the connection counts until its last request has ended, also when the client has disconnected.
impl Drop for Peer {
    fn drop(&mut self) {
        let account = self.account.get_mut();
        self.server.count_released(account.held(), account.closing);
        self.server.wake_waiting();
    }
}
