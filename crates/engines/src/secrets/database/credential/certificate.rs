//! Client certificates: validation of a role's settings, the CA and the keys.

use keepfast_crypto::keys::KeyKind;
use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::keys::ecdsa::Curve;
use keepfast_crypto::x509::{Authority, ClientKey};
use keepfast_framework::{Error, Result, Timestamp};

use super::super::username::{self, TemplateData};
use super::CredentialConfig;

/// Checks that certificates can be issued with the settings of a role.
///
/// # Errors
/// The invalid setting, in OpenBao's words.
pub(super) fn check(config: &CredentialConfig) -> Result<(), String> {
    let required = |value: &str, name: &str| {
        if value.is_empty() { Err(format!("missing required {name}")) } else { Ok(()) }
    };
    let template = &config.common_name_template;
    required(template, "common_name_template")?;
    let of = TemplateData::new("token", "role", Timestamp::EPOCH);
    // The result of a template is checked at use, as OpenBao accepts a template with an empty result.
    username::fill(template, &of).map_err(|why| {
        let which = if why.starts_with("unable to parse") {
            "failed to create template"
        } else {
            "invalid common_name_template"
        };
        format!("{which}: {why}")
    })?;
    required(&config.ca_cert, "ca_cert")?;
    required(&config.ca_private_key.0, "ca_private_key")?;
    authority(config).map(drop).map_err(|why| why.to_string())
}

/// The CA of a role.
pub(super) fn authority(config: &CredentialConfig) -> Result<Authority, keepfast_crypto::x509::X509Error> {
    Authority::read(&config.ca_cert, &config.ca_private_key.0)
}

/// A new key of a role's type, generated on another thread if that is slow.
pub(super) async fn key(config: &CredentialConfig) -> Result<ClientKey> {
    let kind = match (config.key_type.as_str(), config.key_bits) {
        ("rsa", bits) => KeyKind::Rsa(u16::try_from(bits).map_err(Error::internal)?),
        ("ec", 224) => KeyKind::Ecdsa(Curve::P224),
        ("ec", 384) => KeyKind::Ecdsa(Curve::P384),
        ("ec", 521) => KeyKind::Ecdsa(Curve::P521),
        ("ec", _) => KeyKind::Ecdsa(Curve::P256),
        _ => KeyKind::Ed25519,
    };
    if kind.is_slow_to_generate() {
        let making = tokio::task::spawn_blocking(move || ClientKey::generate(kind));
        return making.await.map_err(Error::internal)?.map_err(Error::internal);
    }
    ClientKey::generate(kind).map_err(Error::internal)
}

/// The hash function of a role's signatures.
pub(super) fn hash(config: &CredentialConfig) -> Hash {
    match config.signature_bits {
        384 => Hash::Sha384,
        512 => Hash::Sha512,
        _ => Hash::Sha256,
    }
}
