//! The database's own clock, which nothing here decides by: it is only compared.

use drawdown_types::Timestamp;
use sqlx::PgConnection;

use crate::error::Error;

/// The present instant of the database.
pub async fn now(at: &mut PgConnection) -> Result<Timestamp, Error> {
    let now = sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(at).await?;
    Ok(now.0)
}
