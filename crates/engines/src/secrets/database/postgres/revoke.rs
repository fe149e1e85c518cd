//! The default revocation of a role: ends its sessions and keeps the objects that it owned.
//!
//! Statements are not prepared by name, because poolers such as PgBouncer and RDS Proxy do not keep named ones.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::super::connection::DatabaseError;
use super::{identifier, query_error};

/// Drops a role. Succeeds if it does not exist, so it can be repeated.
pub(super) async fn drop_role(client: &Client, name: &str) -> Result<(), DatabaseError> {
    let error = |e: &tokio_postgres::Error| query_error("failed to revoke", e);
    if client
        .query_typed_opt("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1", &[(&name, Type::TEXT)])
        .await
        .map_err(|e| error(&e))?
        .is_none()
    {
        return Ok(());
    }
    let role = identifier(name);
    client.batch_execute(&format!("ALTER ROLE {role} NOLOGIN")).await.map_err(|e| error(&e))?;
    // If the administrator may not end sessions and that matters, the last step fails.
    let sessions = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = $1";
    drop(client.query_typed(sessions, &[(&name, Type::TEXT)]).await);
    release(client, name, &role).await?;
    client.batch_execute(&format!("DROP ROLE IF EXISTS {role}")).await.map_err(|e| error(&e))
}

/// Revokes the role's rights and reassigns its objects to the administrator; if that is not permitted in one statement,
/// right by right.
async fn release(client: &Client, name: &str, role: &str) -> Result<(), DatabaseError> {
    // An administrator that is no superuser must be a member of the role first; for a member the grant may fail.
    for before in [format!("GRANT {role} TO CURRENT_USER; "), String::new()] {
        let own = format!("{before}REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role}");
        match client.batch_execute(&own).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                let code = error.code().map(tokio_postgres::error::SqlState::code);
                tracing::debug!(code, "revoking the rights of a role in one statement failed");
            }
        }
    }
    // The names come from the database, which also quotes them.
    let grants = "SELECT DISTINCT pg_catalog.quote_ident(table_schema) FROM information_schema.role_column_grants WHERE grantee = $1 \
                  UNION SELECT pg_catalog.quote_ident(nspname) FROM pg_catalog.pg_namespace";
    for row in
        client.query_typed(grants, &[(&name, Type::TEXT)]).await.map_err(|e| query_error("failed to revoke", &e))?
    {
        let schema: String = row.get(0);
        for what in
            ["ALL PRIVILEGES ON ALL TABLES IN SCHEMA", "ALL PRIVILEGES ON ALL SEQUENCES IN SCHEMA", "USAGE ON SCHEMA"]
        {
            drop(client.batch_execute(&format!("REVOKE {what} {schema} FROM {role}")).await);
        }
    }
    let database = "SELECT pg_catalog.quote_ident(pg_catalog.current_database())";
    let row = client.query_typed_one(database, &[]).await.map_err(|e| query_error("failed to revoke", &e))?;
    let database: String = row.get(0);
    drop(client.batch_execute(&format!("REVOKE ALL PRIVILEGES ON DATABASE {database} FROM {role}")).await);
    Ok(())
}
