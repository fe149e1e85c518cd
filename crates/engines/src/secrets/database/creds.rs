//! `creds/`: a user for each request, and the end of it.

use keepfast_framework::fields::Text;
use keepfast_framework::{Cx, Error, HeldLease, Intended, LeaseOffer, LeaseTerms, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::config::Config;
use super::connection::{DatabaseError, NewUser};
use super::roles::ROLES;
use super::{DatabaseEngine, rotation, username};

/// What is stored with the lease of a user.
#[derive(Serialize, Deserialize)]
struct Held {
    username: String,
    role: String,
    db_name: String,
    /// As they were when the user was made, in case that the role is gone.
    #[serde(default)]
    revocation_statements: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Named {
    /// The name of the role.
    name: Text,
}

#[derive(Serialize)]
pub(super) struct User {
    password: String,
    username: String,
}

pub(super) async fn read(engine: &DatabaseEngine, cx: &mut Cx, req: Named) -> Result<Intended<User>> {
    let unknown = || Error::invalid(format!("unknown role: {}", req.name.0));
    let role = ROLES.get(cx, &req.name).await?.ok_or_else(unknown)?;
    rotation::recover_if_pending(engine, cx, &role.db_name).await?;
    let config = Config::named(cx, &role.db_name).await?;
    if !config.allows(&req.name) {
        return Err(DatabaseError(format!("{:?} is not an allowed role", req.name.0)).answer());
    }
    let kind = config.kind()?;
    if kind.needs_creation_statements && role.creation_statements.iter().all(|s| s.trim().is_empty()) {
        return Err(DatabaseError("empty creation statements".to_owned()).answer());
    }
    let database = engine.connections.of(&role.db_name, &config, cx.clock())?;
    let ingredients = username::Ingredients::new(&cx.caller().display_name, &req.name, cx.now());
    let name = username::name(&config.username_template()?, kind.longest_name, &ingredients)?;
    let password = username::password(cx, role.password_policy(&config)).await?;
    let held = Held {
        username: name.clone(),
        role: req.name.into(),
        db_name: role.db_name.clone(),
        revocation_statements: role.revocation_statements.clone(),
    };
    let offer = LeaseOffer {
        ttl: role.default_ttl(),
        max_ttl: role.max_ttl(),
        renewable: true,
        internal: serde_json::to_value(&held)?,
    };
    let intent = cx.intend(&offer).await?;
    cx.checkpoint().await?;
    let user = NewUser { name: &name, password: &password, expires: intent.ends() };
    database.create_user(&user, &role.creation_statements).await.map_err(DatabaseError::answer)?;
    Ok(Intended { data: User { password: password.expose().clone(), username: name }, intent })
}

pub(super) async fn renew(engine: &DatabaseEngine, cx: &mut Cx, lease: &HeldLease) -> Result<LeaseTerms> {
    let held: Held = serde_json::from_value(lease.internal.clone())?;
    let missing = || Error::invalid(format!("error during renew: could not find role with name {:?}", held.role));
    let role = ROLES.get(cx, &held.role).await?.ok_or_else(missing)?;
    let config = Config::named(cx, &held.db_name).await?;
    let database = engine.connections.of(&held.db_name, &config, cx.clock())?;
    let terms = LeaseTerms { ttl: role.default_ttl(), max_ttl: role.max_ttl() };
    let renewed = database.renew_user(&held.username, lease.end_under(&terms), &role.renew_statements).await;
    renewed.map_err(|DatabaseError(text)| Error::invalid(text))?;
    Ok(terms)
}

pub(super) async fn revoke(engine: &DatabaseEngine, cx: &mut Cx, lease: &HeldLease) -> Result<()> {
    let held: Held = serde_json::from_value(lease.internal.clone())?;
    let config = Config::named(cx, &held.db_name).await?;
    let statements =
        ROLES.get(cx, &held.role).await?.map_or(held.revocation_statements, |role| role.revocation_statements);
    let database = engine.connections.of(&held.db_name, &config, cx.clock())?;
    database.drop_user(&held.username, &statements).await.map_err(|DatabaseError(text)| Error::invalid(text))
}
