//! The text of an entry for one device. With `log_raw` it holds secrets, and is wiped when it is dropped.

use std::ops::Deref;

use zeroize::Zeroize as _;

/// The bytes of a line or of a part of it. No device can take them out, so none needs to wipe them.
pub(crate) struct Line {
    bytes: Vec<u8>,
    is_raw: bool,
}

impl Line {
    /// A line; `is_raw` if it may hold secrets.
    pub(crate) fn new(bytes: impl Into<Vec<u8>>, is_raw: bool) -> Self {
        Line { bytes: bytes.into(), is_raw }
    }

    fn wipe(&mut self) {
        if self.is_raw {
            self.bytes.as_mut_slice().zeroize();
        }
    }
}

impl Deref for Line {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.wipe();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_al03_a_raw_line_is_wiped() {
        for (is_raw, left) in [(true, [0; 3]), (false, *b"abc")] {
            let mut line = Line::new(*b"abc", is_raw);
            let at = line.as_ptr();
            line.wipe();
            assert_eq!((&line[..], line.as_ptr()), (&left[..], at), "{is_raw}");
        }
    }
}
