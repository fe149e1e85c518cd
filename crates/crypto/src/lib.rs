//! The wall around cryptography: no other crate of Keepfast names a cipher library.
//!
//! What is here has no I/O and is not async. Every key has a type that cannot be printed, compared
//! with `==` or serialised ([`secret`]), and long-lived keys lie in locked memory ([`locked`]).
//! There is one source of randomness ([`random`]) and one way to compare secrets ([`compare`]).
//!
//! | file | what it holds | source |
//! |---|---|---|
//! | [`aead`] | AES-256-GCM for the barrier and for sealed records | NIST SP 800-38D |
//! | [`hmac`] | HMAC-SHA-256 with its state computed once | RFC 2104, FIPS 198-1 |
//! | [`hash`] | SHA-256, SHA-512 | FIPS 180-4 |
//! | [`kdf`] | HKDF-SHA-256 | RFC 5869 |
//! | [`password`] | bcrypt for passwords of people | Provos and Mazières 1999 |
//! | [`keys`] | the keys that callers name, one algorithm family a file | see each |
//! | [`random`] | keys, tokens, UUIDs, request ids | NIST SP 800-90A, RFC 9562 |
//! | [`shamir`] | shares of the unseal key | Shamir 1979, over the field of FIPS 197 |
//! | [`x509`] | client certificates and the CA that issues them | RFC 5280 |
//! | [`secret`], [`locked`], [`compare`] | how secrets are held, wiped and compared | |

pub mod aead;
pub mod compare;
pub mod hash;
pub mod hmac;
pub mod kdf;
pub mod keys;
pub mod locked;
pub mod password;
pub mod random;
pub mod secret;
pub mod shamir;
pub mod x509;

pub use zeroize::{Zeroize, Zeroizing};
