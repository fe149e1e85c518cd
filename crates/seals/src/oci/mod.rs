//! Oracle Cloud Infrastructure: credentials, signatures, and the seal of its key management service.

pub(crate) mod kms;
#[cfg(test)]
mod kms_tests;
mod sign;
mod sources;

use keepfast_crypto::keys::rsa::RsaKey;

/// A key that signs requests.
pub(crate) struct OciSigner {
    /// The id of the key: `TENANCY/USER/FINGERPRINT`, or `ST$TOKEN`.
    pub(crate) key_id: String,
    /// The private key.
    pub(crate) key: RsaKey,
}
