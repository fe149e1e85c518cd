//! Sends a snapshot to a member, on a connection of its own.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use keepfast_storage::{MAX_MESSAGE, MAX_SNAPSHOT_PART, SnapshotParts, StorageError};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::connection::{Reader, write_all};
use super::dial::{Dialled, dial};
use super::failure;
use super::frames::{self, Frame, Kind, Outgoing, invalid, tag};
use super::members::Recipient;
use super::open_port::OpenPort;

/// The parts that wait to be written.
const QUEUE: usize = 4;
/// The most time until a part is written.
const STALL: Duration = Duration::from_secs(60);
/// The most time from the last part until the member has stored the snapshot.
const INSTALL: Duration = Duration::from_secs(600);

/// Sends a snapshot; returns when the member has stored it.
///
/// # Errors
/// Those of the parts, of the connection, and of the member.
pub(super) async fn send(
    port: &OpenPort,
    to: &Recipient,
    head: Bytes,
    parts: Box<dyn SnapshotParts>,
) -> Result<(), StorageError> {
    if head.len() > MAX_MESSAGE {
        return Err(StorageError::TooLarge { size: head.len(), limit: MAX_MESSAGE });
    }
    let _one = to.snapshot.lock().await;
    let dialled = dial(port, &to.origin, &to.address(), Kind::Snapshot).await.map_err(failed)?;
    let Dialled { connection, mut halves, .. } = dialled;
    let silence = halves.reader.silence(port.clock.clone());
    let (frames, queue) = mpsc::channel(QUEUE);
    tokio::select! {
        result = read_response(&mut halves.reader) => result,
        error = feed(&frames, head, parts) => Err(error),
        done = write_all(halves.writer, queue, &*port.clock) => {
            Err(failed(done.err().unwrap_or(io::ErrorKind::BrokenPipe.into())))
        }
        () = silence => Err(failed(io::ErrorKind::TimedOut.into())),
        () = connection.ended() => Err(failed(io::ErrorKind::ConnectionAborted.into())),
        () = to.removed() => Err(failed(io::ErrorKind::ConnectionAborted.into())),
    }
}

fn failed(error: io::Error) -> StorageError {
    // A full disk of the connection does not exist.
    StorageError::io("send a snapshot", error)
}

/// Passes on the parts, and waits for the other futures. Returns only errors.
async fn feed(frames: &mpsc::Sender<Outgoing>, head: Bytes, mut parts: Box<dyn SnapshotParts>) -> StorageError {
    let mut next = Outgoing::new(tag::HEAD, &[], head);
    loop {
        let is_last = next.tag() == tag::END;
        match timeout(STALL, frames.send(next)).await {
            Ok(Ok(())) if is_last => break,
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return failed(io::ErrorKind::TimedOut.into()),
        }
        next = match parts.next().await {
            Ok(Some(part)) if part.len() > MAX_SNAPSHOT_PART => {
                return StorageError::TooLarge { size: part.len(), limit: MAX_SNAPSHOT_PART };
            }
            Ok(Some(part)) => Outgoing::new(tag::PART, &[], part),
            Ok(None) => Outgoing::empty(tag::END),
            Err(error) => return error,
        };
    }
    drop(parts);
    let _ = timeout(INSTALL, std::future::pending::<()>()).await;
    failed(io::ErrorKind::TimedOut.into())
}

async fn read_response(reader: &mut Reader) -> Result<(), StorageError> {
    loop {
        match frames::read(reader, 1 + failure::LENGTH).await.map_err(failed)? {
            Frame { tag: tag::ALIVE, .. } => {}
            Frame { tag: tag::STORED, .. } => return Ok(()),
            Frame { tag: tag::REFUSED, body } => return Err(failure::decode(body).unwrap_or(StorageError::Unknown)),
            _ => return Err(failed(invalid("a frame that the connection does not have"))),
        }
    }
}
