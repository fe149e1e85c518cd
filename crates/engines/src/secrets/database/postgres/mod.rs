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

use self::connect::{Refused, Target};
use self::settings::Settings;
pub(super) use self::settings::{PUBLIC, has_password, masked_url};
use super::connection::{Database, DatabaseError, NewUser, NotChanged, NotMade, Unusable, in_time};
use super::credential::Login;
use super::details::Details;
use super::files::FileDirectories;
use super::pool::{Lent, Numbers, Pool};
use super::statement::{self, Dialect, are_blank, expiration};

/// A PostgreSQL server.
pub(super) struct Postgres {
    pool: Pool<Target>,
    scram: bool,
    clock: Arc<dyn Clock>,
}

impl Postgres {
    /// Reads the settings of a connection.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn open(
        details: &Details,
        password: &SecretString,
        files: &FileDirectories,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Unusable> {
        let Settings { target, limits, scram } = Settings::read(details, password, files)?;
        Ok(Postgres { pool: Pool::new(target, limits, clock.clone()), scram, clock })
    }

    /// A connection that answers.
    async fn client(&self) -> Result<Lent<Client>, DatabaseError> {
        let client = self.pool.get().await?;
        if client.is_used && client.batch_execute("").await.is_err() {
            return self.pool.instead_of(client).await;
        }
        Ok(client)
    }

    /// Runs statements in one transaction, and in one journey, on a pooled connection.
    async fn run(&self, statements: &[String]) -> Result<(), DatabaseError> {
        self.transact(statements).await.map_err(|failed| NotMade::from(failed).into_error())
    }

    /// The same; the error says what became of the transaction.
    async fn transact(&self, statements: &[String]) -> Result<(), Failed> {
        // The line's end ends a comment.
        let statements: String =
            statements.iter().filter(|s| !s.trim().is_empty()).map(|s| format!("{s}\n;\n")).collect();
        in_time(&self.clock, async {
            let client = self.client().await.map_err(Failed::Unsent)?;
            let transaction = format!("BEGIN;\n{statements}COMMIT");
            let mut tries = TRIES;
            loop {
                tries -= 1;
                let done = client.batch_execute(&transaction).await;
                // A connection on which this fails too is closed and with it the transaction.
                let is_clean = done.is_ok() || client.batch_execute("ROLLBACK").await.is_ok();
                if is_clean && tries > 0 && done.as_ref().is_err_and(is_contention) {
                    continue;
                }
                if is_clean {
                    self.pool.put(client);
                }
                return done.map_err(|error| {
                    let told = shown(QUERY_FAILED, &error);
                    let is_undone = is_clean && error.as_db_error().is_some();
                    if is_undone { Failed::Undone(told, is_taken(&error)) } else { Failed::Unknown(told) }
                });
            }
        })
        .await
    }

    /// Statements that change a password, in one transaction.
    async fn change(&self, statements: &[String]) -> Result<(), NotChanged> {
        match self.transact(statements).await {
            Ok(()) => Ok(()),
            // What a statement committed is not undone.
            Err(Failed::Undone(error, _)) if statements.iter().any(|s| ends_transaction(s)) => {
                Err(NotChanged::Unanswered(error))
            }
            Err(Failed::Unsent(error) | Failed::Undone(error, _)) => Err(NotChanged::Refused(error)),
            Err(Failed::Unknown(error)) => Err(NotChanged::Unanswered(error)),
        }
    }

    /// What stands for a password in a statement.
    fn password(&self, password: &SecretString) -> SecretString {
        if self.scram { scram::verifier(password) } else { SecretString::new(password.expose().clone()) }
    }
}

/// Why a transaction failed.
enum Failed {
    /// Nothing was sent.
    Unsent(DatabaseError),
    /// The server undid it; whether because the role that it creates exists.
    Undone(DatabaseError, bool),
    /// The server may have committed it.
    Unknown(DatabaseError),
}

impl From<DatabaseError> for Failed {
    fn from(error: DatabaseError) -> Self {
        Failed::Unknown(error)
    }
}

impl From<Failed> for NotMade {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Unsent(error) => NotMade::Untried(error),
            Failed::Undone(error, true) => NotMade::Taken(error),
            Failed::Undone(error, false) | Failed::Unknown(error) => NotMade::Failed(error),
        }
    }
}

/// Whether a statement may end the transaction that it runs in.
fn ends_transaction(statement: &str) -> bool {
    let ends =
        |word: &str| ["abort", "commit", "end", "prepare", "rollback"].iter().any(|end| word.eq_ignore_ascii_case(end));
    statement.split(|c: char| !c.is_alphanumeric() && c != '_').any(ends)
}

/// What is told before the server's words when a role's statements fail.
const QUERY_FAILED: &str = "failed to execute query";

/// Whether a role could not be made because there is one of its name, also when another made it at the same moment.
fn is_taken(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|server| match server.code().code() {
        "42710" => server.routine() == Some("CreateRole"),
        "23505" => server.constraint() == Some("pg_authid_rolname_index"),
        _ => false,
    })
}

/// How often a transaction is tried that lost against another: grants on one table touch one row of the catalogue.
const TRIES: usize = 8;

/// Whether a transaction was undone only because another came first.
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
        let tried = in_time(&self.clock, async {
            let client = self.client().await?;
            client.batch_execute("SELECT 1").await.map_err(|e| shown(QUERY_FAILED, &e))?;
            self.pool.put(client);
            Ok(())
        });
        tried.await.map_err(|error: DatabaseError| error.reworded(|text| format!("error verifying connection: {text}")))
    }

    async fn create_user(&self, user: &NewUser<'_>, statements: &[String]) -> Result<(), NotMade> {
        let expires = expiration(user.expires);
        let password = match user.login {
            Login::Password(password) => self.password(password),
            Login::Certificate { .. } => SecretString::default(),
        };
        let filled = filled(statements, &user.values(password.expose(), &expires)).map_err(NotMade::Untried)?;
        Ok(self.transact(&filled).await?)
    }

    async fn is_free(&self, name: &str) -> Result<bool, DatabaseError> {
        in_time(&self.clock, async {
            let client = self.client().await?;
            let statement = "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1";
            let found =
                client.query_typed_opt(statement, &[(&name, Type::TEXT)]).await.map_err(|e| shown(QUERY_FAILED, &e))?;
            self.pool.put(client);
            Ok(found.is_none())
        })
        .await
    }

    fn taken(&self, name: &str) -> DatabaseError {
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
            return in_time(&self.clock, async {
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

    async fn set_password(&self, name: &str, password: &SecretString, statements: &[String]) -> Result<(), NotChanged> {
        let password = self.password(password);
        if are_blank(statements) {
            let own = format!("ALTER ROLE {} WITH PASSWORD {}", identifier(name), literal(password.expose()));
            return self.change(&[own]).await;
        }
        let values = [("name", name), ("username", name), ("password", password.expose())];
        self.change(&filled(statements, &values).map_err(NotChanged::Refused)?).await
    }

    async fn list_users(&self, prefix: &str) -> Result<Vec<String>, DatabaseError> {
        in_time(&self.clock, async {
            let client = self.client().await?;
            let statement = "SELECT rolname FROM pg_catalog.pg_roles WHERE left(rolname, length($1::text)) = $1";
            let rows = client
                .query_typed(statement, &[(&prefix, Type::TEXT)])
                .await
                .map_err(|e| shown("failed to list users", &e))?;
            self.pool.put(client);
            Ok(rows.iter().map(|row| row.get(0)).collect())
        })
        .await
    }

    async fn accepts(&self, name: &str, password: &SecretString) -> Result<bool, DatabaseError> {
        in_time(&self.clock, async {
            match self.pool.connector.connect(Some((name, password))).await {
                Ok(_) => Ok(true),
                // The server looks at the rest once it has taken the password.
                Err(Refused::Entry(_)) => Ok(true),
                Err(Refused::Credentials(_)) => Ok(false),
                Err(Refused::Other(error)) => Err(error),
            }
        })
        .await
    }

    fn numbers(&self) -> Numbers {
        self.pool.numbers()
    }
}

/// The server's message, which may quote the statement, with its code.
fn shown(what: &str, error: &tokio_postgres::Error) -> DatabaseError {
    match error.as_db_error() {
        Some(server) => {
            DatabaseError::of_server(format!("SQLSTATE {}", server.code().code()), format!("{what}: {}", said(server)))
        }
        None => {
            let cause = std::error::Error::source(error).map(|c| format!(": {c}")).unwrap_or_default();
            DatabaseError::new(format!("{what}: {error}{cause}"))
        }
    }
}

fn said(server: &DbError) -> String {
    format!("{}: {} (SQLSTATE {})", server.severity(), server.message(), server.code().code())
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
