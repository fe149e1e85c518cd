//! Bodies of requests, and files that receive the bodies of responses: what is too large for memory is in a file.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// The bytes of a file that are sent at once.
const PART: u64 = 256 << 10;

/// The body of a request.
#[derive(Clone)]
pub enum Payload {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A whole file. Its parts are read by the task that sends them, which suits a program with one call.
    File(Arc<File>),
}

/// A body while it is sent.
pub(crate) enum Sent {
    Bytes(Bytes),
    File { file: Arc<File>, at: u64, length: u64 },
}

impl Sent {
    pub(crate) fn new(payload: Payload) -> io::Result<Self> {
        Ok(match payload {
            Payload::Bytes(bytes) => Sent::Bytes(bytes),
            Payload::File(file) => Sent::File { at: 0, length: file.metadata()?.len(), file },
        })
    }

    fn left(&self) -> u64 {
        match self {
            Sent::Bytes(bytes) => bytes.len() as u64,
            Sent::File { at, length, .. } => length.saturating_sub(*at),
        }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let left = self.left();
        if left == 0 {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(match &mut *self {
            Sent::Bytes(bytes) => Ok(Frame::data(std::mem::take(bytes))),
            Sent::File { file, at, .. } => {
                let mut part = vec![0; left.min(PART) as usize];
                let read = file.read_exact_at(&mut part, *at);
                *at += part.len() as u64;
                read.map(|()| Frame::data(part.into()))
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}

/// Begins to receive a body into a file: what an earlier response has left is deleted.
pub(crate) fn begin(file: &File) -> io::Result<()> {
    file.set_len(0)?;
    let mut place = file;
    place.seek(SeekFrom::Start(0)).map(drop)
}

/// Adds a part of a body.
pub(crate) fn add(file: &File, part: &[u8]) -> io::Result<()> {
    let mut place = file;
    place.write_all(part)
}
