//! Connects to the first host in order that meets the requirements.

use std::sync::Arc;

use async_trait::async_trait;
use keepfast_crypto::secret::SecretString;
use tokio_postgres::config::Host as Address;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::{Client, Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::connection::{DatabaseError, dial_error};
use super::super::files::LocalPath;
use super::super::pool::Connector;
use super::encryption::Encryption;
use super::server_text;

/// The hosts and the administrator of a connection.
pub(super) struct Target {
    pub(super) hosts: Vec<Host>,
    pub(super) session: Session,
    pub(super) encryption: Arc<Encryption>,
}

/// One host.
pub(super) struct Host {
    pub(super) config: Config,
    /// The directory of its socket, if the host is local.
    pub(super) socket: Option<LocalPath>,
}

impl Host {
    /// Refuses a socket behind a symbolic link.
    async fn check_socket(&self) -> Result<(), HostError> {
        let Some(path) = self.socket.clone() else { return Ok(()) };
        match tokio::task::spawn_blocking(move || path.is_socket_or_directory()).await {
            Ok(true) => Ok(()),
            _ => Err(HostError::Unsuitable("the directory of the socket cannot be used")),
        }
    }

    /// Opens a session on this host, if its kind meets `target_session_attrs`.
    async fn open(
        &self,
        user: Option<(&str, &SecretString)>,
        session: Session,
        tls: &MakeRustlsConnect,
    ) -> Result<Client, HostError> {
        self.check_socket().await?;
        let mut config = self.config.clone();
        if let Some((name, password)) = user {
            config.user(name).password(password.expose());
        }
        let (client, connection) = config.connect(tls.clone()).await.map_err(HostError::Server)?;
        // The connection task runs until the client is dropped.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                let code = error.code().map(SqlState::code);
                tracing::debug!(code, "a database connection ended");
            }
        });
        let Some((check_query, expected, otherwise)) = session.check_query() else { return Ok(client) };
        let answers = client.simple_query(check_query).await.map_err(HostError::Server)?;
        let suits = answers.iter().any(|answer| match answer {
            SimpleQueryMessage::Row(row) => row.get(0) == Some(expected),
            _ => false,
        });
        if suits { Ok(client) } else { Err(HostError::Unsuitable(otherwise)) }
    }
}

/// `target_session_attrs`: the required kind of server.
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
    /// The kind of this name; the empty name means any.
    pub(super) fn parse(name: &str) -> Result<Self, String> {
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

    /// The query for a server, the accepted result, and the error for another one.
    fn check_query(self) -> Option<(&'static str, &'static str, &'static str)> {
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

/// Why a session was not opened.
pub(super) enum ConnectError {
    /// The server refuses these credentials.
    Credentials(DatabaseError),
    /// The server accepts these credentials but refuses the session.
    AfterLogin(DatabaseError),
    Other(DatabaseError),
}

impl ConnectError {
    pub(super) fn into_error(self) -> DatabaseError {
        match self {
            ConnectError::Credentials(error) | ConnectError::AfterLogin(error) | ConnectError::Other(error) => error,
        }
    }
}

impl Target {
    /// Connects to the first suitable host, as the administrator or as another user.
    pub(super) async fn connect(&self, user: Option<(&str, &SecretString)>) -> Result<Client, ConnectError> {
        let first = self.try_all(user, self.session).await;
        match first {
            Err(ConnectError::Other(_)) if self.session == Session::PreferStandby => {
                self.try_all(user, Session::Any).await
            }
            tried => tried,
        }
    }

    async fn try_all(&self, user: Option<(&str, &SecretString)>, session: Session) -> Result<Client, ConnectError> {
        let tls = self.encryption.connector().await.map_err(ConnectError::Other)?;
        let (mut errors, mut last) = (Vec::new(), None);
        for host in &self.hosts {
            let error = match host.open(user, session, &tls).await {
                Ok(client) => return Ok(client),
                Err(HostError::Server(error)) => error,
                Err(HostError::Unsuitable(text)) => {
                    errors.push(format!("{}: ValidateConnect failed: {text}", address(&host.config)));
                    continue;
                }
            };
            errors.push(format!("{}: {}", address(&host.config), reason(&error, &host.config)));
            let code = error.code();
            let text = || self.failure(user, &errors, code);
            let is_pooler = error.as_db_error().is_some_and(is_pgbouncer_refusal);
            if is_pooler || matches!(code, Some(&SqlState::INVALID_PASSWORD)) {
                return Err(ConnectError::Credentials(text()));
            }
            if is_after_login(&error) {
                return Err(ConnectError::AfterLogin(text()));
            }
            if matches!(code, Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)) {
                // `pg_hba.conf` refuses this address, so nothing is known about the password.
                return Err(ConnectError::Other(text()));
            }
            last = code.cloned().or(last);
        }
        Err(ConnectError::Other(self.failure(user, &errors, last.as_ref())))
    }

    /// The error in OpenBao's format.
    fn failure(
        &self,
        user: Option<(&str, &SecretString)>,
        errors: &[String],
        code: Option<&SqlState>,
    ) -> DatabaseError {
        let config = self.hosts.first().map(|host| &host.config);
        let name = user.map(|(name, _)| name).or(config.and_then(Config::get_user)).unwrap_or_default();
        let database = config.and_then(Config::get_dbname).unwrap_or_default();
        let errors = match errors {
            [only] => format!(" {only}"),
            several => several.iter().map(|error| format!("\n\t{error}")).collect(),
        };
        let text = format!("failed to connect to `user={name} database={database}`:{errors}");
        match code {
            Some(code) => DatabaseError::from_server(format!("SQLSTATE {}", code.code()), text),
            None => DatabaseError::new(text),
        }
    }
}

/// Whether a server refused a session after it had accepted the password: the role has `NOLOGIN` or its `CONNECTION
/// LIMIT` is reached, or the database does not exist or the role may not connect to it.
fn is_after_login(error: &tokio_postgres::Error) -> bool {
    let Some(server) = error.as_db_error() else { return false };
    match *server.code() {
        SqlState::INVALID_CATALOG_NAME | SqlState::INSUFFICIENT_PRIVILEGE => true,
        // The server uses the same codes before it checks the password; the name of its function distinguishes the
        // cases.
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION | SqlState::TOO_MANY_CONNECTIONS => {
            matches!(server.routine(), Some("InitializeSessionUserId" | "CheckMyDatabase"))
        }
        _ => false,
    }
}

enum HostError {
    Server(tokio_postgres::Error),
    Unsuitable(&'static str),
}

#[async_trait]
impl Connector for Target {
    type Connection = Client;

    async fn open(&self) -> Result<Client, DatabaseError> {
        self.connect(None).await.map_err(ConnectError::into_error)
    }

    fn looks_open(client: &Client) -> bool {
        !client.is_closed()
    }
}

/// Whether PgBouncer refuses a password, for which it uses the code of a protocol violation.
fn is_pgbouncer_refusal(server: &DbError) -> bool {
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

/// The cause, in OpenBao's words if it has the same one.
fn reason(error: &tokio_postgres::Error, config: &Config) -> String {
    if let Some(server) = error.as_db_error() {
        let is_login = *server.code() == SqlState::INVALID_PASSWORD;
        return format!("{}: {}", if is_login { "failed SASL auth" } else { "server error" }, server_text(server));
    }
    let source = std::error::Error::source(error);
    match source.and_then(|cause| cause.downcast_ref::<std::io::Error>()) {
        Some(io) if io.get_ref().is_none() => {
            let to = address(config);
            format!("dial error: {}", dial_error(to.split(' ').next().unwrap_or_default(), io))
        }
        _ => {
            let cause = source.map(|cause| format!(": {cause}")).unwrap_or_default();
            format!("{error}{cause}")
        }
    }
}
