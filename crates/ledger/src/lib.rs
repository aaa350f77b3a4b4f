//! owns token lots, expiry, charges, debts and the journal in Postgres

pub mod error;
pub mod store;

use sqlx::{PgPool, migrate::MigrateError};

/// Brings the schema `ledger` of a database up to date.
///
/// # Errors
/// Where the database does not answer or holds a schema that is not ours.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    sqlx::migrate!().run(pool).await
}
