//! `config/`: connections to databases.

use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::fields::{CommaList, Flag, Quoted, RawObject, Text};
use keepfast_framework::read_cache::Epoch;
use keepfast_framework::routes::{Exists, Nothing};
use keepfast_framework::{Cx, Data, Error, Keys, Page, Records, Result, Status};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::connection::{DatabaseError, OpenError};
use super::details::{self, Details, SettingType, text};
use super::kinds::Kind;
use super::statement::Statements;
use super::{DatabaseEngine, rotation, username, version};

/// The storage prefix of connections.
pub(super) const FOLDER: &str = "config/";
pub(super) const CONFIGS: Records<Config> = Records::at(FOLDER);

/// The stored record of a connection.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Config {
    /// A random id that every change replaces.
    pub(super) revision: String,
    pub(super) plugin_name: String,
    #[serde(default)]
    plugin_version: String,
    allowed_roles: Vec<String>,
    #[serde(default)]
    pub(super) root_rotation_statements: Vec<String>,
    #[serde(default)]
    password_policy: String,
    /// The settings of the database kind, without the password.
    pub(super) details: Details,
    /// The administrator's password; never part of a response.
    password: String,
    /// The epoch of the open connections before this record was read; not stored.
    #[serde(skip)]
    pub(super) read_in: Epoch,
}

impl Drop for Config {
    fn drop(&mut self) {
        self.password.zeroize();
    }
}

impl Config {
    /// The administrator's password.
    pub(super) fn password(&self) -> SecretString {
        SecretString::new(self.password.clone())
    }

    /// The connection of this name.
    ///
    /// # Errors
    /// 400 when it does not exist.
    pub(super) async fn require(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<Self> {
        Self::find(engine, cx, name).await?.ok_or_else(|| Self::missing(name).bad_request())
    }

    /// The connection of this name, or `None`.
    ///
    /// # Errors
    /// When storage fails.
    pub(super) async fn find(engine: &DatabaseEngine, cx: &mut Cx, name: &str) -> Result<Option<Self>> {
        let read_in = engine.connections.epoch();
        let mut found = CONFIGS.get(cx, name).await?;
        if let Some(config) = &mut found {
            config.read_in = read_in;
        }
        Ok(found)
    }

    /// The error for a missing connection.
    pub(super) fn missing(name: &str) -> DatabaseError {
        DatabaseError::new(format!("failed to find entry for connection with name: {}", Quoted(name)))
    }

    /// Replaces the administrator's password.
    pub(super) fn replace_password(&mut self, password: &SecretString) {
        self.password.zeroize();
        self.password = password.expose().clone();
        self.revision = random::uuid();
    }

    /// A copy with another password of the administrator.
    pub(super) fn with_password(&self, password: &SecretString) -> Self {
        let mut other = self.clone();
        other.password.zeroize();
        other.password = password.expose().clone();
        other
    }

    /// Writes the record when the request's transaction commits.
    ///
    /// # Errors
    /// When it cannot be encoded as JSON.
    pub(super) fn save(&self, cx: &mut Cx, name: &str) -> Result<()> {
        CONFIGS.put(cx, name, self)
    }

    /// Checks that a role may use the connection.
    ///
    /// # Errors
    /// When `allowed_roles` excludes the role.
    pub(super) fn check_role(&self, role: &str) -> Result<(), DatabaseError> {
        if self.allowed_roles.iter().any(|pattern| matches_pattern(pattern, role)) {
            return Ok(());
        }
        Err(DatabaseError::new(format!("{} is not an allowed role", Quoted(role))))
    }

    /// The kind of the database.
    ///
    /// # Errors
    /// 500 when the kind is not supported any more.
    pub(super) fn kind(&self) -> Result<&'static Kind> {
        Kind::by_name(&self.plugin_name).map_err(|text| DatabaseError::new(text).internal())
    }

    /// The template of user names: that of the connection, or the default of its kind.
    ///
    /// # Errors
    /// As [`Config::kind`].
    pub(super) fn username_template(&self) -> Result<String> {
        let kind = self.kind()?;
        Ok(text(&self.details, "username_template").unwrap_or_else(|| kind.username_template.to_owned()))
    }

    /// The policy of generated passwords; empty for none.
    pub(super) fn password_policy(&self) -> &str {
        &self.password_policy
    }
}

/// Matches a pattern in which one star matches any text, as in OpenBao.
fn matches_pattern(pattern: &str, name: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(begin) else { return false };
    let (between, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in between.split('*') {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(end)
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ConnectionPath {
    /// The name of the connection.
    pub(super) name: Text,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Write {
    /// The name of the connection.
    name: Text,
    /// plugin_name, connection_url, username, password, allowed_roles and the other settings of the kind of database.
    #[serde(rename = "$body")]
    settings: RawObject,
}

#[derive(Serialize)]
pub(super) struct ConnectionResponse {
    allowed_roles: Vec<String>,
    connection_details: Details,
    password_policy: String,
    plugin_name: String,
    plugin_version: String,
    root_credentials_rotate_statements: Vec<String>,
}

pub(super) async fn list(_: &DatabaseEngine, cx: &mut Cx, _: Nothing) -> Result<Keys> {
    Ok(Keys::of(CONFIGS.list(cx, "", &Page::all()).await?))
}

pub(super) async fn exists(_: &DatabaseEngine, cx: &mut Cx, req: ConnectionPath) -> Result<Exists> {
    Ok(Exists(CONFIGS.get(cx, &req.name).await?.is_some()))
}

pub(super) async fn read(
    _: &DatabaseEngine,
    cx: &mut Cx,
    req: ConnectionPath,
) -> Result<Option<Data<ConnectionResponse>>> {
    let Some(mut config) = CONFIGS.get(cx, &req.name).await? else { return Ok(None) };
    let details = std::mem::take(&mut config.details);
    // For an unsupported kind it is unknown which settings are secrets.
    let details = match Kind::by_name(&config.plugin_name) {
        Ok(kind) => details::response(details, kind.public, kind.masked_url),
        Err(_) => Details::new(),
    };
    Ok(Some(Data(ConnectionResponse {
        allowed_roles: std::mem::take(&mut config.allowed_roles),
        connection_details: details,
        password_policy: std::mem::take(&mut config.password_policy),
        plugin_name: std::mem::take(&mut config.plugin_name),
        plugin_version: std::mem::take(&mut config.plugin_version),
        root_credentials_rotate_statements: std::mem::take(&mut config.root_rotation_statements),
    })))
}

pub(super) async fn write(engine: &DatabaseEngine, cx: &mut Cx, req: Write) -> Result<()> {
    let mut given: Details =
        serde_json::from_str(req.settings.0.get()).map_err(|_| Error::invalid("invalid settings"))?;
    let mut config = CONFIGS.get(cx, &req.name).await?.unwrap_or_default();
    given.remove("name");
    details::check(&given, &[("password", SettingType::Text)]).map_err(open_error)?;
    let verify = take::<Flag>(&mut given, "verify_connection")?.is_none_or(|f| f.0);
    if let Some(name) = take::<Text>(&mut given, "plugin_name")? {
        config.plugin_name = name.into();
    }
    let version = take::<Text>(&mut given, "plugin_version")?.unwrap_or_default();
    if let Some(roles) = take::<CommaList>(&mut given, "allowed_roles")? {
        config.allowed_roles = roles.0;
    }
    if let Some(statements) = take::<Statements>(&mut given, "root_rotation_statements")? {
        config.root_rotation_statements = statements.validated()?;
    }
    if let Some(policy) = take::<Text>(&mut given, "password_policy")? {
        config.password_policy = policy.into();
    }
    let mut has_password = false;
    if let Some(password) = take::<Text>(&mut given, "password")? {
        has_password = true;
        config.password.zeroize();
        config.password = password.into();
    }
    config.details.extend(given);
    rotation::check_change(engine, cx, &req.name, &config).await?;
    let url_has_password = |url: String| Kind::by_name(&config.plugin_name).is_ok_and(|kind| (kind.has_password)(&url));
    if text(&config.details, "connection_url").is_some_and(url_has_password) {
        cx.warn("Password found in connection_url, use a templated url to enable root rotation and prevent read access to password information.");
    }
    config.revision = random::uuid();
    check(&config, &version)?;
    match engine.connections.open(&config, cx.clock()) {
        Ok(opened) if verify => {
            let verified = rotation::verify(engine, cx, (&req.name, &config), &*opened, has_password).await?;
            verified.map_err(|error| error.with_text(open_error_text).invalid())?;
        }
        Ok(_) => {}
        // Without verification, an invalid URL is stored, as in OpenBao.
        Err(OpenError::Url(_)) if !verify => {}
        Err(error) => return Err(open_error(error.text())),
    }
    CONFIGS.put(cx, &req.name, &config)?;
    engine.rotation_backoff.clear(&req.name);
    Ok(())
}

fn open_error(why: String) -> Error {
    Error::invalid(open_error_text(why))
}

fn open_error_text(why: String) -> String {
    format!("error creating database object: {why}")
}

fn check(config: &Config, version: &str) -> Result<()> {
    if config.plugin_name.is_empty() {
        return Err(Error::invalid("empty plugin name"));
    }
    // OpenBao looks for a plugin with the new and the old protocol.
    let unknown =
        |text: String| open_error(format!("invalid database version: 2 errors occurred:\n\t* {text}\n\t* {text}\n\n"));
    let other = version::other_than_built_in(version).map_err(Error::invalid)?;
    let kind = Kind::by_name(&config.plugin_name);
    if let Some(other) = other {
        let text = kind.err().unwrap_or_else(|| format!("plugin not found in the catalog: {}", config.plugin_name));
        return Err(unknown(format!("{text}, version={other}")));
    }
    kind.map_err(unknown)?;
    username::check(&config.username_template()?)
}

pub(super) async fn delete(engine: &DatabaseEngine, cx: &mut Cx, req: ConnectionPath) -> Result<()> {
    rotation::delete_pending(engine, cx, &req.name)?;
    CONFIGS.delete(cx, &req.name);
    Ok(())
}

pub(super) async fn reset(engine: &DatabaseEngine, cx: &mut Cx, req: ConnectionPath) -> Result<()> {
    engine.connections.close(&req.name);
    rotation::recover_if_pending(engine, cx, &req.name).await?;
    let config = Config::require(engine, cx, &req.name).await?;
    rotation::database(engine, cx, &req.name, &config).await?.verify().await.map_err(DatabaseError::internal)
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct PluginPath {
    /// The name of the plugin.
    plugin: Text,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct ReloadResponse {
    connections: Vec<String>,
    count: usize,
}

/// As in Vault (OpenBao has no such path).
pub(super) async fn reload(engine: &DatabaseEngine, cx: &mut Cx, req: PluginPath) -> Result<Data<ReloadResponse>> {
    let mut connections = Vec::new();
    for name in CONFIGS.list(cx, "", &Page::all()).await? {
        if CONFIGS.get(cx, &name).await?.is_some_and(|config| config.plugin_name == req.plugin.0) {
            engine.connections.close(&name);
            connections.push(name);
        }
    }
    Ok(Data(ReloadResponse { count: connections.len(), connections }))
}

/// Removes one field from the settings and parses it like a field of Vault's API: null is the empty value.
fn take<T: DeserializeOwned>(given: &mut Details, name: &str) -> Result<Option<T>> {
    let Some(setting) = given.remove(name) else { return Ok(None) };
    let wrong = |_| Error::new(Status::BAD_REQUEST, format!("error converting input for field {name:?}"));
    setting.read().map(Some).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_text() {
        for (pattern, name, expected) in [
            ("*", "x", true),
            ("x*", "xy", true),
            ("*y", "xy", true),
            ("*b*", "abc", true),
            ("x", "xy", false),
            ("x*", "yx", false),
            ("", "x", false),
            ("x*y", "xaby", true),
            ("x*y", "xyz", false),
            ("x*y*z", "x1y2z", true),
            ("x*y*z", "xz", false),
            ("xy*y", "xy", false),
            ("x**", "xy", true),
            ("**", "", true),
        ] {
            assert_eq!(matches_pattern(pattern, name), expected, "{pattern} {name}");
        }
    }
}
