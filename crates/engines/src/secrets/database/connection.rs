//! The interface of the database kinds, and the open connections.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::engine::Gauge;
use keepfast_framework::read_cache::Epoch;
use keepfast_framework::{Clock, ReadCache, Result, Timestamp};

use super::config::Config;
use super::credential::Login;
pub(super) use super::error::{ChangePasswordError, CreateUserError, DatabaseError};
use super::files::FileDirectories;
use super::kinds::Kind;
use super::pool::PoolStats;

/// The timeout of one operation on a database, connecting included.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a connection cannot be opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OpenError {
    /// A setting is invalid.
    Setting(String),
    /// The URL is invalid, which OpenBao detects only when it connects.
    Url(String),
}

impl OpenError {
    /// The text of the error.
    pub(super) fn text(self) -> String {
        match self {
            OpenError::Setting(text) | OpenError::Url(text) => text,
        }
    }
}

impl From<String> for OpenError {
    fn from(text: String) -> Self {
        OpenError::Setting(text)
    }
}

impl From<&str> for OpenError {
    fn from(text: &str) -> Self {
        OpenError::Setting(text.to_owned())
    }
}

/// A user that is to be created.
pub(super) struct NewUser<'a> {
    pub(super) name: &'a str,
    pub(super) login: Login<'a>,
    pub(super) expires: Timestamp,
}

impl<'a> NewUser<'a> {
    /// The values of placeholders in statements; `password` and `expires` in the form that the database expects.
    pub(super) fn values(&self, password: &'a str, expires: &'a str) -> [(&'static str, &'a str); 4] {
        let login = match self.login {
            Login::Password(_) => ("password", password),
            Login::Certificate { subject } => ("subject", subject),
        };
        [("name", self.name), ("username", self.name), login, ("expiration", expires)]
    }
}

/// The interface of one kind of database. Statements are those of the role; empty means the default of the kind.
#[async_trait]
pub(super) trait Database: Send + Sync {
    /// Checks the administrator's credentials; an error begins with the operation that failed.
    async fn verify(&self) -> Result<(), DatabaseError>;
    /// Creates a user with all its rights, or not at all.
    async fn create_user(&self, user: &NewUser<'_>, statements: &[String]) -> Result<(), CreateUserError>;
    /// Whether no user has this name; an error when the server does not permit the query.
    async fn is_free(&self, name: &str) -> Result<bool, DatabaseError>;
    /// The error of creating a user with a name that exists, in OpenBao's words.
    fn name_exists_error(&self, name: &str) -> DatabaseError;
    /// Changes the expiry that the database itself enforces.
    async fn renew_user(&self, name: &str, expires: Timestamp, statements: &[String]) -> Result<(), DatabaseError>;
    /// Drops a user and ends its sessions; succeeds if the user does not exist.
    async fn drop_user(&self, name: &str, statements: &[String]) -> Result<(), DatabaseError>;
    /// Changes the password of a user.
    async fn set_password(
        &self,
        name: &str,
        password: &SecretString,
        statements: &[String],
    ) -> Result<(), ChangePasswordError>;
    /// Changes the password of the account that this connection uses; `name` is for `statements`.
    async fn set_own_password(
        &self,
        name: &str,
        password: &SecretString,
        statements: &[String],
    ) -> Result<(), ChangePasswordError> {
        self.set_password(name, password, statements).await
    }
    /// The names of all users with a prefix.
    async fn list_users(&self, prefix: &str) -> Result<Vec<String>, DatabaseError>;
    /// Whether a login as this user with this password succeeds. `Ok(false)` only if the server refuses the password;
    /// an error proves neither.
    async fn accepts(&self, name: &str, password: &SecretString) -> Result<bool, DatabaseError>;
    /// The statistics of the connection pool.
    fn pool_stats(&self) -> PoolStats;
}

/// Runs an operation with a timeout.
///
/// # Errors
/// Those of the operation; the timeout.
pub(super) async fn with_timeout<T, E: From<DatabaseError>>(
    clock: &Arc<dyn Clock>,
    work: impl Future<Output = Result<T, E>> + Send,
) -> Result<T, E> {
    tokio::select! {
        done = work => done,
        () = clock.sleep_until(clock.now().after(TIMEOUT)) => {
            Err(DatabaseError::new("the database did not answer in time").into())
        }
    }
}

/// The error of a failed connection attempt, in OpenBao's words.
pub(super) fn dial_error(address: &str, error: &std::io::Error) -> String {
    let net = if address.starts_with('/') { "unix" } else { "tcp" };
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => format!("dial {net} {address}: connect: connection refused"),
        std::io::ErrorKind::NotFound => format!("dial {net} {address}: connect: no such file or directory"),
        std::io::ErrorKind::TimedOut => format!("dial {net} {address}: i/o timeout"),
        _ => format!("dial {net} {address}: {error}"),
    }
}

/// The most open connections of a mount; beyond them the least used ones close.
const CAPACITY: usize = 10_000;

/// The open connections, each for one revision of its settings.
pub(super) struct Connections {
    open: ReadCache<String, OpenConnection>,
    files: FileDirectories,
}

/// The key of a connection that uses the second password. No connection has such a name.
fn second(name: &str) -> String {
    format!("{name}/second-password")
}

/// The revision of the settings, and the connection that was opened with them.
type OpenConnection = (String, Arc<dyn Database>);

impl Connections {
    /// No open connections; settings may name files below these directories.
    pub(super) fn new(files: FileDirectories) -> Self {
        Connections { open: ReadCache::new(16, CAPACITY), files }
    }

    /// The current epoch, to be taken before settings are read.
    pub(super) fn epoch(&self) -> Epoch {
        self.open.epoch()
    }

    /// Opens a connection that is not kept; sends nothing to the database yet.
    ///
    /// # Errors
    /// When a setting is invalid.
    pub(super) fn open(&self, config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Database>, OpenError> {
        Kind::by_name(&config.plugin_name)?.open(&config.details, &config.password(), &self.files, clock)
    }

    /// The open connection of this name with these settings, or a new one. A new one is kept unless connections were closed
    /// after the settings were read.
    ///
    /// # Errors
    /// 500 when a setting is invalid.
    pub(super) fn get(&self, name: &str, config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Database>> {
        if let Some((revision, open)) = self.open.get(name)
            && revision == config.revision
        {
            return Ok(open);
        }
        let opened = self.open(config, clock).map_err(|unusable| DatabaseError::new(unusable.text()).internal())?;
        self.open.insert(config.read_in, name.to_owned(), (config.revision.clone(), opened.clone()));
        Ok(opened)
    }

    /// The metrics of all open pools, labelled with the connection.
    pub(super) fn gauges(&self) -> Vec<Gauge> {
        let of_one = |(name, (_, database)): (String, OpenConnection)| {
            let PoolStats { open, in_use, idle, waits, opened } = database.pool_stats();
            let numbers = [
                ("database.pool.open", open as f64),
                ("database.pool.in_use", in_use as f64),
                ("database.pool.idle", idle as f64),
                ("database.pool.waits", waits as f64),
                ("database.pool.opened", opened as f64),
            ];
            let labels = vec![("connection", name)];
            numbers.map(|(name, value)| Gauge { name, value, labels: labels.clone() })
        };
        self.open.iter().flat_map(of_one).collect()
    }

    /// The connection with the second password of an undecided rotation.
    ///
    /// # Errors
    /// As [`Connections::get`].
    pub(super) fn second(&self, name: &str, config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Database>> {
        self.get(&second(name), config, clock)
    }

    /// Closes a connection; the next use opens it again.
    pub(super) fn close(&self, name: &str) {
        self.open.invalidate(name);
        self.open.invalidate(&second(name));
    }
}
