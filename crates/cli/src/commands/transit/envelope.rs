//! The format of encrypted files: a data key encrypted by transit, then chunks sealed with it.
//!
//! ```text
//! magic (8) || length (2, big-endian) || encrypted data key (text) || chunk || chunk || ...
//! chunk = nonce (12) || AES-256-GCM ciphertext of at most 1 MiB || tag (16)
//! ```
//!
//! All chunks except the last are full. The associated data of a chunk is the SHA-256 of everything before the first
//! chunk, its number (8 bytes, big-endian) and whether it is the last (1 byte): chunks cannot be moved, dropped,
//! truncated or taken from another file. Reading and writing take constant memory.

use std::io::{self, Read, Write};

use keepfast_crypto::Zeroizing;
use keepfast_crypto::aead::{AeadKey, OVERHEAD};
use keepfast_crypto::hash::sha256;

const MAGIC: &[u8; 8] = b"KFTRAN\x00\x01";
/// Bytes of a full chunk in plaintext.
const CHUNK: usize = 1024 * 1024;

/// Writes everything before the chunks and returns its digest.
pub(super) fn write_header(encrypted_key: &str, to: &mut dyn Write) -> io::Result<[u8; 32]> {
    let length = u16::try_from(encrypted_key.len()).map_err(|_| corrupt("the encrypted key is too long"))?;
    let header = [MAGIC.as_slice(), &length.to_be_bytes(), encrypted_key.as_bytes()].concat();
    to.write_all(&header)?;
    Ok(sha256(&header))
}

/// Reads everything before the chunks: the encrypted data key, and the digest.
pub(super) fn read_header(from: &mut dyn Read) -> io::Result<(String, [u8; 32])> {
    let mut header = vec![0; MAGIC.len() + 2];
    from.read_exact(&mut header).map_err(|_| corrupt("not a file of encrypt-file"))?;
    if !header.starts_with(MAGIC) {
        return Err(corrupt("not a file of encrypt-file"));
    }
    let length = u16::from_be_bytes([header[MAGIC.len()], header[MAGIC.len() + 1]]);
    let mut key = vec![0; usize::from(length)];
    from.read_exact(&mut key)?;
    header.extend_from_slice(&key);
    let key = String::from_utf8(key).map_err(|_| corrupt("the encrypted key is not text"))?;
    Ok((key, sha256(&header)))
}

/// Encrypts all of `from`; `header` is the digest of [`write_header`]. `progress` gets the number of bytes that each step read.
pub(super) fn seal(
    key: &AeadKey,
    header: &[u8; 32],
    from: &mut dyn Read,
    to: &mut dyn Write,
    progress: &mut dyn FnMut(usize),
) -> io::Result<()> {
    each_chunk(from, CHUNK, progress, |number, last, chunk| {
        to.write_all(&key.seal(&associated_data(header, number, last), chunk))
    })
}

/// Decrypts all of `from`. After an error, `to` contains authentic but incomplete data.
pub(super) fn open(
    key: &AeadKey,
    header: &[u8; 32],
    from: &mut dyn Read,
    to: &mut dyn Write,
    progress: &mut dyn FnMut(usize),
) -> io::Result<()> {
    each_chunk(from, CHUNK + OVERHEAD, progress, |number, last, chunk| {
        let opened = key.open(&associated_data(header, number, last), chunk);
        let plaintext = Zeroizing::new(opened.map_err(|_| corrupt("the file was changed or truncated"))?);
        to.write_all(&plaintext)
    })
}

/// The associated data of a chunk.
fn associated_data(header: &[u8; 32], number: u64, last: bool) -> [u8; 41] {
    let mut data = [0; 41];
    data[..32].copy_from_slice(header);
    data[32..40].copy_from_slice(&number.to_be_bytes());
    data[40] = u8::from(last);
    data
}

/// Calls `step` with each chunk of `size` bytes, its number, and whether it is the last. There is always a last chunk.
fn each_chunk(
    from: &mut dyn Read,
    size: usize,
    progress: &mut dyn FnMut(usize),
    mut step: impl FnMut(u64, bool, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let (mut current, mut next) = (Zeroizing::new(Vec::new()), Zeroizing::new(Vec::new()));
    fill(from, size, &mut current)?;
    let mut number = 0;
    loop {
        fill(from, size, &mut next)?;
        let last = next.is_empty();
        step(number, last, &current)?;
        progress(current.len());
        if last {
            return Ok(());
        }
        std::mem::swap(&mut current, &mut next);
        number += 1;
    }
}

/// Reads `size` bytes, or the rest.
fn fill(from: &mut dyn Read, size: usize, chunk: &mut Vec<u8>) -> io::Result<()> {
    chunk.clear();
    chunk.reserve_exact(size);
    from.take(size as u64).read_to_end(chunk).map(|_| ())
}

fn corrupt(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(key: &AeadKey, plaintext: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        let header = write_header("vault:v1:key", &mut file).unwrap();
        seal(key, &header, &mut &plaintext[..], &mut file, &mut |_| {}).unwrap();
        file
    }

    fn opened(key: &AeadKey, mut file: &[u8]) -> io::Result<Vec<u8>> {
        let (name, header) = read_header(&mut file)?;
        assert_eq!(name, "vault:v1:key");
        let mut plaintext = Vec::new();
        open(key, &header, &mut file, &mut plaintext, &mut |_| {})?;
        Ok(plaintext)
    }

    #[test]
    fn files_of_every_size_are_opened_again() {
        let key = AeadKey::from_bytes(&[1; 32]);
        for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5] {
            let plaintext: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let file = sealed(&key, &plaintext);
            assert!(opened(&key, &file).unwrap() == plaintext, "{size}");
        }
    }

    #[test]
    fn changed_truncated_swapped_and_foreign_chunks_are_refused() {
        let key = AeadKey::from_bytes(&[1; 32]);
        let file = sealed(&key, &vec![7; 2 * CHUNK + 9]);
        let from = MAGIC.len() + 2 + "vault:v1:key".len();
        let frame = CHUNK + OVERHEAD;
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut file = file.clone();
            change(&mut file);
            opened(&key, &file).is_err()
        };
        assert!(!changed(&|_| {}));
        assert!(changed(&|file| file[from + 40] ^= 1), "a bit");
        assert!(changed(&|file| file.truncate(file.len() - 1)), "a byte less");
        assert!(changed(&|file| file.truncate(from + 2 * frame)), "without the last chunk");
        assert!(changed(&|file| file.truncate(from)), "without chunks");
        assert!(changed(&|file| file.push(0)), "a byte more");
        assert!(
            changed(&|file| {
                let (one, two) = file[from..from + 2 * frame].split_at_mut(frame);
                one.swap_with_slice(two);
            }),
            "swapped"
        );
        let other = sealed(&AeadKey::from_bytes(&[2; 32]), b"x");
        assert!(opened(&key, &other).is_err());
        assert!(opened(&key, b"something else").is_err());
    }
}
