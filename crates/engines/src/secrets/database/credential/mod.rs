//! The credentials of users: `credential_type` and `credential_config` of a role.

mod certificate;
mod generated;

use keepfast_crypto::Zeroize;
use keepfast_framework::duration::parse_int;
use keepfast_framework::fields::{Pairs, Quoted, Text};
use keepfast_framework::{Error, Result};
use serde::{Deserialize, Serialize};

use super::config::Config;
use super::details::has_secret_pem;

pub(super) use self::generated::{Certificates, Login, PendingCredentials, User, name_template};

/// The type of a user's credentials.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CredentialType {
    #[default]
    Password,
    /// Supported by no kind of database here; roles may contain it.
    RsaPrivateKey,
    ClientCertificate,
}

impl CredentialType {
    fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::RsaPrivateKey => "rsa_private_key",
            Self::ClientCertificate => "client_certificate",
        }
    }

    fn parse(name: &str) -> Result<Self> {
        let all = [Self::Password, Self::RsaPrivateKey, Self::ClientCertificate];
        let unknown = || Error::invalid(format!("invalid credential_type {}", Quoted(name)));
        all.into_iter().find(|kind| kind.name() == name).ok_or_else(unknown)
    }

    /// The error for a type that the database does not support.
    pub(super) fn unsupported(self) -> Error {
        Error::invalid(format!("unsupported credential_type: {:?}", self.name()))
    }
}

/// Settings of a credential type, stored and, except the private key, returned. Those of other types are empty.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CredentialConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    ca_cert: String,
    /// The CA's private key; never returned.
    #[serde(skip_serializing_if = "PrivateKey::is_empty")]
    ca_private_key: PrivateKey,
    #[serde(skip_serializing_if = "String::is_empty")]
    common_name_template: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    format: String,
    #[serde(skip_serializing_if = "is_zero")]
    key_bits: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    key_type: String,
    /// The password policy; empty for that of the connection.
    #[serde(skip_serializing_if = "String::is_empty")]
    password_policy: String,
    #[serde(skip_serializing_if = "is_zero")]
    signature_bits: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// PEM of a private key in a record. Wiped when dropped.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct PrivateKey(String);

impl PrivateKey {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl CredentialConfig {
    /// Whether there is nothing to return.
    pub(super) fn is_empty(&self) -> bool {
        // All other types have a setting that is never empty.
        self.password_policy.is_empty() && self.format.is_empty() && self.key_type.is_empty()
    }

    /// Removes the secrets, for responses.
    pub(super) fn hide(&mut self) {
        self.ca_private_key = PrivateKey::default();
        // A key may follow the certificate.
        if has_secret_pem(&self.ca_cert) {
            self.ca_cert.zeroize();
        }
    }

    /// The policy of generated passwords: that of the role, or that of the connection.
    pub(super) fn password_policy<'a>(&'a self, config: &'a Config) -> &'a str {
        if self.password_policy.is_empty() { config.password_policy() } else { &self.password_policy }
    }

    /// Parses the settings of a type; unknown settings are ignored, as in OpenBao.
    fn read(kind: CredentialType, given: &Pairs) -> Result<Self> {
        let read = match kind {
            CredentialType::Password => Ok(Self { password_policy: text(given, "password_policy"), ..Self::default() }),
            CredentialType::RsaPrivateKey => Self::read_rsa(given),
            CredentialType::ClientCertificate => Self::read_certificate(given),
        };
        read.map_err(|why| Error::invalid(format!("credential_config validation failed: {why}")))
    }

    fn read_rsa(given: &Pairs) -> Result<Self, String> {
        let [bits] = numbers(given, ["key_bits"])?;
        let format = Some(text(given, "format")).filter(|f| !f.is_empty()).unwrap_or_else(|| "pkcs8".to_owned());
        if !format.eq_ignore_ascii_case("pkcs8") {
            return Err(format!("invalid format: {format}"));
        }
        match bits {
            0 => Ok(Self { format, key_bits: 2048, ..Self::default() }),
            2048 | 3072 | 4096 => Ok(Self { format, key_bits: bits, ..Self::default() }),
            _ => Err(format!("invalid key_bits: {bits}")),
        }
    }

    fn read_certificate(given: &Pairs) -> Result<Self, String> {
        let [bits, signature_bits] = numbers(given, ["key_bits", "signature_bits"])?;
        let mut read = Self {
            ca_cert: text(given, "ca_cert"),
            ca_private_key: PrivateKey(text(given, "ca_private_key")),
            common_name_template: text(given, "common_name_template"),
            key_type: text(given, "key_type"),
            ..Self::default()
        };
        read.key_bits = match (read.key_type.as_str(), bits) {
            ("rsa", 0) => 2048,
            ("ec", 0) => 256,
            ("rsa", 2048 | 3072 | 4096) | ("ec", 224 | 256 | 384 | 521) | ("ed25519", _) => bits,
            ("rsa" | "ec", _) => return Err("invalid key_bits".to_owned()),
            _ => return Err("invalid key_type".to_owned()),
        };
        read.signature_bits = match signature_bits {
            0 => 256,
            256 | 384 | 512 => signature_bits,
            _ => return Err("invalid signature_bits".to_owned()),
        };
        certificate::check(&read)?;
        Ok(read)
    }
}

/// Sets the credential type and its settings. A change of the type removes the previous settings; otherwise absent
/// settings keep their values.
///
/// # Errors
/// 400 with OpenBao's text.
pub(super) fn change(
    kind: &mut CredentialType,
    config: &mut CredentialConfig,
    given: (Option<Option<Text>>, Option<Pairs>),
) -> Result<()> {
    let (name, settings) = given;
    let wanted = match name {
        None => *kind,
        Some(name) => CredentialType::parse(name.as_deref().unwrap_or_default())?,
    };
    let changes = wanted != *kind;
    if settings.is_none() && !changes {
        return Ok(());
    }
    let read = CredentialConfig::read(wanted, &settings.unwrap_or_default())?;
    *kind = wanted;
    if changes || !read.is_empty() {
        *config = read;
    }
    Ok(())
}

/// The setting of this name, case-insensitive, as in OpenBao.
fn setting<'a>(given: &'a Pairs, name: &str) -> Option<&'a String> {
    given.0.get(name).or_else(|| given.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, v)| v))
}

fn text(given: &Pairs, name: &str) -> String {
    setting(given, name).cloned().unwrap_or_default()
}

/// Whole numbers, 0 for absent ones; returns all errors at once.
fn numbers<const N: usize>(given: &Pairs, names: [&str; N]) -> Result<[i64; N], String> {
    let mut errors = Vec::new();
    let numbers = names.map(|name| {
        let Some(text) = setting(given, name).filter(|text| !text.is_empty()) else { return 0 };
        parse_int(text, 0).unwrap_or_else(|why| {
            errors.push(format!("'{name}' cannot parse value as 'int': strconv.ParseInt: {why}"));
            0
        })
    });
    if errors.is_empty() {
        return Ok(numbers);
    }
    Err(format!("decoding failed due to the following error(s):\n\n{}", errors.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(given: &[(&str, &str)]) -> Pairs {
        Pairs(given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    /// The settings of a role after one more write, or the error.
    fn written(role: &mut (CredentialType, CredentialConfig), kind: Option<&str>, config: &[(&str, &str)]) -> String {
        let name = kind.map(|name| serde_json::from_value(name.into()).unwrap());
        let settings = (!config.is_empty()).then(|| pairs(config));
        match change(&mut role.0, &mut role.1, (name, settings)) {
            Ok(()) => format!("{} {}", role.0.name(), serde_json::to_string(&role.1).unwrap()),
            Err(error) => error.public().to_owned(),
        }
    }

    #[test]
    fn settings_are_parsed_as_in_openbao() {
        let mut role = Default::default();
        for (kind, config, expected) in [
            (None, &[][..], "password {}"),
            (Some("password"), &[("Password_Policy", "p"), ("key_bits", "x")], "password {\"password_policy\":\"p\"}"),
            (None, &[("password_policy", "")], "password {\"password_policy\":\"p\"}"),
            (Some(""), &[], "invalid credential_type \"\""),
            (Some("PASSWORD"), &[], "invalid credential_type \"PASSWORD\""),
            (Some("rsa_private_key"), &[], "rsa_private_key {\"format\":\"pkcs8\",\"key_bits\":2048}"),
            (
                None,
                &[("key_bits", "0xc00"), ("format", "PKCS8")],
                "rsa_private_key {\"format\":\"PKCS8\",\"key_bits\":3072}",
            ),
            (Some("rsa_private_key"), &[], "rsa_private_key {\"format\":\"PKCS8\",\"key_bits\":3072}"),
            (None, &[("key_bits", "1024")], "credential_config validation failed: invalid key_bits: 1024"),
            (None, &[("key_bits", "1"), ("format", "x")], "credential_config validation failed: invalid format: x"),
            (Some("password"), &[], "password {}"),
        ] {
            assert_eq!(written(&mut role, kind, config), expected, "{kind:?} {config:?}");
        }
    }

    #[test]
    fn certificate_errors_have_the_order_of_openbao() {
        let mut role = Default::default();
        let (rsa, template) = (("key_type", "rsa"), ("common_name_template", "{{.RoleName}}"));
        for (config, expected) in [
            (
                &[("key_bits", "x"), ("signature_bits", "y")][..],
                "decoding failed due to the following error(s):\n\n'key_bits' cannot parse value as 'int': strconv.ParseInt: invalid syntax\n'signature_bits' cannot parse value as 'int': strconv.ParseInt: invalid syntax",
            ),
            (&[], "invalid key_type"),
            (&[("key_type", "RSA")], "invalid key_type"),
            (&[rsa, ("key_bits", "2049"), ("signature_bits", "1")], "invalid key_bits"),
            (&[("key_type", "ec"), ("key_bits", "2048")], "invalid key_bits"),
            (&[("key_type", "ed25519"), ("key_bits", "7"), ("signature_bits", "1")], "invalid signature_bits"),
            (&[rsa], "missing required common_name_template"),
            (
                &[rsa, ("common_name_template", "{{")],
                "failed to create template: unable to parse template: template: template:1: unclosed action",
            ),
            (
                &[rsa, ("common_name_template", "{{.Foo}}")],
                "invalid common_name_template: unable to apply template: template: template:1:2: executing \"template\" at <.Foo>: can't evaluate field Foo in type dbplugin.UsernameMetadata",
            ),
            (&[rsa, template], "missing required ca_cert"),
            (&[rsa, template, ("ca_cert", "x")], "missing required ca_private_key"),
            (&[rsa, template, ("ca_cert", "x"), ("ca_private_key", "y")], "no data found in PEM block"),
        ] {
            let error_text = written(&mut role, Some("client_certificate"), config);
            assert_eq!(error_text, format!("credential_config validation failed: {expected}"), "{config:?}");
        }
        assert_eq!(written(&mut role, None, &[]), "password {}", "a refused change changes nothing");
    }

    #[test]
    fn sec_kf08_no_private_key_of_a_role_is_returned() {
        let pem = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n";
        for (ca_cert, shown) in [(pem.to_owned(), true), (format!("{pem}-----BEGIN PRIVATE KEY-----\ngeheim"), false)] {
            let ca_private_key = PrivateKey("geheim".to_owned());
            let mut config = CredentialConfig { ca_cert, ca_private_key, ..CredentialConfig::default() };
            config.hide();
            let text = serde_json::to_string(&config).unwrap();
            assert!(!text.contains("geheim") && text.contains("CERTIFICATE") == shown, "{text}");
        }
    }
}
