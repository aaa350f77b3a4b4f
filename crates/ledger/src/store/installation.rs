//! What must stay as it is for the life of a ledger: noted at the first start, compared at every other.

use super::Pool;
use crate::{cells::Cells, error::Error};
use drawdown_ledger_core::Settings;

/// What the database was used with before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The size of every window, in seconds.
    pub window_secs: i64,
    /// Which lots are drawn first.
    pub pool_order: Vec<String>,
    /// Which cell it is.
    pub cell: i16,
}

impl std::fmt::Display for Installation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { window_secs, pool_order, cell } = self;
        write!(f, "windows of {window_secs} s, pool order {pool_order:?}, as cell {cell}")
    }
}

impl Installation {
    /// Of these settings.
    #[must_use]
    pub fn of(settings: &Settings, cells: &Cells) -> Self {
        Self {
            window_secs: settings.window_size.as_secs().into(),
            pool_order: settings.pool_order.kinds().iter().map(|kind| kind.as_str().to_owned()).collect(),
            cell: cells.number.into(),
        }
    }
}

/// Notes `ours` if nothing is noted yet, and gives what is.
pub async fn note(pool: &Pool, ours: &Installation) -> Result<Installation, Error> {
    let mut tx = pool.begin().await?;
    sqlx::query!(
        "insert into ledger.installation (window_secs, pool_order, cell) values ($1, $2, $3)
         on conflict (only_row) do nothing",
        ours.window_secs,
        &ours.pool_order,
        ours.cell,
    )
    .execute(&mut *tx)
    .await?;
    let noted =
        sqlx::query_as!(Installation, "select window_secs, pool_order, cell from ledger.installation")
            .fetch_one(&mut *tx)
            .await?;
    tx.commit().await?;
    Ok(noted)
}
