//! Packets (RFC 4880, section 4): tags and lengths of the old and the new format.

use crate::CertificateError;

/// The longest certificate.
pub(crate) const MAX_BYTES: usize = 512 * 1024;
/// The most packets of a certificate.
const MAX_PACKETS: usize = 4096;

/// The tags of packets that are read or written.
pub(crate) mod tag {
    pub(crate) const ENCRYPTED_SESSION_KEY: u8 = 1;
    pub(crate) const SIGNATURE: u8 = 2;
    pub(crate) const SECRET_KEY: u8 = 5;
    pub(crate) const PUBLIC_KEY: u8 = 6;
    pub(crate) const LITERAL: u8 = 11;
    pub(crate) const USER_ID: u8 = 13;
    pub(crate) const PUBLIC_SUBKEY: u8 = 14;
    pub(crate) const USER_ATTRIBUTE: u8 = 17;
    pub(crate) const INTEGRITY_PROTECTED: u8 = 18;
}

/// A packet.
#[derive(Clone, Copy)]
pub(crate) struct Packet<'a> {
    pub(crate) tag: u8,
    pub(crate) body: &'a [u8],
}

/// All packets of a certificate.
pub(crate) fn packets(bytes: &[u8]) -> Result<Vec<Packet<'_>>, CertificateError> {
    if bytes.len() > MAX_BYTES {
        return Err(CertificateError::TooLong);
    }
    let mut found = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        if found.len() == MAX_PACKETS {
            return Err(CertificateError::TooLong);
        }
        let (packet, next) = read(rest).ok_or(CertificateError::Malformed)?;
        found.push(packet);
        rest = next;
    }
    Ok(found)
}

/// The first packet. Partial and indeterminate lengths belong to data only.
fn read(bytes: &[u8]) -> Option<(Packet<'_>, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    if first & 0x80 == 0 {
        return None;
    }
    let (tag, length, rest) = if first & 0x40 != 0 {
        let (length, rest) = read_length(rest)?;
        (first & 0x3f, length, rest)
    } else {
        let size = match first & 3 {
            0 => 1,
            1 => 2,
            2 => 4,
            _ => return None,
        };
        let (digits, rest) = rest.split_at_checked(size)?;
        (first >> 2 & 0x0f, digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
    };
    let (body, rest) = rest.split_at_checked(length)?;
    Some((Packet { tag, body }, rest))
}

/// A length of the new format, which subpackets have as well.
pub(crate) fn read_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    match bytes {
        [short @ 0..=191, rest @ ..] => Some((usize::from(*short), rest)),
        [first @ 192..=223, second, rest @ ..] => {
            Some(((usize::from(*first) - 192) * 256 + usize::from(*second) + 192, rest))
        }
        [255, a, b, c, d, rest @ ..] => Some((usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).ok()?, rest)),
        _ => None,
    }
}

/// The header of a packet in the new format.
pub(crate) fn header(tag: u8, length: usize) -> Vec<u8> {
    let mut out = vec![0xc0 | tag];
    match u8::try_from(length) {
        Ok(short @ 0..=191) => out.push(short),
        _ => {
            out.push(255);
            out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
    out
}

/// A multiprecision integer: the number of its bits, and its bytes without leading zeros.
pub(crate) fn read_number(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (bits, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*bits)).div_ceil(8))
}

/// Encodes a multiprecision integer.
pub(crate) fn number(big_endian: &[u8]) -> Vec<u8> {
    let zeros = big_endian.iter().take_while(|byte| **byte == 0).count();
    let digits = &big_endian[zeros..];
    let bits = digits.first().map_or(0, |first| digits.len() * 8 - first.leading_zeros() as usize);
    [&u16::try_from(bits).unwrap_or(u16::MAX).to_be_bytes(), digits].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_in_every_form() {
        // RFC 4880, section 4.2.3.
        for (bytes, length) in [(&[0x64][..], 100), (&[0xc5, 0xfb], 1723), (&[0xff, 0, 1, 0x86, 0xa0], 100_000)] {
            assert_eq!(read_length(bytes), Some((length, &[][..])));
            assert!(read_length(&bytes[..bytes.len() - 1]).is_none());
        }
        assert_eq!(read_length(&[224, 0]), None, "partial");
        for length in [0, 191, 192, 9000, 70_000] {
            let mut bytes = header(tag::LITERAL, length);
            bytes.resize(bytes.len() + length, 7);
            let (packet, rest) = read(&bytes).unwrap();
            assert_eq!((packet.tag, packet.body.len(), rest.len()), (tag::LITERAL, length, 0));
        }
        let (old, _) = read(&[0x99, 0, 2, 7, 7]).unwrap();
        assert_eq!((old.tag, old.body), (tag::PUBLIC_KEY, &[7, 7][..]));
        assert!(read(&[0x9b, 0]).is_none() && read(&[0x19, 0]).is_none());
    }

    #[test]
    fn numbers_have_their_bits() {
        // RFC 4880, section 3.2.
        assert_eq!(number(&[1, 0xff]), [0, 9, 1, 0xff]);
        assert_eq!(number(&[0, 0, 1]), [0, 1, 1]);
        assert_eq!(number(&[]), [0, 0]);
        assert_eq!(read_number(&[0, 9, 1, 0xff, 5]), Some((&[1, 0xff][..], &[5][..])));
        assert_eq!(read_number(&[0, 9, 1]), None);
    }
}
