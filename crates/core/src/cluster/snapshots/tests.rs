//! The form of a snapshot file, and its checks.

use std::io::{self, Cursor, Read as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use keepfast_crypto::hash::sha256;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::random;
use keepfast_storage::{Index, MAX_SNAPSHOT_PART, SnapshotHead, SnapshotParts as _};
use serde_json::json;

use super::archive::{BLOCK, entry};
use super::format::{ID, MAGIC, NAMES};
use super::write::compressed as compressed_at;
use super::*;
use crate::cluster::fake::{Parts, status};

const LIMIT: u64 = 1 << 30;

fn details() -> SnapshotDetails {
    let head = SnapshotHead { term: 3, index: Index(42), members: status(&[1, 2]).members };
    SnapshotDetails::new(head, "id".to_owned(), "2026-01-01T00:00:00Z".to_owned(), "1.2.3".to_owned(), 5)
}

async fn file_of(parts: &[Vec<u8>], key: &Key256) -> Vec<u8> {
    let parts: Vec<Bytes> = parts.iter().cloned().map(Bytes::from).collect();
    write(&details(), &mut Parts(parts.into_iter()), key, Cursor::new(Vec::new()), LIMIT).await.unwrap().into_inner()
}

fn compressed(bytes: &[u8]) -> Result<Vec<u8>, SnapshotFileError> {
    compressed_at(bytes, Compression::fast())
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
    let mut vault = entry(NAMES[0], br#"{"Version":1,"ID":"bolt-snapshot"}"#);
    vault.extend(entry(NAMES[1], &[8; 5000]));
    let foreign = "this is a snapshot of Vault or OpenBao, which this server cannot restore";
    assert_eq!(refused(&compressed(&vault).unwrap()), foreign);
    let other = compressed(&entry("other", b"x")).unwrap();
    assert_eq!(refused(&other), "failed to read snapshot file: the archive has other members");
}

#[tokio::test]
async fn sec_ds08_the_sizes_of_a_snapshot_have_bounds() {
    let (key, part) = (random::key(), random::bytes::<4096>().to_vec());
    let parts: Vec<Bytes> = vec![part.clone().into(); 10];
    let written = write(&details(), &mut Parts(parts.into_iter()), &key, Cursor::new(Vec::new()), 5000).await;
    assert!(matches!(written, Err(SnapshotFileError::TooLarge(5000))));
    let file = file_of(&[part], &key).await;
    assert!(matches!(VerifiedSnapshot::read(&file[..], 4000), Err(SnapshotFileError::TooLarge(4000))));
    let mut long = entry(NAMES[0], b"{}");
    let mut state = MAGIC.to_vec();
    state.extend(u32::MAX.to_le_bytes());
    long.extend(entry(NAMES[1], &state));
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

/// The size in `meta.json` may have more digits than that which was planned.
#[tokio::test]
async fn a_description_at_the_edge_of_a_block_does_not_move_the_state() {
    let key = random::key();
    let base = details();
    let edge = BLOCK - base.meta(0).len() % BLOCK;
    for extra in 0..=24 {
        let mut details = base.clone();
        // Only the id of a member is in `meta.json`.
        let mut head = details.head();
        head.members[0].node.push_str(&"n".repeat(edge + 1 - extra.min(edge)));
        details = SnapshotDetails::new(head, details.cluster_id, details.created, details.version, 5);
        let parts = vec![Bytes::from(vec![1; 100_000])];
        let file = write(&details, &mut Parts(parts.into_iter()), &key, Cursor::new(Vec::new()), LIMIT).await.unwrap();
        let file = file.into_inner();
        assert_eq!(VerifiedSnapshot::read(&file[..], LIMIT).unwrap().details, details, "{extra}");
    }
}

/// A disk that is full after some bytes.
struct Full(usize);

impl io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Seek for Full {
    fn seek(&mut self, _: io::SeekFrom) -> io::Result<u64> {
        Ok(0)
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_wherever_it_is_full() {
    let (key, part) = (random::key(), Bytes::copy_from_slice(&random::bytes::<4096>()));
    let whole = file_of(&[part.to_vec()], &key).await.len();
    for room in (0..whole).step_by(97) {
        let written = write(&details(), &mut Parts(vec![part.clone()].into_iter()), &key, Full(room), LIMIT).await;
        assert!(matches!(written, Err(SnapshotFileError::Write(_))), "{room}");
    }
}
