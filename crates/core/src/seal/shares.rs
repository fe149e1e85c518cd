//! Unsealing in progress: shares in memory until their number reaches the threshold.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::locked::LockedBytes;
use keepfast_crypto::secret::SecretBytes;
use keepfast_crypto::{compare, random};
use keepfast_framework::{Error, Result};

/// The shares so far, to unseal or to prove a quorum. Wiped when dropped or reset.
#[derive(Default)]
pub(crate) struct Unsealing {
    nonce: String,
    shares: Vec<LockedBytes>,
    /// Incremented when the shares are reset or taken.
    round: u64,
}

/// An attempt to unseal, for which the shares were taken.
pub(crate) struct Attempt {
    nonce: String,
    round: u64,
}

impl Unsealing {
    /// The number of shares.
    pub(crate) fn progress(&self) -> usize {
        self.shares.len()
    }

    /// The nonce of this attempt; empty before the first share.
    pub(crate) fn nonce(&self) -> &str {
        &self.nonce
    }

    /// Adds a share; the same share twice counts once.
    pub(crate) fn add(&mut self, share: &SecretBytes) {
        if self.shares.iter().any(|s| compare::equal(s.expose(), share.expose())) {
            return;
        }
        if self.shares.is_empty() {
            self.nonce = random::uuid();
        }
        self.shares.push(LockedBytes::new(share.expose()));
    }

    /// Removes all shares.
    pub(crate) fn reset(&mut self) {
        *self = Unsealing { round: self.round + 1, ..Unsealing::default() };
    }

    /// Takes all shares for an attempt to unseal.
    pub(crate) fn attempt(&mut self) -> (Attempt, Vec<SecretBytes>) {
        let nonce = self.nonce.clone();
        let shares = self.take();
        (Attempt { nonce, round: self.round }, shares)
    }

    /// Puts shares back after an attempt that failed for another reason than the shares, unless there was a reset or
    /// new shares since.
    pub(crate) fn restore(&mut self, attempt: Attempt, shares: &[SecretBytes]) {
        if self.round == attempt.round && self.shares.is_empty() && !shares.is_empty() {
            self.shares = shares.iter().map(|share| LockedBytes::new(share.expose())).collect();
            self.nonce = attempt.nonce;
        }
    }

    /// Takes all shares out.
    pub(crate) fn take(&mut self) -> Vec<SecretBytes> {
        let taken = self.shares.iter().map(|s| SecretBytes::new(s.expose().to_vec())).collect();
        self.reset();
        taken
    }
}

/// Decodes a share from hex or base64.
pub(crate) fn decode_share(text: &str) -> Result<SecretBytes> {
    let text = text.trim();
    let bytes = hex::decode(text).ok().or_else(|| STANDARD.decode(text).ok());
    match bytes.filter(|b| b.len() > 1) {
        Some(bytes) => Ok(SecretBytes::new(bytes)),
        None => Err(Error::invalid("'key' must be a valid hex or base64 string")),
    }
}

/// Checks the length of a share.
pub(crate) fn check_share(share: &SecretBytes) -> Result<()> {
    match share.expose().len() {
        ..16 => Err(Error::invalid("invalid key: key is shorter than minimum 16 bytes")),
        16..=33 => Ok(()),
        _ => Err(Error::invalid("invalid key: key is longer than maximum 33 bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(byte: u8) -> SecretBytes {
        SecretBytes::new(vec![byte; 33])
    }

    fn with(bytes: &[u8]) -> Unsealing {
        let mut unsealing = Unsealing::default();
        bytes.iter().for_each(|byte| unsealing.add(&share(*byte)));
        unsealing
    }

    #[test]
    fn a_share_counts_once_and_the_first_one_begins_an_attempt() {
        let mut unsealing = Unsealing::default();
        assert_eq!((unsealing.progress(), unsealing.nonce()), (0, ""));
        unsealing.add(&share(1));
        let nonce = unsealing.nonce().to_owned();
        assert!(!nonce.is_empty());
        unsealing.add(&share(1));
        assert_eq!(unsealing.progress(), 1);
        unsealing.add(&share(2));
        assert_eq!((unsealing.progress(), unsealing.nonce()), (2, nonce.as_str()));
        unsealing.reset();
        assert_eq!((unsealing.progress(), unsealing.nonce()), (0, ""));
    }

    #[test]
    fn shares_are_put_back_unless_others_came_or_they_were_reset() {
        let mut unsealing = with(&[1, 2]);
        let nonce = unsealing.nonce().to_owned();
        let (attempt, shares) = unsealing.attempt();
        assert_eq!((unsealing.progress(), unsealing.nonce(), shares.len()), (0, "", 2));
        unsealing.restore(attempt, &shares);
        assert_eq!((unsealing.progress(), unsealing.nonce()), (2, nonce.as_str()));
        let (attempt, shares) = unsealing.attempt();
        unsealing.reset();
        unsealing.restore(attempt, &shares);
        assert_eq!(unsealing.progress(), 0, "there was a reset");
        let mut unsealing = with(&[1, 2]);
        let (attempt, shares) = unsealing.attempt();
        unsealing.add(&share(3));
        unsealing.restore(attempt, &shares);
        assert_eq!(unsealing.progress(), 1, "there are new shares");
        let mut unsealing = with(&[1]);
        let (attempt, _) = unsealing.attempt();
        unsealing.restore(attempt, &[]);
        assert_eq!(unsealing.nonce(), "", "no share begins no attempt");
    }

    #[test]
    fn a_share_is_hexadecimal_or_base64_of_16_to_33_bytes() {
        assert_eq!(decode_share(" 0a0B \n").unwrap().expose().as_slice(), &[10, 11]);
        assert_eq!(decode_share("CgsM").unwrap().expose().as_slice(), &[10, 11, 12]);
        for text in ["", "0a", "Cg==", "?"] {
            let error = decode_share(text).err().unwrap();
            assert_eq!(error.public(), "'key' must be a valid hex or base64 string", "{text}");
        }
        let fault =
            |length: usize| check_share(&SecretBytes::new(vec![1; length])).err().map(|e| e.public().to_owned());
        assert_eq!([fault(16), fault(33)], [None, None]);
        assert_eq!(fault(15).as_deref(), Some("invalid key: key is shorter than minimum 16 bytes"));
        assert_eq!(fault(34).as_deref(), Some("invalid key: key is longer than maximum 33 bytes"));
    }
}
