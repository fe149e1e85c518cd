//! What an entry contains. The first byte is the kind, the rest is the body; a blank entry is empty.

use bytes::Bytes;

use crate::member::{self, Member};
use crate::wire::{Reader, WireError, put_u32};

/// The most bytes of an encoded payload.
pub const MAX_ENTRY: usize = 8 * 1024 * 1024;

/// The kind of an entry: the first byte of its payload, and its byte in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// [`Payload::Blank`]. Its payload is empty; only a log stores the byte.
    Blank = 1,
    /// [`Payload::Batch`].
    Batch = 2,
    /// [`Payload::Members`].
    Members = 3,
    /// [`Payload::RestoreBegin`].
    RestoreBegin = 4,
    /// [`Payload::RestorePart`].
    RestorePart = 5,
    /// [`Payload::RestoreEnd`].
    RestoreEnd = 6,
    /// [`Payload::RestoreAbort`].
    RestoreAbort = 7,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Blank,
        Self::Batch,
        Self::Members,
        Self::RestoreBegin,
        Self::RestorePart,
        Self::RestoreEnd,
        Self::RestoreAbort,
    ];

    /// The kind that a log stores as this byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// The kind of an encoded payload.
    ///
    /// # Errors
    ///
    /// A first byte that no payload has.
    pub fn of(payload: &[u8]) -> Result<Self, WireError> {
        match payload.first() {
            None => Ok(Self::Blank),
            Some(byte) => Self::from_byte(*byte).filter(|kind| *kind != Self::Blank).ok_or(WireError::Kind(*byte)),
        }
    }
}

/// What an entry contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing: the entry with which a leader begins its term (Ongaro §6.4, step 1).
    Blank,
    /// A batch of writes with the reads that it depends on, in the form of `storage`.
    Batch(Bytes),
    /// The list of members from here on.
    Members(Vec<Member>),
    /// A restore begins; the head of its snapshot in the form of `storage`.
    RestoreBegin(Bytes),
    /// A part of the restore, with its number.
    RestorePart(u32, Bytes),
    /// The restore takes effect if its parts have this SHA-256.
    RestoreEnd([u8; 32]),
    /// The restore is dropped.
    RestoreAbort,
}

impl Payload {
    /// The bytes of the entry.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Blank => {}
            Self::Batch(body) => prefixed(&mut out, Kind::Batch, body),
            Self::Members(list) => {
                out.push(Kind::Members as u8);
                member::encode_list(list, &mut out);
            }
            Self::RestoreBegin(body) => prefixed(&mut out, Kind::RestoreBegin, body),
            Self::RestorePart(number, body) => {
                out.reserve_exact(5 + body.len());
                out.push(Kind::RestorePart as u8);
                put_u32(&mut out, *number);
                out.extend_from_slice(body);
            }
            Self::RestoreEnd(sum) => prefixed(&mut out, Kind::RestoreEnd, sum),
            Self::RestoreAbort => out.push(Kind::RestoreAbort as u8),
        }
        out.into()
    }

    /// The payload of an entry; bodies share its memory.
    ///
    /// # Errors
    ///
    /// Bytes that [`Self::encode`] does not write, and more than [`MAX_ENTRY`].
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        if bytes.len() > MAX_ENTRY {
            return Err(WireError::Bound("an entry"));
        }
        let kind = Kind::of(bytes)?;
        if kind == Kind::Blank {
            return Ok(Self::Blank);
        }
        let mut reader = Reader::new(bytes.slice(1..));
        let payload = match kind {
            Kind::Batch => return Ok(Self::Batch(reader.rest())),
            Kind::RestoreBegin => return Ok(Self::RestoreBegin(reader.rest())),
            Kind::RestorePart => return Ok(Self::RestorePart(reader.u32()?, reader.rest())),
            Kind::Members => Self::Members(member::decode_list(&mut reader)?),
            Kind::RestoreEnd => Self::RestoreEnd(reader.array()?),
            Kind::RestoreAbort => Self::RestoreAbort,
            Kind::Blank => Self::Blank,
        };
        reader.end()?;
        Ok(payload)
    }

    /// The list of members from the body of a [`Self::Members`].
    ///
    /// # Errors
    ///
    /// Bytes that [`Self::encode`] does not write.
    pub fn decode_list(body: &Bytes) -> Result<Vec<Member>, WireError> {
        let mut reader = Reader::new(body.clone());
        let list = member::decode_list(&mut reader)?;
        reader.end()?;
        Ok(list)
    }

    /// Whether an entry contains a list of members, by its first byte.
    pub(crate) fn is_members(bytes: &[u8]) -> bool {
        bytes.first() == Some(&(Kind::Members as u8))
    }
}

fn prefixed(out: &mut Vec<u8>, kind: Kind, body: &[u8]) {
    out.reserve_exact(1 + body.len());
    out.push(kind as u8);
    out.extend_from_slice(body);
}
