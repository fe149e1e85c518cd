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
use super::connection::{
    ChangePasswordError, CreateUserError, Database, DatabaseError, NewUser, OpenError, dial_error, with_timeout,
};
use super::credential::Login;
use super::details::Details;
use super::files::{FileDirectories, LocalPath};
use super::pool::{Connector, Pool, PoolStats, PooledConnection};
use super::statement::{Dialect, are_blank, expiration, filled};

/// Error numbers of the server.
mod code {
    /// The user may not use the database; the password was correct.
    const DATABASE_DENIED: u16 = 1044;
    pub(super) const ACCESS_DENIED: u16 = 1045;
    const UNKNOWN_DATABASE: u16 = 1049;
    pub(super) const EMPTY_QUERY: u16 = 1065;
    /// The user to create exists, or the user to change or drop does not.
    pub(super) const CANNOT_USER: u16 = 1396;
    /// The user has reached its maximum of sessions.
    const TOO_MANY_SESSIONS: [u16; 2] = [1203, 1226];
    /// The password is correct but has expired.
    const PASSWORD_EXPIRED: [u16; 2] = [1820, 1862];
    /// The server or the connection ends; the effect of the statement is unknown.
    pub(super) const INTERRUPTED: [u16; 5] = [1053, 1152, 1317, 1927, 3024];

    /// Whether a server that refuses a session with this code has accepted the password.
    pub(super) fn is_after_login(code: u16) -> bool {
        matches!(code, DATABASE_DENIED | UNKNOWN_DATABASE)
            || TOO_MANY_SESSIONS.contains(&code)
            || PASSWORD_EXPIRED.contains(&code)
    }
}

/// A MySQL or MariaDB server.
pub(super) struct MySql {
    pool: Pool<Target>,
    clock: Arc<dyn Clock>,
}

/// The server and the administrator of a connection.
struct Target {
    opts: Opts,
    /// The options without TLS, for a server without TLS, if `tls=preferred` allows that.
    plaintext: Option<Opts>,
    /// For error texts.
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
            // Without a reason, which would reveal which files exist.
            return Err(Error::Io(IoError::Io(std::io::ErrorKind::NotFound.into())));
        }
        match (Conn::new(opts(&self.opts)).await, &self.plaintext) {
            (Err(Error::Driver(DriverError::NoClientSslFlagFromServer)), Some(plaintext)) => {
                Conn::new(opts(plaintext)).await
            }
            (connected, _) => connected,
        }
    }

    fn server_error(server: &ServerError) -> DatabaseError {
        let text = format!("Error {} ({}): {}", server.code, server.state, server.message);
        DatabaseError::from_server(format!("MySQL error {} ({})", server.code, server.state), text)
    }

    /// The error, in OpenBao's words if it has the same one.
    fn database_error(&self, error: &Error) -> DatabaseError {
        DatabaseError::new(match error {
            Error::Server(server) => return Self::server_error(server),
            Error::Io(IoError::Io(io)) => dial_error(&self.address, io),
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
        self.connect(None).await.map_err(|error| self.database_error(&error))
    }

    fn looks_open(_: &Conn) -> bool {
        true
    }
}

impl MySql {
    /// Opens a connection from its settings.
    ///
    /// # Errors
    /// When a setting is invalid.
    pub(super) fn open(
        details: &Details,
        password: &SecretString,
        files: &FileDirectories,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let Settings { opts, plaintext, address, socket, limits } = Settings::read(details, password, files)?;
        let pool = Pool::new(Target { opts, plaintext, address, socket }, limits, clock.clone());
        Ok(MySql { pool, clock })
    }

    /// A pooled connection that responds to a ping.
    async fn conn(&self) -> Result<PooledConnection<Conn>, DatabaseError> {
        let mut conn = self.pool.get().await?;
        if conn.is_used && conn.ping().await.is_err() {
            return self.pool.replace(conn).await;
        }
        Ok(conn)
    }

    fn database_error(&self, error: &Error) -> DatabaseError {
        self.pool.connector.database_error(error)
    }

    /// Returns a connection to the pool, unless the error may have left it in an unknown state.
    fn release<T>(&self, conn: PooledConnection<Conn>, result: Result<T, Error>) -> Result<T, Error> {
        if !matches!(&result, Err(error) if error.is_fatal()) {
            self.pool.put(conn);
        }
        result
    }

    async fn run_statements(&self, statements: &[String], values: &[(&str, &str)]) -> Result<(), DatabaseError> {
        let filled = filled(Dialect::MySql, statements, values)?;
        with_timeout(&self.clock, async {
            let mut conn = self.conn().await?;
            let ran = run(&mut conn, &filled, &mut 0).await;
            self.release(conn, ran).map_err(|error| self.database_error(&error))
        })
        .await
    }

    /// Runs statements that change a password. The server rolls back only the one that fails.
    async fn change_password(&self, statements: &[String]) -> Result<(), ChangePasswordError> {
        let mut conn = with_timeout(&self.clock, self.conn()).await.map_err(ChangePasswordError::Unchanged)?;
        with_timeout(&self.clock, async {
            let mut finished = 0;
            let ran = run(&mut conn, statements, &mut finished).await;
            let is_refused = finished == 0
                && matches!(&ran, Err(Error::Server(server)) if !code::INTERRUPTED.contains(&server.code))
                && statements.iter().find(|s| !s.trim().is_empty()).is_none_or(|s| is_single(s));
            self.release(conn, ran).map_err(|error| {
                let error = self.database_error(&error);
                if is_refused { ChangePasswordError::Unchanged(error) } else { ChangePasswordError::Unknown(error) }
            })
        })
        .await
    }

    /// The accounts of this name whose password changes: the one for all hosts, as in OpenBao; without that one, all
    /// accounts.
    async fn accounts(&self, name: &str) -> Result<Vec<String>, DatabaseError> {
        let mut hosts = with_timeout(&self.clock, async {
            let mut conn = self.conn().await?;
            let found = hosts(&mut conn, name).await;
            self.release(conn, found).map_err(|error| self.database_error(&error))
        })
        .await?;
        if hosts.is_empty() || hosts.iter().any(|host| host == "%") {
            hosts = vec!["%".to_owned()];
        }
        Ok(hosts.iter().map(|host| account(name, host)).collect())
    }
}

/// Whether a text is certainly one statement.
fn is_single(text: &str) -> bool {
    !text.trim().trim_end_matches(';').contains(';')
}

/// Runs statements in order and counts those that succeeded; the server itself splits a text of several.
async fn run(conn: &mut Conn, statements: &[String], finished: &mut usize) -> Result<(), Error> {
    for statement in statements.iter().map(|s| s.trim().trim_end_matches(';')).filter(|s| !s.is_empty()) {
        match conn.query_drop(statement).await {
            Err(Error::Server(server)) if server.code == code::EMPTY_QUERY => {}
            ran => ran?,
        }
        *finished += 1;
    }
    Ok(())
}

/// The hosts of the accounts with this name; all hosts if the query is not permitted.
async fn hosts(conn: &mut Conn, name: &str) -> Result<Vec<String>, Error> {
    match conn.exec("SELECT Host FROM mysql.user WHERE User = ?", (name,)).await {
        Err(Error::Server(_)) => Ok(vec!["%".to_owned()]),
        hosts => hosts,
    }
}

/// Drops all accounts of a user and ends its sessions, which would continue otherwise. Idempotent.
async fn drop_user(conn: &mut Conn, name: &str) -> Result<(), Error> {
    for host in hosts(conn, name).await? {
        match conn.query_drop(format!("DROP USER {}", account(name, &host))).await {
            Err(Error::Server(server)) if server.code == code::CANNOT_USER => {}
            dropped => dropped?,
        }
    }
    let sessions: Vec<u64> =
        match conn.exec("SELECT ID FROM information_schema.PROCESSLIST WHERE USER = ?", (name,)).await {
            Err(Error::Server(_)) => Vec::new(),
            sessions => sessions?,
        };
    for session in sessions {
        // The session may have ended; a lack of the privilege is no error.
        match conn.query_drop(format!("KILL CONNECTION {session}")).await {
            Err(Error::Server(server)) => tracing::debug!(code = server.code, "ending a session failed"),
            ended => ended?,
        }
    }
    Ok(())
}

#[async_trait]
impl Database for MySql {
    async fn verify(&self) -> Result<(), DatabaseError> {
        let tried = with_timeout(&self.clock, async {
            let conn = self.conn().await?;
            self.pool.put(conn);
            Ok(())
        });
        tried.await.map_err(|error: DatabaseError| error.with_text(|text| format!("error verifying - ping: {text}")))
    }

    async fn create_user(&self, user: &NewUser<'_>, statements: &[String]) -> Result<(), CreateUserError> {
        let expires = expiration(user.expires);
        let password = match user.login {
            Login::Password(password) => password.expose().as_str(),
            Login::Certificate { .. } => "",
        };
        let values = user.values(password, &expires);
        let filled = filled(Dialect::MySql, statements, &values).map_err(CreateUserError::NotAttempted)?;
        let mut conn = with_timeout(&self.clock, self.conn()).await.map_err(CreateUserError::NotAttempted)?;
        let ran =
            with_timeout(&self.clock, async { Ok::<_, DatabaseError>(run(&mut conn, &filled, &mut 0).await) }).await?;
        let Err(Error::Server(server)) = &ran else {
            return self.release(conn, ran).map_err(|error| self.database_error(&error).into());
        };
        let error = Target::server_error(server);
        if server.code == code::CANNOT_USER && server.message.contains("CREATE USER") {
            self.pool.put(conn);
            return Err(CreateUserError::NameExists(error));
        }
        // No transaction rolls back the creation of a user. A login with its password shows whether it was created; the
        // revocation of the lease's intent removes the rest.
        let was_created = match user.login {
            Login::Password(password) => self.accepts(user.name, password).await.unwrap_or(false),
            Login::Certificate { .. } => false,
        };
        if was_created {
            let dropping = async { Ok::<_, DatabaseError>(drop_user(&mut conn, user.name).await) };
            let dropped = with_timeout(&self.clock, dropping).await?;
            if let Err(error) = self.release(conn, dropped) {
                tracing::warn!(
                    error = self.database_error(&error).log_text(),
                    "a user was not dropped after its creation failed"
                );
            }
        } else {
            self.pool.put(conn);
        }
        Err(CreateUserError::Unknown(error))
    }

    async fn is_free(&self, name: &str) -> Result<bool, DatabaseError> {
        with_timeout(&self.clock, async {
            let mut conn = self.conn().await?;
            let found = conn.exec_first("SELECT 1 FROM mysql.user WHERE User = ?", (name,)).await;
            let unknown = |text| format!("it is unknown whether a user of this name exists: {text}");
            let failed = |error| self.database_error(&error).with_text(unknown);
            self.release(conn, found).map(|found: Option<u8>| found.is_none()).map_err(failed)
        })
        .await
    }

    fn name_exists_error(&self, name: &str) -> DatabaseError {
        DatabaseError::new(format!("Error 1396 (HY000): Operation CREATE USER failed for {}@'%'", literal(name)))
    }

    async fn renew_user(&self, name: &str, expires: Timestamp, statements: &[String]) -> Result<(), DatabaseError> {
        // The server has no expiry of users.
        let expires = expiration(expires);
        self.run_statements(statements, &[("name", name), ("username", name), ("expiration", expires.as_str())]).await
    }

    async fn drop_user(&self, name: &str, statements: &[String]) -> Result<(), DatabaseError> {
        if !are_blank(statements) {
            return self.run_statements(statements, &[("name", name), ("username", name)]).await;
        }
        with_timeout(&self.clock, async {
            let mut conn = self.conn().await?;
            let dropped = drop_user(&mut conn, name).await;
            self.release(conn, dropped).map_err(|error| self.database_error(&error))
        })
        .await
    }

    async fn set_password(
        &self,
        name: &str,
        password: &SecretString,
        statements: &[String],
    ) -> Result<(), ChangePasswordError> {
        if !are_blank(statements) {
            let values = [("name", name), ("username", name), ("password", password.expose().as_str())];
            return self
                .change_password(&filled(Dialect::MySql, statements, &values).map_err(ChangePasswordError::Unchanged)?)
                .await;
        }
        let accounts = self.accounts(name).await.map_err(ChangePasswordError::Unchanged)?;
        let statement = |account: &String| format!("ALTER USER {account} IDENTIFIED BY {}", literal(password.expose()));
        self.change_password(&accounts.iter().map(statement).collect::<Vec<_>>()).await
    }

    async fn set_own_password(
        &self,
        name: &str,
        password: &SecretString,
        statements: &[String],
    ) -> Result<(), ChangePasswordError> {
        if !are_blank(statements) {
            return self.set_password(name, password, statements).await;
        }
        // Of several accounts of one name, that of this session, whatever its host. MariaDB accepts `ALTER USER
        // CURRENT_USER()` without any effect.
        let own = with_timeout(&self.clock, async {
            let mut conn = self.conn().await?;
            let found = conn.query_first::<String, _>("SELECT CURRENT_USER()").await;
            self.release(conn, found).map_err(|error| self.database_error(&error))
        });
        let own = own.await.map_err(ChangePasswordError::Unchanged)?.unwrap_or_default();
        let unknown = || {
            ChangePasswordError::Unchanged(DatabaseError::new("the server does not return the account of the session"))
        };
        let (user, host) = own.rsplit_once('@').ok_or_else(unknown)?;
        let statement = format!("ALTER USER {} IDENTIFIED BY {}", account(user, host), literal(password.expose()));
        self.change_password(&[statement]).await
    }

    async fn list_users(&self, prefix: &str) -> Result<Vec<String>, DatabaseError> {
        with_timeout(&self.clock, async {
            let mut conn = self.conn().await?;
            let statement = "SELECT DISTINCT User FROM mysql.user WHERE LEFT(User, CHAR_LENGTH(?)) = ?";
            let found = conn.exec(statement, (prefix, prefix)).await;
            self.release(conn, found).map_err(|error| self.database_error(&error))
        })
        .await
    }

    async fn accepts(&self, name: &str, password: &SecretString) -> Result<bool, DatabaseError> {
        with_timeout(&self.clock, async {
            match self.pool.connector.connect(Some((name, password))).await {
                Ok(conn) => {
                    // Errors of closing the connection do not matter.
                    drop(conn.disconnect().await);
                    Ok(true)
                }
                Err(Error::Server(server)) if code::is_after_login(server.code) => Ok(true),
                Err(Error::Server(server)) if server.code == code::ACCESS_DENIED => Ok(false),
                Err(error) => Err(self.database_error(&error)),
            }
        })
        .await
    }

    fn pool_stats(&self) -> PoolStats {
        self.pool.pool_stats()
    }
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
