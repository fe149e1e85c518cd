//! The form of a connection between two nodes of a cluster.
//!
//! TLS 1.3 with certificates on both sides and the ALPN protocol `keepfast/1`. One node dials, the other accepts; each
//! kind of connection has its own, so that no heartbeat waits behind a snapshot. Numbers are little-endian:
//!
//! ```text
//! hello   = "KFP1" kind:u8 process:16 generation:u64 length:u16 address   from the node that dials
//! welcome = "KFP1" limit:u32                            from the node that accepts; nothing is sent before it
//! frame   = length:u32 type:u8 body                     length counts type and body; the first limit is for all frames
//! kind    = 1 messages | 2 snapshot | 3 calls | 4 requests
//!
//! type  on         from     body
//! 0     all        both     -                           sent when a second passed without another frame
//! 1     messages   dialler  a message of Raft
//! 2     snapshot   dialler  the head                    the first frame
//! 3     snapshot   dialler  a part
//! 4     snapshot   dialler  -                           after the last part
//! 5     snapshot   acceptor -                           the snapshot is stored
//! 6     snapshot   acceptor error
//! 7     calls      dialler  id:u64 batch                commit a batch
//! 8     calls      dialler  id:u64                      the index that a read must see
//! 9     requests   dialler  id:u64 hops:u8 request      handle a request; hops is 1, see `request.rs`
//! 10    calls      acceptor id:u64 index:u64
//! 11    both       acceptor id:u64 error
//! 12    requests   acceptor id:u64 response             see `request.rs`
//! 13    requests   acceptor id:u64                      nothing was done
//! 14    calls      dialler  id:u64 root                 keep a coming root key, see `coming_root.rs`
//! 15    calls      dialler  id:u64 time:i64             the clock of the leader; the index of the answer is that of the member
//! 16    calls      dialler  id:u64 record:32            which slots of the seal record the member opens, as the bits of the index
//!
//! error = code:u8 first:u64 second:u64                  see `failure.rs`
//! ```
//!
//! `address` is the `cluster_addr` of the node that dials, of at most [`MAX_ADDRESS`] bytes: the other node may lack the part
//! of the log that has it. `process` is random for each process, and `generation` grows with each connection of it. A node ends a connection
//! when it accepts a newer one of the same node and kind, and drops what the older one still brings; of calls and requests
//! it ends the one before that, so that calls end on the connection that has their certificates. A node that
//! receives nothing for [`MAX_QUIET`] seconds ends the connection.
//!
//! Every length has a bound, and memory follows the bytes that were received: a length alone reserves at most
//! [`FIRST_READ`]. Buffers are wiped, because requests contain secrets.

use std::io;

use bytes::Bytes;
use keepfast_crypto::secret::SecretBytes;
use keepfast_storage::{MAX_MESSAGE, MAX_SNAPSHOT_PART};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The application protocol of the port.
pub(super) const ALPN: &[u8] = b"keepfast/1";
/// The seconds without a received byte after which a connection ends.
pub(super) const MAX_QUIET: u32 = 5;
/// The most bytes that the length of a frame reserves before they are received.
const FIRST_READ: usize = 64 << 10;
/// The longest body that is copied behind its head, so that both are one record of TLS.
const SMALL: usize = 8 << 10;
/// The most bytes of a record of TLS (RFC 8446 section 5.1).
pub(super) const RECORD: usize = 16 << 10;
/// The most bytes of an address, as in a list of members.
const MAX_ADDRESS: usize = 512;
/// The bytes of a frame before its body.
const HEAD: usize = 5;
const MAGIC: &[u8; 4] = b"KFP1";

/// The kinds of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Messages of Raft.
    Messages = 1,
    /// One snapshot.
    Snapshot = 2,
    /// Commits and reads, which take milliseconds.
    Calls = 3,
    /// Requests of clients, which may be large and slow.
    Requests = 4,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Messages, Kind::Snapshot, Kind::Calls, Kind::Requests];

    /// Whether a connection stays open beside a newer one until its calls have ended.
    pub(super) fn drains(self) -> bool {
        matches!(self, Kind::Calls | Kind::Requests)
    }

    /// Whether Raft needs it: such a connection is accepted from nodes that no list has.
    pub(super) fn is_of_raft(self) -> bool {
        matches!(self, Kind::Messages | Kind::Snapshot)
    }

    /// The longest frame, with its type, that the accepting node reads; `largest` is the longest request.
    pub(super) fn limit(self, largest: usize) -> usize {
        match self {
            Kind::Messages | Kind::Calls => MAX_MESSAGE + 64,
            Kind::Snapshot => (MAX_SNAPSHOT_PART + 1).max(MAX_MESSAGE + 1),
            Kind::Requests => largest,
        }
    }
}

/// The types of frames.
pub(super) mod tag {
    pub(in super::super) const ALIVE: u8 = 0;
    pub(in super::super) const MESSAGE: u8 = 1;
    pub(in super::super) const HEAD: u8 = 2;
    pub(in super::super) const PART: u8 = 3;
    pub(in super::super) const END: u8 = 4;
    pub(in super::super) const STORED: u8 = 5;
    pub(in super::super) const REFUSED: u8 = 6;
    pub(in super::super) const COMMIT: u8 = 7;
    pub(in super::super) const READ_INDEX: u8 = 8;
    pub(in super::super) const REQUEST: u8 = 9;
    pub(in super::super) const DONE: u8 = 10;
    pub(in super::super) const FAILED: u8 = 11;
    pub(in super::super) const RESPONSE: u8 = 12;
    pub(in super::super) const ELSEWHERE: u8 = 13;
    pub(in super::super) const ROOT: u8 = 14;
    pub(in super::super) const CLOCK: u8 = 15;
    pub(in super::super) const SLOTS: u8 = 16;
}

/// The first bytes of the node that dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) kind: Kind,
    /// Random for each process.
    pub(super) process: [u8; 16],
    /// Grows with each connection of the process.
    pub(super) generation: u64,
}

impl Hello {
    pub(super) const LENGTH: usize = 29;

    pub(super) fn encode(&self) -> [u8; Self::LENGTH] {
        let mut out = [0; Self::LENGTH];
        out[..4].copy_from_slice(MAGIC);
        out[4] = self.kind as u8;
        out[5..21].copy_from_slice(&self.process);
        out[21..].copy_from_slice(&self.generation.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; Self::LENGTH]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first()?;
        let (process, generation) = rest.split_first_chunk::<16>()?;
        let kind = Kind::ALL.into_iter().find(|known| *known as u8 == *kind)?;
        let generation = u64::from_le_bytes(generation.try_into().ok()?);
        (magic == MAGIC).then_some(Hello { kind, process: *process, generation })
    }
}

/// The address behind a [`Hello`]. One that is too long is left out.
pub(super) fn encode_address(address: &str) -> Vec<u8> {
    let address = if address.len() > MAX_ADDRESS { "" } else { address };
    let length = u16::try_from(address.len()).unwrap_or_default();
    [&length.to_le_bytes(), address.as_bytes()].concat()
}

/// Reads the address behind a [`Hello`].
///
/// # Errors
/// Those of the connection; [`io::ErrorKind::InvalidData`] for one that is too long or no text.
pub(super) async fn read_address<R: AsyncRead + Unpin>(input: &mut R) -> io::Result<String> {
    let length = usize::from(input.read_u16_le().await?);
    if length > MAX_ADDRESS {
        return Err(invalid("an address is longer than allowed"));
    }
    let mut address = vec![0; length];
    input.read_exact(&mut address).await?;
    String::from_utf8(address).map_err(|_| invalid("an address is no text"))
}

/// The first bytes of the node that accepts: its limit for the length of a frame.
pub(super) fn welcome(limit: usize) -> [u8; 8] {
    let mut out = [0; 8];
    out[..4].copy_from_slice(MAGIC);
    out[4..].copy_from_slice(&u32::try_from(limit).unwrap_or(u32::MAX).to_le_bytes());
    out
}

/// The limit in a [`welcome`].
pub(super) fn limit_of(welcome: [u8; 8]) -> Option<usize> {
    let (magic, limit) = welcome.split_first_chunk::<4>()?;
    let limit = u32::from_le_bytes(limit.try_into().ok()?);
    (magic == MAGIC).then_some(limit as usize)
}

/// A received frame. Its body is wiped when the last part of it is dropped.
pub(super) struct Frame {
    pub(super) tag: u8,
    pub(super) body: Bytes,
}

/// A frame to send. Not `Debug`: it may hold secrets.
pub(super) struct Outgoing {
    head: SecretBytes,
    body: Bytes,
}

impl Outgoing {
    /// A frame whose body is `fields` followed by `body`.
    pub(super) fn new(tag: u8, fields: &[u8], body: Bytes) -> Self {
        let length = u32::try_from(1 + fields.len() + body.len()).unwrap_or(u32::MAX);
        let is_small = body.len() <= SMALL;
        // Filled to its capacity: a growing vector would leave copies.
        let mut head = Vec::with_capacity(HEAD + fields.len() + if is_small { body.len() } else { 0 });
        head.extend_from_slice(&length.to_le_bytes());
        head.push(tag);
        head.extend_from_slice(fields);
        let body = if is_small {
            head.extend_from_slice(&body);
            Bytes::new()
        } else {
            body
        };
        Outgoing { head: SecretBytes::new(head), body }
    }

    /// A frame without a body.
    pub(super) fn empty(tag: u8) -> Self {
        Self::new(tag, &[], Bytes::new())
    }

    /// Its type.
    pub(super) fn tag(&self) -> u8 {
        self.head.expose().get(HEAD - 1).copied().unwrap_or_default()
    }

    /// The length as [`read`] compares it with its limit.
    pub(super) fn length(&self) -> usize {
        self.head.expose().len() - (HEAD - 1) + self.body.len()
    }

    /// All its bytes.
    pub(super) fn size(&self) -> usize {
        self.head.expose().len() + self.body.len()
    }

    /// Writes frames, of `size` bytes in all, at once. The caller flushes.
    pub(super) async fn write_together<W: AsyncWrite + Unpin>(
        frames: &[Self],
        size: usize,
        out: &mut W,
    ) -> io::Result<()> {
        if let [only] = frames {
            return only.write(out).await;
        }
        // Filled to its capacity: a growing vector would leave copies.
        let mut all = Vec::with_capacity(size);
        for frame in frames {
            all.extend_from_slice(frame.head.expose());
            all.extend_from_slice(&frame.body);
        }
        out.write_all(SecretBytes::new(all).expose()).await
    }

    /// Writes the frame. The caller flushes.
    pub(super) async fn write<W: AsyncWrite + Unpin>(&self, out: &mut W) -> io::Result<()> {
        out.write_all(self.head.expose()).await?;
        out.write_all(&self.body).await
    }
}

/// Reads a frame of at most `limit` bytes.
///
/// # Errors
/// Those of the connection; [`io::ErrorKind::InvalidData`] for a length beyond the limit.
pub(super) async fn read<R: AsyncRead + Unpin>(input: &mut R, limit: usize) -> io::Result<Frame> {
    let mut head = [0; HEAD];
    input.read_exact(&mut head).await?;
    let [a, b, c, d, tag] = head;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length == 0 || length > limit {
        return Err(invalid("a frame is longer than allowed"));
    }
    let length = length - 1;
    let mut body = SecretBytes::new(Vec::with_capacity(length.min(FIRST_READ)));
    while body.expose().len() < length {
        let received = body.expose().len();
        if received == body.expose().capacity() {
            body = grown(&body, length);
        }
        let left = (length - received).min(body.expose().capacity() - received);
        if (&mut *input).take(left as u64).read_buf(body.expose_mut()).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Frame { tag, body: wiped(body) })
}

/// A copy with twice the capacity, at most `length`. The original is wiped when it is dropped.
fn grown(bytes: &SecretBytes, length: usize) -> SecretBytes {
    let mut larger = Vec::with_capacity((2 * bytes.expose().len()).min(length));
    larger.extend_from_slice(bytes.expose());
    SecretBytes::new(larger)
}

/// Bytes that are wiped when the last part of them is dropped.
pub(super) fn wiped(bytes: SecretBytes) -> Bytes {
    struct Owned(SecretBytes);
    impl AsRef<[u8]> for Owned {
        fn as_ref(&self) -> &[u8] {
            self.0.expose()
        }
    }
    if bytes.expose().is_empty() { Bytes::new() } else { Bytes::from_owner(Owned(bytes)) }
}

/// The error for what the form does not allow.
pub(super) fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
