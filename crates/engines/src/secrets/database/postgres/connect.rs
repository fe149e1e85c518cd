//! Connecting: the hosts are tried in their order until one is as it has to be.

use std::sync::Arc;

use async_trait::async_trait;
use keepfast_crypto::secret::SecretString;
use tokio_postgres::config::Host as Address;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::{Client, Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::connection::{DatabaseError, unreached};
use super::super::files::LocalPath;
use super::super::pool::Connector;
use super::encryption::Encryption;
use super::said;

/// Where to connect to, and as whom.
pub(super) struct Target {
    pub(super) hosts: Vec<Host>,
    pub(super) session: Session,
    pub(super) encryption: Arc<Encryption>,
}

/// One host.
pub(super) struct Host {
    pub(super) config: Config,
    /// The directory of its socket, where it is no host of a network.
    pub(super) socket: Option<LocalPath>,
}

impl Host {
    /// Refuses a socket behind a symbolic link.
    async fn check_socket(&self) -> Result<(), Fault> {
        let Some(path) = self.socket.clone() else { return Ok(()) };
        match tokio::task::spawn_blocking(move || path.is_socket_or_directory()).await {
            Ok(true) => Ok(()),
            _ => Err(Fault::Unsuitable("the directory of the socket cannot be used")),
        }
    }

    /// A session on this host, if the host is of the kind that is wanted.
    async fn open(
        &self,
        user: Option<(&str, &SecretString)>,
        session: Session,
        tls: &MakeRustlsConnect,
    ) -> Result<Client, Fault> {
        self.check_socket().await?;
        let mut config = self.config.clone();
        if let Some((name, password)) = user {
            config.user(name).password(password.expose());
        }
        let (client, connection) = config.connect(tls.clone()).await.map_err(Fault::Server)?;
        // Its other half runs until the client is dropped.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                let code = error.code().map(SqlState::code);
                tracing::debug!(code, "a database connection ended");
            }
        });
        let Some((question, expected, otherwise)) = session.question() else { return Ok(client) };
        let answers = client.simple_query(question).await.map_err(Fault::Server)?;
        let suits = answers.iter().any(|answer| match answer {
            SimpleQueryMessage::Row(row) => row.get(0) == Some(expected),
            _ => false,
        });
        if suits { Ok(client) } else { Err(Fault::Unsuitable(otherwise)) }
    }
}

/// `target_session_attrs`: what kind of server is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

impl Session {
    /// The one of this name; the empty name is any.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        match name {
            "" | "any" => Ok(Session::Any),
            "read-write" => Ok(Session::ReadWrite),
            "read-only" => Ok(Session::ReadOnly),
            "primary" => Ok(Session::Primary),
            "standby" => Ok(Session::Standby),
            "prefer-standby" => Ok(Session::PreferStandby),
            other => Err(format!("cannot parse connection url: unknown target_session_attrs value: {other}")),
        }
    }

    /// What to ask a server, the answer that suits, and what to say when it is another one.
    fn question(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Session::Any => None,
            Session::ReadWrite => Some(("SHOW transaction_read_only", "off", "read only connection")),
            Session::ReadOnly => Some(("SHOW transaction_read_only", "on", "connection is not read only")),
            Session::Primary => Some(("SELECT pg_catalog.pg_is_in_recovery()", "f", "server is in standby mode")),
            Session::Standby | Session::PreferStandby => {
                Some(("SELECT pg_catalog.pg_is_in_recovery()", "t", "server is not in hot standby mode"))
            }
        }
    }
}

/// Why a connection was not made.
pub(super) enum Refused {
    /// The server does not take these credentials.
    Credentials(DatabaseError),
    /// The server accepts these credentials, but refuses the session.
    Entry(DatabaseError),
    Other(DatabaseError),
}

impl Refused {
    pub(super) fn into_error(self) -> DatabaseError {
        match self {
            Refused::Credentials(error) | Refused::Entry(error) | Refused::Other(error) => error,
        }
    }
}

impl Target {
    /// The first host that will do, as the administrator or as somebody else.
    pub(super) async fn connect(&self, user: Option<(&str, &SecretString)>) -> Result<Client, Refused> {
        let first = self.try_all(user, self.session).await;
        match first {
            Err(Refused::Other(_)) if self.session == Session::PreferStandby => self.try_all(user, Session::Any).await,
            tried => tried,
        }
    }

    async fn try_all(&self, user: Option<(&str, &SecretString)>, session: Session) -> Result<Client, Refused> {
        let tls = self.encryption.connector().await.map_err(Refused::Other)?;
        let (mut faults, mut last) = (Vec::new(), None);
        for host in &self.hosts {
            let error = match host.open(user, session, &tls).await {
                Ok(client) => return Ok(client),
                Err(Fault::Server(error)) => error,
                Err(Fault::Unsuitable(text)) => {
                    faults.push(format!("{}: ValidateConnect failed: {text}", address(&host.config)));
                    continue;
                }
            };
            faults.push(format!("{}: {}", address(&host.config), reason(&error, &host.config)));
            let code = error.code();
            let text = || self.failure(user, &faults, code);
            let is_pooler = error.as_db_error().is_some_and(is_poolers_refusal);
            if is_pooler || matches!(code, Some(&SqlState::INVALID_PASSWORD)) {
                return Err(Refused::Credentials(text()));
            }
            if is_after_login(&error) {
                return Err(Refused::Entry(text()));
            }
            if matches!(code, Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)) {
                // `pg_hba.conf` lets nobody in from here, so nothing is known of the password.
                return Err(Refused::Other(text()));
            }
            last = code.cloned().or(last);
        }
        Err(Refused::Other(self.failure(user, &faults, last.as_ref())))
    }

    /// In the peer's form.
    fn failure(
        &self,
        user: Option<(&str, &SecretString)>,
        faults: &[String],
        code: Option<&SqlState>,
    ) -> DatabaseError {
        let config = self.hosts.first().map(|host| &host.config);
        let name = user.map(|(name, _)| name).or(config.and_then(Config::get_user)).unwrap_or_default();
        let database = config.and_then(Config::get_dbname).unwrap_or_default();
        let faults = match faults {
            [only] => format!(" {only}"),
            several => several.iter().map(|fault| format!("\n\t{fault}")).collect(),
        };
        let text = format!("failed to connect to `user={name} database={database}`:{faults}");
        match code {
            Some(code) => DatabaseError::of_server(format!("SQLSTATE {}", code.code()), text),
            None => DatabaseError::new(text),
        }
    }
}

/// Whether a server refused a session after it had accepted the password: the role has `NOLOGIN` or its `CONNECTION LIMIT`
/// is used up, or the database does not exist or may not be entered.
fn is_after_login(error: &tokio_postgres::Error) -> bool {
    let Some(server) = error.as_db_error() else { return false };
    match *server.code() {
        SqlState::INVALID_CATALOG_NAME | SqlState::INSUFFICIENT_PRIVILEGE => true,
        // The same codes are used before the password is checked; the server's function tells them apart.
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION | SqlState::TOO_MANY_CONNECTIONS => {
            matches!(server.routine(), Some("InitializeSessionUserId" | "CheckMyDatabase"))
        }
        _ => false,
    }
}

enum Fault {
    Server(tokio_postgres::Error),
    Unsuitable(&'static str),
}

#[async_trait]
impl Connector for Target {
    type Connection = Client;

    async fn open(&self) -> Result<Client, DatabaseError> {
        self.connect(None).await.map_err(Refused::into_error)
    }

    fn looks_open(client: &Client) -> bool {
        !client.is_closed()
    }
}

/// Whether PgBouncer refuses a password, for which it has the code of a broken protocol.
fn is_poolers_refusal(server: &DbError) -> bool {
    let begins = |text: &str| server.message().starts_with(text);
    *server.code() == SqlState::PROTOCOL_VIOLATION
        && (begins("password authentication failed") || begins("SASL authentication failed"))
}

fn address(config: &Config) -> String {
    let port = config.get_ports().first().copied().unwrap_or_default();
    match (config.get_hosts().first(), config.get_hostaddrs().first()) {
        (Some(Address::Tcp(host)), _) if host.parse::<std::net::IpAddr>().is_ok() => format!("{host}:{port} ({host})"),
        (Some(Address::Tcp(host)), _) => format!("{host}:{port}"),
        (Some(Address::Unix(path)), _) => path.display().to_string(),
        (None, Some(address)) => format!("{address}:{port}"),
        (None, None) => String::new(),
    }
}

/// What went wrong, in the peer's words where they are the same thing.
fn reason(error: &tokio_postgres::Error, config: &Config) -> String {
    if let Some(server) = error.as_db_error() {
        let is_login = *server.code() == SqlState::INVALID_PASSWORD;
        return format!("{}: {}", if is_login { "failed SASL auth" } else { "server error" }, said(server));
    }
    let source = std::error::Error::source(error);
    match source.and_then(|cause| cause.downcast_ref::<std::io::Error>()) {
        Some(io) if io.get_ref().is_none() => {
            let to = address(config);
            format!("dial error: {}", unreached(to.split(' ').next().unwrap_or_default(), io))
        }
        _ => {
            let cause = source.map(|cause| format!(": {cause}")).unwrap_or_default();
            format!("{error}{cause}")
        }
    }
}
