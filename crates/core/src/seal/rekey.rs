//! Rotation of the shares: a quorum of the old ones requests it, and with verification a quorum of the new ones must
//! prove their receipt before they are valid.

use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_crypto::{compare, random};
use keepfast_framework::{Error, Result};

use super::pgp::{Backup, IssuedShares, Recipients};
use super::shape::SealShape;
use super::share_key;
use super::shares::Unsealing;

/// A rotation in progress. Holds at most as many shares as the threshold.
pub(crate) struct Rekey {
    /// The nonce, which each request with a share must have.
    pub(crate) nonce: String,
    /// The number of new shares and their threshold; `None` for another root key without new shares.
    pub(crate) shape: Option<SealShape>,
    /// The certificates to which the new shares are encrypted.
    pub(crate) recipients: Option<Recipients>,
    /// Whether the encrypted shares are stored as well.
    pub(crate) backup: bool,
    /// Whether the new shares are valid only after a quorum of them was sent back.
    pub(crate) verify: bool,
    /// Shares of the old kind.
    pub(crate) submitted: Unsealing,
    /// New shares that were issued and await verification.
    pub(crate) pending: Option<Pending>,
}

/// New shares that were issued and are not valid yet.
pub(crate) struct Pending {
    /// The nonce of the verification.
    pub(crate) nonce: String,
    /// Shares of the new kind that were sent back. The same share may be sent twice, and then proves nothing.
    pub(crate) submitted: Vec<SecretBytes>,
    /// The number of new shares and their threshold.
    pub(crate) shape: SealShape,
    /// The key that the new shares combine to.
    pub(crate) key: Key256,
    /// The check value of the shares that have authorized it, which it replaces; `None` for the first shares.
    pub(crate) replaces: Option<String>,
    /// The encrypted shares, which are stored when the shares become valid.
    pub(crate) backup: Option<Backup>,
}

impl Rekey {
    /// A rotation to shares of this shape, or of the root key only.
    pub(crate) fn new(shape: Option<SealShape>) -> Self {
        let submitted = Unsealing::default();
        Rekey { nonce: random::uuid(), shape, recipients: None, backup: false, verify: false, submitted, pending: None }
    }

    /// Creates shares of a new key, in place of those of `quorum`.
    pub(crate) fn issue(&self, shape: SealShape, quorum: Option<&Key256>) -> Result<(Pending, IssuedShares)> {
        let (key, shares) = share_key::generate(shape)?;
        let issued = IssuedShares::new(shares, self.recipients.as_ref())?;
        let backup = if self.backup { issued.backup(&self.nonce) } else { None };
        let replaces = quorum.map(share_key::check_value);
        Ok((Pending { nonce: random::uuid(), submitted: Vec::new(), shape, key, replaces, backup }, issued))
    }
}

impl Pending {
    /// Restarts the verification with another nonce.
    pub(crate) fn restart(&mut self) {
        self.submitted.clear();
        self.nonce = random::uuid();
    }

    /// Takes a share. `Some` at the threshold: whether they are the new ones.
    pub(crate) fn add_share(&mut self, share: SecretBytes) -> Option<bool> {
        self.submitted.push(share);
        if self.submitted.len() < usize::from(self.shape.threshold) {
            return None;
        }
        let combined = share_key::combine(self.shape, &self.submitted);
        Some(combined.is_some_and(|key| compare::equal(key.expose(), self.key.expose())))
    }
}

/// Adds a share to `submitted`.
///
/// Fails with 400 when it was added before.
pub(crate) fn add_share(submitted: &mut Unsealing, share: &SecretBytes, what: &'static str) -> Result<()> {
    let before = submitted.progress();
    submitted.add(share);
    if submitted.progress() == before {
        return Err(Error::invalid(format!("given key has already been provided during this {what}")));
    }
    Ok(())
}
