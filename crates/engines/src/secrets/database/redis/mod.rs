//! Valkey and Redis: users are defined by ACL rules, sent as arguments and never as statement text.

mod settings;
mod url;

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use keepfast_crypto::hash::sha256;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Clock, Timestamp};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisConnectionInfo, RedisError, Value, cmd};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(super) use self::settings::{PUBLIC, has_password, masked_url};
use self::settings::{Persistence, Settings};
use super::connection::{
    ChangePasswordError, CreateUserError, Database, DatabaseError, NewUser, OpenError, dial_error, with_timeout,
};
use super::credential::Login;
use super::details::Details;
use super::pool::{Connector, Pool, PoolStats, PooledConnection};
use super::statement::expanded;

/// The default rules of a role, as in OpenBao: read access to all keys.
const RULES: [&str; 2] = ["~*", "+@read"];

/// The driver sends neither a login nor its name: this module logs in, to get the errors of the server.
static NO_LOGIN: LazyLock<RedisConnectionInfo> =
    LazyLock::new(|| RedisConnectionInfo::default().set_skip_set_lib_name());

/// A Valkey or Redis server.
pub(super) struct Redis {
    pool: Pool<Target>,
    persistence: Persistence,
    clock: Arc<dyn Clock>,
}

/// The server and the administrator of a connection.
struct Target {
    host: String,
    port: u16,
    username: String,
    password: SecretString,
    tls: Option<TlsConnector>,
}

/// Why a session was not opened.
enum ConnectError {
    Credentials(DatabaseError),
    Other(DatabaseError),
}

impl Target {
    async fn connect(&self, name: &str, password: &SecretString) -> Result<MultiplexedConnection, ConnectError> {
        let mut connection = self.connect_without_login().await.map_err(ConnectError::Other)?;
        let mut login = cmd("AUTH");
        login.arg(name).arg(password.expose().as_str());
        match login.query_async::<Value>(&mut connection).await {
            Ok(_) => Ok(connection),
            Err(error) if error.code() == Some("WRONGPASS") => Err(ConnectError::Credentials(server_error(&error))),
            Err(error) => Err(ConnectError::Other(server_error(&error))),
        }
    }

    /// A connection before the login.
    async fn connect_without_login(&self) -> Result<MultiplexedConnection, DatabaseError> {
        let address = format!("{}:{}", self.host, self.port);
        let io_error = |error: std::io::Error| DatabaseError::new(dial_error(&address, &error));
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(io_error)?;
        stream.set_nodelay(true).map_err(io_error)?;
        let Some(tls) = &self.tls else { return spawn(MultiplexedConnection::new(&NO_LOGIN, stream).await) };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| DatabaseError::new("host is not a valid name for a certificate"))?;
        let stream = tls.connect(name, stream).await.map_err(|error| DatabaseError::new(format!("tls: {error}")))?;
        spawn(MultiplexedConnection::new(&NO_LOGIN, stream).await)
    }
}

/// Spawns the connection task, which runs until the connection is dropped.
fn spawn<F: Future<Output = ()> + Send + 'static>(
    connected: Result<(MultiplexedConnection, F), RedisError>,
) -> Result<MultiplexedConnection, DatabaseError> {
    let (connection, driver) = connected.map_err(|error| server_error(&error))?;
    tokio::spawn(driver);
    Ok(connection)
}

#[async_trait]
impl Connector for Target {
    type Connection = MultiplexedConnection;

    async fn open(&self) -> Result<MultiplexedConnection, DatabaseError> {
        match self.connect(&self.username, &self.password).await {
            Ok(connection) => Ok(connection),
            Err(ConnectError::Credentials(error) | ConnectError::Other(error)) => Err(error),
        }
    }

    fn looks_open(_: &MultiplexedConnection) -> bool {
        true
    }
}

/// The server's message, which may quote the command.
fn server_error(error: &RedisError) -> DatabaseError {
    let message = match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    };
    let text = format!("response returned from Conn: {message}");
    match error.code() {
        Some(code) => DatabaseError::from_server(format!("Redis error {code}"), text),
        None => DatabaseError::new(text),
    }
}

impl Redis {
    /// Opens a connection from its settings.
    ///
    /// # Errors
    /// When a setting is invalid.
    pub(super) fn open(details: &Details, password: &SecretString, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let Settings { host, port, username, password, tls, persistence, limits } = Settings::read(details, password)?;
        let tls = tls.map(|config| TlsConnector::from(Arc::new(config)));
        let pool = Pool::new(Target { host, port, username, password, tls }, limits, clock.clone());
        Ok(Redis { pool, persistence, clock })
    }

    /// A connection that responds.
    async fn connection(&self) -> Result<PooledConnection<MultiplexedConnection>, DatabaseError> {
        let mut connection = self.pool.get().await?;
        if connection.is_used && cmd("PING").query_async::<Value>(&mut *connection).await.is_err() {
            return self.pool.replace(connection).await;
        }
        Ok(connection)
    }

    /// Runs commands in order until one fails.
    async fn run(&self, commands: &[Cmd]) -> Result<(), DatabaseError> {
        let mut connection = self.connection().await?;
        for command in commands {
            ask(&mut connection, command).await?;
        }
        self.pool.put(connection);
        Ok(())
    }

    async fn exists(&self, name: &str) -> Result<bool, DatabaseError> {
        let mut connection = self.connection().await?;
        let found = ask(&mut connection, cmd("ACL").arg("GETUSER").arg(name)).await?;
        self.pool.put(connection);
        Ok(found != Value::Nil)
    }

    /// Whether a user, enabled or disabled, has this password. The server returns the same error for a wrong password
    /// and for a disabled user, so the check reads its list of users.
    async fn has_password(&self, name: &str, password: &SecretString) -> Result<bool, DatabaseError> {
        let mut connection = self.connection().await?;
        let found = ask(&mut connection, cmd("ACL").arg("GETUSER").arg(name)).await?;
        self.pool.put(connection);
        let hash = hashed(password);
        let hash = hash.trim_start_matches('#').as_bytes();
        let is_hash = |value: &Value| matches!(value, Value::BulkString(bytes) if bytes == hash);
        let lists =
            |value: &Value| matches!(value, Value::Array(values) | Value::Set(values) if values.iter().any(is_hash));
        Ok(match &found {
            Value::Array(fields) => fields.iter().any(lists),
            Value::Map(fields) => fields.iter().any(|(_, value)| lists(value)),
            _ => false,
        })
    }

    /// The command that keeps a change after a restart of the server.
    fn persist_command(&self) -> Option<Cmd> {
        let words = match self.persistence {
            Persistence::None => return None,
            Persistence::AclFile => ["ACL", "SAVE"],
            Persistence::Rewrite => ["CONFIG", "REWRITE"],
        };
        let mut command = cmd(words[0]);
        command.arg(words[1]);
        Some(command)
    }

    fn with_persist(&self, command: Cmd) -> Vec<Cmd> {
        std::iter::once(command).chain(self.persist_command()).collect()
    }
}

async fn ask(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, DatabaseError> {
    command.query_async(connection).await.map_err(|error| server_error(&error))
}

fn remove(name: &str) -> Cmd {
    let mut command = cmd("ACL");
    command.arg("DELUSER").arg(name);
    command
}

/// A rule that sets a password by its hash.
fn hashed(password: &SecretString) -> String {
    format!("#{}", hex::encode(sha256(password.expose().as_bytes())))
}

/// The rules of a role: the first statement, a JSON list of rules or one rule.
///
/// # Errors
/// When the role has more rules than a list may have statements.
fn rules(statements: &[String]) -> Result<Vec<String>, DatabaseError> {
    let Some(text) = statements.iter().find(|s| !s.trim().is_empty()) else {
        return Ok(RULES.map(str::to_owned).to_vec());
    };
    expanded(statements)?;
    Ok(serde_json::from_str(text).unwrap_or_else(|_| vec![text.clone()]))
}

/// The part of a rule that changes the credentials: another password, no password, or a disabled user.
fn credential_rule(rule: &str) -> Option<&str> {
    let rule = rule.trim();
    let is_word = |word: &&str| rule.eq_ignore_ascii_case(word);
    if ["nopass", "resetpass", "reset", "off"].iter().any(is_word) {
        return Some(rule);
    }
    // Only the first character: the rest is a password or its hash.
    rule.get(..1).filter(|first| matches!(*first, ">" | "<" | "#" | "!"))
}

#[async_trait]
impl Database for Redis {
    async fn verify(&self) -> Result<(), DatabaseError> {
        let ping = [cmd("PING")];
        let tried = with_timeout(&self.clock, self.run(&ping)).await;
        tried.map_err(|error| error.with_text(|text| format!("error verifying connection: {text}")))
    }

    async fn create_user(&self, user: &NewUser<'_>, statements: &[String]) -> Result<(), CreateUserError> {
        let Login::Password(password) = user.login else {
            return Err(CreateUserError::NotAttempted(DatabaseError::new("users with certificates are not supported")));
        };
        let rules = rules(statements).map_err(CreateUserError::NotAttempted)?;
        if let Some(rule) = rules.iter().find_map(|rule| credential_rule(rule)) {
            let text =
                format!("creation_statements have the rule {rule:?}: only Keepfast sets the credentials of the user");
            return Err(CreateUserError::NotAttempted(DatabaseError::new(text)));
        }
        let mut make = cmd("ACL");
        make.arg("SETUSER").arg(user.name).arg("reset").arg("on").arg(hashed(password)).arg(rules);
        with_timeout(&self.clock, async {
            // The command would change an existing user.
            if self.exists(user.name).await.map_err(CreateUserError::NotAttempted)? {
                return Err(CreateUserError::NameExists(self.name_exists_error(user.name)));
            }
            self.run(&[make]).await?;
            let Some(save) = self.persist_command() else { return Ok(()) };
            if let Err(error) = self.run(&[save]).await {
                self.run(&[remove(user.name)]).await?;
                return Err(error.into());
            }
            Ok(())
        })
        .await
    }

    async fn is_free(&self, name: &str) -> Result<bool, DatabaseError> {
        with_timeout(&self.clock, async { Ok(!self.exists(name).await?) }).await
    }

    fn name_exists_error(&self, name: &str) -> DatabaseError {
        DatabaseError::new(format!("user {name} already exists"))
    }

    async fn renew_user(&self, _: &str, _: Timestamp, _: &[String]) -> Result<(), DatabaseError> {
        // The server has no expiry of users.
        Ok(())
    }

    async fn drop_user(&self, name: &str, _: &[String]) -> Result<(), DatabaseError> {
        // The server itself ends the user's sessions.
        with_timeout(&self.clock, self.run(&self.with_persist(remove(name)))).await
    }

    async fn set_password(&self, name: &str, password: &SecretString, _: &[String]) -> Result<(), ChangePasswordError> {
        let mut change = cmd("ACL");
        change.arg("SETUSER").arg(name).arg("resetpass").arg(hashed(password));
        // The command would create a missing user.
        if !with_timeout(&self.clock, self.exists(name)).await.map_err(ChangePasswordError::Unchanged)? {
            return Err(ChangePasswordError::Unchanged(DatabaseError::new(format!("user {name} does not exist"))));
        }
        with_timeout(&self.clock, async {
            let mut connection = self.connection().await.map_err(ChangePasswordError::Unchanged)?;
            // A server that returns an error has changed nothing.
            ask(&mut connection, &change).await.map_err(|error| match error.code() {
                Some(_) => ChangePasswordError::Unchanged(error),
                None => ChangePasswordError::Unknown(error),
            })?;
            if let Some(save) = self.persist_command() {
                ask(&mut connection, &save).await.map_err(ChangePasswordError::Unsaved)?;
            }
            self.pool.put(connection);
            Ok(())
        })
        .await
    }

    async fn list_users(&self, prefix: &str) -> Result<Vec<String>, DatabaseError> {
        with_timeout(&self.clock, async {
            let mut connection = self.connection().await?;
            let found = ask(&mut connection, cmd("ACL").arg("USERS")).await?;
            self.pool.put(connection);
            let mut names: Vec<String> =
                redis::from_redis_value(found).map_err(|error| DatabaseError::new(error.to_string()))?;
            names.retain(|name| name.starts_with(prefix));
            Ok(names)
        })
        .await
    }

    async fn accepts(&self, name: &str, password: &SecretString) -> Result<bool, DatabaseError> {
        with_timeout(&self.clock, async {
            match self.pool.connector.connect(name, password).await {
                Ok(_) => Ok(true),
                Err(ConnectError::Credentials(error)) => self.has_password(name, password).await.map_err(|_| error),
                Err(ConnectError::Other(error)) => Err(error),
            }
        })
        .await
    }

    fn pool_stats(&self) -> PoolStats {
        self.pool.pool_stats()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_a_json_list_or_one_rule() {
        let of = |text: &str| rules(&[text.to_owned()]).unwrap();
        assert_eq!(of("[\"+get\", \"~k*\"]"), ["+get", "~k*"]);
        assert_eq!(of("+get ~x*"), ["+get ~x*"]);
        assert_eq!(of("[\"+get\", 5]"), ["[\"+get\", 5]"]);
        assert_eq!(rules(&[]).unwrap(), RULES);
    }

    #[test]
    fn sec_kf25_no_rule_of_a_role_sets_credentials() {
        for rule in ["nopass", "NoPass", "resetpass", "reset", "off", " nopass\n"] {
            assert_eq!(credential_rule(rule), Some(rule.trim()));
        }
        for rule in [">secret", "<secret", "#0123", "!0123"] {
            assert_eq!(credential_rule(rule), Some(&rule[..1]));
        }
        for rule in ["+@all", "~*", "&*", "on", "(+get ~x)", "-@admin", "%R~k*", "allkeys", "é"] {
            assert_eq!(credential_rule(rule), None);
        }
    }
}
