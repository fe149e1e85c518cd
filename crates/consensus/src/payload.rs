//! What an entry contains. The first byte is the kind, the rest is the body; a blank entry is empty.

use bytes::Bytes;

use crate::member::{self, Member};
use crate::wire::{Reader, WireError, put_u32};

/// The most bytes of an encoded payload.
pub const MAX_ENTRY: usize = 8 * 1024 * 1024;

const BATCH: u8 = 1;
const MEMBERS: u8 = 2;
const RESTORE_BEGIN: u8 = 3;
const RESTORE_PART: u8 = 4;
const RESTORE_END: u8 = 5;
const RESTORE_ABORT: u8 = 6;

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
            Self::Batch(body) => prefixed(&mut out, BATCH, body),
            Self::Members(list) => {
                out.push(MEMBERS);
                member::encode_list(list, &mut out);
            }
            Self::RestoreBegin(body) => prefixed(&mut out, RESTORE_BEGIN, body),
            Self::RestorePart(number, body) => {
                out.reserve_exact(5 + body.len());
                out.push(RESTORE_PART);
                put_u32(&mut out, *number);
                out.extend_from_slice(body);
            }
            Self::RestoreEnd(sum) => prefixed(&mut out, RESTORE_END, sum),
            Self::RestoreAbort => out.push(RESTORE_ABORT),
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
        let mut reader = Reader::new(bytes.clone());
        let Ok(kind) = reader.u8() else { return Ok(Self::Blank) };
        match kind {
            BATCH => return Ok(Self::Batch(reader.rest())),
            RESTORE_BEGIN => return Ok(Self::RestoreBegin(reader.rest())),
            RESTORE_PART => return Ok(Self::RestorePart(reader.u32()?, reader.rest())),
            _ => {}
        }
        let payload = match kind {
            MEMBERS => Self::Members(member::decode_list(&mut reader)?),
            RESTORE_END => Self::RestoreEnd(reader.array()?),
            RESTORE_ABORT => Self::RestoreAbort,
            other => return Err(WireError::Kind(other)),
        };
        reader.end()?;
        Ok(payload)
    }

    /// Whether an entry contains a list of members, by its first byte.
    pub(crate) fn is_members(bytes: &[u8]) -> bool {
        bytes.first() == Some(&MEMBERS)
    }
}

fn prefixed(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.reserve_exact(1 + body.len());
    out.push(kind);
    out.extend_from_slice(body);
}
