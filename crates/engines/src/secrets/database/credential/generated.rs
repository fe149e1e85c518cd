//! The credentials of a new user: generated before the user, and returned with it.

use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::secret::SecretString;
use keepfast_crypto::x509::{Authority, ClientCertificate, ClientKey};
use keepfast_framework::{Cx, Error, Result, Timestamp};
use serde::Serialize;

use super::super::config::Config;
use super::super::kinds::Kind;
use super::super::roles::Role;
use super::super::statement::{expanded, mentions};
use super::super::username;
use super::{CredentialType, certificate};

/// How a kind of database identifies users by their certificates.
pub(in super::super) struct Certificates {
    /// The certificate subject with one name, in the database's format.
    pub(in super::super) subject: fn(&str) -> String,
    /// Whether other users could log in as a user that was created without its subject.
    pub(in super::super) needs_subject: bool,
}

/// The credentials of a user before the expiry is known.
pub(in super::super) enum PendingCredentials {
    Password(SecretString),
    Certificate(Box<UnissuedCertificate>),
}

/// The parts of a certificate that is not issued yet.
pub(in super::super) struct UnissuedCertificate {
    authority: Authority,
    key: ClientKey,
    hash: Hash,
    subject: String,
}

/// The credentials of a user.
pub(in super::super) enum Credentials {
    Password(SecretString),
    /// A certificate and its key in PEM, and its subject in the database's format.
    Certificate {
        certificate: String,
        key: Box<ClientKey>,
        subject: String,
    },
}

/// The part of the credentials that the database needs.
#[derive(Clone, Copy)]
pub(in super::super) enum Login<'a> {
    Password(&'a SecretString),
    /// A certificate with this subject.
    Certificate {
        subject: &'a str,
    },
}

/// A user in responses.
#[derive(Serialize)]
#[serde(untagged)]
pub(in super::super) enum User {
    Password { password: String, username: String },
    Certificate { client_certificate: String, private_key: String, private_key_type: &'static str, username: String },
}

/// The template of a role's user names. With certificates it is that of the common name, by which databases identify
/// the user.
///
/// # Errors
/// 400 when the database has no such credentials, or the role's statements do not fit them.
pub(in super::super) fn name_template(role: &Role, config: &Config) -> Result<String> {
    let kind = config.kind()?;
    match (role.credential_type, &kind.certificates) {
        (CredentialType::Password, _) => config.username_template(),
        (CredentialType::ClientCertificate, Some(certificates)) => {
            check_statements(
                certificates,
                &expanded(&role.creation_statements).map_err(|limit| Error::invalid(limit.to_string()))?,
            )?;
            Ok(role.credential_config.common_name_template.clone())
        }
        (other, _) => Err(other.unsupported()),
    }
}

/// Checks that only the owner of the certificate can log in as the user.
fn check_statements(certificates: &Certificates, statements: &[String]) -> Result<()> {
    if statements.iter().any(|statement| mentions(statement, "password")) {
        return Err(Error::invalid(
            "creation_statements have {{password}}, but a user with a client_certificate has no password",
        ));
    }
    let names_subject = |statement: &String| statement.to_ascii_lowercase().contains("subject");
    if certificates.needs_subject && !statements.is_empty() && !statements.iter().any(names_subject) {
        return Err(Error::invalid(
            "creation_statements must have REQUIRE SUBJECT '{{subject}}': others could log in as the user without it",
        ));
    }
    Ok(())
}

/// Checks that a subject is a single name that never repeats: the certificate of a revoked user may still be valid.
fn check_name(name: &str, may_recur: bool) -> Result<()> {
    if !name.chars().all(username::is_safe) {
        return Err(Error::invalid(
            "the result of common_name_template has characters other than letters, digits, -, _, . and @",
        ));
    }
    if may_recur {
        return Err(Error::invalid(
            "common_name_template must make every name unique, as {{random 20}}, {{uuid}} and {{unix_time}} do: otherwise \
             the certificate of a revoked user could be valid for a later one",
        ));
    }
    Ok(())
}

impl PendingCredentials {
    /// Generates the credentials of a user. `may_recur` means that the name can repeat.
    ///
    /// # Errors
    /// 500 when the password policy does not exist; 400 when the name is invalid for a certificate.
    pub(in super::super) async fn generate(
        cx: &mut Cx,
        role: &Role,
        config: &Config,
        (name, may_recur): (&str, bool),
    ) -> Result<Self> {
        let (CredentialType::ClientCertificate, Kind { certificates: Some(certificates), .. }) =
            (role.credential_type, config.kind()?)
        else {
            return Ok(Self::Password(username::password(cx, role.password_policy(config)).await?));
        };
        check_name(name, may_recur)?;
        Ok(Self::Certificate(Box::new(UnissuedCertificate {
            authority: certificate::authority(&role.credential_config).map_err(Error::internal)?,
            key: certificate::key(&role.credential_config).await?,
            hash: certificate::hash(&role.credential_config),
            subject: (certificates.subject)(name),
        })))
    }

    /// The password, if the credentials are one.
    pub(in super::super) fn password(&self) -> Option<&SecretString> {
        match self {
            Self::Password(password) => Some(password),
            Self::Certificate(_) => None,
        }
    }

    /// Whether the lease can be renewed: a certificate contains its expiry.
    pub(in super::super) fn is_renewable(&self) -> bool {
        matches!(self, Self::Password(_))
    }

    /// Issues the certificate, if the credentials are one.
    ///
    /// # Errors
    /// 400 when the CA expires before the certificate.
    pub(in super::super) fn issue(self, name: &str, made: Timestamp, ends: Timestamp) -> Result<Credentials> {
        let unissued = match self {
            Self::Password(password) => return Ok(Credentials::Password(password)),
            Self::Certificate(unissued) => *unissued,
        };
        let UnissuedCertificate { authority, key, hash, subject } = unissued;
        let seconds = |time: Timestamp| u64::try_from(time.unix()).map_err(Error::internal);
        let wanted =
            ClientCertificate { common_name: name, key: &key, made: seconds(made)?, ends: seconds(ends)?, hash };
        let issued = authority.issue(&wanted);
        let certificate = issued.map_err(|why| Error::invalid(format!("no certificate was issued: {why}")))?;
        Ok(Credentials::Certificate { certificate, key: Box::new(key), subject })
    }
}

impl Credentials {
    /// The part that the database needs.
    pub(in super::super) fn login(&self) -> Login<'_> {
        match self {
            Self::Password(password) => Login::Password(password),
            Self::Certificate { subject, .. } => Login::Certificate { subject },
        }
    }

    /// The user of this name with its credentials, for the response.
    ///
    /// # Errors
    /// When encoding the certificate or key fails.
    pub(in super::super) fn into_user(self, username: String) -> Result<User> {
        Ok(match self {
            Self::Password(password) => User::Password { password: password.expose().clone(), username },
            Self::Certificate { certificate, key, .. } => User::Certificate {
                client_certificate: certificate,
                private_key: key.pem().map_err(Error::internal)?.expose().clone(),
                private_key_type: key.type_name(),
                username,
            },
        })
    }
}
