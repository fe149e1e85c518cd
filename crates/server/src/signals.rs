//! The signals that a server reacts to. SIGPIPE is ignored by Rust's runtime from the start.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// SIGHUP: read certificates, log level and log files anew.
    Reload,
    /// SIGUSR2: log the state of the server.
    LogState,
    /// SIGTERM or SIGINT: end.
    Stop,
}

/// Registered signals: none of them ends the process by itself any more.
pub(crate) struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    /// Registers them. To be called within the runtime.
    ///
    /// # Errors
    /// What the system says.
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
                _ = self.user1.recv() => tracing::info!("SIGUSR1 has no effect; SIGHUP opens logs anew, SIGUSR2 logs the state"),
            }
        }
    }

    /// Completes at the next SIGTERM or SIGINT.
    pub(crate) async fn stop(&mut self) {
        while self.next().await != Event::Stop {}
    }
}
