//! Encrypts shares and tokens to OpenPGP certificates (RFC 4880, RFC 6637), and nothing else: there is no code for private
//! keys.
//!
//! A [`Certificate`] exists only after its checks: self-signatures that bind user id and subkeys, expiry, revocation, key
//! flags. RSA of 2048 to 8192 bits and Curve25519 keys are supported, as GnuPG creates them.
//!
//! ```no_run
//! # fn example(text: &str, now: u64) -> Result<(), keepfast_pgp::CertificateError> {
//! use keepfast_pgp::Certificate;
//! use keepfast_crypto::secret::SecretString;
//!
//! let certificate = Certificate::from_base64(text, now)?;
//! let message = certificate.encrypt(&SecretString::new("share".to_owned()))?;
//! # Ok(())
//! # }
//! ```

mod certificate;
#[cfg(test)]
mod gnupg;
mod key;
mod message;
mod packet;
mod signature;

pub use certificate::Certificate;

/// Why nothing can be encrypted to a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The name of an account of Keybase: keys are not looked up.
    #[error(
        "keybase: names are not supported; pass the public key in base64, as `gpg --export KEY | base64` prints it"
    )]
    Keybase,
    /// ASCII armor.
    #[error("the public key is ASCII-armored; pass it in base64, as `gpg --export KEY | base64` prints it")]
    Armored,
    /// Not base64.
    #[error("the public key is not base64")]
    NotBase64,
    /// Not the packets of one certificate.
    #[error("the public key is not an OpenPGP certificate of version 4")]
    Malformed,
    /// More than the bound on packets or bytes.
    #[error("the public key is too long: export it with `--export-options export-minimal`")]
    TooLong,
    /// A private key.
    #[error("the key is a private key; pass the public key")]
    Private,
    /// No self-signature with a supported hash binds a user id.
    #[error("no valid self-signature binds a user id to the public key; SHA-1 and MD5 are not accepted")]
    Unbound,
    /// The certificate is revoked.
    #[error("the public key is revoked")]
    Revoked,
    /// The certificate has expired, or is of the future.
    #[error("the public key has expired, or its creation time is in the future")]
    Expired,
    /// No key of the certificate may encrypt and is of a supported algorithm.
    #[error("the public key has no valid key for encryption with RSA or Curve25519")]
    CannotEncrypt,
    /// The library failed.
    #[error("the encryption failed")]
    Failed,
}
