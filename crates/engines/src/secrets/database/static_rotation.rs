//! The rotation of static roles: at creation, on time, by hand, and again after a failure.
//!
//! At most two passwords are stored: the current one, and a pending one that is stored before the database gets it. A
//! pending password that the database acknowledges is the current one from then on. Without an answer both are kept and can
//! be read, and the next try sends the same pending password again.

use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Cx, Error, Page, Result, Timestamp};
use parking_lot::Mutex;
use zeroize::Zeroize;

use super::config::Config;
use super::connection::{Database, DatabaseError, NotChanged};
use super::rotation::{self, Outcome, has_old_only, judge, within};
use super::statement::are_blank;
use super::static_roles::{NEVER, Named, STATIC_ROLES, StaticRole};
use super::undecided::pause;
use super::{DatabaseEngine, username};

/// How often a commit that conflicts is repeated.
const TRIES: usize = 64;

/// Why a password was not rotated.
pub(super) enum Failure {
    /// The database or the way to it.
    OfDatabase(DatabaseError),
    /// Anything else.
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Other(error)
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        Failure::OfDatabase(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::OfDatabase(error) => error.answer(),
            Failure::Other(error) => error,
        }
    }
}

/// `rotate-role/`: now instead of on time.
pub(super) async fn rotate_now(engine: &DatabaseEngine, cx: &mut Cx, req: Named) -> Result<()> {
    let none = || Error::invalid("no static role found for role name");
    let role = STATIC_ROLES.get(cx, &req.name).await?.ok_or_else(none)?;
    let unfinished = |error: DatabaseError| {
        error.reworded(|text| format!(
            "unable to finish rotating credentials; retries will continue in the background but it is also safe to retry manually: {text}"
        ))
    };
    let config = Config::find(cx, &role.db_name).await?.ok_or_else(|| Config::missing(&role.db_name));
    config.and_then(|config| config.allow(&req.name)).map_err(|why| unfinished(why).refusal())?;
    rotate(engine, cx, &req.name).await.map_err(|failure| match failure {
        Failure::OfDatabase(error) => unfinished(error).answer(),
        Failure::Other(error) => error,
    })
}

/// Changes what is due.
///
/// # Errors
/// The first failure of storage; one of a database is noted with its role, and tried again.
pub(super) async fn tick(engine: &DatabaseEngine, cx: &mut Cx) -> Result<()> {
    if !engine.next_rotation.may_be_due(cx.now()) {
        return Ok(());
    }
    let seen = engine.next_rotation.look();
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
            tracing::error!(role = %name, %error, "a password could not be rotated; it is tried again");
        }
        earliest = STATIC_ROLES.get(cx, &name).await?.map_or(earliest, |role| earliest.min(role.due(now)));
    }
    engine.next_rotation.note(seen, earliest);
    Ok(())
}

/// When the next rotation is due, so that ticks in between need not look at any role.
#[derive(Default)]
pub(super) struct NextRotation(Mutex<(u64, Timestamp)>);

impl NextRotation {
    fn may_be_due(&self, now: Timestamp) -> bool {
        self.0.lock().1 <= now
    }

    /// What to hand to [`NextRotation::note`] after all roles were looked at.
    fn look(&self) -> u64 {
        self.0.lock().0
    }

    /// Notes what was found, unless a role has changed since.
    fn note(&self, seen: u64, at: Timestamp) {
        let mut noted = self.0.lock();
        if noted.0 == seen {
            noted.1 = at;
        }
    }

    /// A role has changed: what was noted may be too late.
    pub(super) fn forget(&self) {
        let mut noted = self.0.lock();
        *noted = (noted.0 + 1, Timestamp::EPOCH);
    }
}

/// Changes a password in two steps; a failure puts off the next try.
///
/// # Errors
/// What the database or storage fails with.
pub(super) async fn rotate(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<(), Failure> {
    let busy = || Error::invalid("a rotation of this role is under way");
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
    let config = Config::find(cx, &role.db_name).await?.ok_or_else(|| Config::missing(&role.db_name))?;
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
    let failed = |error: DatabaseError| error.reworded(|text| within("error setting credentials", &text)).into();
    match change(&*database, &role, &password).await {
        Ok(Outcome::Old) => {
            settle(cx, name, &password, false).await?;
            Err(DatabaseError::new("the database does not accept the new password").into())
        }
        Ok(_) => Ok(settle(cx, name, &password, true).await?),
        // Nothing that was sent can take effect any more.
        Err(NotChanged::Refused(error)) if is_first_try => {
            settle(cx, name, &password, false).await?;
            Err(failed(error))
        }
        Err(other) => Err(failed(other.into_error())),
    }
}

/// Gives a user a password: `Ok` with the password that the user has.
async fn change(database: &dyn Database, role: &StaticRole, password: &SecretString) -> Result<Outcome, NotChanged> {
    let old = role.rotated.map(|_| SecretString::new(role.password.clone()));
    let set = || database.set_password(&role.username, password, &role.rotation_statements);
    let name = &role.username;
    match set().await {
        Ok(()) if are_blank(&role.rotation_statements) => Ok(Outcome::New),
        // Statements of an operator can succeed without any effect. Where no login can tell, they are believed.
        Ok(()) if has_old_only(database, name, old.as_ref(), password).await => Ok(Outcome::Old),
        Ok(()) => Ok(Outcome::New),
        Err(NotChanged::Unanswered(error)) => match judge(database, name, old.as_ref(), password).await {
            Some(Outcome::New) => Ok(Outcome::New),
            // What was sent may be on its way yet, so that the old password proves nothing: only an answer does.
            _ => set().await.map(|()| Outcome::New).map_err(|_| NotChanged::Unanswered(error)),
        },
        Err(other) => Err(other),
    }
}

/// Makes the pending password the current one, or forgets it.
async fn settle(cx: &mut Cx, name: &str, password: &SecretString, is_new: bool) -> Result<()> {
    for _ in 0..TRIES {
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
        match cx.checkpoint().await {
            // A request has changed the role meanwhile.
            Err(error) if error.is_conflict() => {}
            done => return done.map(drop),
        }
    }
    Err(Error::internal("a rotation was not stored: conflicts without end"))
}
