//! External keys: keys that never leave another system, used through `sys/external-keys`. The crate
//! `keepfast-seals` implements the plugins, core stores their configs, and engines use the keys.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use keepfast_crypto::keys::SaltLength;
use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::keys::ecdsa::Marshaling;
use keepfast_crypto::secret::{SecretBytes, SecretString};

use crate::seal::SealError;

/// The header of a call to another server, with the number of external keys above it.
pub const DEPTH_HEADER: &str = "x-keepfast-external-key-depth";

/// A key of another system. Every call has a deadline of its own.
#[async_trait]
pub trait ExternalKey: Send + Sync {
    /// The public key as DER of a SubjectPublicKeyInfo.
    async fn public_key(&self) -> Result<Vec<u8>, ExternalKeyError>;

    /// Signs an input.
    async fn sign(&self, signing: &Signing<'_>) -> Result<Vec<u8>, ExternalKeyError>;

    /// Whether `signature` is a signature of the input by this key.
    async fn verify(&self, signing: &Signing<'_>, signature: &[u8]) -> Result<bool, ExternalKeyError>;

    /// Encrypts; the ciphertext authenticates `associated_data`, which is empty where there is none.
    async fn encrypt(&self, plaintext: &[u8], associated_data: &[u8]) -> Result<Vec<u8>, ExternalKeyError>;

    /// Decrypts a ciphertext of [`encrypt`](Self::encrypt).
    async fn decrypt(&self, ciphertext: &[u8], associated_data: &[u8]) -> Result<SecretBytes, ExternalKeyError>;
}

/// The input of a signature, with the parameters of transit's `sign`.
#[derive(Clone, Copy)]
pub struct Signing<'a> {
    /// The input, or its digest.
    pub input: &'a [u8],
    /// Whether the input is a digest.
    pub prehashed: bool,
    /// The hash function.
    pub hash: SigningHash,
    /// Whether an RSA key signs with PKCS#1 v1.5 instead of PSS.
    pub pkcs1: bool,
    /// The salt of PSS.
    pub salt: SaltLength,
    /// The encoding of an ECDSA signature.
    pub marshaling: Marshaling,
}

/// The hash function of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningHash {
    /// That of the key: SHA-256, and none for Ed25519.
    OfKey,
    /// No hash function: with `prehashed` and PKCS#1 v1.5 only.
    None,
    /// This one.
    Of(Hash),
}

/// Why an external key did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ExternalKeyError {
    /// The key cannot do this, or refuses the input. The text is for the caller.
    #[error("{0}")]
    Refused(Cow<'static, str>),
    /// The other system is not available, or its configuration cannot work.
    #[error(transparent)]
    Unavailable(#[from] SealError),
}

impl ExternalKeyError {
    /// A refusal with this text.
    pub fn refused(text: impl Into<Cow<'static, str>>) -> Self {
        ExternalKeyError::Refused(text.into())
    }
}

/// The plugins of external keys.
pub trait ExternalKeyPlugins: std::fmt::Debug + Send + Sync {
    /// The plugin of this name.
    fn find(&self, name: &str) -> FoundPlugin;
}

/// The result of the search for a plugin.
pub enum FoundPlugin {
    /// There is none of this name.
    Unknown,
    /// A type of seal that has no external keys.
    Unsupported,
    /// The plugin.
    Plugin(Arc<dyn ExternalKeyPlugin>),
}

/// A kind of systems that have external keys.
pub trait ExternalKeyPlugin: Send + Sync {
    /// The parameters of a config.
    fn config_parameters(&self) -> &'static [Parameter];

    /// The parameters of a key.
    fn key_parameters(&self) -> &'static [Parameter];

    /// Checks the parameters of a config and prepares the connection. Sends nothing.
    ///
    /// # Errors
    /// What is invalid, without a value.
    fn connect(&self, config: &Parameters) -> Result<Arc<dyn ExternalKeyConnection>, String>;
}

/// The connection of one config.
pub trait ExternalKeyConnection: Send + Sync {
    /// Checks the parameters of a key and prepares it. Sends nothing.
    ///
    /// # Errors
    /// What is invalid, without a value.
    fn key(&self, key: &Parameters) -> Result<Arc<dyn ExternalKey>, String>;
}

/// A parameter of a plugin.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// The type of its value.
    pub kind: ParameterKind,
    /// Whether it must be set.
    pub required: bool,
    /// Whether its value is never returned.
    pub secret: bool,
}

/// The type of the value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// A text.
    Text,
    /// A boolean.
    Flag,
    /// A number that is not negative.
    Number,
}

impl Parameter {
    /// An optional text.
    pub const fn text(name: &'static str) -> Self {
        Parameter { name, kind: ParameterKind::Text, required: false, secret: false }
    }

    /// A boolean.
    pub const fn flag(name: &'static str) -> Self {
        Parameter { kind: ParameterKind::Flag, ..Self::text(name) }
    }

    /// A number.
    pub const fn number(name: &'static str) -> Self {
        Parameter { kind: ParameterKind::Number, ..Self::text(name) }
    }

    /// A text that is never returned.
    pub const fn secret(name: &'static str) -> Self {
        Parameter { secret: true, ..Self::text(name) }
    }

    /// The parameter, which must be set.
    #[must_use]
    pub const fn required(self) -> Self {
        Parameter { required: true, ..self }
    }
}

/// The values of parameters, checked against their [`Parameter`]s. All are texts that are wiped.
#[derive(Default)]
pub struct Parameters(Vec<(&'static str, SecretString)>);

impl Parameters {
    /// Adds a value.
    pub fn insert(&mut self, name: &'static str, value: SecretString) {
        self.0.push((name, value));
    }

    /// The value of a secret; `None` if it is not set or empty.
    pub fn secret(&self, name: &str) -> Option<SecretString> {
        let found = self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
        found.filter(|value| !value.expose().is_empty()).cloned()
    }

    /// The value of a text that is not secret; `None` if it is not set or empty.
    pub fn text(&self, name: &str) -> Option<String> {
        self.secret(name).map(|value| value.expose().clone())
    }

    /// The value of a boolean; false if it is not set.
    pub fn flag(&self, name: &str) -> bool {
        self.secret(name).is_some_and(|value| value.expose() == "true")
    }

    /// The value of a number; 0 if it is not set.
    pub fn number(&self, name: &str) -> u64 {
        self.secret(name).and_then(|value| value.expose().parse().ok()).unwrap_or_default()
    }
}
