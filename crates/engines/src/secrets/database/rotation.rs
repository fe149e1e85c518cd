//! Changing a password in two steps, so that it is never lost: the new one is stored beside the old one, then the database
//! is told, then a login proves which of the two it has, and that one is kept.

use std::collections::HashSet;
use std::sync::Arc;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Cx, Error, Page, Records, Result};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::config::{Config, Named};
use super::connection::{Database, DatabaseError};
use super::details::text;
use super::{DatabaseEngine, username};

/// New passwords of administrators that the database may or may not have.
pub(super) const PENDING: Records<Pending> = Records::at("rotating/");

/// A password on its way.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Pending {
    password: String,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.password.zeroize();
    }
}

impl Pending {
    pub(super) fn new(password: &SecretString) -> Self {
        Pending { password: password.expose().clone() }
    }

    pub(super) fn password(&self) -> SecretString {
        SecretString::new(self.password.clone())
    }
}

/// What is being rotated in this process.
#[derive(Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<HashSet<String>>>);

/// One rotation; over when it is dropped.
pub(super) struct Turn {
    under_way: UnderWay,
    name: String,
}

impl UnderWay {
    /// Begins a rotation of this name; `None` while another one is under way.
    pub(super) fn begin(&self, name: &str) -> Option<Turn> {
        let begun = self.0.lock().insert(name.to_owned());
        begun.then(|| Turn { under_way: self.clone(), name: name.to_owned() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.under_way.0.lock().remove(&self.name);
    }
}

/// `rotate-root/`: a password for the administrator that nobody but this server knows.
pub(super) async fn rotate_root(engine: &DatabaseEngine, cx: &mut Cx, req: Named) -> Result<()> {
    let busy = || Error::invalid("a rotation of this connection is under way");
    let _turn = engine.rotating.begin(&req.name).ok_or_else(busy)?;
    recover(engine, cx, &req.name).await?;
    let config = Config::named(cx, &req.name).await?;
    let administrator = text(&config.details, "username").ok_or_else(|| {
        DatabaseError("unable to rotate root credentials: no username in configuration".to_owned()).refusal()
    })?;
    let database = engine.connections.of(&req.name, &config, cx.clock())?;
    let password = username::password(cx, config.password_policy()).await?;
    PENDING.put(cx, &req.name, &Pending::new(&password))?;
    cx.checkpoint().await?;
    let changed = database.set_password(&administrator, &password, &config.root_rotation_statements).await;
    // Whether or not the answer arrived: a login tells which password the database has.
    let settled = recover(engine, cx, &req.name).await?;
    match (settled, changed) {
        (Some(true), _) => Ok(()),
        (_, Err(DatabaseError(text))) => Err(within("failed to update user", &text).answer()),
        _ => Err(DatabaseError("the database does not accept the new password".to_owned()).answer()),
    }
}

/// A failure of a statement inside of another failure, as the peer shows it.
pub(super) fn within(what: &str, text: &str) -> DatabaseError {
    DatabaseError(format!("{what}: 1 error occurred:\n\t* {text}\n\n"))
}

/// Finds out which password an administrator has after a rotation that did not end, and keeps that one: `Some(true)` for
/// the new one. Leaves everything as it is when the database cannot be asked.
///
/// # Errors
/// 500 when the database cannot be asked; when storage fails.
pub(super) async fn recover(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<Option<bool>> {
    let Some(pending) = PENDING.get(cx, name).await? else { return Ok(None) };
    let mut config = Config::named(cx, name).await?;
    let administrator = text(&config.details, "username").unwrap_or_default();
    let database = engine.connections.of(name, &config, cx.clock())?;
    let statements = config.root_rotation_statements.clone();
    let Some(is_new) = which(&*database, &administrator, &config.password(), &pending.password(), &statements)
        .await
        .map_err(DatabaseError::answer)?
    else {
        return Err(DatabaseError("the database accepts neither the old nor the new password".to_owned()).answer());
    };
    if is_new {
        config.replace_password(&pending.password());
        config.save(cx, name)?;
    }
    PENDING.delete(cx, name);
    cx.checkpoint().await?;
    engine.connections.close(name);
    Ok(Some(is_new))
}

/// Finishes a rotation that an earlier process began, so that nobody waits for the next tick.
///
/// # Errors
/// As [`recover`].
pub(super) async fn recover_if_pending(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<()> {
    if PENDING.get(cx, name).await?.is_none() {
        return Ok(());
    }
    match engine.rotating.begin(name) {
        Some(_turn) => recover(engine, cx, name).await.map(drop),
        None => Ok(()),
    }
}

/// Which of two passwords works: `Some(true)` the new one, `Some(false)` the old one, `None` neither.
///
/// Where the old one still works the new one is set once more: what was tried first may be on its way yet, in a connection
/// that stood still, and only the same password cannot be undone by it.
pub(super) async fn which(
    database: &dyn Database,
    user: &str,
    old: &SecretString,
    new: &SecretString,
    statements: &[String],
) -> Result<Option<bool>, DatabaseError> {
    if database.accepts(user, new).await? {
        return Ok(Some(true));
    }
    if !database.accepts(user, old).await? {
        return Ok(None);
    }
    if let Err(DatabaseError(text)) = database.set_password(user, new, statements).await {
        tracing::warn!(error = %text, "a rotation that did not end could not be repeated");
    }
    database.accepts(user, new).await.map(Some)
}

/// Finishes what an earlier process began.
///
/// # Errors
/// The first failure; what is left is tried again at the next tick.
pub(super) async fn recover_all(engine: &DatabaseEngine, cx: &mut Cx) -> Result<()> {
    let mut outcome = Ok(());
    for name in PENDING.list(cx, "", &Page::all()).await? {
        let Some(_turn) = engine.rotating.begin(&name) else { continue };
        outcome = outcome.and(recover(engine, cx, &name).await.map(drop));
    }
    outcome
}
