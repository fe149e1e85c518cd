//! `reconcile/`: users in a database whose names match the template and that have no lease, neither of this mount nor
//! of another one of this server. They exist only after a forced revocation or a restored backup.
//!
//! The order makes it safe beside requests that create users: it first lists the users in the database, then reads the
//! leases. A lease is durable before its user is created, so every listed user has its lease by then, unless the lease
//! has ended. No name repeats, so a user without a lease never gets one.

use std::collections::HashSet;

use keepfast_framework::fields::{Strings, Text};
use keepfast_framework::{Cx, Data, Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::{Config, ConnectionPath};
use super::connection::{Database, DatabaseError};
use super::username::NamePattern;
use super::{DatabaseEngine, rotation};

#[derive(Deserialize, JsonSchema)]
pub(super) struct Remove {
    /// The name of the connection.
    name: Text,
    /// The users to remove; each must be in the list.
    usernames: Option<Strings>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Orphans {
    /// Users whose names match the template and that have no lease.
    usernames: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Removed {
    /// The removed users.
    removed: Vec<String>,
}

pub(super) async fn read(engine: &DatabaseEngine, cx: &mut Cx, req: ConnectionPath) -> Result<Data<Orphans>> {
    let config = connection(engine, cx, &req.name).await?;
    let database = rotation::database(engine, cx, &req.name, &config).await?;
    Ok(Data(Orphans { usernames: orphans(cx, &config, &*database).await? }))
}

/// Removes the given users that still have no lease: only users that the operator has seen.
pub(super) async fn remove(engine: &DatabaseEngine, cx: &mut Cx, req: Remove) -> Result<Data<Removed>> {
    let named: HashSet<String> = req.usernames.map(|s| s.0.into_iter().collect()).unwrap_or_default();
    if named.is_empty() {
        return Err(Error::invalid("usernames must contain users from the list that a read of this path returns"));
    }
    connection(engine, cx, &req.name).await?;
    rotation::recover_if_pending(engine, cx, &req.name).await?;
    let config = connection(engine, cx, &req.name).await?;
    let database = rotation::database(engine, cx, &req.name, &config).await?;
    let orphans = orphans(cx, &config, &*database).await?;
    if named.iter().any(|name| !orphans.contains(name)) {
        return Err(Error::invalid(
            "usernames has a user that does not match the template or has a lease; nothing was removed",
        ));
    }
    let mut removed = Vec::new();
    for name in orphans.into_iter().filter(|name| named.contains(name)) {
        database.drop_user(&name, &[]).await.map_err(DatabaseError::internal)?;
        tracing::warn!(user = %name, connection = %req.name.0, "a database user without a lease was removed");
        removed.push(name);
    }
    Ok(Data(Removed { removed }))
}

async fn connection(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<Config> {
    Config::find(engine, cx, name).await?.ok_or_else(|| Error::invalid("there is no connection of this name"))
}

async fn orphans(cx: &Cx, config: &Config, database: &dyn Database) -> Result<Vec<String>> {
    let pattern =
        NamePattern::of(&config.username_template()?, config.kind()?.max_name_length).map_err(Error::invalid)?;
    let mut users = database.list_users(&pattern.prefix()).await.map_err(DatabaseError::internal)?;
    users.retain(|name| pattern.matches(name));
    let seen: HashSet<&str> = users.iter().map(String::as_str).collect();
    let name = |lease: &Value| Some(lease.get("username")?.as_str().filter(|name| seen.contains(name))?.to_owned());
    let leased: HashSet<String> = cx.leased(&name).await?.into_iter().collect();
    users.retain(|name| !leased.contains(name));
    users.sort();
    Ok(users)
}
