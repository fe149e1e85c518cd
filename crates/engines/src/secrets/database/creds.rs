//! `creds/`: creates a leased user for each request, and revokes it.

use std::time::Duration;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::fields::Text;
use keepfast_framework::lease::LeaseClaim;
use keepfast_framework::{Cx, Error, HeldLease, Intended, LeaseOffer, LeaseTerms, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::config::Config;
use super::connection::{CreateUserError, Database, DatabaseError, NewUser};
use super::credential::{self, PendingCredentials, User};
use super::roles::ROLES;
use super::{DatabaseEngine, rotation, username};

/// The key of the password in the data of an intent, which proves that the user was created for it.
const PROOF: &str = "password";

/// How long a user or its certificate stays valid after the lease expires, as in OpenBao: the clocks of two servers
/// differ, and databases count in whole seconds.
const GRACE: Duration = Duration::from_secs(5);

/// The data of a user's lease.
#[derive(Serialize, Deserialize)]
struct LeaseData {
    username: String,
    role: String,
    db_name: String,
    /// Those of the role when the user was created, in case the role is deleted.
    #[serde(default)]
    revocation_statements: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct RolePath {
    /// The name of the role.
    name: Text,
}

pub(super) async fn read(engine: &DatabaseEngine, cx: &mut Cx, req: RolePath) -> Result<Intended<User>> {
    let unknown = || Error::invalid(format!("unknown role: {}", req.name.0));
    let role = ROLES.get(cx, &req.name).await?.ok_or_else(unknown)?;
    rotation::recover_if_due(engine, cx, &role.db_name).await?;
    let config = Config::require(engine, cx, &role.db_name).await?;
    config.check_role(&req.name).map_err(DatabaseError::bad_request)?;
    let template = credential::name_template(&role, &config)?;
    let kind = config.kind()?;
    if kind.needs_creation_statements && role.creation_statements.iter().all(|s| s.trim().is_empty()) {
        return Err(DatabaseError::new("empty creation statements").bad_request());
    }
    let database = rotation::database(engine, cx, &role.db_name, &config).await?;
    let ingredients = username::TemplateData::new(&cx.caller().display_name, &req.name, cx.now());
    let name = username::name(&template, kind.max_name_length, &ingredients)?;
    let may_repeat = ingredients.may_repeat(&name);
    let secret = PendingCredentials::generate(cx, &role, &config, (&name, ingredients.may_recur(&name))).await?;
    let held = LeaseData {
        username: name.clone(),
        role: req.name.into(),
        db_name: role.db_name.clone(),
        revocation_statements: role.revocation_statements.clone(),
    };
    let mut offer = LeaseOffer {
        ttl: role.default_ttl(),
        max_ttl: role.max_ttl(),
        renewable: secret.is_renewable(),
        internal: serde_json::to_value(&held)?,
        back_off: role.back_off(),
        ..LeaseOffer::default()
    };
    if may_repeat {
        guard_name(&mut offer, &*database, &held, &secret).await?;
    }
    let intent = cx.intend_durably(&offer).await?;
    let expires = intent.ends().after(GRACE);
    let secret = secret.issue(&name, cx.now(), expires)?;
    let user = NewUser { name: &name, login: secret.login(), expires };
    match database.create_user(&user, &role.creation_statements).await {
        Ok(()) => Ok(Intended { data: secret.into_user(name)?, intent }),
        Err(CreateUserError::NameExists(error)) => {
            // Revoking the intent would drop a user that was not created for it.
            cx.withdraw(intent).await?;
            Err(error.bad_request())
        }
        Err(CreateUserError::NotAttempted(error)) => {
            // There is no user to revoke, and an intent of a broken connection would prevent unmounting.
            cx.withdraw(intent).await?;
            Err(error.internal())
        }
        Err(CreateUserError::Unknown(error)) => Err(error.internal()),
    }
}

/// Ensures that revocation drops only users of this lease if the name can repeat. The name must be free now and have no
/// other lease. Until the lease is confirmed, the user must accept the lease's password, which a user with a
/// certificate cannot do.
async fn guard_name(
    offer: &mut LeaseOffer,
    database: &dyn Database,
    held: &LeaseData,
    secret: &PendingCredentials,
) -> Result<()> {
    let name = &held.username;
    if !database.is_free(name).await.map_err(DatabaseError::internal)? {
        return Err(database.name_exists_error(name).bad_request());
    }
    let taken = format!("1 error occurred:\n\t* another lease holds the user {name:?}\n\n");
    offer.claim = Some(LeaseClaim { key: format!("{}/{name}", held.db_name), taken });
    offer.until_confirmed = json!({ PROOF: secret.password().map(SecretString::expose) });
    Ok(())
}

/// The connection of a lease; the error is part of another text.
async fn connection(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<Config> {
    Config::find(engine, cx, name).await?.ok_or_else(|| Config::missing(name).invalid())
}

pub(super) async fn renew(engine: &DatabaseEngine, cx: &mut Cx, lease: &HeldLease) -> Result<LeaseTerms> {
    let held: LeaseData = serde_json::from_value(lease.internal.clone())?;
    let missing = || Error::invalid(format!("error during renew: could not find role with name {:?}", held.role));
    let role = ROLES.get(cx, &held.role).await?.ok_or_else(missing)?;
    let config = connection(engine, cx, &held.db_name).await?;
    let database = rotation::database(engine, cx, &held.db_name, &config).await?;
    let terms = LeaseTerms { ttl: role.default_ttl(), max_ttl: role.max_ttl() };
    let renewed =
        database.renew_user(&held.username, lease.expiry_under(&terms).after(GRACE), &role.renew_statements).await;
    renewed.map_err(DatabaseError::invalid)?;
    Ok(terms)
}

pub(super) async fn revoke(engine: &DatabaseEngine, cx: &mut Cx, lease: &HeldLease) -> Result<()> {
    let held: LeaseData = serde_json::from_value(lease.internal.clone())?;
    let config = connection(engine, cx, &held.db_name).await?;
    let statements =
        ROLES.get(cx, &held.role).await?.map_or(held.revocation_statements, |role| role.revocation_statements);
    let database = rotation::database(engine, cx, &held.db_name, &config).await?;
    if let Some(proof) = lease.until_confirmed.get(PROOF) {
        check_created_for_lease(&*database, &held.username, proof.as_str()).await?;
    }
    database.drop_user(&held.username, &statements).await.map_err(DatabaseError::invalid)
}

/// Checks that the user of this name, if any, was created for the lease with this password.
///
/// # Errors
/// 400 when the user has another password or none is known; errors of the database.
async fn check_created_for_lease(database: &dyn Database, name: &str, password: Option<&str>) -> Result<()> {
    // First, as this check needs no login.
    if database.is_free(name).await.map_err(DatabaseError::invalid)? {
        return Ok(());
    }
    let password = password.map(|text| SecretString::new(text.to_owned()));
    if let Some(password) = password
        && rotation::is_only_password(database, name, &password).await.map_err(DatabaseError::invalid)?
    {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the user {name:?} does not log in with the password of this lease, whose creation was not confirmed; it may belong \
         to another owner and was not dropped"
    )))
}
