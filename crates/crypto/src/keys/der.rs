//! The subset of DER (X.690) for keys, certificates and requests: elements with definite lengths.

use crate::secret::SecretBytes;

/// The tag of SEQUENCE.
pub const SEQUENCE: u8 = 0x30;

/// One element.
#[derive(Clone, Copy)]
pub struct Element<'a> {
    /// Its tag.
    pub tag: u8,
    /// Its content, without tag and length.
    pub content: &'a [u8],
    /// The element with its tag and length.
    pub whole: &'a [u8],
}

/// The first element and the bytes after it.
#[must_use]
pub fn read(der: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(short), rest),
        long @ 0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((Element { tag, content, whole: &der[..der.len() - rest.len()] }, rest))
}

/// Reads `der` as exactly one element with this tag.
#[must_use]
pub fn whole(der: &[u8], tag: u8) -> Option<Element<'_>> {
    let (element, rest) = read(der)?;
    (rest.is_empty() && element.tag == tag).then_some(element)
}

/// All elements of `content`.
#[must_use]
pub fn children(mut content: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut found = Vec::new();
    while !content.is_empty() {
        let (element, rest) = read(content)?;
        found.push(element);
        content = rest;
    }
    Some(found)
}

/// Encodes an element.
#[must_use]
pub fn write(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 5);
    out.push(tag);
    let digits = content.len().to_be_bytes();
    let digits = &digits[digits.iter().take_while(|digit| **digit == 0).count()..];
    match content.len() {
        short @ 0..=0x7f => out.push(short as u8),
        _ => {
            out.push(0x80 | digits.len() as u8);
            out.extend_from_slice(digits);
        }
    }
    out.extend_from_slice(content);
    out
}

/// Encodes a non-negative number as INTEGER, from its big-endian bytes.
#[must_use]
pub fn write_number(big_endian: &[u8]) -> Vec<u8> {
    let zeros = big_endian.iter().take_while(|byte| **byte == 0).count();
    let digits = &big_endian[zeros..];
    let sign: &[u8] = if digits.first().is_none_or(|first| *first >= 0x80) { &[0] } else { &[] };
    write(0x02, &[sign, digits].concat())
}

/// Encodes a PKCS#8 key (RFC 5208) from its AlgorithmIdentifier and the private key in the format of its family.
#[must_use]
pub fn write_pkcs8(algorithm: &[u8], private_key: &[u8]) -> SecretBytes {
    let key = SecretBytes::new(write(0x04, private_key));
    let body = SecretBytes::new([write_number(&[0]).as_slice(), algorithm, key.expose()].concat());
    SecretBytes::new(write(SEQUENCE, body.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_elements_are_read_back() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000] {
            let content = vec![7; length];
            let der = write(SEQUENCE, &content);
            assert_eq!(whole(&der, SEQUENCE).unwrap().content, content);
            assert!(whole(&der, 2).is_none());
            assert!(whole(&der[..der.len() - 1], SEQUENCE).is_none());
            assert_eq!(children(&[der.clone(), der].concat()).unwrap().len(), 2);
        }
    }

    #[test]
    fn numbers_are_minimal() {
        for (bytes, der) in
            [(&[][..], &[2, 1, 0][..]), (&[0, 0], &[2, 1, 0]), (&[0, 0x7f], &[2, 1, 0x7f]), (&[0x80], &[2, 2, 0, 0x80])]
        {
            assert_eq!(write_number(bytes), der);
        }
    }
}
