//! Rotation of the administrator's password, and the rules by which no password is lost.
//!
//! The new password is stored before the database gets it. What the database acknowledges is the current password. Without
//! an acknowledgement both passwords are kept, and tried at connect, until one of them is proved.

use std::collections::HashSet;
use std::sync::Arc;

use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Cx, Error, Page, Records, Result};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::config::{Config, Named};
use super::connection::{Database, DatabaseError, NotChanged};
use super::details::text;
use super::{DatabaseEngine, username};

/// The second passwords of administrators, by connection.
pub(super) const PENDING: Records<Pending> = Records::at("rotating/");
/// How often a commit that conflicts is repeated.
const TRIES: usize = 64;

/// A second password of an administrator, beside the one of the connection.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Pending {
    /// The administrator; empty in records of older versions.
    #[serde(default)]
    username: String,
    password: String,
    /// Whether this is the password before a rotation that the database has acknowledged. Otherwise it is the new one of a
    /// rotation without an answer.
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
        Pending { username: username.to_owned(), password: password.expose().clone(), is_old: false }
    }

    fn password(&self) -> SecretString {
        SecretString::new(self.password.clone())
    }
}

/// The rotations that run in this process.
#[derive(Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<HashSet<String>>>);

/// A running rotation; over when it is dropped.
pub(super) struct Turn {
    under_way: UnderWay,
    name: String,
}

impl UnderWay {
    /// Begins a rotation of this name; `None` while another one runs.
    pub(super) fn begin(&self, name: &str) -> Option<Turn> {
        let begun = self.0.lock().insert(name.to_owned());
        begun.then(|| Turn { under_way: self.clone(), name: name.to_owned() })
    }

    /// Whether a rotation of this name runs.
    fn runs(&self, name: &str) -> bool {
        self.0.lock().contains(name)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.under_way.0.lock().remove(&self.name);
    }
}

/// Which password a database has after a rotation.
pub(super) enum Outcome {
    /// Nothing was undecided.
    Settled,
    /// The new one.
    New,
    /// The old one.
    Old,
    /// Not known; both are kept.
    Undecided(DatabaseError),
}

/// `rotate-root/`: sets a password of the administrator that only this server knows.
pub(super) async fn rotate_root(engine: &DatabaseEngine, cx: &mut Cx, req: Named) -> Result<()> {
    let name = &*req.name;
    let _turn = engine.rotating.begin(name).ok_or_else(busy)?;
    if let Outcome::Undecided(error) = recover(engine, cx, name).await? {
        return Err(error.reworded(|text| within("an earlier rotation is undecided", &text)).answer());
    }
    let config = Config::named(cx, name).await?;
    let administrator = administrator(&config)?;
    let database = engine.connections.of(name, &config, cx.clock())?;
    let password = username::password(cx, config.password_policy()).await?;
    PENDING.put(cx, name, &Pending::new(&administrator, &password))?;
    cx.checkpoint().await?;
    let failed = |error: DatabaseError| error.reworded(|text| within("failed to update user", &text)).answer();
    match database.set_own_password(&administrator, &password, &config.root_rotation_statements).await {
        Ok(()) => acknowledge(cx, name, &password).await?,
        Err(NotChanged::Refused(error)) => {
            PENDING.delete(cx, name);
            cx.checkpoint().await?;
            return Err(failed(error));
        }
        Err(NotChanged::Unsaved(error)) => return Err(failed(error)),
        Err(NotChanged::Unanswered(error)) => {
            return match recover(engine, cx, name).await? {
                Outcome::New | Outcome::Settled => Ok(()),
                Outcome::Old | Outcome::Undecided(_) => Err(failed(error)),
            };
        }
    }
    let outcome = prove(engine, cx, name).await;
    note(engine, cx, name, outcome.as_ref().ok());
    match outcome? {
        Outcome::Old => Err(DatabaseError::new("the database does not accept the new password").answer()),
        Outcome::Undecided(error) => {
            cx.warn(format!(
                "The database has acknowledged the new password, but a login with it fails ({}). The old password is kept too, \
                 and each is tried until a login succeeds.",
                error.text()
            ));
            Ok(())
        }
        Outcome::New | Outcome::Settled => Ok(()),
    }
}

fn busy() -> Error {
    Error::invalid("a rotation of this connection is under way")
}

/// The administrator whose password can be rotated.
fn administrator(config: &Config) -> Result<String> {
    let refused = |why: &str| DatabaseError::new(format!("unable to rotate root credentials: {why}")).refusal();
    let name = text(&config.details, "username").ok_or_else(|| refused("no username in configuration"))?;
    // The connection would keep the password that its URL has.
    let is_template = |url: String| url.contains("{{password}}") && url.contains("{{username}}");
    match text(&config.details, "connection_url").map(is_template) {
        Some(false) => Err(refused("connection_url must have {{username}} and {{password}} in place of their values")),
        _ => Ok(name),
    }
}

/// An error inside of another one, in OpenBao's form.
pub(super) fn within(what: &str, text: &str) -> String {
    format!("{what}: 1 error occurred:\n\t* {text}\n\n")
}

/// Makes an acknowledged password the connection's, and keeps the old one beside it until [`prove`] has decided.
async fn acknowledge(cx: &mut Cx, name: &str, password: &SecretString) -> Result<()> {
    for _ in 0..TRIES {
        let mut config = Config::named(cx, name).await?;
        let administrator = text(&config.details, "username").unwrap_or_default();
        let mut old = Pending::new(&administrator, &config.password());
        old.is_old = true;
        config.replace_password(password);
        config.save(cx, name)?;
        PENDING.put(cx, name, &old)?;
        match cx.checkpoint().await {
            // A request has changed the connection meanwhile.
            Err(error) if error.is_conflict() => {}
            done => return done.map(drop),
        }
    }
    Err(Error::internal("a rotation was not stored: conflicts without end"))
}

/// Judges an acknowledged rotation by logging in, because statements of an operator can succeed without any effect.
async fn prove(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<Outcome> {
    for _ in 0..TRIES {
        let Some(old) = PENDING.get(cx, name).await?.filter(|pending| pending.is_old) else {
            return Ok(Outcome::Settled);
        };
        let mut config = Config::named(cx, name).await?;
        // Its sessions are those of the old password, and may use up the administrator's.
        engine.connections.close(name);
        let database = engine.connections.of(name, &config, cx.clock())?;
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
        match cx.checkpoint().await {
            Err(error) if error.is_conflict() => {}
            done => return done.map(|_| outcome),
        }
    }
    Err(Error::internal("a rotation was not stored: conflicts without end"))
}

/// Decides a rotation that an earlier request or process left undecided, and keeps the password that the database has.
///
/// The pending password is set once more: what was sent first may be on its way yet, and only the same password cannot be
/// undone by it. So no pending password is discarded because the old one works.
///
/// # Errors
/// When storage fails. Errors of the database are [`Outcome::Undecided`].
pub(super) async fn recover(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<Outcome> {
    let outcome = decide(engine, cx, name).await;
    note(engine, cx, name, outcome.as_ref().ok());
    outcome
}

/// Begins a pause after a failure, or forgets earlier ones.
fn note(engine: &DatabaseEngine, cx: &Cx, name: &str, outcome: Option<&Outcome>) {
    match outcome {
        None | Some(Outcome::Undecided(_)) => engine.undecided.failed(name, cx.now()),
        Some(_) => engine.undecided.forget(name),
    }
}

async fn decide(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<Outcome> {
    let Some(pending) = PENDING.get(cx, name).await? else { return Ok(Outcome::Settled) };
    if pending.is_old {
        return prove(engine, cx, name).await;
    }
    let config = Config::named(cx, name).await?;
    let administrator = match pending.username.as_str() {
        "" => text(&config.details, "username").unwrap_or_default(),
        known => known.to_owned(),
    };
    let (old, new) = (config.password(), pending.password());
    let database = engine.connections.of(name, &config, cx.clock())?;
    let is_old = matches!(database.accepts(&administrator, &old).await, Ok(true));
    let is_new = matches!(database.accepts(&administrator, &new).await, Ok(true));
    if is_old || !is_new {
        // Where both are accepted, as with `trust`, a login proves nothing.
        let statements = &config.root_rotation_statements;
        if let Err(failed) = database.set_own_password(&administrator, &new, statements).await {
            let error = failed.into_error();
            tracing::warn!(
                connection = name,
                error = error.logged(),
                "a rotation is undecided; both passwords are kept"
            );
            return Ok(Outcome::Undecided(error));
        }
    }
    acknowledge(cx, name, &new).await?;
    prove(engine, cx, name).await
}

/// The connection of this name with the password that works: the connection's own, or the one of an undecided rotation.
///
/// # Errors
/// 500 with what is wrong with the settings; when storage fails.
pub(super) async fn database(
    engine: &DatabaseEngine,
    cx: &mut Cx,
    name: &str,
    config: &Config,
) -> Result<Arc<dyn Database>> {
    let database = engine.connections.of(name, config, cx.clock())?;
    let Some(pending) = PENDING.get(cx, name).await? else { return Ok(database) };
    let other = engine.connections.second(name, &config.with_password(&pending.password()), cx.clock())?;
    // What worked last is tried first: each use would begin with a wrong login otherwise.
    let second_first = engine.undecided.second_works(name);
    let [first, then] = if second_first { [&other, &database] } else { [&database, &other] };
    for (tried, is_second) in [(first, second_first), (then, !second_first)] {
        if tried.verify().await.is_ok() {
            engine.undecided.note_working(name, is_second);
            return Ok(tried.clone());
        }
    }
    Ok(database)
}

/// Whether a connection may change while its administrator's password is undecided.
///
/// # Errors
/// 400 while a rotation runs, or when another administrator would be left with the pending password.
pub(super) async fn check_change(engine: &DatabaseEngine, cx: &mut Cx, name: &str, config: &Config) -> Result<()> {
    if engine.rotating.runs(name) {
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

/// Verifies changed settings with their password, or with the one of an undecided rotation. A password that the operator
/// gives and that works decides the rotation.
///
/// # Errors
/// When storage fails; inside, that neither password works.
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

/// Forgets the second password of a connection that is deleted.
///
/// # Errors
/// 400 while a rotation runs.
pub(super) fn forget(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<()> {
    if engine.rotating.runs(name) {
        return Err(busy());
    }
    PENDING.delete(cx, name);
    engine.undecided.forget(name);
    Ok(())
}

/// Decides an undecided rotation now instead of at the next tick, where the database can tell.
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

/// The same for a request that uses the connection: not in the pause after a failure, because each try may be a wrong login.
///
/// # Errors
/// When storage fails.
pub(super) async fn recover_if_due(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<()> {
    if engine.undecided.is_due(name, cx.now()) { recover_if_pending(engine, cx, name).await } else { Ok(()) }
}

/// Which of two passwords a user has, by logging in; `None` where that proves neither.
pub(super) async fn judge(
    database: &dyn Database,
    user: &str,
    old: Option<&SecretString>,
    new: &SecretString,
) -> Option<Outcome> {
    if !database.accepts(user, new).await.ok()? {
        return database.accepts(user, old?).await.ok()?.then_some(Outcome::Old);
    }
    // The old password is the wrong one that has to fail.
    let is_proved = match old {
        Some(old) => !database.accepts(user, old).await.ok()?,
        None => refuses_others(database, user).await.ok()?,
    };
    is_proved.then_some(Outcome::New)
}

/// Whether a user has its old password and not the new one, as far as logins tell.
pub(super) async fn has_old_only(
    database: &dyn Database,
    user: &str,
    old: Option<&SecretString>,
    new: &SecretString,
) -> bool {
    let Some(old) = old else { return false };
    matches!(database.accepts(user, new).await, Ok(false)) && matches!(database.accepts(user, old).await, Ok(true))
}

/// Whether a user has this password and no server accepts any other, as `trust` of PostgreSQL and `nopass` of Redis do.
///
/// # Errors
/// When the database cannot tell.
pub(super) async fn proves(
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
/// The first failure of storage; what is undecided is tried again after a pause.
pub(super) async fn recover_all(engine: &DatabaseEngine, cx: &mut Cx) -> Result<()> {
    let mut outcome = Ok(());
    for name in PENDING.list(cx, "", &Page::all()).await? {
        if !engine.undecided.is_due(&name, cx.now()) {
            continue;
        }
        let Some(_turn) = engine.rotating.begin(&name) else { continue };
        outcome = outcome.and(recover(engine, cx, &name).await.map(drop));
    }
    outcome
}
