//! Rotation of the shares: a quorum of the old ones requests it, and with verification a quorum of the new ones must
//! prove their receipt before they are valid.

use std::sync::Arc;

use keepfast_crypto::locked::Key256;
use keepfast_crypto::random;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::{Error, Result};

use super::by_shares;
use super::config::SealConfig;
use super::shape::SealShape;
use super::shares::Unsealing;
use super::wrap::Seal;

/// A rotation in progress. Holds at most as many shares as the threshold.
pub(crate) struct Rekey {
    /// The nonce, which each request with a share must have.
    pub(crate) nonce: String,
    /// The number of new shares and their threshold.
    pub(crate) shape: SealShape,
    /// Returned in the status as requested; without PGP there is no backup.
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
    /// The new root key.
    pub(crate) root: Key256,
    /// The seal with the key of the new shares.
    pub(crate) seal: Arc<dyn Seal>,
    /// The new seal configuration.
    pub(crate) config: SealConfig,
}

impl Rekey {
    /// A rotation to shares of this shape.
    pub(crate) fn new(shape: SealShape, backup: bool, verify: bool) -> Self {
        Rekey { nonce: random::uuid(), shape, backup, verify, submitted: Unsealing::default(), pending: None }
    }

    /// Creates shares of a new root key, for the cluster of `present`.
    pub(crate) async fn new_shares(&self, present: &SealConfig) -> Result<(Pending, Vec<SecretBytes>)> {
        let root = random::key();
        let (seal, shares) = by_shares::generate(present.kind, self.shape)?;
        let config = SealConfig { shape: self.shape, ..present.rewrapped(&*seal, &root).await? };
        Ok((Pending { nonce: random::uuid(), submitted: Vec::new(), root, seal, config }, shares))
    }
}

impl Pending {
    /// Restarts the verification with another nonce.
    pub(crate) fn restart(&mut self) {
        self.submitted.clear();
        self.nonce = random::uuid();
    }

    /// Takes a share. `Some` at the threshold: whether they are the new ones.
    pub(crate) async fn add_share(&mut self, share: SecretBytes) -> Result<Option<bool>> {
        self.submitted.push(share);
        if self.submitted.len() < usize::from(self.config.shape.threshold) {
            return Ok(None);
        }
        super::current::is_quorum(&self.config, &self.submitted).await.map(Some)
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
