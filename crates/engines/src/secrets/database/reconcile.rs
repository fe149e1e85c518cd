//! `reconcile/`: users in a database that have the form of ours and no lease, of this mount or of another one of this server.
//! There should be none; there are after a lease was forgotten by force, or after a restored backup.
//!
//! The order is what makes it safe beside requests that make users: first the database is asked for its users, then the
//! leases are read. A user's lease is durable before the user is made, so a user that was seen has its lease by then,
//! unless the lease has ended. No name is made twice, so a user without a lease never gets one.

use std::collections::HashSet;

use keepfast_framework::fields::{Strings, Text};
use keepfast_framework::{Cx, Data, Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::{Config, Named};
use super::connection::{Database, DatabaseError};
use super::username::Form;
use super::{DatabaseEngine, rotation};

#[derive(Deserialize, JsonSchema)]
pub(super) struct Remove {
    /// The name of the connection.
    name: Text,
    /// The users to remove, each as it was listed.
    usernames: Option<Strings>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Orphans {
    /// Users with the form of ours and no lease.
    usernames: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Removed {
    /// Users that are gone now.
    removed: Vec<String>,
}

pub(super) async fn read(engine: &DatabaseEngine, cx: &mut Cx, req: Named) -> Result<Data<Orphans>> {
    let config = connection(cx, &req.name).await?;
    let database = rotation::database(engine, cx, &req.name, &config).await?;
    Ok(Data(Orphans { usernames: orphans(cx, &config, &*database).await? }))
}

/// Removes users that were named and still are orphans: nothing is removed that nobody has looked at.
pub(super) async fn remove(engine: &DatabaseEngine, cx: &mut Cx, req: Remove) -> Result<Data<Removed>> {
    let named: HashSet<String> = req.usernames.map(|s| s.0.into_iter().collect()).unwrap_or_default();
    if named.is_empty() {
        return Err(Error::invalid("usernames must name the users to remove, as reading this path lists them"));
    }
    connection(cx, &req.name).await?;
    rotation::recover_if_pending(engine, cx, &req.name).await?;
    let config = connection(cx, &req.name).await?;
    let database = rotation::database(engine, cx, &req.name, &config).await?;
    let orphans = orphans(cx, &config, &*database).await?;
    if named.iter().any(|name| !orphans.contains(name)) {
        return Err(Error::invalid(
            "usernames has a user that is none of ours, or that has a lease; nothing was removed",
        ));
    }
    let mut removed = Vec::new();
    for name in orphans.into_iter().filter(|name| named.contains(name)) {
        database.drop_user(&name, &[]).await.map_err(DatabaseError::answer)?;
        tracing::warn!(user = %name, connection = %req.name.0, "a database user without a lease was removed");
        removed.push(name);
    }
    Ok(Data(Removed { removed }))
}

async fn connection(cx: &mut Cx, name: &str) -> Result<Config> {
    Config::find(cx, name).await?.ok_or_else(|| Error::invalid("there is no connection of this name"))
}

async fn orphans(cx: &Cx, config: &Config, database: &dyn Database) -> Result<Vec<String>> {
    let form = Form::of(&config.username_template()?, config.kind()?.longest_name).map_err(Error::invalid)?;
    let mut users = database.list_users(&form.prefix()).await.map_err(DatabaseError::answer)?;
    users.retain(|name| form.fits(name));
    let seen: HashSet<&str> = users.iter().map(String::as_str).collect();
    let name = |lease: &Value| Some(lease.get("username")?.as_str().filter(|name| seen.contains(name))?.to_owned());
    let leased: HashSet<String> = cx.leased(&name).await?.into_iter().collect();
    users.retain(|name| !leased.contains(name));
    users.sort();
    Ok(users)
}
