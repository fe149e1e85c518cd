//! PostgreSQL.

mod connect;
mod conninfo;
mod encryption;
mod parameters;
mod revoke;
mod scram;
mod settings;

use std::sync::Arc;

use async_trait::async_trait;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Clock, Timestamp};
use tokio_postgres::Client;
use tokio_postgres::error::DbError;
use tokio_postgres::types::Type;

use self::connect::{ConnectError, Target};
use self::settings::Settings;
pub(super) use self::settings::{PUBLIC, has_password, masked_url};
use super::connection::{
    ChangePasswordError, CreateUserError, Database, DatabaseError, NewUser, OpenError, with_timeout,
};
use super::credential::Login;
use super::details::Details;
use super::files::FileDirectories;
use super::pool::{Pool, PoolStats, PooledConnection};
use super::statement::{self, Dialect, are_blank, expiration};

/// A PostgreSQL server.
pub(super) struct Postgres {
    pool: Pool<Target>,
    scram: bool,
    clock: Arc<dyn Clock>,
}

impl Postgres {
    /// Opens a connection from its settings.
    ///
    /// # Errors
    /// When a setting is invalid.
    pub(super) fn open(
        details: &Details,
        password: &SecretString,
        files: &FileDirectories,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let Settings { target, limits, scram } = Settings::read(details, password, files)?;
        Ok(Postgres { pool: Pool::new(target, limits, clock.clone()), scram, clock })
    }

    /// A connection that responds.
    async fn client(&self) -> Result<PooledConnection<Client>, DatabaseError> {
        let client = self.pool.get().await?;
        if client.is_used && client.batch_execute("").await.is_err() {
            return self.pool.replace(client).await;
        }
        Ok(client)
    }

    /// Runs statements in one transaction, and in one round trip, on a pooled connection.
    async fn run(&self, statements: &[String]) -> Result<(), DatabaseError> {
        self.transact(statements).await.map_err(|failed| CreateUserError::from(failed).into_error())
    }

    /// The same; the error contains the outcome of the transaction.
    async fn transact(&self, statements: &[String]) -> Result<(), TransactionError> {
        // The newline ends a comment.
        let statements: String =
            statements.iter().filter(|s| !s.trim().is_empty()).map(|s| format!("{s}\n;\n")).collect();
        with_timeout(&self.clock, async {
            let client = self.client().await.map_err(TransactionError::Unsent)?;
            let transaction = format!("BEGIN;\n{statements}COMMIT");
            let mut tries = MAX_ATTEMPTS;
            loop {
                tries -= 1;
                let done = client.batch_execute(&transaction).await;
                // If this fails too, the connection is closed, which ends the transaction.
                let is_clean = done.is_ok() || client.batch_execute("ROLLBACK").await.is_ok();
                if is_clean && tries > 0 && done.as_ref().is_err_and(is_contention) {
                    continue;
                }
                if is_clean {
                    self.pool.put(client);
                }
                return done.map_err(|error| {
                    let failure = query_error(QUERY_FAILED, &error);
                    let is_undone = is_clean && error.as_db_error().is_some();
                    if is_undone {
                        TransactionError::RolledBack(failure, is_name_conflict(&error))
                    } else {
                        TransactionError::Unknown(failure)
                    }
                });
            }
        })
        .await
    }

    /// Runs statements that change a password in one transaction.
    async fn change(&self, statements: &[String]) -> Result<(), ChangePasswordError> {
        match self.transact(statements).await {
            Ok(()) => Ok(()),
            // A statement that commits is not rolled back.
            Err(TransactionError::RolledBack(error, _)) if statements.iter().any(|s| ends_transaction(s)) => {
                Err(ChangePasswordError::Unknown(error))
            }
            Err(TransactionError::Unsent(error) | TransactionError::RolledBack(error, _)) => {
                Err(ChangePasswordError::Unchanged(error))
            }
            Err(TransactionError::Unknown(error)) => Err(ChangePasswordError::Unknown(error)),
        }
    }

    /// The password or its verifier, for a statement.
    fn password(&self, password: &SecretString) -> SecretString {
        if self.scram { scram::verifier(password) } else { SecretString::new(password.expose().clone()) }
    }
}

/// Why a transaction failed.
enum TransactionError {
    /// Nothing was sent.
    Unsent(DatabaseError),
    /// The server rolled it back; the flag means that the role to create exists.
    RolledBack(DatabaseError, bool),
    /// The server may have committed it.
    Unknown(DatabaseError),
}

impl From<DatabaseError> for TransactionError {
    fn from(error: DatabaseError) -> Self {
        TransactionError::Unknown(error)
    }
}

impl From<TransactionError> for CreateUserError {
    fn from(failed: TransactionError) -> Self {
        match failed {
            TransactionError::Unsent(error) => CreateUserError::NotAttempted(error),
            TransactionError::RolledBack(error, true) => CreateUserError::NameExists(error),
            TransactionError::RolledBack(error, false) | TransactionError::Unknown(error) => {
                CreateUserError::Unknown(error)
            }
        }
    }
}

/// Whether a statement may end its transaction.
fn ends_transaction(statement: &str) -> bool {
    let ends =
        |word: &str| ["abort", "commit", "end", "prepare", "rollback"].iter().any(|end| word.eq_ignore_ascii_case(end));
    statement.split(|c: char| !c.is_alphanumeric() && c != '_').any(ends)
}

/// The prefix of errors of a role's statements.
const QUERY_FAILED: &str = "failed to execute query";

/// Whether creating a role failed because its name exists, also if another transaction created it concurrently.
fn is_name_conflict(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|server| match server.code().code() {
        "42710" => server.routine() == Some("CreateRole"),
        "23505" => server.constraint() == Some("pg_authid_rolname_index"),
        _ => false,
    })
}

/// How often a transaction is retried after a conflict: grants on one table change one row of the catalogue.
const MAX_ATTEMPTS: usize = 8;

/// Whether a transaction was rolled back only because of a concurrent one.
fn is_contention(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|server| match server.code().code() {
        "40001" | "40P01" => true,
        "XX000" => matches!(server.message(), "tuple concurrently updated" | "tuple concurrently deleted"),
        _ => false,
    })
}

fn filled(statements: &[String], values: &[(&str, &str)]) -> Result<Vec<String>, DatabaseError> {
    statement::filled(Dialect::Postgres, statements, values)
}

#[async_trait]
impl Database for Postgres {
    async fn verify(&self) -> Result<(), DatabaseError> {
        let tried = with_timeout(&self.clock, async {
            let client = self.client().await?;
            client.batch_execute("SELECT 1").await.map_err(|e| query_error(QUERY_FAILED, &e))?;
            self.pool.put(client);
            Ok(())
        });
        tried
            .await
            .map_err(|error: DatabaseError| error.with_text(|text| format!("error verifying connection: {text}")))
    }

    async fn create_user(&self, user: &NewUser<'_>, statements: &[String]) -> Result<(), CreateUserError> {
        let expires = expiration(user.expires);
        let password = match user.login {
            Login::Password(password) => self.password(password),
            Login::Certificate { .. } => SecretString::default(),
        };
        let filled =
            filled(statements, &user.values(password.expose(), &expires)).map_err(CreateUserError::NotAttempted)?;
        Ok(self.transact(&filled).await?)
    }

    async fn is_free(&self, name: &str) -> Result<bool, DatabaseError> {
        with_timeout(&self.clock, async {
            let client = self.client().await?;
            let statement = "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1";
            let found = client
                .query_typed_opt(statement, &[(&name, Type::TEXT)])
                .await
                .map_err(|e| query_error(QUERY_FAILED, &e))?;
            self.pool.put(client);
            Ok(found.is_none())
        })
        .await
    }

    fn name_exists_error(&self, name: &str) -> DatabaseError {
        DatabaseError::new(format!("{QUERY_FAILED}: ERROR: role {} already exists (SQLSTATE 42710)", identifier(name)))
    }

    async fn renew_user(&self, name: &str, expires: Timestamp, statements: &[String]) -> Result<(), DatabaseError> {
        let expires = expiration(expires);
        if are_blank(statements) {
            return self.run(&[format!("ALTER ROLE {} VALID UNTIL {}", identifier(name), literal(&expires))]).await;
        }
        let values = [("name", name), ("username", name), ("expiration", expires.as_str())];
        self.run(&filled(statements, &values)?).await
    }

    async fn drop_user(&self, name: &str, statements: &[String]) -> Result<(), DatabaseError> {
        if are_blank(statements) {
            return with_timeout(&self.clock, async {
                let client = self.client().await?;
                let dropped = revoke::drop_role(&client, name).await;
                if dropped.is_ok() {
                    self.pool.put(client);
                }
                dropped
            })
            .await;
        }
        self.run(&filled(statements, &[("name", name), ("username", name)])?).await
    }

    async fn set_password(
        &self,
        name: &str,
        password: &SecretString,
        statements: &[String],
    ) -> Result<(), ChangePasswordError> {
        let password = self.password(password);
        if are_blank(statements) {
            let own = format!("ALTER ROLE {} WITH PASSWORD {}", identifier(name), literal(password.expose()));
            return self.change(&[own]).await;
        }
        let values = [("name", name), ("username", name), ("password", password.expose())];
        self.change(&filled(statements, &values).map_err(ChangePasswordError::Unchanged)?).await
    }

    async fn list_users(&self, prefix: &str) -> Result<Vec<String>, DatabaseError> {
        with_timeout(&self.clock, async {
            let client = self.client().await?;
            let statement = "SELECT rolname FROM pg_catalog.pg_roles WHERE left(rolname, length($1::text)) = $1";
            let rows = client
                .query_typed(statement, &[(&prefix, Type::TEXT)])
                .await
                .map_err(|e| query_error("failed to list users", &e))?;
            self.pool.put(client);
            Ok(rows.iter().map(|row| row.get(0)).collect())
        })
        .await
    }

    async fn accepts(&self, name: &str, password: &SecretString) -> Result<bool, DatabaseError> {
        with_timeout(&self.clock, async {
            match self.pool.connector.connect(Some((name, password))).await {
                Ok(_) => Ok(true),
                // The server checks the rest after it has accepted the password.
                Err(ConnectError::AfterLogin(_)) => Ok(true),
                Err(ConnectError::Credentials(_)) => Ok(false),
                Err(ConnectError::Other(error)) => Err(error),
            }
        })
        .await
    }

    fn pool_stats(&self) -> PoolStats {
        self.pool.pool_stats()
    }
}

/// The server's message, which may quote the statement, with its code.
fn query_error(what: &str, error: &tokio_postgres::Error) -> DatabaseError {
    match error.as_db_error() {
        Some(server) => DatabaseError::from_server(
            format!("SQLSTATE {}", server.code().code()),
            format!("{what}: {}", server_text(server)),
        ),
        None => {
            let cause = std::error::Error::source(error).map(|c| format!(": {c}")).unwrap_or_default();
            DatabaseError::new(format!("{what}: {error}{cause}"))
        }
    }
}

fn server_text(server: &DbError) -> String {
    format!("{}: {} (SQLSTATE {})", server.severity(), server.message(), server.code().code())
}

/// A name as an SQL identifier.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as an SQL literal for every value of `standard_conforming_strings`.
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
