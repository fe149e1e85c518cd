//! The joint of the database kinds, and the connections that are open.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::engine::Gauge;
use keepfast_framework::{Clock, Result, Timestamp};
use parking_lot::Mutex;

use super::config::Config;
use super::credential::Login;
pub(super) use super::failure::{DatabaseError, NotChanged, NotMade};
use super::files::FileDirectories;
use super::kinds::Kind;
use super::pool::Numbers;

/// How long one piece of work in a database may take, connecting included.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a connection cannot be opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// A setting is wrong.
    Setting(String),
    /// The URL cannot be read, at which the peer looks only when it connects.
    Url(String),
}

impl Unusable {
    /// What is wrong.
    pub(super) fn text(self) -> String {
        match self {
            Unusable::Setting(text) | Unusable::Url(text) => text,
        }
    }
}

impl From<String> for Unusable {
    fn from(text: String) -> Self {
        Unusable::Setting(text)
    }
}

impl From<&str> for Unusable {
    fn from(text: &str) -> Self {
        Unusable::Setting(text.to_owned())
    }
}

/// A user that is about to be made.
pub(super) struct NewUser<'a> {
    pub(super) name: &'a str,
    pub(super) login: Login<'a>,
    pub(super) expires: Timestamp,
}

impl<'a> NewUser<'a> {
    /// What placeholders of statements stand for; `password` and `expires` as the database takes them.
    pub(super) fn values(&self, password: &'a str, expires: &'a str) -> [(&'static str, &'a str); 4] {
        let login = match self.login {
            Login::Password(_) => ("password", password),
            Login::Certificate { subject } => ("subject", subject),
        };
        [("name", self.name), ("username", self.name), login, ("expiration", expires)]
    }
}

/// One kind of database: all that the engine needs of it. Statements are the role's, empty for the kind's own.
#[async_trait]
pub(super) trait Database: Send + Sync {
    /// Whether the administrator's credentials work; an error begins with what was tried.
    async fn verify(&self) -> Result<(), DatabaseError>;
    /// Makes a user: with all its rights, or not at all.
    async fn create_user(&self, user: &NewUser<'_>, statements: &[String]) -> Result<(), NotMade>;
    /// Whether nobody has this name; a server that does not tell is a failure.
    async fn is_free(&self, name: &str) -> Result<bool, DatabaseError>;
    /// What making a user says when there is one of this name, as the peer passes it on.
    fn taken(&self, name: &str) -> DatabaseError;
    /// Moves the end that the database itself enforces.
    async fn renew_user(&self, name: &str, expires: Timestamp, statements: &[String]) -> Result<(), DatabaseError>;
    /// Removes a user and its sessions; one that is not there is no failure.
    async fn drop_user(&self, name: &str, statements: &[String]) -> Result<(), DatabaseError>;
    /// Gives a user another password.
    async fn set_password(&self, name: &str, password: &SecretString, statements: &[String]) -> Result<(), NotChanged>;
    /// Gives the account that this connection is logged in as another password; `name` is for `statements`.
    async fn set_own_password(
        &self,
        name: &str,
        password: &SecretString,
        statements: &[String],
    ) -> Result<(), NotChanged> {
        self.set_password(name, password, statements).await
    }
    /// The names of all users that begin with a prefix.
    async fn list_users(&self, prefix: &str) -> Result<Vec<String>, DatabaseError>;
    /// Whether a login as this user with this password succeeds. `Ok(false)` only where the server says that the password is
    /// wrong; an error says nothing about either.
    async fn accepts(&self, name: &str, password: &SecretString) -> Result<bool, DatabaseError>;
    /// What its pool is doing.
    fn numbers(&self) -> Numbers;
}

/// Work that is given up when the database does not answer.
///
/// # Errors
/// The work's own; that it took too long.
pub(super) async fn in_time<T, E: From<DatabaseError>>(
    clock: &Arc<dyn Clock>,
    work: impl Future<Output = Result<T, E>> + Send,
) -> Result<T, E> {
    tokio::select! {
        done = work => done,
        () = clock.sleep_until(clock.now().after(PATIENCE)) => {
            Err(DatabaseError::new("the database did not answer in time").into())
        }
    }
}

/// What a failed try to reach a server says, in the peer's words.
pub(super) fn unreached(address: &str, error: &std::io::Error) -> String {
    let net = if address.starts_with('/') { "unix" } else { "tcp" };
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => format!("dial {net} {address}: connect: connection refused"),
        std::io::ErrorKind::NotFound => format!("dial {net} {address}: connect: no such file or directory"),
        std::io::ErrorKind::TimedOut => format!("dial {net} {address}: i/o timeout"),
        _ => format!("dial {net} {address}: {error}"),
    }
}

/// The connections that are open, each for one revision of its settings.
#[derive(Default)]
pub(super) struct Connections {
    open: Mutex<HashMap<String, Open>>,
    files: FileDirectories,
}

/// The key of a connection with its second password. No connection has such a name.
fn second(name: &str) -> String {
    format!("{name}/second-password")
}

/// A connection with the revision of the settings it was opened with.
type Open = (String, Arc<dyn Database>);

impl Connections {
    /// No connections yet; their settings may name files below these directories.
    pub(super) fn new(files: FileDirectories) -> Self {
        Connections { open: Mutex::default(), files }
    }

    /// Opens a connection that is not kept; nothing is sent to the database yet.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub(super) fn open(&self, config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Database>, Unusable> {
        Kind::of(&config.plugin_name)?.open(&config.details, &config.password(), &self.files, clock)
    }

    /// The connection of this name, opened if there is none for these settings yet.
    ///
    /// # Errors
    /// 500 with what is wrong with the settings.
    pub(super) fn of(&self, name: &str, config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Database>> {
        if let Some((revision, open)) = self.open.lock().get(name)
            && *revision == config.revision
        {
            return Ok(open.clone());
        }
        let opened = self.open(config, clock).map_err(|unusable| DatabaseError::new(unusable.text()).answer())?;
        self.open.lock().insert(name.to_owned(), (config.revision.clone(), opened.clone()));
        Ok(opened)
    }

    /// What the pools are doing that are open, each with the name of its connection.
    pub(super) fn gauges(&self) -> Vec<Gauge> {
        let open = self.open.lock();
        let of_one = |(name, (_, database)): (&String, &Open)| {
            let Numbers { open, in_use, idle, waits, opened } = database.numbers();
            let numbers = [
                ("database.pool.open", open as f64),
                ("database.pool.in_use", in_use as f64),
                ("database.pool.idle", idle as f64),
                ("database.pool.waits", waits as f64),
                ("database.pool.opened", opened as f64),
            ];
            let labels = vec![("connection", name.clone())];
            numbers.map(|(name, value)| Gauge { name, value, labels: labels.clone() })
        };
        open.iter().flat_map(of_one).collect()
    }

    /// The same with the second password of an undecided rotation.
    ///
    /// # Errors
    /// As [`Connections::of`].
    pub(super) fn second(&self, name: &str, config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Database>> {
        self.of(&second(name), config, clock)
    }

    /// Closes a connection; the next use opens it anew.
    pub(super) fn close(&self, name: &str) {
        let mut open = self.open.lock();
        open.remove(name);
        open.remove(&second(name));
    }
}
