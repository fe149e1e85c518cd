//! The databases of scenarios: one server of each kind, started at its first use, with a database and an administrator
//! for each scenario.

use std::process::Output;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use serde_json::Value;

use crate::http::Response;
use crate::mariadb::MariaDb;
use crate::play::Variables;
use crate::postgres::Postgres;
use crate::redis::Redis;
use crate::scenario;

static POSTGRES: Shared<Postgres> = Shared(Mutex::new(None));
static MARIADB: Shared<MariaDb> = Shared(Mutex::new(None));
static REDIS: Shared<Redis> = Shared(Mutex::new(None));

/// A server that is started at its first use.
struct Shared<T>(Mutex<Option<Arc<T>>>);

impl<T> Shared<T> {
    fn get(&self, start: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = &*running {
            return Ok(server.clone());
        }
        let server = Arc::new(start()?);
        *running = Some(server.clone());
        Ok(server)
    }

    fn stop(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Stops all started servers.
pub fn stop() {
    POSTGRES.stop();
    MARIADB.stop();
    REDIS.stop();
}

enum Server {
    Postgres(Arc<Postgres>),
    MariaDb(Arc<MariaDb>),
    Redis(Arc<Redis>),
}

/// The database of one scenario.
pub struct Database {
    server: Server,
    name: String,
    administrator: String,
    password: String,
}

impl Database {
    /// Creates a database with a table `orders`, or in Redis a key; `id` is that of the scenario.
    ///
    /// # Errors
    /// When the server cannot be started or reached.
    pub fn create(kind: scenario::Database, id: &str) -> Result<Self> {
        let server = match kind {
            scenario::Database::Postgres => {
                Server::Postgres(POSTGRES.get(|| Postgres::start("-c fsync=off -c max_connections=200"))?)
            }
            scenario::Database::Mariadb => Server::MariaDb(MARIADB.get(MariaDb::start)?),
            scenario::Database::Redis => Server::Redis(REDIS.get(Redis::start)?),
        };
        let own = Database {
            server,
            name: format!("db_{id}"),
            administrator: format!("admin_{id}"),
            password: format!("canary-{id}-db"),
        };
        own.fill()?;
        Ok(own)
    }

    fn fill(&self) -> Result<()> {
        let Database { name, administrator, password, .. } = self;
        let orders = "CREATE TABLE orders (id int PRIMARY KEY, item text); INSERT INTO orders VALUES (1, 'tea')";
        match &self.server {
            Server::Postgres(server) => {
                server.sql(&format!("CREATE ROLE {administrator} SUPERUSER LOGIN PASSWORD '{password}'"))?;
                server.sql(&format!("CREATE DATABASE {name} OWNER {administrator}"))?;
                self.require(orders)
            }
            Server::MariaDb(server) => {
                let account = format!("{administrator}@'%'");
                server.sql(&format!(
                    "CREATE DATABASE {name}; CREATE USER {account} IDENTIFIED BY '{password}'; GRANT ALL ON *.* TO {account} WITH GRANT OPTION"
                ))?;
                self.require(orders)
            }
            Server::Redis(server) => {
                let secret = format!(">{password}");
                let rules = ["ACL", "SETUSER", administrator, "on", &secret, "~*", "&*", "+@all"];
                server.ask(&rules, None)?.map_err(anyhow::Error::msg)?;
                self.require(&format!("SET {name} tea"))
            }
        }
    }

    fn require(&self, statement: &str) -> Result<()> {
        let done = self.ask(statement, None)?;
        anyhow::ensure!(done.status == 200, "{statement}: {}", String::from_utf8_lossy(&done.body));
        Ok(())
    }

    /// The variables with which a scenario reaches it.
    pub fn variables(&self) -> Variables {
        let login = "{{username}}:{{password}}@";
        let (prefix, port, more) = match &self.server {
            Server::Postgres(server) => {
                let at = format!("127.0.0.1:{}/{}?sslmode=disable", server.port, self.name);
                ("pg", server.port, vec![("url", format!("postgresql://{login}{at}")), ("at", at)])
            }
            Server::MariaDb(server) => {
                let at = format!("tcp(127.0.0.1:{})/{}", server.port, self.name);
                let ca = server.certificate.clone();
                ("mysql", server.port, vec![("url", format!("{login}{at}")), ("at", at), ("ca", ca)])
            }
            Server::Redis(server) => {
                let (ca, tls_port) = (server.certificate.clone(), server.tls_port.to_string());
                ("redis", server.port, vec![("ca", ca), ("tls_port", tls_port)])
            }
        };
        let database = if prefix == "redis" { "key" } else { "database" };
        let common = [
            ("port", port.to_string()),
            (database, self.name.clone()),
            ("admin", self.administrator.clone()),
            ("password", self.password.clone()),
        ];
        let all = common.into_iter().chain(more);
        all.map(|(name, value)| (format!("{prefix}_{name}"), Value::from(value))).collect()
    }

    /// Runs a statement (in Redis a command with words separated by spaces), by default as the administrator: status
    /// 200 with the result as text, or 400 with the error of the database.
    ///
    /// # Errors
    /// When the database's client cannot be run.
    pub fn ask(&self, statement: &str, login: Option<(&str, &str)>) -> Result<Response> {
        let (user, password) = login.unwrap_or((&self.administrator, &self.password));
        match &self.server {
            Server::Postgres(server) => Ok(to_response(server.psql(statement, &self.name, user, password)?)),
            Server::MariaDb(server) => Ok(to_response(server.ask(statement, &self.name, user, password)?)),
            Server::Redis(server) => {
                let words: Vec<&str> = statement.split(' ').collect();
                let (status, text) = match server.ask(&words, Some((user, password)))? {
                    Ok(values) => (200, values.join("\n")),
                    Err(refused) => (400, refused),
                };
                Ok(Response { status, body: text.into_bytes(), ..Response::default() })
            }
        }
    }
}

fn to_response(done: Output) -> Response {
    let (status, text) = if done.status.success() { (200, done.stdout) } else { (400, done.stderr) };
    Response { status, body: text.trim_ascii().to_vec(), ..Response::default() }
}
