//! `roles/`: how users are made.

use std::time::Duration;

use keepfast_framework::fields::{Pairs, Seconds, Strings, Text};
use keepfast_framework::routes::{Exists, Nothing};
use keepfast_framework::{Cx, Data, Error, Keys, Page, Records, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DatabaseEngine;
use super::static_roles::STATIC_ROLES;

pub(super) const ROLES: Records<Role> = Records::at("role/");

/// What is stored of a role, which is also what is shown; TTLs in seconds.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Role {
    pub(super) creation_statements: Vec<String>,
    pub(super) credential_type: String,
    pub(super) db_name: String,
    pub(super) default_ttl: u64,
    pub(super) max_ttl: u64,
    pub(super) renew_statements: Vec<String>,
    pub(super) revocation_statements: Vec<String>,
    pub(super) rollback_statements: Vec<String>,
}

impl Role {
    pub(super) fn default_ttl(&self) -> Duration {
        Duration::from_secs(self.default_ttl)
    }

    pub(super) fn max_ttl(&self) -> Duration {
        Duration::from_secs(self.max_ttl)
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Named {
    /// The name of the role.
    name: Text,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Write {
    /// The name of the role.
    name: Text,
    /// The connection to use.
    db_name: Option<Text>,
    /// Statements that make a user.
    creation_statements: Option<Strings>,
    /// Statements that remove a user; without them it loses its sessions, its rights and what it owns goes to the administrator.
    revocation_statements: Option<Strings>,
    /// Statements for databases without transactions.
    rollback_statements: Option<Strings>,
    /// Statements that move the end of a user.
    renew_statements: Option<Strings>,
    /// How long a user lives that nobody renews.
    default_ttl: Option<Seconds>,
    /// How long a user lives at most.
    max_ttl: Option<Seconds>,
    /// `password`.
    credential_type: Option<Text>,
    /// Settings of the credential type.
    credential_config: Option<Pairs>,
}

pub(super) async fn list(_: &DatabaseEngine, cx: &mut Cx, _: Nothing) -> Result<Keys> {
    Ok(Keys::of(ROLES.list(cx, "", &Page::all()).await?))
}

pub(super) async fn exists(_: &DatabaseEngine, cx: &mut Cx, req: Named) -> Result<Exists> {
    Ok(Exists(ROLES.get(cx, &req.name).await?.is_some()))
}

pub(super) async fn read(_: &DatabaseEngine, cx: &mut Cx, req: Named) -> Result<Option<Data<Role>>> {
    Ok(ROLES.get(cx, &req.name).await?.map(Data))
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
    let kind = req.credential_type.map(String::from).filter(|k| !k.is_empty());
    match kind.as_deref() {
        None | Some("password") => role.credential_type = "password".to_owned(),
        Some(kind @ ("rsa_private_key" | "client_certificate")) => {
            return Err(Error::invalid(format!("credential_type {kind:?} is not supported yet")));
        }
        Some(_) => return Err(Error::invalid(format!("invalid credential_type {:?}", kind.unwrap_or_default()))),
    }
    if req.credential_config.is_some_and(|c| !c.0.is_empty()) {
        return Err(Error::invalid("credential_config is not supported yet for passwords"));
    }
    let lists = [
        (&mut role.creation_statements, req.creation_statements),
        (&mut role.revocation_statements, req.revocation_statements),
        (&mut role.rollback_statements, req.rollback_statements),
        (&mut role.renew_statements, req.renew_statements),
    ];
    for (list, given) in lists {
        if let Some(given) = given {
            *list = given.0;
        }
    }
    role.default_ttl = req.default_ttl.map_or(role.default_ttl, |s| s.0);
    role.max_ttl = req.max_ttl.map_or(role.max_ttl, |s| s.0);
    ROLES.put(cx, &req.name, &role)
}

pub(super) async fn delete(_: &DatabaseEngine, cx: &mut Cx, req: Named) -> Result<()> {
    ROLES.delete(cx, &req.name);
    Ok(())
}
