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
use super::connection::{Database, DatabaseError, NewUser, NotChanged, NotMade, Unusable, in_time, unreached};
use super::credential::Login;
use super::details::Details;
use super::files::{FileDirectories, LocalPath};
use super::pool::{Connector, Lent, Numbers, Pool};
use super::statement::{Dialect, are_blank, expiration, filled};

/// Error numbers of the server.
mod code {
    /// Of the database, for a user whose password was right.
    const DATABASE_DENIED: u16 = 1044;
    pub(super) const ACCESS_DENIED: u16 = 1045;
    const UNKNOWN_DATABASE: u16 = 1049;
    pub(super) const EMPTY_QUERY: u16 = 1065;
    /// A user that is made exists, or one that is changed or dropped does not.
    pub(super) const CANNOT_USER: u16 = 1396;
    /// The user has as many sessions as it may have.
    const TOO_MANY_SESSIONS: [u16; 2] = [1203, 1226];
    /// The password is right but has expired.
    const PASSWORD_EXPIRED: [u16; 2] = [1820, 1862];
    /// The server or the connection ends; what the statement did is not known.
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
        let text = format!("Error {} ({}): {}", said.code, said.state, said.message);
        DatabaseError::of_server(format!("MySQL error {} ({})", said.code, said.state), text)
    }

    /// What went wrong, in the peer's words where they are the same thing.
    fn shown(&self, error: &Error) -> DatabaseError {
        DatabaseError::new(match error {
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
            let ran = run(&mut conn, &filled, &mut 0).await;
            self.done(conn, ran).map_err(|error| self.shown(&error))
        })
        .await
    }

    /// Statements that change a password. The server undoes only the one that fails.
    async fn change(&self, statements: &[String]) -> Result<(), NotChanged> {
        let mut conn = in_time(&self.clock, self.conn()).await.map_err(NotChanged::Refused)?;
        in_time(&self.clock, async {
            let mut finished = 0;
            let ran = run(&mut conn, statements, &mut finished).await;
            let is_refused = finished == 0
                && matches!(&ran, Err(Error::Server(said)) if !code::INTERRUPTED.contains(&said.code))
                && statements.iter().find(|s| !s.trim().is_empty()).is_none_or(|s| is_single(s));
            self.done(conn, ran).map_err(|error| {
                let error = self.shown(&error);
                if is_refused { NotChanged::Refused(error) } else { NotChanged::Unanswered(error) }
            })
        })
        .await
    }

    /// The accounts of this name whose password is changed: the one for all hosts, as with OpenBao; where there is none,
    /// all that exist.
    async fn accounts(&self, name: &str) -> Result<Vec<String>, DatabaseError> {
        let mut hosts = in_time(&self.clock, async {
            let mut conn = self.conn().await?;
            let found = hosts(&mut conn, name).await;
            self.done(conn, found).map_err(|error| self.shown(&error))
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

/// Runs statements in their order and counts those that succeeded; the server itself splits a text of several.
async fn run(conn: &mut Conn, statements: &[String], finished: &mut usize) -> Result<(), Error> {
    for statement in statements.iter().map(|s| s.trim().trim_end_matches(';')).filter(|s| !s.is_empty()) {
        match conn.query_drop(statement).await {
            Err(Error::Server(said)) if said.code == code::EMPTY_QUERY => {}
            ran => ran?,
        }
        *finished += 1;
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
        tried.await.map_err(|error: DatabaseError| error.reworded(|text| format!("error verifying - ping: {text}")))
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
        let ran = in_time(&self.clock, async { Ok::<_, DatabaseError>(run(&mut conn, &filled, &mut 0).await) }).await?;
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
                tracing::warn!(error = self.shown(&error).logged(), "a user whose creation failed was not removed");
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
            let unknown = |text| format!("it is not known whether there is a user of this name: {text}");
            let failed = |error| self.shown(&error).reworded(unknown);
            self.done(conn, found).map(|found: Option<u8>| found.is_none()).map_err(failed)
        })
        .await
    }

    fn taken(&self, name: &str) -> DatabaseError {
        DatabaseError::new(format!("Error 1396 (HY000): Operation CREATE USER failed for {}@'%'", literal(name)))
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

    async fn set_password(&self, name: &str, password: &SecretString, statements: &[String]) -> Result<(), NotChanged> {
        if !are_blank(statements) {
            let values = [("name", name), ("username", name), ("password", password.expose().as_str())];
            return self.change(&filled(Dialect::MySql, statements, &values).map_err(NotChanged::Refused)?).await;
        }
        let accounts = self.accounts(name).await.map_err(NotChanged::Refused)?;
        let change = |account: &String| format!("ALTER USER {account} IDENTIFIED BY {}", literal(password.expose()));
        self.change(&accounts.iter().map(change).collect::<Vec<_>>()).await
    }

    async fn set_own_password(
        &self,
        name: &str,
        password: &SecretString,
        statements: &[String],
    ) -> Result<(), NotChanged> {
        if !are_blank(statements) {
            return self.set_password(name, password, statements).await;
        }
        // Of several accounts of one name the one of this session, whatever its host. MariaDB accepts `ALTER USER
        // CURRENT_USER()` without any effect.
        let own = in_time(&self.clock, async {
            let mut conn = self.conn().await?;
            let found = conn.query_first::<String, _>("SELECT CURRENT_USER()").await;
            self.done(conn, found).map_err(|error| self.shown(&error))
        });
        let own = own.await.map_err(NotChanged::Refused)?.unwrap_or_default();
        let unknown = || NotChanged::Refused(DatabaseError::new("the server does not tell the account of its session"));
        let (user, host) = own.rsplit_once('@').ok_or_else(unknown)?;
        let change = format!("ALTER USER {} IDENTIFIED BY {}", account(user, host), literal(password.expose()));
        self.change(&[change]).await
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
                Err(Error::Server(said)) if code::is_after_login(said.code) => Ok(true),
                Err(Error::Server(said)) if said.code == code::ACCESS_DENIED => Ok(false),
                Err(error) => Err(self.shown(&error)),
            }
        })
        .await
    }

    fn numbers(&self) -> Numbers {
        self.pool.numbers()
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
