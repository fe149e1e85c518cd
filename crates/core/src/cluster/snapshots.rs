//! The file of a snapshot: a gzip-compressed tar archive, as Vault and OpenBao have it, so that their tools see its end.
//!
//! ```text
//! meta.json            index, term, members and size, with the names of Vault
//! state.bin            "KFSNAP01"  length:u32  head (JSON)  (length:u32 part)*  0:u32        numbers little-endian
//! SHA256SUMS           the digests of both
//! SHA256SUMS.sealed    term:u32  HMAC-SHA-256 of SHA256SUMS, under a key derived from the key of that term
//! ```
//!
//! The parts are those of the storage: records as they are stored, encrypted. The archive consists of three gzip members,
//! so that `state.bin` is compressed before its length is known, which the archive has in front of it.

use std::io::{self, Read, Write as _};

use async_trait::async_trait;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use keepfast_crypto::compare;
use keepfast_crypto::hash::{Sha256Stream, sha256};
use keepfast_crypto::hmac::HmacKey;
use keepfast_crypto::locked::Key256;
use keepfast_storage::{Index, MAX_SNAPSHOT_PART, Member, SnapshotHead, SnapshotParts, StorageError};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::members::WrittenMember;

/// The purpose of the key of `SHA256SUMS.sealed`, derived from the key of a term.
pub(crate) const SNAPSHOTS: &str = "keepfast snapshot 1";
/// The id in `meta.json`.
const ID: &str = "keepfast-snapshot";
const MAGIC: &[u8; 8] = b"KFSNAP01";
/// The size of a header and of the blocks of an archive.
const BLOCK: usize = 512;
/// The largest member of an archive, in bytes: its length has 11 octal digits.
const MAX_ENTRY: u64 = 1 << 33;
/// The longest `meta.json`, head, and other small members in bytes.
const MAX_SMALL: u64 = 1 << 20;
/// The most bytes at the end of an archive, all zero.
const MAX_END: u64 = 64 << 10;
const NAMES: [&str; 4] = ["meta.json", "state.bin", "SHA256SUMS", "SHA256SUMS.sealed"];

/// Why a file is no snapshot that can be restored.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFileError {
    /// It is not compressed by gzip.
    #[error("failed to decompress snapshot: gzip: invalid header")]
    NoGzip,
    /// It is one of Vault or OpenBao.
    #[error("this is a snapshot of Vault or OpenBao, which this server cannot restore")]
    Foreign,
    /// It ends too early, or its content does not match its digests.
    #[error("failed to read snapshot file: {0}")]
    Damaged(&'static str),
    /// It is larger than allowed.
    #[error("the snapshot is larger than {0} bytes")]
    TooLarge(u64),
    /// The storage has failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<io::Error> for SnapshotFileError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged("unexpected EOF"),
            _ => Self::Damaged("the compressed data is damaged"),
        }
    }
}

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotDetails {
    /// The id of the cluster.
    pub cluster_id: String,
    /// When it was taken, in RFC 3339.
    pub created: String,
    /// The version of the server that wrote it.
    pub version: String,
    /// The term of the key that authenticates it.
    pub key_term: u32,
    /// The term of the last entry of the log.
    pub term: u64,
    /// The index of that entry.
    pub index: u64,
    members: Vec<WrittenMember>,
}

impl SnapshotDetails {
    /// Describes a snapshot.
    pub(crate) fn new(head: SnapshotHead, cluster_id: String, created: String, version: String, key_term: u32) -> Self {
        let SnapshotHead { term, index: Index(index), members } = head;
        let members = members.into_iter().map(WrittenMember::from).collect();
        SnapshotDetails { cluster_id, created, version, key_term, term, index, members }
    }

    /// The description for the storage.
    pub(crate) fn head(&self) -> SnapshotHead {
        let members = self.members.iter().cloned().map(Member::from).collect();
        SnapshotHead { term: self.term, index: Index(self.index), members }
    }

    fn meta(&self, size: u64) -> Vec<u8> {
        let server = |member: Member| {
            let address = member.cluster_addr.split_once("://").map_or(&*member.cluster_addr, |(_, rest)| rest);
            json!({ "Suffrage": u8::from(!member.voter), "ID": member.node, "Address": address })
        };
        let servers: Vec<_> = self.head().members.into_iter().map(server).collect();
        let meta = json!({
            "Version": 1, "ID": ID, "Index": self.index, "Term": self.term, "Peers": null,
            "Configuration": { "Servers": servers }, "ConfigurationIndex": 0, "Size": size
        });
        format!("{meta}\n").into_bytes()
    }
}

/// Writes the file of a snapshot, of at most `limit` bytes, with a key derived for [`SNAPSHOTS`] from that of its term.
pub(crate) async fn write(
    details: &SnapshotDetails,
    parts: &mut dyn SnapshotParts,
    key: &Key256,
    limit: usize,
) -> Result<Vec<u8>, SnapshotFileError> {
    let mut state = Compressed::default();
    let head = serde_json::to_vec(details).map_err(|_| SnapshotFileError::Damaged("its description"))?;
    state.write(MAGIC)?;
    state.write_with_length(&head)?;
    while let Some(part) = parts.next().await? {
        // A part of no bytes would be the end.
        if !part.is_empty() {
            state.write_with_length(&part)?;
        }
        if state.encoder.get_ref().len() > limit {
            return Err(SnapshotFileError::TooLarge(limit as u64));
        }
    }
    state.write(&0_u32.to_le_bytes())?;
    let Compressed { encoder, digest, size } = state;
    let (state, digest) = (encoder.finish()?, digest.finish());
    let meta = details.meta(size);
    let sums = sums(&sha256(&meta), &digest);
    let sealed = [&details.key_term.to_le_bytes()[..], &HmacKey::new(key.expose()).mac(sums.as_bytes())].concat();
    let mut before = entry(NAMES[0], &meta)?;
    before.extend(header(NAMES[1], size)?);
    let mut after = vec![0; padding(size)];
    after.extend(entry(NAMES[2], sums.as_bytes())?);
    after.extend(entry(NAMES[3], &sealed)?);
    after.extend([0; 2 * BLOCK]);
    let mut file = compressed(&before)?;
    file.extend(state);
    file.extend(compressed(&after)?);
    if file.len() > limit { Err(SnapshotFileError::TooLarge(limit as u64)) } else { Ok(file) }
}

/// A member of the archive that is compressed as it is written.
struct Compressed {
    encoder: GzEncoder<Vec<u8>>,
    digest: Sha256Stream,
    size: u64,
}

impl Default for Compressed {
    fn default() -> Self {
        let encoder = GzEncoder::new(Vec::new(), Compression::fast());
        Compressed { encoder, digest: Sha256Stream::default(), size: 0 }
    }
}

impl Compressed {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotFileError> {
        self.digest.update(bytes);
        self.size += bytes.len() as u64;
        Ok(self.encoder.write_all(bytes)?)
    }

    fn write_with_length(&mut self, bytes: &[u8]) -> Result<(), SnapshotFileError> {
        let length = u32::try_from(bytes.len()).map_err(|_| SnapshotFileError::Damaged("a part is too long"))?;
        self.write(&length.to_le_bytes())?;
        self.write(bytes)
    }
}

fn compressed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn sums(meta: &[u8; 32], state: &[u8; 32]) -> String {
    format!("{}  {}\n{}  {}\n", hex::encode(meta), NAMES[0], hex::encode(state), NAMES[1])
}

/// The bytes from the end of a member to the next block.
fn padding(size: u64) -> usize {
    (size as usize).wrapping_neg() % BLOCK
}

fn entry(name: &str, content: &[u8]) -> Result<Vec<u8>, SnapshotFileError> {
    let mut entry = header(name, content.len() as u64)?.to_vec();
    entry.extend_from_slice(content);
    entry.resize(entry.len() + padding(content.len() as u64), 0);
    Ok(entry)
}

/// A header of the format `ustar` (POSIX.1-1988, "tar interchange format").
fn header(name: &str, size: u64) -> Result<[u8; BLOCK], SnapshotFileError> {
    if size >= MAX_ENTRY {
        return Err(SnapshotFileError::TooLarge(MAX_ENTRY));
    }
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000600");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\u{0}00");
    let sum = checksum(&header);
    header[148..155].copy_from_slice(format!("{sum:06o}\u{0}").as_bytes());
    Ok(header)
}

/// The sum of the bytes of a header, with blanks for its checksum.
fn checksum(header: &[u8; BLOCK]) -> u32 {
    let blank = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) };
    header.iter().enumerate().map(blank).sum()
}

/// A snapshot file whose digests match.
pub struct VerifiedSnapshot {
    /// What it is of.
    pub details: SnapshotDetails,
    /// The size of the state in bytes.
    pub size: u64,
    /// The number of its parts.
    pub parts: u64,
    sums: Vec<u8>,
    sealed: Vec<u8>,
}

impl VerifiedSnapshot {
    /// Reads a whole file, of at most `limit` bytes when decompressed, and checks its digests.
    ///
    /// # Errors
    /// See [`SnapshotFileError`].
    pub fn read(file: impl Read, limit: u64) -> Result<Self, SnapshotFileError> {
        let mut archive = Archive::new(file);
        let meta = archive.small(NAMES[0])?;
        let size = archive.next(NAMES[1])?;
        if size > limit {
            return Err(SnapshotFileError::TooLarge(limit));
        }
        let mut state = Entry { archive: &mut archive, left: size, digest: Sha256Stream::default() };
        let details = state.head()?;
        let mut parts = 0;
        while state.part()?.is_some() {
            parts += 1;
        }
        if state.left != 0 {
            return Err(SnapshotFileError::Damaged("data behind the end of the state"));
        }
        let digest = state.digest.finish();
        archive.skip(padding(size))?;
        let text = archive.small(NAMES[2])?;
        if text != sums(&sha256(&meta), &digest).as_bytes() {
            return Err(SnapshotFileError::Damaged("the digests do not match"));
        }
        let sealed = archive.small(NAMES[3])?;
        archive.end()?;
        Ok(VerifiedSnapshot { details, size, parts, sums: text, sealed })
    }

    /// Whether the file was written with this key, which is derived for [`SNAPSHOTS`] from that of its term.
    pub(crate) fn is_sealed_by(&self, key: &Key256) -> bool {
        let expected = [&self.details.key_term.to_le_bytes()[..], &HmacKey::new(key.expose()).mac(&self.sums)];
        compare::equal(&self.sealed, &expected.concat())
    }
}

/// The parts of a verified file, read again.
pub(crate) struct FileParts<R> {
    archive: Archive<R>,
    left: u64,
}

impl<R: Read> FileParts<R> {
    /// Begins at the first part.
    pub(crate) fn new(file: R) -> Result<Self, SnapshotFileError> {
        let mut archive = Archive::new(file);
        archive.small(NAMES[0])?;
        let size = archive.next(NAMES[1])?;
        let mut state = Entry { archive: &mut archive, left: size, digest: Sha256Stream::default() };
        state.head()?;
        let left = state.left;
        Ok(FileParts { archive, left })
    }
}

#[async_trait]
impl<R: Read + Send> SnapshotParts for FileParts<R> {
    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        let mut state = Entry { archive: &mut self.archive, left: self.left, digest: Sha256Stream::default() };
        let part = state.part().map_err(|error| StorageError::corrupt(error.to_string()))?;
        self.left = state.left;
        Ok(part.map(Bytes::from))
    }
}

/// An archive whose members have a fixed order.
struct Archive<R>(MultiGzDecoder<R>);

impl<R: Read> Archive<R> {
    fn new(file: R) -> Self {
        Archive(MultiGzDecoder::new(file))
    }

    /// The size of the next member, which has this name.
    fn next(&mut self, name: &'static str) -> Result<u64, SnapshotFileError> {
        let mut header = [0; BLOCK];
        self.0.read_exact(&mut header).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => SnapshotFileError::NoGzip,
            _ => error.into(),
        })?;
        let text = |range: std::ops::Range<usize>| {
            let field = &header[range];
            let end = field.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(field.len());
            std::str::from_utf8(&field[..end]).unwrap_or_default()
        };
        let number = |range| u64::from_str_radix(text(range), 8).ok();
        if number(148..156) != Some(checksum(&header).into()) {
            return Err(SnapshotFileError::Damaged("no header of a tar archive"));
        }
        if text(0..100) != name {
            return Err(SnapshotFileError::Damaged("the archive has other members"));
        }
        number(124..136).ok_or(SnapshotFileError::Damaged("the size of a member"))
    }

    /// The content of a small member.
    fn small(&mut self, name: &'static str) -> Result<Vec<u8>, SnapshotFileError> {
        let size = self.next(name)?;
        if size > MAX_SMALL {
            return Err(SnapshotFileError::Damaged("a member is too long"));
        }
        let mut content = vec![0; size as usize];
        self.0.read_exact(&mut content)?;
        self.skip(padding(size))?;
        Ok(content)
    }

    /// Reads the end, so that the checksum of the compression is checked.
    fn end(&mut self) -> Result<(), SnapshotFileError> {
        let mut rest = Vec::new();
        (&mut self.0).take(MAX_END + 1).read_to_end(&mut rest)?;
        if rest.len() as u64 > MAX_END || rest.iter().any(|byte| *byte != 0) {
            return Err(SnapshotFileError::Damaged("data behind the end of the archive"));
        }
        Ok(())
    }

    fn skip(&mut self, count: usize) -> Result<(), SnapshotFileError> {
        let mut padding = [0; BLOCK];
        Ok(self.0.read_exact(&mut padding[..count])?)
    }
}

/// `state.bin` while it is read.
struct Entry<'a, R> {
    archive: &'a mut Archive<R>,
    left: u64,
    digest: Sha256Stream,
}

impl<R: Read> Entry<'_, R> {
    fn take(&mut self, count: usize) -> Result<Vec<u8>, SnapshotFileError> {
        self.left =
            self.left.checked_sub(count as u64).ok_or(SnapshotFileError::Damaged("the state ends too early"))?;
        let mut bytes = vec![0; count];
        self.archive.0.read_exact(&mut bytes)?;
        self.digest.update(&bytes);
        Ok(bytes)
    }

    fn length(&mut self) -> Result<usize, SnapshotFileError> {
        let bytes = self.take(4)?;
        let length = bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)).unwrap_or_default();
        Ok(length as usize)
    }

    fn head(&mut self) -> Result<SnapshotDetails, SnapshotFileError> {
        // An archive of Vault has its own format here.
        if self.left < MAGIC.len() as u64 || self.take(MAGIC.len())? != MAGIC {
            return Err(SnapshotFileError::Foreign);
        }
        let length = self.length()?;
        if length as u64 > MAX_SMALL {
            return Err(SnapshotFileError::Damaged("its description is too long"));
        }
        let head = self.take(length)?;
        serde_json::from_slice(&head).map_err(|_| SnapshotFileError::Damaged("its description"))
    }

    /// The next part; `None` at the end.
    fn part(&mut self) -> Result<Option<Vec<u8>>, SnapshotFileError> {
        match self.length()? {
            0 => Ok(None),
            length if length > MAX_SNAPSHOT_PART => Err(SnapshotFileError::Damaged("a part is too long")),
            length => self.take(length).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use keepfast_crypto::random;

    use super::*;
    use crate::cluster::fake::{Parts, status};

    const LIMIT: u64 = 1 << 30;

    fn details() -> SnapshotDetails {
        let head = SnapshotHead { term: 3, index: Index(42), members: status(&[1, 2]).members };
        SnapshotDetails::new(head, "id".to_owned(), "2026-01-01T00:00:00Z".to_owned(), "1.2.3".to_owned(), 5)
    }

    async fn file_of(parts: &[Vec<u8>], key: &Key256) -> Vec<u8> {
        let parts: Vec<Bytes> = parts.iter().cloned().map(Bytes::from).collect();
        write(&details(), &mut Parts(parts.into_iter()), key, 1 << 30).await.unwrap()
    }

    fn refused(file: &[u8]) -> String {
        VerifiedSnapshot::read(file, LIMIT).err().map(|error| error.to_string()).unwrap_or_default()
    }

    fn unpacked(file: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        MultiGzDecoder::new(file).read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[tokio::test]
    async fn a_file_has_the_parts_that_were_written() {
        let key = random::key();
        for parts in [vec![], vec![vec![1; 10]], vec![vec![7; MAX_SNAPSHOT_PART], vec![2; 511], vec![3; 1]]] {
            let file = file_of(&parts, &key).await;
            let verified = VerifiedSnapshot::read(&file[..], LIMIT).unwrap();
            assert_eq!((&verified.details, verified.parts), (&details(), parts.len() as u64));
            assert_eq!(verified.details.head().members, status(&[1, 2]).members);
            assert!(verified.is_sealed_by(&key) && !verified.is_sealed_by(&random::key()));
            let mut again = FileParts::new(&file[..]).unwrap();
            for part in &parts {
                assert_eq!(again.next().await.unwrap().unwrap(), part);
            }
            assert!(again.next().await.unwrap().is_none());
        }
    }

    /// Files of earlier versions stay readable.
    #[tokio::test]
    async fn the_form_of_the_file_stays() {
        let key = Key256::new([7; 32]);
        let file = file_of(&[vec![1, 2, 3], vec![4; 600]], &key).await;
        let digest = hex::encode(sha256(&unpacked(&file)));
        assert_eq!(digest, "d58cb2095b525990700539792dfb98ae3b10228e5ddce323d225cf671887d58f");
    }

    #[tokio::test]
    async fn sec_rl15_every_change_and_every_cut_of_a_snapshot_is_found() {
        let (key, parts) = (random::key(), vec![(0..=255).collect::<Vec<u8>>()]);
        let file = file_of(&parts, &key).await;
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 0x10;
            // What decompresses to the same bytes is the same snapshot.
            let is_same = VerifiedSnapshot::read(&changed[..], LIMIT)
                .is_ok_and(|read| read.details == details() && read.is_sealed_by(&key));
            assert!(!is_same || unpacked(&changed) == unpacked(&file), "byte {at}");
        }
        // The last block is padding.
        let whole = unpacked(&file);
        for length in 0..whole.len() - 3 * BLOCK {
            let cut = compressed(&whole[..length]).unwrap();
            assert_eq!(refused(&cut), "failed to read snapshot file: unexpected EOF", "{length}");
        }
    }

    #[tokio::test]
    async fn other_files_are_refused_by_name() {
        assert_eq!(refused(b"no gzip, but more than a header"), "failed to decompress snapshot: gzip: invalid header");
        let zeros = compressed(&[0; BLOCK]).unwrap();
        assert_eq!(refused(&zeros), "failed to read snapshot file: no header of a tar archive");
        let mut vault = entry(NAMES[0], br#"{"Version":1,"ID":"bolt-snapshot"}"#).unwrap();
        vault.extend(entry(NAMES[1], &[8; 5000]).unwrap());
        let foreign = "this is a snapshot of Vault or OpenBao, which this server cannot restore";
        assert_eq!(refused(&compressed(&vault).unwrap()), foreign);
        let other = compressed(&entry("other", b"x").unwrap()).unwrap();
        assert_eq!(refused(&other), "failed to read snapshot file: the archive has other members");
    }

    #[tokio::test]
    async fn sec_ds08_the_sizes_of_a_snapshot_have_bounds() {
        let (key, part) = (random::key(), random::bytes::<4096>().to_vec());
        let parts: Vec<Bytes> = vec![part.clone().into(); 10];
        let written = write(&details(), &mut Parts(parts.into_iter()), &key, 5000).await;
        assert!(matches!(written, Err(SnapshotFileError::TooLarge(5000))));
        let file = file_of(&[part], &key).await;
        assert!(matches!(VerifiedSnapshot::read(&file[..], 4000), Err(SnapshotFileError::TooLarge(4000))));
        let mut long = entry(NAMES[0], b"{}").unwrap();
        let mut state = MAGIC.to_vec();
        state.extend(u32::MAX.to_le_bytes());
        long.extend(entry(NAMES[1], &state).unwrap());
        let expected = "failed to read snapshot file: its description is too long";
        assert_eq!(refused(&compressed(&long).unwrap()), expected);
    }

    #[tokio::test]
    async fn tools_of_vault_find_their_members_and_digests() {
        let file = file_of(&[vec![1, 2, 3]], &random::key()).await;
        let bytes = unpacked(&file);
        let meta: serde_json::Value = {
            let size = details().meta(0).len();
            serde_json::from_slice(bytes[BLOCK..BLOCK + size + 8].split(|byte| *byte == b'\n').next().unwrap()).unwrap()
        };
        assert_eq!((&meta["ID"], &meta["Index"], &meta["Version"]), (&json!(ID), &json!(42), &json!(1)));
        assert_eq!(meta["Configuration"]["Servers"][1], json!({ "Suffrage": 0, "ID": "n2", "Address": "n2:8201" }));
        assert_eq!(bytes.len() % BLOCK, 0);
        assert_eq!(bytes[bytes.len() - 2 * BLOCK..], [0; 2 * BLOCK]);
    }
}
