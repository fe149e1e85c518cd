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

    /// The open connection, or a new one. Callers wait for the same attempt; `None` when it fails, and for a short time
    /// after that.
    pub(super) async fn live(self: &Arc<Self>, port: &Arc<OpenPort>, to: &Arc<Recipient>) -> Option<Arc<Live>> {
        let mut attempt = {
            let mut state = self.state.lock();
            if let Some(live) = state.open() {
                return Some(live);
            }
            if state.pauses {
                return None;
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
        let Dialled { connection, halves, limit } = match dial(port, &to.origin, &to.address(), self.kind).await {
            Ok(dialled) => dialled,
            Err(error) => {
                tracing::debug!(node = to.origin.node, kind = ?self.kind, %error, "no connection to a member");
                return Some(self.failed(to, &error));
            }
        };
        let (live, queue) = Live::new(limit);
        self.state.lock().live = Some(live.clone());
        drop(attempt);
        let opened = port.clock.now();
        let error = live.run(port, to, (connection, halves), queue).await;
        tracing::debug!(node = to.origin.node, %error, "a connection to a member ended");
        let pause = match Failures::is_lasting(port.clock.now().since(opened)) {
            true => {
                self.state.lock().failures = Failures::default();
                None
            }
            false => Some(self.failed(to, &error)),
        };
        live.close();
        pause
    }

    /// Counts a connection that was not opened, or ended at once. Until the end of the pause there is none.
    fn failed(&self, to: &Recipient, error: &io::Error) -> Duration {
        let mut state = self.state.lock();
        let pause = state.failures.count();
        if state.failures.is_second() {
            tracing::warn!(node = to.origin.node, kind = ?self.kind, %error, "a member is not reached");
        }
        (state.live, state.pauses) = (None, true);
        pause
    }
}
