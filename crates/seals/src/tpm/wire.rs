//! The bytes of commands and responses: big-endian numbers, and byte strings after their length. Constants are those of
//! the TPM 2.0 library specification, part 2.

use keepfast_crypto::secret::SecretBytes;

/// The longest command and the longest response; the buffers of TPMs for PCs have this size.
pub(super) const MAX_MESSAGE: usize = 4096;
/// The length of tag, size and code.
pub(super) const HEADER: usize = 10;

/// `TPM_ST_NO_SESSIONS`.
pub(super) const NO_SESSIONS: u16 = 0x8001;
/// `TPM_ST_SESSIONS`.
pub(super) const SESSIONS: u16 = 0x8002;
/// `TPM_ALG_NULL`.
pub(super) const ALG_NULL: u16 = 0x0010;
/// `TPM_ALG_SHA256`.
pub(super) const ALG_SHA256: u16 = 0x000b;
/// `TPM_ALG_AES`.
pub(super) const ALG_AES: u16 = 0x0006;
/// `TPM_ALG_CFB`.
pub(super) const ALG_CFB: u16 = 0x0043;

/// A command, by its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Command {
    CreatePrimary = 0x0131,
    Create = 0x0153,
    Load = 0x0157,
    Unseal = 0x015e,
    FlushContext = 0x0165,
    PolicyAuthValue = 0x016b,
    ReadPublic = 0x0173,
    StartAuthSession = 0x0176,
    PcrRead = 0x017e,
    PolicyPcr = 0x017f,
}

impl Command {
    /// Its code.
    pub(super) fn code(self) -> u32 {
        self as u32
    }
}

/// Bytes that are being written; wiped when dropped. The buffer has its final size from the start, so that none is left
/// behind when it grows.
pub(super) struct Writer(SecretBytes);

impl Writer {
    pub(super) fn new() -> Self {
        Writer(SecretBytes::new(Vec::with_capacity(MAX_MESSAGE)))
    }

    pub(super) fn u8(self, value: u8) -> Self {
        self.raw(&[value])
    }

    pub(super) fn u16(self, value: u16) -> Self {
        self.raw(&value.to_be_bytes())
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.raw(&value.to_be_bytes())
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.expose_mut().extend_from_slice(bytes);
        self
    }

    /// A `TPM2B`: bytes after their length. The callers write keys, digests and what was read from a message.
    pub(super) fn sized(self, bytes: &[u8]) -> Self {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.u16(length).raw(&bytes[..usize::from(length)])
    }

    /// `TPMT_SYM_DEF` of AES-128-CFB.
    pub(super) fn aes_128_cfb(self) -> Self {
        self.u16(ALG_AES).u16(128).u16(ALG_CFB)
    }

    pub(super) fn finish(self) -> SecretBytes {
        self.0
    }
}

/// Bytes that are being read. Every method returns `None` where fewer are left.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A `TPM2B`.
    pub(super) fn sized(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A selection of up to eight PCRs of the SHA-256 bank: bit `n` of byte `n / 8` is PCR `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pcrs(pub(super) [u8; 3]);

impl Pcrs {
    /// The number of PCRs of which one command returns the values.
    const MAX: u32 = 8;

    /// The selection of a list such as `0,2,7`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut bits = [0; 3];
        for number in text.split(',') {
            let number: usize = number.trim().parse().ok()?;
            *bits.get_mut(number / 8)? |= 1 << (number % 8);
        }
        let pcrs = Pcrs(bits);
        (pcrs.count() <= Self::MAX).then_some(pcrs)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == [0; 3]
    }

    pub(super) fn count(self) -> u32 {
        self.0.iter().map(|byte| byte.count_ones()).sum()
    }

    /// The numbers, ascending, with commas.
    pub(super) fn numbers(self) -> String {
        let is_set = |number: &usize| self.0[number / 8] & (1 << (number % 8)) != 0;
        (0..24).filter(is_set).map(|number| number.to_string()).collect::<Vec<_>>().join(",")
    }

    /// `TPML_PCR_SELECTION` with this selection alone.
    pub(super) fn list(self) -> [u8; 10] {
        let [a, b, c] = self.0;
        let [high, low] = ALG_SHA256.to_be_bytes();
        [0, 0, 0, 1, high, low, 3, a, b, c]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_ends_where_a_length_exceeds_the_bytes() {
        assert_eq!(Reader::new(&[0, 2, 7, 8]).sized(), Some(&[7, 8][..]));
        for bytes in [&[][..], &[0], &[0, 2, 7], &[0xff; 300]] {
            assert_eq!(Reader::new(bytes).sized(), None);
        }
        assert_eq!((Reader::new(&[0; 3]).u32(), Reader::new(&[]).u8()), (None, None));
    }

    #[test]
    fn up_to_eight_pcrs_below_24_are_a_selection() {
        assert_eq!(Pcrs::parse("7").unwrap().0, [0x80, 0, 0]);
        let pcrs = Pcrs::parse("23, 0,7,7").unwrap();
        assert_eq!((pcrs.0, pcrs.count(), pcrs.numbers().as_str()), ([0x81, 0, 0x80], 3, "0,7,23"));
        for refused in ["", "7,", "24", "-1", "x", "0,1,2,3,4,5,6,7,8", "99999999999999999999"] {
            assert!(Pcrs::parse(refused).is_none(), "{refused}");
        }
    }
}
