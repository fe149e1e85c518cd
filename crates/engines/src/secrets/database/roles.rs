//! `roles/`: the statements and TTLs of dynamic users.

use std::time::Duration;

use keepfast_framework::fields::{Int, Pairs, Seconds, Text, given};
use keepfast_framework::lease::BackOff;
use keepfast_framework::routes::{Exists, Paged};
use keepfast_framework::{Cx, Data, Error, Keys, Records, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DatabaseEngine;
use super::config::Config;
use super::credential::{self, CredentialConfig, CredentialType};
use super::statement::Statements;
use super::static_roles::STATIC_ROLES;

pub(super) const ROLES: Records<Role> = Records::at("role/");

/// The stored record of a role, also the response without a private key; TTLs in seconds.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Role {
    pub(super) creation_statements: Vec<String>,
    #[serde(default, skip_serializing_if = "CredentialConfig::is_empty")]
    pub(super) credential_config: CredentialConfig,
    #[serde(default)]
    pub(super) credential_type: CredentialType,
    pub(super) db_name: String,
    pub(super) default_ttl: u64,
    pub(super) max_ttl: u64,
    pub(super) renew_statements: Vec<String>,
    /// The retries of revocation; the response contains only what the client set.
    #[serde(flatten)]
    retries: Retries,
    pub(super) revocation_statements: Vec<String>,
    pub(super) rollback_statements: Vec<String>,
}

/// The retries of revocation that the client set; pauses in seconds.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Retries {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revocation_attempts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revocation_backoff: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revocation_backoff_max: Option<u64>,
}

/// The maximum of `revocation_attempts`.
const MAX_ATTEMPTS: i64 = 100;
/// The maximum of `revocation_backoff_max`: a week.
const MAX_PAUSE: u64 = 7 * 24 * 3600;

impl Retries {
    /// Applies the given values; zero removes a value.
    ///
    /// # Errors
    /// 400 when a value is out of range, or when the maximum pause is shorter than the first one.
    fn merge(&mut self, attempts: Option<Int>, first: Option<Seconds>, longest: Option<Seconds>) -> Result<()> {
        if let Some(Int(attempts)) = attempts {
            let fitting = u32::try_from(attempts).ok().filter(|_| attempts <= MAX_ATTEMPTS);
            let out_of_range = || Error::invalid(format!("revocation_attempts must be between 1 and {MAX_ATTEMPTS}"));
            self.revocation_attempts = Some(fitting.ok_or_else(out_of_range)?).filter(|n| *n > 0);
        }
        for (name, kept, given) in [
            ("revocation_backoff", &mut self.revocation_backoff, first),
            ("revocation_backoff_max", &mut self.revocation_backoff_max, longest),
        ] {
            let Some(Seconds(seconds)) = given else { continue };
            if seconds > MAX_PAUSE {
                return Err(Error::invalid(format!("{name} must not be more than seven days")));
            }
            *kept = Some(seconds).filter(|s| *s > 0);
        }
        match (self.revocation_backoff, self.revocation_backoff_max) {
            (first, Some(longest)) if longest < first.unwrap_or(BackOff::default().pause) => {
                Err(Error::invalid("revocation_backoff_max must not be less than revocation_backoff"))
            }
            _ => Ok(()),
        }
    }

    /// The complete backoff; `None` if nothing is set.
    fn back_off(self) -> Option<BackOff> {
        let given = self.revocation_attempts.is_some()
            || self.revocation_backoff.is_some()
            || self.revocation_backoff_max.is_some();
        let default = BackOff::default();
        let pause = self.revocation_backoff.unwrap_or(default.pause);
        given.then(|| BackOff {
            attempts: self.revocation_attempts.unwrap_or(default.attempts),
            pause,
            longest: self.revocation_backoff_max.unwrap_or(default.longest.max(pause)),
        })
    }
}

impl Role {
    /// The backoff of revocation retries, if the role has one.
    pub(super) fn back_off(&self) -> Option<BackOff> {
        self.retries.back_off()
    }

    pub(super) fn default_ttl(&self) -> Duration {
        Duration::from_secs(self.default_ttl)
    }

    pub(super) fn max_ttl(&self) -> Duration {
        Duration::from_secs(self.max_ttl)
    }

    /// The policy of generated passwords; empty for none.
    pub(super) fn password_policy<'a>(&'a self, config: &'a Config) -> &'a str {
        self.credential_config.password_policy(config)
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct RolePath {
    /// The name of the role.
    name: Text,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Write {
    /// The name of the role.
    name: Text,
    /// The name of the connection.
    db_name: Option<Text>,
    /// Statements that create a user.
    #[serde(default, deserialize_with = "given")]
    creation_statements: Option<Option<Statements>>,
    /// Statements that revoke a user. By default it loses its sessions and rights, and the administrator owns its
    /// objects.
    #[serde(default, deserialize_with = "given")]
    revocation_statements: Option<Option<Statements>>,
    /// Statements for databases without transactions.
    #[serde(default, deserialize_with = "given")]
    rollback_statements: Option<Option<Statements>>,
    /// Statements that change the expiry of a user.
    #[serde(default, deserialize_with = "given")]
    renew_statements: Option<Option<Statements>>,
    /// Number of attempts to revoke a user before its lease becomes irrevocable; 6 if absent or 0.
    revocation_attempts: Option<Int>,
    /// Pause in seconds after the first failed revocation; it doubles with each failure. 10 if absent or 0.
    revocation_backoff: Option<Seconds>,
    /// Maximum pause in seconds; 3600 if absent or 0.
    revocation_backoff_max: Option<Seconds>,
    /// TTL of a user in seconds. Default: that of the mount.
    default_ttl: Option<Seconds>,
    /// Maximum TTL of a user in seconds, renewals included. Default: that of the mount.
    max_ttl: Option<Seconds>,
    /// Type of the credentials: `password`, `rsa_private_key` or `client_certificate`. Default: `password`.
    #[serde(default, deserialize_with = "given")]
    credential_type: Option<Option<Text>>,
    /// Settings of the credential type.
    credential_config: Option<Pairs>,
}

pub(super) async fn list(_: &DatabaseEngine, cx: &mut Cx, req: Paged) -> Result<Keys> {
    Ok(Keys::of(ROLES.list(cx, "", &req.page()).await?))
}

pub(super) async fn exists(_: &DatabaseEngine, cx: &mut Cx, req: RolePath) -> Result<Exists> {
    Ok(Exists(ROLES.get(cx, &req.name).await?.is_some()))
}

pub(super) async fn read(_: &DatabaseEngine, cx: &mut Cx, req: RolePath) -> Result<Option<Data<Role>>> {
    Ok(ROLES.get(cx, &req.name).await?.map(|mut role| {
        role.credential_config.hide();
        Data(role)
    }))
}

pub(super) async fn write(_: &DatabaseEngine, cx: &mut Cx, req: Write) -> Result<()> {
    if STATIC_ROLES.get(cx, &req.name).await?.is_some() {
        return Err(Error::invalid("Role and Static Role names must be unique"));
    }
    let mut role = ROLES.get(cx, &req.name).await?.unwrap_or_default();
    if let Some(name) = req.db_name {
        role.db_name = name.into();
    }
    if role.db_name.is_empty() {
        return Err(Error::invalid("database name is required"));
    }
    let credentials = (req.credential_type, req.credential_config);
    credential::change(&mut role.credential_type, &mut role.credential_config, credentials)?;
    let lists = [
        (&mut role.creation_statements, req.creation_statements),
        (&mut role.revocation_statements, req.revocation_statements),
        (&mut role.rollback_statements, req.rollback_statements),
        (&mut role.renew_statements, req.renew_statements),
    ];
    for (list, given) in lists {
        if let Some(given) = given {
            *list = given.map(Statements::validated).transpose()?.unwrap_or_default();
        }
    }
    // As in OpenBao, which drops empty statements only here.
    role.revocation_statements.retain(|statement| !statement.is_empty());
    role.retries.merge(req.revocation_attempts, req.revocation_backoff, req.revocation_backoff_max)?;
    role.default_ttl = req.default_ttl.map_or(role.default_ttl, |s| s.0);
    role.max_ttl = req.max_ttl.map_or(role.max_ttl, |s| s.0);
    ROLES.put(cx, &req.name, &role)
}

pub(super) async fn delete(_: &DatabaseEngine, cx: &mut Cx, req: RolePath) -> Result<()> {
    ROLES.delete(cx, &req.name);
    Ok(())
}
