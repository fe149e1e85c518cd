//! The databases of scenarios: a PostgreSQL for all of them, started when the first asks for it, in which each has a database and an
//! administrator of its own.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use serde_json::Value;

use crate::http::Answer;
use crate::play::Variables;
use crate::postgres::Postgres;

static RUNNING: Mutex<Option<Arc<Postgres>>> = Mutex::new(None);

/// A scenario's own database.
pub struct Database {
    server: Arc<Postgres>,
    name: String,
    administrator: String,
    password: String,
}

impl Database {
    /// A fresh one with a table `orders`; `id` is the scenario's.
    ///
    /// # Errors
    /// When PostgreSQL cannot be started or asked.
    pub fn create(id: &str) -> Result<Self> {
        let server = server()?;
        let own = Database {
            server: server.clone(),
            name: format!("db_{id}"),
            administrator: format!("admin_{id}"),
            password: format!("canary-{id}-pg"),
        };
        server.sql(&format!("CREATE ROLE {} SUPERUSER LOGIN PASSWORD '{}'", own.administrator, own.password))?;
        server.sql(&format!("CREATE DATABASE {} OWNER {}", own.name, own.administrator))?;
        let made =
            own.sql("CREATE TABLE orders (id int PRIMARY KEY, item text); INSERT INTO orders VALUES (1, 'tea')", None)?;
        anyhow::ensure!(made.status == 200, "PostgreSQL: {}", String::from_utf8_lossy(&made.body));
        Ok(own)
    }

    /// The variables by which a scenario reaches it.
    pub fn variables(&self) -> Variables {
        let at = format!("127.0.0.1:{}/{}?sslmode=disable", self.server.port, self.name);
        let all = [
            ("pg_url", format!("postgresql://{{{{username}}}}:{{{{password}}}}@{at}")),
            ("pg_at", at),
            ("pg_port", self.server.port.to_string()),
            ("pg_database", self.name.clone()),
            ("pg_admin", self.administrator.clone()),
            ("pg_password", self.password.clone()),
        ];
        all.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
    }

    /// Runs a statement, as the administrator if no other user and password are given: 200 with the rows as text, or 400
    /// with what PostgreSQL said.
    ///
    /// # Errors
    /// When `psql` cannot be run.
    pub fn sql(&self, statement: &str, login: Option<(&str, &str)>) -> Result<Answer> {
        let (user, password) = login.unwrap_or((&self.administrator, &self.password));
        let done = self.server.psql(statement, &self.name, user, password)?;
        let (status, text) = if done.status.success() { (200, done.stdout) } else { (400, done.stderr) };
        Ok(Answer { status, body: text.trim_ascii().to_vec(), ..Answer::default() })
    }
}

fn server() -> Result<Arc<Postgres>> {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = &*running {
        return Ok(server.clone());
    }
    let server = Arc::new(Postgres::start("-c fsync=off -c max_connections=200")?);
    *running = Some(server.clone());
    Ok(server)
}

/// Stops the PostgreSQL, if one was started.
pub fn stop() {
    drop(RUNNING.lock().unwrap_or_else(PoisonError::into_inner).take());
}
