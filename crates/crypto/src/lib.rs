//! All cryptography of Keepfast: no other crate names a cipher library.
//!
//! The crate has no I/O and no async code. A key has a type that cannot be printed, compared with `==`
//! or serialised ([`secret`]); long-lived keys are in locked memory ([`locked`]). There is one source
//! of randomness ([`random`]) and one comparison of secrets ([`compare`]).
//!
//! | file | contents | source |
//! |---|---|---|
//! | [`aead`] | AES-256-GCM for the barrier and for sealed records | NIST SP 800-38D |
//! | [`hmac`] | HMAC-SHA-256 with its state computed once | RFC 2104, FIPS 198-1 |
//! | [`hash`] | SHA-256, SHA-512 | FIPS 180-4 |
//! | [`kdf`] | HKDF-SHA-256 | RFC 5869 |
//! | [`openpgp`] | what encryption to OpenPGP certificates needs | RFC 4880, RFC 6637 |
//! | [`password`] | bcrypt for user passwords | Provos and Mazières 1999 |
//! | [`keys`] | the keys that callers name, one file per algorithm family | see each |
//! | [`random`] | keys, tokens, UUIDs, request ids | NIST SP 800-90A, RFC 9562 |
//! | [`shamir`] | shares of the unseal key | Shamir 1979, over the field of FIPS 197 |
//! | [`tpm`] | what sessions with a TPM 2.0 need | TPM 2.0 library specification, part 1 |
//! | [`x509`] | client certificates and the CA that issues them; certificates of nodes | RFC 5280 |
//! | [`secret`], [`locked`], [`compare`] | types that hold, wipe and compare secrets | |

pub mod aead;
pub mod compare;
pub mod hash;
pub mod hmac;
pub mod kdf;
pub mod keys;
pub mod locked;
pub mod openpgp;
pub mod password;
pub mod random;
pub mod secret;
pub mod shamir;
pub mod tpm;
pub mod x509;

pub use zeroize::{Zeroize, Zeroizing};
