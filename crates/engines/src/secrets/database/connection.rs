//! The joint of the database kinds, and the connections that are open.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::engine::Gauge;
use keepfast_framework::text_limits::ExceedsLimit;
use keepfast_framework::{Clock, Error, Result, Status, Timestamp};
use parking_lot::Mutex;

use super::config::Config;
use super::credential::Login;
use super::files::FileDirectories;
use super::kinds::Kind;
use super::pool::Numbers;

/// How long one piece of work in a database may take, connecting included.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a database, or the way to it, has answered. The text never holds a password: it is the server's own message.
#[derive(Debug)]
pub(super) struct DatabaseError(pub(super) String);

impl DatabaseError {
    /// As the answer of a request: 500, in the peer's form.
    pub(super) fn answer(self) -> Error {
        Error::new(Status::INTERNAL, self.listed())
    }

    /// As the answer of a request that asks for what cannot be, for which the peer blames itself: 400.
    pub(super) fn refusal(self) -> Error {
        Error::invalid(self.listed())
    }

    /// In the form in which the peer tells of errors.
    pub(super) fn listed(self) -> String {
        format!("1 error occurred:\n\t* {}\n\n", self.0)
    }
}

impl From<ExceedsLimit> for DatabaseError {
    fn from(limit: ExceedsLimit) -> Self {
        DatabaseError(limit.to_string())
    }
}

/// Why a user was not made.
#[derive(Debug)]
pub(super) enum NotMade {
    /// It is certain that this call made no user, because there was one of this name.
    Taken(DatabaseError),
    /// It is certain that this call made no user, because nothing was asked of the database that could make one.
    Untried(DatabaseError),
    /// Anything else: perhaps it was made all the same.
    Failed(DatabaseError),
}

impl NotMade {
    /// What the database has answered.
    pub(super) fn told(self) -> DatabaseError {
        match self {
            NotMade::Taken(error) | NotMade::Untried(error) | NotMade::Failed(error) => error,
        }
    }
}

impl From<DatabaseError> for NotMade {
    fn from(error: DatabaseError) -> Self {
        NotMade::Failed(error)
    }
}

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
    async fn set_password(
        &self,
        name: &str,
        password: &SecretString,
        statements: &[String],
    ) -> Result<(), DatabaseError>;
    /// The names of all users that begin with a prefix.
    async fn list_users(&self, prefix: &str) -> Result<Vec<String>, DatabaseError>;
    /// Whether this password works for this user; an error says nothing about either.
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
            Err(DatabaseError("the database did not answer in time".to_owned()).into())
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
        let opened = self.open(config, clock).map_err(|unusable| DatabaseError(unusable.text()).answer())?;
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

    /// Closes a connection; the next use opens it anew.
    pub(super) fn close(&self, name: &str) {
        self.open.lock().remove(name);
    }
}
