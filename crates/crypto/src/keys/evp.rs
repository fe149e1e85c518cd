//! A safe interface to the parts of aws-lc that aws-lc-rs does not expose: RSA and ECDSA with any digest
//! (or none), OAEP with any digest, key formats, SHA-3 of every size, HMAC.
//!
//! The only file of Keepfast that calls C. Each block says why it is sound; the rest of the crate sees
//! only [`Pkey`], [`digest`] and [`hmac`].
#![allow(unsafe_code)]

use super::digest::Hash;
use super::{KeyError, SaltLength};
use crate::secret::SecretBytes;
use aws_lc_sys as c;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr::{NonNull, null, null_mut};

/// A key pair or a public key, RSA or elliptic curve. The library wipes it when it is dropped.
pub(super) struct Pkey(NonNull<c::EVP_PKEY>);

// SAFETY: an `EVP_PKEY` is not changed after its creation (aws-lc's `evp.h`: "EVP_PKEY functions that
// take a const pointer are thread-safe"); its reference count and caches are synchronised inside.
unsafe impl Send for Pkey {}
// SAFETY: as above.
unsafe impl Sync for Pkey {}

impl Drop for Pkey {
    fn drop(&mut self) {
        // SAFETY: this is the one owner of a key that the library created.
        unsafe { c::EVP_PKEY_free(self.0.as_ptr()) }
    }
}

/// The kind of a [`Pkey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// RSA with a modulus of this many bits.
    Rsa(u32),
    /// An elliptic curve, by the library's number.
    Curve(c_int),
}

/// The curves, by the library's numbers.
pub(super) const P224: c_int = c::NID_secp224r1;
pub(super) const P256: c_int = c::NID_X9_62_prime256v1;
pub(super) const P384: c_int = c::NID_secp384r1;
pub(super) const P521: c_int = c::NID_secp521r1;

/// The signature scheme.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scheme {
    /// ECDSA, ASN.1 encoded.
    Ecdsa,
    /// RSASSA-PKCS1-v1_5; without a hash the input is padded unchanged.
    Pkcs1(Option<Hash>),
    /// RSASSA-PSS, MGF1 with the same hash.
    Pss(Hash, SaltLength),
}

impl Pkey {
    /// Generates an RSA key. Takes 50 ms (2048 bits) to seconds (4096): not on a thread that serves requests.
    pub(super) fn generate_rsa(bits: u32) -> Result<Self, KeyError> {
        let bits = c_int::try_from(bits).map_err(|_| KeyError::Unsupported)?;
        // SAFETY: every pointer is checked before it is used and freed on every way out, except the RSA
        // key that `EVP_PKEY_assign_RSA` takes over when it succeeds.
        unsafe {
            let rsa = c::RSA_new();
            let exponent = c::BN_new();
            let made = !rsa.is_null()
                && !exponent.is_null()
                && c::BN_set_word(exponent, 65_537) == 1
                && c::RSA_generate_key_ex(rsa, bits, exponent, null_mut()) == 1;
            c::BN_free(exponent);
            let pkey = if made { c::EVP_PKEY_new() } else { null_mut() };
            if pkey.is_null() || c::EVP_PKEY_assign_RSA(pkey, rsa) != 1 {
                c::RSA_free(rsa);
                c::EVP_PKEY_free(pkey);
                return Err(failed());
            }
            own(pkey)
        }
    }

    /// Generates a key on a curve.
    pub(super) fn generate_on(curve: c_int) -> Result<Self, KeyError> {
        // SAFETY: as in `generate_rsa`.
        unsafe {
            let ec = c::EC_KEY_new_by_curve_name(curve);
            let made = !ec.is_null() && c::EC_KEY_generate_key(ec) == 1;
            let pkey = if made { c::EVP_PKEY_new() } else { null_mut() };
            if pkey.is_null() || c::EVP_PKEY_assign_EC_KEY(pkey, ec) != 1 {
                c::EC_KEY_free(ec);
                c::EVP_PKEY_free(pkey);
                return Err(failed());
            }
            own(pkey)
        }
    }

    /// Reads and checks a private key from DER of PKCS#8 (RFC 5208).
    pub(super) fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        // SAFETY: `parse` passes a valid reader of `der`.
        let key = parse(der, |reader| unsafe { c::EVP_parse_private_key(reader) })?;
        // A curve's key that came without its public half must be written with it.
        // SAFETY: nothing else refers to the key yet; the `get0` pointer is checked and lives as long as it.
        unsafe {
            let ec = c::EVP_PKEY_get0_EC_KEY(key.0.as_ptr());
            if !ec.is_null() {
                c::EC_KEY_set_enc_flags(ec, c::EC_KEY_get_enc_flags(ec) & !NO_PUBLIC_KEY);
            }
        }
        Ok(c_errors_cleared(key))
    }

    /// Reads a public key from DER of a SubjectPublicKeyInfo (RFC 5280).
    pub(super) fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        // SAFETY: `parse` passes a valid reader of `der`.
        parse(der, |reader| unsafe { c::EVP_parse_public_key(reader) })
    }

    /// The kind of the key, if it is RSA or on a curve.
    pub(super) fn kind(&self) -> Option<Kind> {
        // SAFETY: the key is valid; `get0` pointers live as long as it and are checked.
        unsafe {
            match c::EVP_PKEY_id(self.0.as_ptr()) {
                c::EVP_PKEY_RSA => u32::try_from(c::EVP_PKEY_bits(self.0.as_ptr())).ok().map(Kind::Rsa),
                c::EVP_PKEY_EC => {
                    let ec = c::EVP_PKEY_get0_EC_KEY(self.0.as_ptr());
                    let group = if ec.is_null() { null() } else { c::EC_KEY_get0_group(ec) };
                    (!group.is_null()).then(|| Kind::Curve(c::EC_GROUP_get_curve_name(group)))
                }
                _ => None,
            }
        }
    }

    /// The private key as DER of PKCS#8.
    pub(super) fn to_pkcs8(&self) -> Result<SecretBytes, KeyError> {
        // SAFETY: the key is valid, and so is the writer that `marshal` passes.
        marshal(|writer| unsafe { c::EVP_marshal_private_key(writer, self.0.as_ptr()) }).map(SecretBytes::new)
    }

    /// The public key as DER of a SubjectPublicKeyInfo.
    pub(super) fn to_spki(&self) -> Result<Vec<u8>, KeyError> {
        // SAFETY: as in `to_pkcs8`.
        marshal(|writer| unsafe { c::EVP_marshal_public_key(writer, self.0.as_ptr()) })
    }

    /// The private key in the format of its family: RSAPrivateKey (RFC 8017) or ECPrivateKey (RFC 5915).
    pub(super) fn to_traditional(&self) -> Result<SecretBytes, KeyError> {
        // SAFETY: as in `to_pkcs8`; the `get0` pointers are checked and live as long as the key.
        let written = marshal(|writer| unsafe {
            let rsa = c::EVP_PKEY_get0_RSA(self.0.as_ptr());
            let ec = c::EVP_PKEY_get0_EC_KEY(self.0.as_ptr());
            if !rsa.is_null() {
                c::RSA_marshal_private_key(writer, rsa)
            } else if !ec.is_null() {
                c::EC_KEY_marshal_private_key(writer, ec, c::EC_KEY_get_enc_flags(ec))
            } else {
                0
            }
        });
        c_errors_cleared(written.map(SecretBytes::new))
    }

    /// Signs a digest.
    pub(super) fn sign(&self, scheme: Scheme, digest: &[u8]) -> Result<Vec<u8>, KeyError> {
        let context = Context::new(self)?;
        // SAFETY: the context is valid; the library writes at most `length` bytes, the size of the buffer.
        unsafe {
            done(c::EVP_PKEY_sign_init(context.0.as_ptr()))?;
            context.set(scheme)?;
            let mut length = self.size();
            let mut signature = vec![0; length];
            let (from, to) = (digest.as_ptr(), signature.as_mut_ptr());
            done(c::EVP_PKEY_sign(context.0.as_ptr(), to, &raw mut length, from, digest.len()))?;
            signature.truncate(length);
            Ok(signature)
        }
    }

    /// Whether `signature` is a signature of `digest` by this key.
    pub(super) fn verify(&self, scheme: Scheme, digest: &[u8], signature: &[u8]) -> Result<bool, KeyError> {
        let context = Context::new(self)?;
        // SAFETY: the context is valid; pointers and lengths belong together.
        unsafe {
            done(c::EVP_PKEY_verify_init(context.0.as_ptr()))?;
            context.set(scheme)?;
            let (signature, length) = (signature.as_ptr(), signature.len());
            let answer = c::EVP_PKEY_verify(context.0.as_ptr(), signature, length, digest.as_ptr(), digest.len());
            c::ERR_clear_error();
            Ok(answer == 1)
        }
    }

    /// Encrypts with RSAES-OAEP (RFC 8017), MGF1 with the same hash, no label.
    pub(super) fn encrypt_oaep(&self, hash: Hash, plaintext: &[u8]) -> Result<Vec<u8>, KeyError> {
        let context = Context::new(self)?;
        // SAFETY: as in `sign`.
        unsafe {
            done(c::EVP_PKEY_encrypt_init(context.0.as_ptr()))?;
            context.set_oaep(hash)?;
            let mut length = self.size();
            let mut out = vec![0; length];
            let (from, to) = (plaintext.as_ptr(), out.as_mut_ptr());
            done(c::EVP_PKEY_encrypt(context.0.as_ptr(), to, &raw mut length, from, plaintext.len()))?;
            out.truncate(length);
            Ok(out)
        }
    }

    /// Decrypts RSAES-OAEP.
    pub(super) fn decrypt_oaep(&self, hash: Hash, ciphertext: &[u8]) -> Result<SecretBytes, KeyError> {
        let context = Context::new(self)?;
        // SAFETY: as in `sign`.
        unsafe {
            done(c::EVP_PKEY_decrypt_init(context.0.as_ptr()))?;
            context.set_oaep(hash)?;
            let mut length = self.size();
            let mut out = SecretBytes::new(vec![0; length]);
            let (from, to) = (ciphertext.as_ptr(), out.expose_mut().as_mut_ptr());
            done(c::EVP_PKEY_decrypt(context.0.as_ptr(), to, &raw mut length, from, ciphertext.len()))?;
            out.expose_mut().truncate(length);
            Ok(out)
        }
    }

    /// The shared secret of this key and the public key `peer`: the x coordinate (SP 800-56A, 5.7.1.2).
    pub(super) fn agree(&self, peer: &Self) -> Result<SecretBytes, KeyError> {
        let context = Context::new(self)?;
        // SAFETY: as in `sign`; the peer's key outlives the call.
        unsafe {
            done(c::EVP_PKEY_derive_init(context.0.as_ptr()))?;
            done(c::EVP_PKEY_derive_set_peer(context.0.as_ptr(), peer.0.as_ptr()))?;
            let mut length = 0;
            done(c::EVP_PKEY_derive(context.0.as_ptr(), null_mut(), &raw mut length))?;
            let mut out = SecretBytes::new(vec![0; length]);
            done(c::EVP_PKEY_derive(context.0.as_ptr(), out.expose_mut().as_mut_ptr(), &raw mut length))?;
            out.expose_mut().truncate(length);
            Ok(out)
        }
    }

    /// The longest signature or ciphertext of this key in bytes.
    pub(super) fn size(&self) -> usize {
        // SAFETY: the key is valid.
        usize::try_from(unsafe { c::EVP_PKEY_size(self.0.as_ptr()) }).unwrap_or_default()
    }
}

/// One operation with a key.
struct Context(NonNull<c::EVP_PKEY_CTX>);

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: this is the one owner.
        unsafe { c::EVP_PKEY_CTX_free(self.0.as_ptr()) }
    }
}

impl Context {
    fn new(key: &Pkey) -> Result<Self, KeyError> {
        // SAFETY: the key is valid; the context takes its own reference to it.
        let context = unsafe { c::EVP_PKEY_CTX_new(key.0.as_ptr(), null_mut()) };
        NonNull::new(context).map(Self).ok_or_else(failed)
    }

    /// SAFETY: after `sign_init` or `verify_init` on this context.
    unsafe fn set(&self, scheme: Scheme) -> Result<(), KeyError> {
        let context = self.0.as_ptr();
        // SAFETY: the context is valid, and the digests are static.
        unsafe {
            match scheme {
                Scheme::Ecdsa => Ok(()),
                Scheme::Pkcs1(hash) => {
                    done(c::EVP_PKEY_CTX_set_rsa_padding(context, c::RSA_PKCS1_PADDING))?;
                    hash.map_or(Ok(()), |hash| done(c::EVP_PKEY_CTX_set_signature_md(context, md(hash))))
                }
                Scheme::Pss(hash, salt) => {
                    let salt = match salt {
                        SaltLength::Auto => -2,
                        SaltLength::Hash => -1,
                        SaltLength::Bytes(n) => c_int::from(n),
                    };
                    done(c::EVP_PKEY_CTX_set_rsa_padding(context, c::RSA_PKCS1_PSS_PADDING))?;
                    done(c::EVP_PKEY_CTX_set_signature_md(context, md(hash)))?;
                    done(c::EVP_PKEY_CTX_set_rsa_mgf1_md(context, md(hash)))?;
                    done(c::EVP_PKEY_CTX_set_rsa_pss_saltlen(context, salt))
                }
            }
        }
    }

    /// SAFETY: after `encrypt_init` or `decrypt_init` on this context.
    unsafe fn set_oaep(&self, hash: Hash) -> Result<(), KeyError> {
        // SAFETY: as in `set`.
        unsafe {
            done(c::EVP_PKEY_CTX_set_rsa_padding(self.0.as_ptr(), c::RSA_PKCS1_OAEP_PADDING))?;
            done(c::EVP_PKEY_CTX_set_rsa_oaep_md(self.0.as_ptr(), md(hash)))?;
            done(c::EVP_PKEY_CTX_set_rsa_mgf1_md(self.0.as_ptr(), md(hash)))
        }
    }
}

/// The digest of `data`.
pub(super) fn digest(hash: Hash, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0; MAX_DIGEST];
    let mut length = 0;
    // SAFETY: `out` has room for the longest digest; pointer and length of `data` belong together.
    let answer = unsafe {
        c::EVP_Digest(data.as_ptr().cast(), data.len(), out.as_mut_ptr(), &raw mut length, md(hash), null_mut())
    };
    assert!(answer == 1, "a digest of bytes in memory cannot fail");
    out.truncate(length as usize);
    out
}

/// HMAC of `data`.
pub(super) fn hmac(hash: Hash, key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = vec![0; MAX_DIGEST];
    let mut length = 0;
    let (key, key_length) = (key.as_ptr().cast(), key.len());
    // SAFETY: as in `digest`. An empty slice has a dangling and not a null pointer; HMAC would take a null
    // pointer for "the previous key".
    let answer =
        unsafe { c::HMAC(md(hash), key, key_length, data.as_ptr(), data.len(), out.as_mut_ptr(), &raw mut length) };
    assert!(!answer.is_null(), "an HMAC of bytes in memory cannot fail");
    out.truncate(length as usize);
    out
}

/// The flag of a key on a curve that was read without its public half.
const NO_PUBLIC_KEY: std::ffi::c_uint = c::EC_PKEY_NO_PUBKEY as std::ffi::c_uint;

/// Bytes of the longest digest (SHA-512).
const MAX_DIGEST: usize = 64;

fn md(hash: Hash) -> *const c::EVP_MD {
    // SAFETY: these return pointers to constants.
    unsafe {
        match hash {
            Hash::Sha1 => c::EVP_sha1(),
            Hash::Sha224 => c::EVP_sha224(),
            Hash::Sha256 => c::EVP_sha256(),
            Hash::Sha384 => c::EVP_sha384(),
            Hash::Sha512 => c::EVP_sha512(),
            Hash::Sha3_224 => c::EVP_sha3_224(),
            Hash::Sha3_256 => c::EVP_sha3_256(),
            Hash::Sha3_384 => c::EVP_sha3_384(),
            Hash::Sha3_512 => c::EVP_sha3_512(),
        }
    }
}

/// Reads one key from all of `der`.
fn parse(der: &[u8], read: impl FnOnce(*mut c::CBS) -> *mut c::EVP_PKEY) -> Result<Pkey, KeyError> {
    let mut reader = c::CBS { data: der.as_ptr(), len: der.len() };
    let key = NonNull::new(read(&raw mut reader)).map(Pkey);
    let key = key.filter(|_| reader.len == 0).ok_or(KeyError::Malformed);
    c_errors_cleared(key)
}

/// Collects the output of `write`, which returns 1 for success.
fn marshal(write: impl FnOnce(*mut c::CBB) -> c_int) -> Result<Vec<u8>, KeyError> {
    let mut writer = MaybeUninit::<c::CBB>::zeroed();
    let mut out = null_mut();
    let mut length = 0;
    // SAFETY: `CBB_init` makes the writer valid, `CBB_finish` or `CBB_cleanup` frees it. `CBB_finish`
    // returns `length` bytes of the library's, which are copied and then freed, which also wipes them.
    unsafe {
        done(c::CBB_init(writer.as_mut_ptr(), 2048))?;
        if write(writer.as_mut_ptr()) != 1 || c::CBB_finish(writer.as_mut_ptr(), &raw mut out, &raw mut length) != 1 {
            c::CBB_cleanup(writer.as_mut_ptr());
            return Err(failed());
        }
        let bytes = std::slice::from_raw_parts(out, length).to_vec();
        c::OPENSSL_free(out.cast());
        Ok(bytes)
    }
}

fn own(pkey: *mut c::EVP_PKEY) -> Result<Pkey, KeyError> {
    NonNull::new(pkey).map(Pkey).ok_or_else(failed)
}

fn done(answer: c_int) -> Result<(), KeyError> {
    if answer == 1 { Ok(()) } else { Err(failed()) }
}

/// The one error of a failed operation; clears the library's error queue of the thread.
fn failed() -> KeyError {
    c_errors_cleared(KeyError::Failed)
}

fn c_errors_cleared<T>(value: T) -> T {
    // SAFETY: the queue belongs to this thread.
    unsafe { c::ERR_clear_error() };
    value
}
