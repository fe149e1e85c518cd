//! Rotation of the administrator's password, without losing a password.
//!
//! The new password is stored before the database gets it. A password that the database acknowledges is the current
//! one. Without an acknowledgement both passwords are kept and tried at connect, until a login proves one of them.

use std::collections::HashSet;
use std::sync::Arc;

use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Cx, Error, Page, Records, Result};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::config::{Config, ConnectionPath};
use super::connection::{ChangePasswordError, Database, DatabaseError};
use super::details::text;
use super::{DatabaseEngine, username};

/// The folder of [`PENDING`].
pub(super) const PENDING_FOLDER: &str = "rotating/";
/// The second passwords of administrators, by connection.
pub(super) const PENDING: Records<Pending> = Records::at(PENDING_FOLDER);
/// The maximum attempts of a commit that conflicts.
const MAX_ATTEMPTS: usize = 64;

/// The attempts to store a step of a rotation. A request may change the same records meanwhile.
#[derive(Default)]
pub(super) struct Attempts(usize);

impl Attempts {
    /// Commits the step. Returns false after a conflict: then the step reads and writes again.
    ///
    /// # Errors
    /// When storage fails; after too many conflicts.
    pub(super) async fn commit(&mut self, cx: &mut Cx) -> Result<bool> {
        self.0 += 1;
        match cx.checkpoint().await {
            Err(error) if !error.is_conflict() => Err(error),
            Err(_) if self.0 >= MAX_ATTEMPTS => Err(Error::internal("a rotation was not stored: too many conflicts")),
            committed => Ok(committed.is_ok()),
        }
    }
}

/// A second password of an administrator, beside that of the connection.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Pending {
    /// The administrator; empty in records of older versions.
    #[serde(default)]
    username: String,
    password: String,
    /// A random id of the password; empty in records of older versions.
    #[serde(default)]
    revision: String,
    /// Whether this is the password before an acknowledged rotation. Otherwise it is the new one of an unacknowledged
    /// rotation.
    #[serde(default)]
    is_old: bool,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.password.zeroize();
    }
}

impl Pending {
    pub(super) fn new(username: &str, password: &SecretString) -> Self {
        let (username, password) = (username.to_owned(), password.expose().clone());
        Pending { username, password, revision: random::uuid(), is_old: false }
    }

    /// The settings of a connection with this password. Their revision differs from that with any other password.
    fn settings(&self, config: &Config) -> Config {
        let mut settings = config.with_password(&self.password());
        settings.revision = format!("{}/{}", config.revision, self.revision);
        settings
    }

    fn password(&self) -> SecretString {
        SecretString::new(self.password.clone())
    }
}

/// The rotations that run in this process.
#[derive(Clone, Default)]
pub(super) struct RunningRotations(Arc<Mutex<HashSet<String>>>);

/// A running rotation; dropping it ends the rotation.
pub(super) struct RotationGuard {
    running: RunningRotations,
    name: String,
}

impl RunningRotations {
    /// Starts a rotation of this name; `None` while another one runs.
    pub(super) fn begin(&self, name: &str) -> Option<RotationGuard> {
        let started = self.0.lock().insert(name.to_owned());
        started.then(|| RotationGuard { running: self.clone(), name: name.to_owned() })
    }

    /// Whether a rotation of this name runs.
    fn is_running(&self, name: &str) -> bool {
        self.0.lock().contains(name)
    }
}

impl Drop for RotationGuard {
    fn drop(&mut self) {
        self.running.0.lock().remove(&self.name);
    }
}

/// Which password a database has after a rotation.
pub(super) enum Outcome {
    /// There was no undecided rotation.
    Settled,
    /// The new password.
    New,
    /// The old password.
    Old,
    /// Unknown; both passwords are kept.
    Undecided(DatabaseError),
}

/// `rotate-root/`: sets an administrator's password that only this server knows.
pub(super) async fn rotate_root(engine: &DatabaseEngine, cx: &mut Cx, req: ConnectionPath) -> Result<()> {
    let name = &*req.name;
    let _turn = engine.rotating.begin(name).ok_or_else(busy)?;
    if let Outcome::Undecided(error) = recover(engine, cx, name).await? {
        return Err(error.with_text(|text| within("an earlier rotation is undecided", &text)).internal());
    }
    let config = Config::require(engine, cx, name).await?;
    let administrator = administrator(&config)?;
    let database = engine.connections.get(name, &config, cx.clock())?;
    let password = username::password(cx, config.password_policy()).await?;
    PENDING.put(cx, name, &Pending::new(&administrator, &password))?;
    cx.checkpoint().await?;
    let failed = |error: DatabaseError| error.with_text(|text| within("failed to update user", &text)).internal();
    match database.set_own_password(&administrator, &password, &config.root_rotation_statements).await {
        Ok(()) => acknowledge(engine, cx, name, &password).await?,
        Err(ChangePasswordError::Unchanged(error)) => {
            PENDING.delete(cx, name);
            cx.checkpoint().await?;
            return Err(failed(error));
        }
        Err(ChangePasswordError::Unsaved(error)) => return Err(failed(error)),
        Err(ChangePasswordError::Unknown(error)) => {
            return match recover(engine, cx, name).await? {
                Outcome::New | Outcome::Settled => Ok(()),
                Outcome::Old | Outcome::Undecided(_) => Err(failed(error)),
            };
        }
    }
    let outcome = check_acknowledged(engine, cx, name).await;
    record_outcome(engine, cx, name, outcome.as_ref().ok());
    match outcome? {
        Outcome::Old => Err(DatabaseError::new("the database does not accept the new password").internal()),
        Outcome::Undecided(error) => {
            cx.warn(format!(
                "The database has acknowledged the new password, but a login with it fails ({}). The old password is kept too, \
                 and both are tried until a login succeeds.",
                error.text()
            ));
            Ok(())
        }
        Outcome::New | Outcome::Settled => Ok(()),
    }
}

fn busy() -> Error {
    Error::invalid("a rotation of this connection is running")
}

/// The administrator whose password can be rotated.
fn administrator(config: &Config) -> Result<String> {
    let refused = |why: &str| DatabaseError::new(format!("unable to rotate root credentials: {why}")).bad_request();
    let name = text(&config.details, "username").ok_or_else(|| refused("no username in configuration"))?;
    // A URL with the values would keep the old password.
    let is_template = |url: String| url.contains("{{password}}") && url.contains("{{username}}");
    match text(&config.details, "connection_url").map(is_template) {
        Some(false) => Err(refused("connection_url must have {{username}} and {{password}} in place of their values")),
        _ => Ok(name),
    }
}

/// An error inside another one, in OpenBao's format.
pub(super) fn within(what: &str, text: &str) -> String {
    format!("{what}: 1 error occurred:\n\t* {text}\n\n")
}

/// Makes an acknowledged password that of the connection, and keeps the old one beside it until [`check_acknowledged`]
/// has decided.
async fn acknowledge(engine: &DatabaseEngine, cx: &mut Cx, name: &str, password: &SecretString) -> Result<()> {
    let mut attempts = Attempts::default();
    loop {
        let mut config = Config::require(engine, cx, name).await?;
        let administrator = text(&config.details, "username").unwrap_or_default();
        let mut old = Pending::new(&administrator, &config.password());
        old.is_old = true;
        config.replace_password(password);
        config.save(cx, name)?;
        PENDING.put(cx, name, &old)?;
        if attempts.commit(cx).await? {
            return Ok(());
        }
    }
}

/// Checks an acknowledged rotation with a login, because statements of an operator can succeed without an effect.
async fn check_acknowledged(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<Outcome> {
    let mut attempts = Attempts::default();
    loop {
        let Some(old) = PENDING.get(cx, name).await?.filter(|pending| pending.is_old) else {
            return Ok(Outcome::Settled);
        };
        // Its sessions use the old password and count against the administrator's limit. Closed before the read, whose
        // epoch must be the current one for the new connection to be kept.
        engine.connections.close(name);
        let mut config = Config::require(engine, cx, name).await?;
        let database = engine.connections.get(name, &config, cx.clock())?;
        let outcome = match database.accepts(&old.username, &config.password()).await {
            Ok(true) => Outcome::New,
            Ok(false) if matches!(database.accepts(&old.username, &old.password()).await, Ok(true)) => Outcome::Old,
            Ok(false) => Outcome::Undecided(DatabaseError::new("the database does not accept the new password")),
            Err(error) => Outcome::Undecided(error),
        };
        match outcome {
            Outcome::Undecided(_) => return Ok(outcome),
            Outcome::Old => {
                config.replace_password(&old.password());
                config.save(cx, name)?;
            }
            Outcome::New | Outcome::Settled => {}
        }
        PENDING.delete(cx, name);
        if attempts.commit(cx).await? {
            return Ok(outcome);
        }
    }
}

/// Decides a rotation that an earlier request or process left undecided, and keeps the password that the database has.
///
/// It sets the pending password again: the first attempt may still be in flight, and only the same password cannot be
/// undone by it. So the pending password is kept even if the old one works.
///
/// # Errors
/// When storage fails. Errors of the database are [`Outcome::Undecided`].
pub(super) async fn recover(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<Outcome> {
    let outcome = decide(engine, cx, name).await;
    record_outcome(engine, cx, name, outcome.as_ref().ok());
    outcome
}

/// Starts a pause after a failure, or ends it after a success.
fn record_outcome(engine: &DatabaseEngine, cx: &Cx, name: &str, outcome: Option<&Outcome>) {
    match outcome {
        None | Some(Outcome::Undecided(_)) => engine.rotation_backoff.failed(name, cx.now()),
        Some(_) => engine.rotation_backoff.clear(name),
    }
}

async fn decide(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<Outcome> {
    let Some(pending) = PENDING.get(cx, name).await? else { return Ok(Outcome::Settled) };
    if pending.is_old {
        return check_acknowledged(engine, cx, name).await;
    }
    let config = Config::require(engine, cx, name).await?;
    let administrator = match pending.username.as_str() {
        "" => text(&config.details, "username").unwrap_or_default(),
        known => known.to_owned(),
    };
    let (old, new) = (config.password(), pending.password());
    let database = engine.connections.get(name, &config, cx.clock())?;
    let is_old = matches!(database.accepts(&administrator, &old).await, Ok(true));
    let is_new = matches!(database.accepts(&administrator, &new).await, Ok(true));
    if is_old || !is_new {
        // If both are accepted, as with `trust`, a login proves nothing.
        let statements = &config.root_rotation_statements;
        if let Err(failed) = database.set_own_password(&administrator, &new, statements).await {
            let error = failed.into_error();
            tracing::warn!(
                connection = name,
                error = error.log_text(),
                "a rotation is undecided; both passwords are kept"
            );
            return Ok(Outcome::Undecided(error));
        }
    }
    acknowledge(engine, cx, name, &new).await?;
    check_acknowledged(engine, cx, name).await
}

/// The connection of this name with the password that works: that of the connection, or that of an undecided rotation.
///
/// # Errors
/// 500 when a setting is invalid; when storage fails.
pub(super) async fn database(
    engine: &DatabaseEngine,
    cx: &mut Cx,
    name: &str,
    config: &Config,
) -> Result<Arc<dyn Database>> {
    let database = engine.connections.get(name, config, cx.clock())?;
    let Some(pending) = PENDING.get(cx, name).await? else { return Ok(database) };
    let other = engine.connections.second(name, &pending.settings(config), cx.clock())?;
    // The password that worked last is tried first, so that not every use starts with a failed login.
    let second_first = engine.rotation_backoff.second_works(name);
    let [first, then] = if second_first { [&other, &database] } else { [&database, &other] };
    for (tried, is_second) in [(first, second_first), (then, !second_first)] {
        if tried.verify().await.is_ok() {
            engine.rotation_backoff.record_working(name, is_second);
            return Ok(tried.clone());
        }
    }
    Ok(database)
}

/// Checks that a connection may change while its administrator's password is undecided.
///
/// # Errors
/// 400 while a rotation runs, or when the pending password would belong to another administrator.
pub(super) async fn check_change(engine: &DatabaseEngine, cx: &mut Cx, name: &str, config: &Config) -> Result<()> {
    if engine.rotating.is_running(name) {
        return Err(busy());
    }
    let Some(pending) = PENDING.get(cx, name).await? else { return Ok(()) };
    if text(&config.details, "username").is_some_and(|administrator| administrator == pending.username) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "username cannot change while a rotation of its password is undecided: use rotate-root/{name} or reset/{name}, or \
         delete the connection"
    )))
}

/// Verifies changed settings with their password, or with that of an undecided rotation. A working password from the
/// operator decides the rotation.
///
/// # Errors
/// When storage fails; the inner error when neither password works.
pub(super) async fn verify(
    engine: &DatabaseEngine,
    cx: &mut Cx,
    (name, config): (&str, &Config),
    opened: &dyn Database,
    has_password: bool,
) -> Result<Result<(), DatabaseError>> {
    let verified = opened.verify().await;
    let Some(pending) = PENDING.get(cx, name).await? else { return Ok(verified) };
    let Err(error) = verified else {
        if has_password {
            PENDING.delete(cx, name);
        }
        return Ok(Ok(()));
    };
    let other = engine.connections.open(&config.with_password(&pending.password()), cx.clock());
    match other {
        Ok(other) if !has_password && other.verify().await.is_ok() => Ok(Ok(())),
        _ => Ok(Err(error)),
    }
}

/// Deletes the second password of a connection that is deleted.
///
/// # Errors
/// 400 while a rotation runs.
pub(super) fn delete_pending(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<()> {
    if engine.rotating.is_running(name) {
        return Err(busy());
    }
    PENDING.delete(cx, name);
    engine.rotation_backoff.clear(name);
    Ok(())
}

/// Decides an undecided rotation now instead of at the next tick, if the database is reachable.
///
/// # Errors
/// When storage fails.
pub(super) async fn recover_if_pending(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<()> {
    if PENDING.get(cx, name).await?.is_none() {
        return Ok(());
    }
    match engine.rotating.begin(name) {
        Some(_turn) => recover(engine, cx, name).await.map(drop),
        None => Ok(()),
    }
}

/// The same for a request that uses the connection, but not in the pause after a failure, as each attempt may be a
/// failed login.
///
/// # Errors
/// When storage fails.
pub(super) async fn recover_if_due(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<()> {
    if engine.rotation_backoff.is_due(name, cx.now()) { recover_if_pending(engine, cx, name).await } else { Ok(()) }
}

/// Which of two passwords a user has, according to logins; `None` if they prove neither.
pub(super) async fn check_password(
    database: &dyn Database,
    user: &str,
    old: Option<&SecretString>,
    new: &SecretString,
) -> Option<Outcome> {
    if !database.accepts(user, new).await.ok()? {
        return database.accepts(user, old?).await.ok()?.then_some(Outcome::Old);
    }
    // The old password serves as the wrong password that must fail.
    let is_proved = match old {
        Some(old) => !database.accepts(user, old).await.ok()?,
        None => refuses_others(database, user).await.ok()?,
    };
    is_proved.then_some(Outcome::New)
}

/// Whether a user has its old password and not the new one, according to logins.
pub(super) async fn has_old_only(
    database: &dyn Database,
    user: &str,
    old: Option<&SecretString>,
    new: &SecretString,
) -> bool {
    let Some(old) = old else { return false };
    matches!(database.accepts(user, new).await, Ok(false)) && matches!(database.accepts(user, old).await, Ok(true))
}

/// Whether a user has this password and the server refuses other ones, unlike with `trust` of PostgreSQL and `nopass`
/// of Redis.
///
/// # Errors
/// When the database is unreachable.
pub(super) async fn is_only_password(
    database: &dyn Database,
    user: &str,
    password: &SecretString,
) -> Result<bool, DatabaseError> {
    if !database.accepts(user, password).await? {
        return Ok(false);
    }
    refuses_others(database, user).await
}

/// Whether a login with a random password fails.
async fn refuses_others(database: &dyn Database, user: &str) -> Result<bool, DatabaseError> {
    let another = SecretString::new(random::base62(20));
    Ok(!database.accepts(user, &another).await?)
}

/// Decides every undecided rotation whose pause is over.
///
/// # Errors
/// The first error of storage; undecided rotations are retried after a pause.
pub(super) async fn recover_all(engine: &DatabaseEngine, cx: &mut Cx) -> Result<()> {
    let mut outcome = Ok(());
    for name in PENDING.list(cx, "", &Page::all()).await? {
        if !engine.rotation_backoff.is_due(&name, cx.now()) {
            continue;
        }
        let Some(_turn) = engine.rotating.begin(&name) else { continue };
        outcome = outcome.and(recover(engine, cx, &name).await.map(drop));
    }
    outcome
}
