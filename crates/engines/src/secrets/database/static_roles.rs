//! `static-roles/` and `static-creds/`: existing users whose passwords are rotated.

use std::time::Duration;

use keepfast_framework::fields::{Pairs, Seconds, Text, given, unless_null};
use keepfast_framework::routes::{Exists, Paged};
use keepfast_framework::{Cx, Data, Error, Keys, Records, Result, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::DatabaseEngine;
use super::config::Config;
use super::connection::DatabaseError;
use super::credential::{self, CredentialConfig, CredentialType};
use super::details::text;
use super::roles::ROLES;
use super::schedule::Schedule;
use super::statement::{Statements, is_plain};
use super::static_rotation::rotate;

/// The storage prefix of static roles.
pub(super) const FOLDER: &str = "static-role/";
pub(super) const STATIC_ROLES: Records<StaticRole> = Records::at(FOLDER);
/// The time of a rotation that is never due.
pub(super) const NEVER: Timestamp = Timestamp::from_nanos(i64::MAX);
/// The minimum of `rotation_period`, in seconds.
const MIN_PERIOD: u64 = 5;
/// The minimum of `rotation_window`, in seconds.
const MIN_WINDOW: u64 = 3600;

/// The stored record of a user with rotated passwords.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct StaticRole {
    pub(super) db_name: String,
    pub(super) username: String,
    /// In seconds; ignored if there is a schedule.
    rotation_period: u64,
    /// The five fields of cron, in UTC; empty if there is a period.
    #[serde(default)]
    rotation_schedule: String,
    /// How many seconds after a time of the schedule the rotation is allowed; 0 means no limit.
    #[serde(default)]
    rotation_window: u64,
    pub(super) rotation_statements: Vec<String>,
    #[serde(default)]
    pub(super) credential_config: CredentialConfig,
    /// The time of the last rotation; `None` before the first one.
    pub(super) rotated: Option<Timestamp>,
    /// The time of the next attempt after a failed one.
    #[serde(default)]
    pub(super) retry: Option<Timestamp>,
    /// How many attempts have failed since the last rotation.
    #[serde(default)]
    pub(super) failures: u32,
    pub(super) password: String,
    /// The next password, while it is unknown whether the database has it.
    #[serde(default)]
    pub(super) pending: Option<String>,
}

impl Drop for StaticRole {
    fn drop(&mut self) {
        self.password.zeroize();
        self.pending.zeroize();
    }
}

impl StaticRole {
    /// The error of a stored schedule, if it is invalid.
    pub(super) fn schedule_error(&self) -> Option<String> {
        Some(&self.rotation_schedule).filter(|s| !s.is_empty()).and_then(|s| Schedule::parse(s).err())
    }

    /// The time of the next rotation as of `now`; a past time is overdue.
    fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let rotated = self.rotated?;
        if self.rotation_schedule.is_empty() {
            return Some(rotated.after(Duration::from_secs(self.rotation_period)));
        }
        // An invalid schedule has no times.
        match Schedule::parse_stored(&self.rotation_schedule).ok() {
            None => None,
            Some(schedule) if self.rotation_window == 0 => schedule.next(rotated),
            // A time whose window is over is skipped.
            Some(schedule) => {
                let window = i64::try_from(self.rotation_window).unwrap_or(i64::MAX);
                schedule.next(rotated.max(Timestamp::from_unix(now.unix().saturating_sub(window))))
            }
        }
    }

    /// The time of the next rotation or of the next attempt to finish one, as of `now`.
    pub(super) fn due(&self, now: Timestamp) -> Timestamp {
        let unfinished = self.pending.is_some() || self.rotated.is_none();
        let wanted = if unfinished { now } else { self.next(now).unwrap_or(NEVER) };
        wanted.max(self.retry.unwrap_or(wanted))
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct StaticRolePath {
    /// The name of the role.
    pub(super) name: Text,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Write {
    /// The name of the role.
    name: Text,
    /// The name of the connection.
    db_name: Option<Text>,
    /// The name of the existing user.
    username: Option<Text>,
    /// Interval of the rotations in seconds.
    #[serde(default, deserialize_with = "unless_null")]
    rotation_period: Option<Seconds>,
    /// Statements that change the password.
    rotation_statements: Option<Statements>,
    /// Times of the rotations as a cron expression with five fields, in UTC, instead of `rotation_period`.
    rotation_schedule: Option<Text>,
    /// Time in seconds after a scheduled time in which the rotation may start; a later rotation waits for the next
    /// scheduled time. Default: 0, no limit.
    rotation_window: Option<Seconds>,
    /// Type of the credentials: `password`, the only type that can be rotated.
    #[serde(default, deserialize_with = "given")]
    credential_type: Option<Option<Text>>,
    /// Settings of the credential type: `password_policy`.
    credential_config: Option<Pairs>,
}

/// The timing of rotations: a period, or a schedule with its window.
#[derive(Serialize)]
struct RotationTiming {
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_period: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_schedule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_window: Option<u64>,
}

impl RotationTiming {
    fn of(role: &StaticRole) -> Self {
        let by_schedule = !role.rotation_schedule.is_empty();
        RotationTiming {
            rotation_period: (!by_schedule).then_some(role.rotation_period),
            rotation_schedule: by_schedule.then(|| role.rotation_schedule.clone()),
            rotation_window: by_schedule.then_some(role.rotation_window).filter(|w| *w > 0),
        }
    }
}

#[derive(Serialize)]
pub(super) struct StaticRoleResponse {
    #[serde(skip_serializing_if = "CredentialConfig::is_empty")]
    credential_config: CredentialConfig,
    credential_type: CredentialType,
    db_name: String,
    last_vault_rotation: Option<String>,
    #[serde(flatten)]
    timing: RotationTiming,
    rotation_statements: Vec<String>,
    username: String,
}

#[derive(Serialize)]
pub(super) struct StaticCredsResponse {
    last_vault_rotation: Option<String>,
    password: String,
    /// The password that an unacknowledged rotation has sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_password: Option<String>,
    #[serde(flatten)]
    timing: RotationTiming,
    ttl: u64,
    username: String,
}

pub(super) async fn list(_: &DatabaseEngine, cx: &mut Cx, req: Paged) -> Result<Keys> {
    Ok(Keys::of(STATIC_ROLES.list(cx, "", &req.page()).await?))
}

pub(super) async fn exists(_: &DatabaseEngine, cx: &mut Cx, req: StaticRolePath) -> Result<Exists> {
    Ok(Exists(STATIC_ROLES.get(cx, &req.name).await?.is_some()))
}

pub(super) async fn read(
    _: &DatabaseEngine,
    cx: &mut Cx,
    req: StaticRolePath,
) -> Result<Option<Data<StaticRoleResponse>>> {
    Ok(STATIC_ROLES.get(cx, &req.name).await?.map(|role| {
        Data(StaticRoleResponse {
            credential_config: role.credential_config.clone(),
            credential_type: CredentialType::Password,
            db_name: role.db_name.clone(),
            last_vault_rotation: role.rotated.map(Timestamp::rfc3339),
            timing: RotationTiming::of(&role),
            rotation_statements: role.rotation_statements.clone(),
            username: role.username.clone(),
        })
    }))
}

pub(super) async fn write(engine: &DatabaseEngine, cx: &mut Cx, req: Write) -> Result<()> {
    if ROLES.get(cx, &req.name).await?.is_some() {
        return Err(Error::invalid("Role and Static Role names must be unique"));
    }
    let existing = STATIC_ROLES.get(cx, &req.name).await?;
    let is_new = existing.is_none();
    let mut role = match existing {
        Some(role) => check_username(role, &req.username)?,
        None => new_role(&req)?,
    };
    set_timing(&mut role, &req)?;
    if let Some(name) = req.db_name {
        if role.pending.is_some() && name.0 != role.db_name {
            return Err(Error::invalid("db_name cannot change while a rotation is undecided: see rotate-role"));
        }
        role.db_name = name.into();
    }
    if role.db_name.is_empty() {
        return Err(Error::invalid("database name is a required field"));
    }
    let mut kind = CredentialType::Password;
    credential::change(&mut kind, &mut role.credential_config, (req.credential_type, req.credential_config))?;
    if kind != CredentialType::Password {
        return Err(kind.unsupported());
    }
    if let Some(statements) = req.rotation_statements {
        role.rotation_statements = statements.validated()?;
    }
    if !is_new {
        // As with roles, the connection may be created later; it is checked when the password is read.
        return STATIC_ROLES.put(cx, &req.name, &role);
    }
    let config = Config::require(engine, cx, &role.db_name).await?;
    config.check_role(&req.name).map_err(DatabaseError::bad_request)?;
    if text(&config.details, "username").is_some_and(|administrator| administrator == role.username) {
        return Err(Error::invalid(format!(
            "the user {:?} is the administrator of the connection, which would lose the password: use rotate-root/{}",
            role.username, role.db_name
        )));
    }
    STATIC_ROLES.put(cx, &req.name, &role)?;
    let rotated = rotate(engine, cx, &req.name).await.map_err(Error::from);
    if rotated.is_err()
        && STATIC_ROLES.get(cx, &req.name).await?.is_some_and(|r| r.rotated.is_none() && r.pending.is_none())
    {
        // The user keeps its password, and there is no password to store.
        STATIC_ROLES.delete(cx, &req.name);
        cx.checkpoint().await?;
    }
    rotated
}

/// A period and a schedule exclude each other; setting one removes the other.
fn set_timing(role: &mut StaticRole, req: &Write) -> Result<()> {
    let schedule = req.rotation_schedule.as_ref().map(|t| t.0.trim()).filter(|s| !s.is_empty());
    match (req.rotation_period, schedule) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid("rotation_period and rotation_schedule exclude each other: give one of them"));
        }
        (Some(Seconds(period)), None) => {
            if period < MIN_PERIOD {
                return Err(Error::invalid("rotation_period must be 5 seconds or more"));
            }
            role.rotation_period = period;
            role.rotation_schedule.clear();
            role.rotation_window = 0;
        }
        (None, Some(text)) => {
            Schedule::parse(text).map_err(|e| Error::invalid(format!("could not parse rotation_schedule: {e}")))?;
            text.clone_into(&mut role.rotation_schedule);
        }
        (None, None) => {}
    }
    let Some(Seconds(window)) = req.rotation_window else { return Ok(()) };
    if role.rotation_schedule.is_empty() {
        return Err(Error::invalid("rotation_window needs a rotation_schedule: a rotation_period has none"));
    }
    if window < MIN_WINDOW {
        return Err(Error::invalid("rotation_window must be 3600 seconds or more"));
    }
    role.rotation_window = window;
    Ok(())
}

fn new_role(req: &Write) -> Result<StaticRole> {
    let text = |field: &Option<Text>| field.as_ref().map(|t| t.0.clone()).filter(|t| !t.is_empty());
    let db_name = text(&req.db_name).ok_or_else(|| Error::invalid("database name is a required field"))?;
    let username =
        text(&req.username).ok_or_else(|| Error::invalid("username is a required field to create a static account"))?;
    if !is_plain(&username) {
        return Err(Error::invalid("username has quotes, backslashes or control characters"));
    }
    if req.rotation_period.is_none() && text(&req.rotation_schedule).is_none() {
        return Err(Error::invalid("rotation_period is required to create static accounts"));
    }
    Ok(StaticRole {
        db_name,
        username,
        rotation_period: MIN_PERIOD,
        rotation_schedule: String::new(),
        rotation_window: 0,
        rotation_statements: Vec::new(),
        credential_config: CredentialConfig::default(),
        rotated: None,
        retry: None,
        failures: 0,
        password: String::new(),
        pending: None,
    })
}

/// OpenBao refuses an update without the same user name.
fn check_username(role: StaticRole, username: &Option<Text>) -> Result<StaticRole> {
    if username.as_ref().is_none_or(|name| name.0 != role.username) {
        return Err(Error::invalid("cannot update static account username"));
    }
    Ok(role)
}

pub(super) async fn delete(_: &DatabaseEngine, cx: &mut Cx, req: StaticRolePath) -> Result<()> {
    STATIC_ROLES.delete(cx, &req.name);
    Ok(())
}

pub(super) async fn creds(
    engine: &DatabaseEngine,
    cx: &mut Cx,
    req: StaticRolePath,
) -> Result<Data<StaticCredsResponse>> {
    let unknown = || Error::invalid(format!("unknown role: {}", req.name.0));
    let role = STATIC_ROLES.get(cx, &req.name).await?.ok_or_else(unknown)?;
    // Without its connection the password stays valid, and no `allowed_roles` forbids it.
    if let Some(config) = Config::find(engine, cx, &role.db_name).await? {
        config.check_role(&req.name).map_err(DatabaseError::bad_request)?;
    }
    if role.pending.is_some() {
        cx.warn(
            "The database has not acknowledged the last rotation: the user has either password or pending_password. The rotation is \
             retried until the database responds.",
        );
    }
    Ok(Data(StaticCredsResponse {
        last_vault_rotation: role.rotated.map(Timestamp::rfc3339),
        password: role.password.clone(),
        pending_password: role.pending.clone(),
        timing: RotationTiming::of(&role),
        ttl: role.next(cx.now()).map_or(0, |next| seconds_until(next, cx.now())),
        username: role.username.clone(),
    }))
}

/// Rounded up, so a new period is returned in full.
fn seconds_until(end: Timestamp, now: Timestamp) -> u64 {
    let left = end.since(now);
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}
