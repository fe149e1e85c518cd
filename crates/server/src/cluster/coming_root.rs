//! The form of a root key that the leader is about to commit: `record:32 root:32 seal`, where `seal` has at most
//! [`MAX_SEAL_KEY`] bytes.

use bytes::{Buf, Bytes};
use keepfast_core::cluster::port::{ComingRoot, MAX_SEAL_KEY};
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;

const FIXED: usize = 64;

/// Encodes the frame of a call with this id.
pub(super) fn encode(id: u64, coming: &ComingRoot) -> SecretBytes {
    let seal = coming.seal.expose();
    // Filled to its capacity: a growing vector would leave copies.
    let mut out = Vec::with_capacity(8 + FIXED + seal.len());
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&coming.record);
    out.extend_from_slice(coming.root.expose());
    out.extend_from_slice(seal);
    SecretBytes::new(out)
}

/// Decodes it without its id; `None` for another form.
pub(super) fn decode(mut input: Bytes) -> Option<ComingRoot> {
    if !(FIXED..=FIXED + MAX_SEAL_KEY).contains(&input.len()) {
        return None;
    }
    let mut record = [0; 32];
    input.copy_to_slice(&mut record);
    let root = Key256::from_slice(input.get(..32)?)?;
    let seal = SecretBytes::new(input.get(32..)?.to_vec());
    Some(ComingRoot { record, root, seal })
}
