//! PostgreSQL.

mod pool;
mod revoke;
mod settings;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Clock, Timestamp};
use serde_json::{Map, Value};
use tokio_postgres::error::SqlState;

use self::pool::Pool;
use self::settings::Settings;
use super::connection::{Database, DatabaseError, NewUser};
use super::statement::{expiration, fill};

/// How long one piece of work may take, connecting included.
const PATIENCE: Duration = Duration::from_secs(30);

/// A PostgreSQL server.
pub(super) struct Postgres {
    settings: Settings,
    pool: Pool,
    clock: Arc<dyn Clock>,
}

impl Postgres {
    /// Reads the settings of a connection.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn open(
        details: &Map<String, Value>,
        password: &SecretString,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let settings = Settings::read(details, password)?;
        let pool = Pool::new(&settings, clock.clone());
        Ok(Postgres { settings, pool, clock })
    }

    /// Runs statements in one transaction on a pooled connection.
    async fn run(&self, statements: &[String], what: &str) -> Result<(), DatabaseError> {
        self.in_time(async {
            let client = self.pool.get().await?;
            client.batch_execute("BEGIN").await.map_err(|e| shown("unable to start transaction", &e))?;
            for statement in statements.iter().filter(|s| !s.trim().is_empty()) {
                if let Err(error) = client.batch_execute(statement).await {
                    // A connection on which this fails too is closed and with it the transaction.
                    client.batch_execute("ROLLBACK").await.map_err(|e| shown("unable to roll back", &e))?;
                    self.pool.put(client);
                    return Err(shown(what, &error));
                }
            }
            client.batch_execute("COMMIT").await.map_err(|e| shown("unable to commit", &e))?;
            self.pool.put(client);
            Ok(())
        })
        .await
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, DatabaseError>> + Send,
    ) -> Result<T, DatabaseError> {
        tokio::select! {
            done = work => done,
            () = self.clock.sleep_until(self.clock.now().after(PATIENCE)) => Err(DatabaseError("the database did not answer in time".to_owned())),
        }
    }
}

#[async_trait]
impl Database for Postgres {
    async fn verify(&self) -> Result<(), DatabaseError> {
        self.run(&["SELECT 1".to_owned()], "unable to verify the connection").await
    }

    async fn create_user(&self, user: &NewUser<'_>, statements: &[String]) -> Result<(), DatabaseError> {
        if statements.iter().all(|s| s.trim().is_empty()) {
            return Err(DatabaseError("empty creation statements".to_owned()));
        }
        let expires = expiration(user.expires);
        let values = [
            ("name", user.name),
            ("username", user.name),
            ("password", user.password.expose()),
            ("expiration", &expires),
        ];
        let filled: Vec<String> = statements.iter().map(|s| fill(s, &values)).collect();
        self.run(&filled, "failed to execute query").await
    }

    async fn renew_user(&self, name: &str, expires: Timestamp, statements: &[String]) -> Result<(), DatabaseError> {
        let expires = expiration(expires);
        let own = [format!("ALTER ROLE {} VALID UNTIL {}", identifier(name), literal(&expires))];
        let values = [("name", name), ("username", name), ("expiration", expires.as_str())];
        let filled: Vec<String> = statements.iter().map(|s| fill(s, &values)).collect();
        self.run(if filled.is_empty() { &own } else { &filled }, "failed to execute query").await
    }

    async fn drop_user(&self, name: &str, statements: &[String]) -> Result<(), DatabaseError> {
        if statements.is_empty() {
            return self.in_time(revoke::drop_role(&self.pool, name)).await;
        }
        let values = [("name", name), ("username", name)];
        let filled: Vec<String> = statements.iter().map(|s| fill(s, &values)).collect();
        self.run(&filled, "failed to execute query").await
    }

    async fn set_password(
        &self,
        name: &str,
        password: &SecretString,
        statements: &[String],
    ) -> Result<(), DatabaseError> {
        let own = [format!("ALTER ROLE {} WITH PASSWORD {}", identifier(name), literal(password.expose()))];
        let values = [("name", name), ("username", name), ("password", password.expose())];
        let filled: Vec<String> = statements.iter().map(|s| fill(s, &values)).collect();
        self.run(if filled.is_empty() { &own } else { &filled }, "failed to execute query").await
    }

    async fn accepts(&self, name: &str, password: &SecretString) -> Result<bool, DatabaseError> {
        let config = self.settings.as_user(name, password);
        self.in_time(async {
            match pool::connect(&config, &self.settings.tls).await {
                Ok(_) => Ok(true),
                Err(error)
                    if matches!(
                        error.code(),
                        Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
                    ) =>
                {
                    Ok(false)
                }
                Err(error) => Err(shown("unable to log in", &error)),
            }
        })
        .await
    }
}

/// What the server said, with its code; never a statement.
fn shown(what: &str, error: &tokio_postgres::Error) -> DatabaseError {
    match error.as_db_error() {
        Some(said) => {
            DatabaseError(format!("{what}: {}: {} (SQLSTATE {})", said.severity(), said.message(), said.code().code()))
        }
        None => {
            let cause = std::error::Error::source(error).map(|c| format!(": {c}")).unwrap_or_default();
            DatabaseError(format!("{what}: {error}{cause}"))
        }
    }
}

/// A name as an SQL identifier.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as an SQL literal, whatever `standard_conforming_strings` says.
fn literal(text: &str) -> String {
    let prefix = if text.contains('\\') { " E" } else { "" };
    format!("{prefix}'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_se03_identifiers_and_literals_are_quoted_by_type() {
        assert_eq!(identifier("a\"; DROP ROLE x; --"), "\"a\"\"; DROP ROLE x; --\"");
        assert_eq!(literal("a'b"), "'a''b'");
        assert_eq!(literal("a\\'b"), " E'a\\\\''b'");
    }
}
