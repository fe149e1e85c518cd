//! Opens the connection for the calls of one kind to a member, in a task of its own: the attempt goes on when the caller
//! that started it stops to wait.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::back_off::Failures;
use super::calls::Live;
use super::dial::{Dialled, dial};
use super::frames::Kind;
use super::members::Recipient;
use super::open_port::OpenPort;

/// The connection for the calls of one kind to one member.
pub(super) struct Connector {
    kind: Kind,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: Option<Arc<Live>>,
    /// The last attempt to connect. Its sender is dropped at the end of the attempt.
    attempt: Option<watch::Receiver<()>>,
    failures: Failures,
    /// Whether the last connection failed a short time ago.
    pauses: bool,
}

impl State {
    fn open(&self) -> Option<Arc<Live>> {
        self.live.as_ref().filter(|live| live.is_open()).cloned()
    }
}

impl Connector {
    pub(super) fn new(kind: Kind) -> Arc<Self> {
        Arc::new(Self { kind, state: Mutex::default() })
    }

    /// The open connection, or a new one, also when the keys of this node are others than when it was opened: the other node
    /// soon ends it. Callers wait for the same attempt; `None` without a connection when it fails, and for a short time after
    /// that.
    pub(super) async fn live(self: &Arc<Self>, port: &Arc<OpenPort>, to: &Arc<Recipient>) -> Option<Arc<Live>> {
        let session = port.session_number();
        let mut attempt = {
            let mut state = self.state.lock();
            let open = state.open();
            if state.pauses || open.as_ref().is_some_and(|live| live.is_of(session)) {
                return open;
            }
            let current = state.attempt.take().filter(|attempt| attempt.has_changed().is_ok());
            state.attempt.insert(current.unwrap_or_else(|| self.attempt(port, to))).clone()
        };
        // An error means that the attempt has ended.
        let _ = attempt.changed().await;
        self.state.lock().open()
    }

    fn attempt(self: &Arc<Self>, port: &Arc<OpenPort>, to: &Arc<Recipient>) -> watch::Receiver<()> {
        let (sender, attempt) = watch::channel(());
        let (connector, port, to) = (self.clone(), port.clone(), to.clone());
        tokio::spawn(async move {
            if let Some(pause) = connector.connect(&port, &to, sender).await {
                port.clock.sleep_until(port.clock.now().after(pause)).await;
                connector.state.lock().pauses = false;
            }
        });
        attempt
    }

    /// Connects, and serves the connection until it ends. Returns the pause before the next attempt, if there is one.
    async fn connect(&self, port: &Arc<OpenPort>, to: &Recipient, attempt: watch::Sender<()>) -> Option<Duration> {
        let session = port.session_number();
        let Dialled { connection, halves, limit } = match dial(port, &to.origin, &to.address(), self.kind).await {
            Ok(dialled) => dialled,
            Err(error) => {
                tracing::debug!(node = to.origin.node, kind = ?self.kind, %error, "no connection to a member");
                return Some(self.failed(to, &error, None));
            }
        };
        let (live, queue) = Live::new(limit, session);
        let older = self.state.lock().live.replace(live.clone());
        if let Some(older) = older {
            older.replace();
        }
        drop(attempt);
        let opened = port.clock.now();
        let error = live.run(port, to, (connection, halves), queue).await;
        tracing::debug!(node = to.origin.node, %error, "a connection to a member ended");
        let pause = match Failures::is_lasting(port.clock.now().since(opened)) {
            true => {
                self.state.lock().failures = Failures::default();
                None
            }
            false if live.is_replaced() => None,
            false => Some(self.failed(to, &error, Some(&live))),
        };
        live.close();
        pause
    }

    /// Counts a connection that was not opened, or ended at once. Until the end of the pause there is none.
    fn failed(&self, to: &Recipient, error: &io::Error, ended: Option<&Arc<Live>>) -> Duration {
        let mut state = self.state.lock();
        let pause = state.failures.count();
        if state.failures.is_second() {
            tracing::warn!(node = to.origin.node, kind = ?self.kind, %error, "a member is not reached");
        }
        state.live.take_if(|live| !live.is_open() || ended.is_some_and(|ended| Arc::ptr_eq(live, ended)));
        state.pauses = true;
        pause
    }
}
