//! What must stay as it is for the life of a ledger: noted at the first start, compared at every other.

use super::Pool;
use crate::error::Error;
use drawdown_ledger_core::Settings;

/// What the database was used with before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The size of every window, in seconds.
    pub window_secs: i64,
    /// Which lots are drawn first.
    pub pool_order: Vec<String>,
}

impl Installation {
    /// Of these settings.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        Self {
            window_secs: settings.window_size.as_secs().into(),
            pool_order: settings.pool_order.kinds().iter().map(|kind| kind.as_str().to_owned()).collect(),
        }
    }
}

/// Notes `ours` if nothing is noted yet, and gives what is.
pub async fn note(pool: &Pool, ours: &Installation) -> Result<Installation, Error> {
    let mut tx = pool.begin().await?;
    sqlx::query!(
        "insert into ledger.installation (window_secs, pool_order) values ($1, $2) on conflict (only_row) do nothing",
        ours.window_secs,
        &ours.pool_order,
    )
    .execute(&mut *tx)
    .await?;
    let noted = sqlx::query_as!(Installation, "select window_secs, pool_order from ledger.installation")
        .fetch_one(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(noted)
}
