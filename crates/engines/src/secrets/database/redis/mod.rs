//! Valkey and Redis: users are made of rules, and no statement is ever a text.

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
use super::connection::{Database, DatabaseError, NewUser, NotChanged, NotMade, Unusable, in_time, unreached};
use super::credential::Login;
use super::details::Details;
use super::pool::{Connector, Lent, Numbers, Pool};
use super::statement::expanded;

/// What a user may do whose role says nothing, as the peer has it: read everything.
const RULES: [&str; 2] = ["~*", "+@read"];

/// The driver neither logs in nor says who it is: that is done here, where the server's words are not lost.
static NOBODY: LazyLock<RedisConnectionInfo> = LazyLock::new(|| RedisConnectionInfo::default().set_skip_set_lib_name());

/// A Valkey or Redis server.
pub(super) struct Redis {
    pool: Pool<Target>,
    persistence: Persistence,
    clock: Arc<dyn Clock>,
}

/// Where to connect to, and as whom.
struct Target {
    host: String,
    port: u16,
    username: String,
    password: SecretString,
    tls: Option<TlsConnector>,
}

/// Why a connection was not made.
enum Refused {
    Credentials(DatabaseError),
    Other(DatabaseError),
}

impl Target {
    async fn connect(&self, name: &str, password: &SecretString) -> Result<MultiplexedConnection, Refused> {
        let mut connection = self.reach().await.map_err(Refused::Other)?;
        let mut login = cmd("AUTH");
        login.arg(name).arg(password.expose().as_str());
        match login.query_async::<Value>(&mut connection).await {
            Ok(_) => Ok(connection),
            Err(error) if error.code() == Some("WRONGPASS") => Err(Refused::Credentials(shown(&error))),
            Err(error) => Err(Refused::Other(shown(&error))),
        }
    }

    /// A connection of nobody yet.
    async fn reach(&self) -> Result<MultiplexedConnection, DatabaseError> {
        let address = format!("{}:{}", self.host, self.port);
        let fault = |error: std::io::Error| DatabaseError::new(unreached(&address, &error));
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(fault)?;
        stream.set_nodelay(true).map_err(fault)?;
        let Some(tls) = &self.tls else { return begin(MultiplexedConnection::new(&NOBODY, stream).await) };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| DatabaseError::new("host is no name that a certificate could have"))?;
        let stream = tls.connect(name, stream).await.map_err(|error| DatabaseError::new(format!("tls: {error}")))?;
        begin(MultiplexedConnection::new(&NOBODY, stream).await)
    }
}

/// Lets a connection's other half run until the connection is dropped.
fn begin<F: Future<Output = ()> + Send + 'static>(
    made: Result<(MultiplexedConnection, F), RedisError>,
) -> Result<MultiplexedConnection, DatabaseError> {
    let (connection, driver) = made.map_err(|error| shown(&error))?;
    tokio::spawn(driver);
    Ok(connection)
}

#[async_trait]
impl Connector for Target {
    type Connection = MultiplexedConnection;

    async fn open(&self) -> Result<MultiplexedConnection, DatabaseError> {
        match self.connect(&self.username, &self.password).await {
            Ok(connection) => Ok(connection),
            Err(Refused::Credentials(error) | Refused::Other(error)) => Err(error),
        }
    }

    fn looks_open(_: &MultiplexedConnection) -> bool {
        true
    }
}

/// The server's message, which may quote the command.
fn shown(error: &RedisError) -> DatabaseError {
    let said = match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    };
    let text = format!("response returned from Conn: {said}");
    match error.code() {
        Some(code) => DatabaseError::of_server(format!("Redis error {code}"), text),
        None => DatabaseError::new(text),
    }
}

impl Redis {
    /// Reads the settings of a connection.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn open(details: &Details, password: &SecretString, clock: Arc<dyn Clock>) -> Result<Self, Unusable> {
        let Settings { host, port, username, password, tls, persistence, limits } = Settings::read(details, password)?;
        let tls = tls.map(|config| TlsConnector::from(Arc::new(config)));
        let pool = Pool::new(Target { host, port, username, password, tls }, limits, clock.clone());
        Ok(Redis { pool, persistence, clock })
    }

    /// A connection that answers.
    async fn connection(&self) -> Result<Lent<MultiplexedConnection>, DatabaseError> {
        let mut connection = self.pool.get().await?;
        if connection.is_used && cmd("PING").query_async::<Value>(&mut *connection).await.is_err() {
            return self.pool.instead_of(connection).await;
        }
        Ok(connection)
    }

    /// Commands, each once the one before has succeeded.
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

    /// Whether an enabled or disabled user has this password. The server gives one answer to a wrong password and to a
    /// disabled user, so its list of users decides.
    async fn has(&self, name: &str, password: &SecretString) -> Result<bool, DatabaseError> {
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

    /// What makes a change last over a restart of the server.
    fn lasting(&self) -> Option<Cmd> {
        let words = match self.persistence {
            Persistence::None => return None,
            Persistence::AclFile => ["ACL", "SAVE"],
            Persistence::Rewrite => ["CONFIG", "REWRITE"],
        };
        let mut command = cmd(words[0]);
        command.arg(words[1]);
        Some(command)
    }

    fn lastingly(&self, command: Cmd) -> Vec<Cmd> {
        std::iter::once(command).chain(self.lasting()).collect()
    }
}

async fn ask(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, DatabaseError> {
    command.query_async(connection).await.map_err(|error| shown(&error))
}

fn remove(name: &str) -> Cmd {
    let mut command = cmd("ACL");
    command.arg("DELUSER").arg(name);
    command
}

/// A rule that sets a password without saying it.
fn hashed(password: &SecretString) -> String {
    format!("#{}", hex::encode(sha256(password.expose().as_bytes())))
}

/// The rules of a role: the first statement, which is a JSON list of rules or else one rule.
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

/// What of a rule sets how a user logs in: another password, none, or a disabled user.
fn credential_rule(rule: &str) -> Option<&str> {
    let rule = rule.trim();
    let is_word = |word: &&str| rule.eq_ignore_ascii_case(word);
    if ["nopass", "resetpass", "reset", "off"].iter().any(is_word) {
        return Some(rule);
    }
    // The first character only: what follows is a password or its hash.
    rule.get(..1).filter(|first| matches!(*first, ">" | "<" | "#" | "!"))
}

#[async_trait]
impl Database for Redis {
    async fn verify(&self) -> Result<(), DatabaseError> {
        let ping = [cmd("PING")];
        let tried = in_time(&self.clock, self.run(&ping)).await;
        tried.map_err(|error| error.reworded(|text| format!("error verifying connection: {text}")))
    }

    async fn create_user(&self, user: &NewUser<'_>, statements: &[String]) -> Result<(), NotMade> {
        let Login::Password(password) = user.login else {
            return Err(NotMade::Untried(DatabaseError::new("users have no certificates here")));
        };
        let rules = rules(statements).map_err(NotMade::Untried)?;
        if let Some(rule) = rules.iter().find_map(|rule| credential_rule(rule)) {
            let text = format!("creation_statements have the rule {rule:?}: Keepfast alone sets how the user logs in");
            return Err(NotMade::Untried(DatabaseError::new(text)));
        }
        let mut make = cmd("ACL");
        make.arg("SETUSER").arg(user.name).arg("reset").arg("on").arg(hashed(password)).arg(rules);
        in_time(&self.clock, async {
            // The command would change a user that is there.
            if self.exists(user.name).await.map_err(NotMade::Untried)? {
                return Err(NotMade::Taken(self.taken(user.name)));
            }
            self.run(&[make]).await?;
            let Some(save) = self.lasting() else { return Ok(()) };
            if let Err(error) = self.run(&[save]).await {
                self.run(&[remove(user.name)]).await?;
                return Err(error.into());
            }
            Ok(())
        })
        .await
    }

    async fn is_free(&self, name: &str) -> Result<bool, DatabaseError> {
        in_time(&self.clock, async { Ok(!self.exists(name).await?) }).await
    }

    fn taken(&self, name: &str) -> DatabaseError {
        DatabaseError::new(format!("user {name} already exists"))
    }

    async fn renew_user(&self, _: &str, _: Timestamp, _: &[String]) -> Result<(), DatabaseError> {
        // The server knows no end of a user.
        Ok(())
    }

    async fn drop_user(&self, name: &str, _: &[String]) -> Result<(), DatabaseError> {
        // The server ends the user's sessions by itself.
        in_time(&self.clock, self.run(&self.lastingly(remove(name)))).await
    }

    async fn set_password(&self, name: &str, password: &SecretString, _: &[String]) -> Result<(), NotChanged> {
        let mut change = cmd("ACL");
        change.arg("SETUSER").arg(name).arg("resetpass").arg(hashed(password));
        // The command would create a user that does not exist.
        if !in_time(&self.clock, self.exists(name)).await.map_err(NotChanged::Refused)? {
            return Err(NotChanged::Refused(DatabaseError::new(format!("user {name} does not exist"))));
        }
        in_time(&self.clock, async {
            let mut connection = self.connection().await.map_err(NotChanged::Refused)?;
            // A server that answers with an error has changed nothing.
            ask(&mut connection, &change).await.map_err(|error| match error.code() {
                Some(_) => NotChanged::Refused(error),
                None => NotChanged::Unanswered(error),
            })?;
            if let Some(save) = self.lasting() {
                ask(&mut connection, &save).await.map_err(NotChanged::Unsaved)?;
            }
            self.pool.put(connection);
            Ok(())
        })
        .await
    }

    async fn list_users(&self, prefix: &str) -> Result<Vec<String>, DatabaseError> {
        in_time(&self.clock, async {
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
        in_time(&self.clock, async {
            match self.pool.connector.connect(name, password).await {
                Ok(_) => Ok(true),
                Err(Refused::Credentials(error)) => self.has(name, password).await.map_err(|_| error),
                Err(Refused::Other(error)) => Err(error),
            }
        })
        .await
    }

    fn numbers(&self) -> Numbers {
        self.pool.numbers()
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
    fn sec_kf25_no_rule_of_a_role_sets_how_a_user_logs_in() {
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
