//! Connecting: the hosts are tried in their order until one is as it has to be.

use async_trait::async_trait;
use keepfast_crypto::secret::SecretString;
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::connection::{DatabaseError, unreached};
use super::super::pool::Connector;
use super::said;

/// Where to connect to, and as whom.
pub(super) struct Target {
    /// One configuration a host.
    pub(super) hosts: Vec<Config>,
    pub(super) session: Session,
    pub(super) tls: MakeRustlsConnect,
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
    /// The server takes these credentials, but the database may not be entered or is not there.
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
        let mut faults = Vec::new();
        for host in &self.hosts {
            let mut config = host.clone();
            if let Some((name, password)) = user {
                config.user(name).password(password.expose());
            }
            let error = match self.open(&config, session).await {
                Ok(client) => return Ok(client),
                Err(Fault::Server(error)) => error,
                Err(Fault::Unsuitable(text)) => {
                    faults.push(format!("{}: ValidateConnect failed: {text}", address(host)));
                    continue;
                }
            };
            faults.push(format!("{}: {}", address(host), reason(&error, host)));
            let code = error.code();
            let text = || self.failure(user, &faults);
            if matches!(code, Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION)) {
                return Err(Refused::Credentials(text()));
            }
            if matches!(code, Some(&SqlState::INVALID_CATALOG_NAME | &SqlState::INSUFFICIENT_PRIVILEGE)) {
                return Err(Refused::Entry(text()));
            }
        }
        Err(Refused::Other(self.failure(user, &faults)))
    }

    async fn open(&self, config: &Config, session: Session) -> Result<Client, Fault> {
        let (client, connection) = config.connect(self.tls.clone()).await.map_err(Fault::Server)?;
        // Its other half runs until the client is dropped.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a database connection ended");
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

    /// In the peer's form.
    fn failure(&self, user: Option<(&str, &SecretString)>, faults: &[String]) -> DatabaseError {
        let config = self.hosts.first();
        let name = user.map(|(name, _)| name).or(config.and_then(Config::get_user)).unwrap_or_default();
        let database = config.and_then(Config::get_dbname).unwrap_or_default();
        let faults = match faults {
            [only] => format!(" {only}"),
            several => several.iter().map(|fault| format!("\n\t{fault}")).collect(),
        };
        DatabaseError(format!("failed to connect to `user={name} database={database}`:{faults}"))
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

fn address(config: &Config) -> String {
    let port = config.get_ports().first().copied().unwrap_or_default();
    match (config.get_hosts().first(), config.get_hostaddrs().first()) {
        (Some(Host::Tcp(host)), _) if host.parse::<std::net::IpAddr>().is_ok() => format!("{host}:{port} ({host})"),
        (Some(Host::Tcp(host)), _) => format!("{host}:{port}"),
        (Some(Host::Unix(path)), _) => path.display().to_string(),
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
