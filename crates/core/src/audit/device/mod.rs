//! Audit devices: the targets of entries.

mod file;
mod line_writer;
mod stream;
#[cfg(test)]
mod suite;

use std::io;

use tokio::sync::oneshot;

use super::line::Line;

pub(super) use self::file::FileDevice;
pub(super) use self::stream::StreamDevice;

/// A device that takes entries. An entry is one line, already formatted for this device.
pub(crate) trait Device: Send + Sync {
    /// Queues a whole line and never waits. Lines are written whole, in the order in which they were submitted, also
    /// those whose ticket is dropped.
    fn submit(&self, line: Line) -> Ticket<'_>;
    /// Opens its target again, after the file was moved.
    fn reopen(&self) -> io::Result<()>;
    /// Whether a submitted line can wait for another program. The broker waits for such a device only when no other one
    /// has taken the entry.
    fn can_block(&self) -> bool;
    /// Whether its target is open.
    fn is_open(&self) -> bool {
        true
    }
}

/// A submitted line, which returns the outcome of its write.
#[must_use = "a device that has not taken an entry must be reported"]
pub(crate) enum Ticket<'a> {
    /// The outcome.
    Done(io::Result<()>),
    /// The line has joined the open batch of a file.
    Batched(file::BatchedLine<'a>),
    /// A thread writes the line.
    Queued(oneshot::Receiver<io::Result<()>>),
}

impl Ticket<'_> {
    /// Waits for the write. After `Ok` the entry survives the end of this process.
    pub(crate) async fn written(self) -> io::Result<()> {
        match self {
            Ticket::Done(outcome) => outcome,
            Ticket::Batched(line) => line.written().await,
            Ticket::Queued(outcome) => outcome.await.unwrap_or_else(|_| Err(stream::ended())),
        }
    }

    /// The failure, if it is known without waiting.
    pub(crate) fn failure(self) -> Option<io::Error> {
        match self {
            Ticket::Done(outcome) => outcome.err(),
            Ticket::Batched(_) => None,
            Ticket::Queued(mut outcome) => match outcome.try_recv() {
                Ok(outcome) => outcome.err(),
                Err(oneshot::error::TryRecvError::Empty) => None,
                Err(oneshot::error::TryRecvError::Closed) => Some(stream::ended()),
            },
        }
    }
}

/// A device that discards every entry.
pub(crate) fn discard() -> Box<dyn Device> {
    Box::new(Discard)
}

struct Discard;

impl Device for Discard {
    fn submit(&self, _: Line) -> Ticket<'_> {
        Ticket::Done(Ok(()))
    }

    fn reopen(&self) -> io::Result<()> {
        Ok(())
    }

    fn can_block(&self) -> bool {
        false
    }
}
