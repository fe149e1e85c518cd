//! What a fresh user logs in with: made before the user, and told with it.

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

/// How a kind of database knows users by their certificates.
pub(in super::super) struct Certificates {
    /// A subject with one name, as the database writes it.
    pub(in super::super) subject: fn(&str) -> String,
    /// Whether a user that is made without its subject could be logged in as by others.
    pub(in super::super) needs_subject: bool,
}

/// What a user will log in with, before it is known when that ends.
pub(in super::super) enum Secret {
    Password(SecretString),
    Certificate(Box<Unissued>),
}

/// What a certificate will be made of.
pub(in super::super) struct Unissued {
    authority: Authority,
    key: ClientKey,
    hash: Hash,
    subject: String,
}

/// What a user logs in with.
pub(in super::super) enum Issued {
    Password(SecretString),
    /// A certificate as PEM, its key, and its subject as the database writes it.
    Certificate {
        certificate: String,
        key: Box<ClientKey>,
        subject: String,
    },
}

/// What a user logs in with, as its database has to know it.
#[derive(Clone, Copy)]
pub(in super::super) enum Login<'a> {
    Password(&'a SecretString),
    /// A certificate with this subject.
    Certificate {
        subject: &'a str,
    },
}

/// A user, as it is told.
#[derive(Serialize)]
#[serde(untagged)]
pub(in super::super) enum User {
    Password { password: String, username: String },
    Certificate { client_certificate: String, private_key: String, private_key_type: &'static str, username: String },
}

/// The template of a role's users' names. With a certificate it is the common name's, as that is how databases find the user.
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

/// Nobody but who has the certificate must get in.
fn check_statements(certificates: &Certificates, statements: &[String]) -> Result<()> {
    if statements.iter().any(|statement| mentions(statement, "password")) {
        return Err(Error::invalid(
            "creation_statements have {{password}}, but who has a client_certificate has no password",
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

/// A subject says one thing only, and never the same for two users: who was revoked may have a certificate that is valid yet.
fn check_name(name: &str, may_recur: bool) -> Result<()> {
    if !name.chars().all(username::is_tame) {
        return Err(Error::invalid(
            "the name that common_name_template makes has other characters than letters, digits, -, _, . and @",
        ));
    }
    if may_recur {
        return Err(Error::invalid(
            "common_name_template must make every name once, as {{random 20}}, {{uuid}} and {{unix_time}} do: else the \
             certificate of a user who is gone could be the next one's",
        ));
    }
    Ok(())
}

impl Secret {
    /// Makes what the user of this name, which may ever be another's or not, will log in with.
    ///
    /// # Errors
    /// 500 when there is no such password policy; 400 when no certificate can have the name.
    pub(in super::super) async fn make(
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
        Ok(Self::Certificate(Box::new(Unissued {
            authority: certificate::authority(&role.credential_config).map_err(Error::internal)?,
            key: certificate::key(&role.credential_config).await?,
            hash: certificate::hash(&role.credential_config),
            subject: (certificates.subject)(name),
        })))
    }

    /// The password, where it is one.
    pub(in super::super) fn password(&self) -> Option<&SecretString> {
        match self {
            Self::Password(password) => Some(password),
            Self::Certificate(_) => None,
        }
    }

    /// Whether its life can become longer: a certificate has its end in it.
    pub(in super::super) fn is_renewable(&self) -> bool {
        matches!(self, Self::Password(_))
    }

    /// Makes the certificate, where it is one.
    ///
    /// # Errors
    /// 400 when the CA ends before it would.
    pub(in super::super) fn issue(self, name: &str, made: Timestamp, ends: Timestamp) -> Result<Issued> {
        let unissued = match self {
            Self::Password(password) => return Ok(Issued::Password(password)),
            Self::Certificate(unissued) => *unissued,
        };
        let Unissued { authority, key, hash, subject } = unissued;
        let seconds = |time: Timestamp| u64::try_from(time.unix()).map_err(Error::internal);
        let wanted =
            ClientCertificate { common_name: name, key: &key, made: seconds(made)?, ends: seconds(ends)?, hash };
        let issued = authority.issue(&wanted);
        let certificate = issued.map_err(|why| Error::invalid(format!("no certificate was issued: {why}")))?;
        Ok(Issued::Certificate { certificate, key: Box::new(key), subject })
    }
}

impl Issued {
    /// As the database has to know it.
    pub(in super::super) fn login(&self) -> Login<'_> {
        match self {
            Self::Password(password) => Login::Password(password),
            Self::Certificate { subject, .. } => Login::Certificate { subject },
        }
    }

    /// The user of this name with it, as the caller is told.
    ///
    /// # Errors
    /// When the library fails.
    pub(in super::super) fn told(self, username: String) -> Result<User> {
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
