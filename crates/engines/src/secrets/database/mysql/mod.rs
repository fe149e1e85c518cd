//! MySQL and MariaDB.

mod dsn;
mod settings;

use std::sync::Arc;

use async_trait::async_trait;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Clock, Timestamp};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Error, IoError, Opts, OptsBuilder, ServerError};

use self::settings::Settings;
pub(super) use self::settings::{PUBLIC, masked_url};
use super::connection::{Database, DatabaseError, NewUser, NotMade, Unusable, in_time, unreached};
use super::credential::Login;
use super::details::Details;
use super::files::{FileDirectories, LocalPath};
use super::pool::{Connector, Lent, Numbers, Pool};
use super::statement::{Dialect, are_blank, expiration, filled};

/// Error numbers of the server.
mod code {
    /// Of the database, for a user whose password was right.
    pub(super) const DATABASE_DENIED: u16 = 1044;
    pub(super) const ACCESS_DENIED: u16 = 1045;
    pub(super) const UNKNOWN_DATABASE: u16 = 1049;
    pub(super) const EMPTY_QUERY: u16 = 1065;
    /// A user that is made exists, or one that is changed or dropped does not.
    pub(super) const CANNOT_USER: u16 = 1396;
    pub(super) const ACCESS_DENIED_NO_PASSWORD: u16 = 1698;
}

/// A MySQL or MariaDB server.
pub(super) struct MySql {
    pool: Pool<Target>,
    clock: Arc<dyn Clock>,
}

/// Where to connect to, and as whom.
struct Target {
    opts: Opts,
    plaintext: Option<Opts>,
    address: String,
    socket: Option<LocalPath>,
}

impl Target {
    async fn connect(&self, user: Option<(&str, &SecretString)>) -> Result<Conn, Error> {
        let opts = |opts: &Opts| match user {
            None => opts.clone(),
            Some((name, password)) => {
                OptsBuilder::from_opts(opts.clone()).user(Some(name)).pass(Some(password.expose().as_str())).into()
            }
        };
        if let Some(path) = self.socket.clone()
            && !tokio::task::spawn_blocking(move || path.is_socket_or_directory()).await.unwrap_or_default()
        {
            // Without a reason, which would tell what files there are.
            return Err(Error::Io(IoError::Io(std::io::ErrorKind::NotFound.into())));
        }
        match (Conn::new(opts(&self.opts)).await, &self.plaintext) {
            (Err(Error::Driver(DriverError::NoClientSslFlagFromServer)), Some(plaintext)) => {
                Conn::new(opts(plaintext)).await
            }
            (connected, _) => connected,
        }
    }

    fn shown_by_server(said: &ServerError) -> DatabaseError {
        DatabaseError(format!("Error {} ({}): {}", said.code, said.state, said.message))
    }

    /// What went wrong, in the peer's words where they are the same thing; never a statement.
    fn shown(&self, error: &Error) -> DatabaseError {
        DatabaseError(match error {
            Error::Server(said) => return Self::shown_by_server(said),
            Error::Io(IoError::Io(io)) => unreached(&self.address, io),
            Error::Driver(DriverError::NoClientSslFlagFromServer) => {
                "TLS requested but server does not support TLS".to_owned()
            }
            other => other.to_string(),
        })
    }
}

#[async_trait]
impl Connector for Target {
    type Connection = Conn;

    async fn open(&self) -> Result<Conn, DatabaseError> {
        self.connect(None).await.map_err(|error| self.shown(&error))
    }

    fn looks_open(_: &Conn) -> bool {
        true
    }
}

impl MySql {
    /// Reads the settings of a connection.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn open(
        details: &Details,
        password: &SecretString,
        files: &FileDirectories,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Unusable> {
        let Settings { opts, plaintext, address, socket, limits } = Settings::read(details, password, files)?;
        let pool = Pool::new(Target { opts, plaintext, address, socket }, limits, clock.clone());
        Ok(MySql { pool, clock })
    }

    /// A connection that answers.
    async fn conn(&self) -> Result<Lent<Conn>, DatabaseError> {
        let mut conn = self.pool.get().await?;
        if conn.is_used && conn.ping().await.is_err() {
            return self.pool.instead_of(conn).await;
        }
        Ok(conn)
    }

    fn shown(&self, error: &Error) -> DatabaseError {
        self.pool.connector.shown(error)
    }

    /// Gives back a connection, unless what happened may have left it in disorder.
    fn done<T>(&self, conn: Lent<Conn>, result: Result<T, Error>) -> Result<T, Error> {
        if !matches!(&result, Err(error) if error.is_fatal()) {
            self.pool.put(conn);
        }
        result
    }

    async fn run_filled(&self, statements: &[String], values: &[(&str, &str)]) -> Result<(), DatabaseError> {
        let filled = filled(Dialect::MySql, statements, values)?;
        in_time(&self.clock, async {
            let mut conn = self.conn().await?;
            let ran = run(&mut conn, &filled).await;
            self.done(conn, ran).map_err(|error| self.shown(&error))
        })
        .await
    }
}

/// Runs statements in their order; the server itself tells those apart that stand in one text.
async fn run(conn: &mut Conn, statements: &[String]) -> Result<(), Error> {
    for statement in statements.iter().map(|s| s.trim().trim_end_matches(';')).filter(|s| !s.is_empty()) {
        match conn.query_drop(statement).await {
            Err(Error::Server(said)) if said.code == code::EMPTY_QUERY => {}
            ran => ran?,
        }
    }
    Ok(())
}

/// The hosts for which the server has a user of this name; where it may not be asked, all hosts.
async fn hosts(conn: &mut Conn, name: &str) -> Result<Vec<String>, Error> {
    match conn.exec("SELECT Host FROM mysql.user WHERE User = ?", (name,)).await {
        Err(Error::Server(_)) => Ok(vec!["%".to_owned()]),
        hosts => hosts,
    }
}

/// Removes a user under all its hosts and ends its sessions, which outlive it otherwise. Can be done again.
async fn drop_user(conn: &mut Conn, name: &str) -> Result<(), Error> {
    for host in hosts(conn, name).await? {
        match conn.query_drop(format!("DROP USER {}", account(name, &host))).await {
            Err(Error::Server(said)) if said.code == code::CANNOT_USER => {}
            dropped => dropped?,
        }
    }
    let sessions: Vec<u64> =
        match conn.exec("SELECT ID FROM information_schema.PROCESSLIST WHERE USER = ?", (name,)).await {
            Err(Error::Server(_)) => Vec::new(),
            sessions => sessions?,
        };
    for session in sessions {
        // It may have ended by itself, and who may not end it cannot do more.
        match conn.query_drop(format!("KILL CONNECTION {session}")).await {
            Err(Error::Server(said)) => tracing::debug!(code = said.code, "a session was not ended"),
            ended => ended?,
        }
    }
    Ok(())
}

#[async_trait]
impl Database for MySql {
    async fn verify(&self) -> Result<(), DatabaseError> {
        let tried = in_time(&self.clock, async {
            let conn = self.conn().await?;
            self.pool.put(conn);
            Ok(())
        });
        tried.await.map_err(|DatabaseError(text)| DatabaseError(format!("error verifying - ping: {text}")))
    }

    async fn create_user(&self, user: &NewUser<'_>, statements: &[String]) -> Result<(), NotMade> {
        let expires = expiration(user.expires);
        let password = match user.login {
            Login::Password(password) => password.expose().as_str(),
            Login::Certificate { .. } => "",
        };
        let values = user.values(password, &expires);
        let filled = filled(Dialect::MySql, statements, &values).map_err(NotMade::Untried)?;
        let mut conn = in_time(&self.clock, self.conn()).await.map_err(NotMade::Untried)?;
        let ran = in_time(&self.clock, async { Ok::<_, DatabaseError>(run(&mut conn, &filled).await) }).await?;
        let Err(Error::Server(said)) = &ran else {
            return self.done(conn, ran).map_err(|error| self.shown(&error).into());
        };
        let told = Target::shown_by_server(said);
        if said.code == code::CANNOT_USER && said.message.contains("CREATE USER") {
            self.pool.put(conn);
            return Err(NotMade::Taken(told));
        }
        // No transaction takes back what makes a user. Whether it was made is told by its password; what is left is made
        // good when the lease's intent is undone.
        let is_ours = match user.login {
            Login::Password(password) => self.accepts(user.name, password).await.unwrap_or(false),
            Login::Certificate { .. } => false,
        };
        if is_ours {
            let dropping = async { Ok::<_, DatabaseError>(drop_user(&mut conn, user.name).await) };
            let dropped = in_time(&self.clock, dropping).await?;
            if let Err(error) = self.done(conn, dropped) {
                tracing::warn!(error = %self.shown(&error).0, "half a user was left behind");
            }
        } else {
            self.pool.put(conn);
        }
        Err(NotMade::Failed(told))
    }

    async fn is_free(&self, name: &str) -> Result<bool, DatabaseError> {
        in_time(&self.clock, async {
            let mut conn = self.conn().await?;
            let found = conn.exec_first("SELECT 1 FROM mysql.user WHERE User = ?", (name,)).await;
            let told =
                |error| format!("it is not known whether there is a user of this name: {}", self.shown(&error).0);
            self.done(conn, found).map(|found: Option<u8>| found.is_none()).map_err(|error| DatabaseError(told(error)))
        })
        .await
    }

    fn taken(&self, name: &str) -> DatabaseError {
        DatabaseError(format!("Error 1396 (HY000): Operation CREATE USER failed for {}@'%'", literal(name)))
    }

    async fn renew_user(&self, name: &str, expires: Timestamp, statements: &[String]) -> Result<(), DatabaseError> {
        // The server knows no end of a user.
        let expires = expiration(expires);
        self.run_filled(statements, &[("name", name), ("username", name), ("expiration", expires.as_str())]).await
    }

    async fn drop_user(&self, name: &str, statements: &[String]) -> Result<(), DatabaseError> {
        if !are_blank(statements) {
            return self.run_filled(statements, &[("name", name), ("username", name)]).await;
        }
        in_time(&self.clock, async {
            let mut conn = self.conn().await?;
            let dropped = drop_user(&mut conn, name).await;
            self.done(conn, dropped).map_err(|error| self.shown(&error))
        })
        .await
    }

    async fn set_password(
        &self,
        name: &str,
        password: &SecretString,
        statements: &[String],
    ) -> Result<(), DatabaseError> {
        if !are_blank(statements) {
            let values = [("name", name), ("username", name), ("password", password.expose().as_str())];
            return self.run_filled(statements, &values).await;
        }
        in_time(&self.clock, async {
            let mut conn = self.conn().await?;
            let changed = set_password(&mut conn, name, password).await;
            self.done(conn, changed).map_err(|error| self.shown(&error))
        })
        .await
    }

    async fn list_users(&self, prefix: &str) -> Result<Vec<String>, DatabaseError> {
        in_time(&self.clock, async {
            let mut conn = self.conn().await?;
            let statement = "SELECT DISTINCT User FROM mysql.user WHERE LEFT(User, CHAR_LENGTH(?)) = ?";
            let found = conn.exec(statement, (prefix, prefix)).await;
            self.done(conn, found).map_err(|error| self.shown(&error))
        })
        .await
    }

    async fn accepts(&self, name: &str, password: &SecretString) -> Result<bool, DatabaseError> {
        in_time(&self.clock, async {
            match self.pool.connector.connect(Some((name, password))).await {
                Ok(conn) => {
                    // What it says at its end matters to nobody.
                    drop(conn.disconnect().await);
                    Ok(true)
                }
                Err(Error::Server(said)) if matches!(said.code, code::DATABASE_DENIED | code::UNKNOWN_DATABASE) => {
                    Ok(true)
                }
                Err(Error::Server(said))
                    if matches!(said.code, code::ACCESS_DENIED | code::ACCESS_DENIED_NO_PASSWORD) =>
                {
                    Ok(false)
                }
                Err(error) => Err(self.shown(&error)),
            }
        })
        .await
    }

    fn numbers(&self) -> Numbers {
        self.pool.numbers()
    }
}

/// The account for all hosts, as the peer has it, or, where there is none, those that there are.
async fn set_password(conn: &mut Conn, name: &str, password: &SecretString) -> Result<(), Error> {
    let mut hosts = hosts(conn, name).await?;
    if hosts.is_empty() || hosts.iter().any(|host| host == "%") {
        hosts = vec!["%".to_owned()];
    }
    for host in hosts {
        let statement = format!("ALTER USER {} IDENTIFIED BY {}", account(name, &host), literal(password.expose()));
        conn.query_drop(statement).await?;
    }
    Ok(())
}

/// A user at a host.
fn account(name: &str, host: &str) -> String {
    let [name, host] = [name, host].map(|text| format!("`{}`", text.replace('`', "``")));
    format!("{name}@{host}")
}

/// A text as an SQL literal.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_se03_accounts_and_literals_are_quoted_by_type() {
        assert_eq!(account("a`; DROP USER x; --", "%'"), "`a``; DROP USER x; --`@`%'`");
        assert_eq!(literal("a\\'b"), "'a\\\\''b'");
    }
}
