//! Rotation of static roles: at creation, on time, on request, and again after a failure.
//!
//! At most two passwords are stored: the current one, and a pending one that is stored before the database gets it. A
//! pending password that the database acknowledges becomes the current one. Without an acknowledgement both are kept
//! and returned, and the next attempt sends the same pending password again.

use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Cx, Error, Page, ReadCache, Result, Timestamp};
use zeroize::Zeroize;

use super::config::Config;
use super::connection::{ChangePasswordError, Database, DatabaseError};
use super::rotation::{self, Attempts, Outcome, check_password, has_old_only, within};
use super::rotation_backoff::pause;
use super::statement::are_blank;
use super::static_roles::{NEVER, STATIC_ROLES, StaticRole, StaticRolePath};
use super::{DatabaseEngine, username};

/// Why a password was not rotated.
pub(super) enum Failure {
    /// An error of the database or of the connection to it.
    Database(DatabaseError),
    /// Any other error.
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Other(error)
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        Failure::Database(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Database(error) => error.internal(),
            Failure::Other(error) => error,
        }
    }
}

/// `rotate-role/`: rotates now.
pub(super) async fn rotate_now(engine: &DatabaseEngine, cx: &mut Cx, req: StaticRolePath) -> Result<()> {
    let none = || Error::invalid("no static role found for role name");
    let role = STATIC_ROLES.get(cx, &req.name).await?.ok_or_else(none)?;
    let unfinished = |error: DatabaseError| {
        error.with_text(|text| format!(
            "unable to finish rotating credentials; retries will continue in the background but it is also safe to retry manually: {text}"
        ))
    };
    let config = Config::find(engine, cx, &role.db_name).await?.ok_or_else(|| Config::missing(&role.db_name));
    config.and_then(|config| config.check_role(&req.name)).map_err(|why| unfinished(why).bad_request())?;
    rotate(engine, cx, &req.name).await.map_err(|failure| match failure {
        Failure::Database(error) => unfinished(error).internal(),
        Failure::Other(error) => error,
    })
}

/// Rotates the passwords that are due.
///
/// # Errors
/// The first error of storage; an error of a database is stored in its role, and the rotation is retried.
pub(super) async fn tick(engine: &DatabaseEngine, cx: &mut Cx) -> Result<()> {
    if engine.next_rotation.get(&()).is_some_and(|next| next > cx.now()) {
        return Ok(());
    }
    let read_in = engine.next_rotation.epoch();
    let mut earliest = NEVER;
    for name in STATIC_ROLES.list(cx, "", &Page::all()).await? {
        let now = cx.now();
        let Some(role) = STATIC_ROLES.get(cx, &name).await? else { continue };
        if role.due(now) > now {
            earliest = earliest.min(role.due(now));
            continue;
        }
        if let Err(failure) = rotate(engine, cx, &name).await {
            let error = Error::from(failure);
            tracing::error!(role = %name, %error, "rotating a password failed; it is retried");
        }
        earliest = STATIC_ROLES.get(cx, &name).await?.map_or(earliest, |role| earliest.min(role.due(now)));
    }
    engine.next_rotation.insert(read_in, (), earliest);
    Ok(())
}

/// The time of the next rotation, so that earlier ticks read no role. A change of a role invalidates it.
pub(super) type NextRotation = ReadCache<(), Timestamp>;

/// Rotates a password in two steps; a failure delays the next attempt.
///
/// # Errors
/// Those of the database or of storage.
pub(super) async fn rotate(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<(), Failure> {
    let busy = || Error::invalid("a rotation of this role is running");
    let _turn = engine.rotating_static.begin(name).ok_or_else(busy)?;
    let failure = match attempt(engine, cx, name).await {
        Ok(()) => return Ok(()),
        Err(failure) => failure,
    };
    if let Some(mut role) = STATIC_ROLES.get(cx, name).await? {
        role.failures = role.failures.saturating_add(1);
        role.retry = Some(cx.now().after(pause(role.failures)));
        STATIC_ROLES.put(cx, name, &role)?;
        cx.checkpoint().await?;
    }
    Err(failure)
}

async fn attempt(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<(), Failure> {
    let gone = || Error::invalid("no static role found for role name");
    let mut role = STATIC_ROLES.get(cx, name).await?.ok_or_else(gone)?;
    let config = Config::find(engine, cx, &role.db_name).await?.ok_or_else(|| Config::missing(&role.db_name))?;
    let database = rotation::database(engine, cx, &role.db_name, &config).await?;
    let is_first_try = role.pending.is_none();
    let password = match &role.pending {
        Some(pending) => SecretString::new(pending.clone()),
        None => username::password(cx, role.credential_config.password_policy(&config)).await?,
    };
    if is_first_try {
        role.pending = Some(password.expose().clone());
        STATIC_ROLES.put(cx, name, &role)?;
        cx.checkpoint().await?;
    }
    let failed = |error: DatabaseError| error.with_text(|text| within("error setting credentials", &text)).into();
    match change(&*database, &role, &password).await {
        Ok(Outcome::Old) => {
            settle(cx, name, &password, false).await?;
            Err(DatabaseError::new("the database does not accept the new password").into())
        }
        Ok(_) => Ok(settle(cx, name, &password, true).await?),
        // Nothing that was sent can take effect later.
        Err(ChangePasswordError::Unchanged(error)) if is_first_try => {
            settle(cx, name, &password, false).await?;
            Err(failed(error))
        }
        Err(other) => Err(failed(other.into_error())),
    }
}

/// Sets the password of a user. `Ok` contains the password that the user has.
async fn change(
    database: &dyn Database,
    role: &StaticRole,
    password: &SecretString,
) -> Result<Outcome, ChangePasswordError> {
    let old = role.rotated.map(|_| SecretString::new(role.password.clone()));
    let set = || database.set_password(&role.username, password, &role.rotation_statements);
    let name = &role.username;
    match set().await {
        Ok(()) if are_blank(&role.rotation_statements) => Ok(Outcome::New),
        // Statements of an operator can succeed without an effect. If no login can tell, they count as successful.
        Ok(()) if has_old_only(database, name, old.as_ref(), password).await => Ok(Outcome::Old),
        Ok(()) => Ok(Outcome::New),
        Err(ChangePasswordError::Unknown(error)) => {
            match check_password(database, name, old.as_ref(), password).await {
                Some(Outcome::New) => Ok(Outcome::New),
                // The change may still be in flight, so the old password proves nothing: only an acknowledgement does.
                _ => set().await.map(|()| Outcome::New).map_err(|_| ChangePasswordError::Unknown(error)),
            }
        }
        Err(other) => Err(other),
    }
}

/// Makes the pending password the current one, or discards it.
async fn settle(cx: &mut Cx, name: &str, password: &SecretString, is_new: bool) -> Result<()> {
    let mut attempts = Attempts::default();
    loop {
        let Some(mut role) = STATIC_ROLES.get(cx, name).await? else { return Ok(()) };
        if role.pending.as_ref() != Some(password.expose()) {
            // The role was deleted and created again.
            return Ok(());
        }
        if is_new {
            role.password.zeroize();
            role.password = password.expose().clone();
            role.rotated = Some(cx.now());
            role.retry = None;
            role.failures = 0;
        }
        role.pending.zeroize();
        role.pending = None;
        STATIC_ROLES.put(cx, name, &role)?;
        if attempts.commit(cx).await? {
            return Ok(());
        }
    }
}
