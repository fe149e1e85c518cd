//! Messages of Raft to one member: a bounded queue, and the connection that sends them in order.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::back_off::Failures;
use super::connection::{Reader, Source, write_all};
use super::dial::{Dialled, dial};
use super::frames::{self, Kind, Outgoing, invalid, tag};
use super::members::Recipient;
use super::open_port::OpenPort;

/// The most messages that wait.
const MAX_WAITING: usize = 4096;
/// The most bytes that wait; one message may be longer.
const MAX_WAITING_BYTES: usize = 32 << 20;
/// The time without a message after which a member has no task.
const IDLE: Duration = Duration::from_secs(60);

/// The messages that wait for a member. Raft repeats what is lost, so the oldest are dropped when there are too many,
/// and all of them when the member is not reached.
#[derive(Default)]
pub(super) struct Messages {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    has_task: bool,
}

impl Messages {
    /// Adds a message. Returns whether a task must be started that sends it.
    #[must_use]
    fn push(&self, message: Bytes) -> bool {
        let mut state = self.state.lock();
        state.bytes += message.len();
        state.waiting.push_back(message);
        while state.waiting.len() > MAX_WAITING || (state.bytes > MAX_WAITING_BYTES && state.waiting.len() > 1) {
            state.pop();
        }
        self.arrived.notify_one();
        !std::mem::replace(&mut state.has_task, true)
    }

    /// Completes when a message waits.
    async fn filled(&self) {
        while self.state.lock().waiting.is_empty() {
            self.arrived.notified().await;
        }
    }

    fn clear(&self) {
        let mut state = self.state.lock();
        state.waiting.clear();
        state.bytes = 0;
    }

    /// Ends the task when no message waits.
    fn retire(&self) -> bool {
        let mut state = self.state.lock();
        state.has_task = !state.waiting.is_empty();
        !state.has_task
    }
}

impl State {
    fn pop(&mut self) -> Option<Bytes> {
        let message = self.waiting.pop_front()?;
        self.bytes -= message.len();
        Some(message)
    }
}

impl Source for &Messages {
    async fn next(&mut self) -> Option<Outgoing> {
        loop {
            if let Some(frame) = self.waiting() {
                return Some(frame);
            }
            self.arrived.notified().await;
        }
    }

    fn waiting(&mut self) -> Option<Outgoing> {
        let message = self.state.lock().pop()?;
        Some(Outgoing::new(tag::MESSAGE, &[], message))
    }
}

/// Sends a message to a member, soon and perhaps. Never blocks. May be called outside of the runtime.
pub(super) fn send(port: &Arc<OpenPort>, to: Arc<Recipient>, message: Bytes) {
    if to.messages.push(message) {
        let runtime = port.runtime.clone();
        let port = port.clone();
        runtime.spawn(async move {
            tokio::select! {
                () = serve(&port, &to) => {}
                () = to.removed() => {}
                () = port.closed() => {}
            }
        });
    }
}

/// Sends messages until none comes for [`IDLE`].
async fn serve(port: &OpenPort, to: &Recipient) {
    let mut failures = Failures::default();
    loop {
        tokio::select! {
            () = to.messages.filled() => {}
            () = port.clock.sleep_until(port.clock.now().after(IDLE)) => {
                if to.messages.retire() {
                    return;
                }
            }
        }
        let dialled = dial(port, &to.origin, &to.address(), Kind::Messages).await;
        let opened = port.clock.now();
        let error = match dialled {
            Ok(dialled) => carry(port, to, dialled).await,
            Err(error) => {
                to.messages.clear();
                error
            }
        };
        tracing::debug!(node = to.origin.node, %error, "no connection to a member");
        match Failures::is_lasting(port.clock.now().since(opened)) {
            true => failures = Failures::default(),
            false => drop(failures.count()),
        }
        if failures.is_second() {
            tracing::warn!(node = to.origin.node, kind = ?Kind::Messages, %error, "a member is not reached");
        }
        port.clock.sleep_until(port.clock.now().after(failures.pause())).await;
    }
}

/// Sends messages until the connection ends.
async fn carry(port: &OpenPort, to: &Recipient, dialled: Dialled) -> io::Error {
    let Dialled { connection, mut halves, .. } = dialled;
    let silence = halves.reader.silence(port.clock.clone());
    tokio::select! {
        error = read_nothing(&mut halves.reader) => error,
        done = write_all(halves.writer, &to.messages, &*port.clock) => done.err().unwrap_or(io::ErrorKind::BrokenPipe.into()),
        () = silence => io::ErrorKind::TimedOut.into(),
        () = connection.ended() => io::ErrorKind::ConnectionAborted.into(),
    }
}

/// Reads the frames that show that the member is alive.
async fn read_nothing(reader: &mut Reader) -> io::Error {
    loop {
        match frames::read(reader, 1).await {
            Ok(frame) if frame.tag == tag::ALIVE => {}
            Ok(_) => return invalid("a frame that the connection does not have"),
            Err(error) => return error,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn the_oldest_messages_are_dropped_when_too_many_wait() {
        let messages = Messages::default();
        let number = |n: usize| Bytes::copy_from_slice(&n.to_le_bytes());
        assert!(messages.push(number(0)) && !messages.push(number(1)));
        for n in 2..MAX_WAITING + 10 {
            assert!(!messages.push(number(n)));
        }
        assert_eq!(messages.state.lock().waiting.len(), MAX_WAITING);
        assert_eq!(messages.state.lock().pop(), Some(number(10)));
        // A message beyond the bound of bytes stays when it is alone.
        assert!(!messages.push(vec![0; MAX_WAITING_BYTES + 1].into()));
        let state = messages.state.lock();
        assert_eq!((state.waiting.len(), state.bytes), (1, MAX_WAITING_BYTES + 1));
    }

    #[test]
    fn a_message_after_the_end_of_the_task_starts_another() {
        let messages = Messages::default();
        assert!(messages.push(Bytes::new()));
        assert!(!messages.retire());
        messages.clear();
        assert!(messages.retire() && messages.push(Bytes::new()));
    }
}
