//! Notifies systemd of the state of this process, with the protocol of sd_notify(3). Without `NOTIFY_SOCKET` it sends
//! nothing.

use sd_notify::NotifyState;

/// The server listens and its storage is open.
pub(crate) fn ready() {
    send(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// A reload has begun; [`ready`] follows. `Type=notify-reload` compares the time with its signal.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => {
            tracing::warn!(%error, "the monotonic clock cannot be read: systemd is not notified of the reload")
        }
    }
}

/// The server stops.
pub(crate) fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::warn!(%error, "systemd could not be notified");
    }
}
