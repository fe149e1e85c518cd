//! The messages between the server and the program that loads the library of the HSM: frames of JSON, each after its length
//! as 4 bytes, big endian. Both programs compile this file.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// The longest frame.
pub(crate) const MAX_FRAME: usize = 64 * 1024;
/// The longest input of an external key: its base64 fits into a frame beside the associated data.
pub(crate) const MAX_INPUT: usize = 16 * 1024;

/// A request; `T` is a borrowed text where it is written, and an owned one where it is read.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request<T> {
    /// The first request: loads the library and finds the token.
    Open(Open),
    /// The second request: logs in with this PIN.
    Login(T),
    /// Wraps a key, base64.
    Wrap(T),
    /// Unwraps a key.
    Unwrap(Stored),
    /// Finds the key that wraps.
    CurrentKey,
    /// Finds a key, and returns its type and its public key.
    Describe(KeyName),
    /// Signs.
    Sign(KeyName, SignWith, T),
    /// Encrypts.
    Encrypt(KeyName, EncryptWith, T),
    /// Decrypts.
    Decrypt(KeyName, EncryptWith, T),
}

/// The label and the id of a key, of which one is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyName {
    pub(crate) label: Option<String>,
    /// Hex.
    pub(crate) id: Option<String>,
}

/// The mechanism of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SignWith {
    /// PKCS#1 v1.5 of a DigestInfo.
    RsaPkcs1,
    /// PSS of a digest.
    RsaPss { hash: HsmHash, salt: u16 },
    /// ECDSA of a digest.
    Ecdsa,
    /// Ed25519 of a message.
    Eddsa,
}

/// The mechanism of an encryption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EncryptWith {
    /// AES-GCM; the ciphertext begins with the nonce. With associated data, base64.
    AesGcm(String),
    /// RSA-OAEP.
    Oaep(HsmHash),
}

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HsmHash {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// The type of a key, with its public key: base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Described {
    Aes,
    Rsa {
        modulus: String,
        exponent: String,
    },
    /// A key on a curve: CKA_EC_PARAMS and CKA_EC_POINT.
    Ec {
        parameters: String,
        point: String,
    },
    /// A key on an Edwards curve: CKA_EC_POINT.
    Edwards {
        point: String,
    },
    /// Another type.
    Other,
}

/// The settings of the HSM.
#[derive(Serialize, Deserialize)]
pub(crate) struct Open {
    pub(crate) lib: String,
    pub(crate) slot: Option<u64>,
    pub(crate) token_label: Option<String>,
    pub(crate) serial: Option<String>,
    pub(crate) key_label: Option<String>,
    /// Hex.
    pub(crate) key_id: Option<String>,
    pub(crate) mechanism: Mechanism,
}

/// A token, before the login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FoundToken {
    /// What it is known by: its manufacturer, its model and its serial number, or its label without one.
    pub(crate) id: String,
    /// Whether it reports a refused PIN since the last login (`CKF_USER_PIN_COUNT_LOW`).
    pub(crate) has_refused: bool,
    /// Whether the next refused PIN locks it (`CKF_USER_PIN_FINAL_TRY`).
    pub(crate) is_last_attempt: bool,
}

/// The mechanism of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mechanism {
    #[serde(rename = "CKM_AES_GCM")]
    AesGcm,
    #[serde(rename = "CKM_RSA_PKCS_OAEP/SHA1")]
    OaepSha1,
    #[serde(rename = "CKM_RSA_PKCS_OAEP/SHA224")]
    OaepSha224,
    #[serde(rename = "CKM_RSA_PKCS_OAEP/SHA256")]
    OaepSha256,
    #[serde(rename = "CKM_RSA_PKCS_OAEP/SHA384")]
    OaepSha384,
    #[serde(rename = "CKM_RSA_PKCS_OAEP/SHA512")]
    OaepSha512,
}

/// A wrapped key.
#[derive(Serialize, Deserialize)]
pub(crate) struct Stored {
    /// `id:HEX`, or `label:TEXT` for a key without an id.
    pub(crate) key_id: String,
    pub(crate) mechanism: Mechanism,
    /// Base64.
    pub(crate) blob: String,
    /// Base64.
    pub(crate) iv: Option<String>,
}

/// A response.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Response<T> {
    Found(FoundToken),
    LoggedIn,
    Wrapped(Stored),
    /// The key, base64.
    Unwrapped(T),
    CurrentKey(String),
    Described(Described),
    /// A signature or a ciphertext, base64.
    Bytes(String),
    /// The decrypted text, base64.
    Decrypted(T),
    Failed {
        class: Class,
        cause: String,
    },
}

/// The class of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Class {
    /// The HSM does not respond, or the session ended.
    Unreachable,
    /// The HSM refused the PIN: another attempt may lock the token.
    PinRefused,
    Denied,
    WrongKey,
    Misconfigured,
}

/// Reads a frame.
///
/// # Errors
/// At the end of the stream, and for a frame that is longer than [`MAX_FRAME`].
pub(crate) fn read_frame(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the frame is too long"));
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

/// Writes a frame.
///
/// # Errors
/// When the stream is closed, or the frame is longer than [`MAX_FRAME`].
pub(crate) fn write_frame(stream: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).ok().filter(|_| frame.len() <= MAX_FRAME);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the frame is too long"))?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(frame)?;
    stream.flush()
}
