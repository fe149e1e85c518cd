//! External keys of an HSM: any key by its label or id.
//!
//! Source: PKCS #11 Cryptographic Token Interface Current Mechanisms, version 3.0.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use zeroize::Zeroizing;

use crate::hsm::{Failure, Hsm, NONCE, TAG_BITS};
use crate::protocol::{Class, Described, EncryptWith, HsmHash, KeyName, MAX_INPUT, SignWith};

/// Bytes that a ciphertext has more than its plaintext.
const OVERHEAD: usize = 64;

/// Finds a key; returns its type and its public key.
pub(crate) fn describe(hsm: &Hsm, name: &KeyName) -> Result<Described, Failure> {
    if let Some(secret) = found(hsm, name, ObjectClass::SECRET_KEY)? {
        let is_aes = key_type(hsm, secret)? == Some(KeyType::AES);
        return Ok(if is_aes { Described::Aes } else { Described::Other });
    }
    let private = required(hsm, name, ObjectClass::PRIVATE_KEY)?;
    let kind = key_type(hsm, private)?;
    let public = found(hsm, name, ObjectClass::PUBLIC_KEY)?;
    let public =
        public.ok_or_else(|| Failure::new(Class::WrongKey, "the HSM has no public key with this label and id"))?;
    let bytes = |kinds: &[AttributeType]| -> Result<Vec<String>, Failure> {
        let mut out = Vec::new();
        for attribute in hsm.session.get_attributes(public, kinds)? {
            match attribute {
                Attribute::Modulus(bytes)
                | Attribute::PublicExponent(bytes)
                | Attribute::EcParams(bytes)
                | Attribute::EcPoint(bytes) => out.push(STANDARD.encode(bytes)),
                _ => {}
            }
        }
        Ok(out)
    };
    let unreadable = || Failure::new(Class::WrongKey, "the HSM does not return the public key");
    if kind == Some(KeyType::RSA) {
        let [modulus, exponent] =
            <[String; 2]>::try_from(bytes(&[AttributeType::Modulus, AttributeType::PublicExponent])?)
                .map_err(|_| unreadable())?;
        return Ok(Described::Rsa { modulus, exponent });
    }
    if kind == Some(KeyType::EC) {
        let [parameters, point] = <[String; 2]>::try_from(bytes(&[AttributeType::EcParams, AttributeType::EcPoint])?)
            .map_err(|_| unreadable())?;
        return Ok(Described::Ec { parameters, point });
    }
    if kind == Some(KeyType::EC_EDWARDS) {
        let [point] = <[String; 1]>::try_from(bytes(&[AttributeType::EcPoint])?).map_err(|_| unreadable())?;
        return Ok(Described::Edwards { point });
    }
    Ok(Described::Other)
}

/// Signs.
pub(crate) fn sign(hsm: &Hsm, name: &KeyName, with: SignWith, input: &[u8]) -> Result<Vec<u8>, Failure> {
    check_length(input)?;
    let key = required(hsm, name, ObjectClass::PRIVATE_KEY)?;
    let mechanism = match with {
        SignWith::RsaPkcs1 => Mechanism::RsaPkcs,
        SignWith::RsaPss { hash, salt } => {
            let (hash_alg, mgf) = hash_of(hash);
            Mechanism::RsaPkcsPss(PkcsPssParams { hash_alg, mgf, s_len: u64::from(salt).into() })
        }
        SignWith::Ecdsa => Mechanism::Ecdsa,
        SignWith::Eddsa => Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519)),
    };
    hsm.session.sign(&mechanism, key, input).map_err(|error| hsm.input_failure(error))
}

/// Encrypts; a ciphertext of AES-GCM begins with its nonce.
pub(crate) fn encrypt(hsm: &Hsm, name: &KeyName, with: &EncryptWith, input: &[u8]) -> Result<Vec<u8>, Failure> {
    check_length(input)?;
    match with {
        EncryptWith::AesGcm(associated_data) => {
            let key = required(hsm, name, ObjectClass::SECRET_KEY)?;
            let associated_data = associated_data_of(associated_data)?;
            let mut nonce = hsm.session.generate_random_vec(NONCE)?;
            let params = GcmParams::new(&mut nonce, &associated_data, TAG_BITS.into())?;
            let sealed = hsm.session.encrypt(&Mechanism::AesGcm(params), key, input);
            let sealed = sealed.map_err(|error| hsm.input_failure(error))?;
            // The HSM may have replaced the nonce.
            Ok([nonce, sealed].concat())
        }
        EncryptWith::Oaep(hash) => {
            let key = required(hsm, name, ObjectClass::PUBLIC_KEY)?;
            hsm.session.encrypt(&oaep(*hash), key, input).map_err(|error| hsm.input_failure(error))
        }
    }
}

/// Decrypts a ciphertext of [`encrypt`].
pub(crate) fn decrypt(
    hsm: &Hsm,
    name: &KeyName,
    with: &EncryptWith,
    input: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let wrong = || Failure::new(Class::WrongKey, "the ciphertext has a wrong length");
    if input.len() > MAX_INPUT + OVERHEAD {
        return Err(wrong());
    }
    let opened = match with {
        EncryptWith::AesGcm(associated_data) => {
            let key = required(hsm, name, ObjectClass::SECRET_KEY)?;
            let associated_data = associated_data_of(associated_data)?;
            let (nonce, sealed) = input.split_at_checked(NONCE as usize).ok_or_else(wrong)?;
            if sealed.len() < TAG_BITS as usize / 8 {
                return Err(wrong());
            }
            let mut nonce = nonce.to_vec();
            let params = GcmParams::new(&mut nonce, &associated_data, TAG_BITS.into())?;
            hsm.session.decrypt(&Mechanism::AesGcm(params), key, sealed)
        }
        EncryptWith::Oaep(hash) => {
            let key = required(hsm, name, ObjectClass::PRIVATE_KEY)?;
            hsm.session.decrypt(&oaep(*hash), key, input)
        }
    };
    opened.map(Zeroizing::new).map_err(|error| hsm.decryption_failure(error))
}

fn check_length(input: &[u8]) -> Result<(), Failure> {
    if input.len() <= MAX_INPUT { Ok(()) } else { Err(Failure::new(Class::Misconfigured, "the input is too long")) }
}

fn associated_data_of(text: &str) -> Result<Vec<u8>, Failure> {
    STANDARD.decode(text).map_err(|_| Failure::new(Class::Misconfigured, "the associated data is not base64"))
}

fn oaep(hash: HsmHash) -> Mechanism<'static> {
    let (hash, mgf) = hash_of(hash);
    Mechanism::RsaPkcsOaep(PkcsOaepParams::new(hash, mgf, PkcsOaepSource::empty()))
}

/// The mechanisms of a hash, and of MGF1 with it.
pub(crate) fn hash_of(hash: HsmHash) -> (MechanismType, PkcsMgfType) {
    match hash {
        HsmHash::Sha1 => (MechanismType::SHA1, PkcsMgfType::MGF1_SHA1),
        HsmHash::Sha224 => (MechanismType::SHA224, PkcsMgfType::MGF1_SHA224),
        HsmHash::Sha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256),
        HsmHash::Sha384 => (MechanismType::SHA384, PkcsMgfType::MGF1_SHA384),
        HsmHash::Sha512 => (MechanismType::SHA512, PkcsMgfType::MGF1_SHA512),
    }
}

fn key_type(hsm: &Hsm, key: ObjectHandle) -> Result<Option<KeyType>, Failure> {
    let attributes = hsm.session.get_attributes(key, &[AttributeType::KeyType])?;
    Ok(attributes.into_iter().find_map(|attribute| match attribute {
        Attribute::KeyType(kind) => Some(kind),
        _ => None,
    }))
}

/// The key of this name and class.
fn found(hsm: &Hsm, name: &KeyName, class: ObjectClass) -> Result<Option<ObjectHandle>, Failure> {
    if name.label.is_none() && name.id.is_none() {
        return Err(Failure::new(Class::Misconfigured, "the key has neither a label nor an id"));
    }
    hsm.find_named(class, name.label.as_deref(), name.id.as_deref(), "the id of the key is not hex")
}

/// As [`found`], for a key that must exist.
fn required(hsm: &Hsm, name: &KeyName, class: ObjectClass) -> Result<ObjectHandle, Failure> {
    found(hsm, name, class)?.ok_or_else(|| Failure::new(Class::WrongKey, "the HSM has no key with this label and id"))
}
