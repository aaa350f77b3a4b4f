//! Rows that an earlier state of the books is without.
//!
//! The statement begins at a position of the team's journal, found by its instant, so it costs what was posted since
//! then and not the history before. Months that are archived are not there: the caller compares.

use drawdown_ledger_core::{Kind, RowSum, UnknownName};
use drawdown_types::{AccountId, LotId, TeamId, Timestamp};
use sqlx::PgConnection;

use super::Instant;
use crate::error::Error;

/// Which rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undone {
    /// Those recorded after it.
    pub recorded: Timestamp,
    /// And those that take effect at or after it.
    pub effect_limit: Option<Timestamp>,
    /// None of them was posted before.
    pub posted_from: Timestamp,
}

/// Rows of a team's journal, added up by lot and kind.
pub async fn sums_in_tx(
    tx: &mut PgConnection,
    account: AccountId,
    team: TeamId,
    undone: &Undone,
) -> Result<Vec<RowSum>, Error> {
    let rows = sqlx::query_file!(
        "sql/reads/undone.sql",
        account.as_uuid(),
        team.as_uuid(),
        Instant(undone.recorded) as _,
        undone.effect_limit.map(Instant) as _,
        Instant(undone.posted_from) as _,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            let kind: Result<Kind, UnknownName> = row.kind.parse();
            Ok(RowSum {
                lot_id: row.lot_id.map(LotId::from_uuid),
                kind: kind.map_err(|e| Error::stored("kind of a journal row")(e.into()))?,
                micros: row
                    .micros
                    .parse()
                    .map_err(|e: std::num::ParseIntError| Error::stored("sum")(e.into()))?,
                recorded_later: row.recorded_later,
            })
        })
        .collect()
}
