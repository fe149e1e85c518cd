//! `static-roles/` and `static-creds/`: users that exist, whose passwords are changed on time.

use keepfast_crypto::secret::SecretString;
use keepfast_framework::fields::{Seconds, Strings, Text};
use keepfast_framework::routes::{Exists, Nothing};
use keepfast_framework::{Cx, Data, Error, Keys, Page, Records, Result, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::config::Config;
use super::connection::DatabaseError;
use super::roles::ROLES;
use super::rotation::which;
use super::statement::plain;
use super::{DatabaseEngine, username};

pub(super) const STATIC_ROLES: Records<StaticRole> = Records::at("static-role/");
/// The shortest period, in seconds.
const SHORTEST: u64 = 5;

/// What is stored of a user whose password is changed on time.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct StaticRole {
    db_name: String,
    username: String,
    /// Seconds.
    rotation_period: u64,
    rotation_statements: Vec<String>,
    /// When the password was changed last; `None` before the first time.
    rotated: Option<Timestamp>,
    /// When the next try is, after one that failed.
    #[serde(default)]
    retry: Option<Timestamp>,
    password: String,
    /// The next password, while the database may or may not have it.
    #[serde(default)]
    pending: Option<String>,
}

impl Drop for StaticRole {
    fn drop(&mut self) {
        self.password.zeroize();
        self.pending.zeroize();
    }
}

impl StaticRole {
    fn next(&self) -> Option<Timestamp> {
        self.rotated.map(|at| at.after(std::time::Duration::from_secs(self.rotation_period)))
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let due = self.pending.is_some() || self.next().is_none_or(|next| next <= now);
        due && self.retry.is_none_or(|retry| retry <= now)
    }
}

/// How long after a failure a rotation is tried again, in seconds.
const PAUSE: u64 = 60;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Named {
    /// The name of the role.
    name: Text,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Write {
    /// The name of the role.
    name: Text,
    /// The connection to use.
    db_name: Option<Text>,
    /// The user, who exists.
    username: Option<Text>,
    /// How often the password is changed.
    rotation_period: Option<Seconds>,
    /// Statements that change the password.
    rotation_statements: Option<Strings>,
    /// `password`.
    credential_type: Option<Text>,
    /// Not supported yet.
    rotation_schedule: Option<Text>,
}

#[derive(Serialize)]
pub(super) struct Shown {
    credential_type: &'static str,
    db_name: String,
    last_vault_rotation: Option<String>,
    rotation_period: u64,
    rotation_statements: Vec<String>,
    username: String,
}

#[derive(Serialize)]
pub(super) struct Creds {
    last_vault_rotation: Option<String>,
    password: String,
    rotation_period: u64,
    ttl: u64,
    username: String,
}

pub(super) async fn list(_: &DatabaseEngine, cx: &mut Cx, _: Nothing) -> Result<Keys> {
    Ok(Keys::of(STATIC_ROLES.list(cx, "", &Page::all()).await?))
}

pub(super) async fn exists(_: &DatabaseEngine, cx: &mut Cx, req: Named) -> Result<Exists> {
    Ok(Exists(STATIC_ROLES.get(cx, &req.name).await?.is_some()))
}

pub(super) async fn read(_: &DatabaseEngine, cx: &mut Cx, req: Named) -> Result<Option<Data<Shown>>> {
    Ok(STATIC_ROLES.get(cx, &req.name).await?.map(|role| {
        Data(Shown {
            credential_type: "password",
            db_name: role.db_name.clone(),
            last_vault_rotation: role.rotated.map(Timestamp::rfc3339),
            rotation_period: role.rotation_period,
            rotation_statements: role.rotation_statements.clone(),
            username: role.username.clone(),
        })
    }))
}

pub(super) async fn write(engine: &DatabaseEngine, cx: &mut Cx, req: Write) -> Result<()> {
    if req.rotation_schedule.is_some() {
        return Err(Error::invalid("rotation_schedule is not supported yet"));
    }
    if req.credential_type.as_ref().is_some_and(|k| k.0 != "password") {
        return Err(Error::invalid("credential_type other than \"password\" is not supported yet for static roles"));
    }
    if ROLES.get(cx, &req.name).await?.is_some() {
        return Err(Error::invalid("Role and Static Role names must be unique"));
    }
    let existing = STATIC_ROLES.get(cx, &req.name).await?;
    let is_new = existing.is_none();
    let mut role = match existing {
        Some(role) => changed(role, &req.username)?,
        None => fresh(&req)?,
    };
    if let Some(name) = req.db_name {
        role.db_name = name.into();
    }
    if let Some(Seconds(period)) = req.rotation_period {
        if period < SHORTEST {
            return Err(Error::invalid("rotation_period must be 5 seconds or more"));
        }
        role.rotation_period = period;
    }
    if let Some(statements) = req.rotation_statements {
        role.rotation_statements = statements.0;
    }
    let config = Config::named(cx, &role.db_name).await?;
    if !config.allows(&req.name) {
        return Err(Error::invalid(format!("{:?} is not an allowed role", req.name.0)));
    }
    STATIC_ROLES.put(cx, &req.name, &role)?;
    if !is_new {
        return Ok(());
    }
    let rotated = rotate(engine, cx, &req.name).await;
    if rotated.is_err()
        && STATIC_ROLES.get(cx, &req.name).await?.is_some_and(|r| r.rotated.is_none() && r.pending.is_none())
    {
        // The user keeps its password, and there is nothing here to remember.
        STATIC_ROLES.delete(cx, &req.name);
        cx.checkpoint().await?;
    }
    rotated
}

fn fresh(req: &Write) -> Result<StaticRole> {
    let text = |field: &Option<Text>| field.as_ref().map(|t| t.0.clone()).filter(|t| !t.is_empty());
    let username =
        text(&req.username).ok_or_else(|| Error::invalid("username is a required field to create a static account"))?;
    if !plain(&username) {
        return Err(Error::invalid("username has quotes, backslashes or control characters"));
    }
    let db_name = text(&req.db_name).ok_or_else(|| Error::invalid("database name is a required field"))?;
    if req.rotation_period.is_none() {
        return Err(Error::invalid("rotation_period is required to create static accounts"));
    }
    Ok(StaticRole {
        db_name,
        username,
        rotation_period: SHORTEST,
        rotation_statements: Vec::new(),
        rotated: None,
        retry: None,
        password: String::new(),
        pending: None,
    })
}

/// The peer refuses an update that does not repeat the user's name too.
fn changed(role: StaticRole, username: &Option<Text>) -> Result<StaticRole> {
    if username.as_ref().is_none_or(|name| name.0 != role.username) {
        return Err(Error::invalid("cannot update static account username"));
    }
    Ok(role)
}

pub(super) async fn delete(_: &DatabaseEngine, cx: &mut Cx, req: Named) -> Result<()> {
    STATIC_ROLES.delete(cx, &req.name);
    Ok(())
}

pub(super) async fn creds(_: &DatabaseEngine, cx: &mut Cx, req: Named) -> Result<Data<Creds>> {
    let unknown = || Error::invalid(format!("unknown role: {}", req.name.0));
    let role = STATIC_ROLES.get(cx, &req.name).await?.ok_or_else(unknown)?;
    Ok(Data(Creds {
        last_vault_rotation: role.rotated.map(Timestamp::rfc3339),
        password: role.password.clone(),
        rotation_period: role.rotation_period,
        ttl: role.next().map_or(0, |next| next.since(cx.now()).as_secs()),
        username: role.username.clone(),
    }))
}

/// `rotate-role/`: now instead of on time.
pub(super) async fn rotate_now(engine: &DatabaseEngine, cx: &mut Cx, req: Named) -> Result<()> {
    if STATIC_ROLES.get(cx, &req.name).await?.is_none() {
        return Err(Error::invalid("no static role found for role name"));
    }
    rotate(engine, cx, &req.name).await
}

/// Changes what is due.
///
/// # Errors
/// The first failure of storage; one of a database is noted with its role, and tried again.
pub(super) async fn tick(engine: &DatabaseEngine, cx: &mut Cx) -> Result<()> {
    for name in STATIC_ROLES.list(cx, "", &Page::all()).await? {
        let now = cx.now();
        if !STATIC_ROLES.get(cx, &name).await?.is_some_and(|role| role.is_due(now)) {
            continue;
        }
        if let Err(error) = rotate(engine, cx, &name).await {
            tracing::error!(role = %name, %error, "a password could not be rotated; it is tried again");
        }
    }
    Ok(())
}

/// Changes a password in two steps. A `pending` password of an earlier try is judged first: the database may have it.
async fn rotate(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<()> {
    let busy = || Error::invalid("a rotation of this role is under way");
    let _turn = engine.rotating_static.begin(name).ok_or_else(busy)?;
    let gone = || Error::invalid("no static role found for role name");
    let role = STATIC_ROLES.get(cx, name).await?.ok_or_else(gone)?;
    if role.pending.is_some() && settle(engine, cx, name).await? {
        return Ok(());
    }
    let config = Config::named(cx, &role.db_name).await?;
    let database = engine.connections.of(&role.db_name, &config, cx.clock())?;
    let password = username::password();
    let mut next = role.clone();
    next.pending = Some(password.expose().clone());
    next.retry = Some(cx.now().after(std::time::Duration::from_secs(PAUSE)));
    STATIC_ROLES.put(cx, name, &next)?;
    cx.checkpoint().await?;
    let changed = database.set_password(&role.username, &password, &role.rotation_statements).await;
    let settled = settle(engine, cx, name).await;
    match (settled, changed) {
        (Ok(true), _) => Ok(()),
        (_, Err(DatabaseError(text))) => Err(DatabaseError(format!("error setting credentials: {text}")).answer()),
        (Err(error), _) => Err(error),
        (Ok(false), Ok(())) => Err(DatabaseError("the database does not accept the new password".to_owned()).answer()),
    }
}

/// Finds out whether the database has the pending password, and keeps the one that it has. Whether that is the pending one.
///
/// Before the first rotation nobody here knows the user's old password: then only the pending one can be proved.
async fn settle(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<bool> {
    let Some(mut role) = STATIC_ROLES.get(cx, name).await? else { return Ok(false) };
    let Some(pending) = role.pending.clone().map(SecretString::new) else { return Ok(false) };
    let config = Config::named(cx, &role.db_name).await?;
    let database = engine.connections.of(&role.db_name, &config, cx.clock())?;
    let old = SecretString::new(role.password.clone());
    let found = which(&*database, &role.username, &old, &pending, &role.rotation_statements).await;
    let found = found.map_err(DatabaseError::answer)?;
    let is_new = found == Some(true);
    if is_new {
        role.password.zeroize();
        role.password = pending.expose().clone();
        role.rotated = Some(cx.now());
        role.retry = None;
    }
    if found.is_some() || role.rotated.is_none() {
        role.pending.zeroize();
        role.pending = None;
    }
    STATIC_ROLES.put(cx, name, &role)?;
    cx.checkpoint().await?;
    Ok(is_new)
}
