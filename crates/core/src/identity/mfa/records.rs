//! The stored records of login MFA.

use keepfast_crypto::locked::LockedBytes;
use keepfast_framework::Records;
use serde::{Deserialize, Serialize};

use super::totp::{Algorithm, CodeForm};
use crate::identity::key_material;
use crate::identity::record::{Mark, Reference, namespaced};
use crate::layout;
use crate::namespace::NamespaceId;

/// An MFA method.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Method {
    /// The namespace of the method.
    #[serde(default, skip_serializing_if = "NamespaceId::is_root")]
    pub(super) namespace: NamespaceId,
    /// The random unique id.
    pub(super) id: String,
    /// The unique name; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    /// The settings of its type.
    #[serde(flatten)]
    pub(super) settings: MethodSettings,
}

/// The settings of a method, by its type.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum MethodSettings {
    /// Codes of an authenticator.
    Totp(TotpSettings),
}

impl MethodSettings {
    /// The type in the API.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            MethodSettings::Totp(_) => "totp",
        }
    }
}

/// The settings of a TOTP method. A secret keeps those of its creation, except `max_validation_attempts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TotpSettings {
    /// The issuer that authenticators show.
    pub(super) issuer: String,
    /// The seconds of a time step.
    pub(super) period: u64,
    /// The bytes of a secret.
    pub(super) key_size: usize,
    /// The width and the height of the QR code in pixels; zero for none.
    pub(super) qr_size: usize,
    /// The hash function of the HMAC.
    pub(super) algorithm: Algorithm,
    /// The digits of a code.
    pub(super) digits: u32,
    /// The time steps before and after the current one whose codes are accepted.
    pub(super) skew: u64,
    /// The wrong codes after which codes are refused until a later time step.
    pub(super) max_validation_attempts: u32,
}

/// A login enforcement: logins that need one of several methods.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Enforcement {
    /// The namespace of the enforcement.
    #[serde(default, skip_serializing_if = "NamespaceId::is_root")]
    pub(super) namespace: NamespaceId,
    /// The random unique id.
    pub(super) id: String,
    /// The unique name.
    pub(super) name: String,
    /// The ids of the methods, one of which a login needs.
    pub(super) methods: Vec<String>,
    /// The accessors of auth methods whose logins are bound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) accessors: Vec<String>,
    /// The types of auth methods whose logins are bound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) types: Vec<String>,
    /// The groups whose members are bound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) groups: Vec<String>,
    /// The entities that are bound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) entities: Vec<String>,
}

/// The secret of an entity for a method.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct EnrolledSecret {
    /// The namespace of the entity.
    #[serde(default, skip_serializing_if = "NamespaceId::is_root")]
    pub(super) namespace: NamespaceId,
    /// The key that it shares with the authenticator of the user.
    #[serde(with = "key_material")]
    pub(super) key: LockedBytes,
    /// The form of its codes.
    pub(super) form: CodeForm,
}

/// The accepted code and the wrong codes of an entity for a method: a code is accepted once, and wrong codes are limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attempts {
    /// The namespace of the entity.
    #[serde(default, skip_serializing_if = "NamespaceId::is_root")]
    pub(super) namespace: NamespaceId,
    /// The time step of the last accepted code.
    #[serde(default)]
    pub(super) last_step: u64,
    /// The time step of the wrong codes.
    #[serde(default)]
    pub(super) failed_in: u64,
    /// The number of wrong codes in that step.
    #[serde(default)]
    pub(super) failed: u32,
}

namespaced!(Method, Enforcement, EnrolledSecret, Attempts);

/// Methods by id.
pub(super) const METHODS: Records<Method> = Records::at("mfa/method/");
/// Methods by the hash of their name.
pub(super) const METHOD_NAMES: Records<Reference> = Records::at("mfa/method-name/");
/// Enforcements by name.
pub(super) const ENFORCEMENTS: Records<Enforcement> = Records::at(layout::MFA_ENFORCEMENTS);
/// The enforcements of a method: `<method>/<name of the enforcement>`.
pub(super) const ENFORCEMENTS_OF_METHOD: Records<Mark> = Records::at("mfa/method-enforcement/");
/// Secrets by `<entity>/<method>`.
pub(super) const SECRETS: Records<EnrolledSecret> = Records::at(SECRET_FOLDER);
/// The folder of [`SECRETS`].
pub(super) const SECRET_FOLDER: &str = "mfa/secret/";
/// The entities with a secret for a method: `<method>/<entity>`.
pub(super) const ENROLLED: Records<Mark> = Records::at("mfa/enrolled/");
/// Attempts by `<entity>/<method>`.
pub(super) const ATTEMPTS: Records<Attempts> = Records::at("mfa/attempts/");
/// The key of what an entity has for a method.
pub(super) fn of_entity(entity: &str, method: &str) -> String {
    format!("{entity}/{method}")
}
