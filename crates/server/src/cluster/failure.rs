//! Errors of the storage of another node: a code and up to two numbers. Texts stay at the node that has them.

use bytes::{Buf, Bytes};
use keepfast_storage::StorageError;

const CONFLICT: u8 = 1;
const CONTENDED: u8 = 2;
const FULL: u8 = 3;
const TOO_LARGE: u8 = 4;
const NOT_LEADER: u8 = 5;
const NO_LEADER: u8 = 6;
const NOT_COMMITTED: u8 = 7;
const UNKNOWN: u8 = 8;
const IN_PROGRESS: u8 = 9;

/// The length of an encoded error.
pub(super) const LENGTH: usize = 17;

/// Encodes an error. One without a code becomes [`StorageError::Unknown`].
pub(super) fn encode(error: &StorageError) -> [u8; LENGTH] {
    let (code, first, second) = match error {
        StorageError::Conflict => (CONFLICT, 0, 0),
        StorageError::Contended => (CONTENDED, 0, 0),
        StorageError::Full => (FULL, 0, 0),
        StorageError::TooLarge { size, limit } => (TOO_LARGE, *size as u64, *limit as u64),
        // The caller is still a member.
        StorageError::NotLeader | StorageError::Removed => (NOT_LEADER, 0, 0),
        StorageError::NoLeader => (NO_LEADER, 0, 0),
        StorageError::NotCommitted => (NOT_COMMITTED, 0, 0),
        StorageError::InProgress => (IN_PROGRESS, 0, 0),
        _ => (UNKNOWN, 0, 0),
    };
    let mut out = [code; LENGTH];
    out[1..9].copy_from_slice(&u64::to_le_bytes(first));
    out[9..].copy_from_slice(&u64::to_le_bytes(second));
    out
}

/// Decodes an error; `None` for another form.
pub(super) fn decode(mut input: Bytes) -> Option<StorageError> {
    let code = input.try_get_u8().ok()?;
    let (first, second) = (input.try_get_u64_le().ok()?, input.try_get_u64_le().ok()?);
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let error = match code {
        CONFLICT => StorageError::Conflict,
        CONTENDED => StorageError::Contended,
        FULL => StorageError::Full,
        TOO_LARGE => StorageError::TooLarge { size: number(first), limit: number(second) },
        NOT_LEADER => StorageError::NotLeader,
        NO_LEADER => StorageError::NoLeader,
        NOT_COMMITTED => StorageError::NotCommitted,
        IN_PROGRESS => StorageError::InProgress,
        // A newer version may have more codes.
        _ => StorageError::Unknown,
    };
    input.is_empty().then_some(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_come_back_and_others_are_unknown() {
        for error in [
            StorageError::Conflict,
            StorageError::Contended,
            StorageError::Full,
            StorageError::TooLarge { size: 70_000, limit: 9 },
            StorageError::NotLeader,
            StorageError::NoLeader,
            StorageError::NotCommitted,
            StorageError::InProgress,
            StorageError::Unknown,
        ] {
            let decoded = decode(Bytes::copy_from_slice(&encode(&error))).unwrap();
            assert_eq!(format!("{decoded:?}"), format!("{error:?}"));
        }
        assert!(matches!(
            decode(Bytes::copy_from_slice(&encode(&StorageError::Removed))),
            Some(StorageError::NotLeader)
        ));
        let secret = StorageError::corrupt("a path that stays here");
        assert!(matches!(decode(Bytes::copy_from_slice(&encode(&secret))), Some(StorageError::Unknown)));
        assert!(decode(Bytes::from_static(&[1; LENGTH - 1])).is_none());
        assert!(decode(Bytes::from_static(&[1; LENGTH + 1])).is_none());
    }
}
