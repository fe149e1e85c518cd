//! New shares in the making: a quorum of the old ones asks for them, and when it was so decided a quorum of the new ones
//! proves that they arrived before they count.

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

/// New shares in the making. Holds no more shares than the threshold asks for.
pub(crate) struct Rotation {
    /// Names it; who gives a share has to know it.
    pub(crate) nonce: String,
    /// How many shares there will be.
    pub(crate) shape: SealShape,
    /// Asked for and told again; without PGP nothing is kept.
    pub(crate) backup: bool,
    /// Whether the new shares count only when a quorum of them was given back.
    pub(crate) verify: bool,
    /// Shares of the old kind.
    pub(crate) given: Unsealing,
    /// New shares that were handed out and wait for their proof.
    pub(crate) pending: Option<Pending>,
}

/// New shares that were handed out and do not count yet.
pub(crate) struct Pending {
    /// Names the proof.
    pub(crate) nonce: String,
    /// Shares of the new kind that were given back. The same share may be given twice, and then proves nothing.
    pub(crate) given: Vec<SecretBytes>,
    /// The root key that they will open.
    pub(crate) root: Key256,
    /// The seal with the key that they make.
    pub(crate) seal: Arc<dyn Seal>,
    /// The record that will be stored.
    pub(crate) config: SealConfig,
}

impl Rotation {
    /// A rotation to shares of this shape.
    pub(crate) fn new(shape: SealShape, backup: bool, verify: bool) -> Self {
        Rotation { nonce: random::uuid(), shape, backup, verify, given: Unsealing::default(), pending: None }
    }

    /// New shares of a new root key, for the cluster of `present`.
    pub(crate) async fn make(&self, present: &SealConfig) -> Result<(Pending, Vec<SecretBytes>)> {
        let root = random::key();
        let (seal, shares) = by_shares::generate(present.kind, self.shape)?;
        let config = SealConfig { shape: self.shape, ..present.rewrapped(&*seal, &root).await? };
        Ok((Pending { nonce: random::uuid(), given: Vec::new(), root, seal, config }, shares))
    }
}

impl Pending {
    /// Begins the proof anew, under another name.
    pub(crate) fn restart(&mut self) {
        self.given.clear();
        self.nonce = random::uuid();
    }

    /// Takes a share. `Some` when there are enough: whether they are the new ones.
    pub(crate) async fn give(&mut self, share: SecretBytes) -> Result<Option<bool>> {
        self.given.push(share);
        if self.given.len() < usize::from(self.config.shape.threshold) {
            return Ok(None);
        }
        super::custody::is_quorum(&self.config, &self.given).await.map(Some)
    }
}

/// Takes a share into `given`, once.
///
/// Fails with 400 when it was given before.
pub(crate) fn give(given: &mut Unsealing, share: &SecretBytes, what: &'static str) -> Result<()> {
    let before = given.progress();
    given.add(share);
    if given.progress() == before {
        return Err(Error::invalid(format!("given key has already been provided during this {what}")));
    }
    Ok(())
}
