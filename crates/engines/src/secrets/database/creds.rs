//! `creds/`: a user for each request, and the end of it.

use std::time::Duration;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::fields::Text;
use keepfast_framework::lease::LeaseClaim;
use keepfast_framework::{Cx, Error, HeldLease, Intended, LeaseOffer, LeaseTerms, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::config::Config;
use super::connection::{Database, DatabaseError, NewUser, NotMade};
use super::credential::{self, Secret, User};
use super::roles::ROLES;
use super::{DatabaseEngine, rotation, username};

/// Where the password stands with an intent, as the proof that a user was made for it.
const PROOF: &str = "password";

/// How long a user, or its certificate, is valid beyond the end of its lease, as with OpenBao: the clocks of two servers
/// differ, and databases count in whole seconds.
const GRACE: Duration = Duration::from_secs(5);

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

pub(super) async fn read(engine: &DatabaseEngine, cx: &mut Cx, req: Named) -> Result<Intended<User>> {
    let unknown = || Error::invalid(format!("unknown role: {}", req.name.0));
    let role = ROLES.get(cx, &req.name).await?.ok_or_else(unknown)?;
    rotation::recover_if_due(engine, cx, &role.db_name).await?;
    let config = Config::named(cx, &role.db_name).await?;
    config.allow(&req.name).map_err(DatabaseError::refusal)?;
    let template = credential::name_template(&role, &config)?;
    let kind = config.kind()?;
    if kind.needs_creation_statements && role.creation_statements.iter().all(|s| s.trim().is_empty()) {
        return Err(DatabaseError::new("empty creation statements").refusal());
    }
    let database = rotation::database(engine, cx, &role.db_name, &config).await?;
    let ingredients = username::Ingredients::new(&cx.caller().display_name, &req.name, cx.now());
    let name = username::name(&template, kind.longest_name, &ingredients)?;
    let may_repeat = ingredients.may_repeat(&name);
    let secret = Secret::make(cx, &role, &config, (&name, ingredients.may_recur(&name))).await?;
    let held = Held {
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
        guard(&mut offer, &*database, &held, &secret).await?;
    }
    let intent = cx.intend_durably(&offer).await?;
    let expires = intent.ends().after(GRACE);
    let secret = secret.issue(&name, cx.now(), expires)?;
    let user = NewUser { name: &name, login: secret.login(), expires };
    match database.create_user(&user, &role.creation_statements).await {
        Ok(()) => Ok(Intended { data: secret.told(name)?, intent }),
        Err(NotMade::Taken(error)) => {
            // Undoing the intent would drop a user that is not of our making.
            cx.withdraw(intent).await?;
            Err(error.refusal())
        }
        Err(NotMade::Untried(error)) => {
            // There is nothing to undo, and a connection that does not work must not keep the mount from being disabled.
            cx.withdraw(intent).await?;
            Err(error.answer())
        }
        Err(NotMade::Failed(error)) => Err(error.answer()),
    }
}

/// Sees to it that no user is dropped who was not made for the lease, where the name alone does not say so: the name has to
/// be free now, no other lease may hold it, and until the lease is confirmed the user has to prove by its password that it
/// was made for it, which no user with a certificate can.
async fn guard(offer: &mut LeaseOffer, database: &dyn Database, held: &Held, secret: &Secret) -> Result<()> {
    let name = &held.username;
    if !database.is_free(name).await.map_err(DatabaseError::answer)? {
        return Err(database.taken(name).refusal());
    }
    let taken = format!("1 error occurred:\n\t* another lease holds the user {name:?}\n\n");
    offer.claim = Some(LeaseClaim { key: format!("{}/{name}", held.db_name), taken });
    offer.until_confirmed = json!({ PROOF: secret.password().map(SecretString::expose) });
    Ok(())
}

/// The connection of a lease; what is wrong becomes part of another text.
async fn connection(cx: &mut Cx, name: &str) -> Result<Config> {
    Config::find(cx, name).await?.ok_or_else(|| Config::missing(name).invalid())
}

pub(super) async fn renew(engine: &DatabaseEngine, cx: &mut Cx, lease: &HeldLease) -> Result<LeaseTerms> {
    let held: Held = serde_json::from_value(lease.internal.clone())?;
    let missing = || Error::invalid(format!("error during renew: could not find role with name {:?}", held.role));
    let role = ROLES.get(cx, &held.role).await?.ok_or_else(missing)?;
    let config = connection(cx, &held.db_name).await?;
    let database = rotation::database(engine, cx, &held.db_name, &config).await?;
    let terms = LeaseTerms { ttl: role.default_ttl(), max_ttl: role.max_ttl() };
    let renewed =
        database.renew_user(&held.username, lease.end_under(&terms).after(GRACE), &role.renew_statements).await;
    renewed.map_err(DatabaseError::invalid)?;
    Ok(terms)
}

pub(super) async fn revoke(engine: &DatabaseEngine, cx: &mut Cx, lease: &HeldLease) -> Result<()> {
    let held: Held = serde_json::from_value(lease.internal.clone())?;
    let config = connection(cx, &held.db_name).await?;
    let statements =
        ROLES.get(cx, &held.role).await?.map_or(held.revocation_statements, |role| role.revocation_statements);
    let database = rotation::database(engine, cx, &held.db_name, &config).await?;
    if let Some(proof) = lease.until_confirmed.get(PROOF) {
        check_is_ours(&*database, &held.username, proof.as_str()).await?;
    }
    database.drop_user(&held.username, &statements).await.map_err(DatabaseError::invalid)
}

/// That a user was made for the lease whose password this is, if there is one of that name.
///
/// # Errors
/// 400 when it has another password, or none is known; what the database fails with.
async fn check_is_ours(database: &dyn Database, name: &str, password: Option<&str>) -> Result<()> {
    // First, because it needs no login.
    if database.is_free(name).await.map_err(DatabaseError::invalid)? {
        return Ok(());
    }
    let password = password.map(|text| SecretString::new(text.to_owned()));
    if let Some(password) = password
        && rotation::proves(database, name, &password).await.map_err(DatabaseError::invalid)?
    {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the user {name:?} does not log in with the password of this lease, whose making was not confirmed; it may be \
         somebody else's and was left alone"
    )))
}
