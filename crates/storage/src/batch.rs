//! A batch of writes with the reads that they depend on: the unit of commit and the content of a log entry.
//!
//! The encoded form is stored in logs; its first byte is its version. Numbers are little-endian:
//!
//! ```text
//! batch   = version:u8 (1)  reads:u32  writes:u32  read*  write*
//! read    = 1 text                           the record was absent
//!         | 2 text digest:16                 the record had this digest
//!         | 3 text page digest:16            the listing had this digest
//!         | 4 text digest:16                 the record had this digest of its whole content
//! page    = 0 | 1 text (after)  then  0 | 1 u64 (limit)
//! write   = 1 text text (key, value)  |  2 text (key)
//! text    = length:u32 byte*
//! ```

use bytes::{Buf, BufMut, Bytes};
use keepfast_crypto::hash::sha256;

use crate::{Key, Page, StorageError};

const VERSION: u8 = 1;

/// Identifies the content that a transaction has read. Computed over ciphertext, so that a log holds nothing derived
/// from plaintext and every node evaluates a batch in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 16]);

/// Writes that are applied together, provided that the reads still hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Reads whose results must be unchanged.
    pub reads: Vec<Read>,
    /// Writes, in the order of application.
    pub writes: Vec<Write>,
}

/// A record or listing that a transaction has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// A record.
    Value {
        /// Its path.
        key: Key,
        /// Its digest; `None` when it was absent.
        seen: Option<Digest>,
    },
    /// A record in plaintext, whose last bytes do not identify it.
    Content {
        /// Its path.
        key: Key,
        /// Digest of its whole content; see [`Digest::of_content`].
        seen: Digest,
    },
    /// A page of a listing.
    Listing {
        /// The listed prefix.
        prefix: Key,
        /// The page of the listing.
        page: Page,
        /// Digest of the names; see [`Digest::of_names`].
        seen: Digest,
    },
}

/// A change of one record. `Debug` prints only the length of the value.
#[derive(Clone, PartialEq, Eq)]
pub enum Write {
    /// Creates or replaces a record.
    Put {
        /// Its path.
        key: Key,
        /// Its content.
        value: Bytes,
    },
    /// Deletes a record; no effect when there is none.
    Delete {
        /// Its path.
        key: Key,
    },
}

impl Digest {
    /// The digest of an encrypted value: its last 16 bytes. They are the tag of its authenticated encryption, which differs
    /// for every encryption. Shorter values are padded. Of two plaintext values it may be the same.
    pub fn of(value: &[u8]) -> Self {
        let mut digest = [0; 16];
        let tail = &value[value.len().saturating_sub(16)..];
        digest[16 - tail.len()..].copy_from_slice(tail);
        Self(digest)
    }

    /// The digest of a plaintext value: the first half of its SHA-256.
    pub fn of_content(value: &[u8]) -> Self {
        Self::of(&sha256(value)[..16])
    }

    /// The digest of a listing: the first half of SHA-256 over the names, each preceded by its length.
    pub fn of_names(names: &[String]) -> Self {
        let mut text = Vec::with_capacity(names.iter().map(|name| name.len() + 4).sum());
        for name in names {
            put_text(&mut text, name.as_bytes());
        }
        Self::of_content(&text)
    }
}

impl Write {
    /// The path of the written record.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

impl std::fmt::Debug for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Put { key, value } => write!(f, "Put({key:?}, {} bytes)", value.len()),
            Self::Delete { key } => write!(f, "Delete({key:?})"),
        }
    }
}

impl Batch {
    /// A batch that writes one record without a condition.
    pub fn put(key: Key, value: impl Into<Bytes>) -> Self {
        Self { reads: Vec::new(), writes: vec![Write::Put { key, value: value.into() }] }
    }

    /// Length of the encoded form in bytes.
    pub fn encoded_len(&self) -> usize {
        let reads: usize = self.reads.iter().map(read_len).sum();
        let writes: usize = self.writes.iter().map(write_len).sum();
        9 + reads + writes
    }

    /// Appends the encoded form to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(VERSION);
        out.put_u32_le(self.reads.len() as u32);
        out.put_u32_le(self.writes.len() as u32);
        for read in &self.reads {
            put_read(out, read);
        }
        for write in &self.writes {
            put_write(out, write);
        }
    }

    /// Decodes the encoded form; values share its memory.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] for any form that [`Batch::encode`] does not write.
    pub fn decode(mut input: Bytes) -> Result<Self, StorageError> {
        let batch = take_batch(&mut input).ok_or_else(|| StorageError::corrupt("unreadable batch"))?;
        if input.has_remaining() {
            return Err(StorageError::corrupt("bytes behind the end of a batch"));
        }
        Ok(batch)
    }
}

fn read_len(read: &Read) -> usize {
    match read {
        Read::Value { key, seen } => 5 + key.as_str().len() + if seen.is_some() { 16 } else { 0 },
        Read::Content { key, .. } => 5 + key.as_str().len() + 16,
        Read::Listing { prefix, page, .. } => {
            let after = page.after.as_ref().map_or(1, |after| 5 + after.len());
            5 + prefix.as_str().len() + after + page.limit.map_or(1, |_| 9) + 16
        }
    }
}

fn write_len(write: &Write) -> usize {
    match write {
        Write::Put { key, value } => 9 + key.as_str().len() + value.len(),
        Write::Delete { key } => 5 + key.as_str().len(),
    }
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.put_u32_le(text.len() as u32);
    out.put_slice(text);
}

fn put_read(out: &mut Vec<u8>, read: &Read) {
    match read {
        Read::Value { key, seen } => {
            out.put_u8(if seen.is_some() { 2 } else { 1 });
            put_text(out, key.as_str().as_bytes());
            if let Some(digest) = seen {
                out.put_slice(&digest.0);
            }
        }
        Read::Content { key, seen } => {
            out.put_u8(4);
            put_text(out, key.as_str().as_bytes());
            out.put_slice(&seen.0);
        }
        Read::Listing { prefix, page, seen } => {
            out.put_u8(3);
            put_text(out, prefix.as_str().as_bytes());
            out.put_u8(u8::from(page.after.is_some()));
            if let Some(after) = &page.after {
                put_text(out, after.as_bytes());
            }
            out.put_u8(u8::from(page.limit.is_some()));
            if let Some(limit) = page.limit {
                out.put_u64_le(limit as u64);
            }
            out.put_slice(&seen.0);
        }
    }
}

fn put_write(out: &mut Vec<u8>, write: &Write) {
    match write {
        Write::Put { key, value } => {
            out.put_u8(1);
            put_text(out, key.as_str().as_bytes());
            put_text(out, value);
        }
        Write::Delete { key } => {
            out.put_u8(2);
            put_text(out, key.as_str().as_bytes());
        }
    }
}

fn take_batch(input: &mut Bytes) -> Option<Batch> {
    if input.try_get_u8().ok()? != VERSION {
        return None;
    }
    let reads = input.try_get_u32_le().ok()?;
    let writes = input.try_get_u32_le().ok()?;
    Some(Batch {
        reads: (0..reads).map(|_| take_read(input)).collect::<Option<_>>()?,
        writes: (0..writes).map(|_| take_write(input)).collect::<Option<_>>()?,
    })
}

fn take_read(input: &mut Bytes) -> Option<Read> {
    Some(match input.try_get_u8().ok()? {
        1 => Read::Value { key: take_key(input)?, seen: None },
        2 => Read::Value { key: take_key(input)?, seen: Some(take_digest(input)?) },
        3 => {
            let prefix = Key::prefix(take_string(input)?).ok()?;
            let after = if take_flag(input)? { Some(take_string(input)?) } else { None };
            let limit =
                if take_flag(input)? { Some(usize::try_from(input.try_get_u64_le().ok()?).ok()?) } else { None };
            Read::Listing { prefix, page: Page { after, limit }, seen: take_digest(input)? }
        }
        4 => Read::Content { key: take_key(input)?, seen: take_digest(input)? },
        _ => return None,
    })
}

fn take_write(input: &mut Bytes) -> Option<Write> {
    Some(match input.try_get_u8().ok()? {
        1 => Write::Put { key: take_key(input)?, value: take_text(input)? },
        2 => Write::Delete { key: take_key(input)? },
        _ => return None,
    })
}

pub(crate) fn take_text(input: &mut Bytes) -> Option<Bytes> {
    let len = input.try_get_u32_le().ok()? as usize;
    (len <= input.len()).then(|| input.split_to(len))
}

fn take_string(input: &mut Bytes) -> Option<String> {
    String::from_utf8(take_text(input)?.into()).ok()
}

pub(crate) fn take_key(input: &mut Bytes) -> Option<Key> {
    Key::new(std::str::from_utf8(&take_text(input)?).ok()?).ok()
}

fn take_digest(input: &mut Bytes) -> Option<Digest> {
    let mut digest = [0; 16];
    input.try_copy_to_slice(&mut digest).ok()?;
    Some(Digest(digest))
}

fn take_flag(input: &mut Bytes) -> Option<bool> {
    match input.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{Batch, Digest, Read, Write};
    use crate::{Key, Page};

    #[test]
    fn the_debug_form_of_a_write_has_its_path_and_not_its_value() {
        let key = Key::new("a/b").unwrap();
        let put = format!("{:?}", Write::Put { key: key.clone(), value: Bytes::from_static(b"hidden") });
        assert!(put.contains("a/b") && put.contains("6 bytes") && !put.contains("hidden"), "{put}");
        assert!(format!("{:?}", Write::Delete { key }).contains("a/b"));
    }

    fn key() -> impl Strategy<Value = Key> {
        "[a-z]{1,5}(/[a-zä]{1,3}){0,2}".prop_map(|path| Key::new(path).unwrap())
    }

    fn read() -> impl Strategy<Value = Read> {
        let digest = any::<[u8; 16]>().prop_map(Digest);
        let page = (any::<Option<String>>(), any::<Option<u32>>())
            .prop_map(|(after, limit)| Page { after, limit: limit.map(|limit| limit as usize) });
        prop_oneof![
            (key(), proptest::option::of(digest.clone())).prop_map(|(key, seen)| Read::Value { key, seen }),
            (key(), digest.clone()).prop_map(|(key, seen)| Read::Content { key, seen }),
            (key(), page, digest).prop_map(|(key, page, seen)| {
                Read::Listing { prefix: Key::prefix(key.as_str()).unwrap(), page, seen }
            }),
        ]
    }

    fn write() -> impl Strategy<Value = Write> {
        prop_oneof![
            (key(), any::<Vec<u8>>()).prop_map(|(key, value)| Write::Put { key, value: value.into() }),
            key().prop_map(|key| Write::Delete { key }),
        ]
    }

    proptest! {
        #[test]
        fn decodes_what_it_encodes(
            reads in proptest::collection::vec(read(), 0..5),
            writes in proptest::collection::vec(write(), 0..5),
        ) {
            let batch = Batch { reads, writes };
            let mut bytes = Vec::new();
            batch.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), batch.encoded_len());
            for cut in 0..bytes.len() {
                prop_assert!(Batch::decode(Bytes::copy_from_slice(&bytes[..cut])).is_err());
            }
            prop_assert_eq!(Batch::decode(bytes.into()).unwrap(), batch);
        }

        #[test]
        fn decoding_never_panics(bytes in any::<Vec<u8>>()) {
            let _ = Batch::decode(bytes.into());
        }
    }

    #[test]
    fn the_digest_is_the_tail_of_the_value() {
        let value: Vec<u8> = (0..40).collect();
        assert_eq!(Digest::of(&value).0[..], value[24..]);
        assert_ne!(Digest::of(b"a"), Digest::of(b"b"));
        let other = [&[9], &value[1..]].concat();
        assert_eq!(Digest::of(&value), Digest::of(&other));
        assert_ne!(Digest::of_content(&value), Digest::of_content(&other));
    }
}
