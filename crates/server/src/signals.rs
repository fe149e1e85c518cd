//! The signals that the server handles. Rust's runtime ignores SIGPIPE from the start.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The action of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// SIGHUP: reload certificates, the log level, the seals and the initialize stanzas, and reopen log files and audit logs.
    Reload,
    /// SIGUSR2: log the state of the server.
    LogState,
    /// SIGTERM or SIGINT: stop.
    Stop,
}

/// Registered signal handlers: none of the signals ends the process by default any more.
pub(crate) struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    /// Registers the handlers. Requires a Tokio runtime.
    ///
    /// # Errors
    /// When a handler cannot be registered.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next event.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Event::Stop,
                _ = self.interrupt.recv() => return Event::Stop,
                _ = self.hangup.recv() => return Event::Reload,
                _ = self.user2.recv() => return Event::LogState,
                _ = self.user1.recv() => tracing::info!("SIGUSR1 has no effect; SIGHUP reopens logs, SIGUSR2 logs the state"),
            }
        }
    }

    /// Completes at the next SIGTERM or SIGINT.
    pub(crate) async fn stop(&mut self) {
        while self.next().await != Event::Stop {}
    }
}
