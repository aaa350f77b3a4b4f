//! What a charge is explained from, beside the journal: the charge itself, and what its price had counted by then.
//!
//! Charges have no index but the posting order of their team, so both look at the team's charges up to this one. It
//! needs them one by one: a charge that is not kept as such any more can not be explained.

use drawdown_ledger_core::{Aggregation, Period};
use drawdown_types::{ChargeId, PriceId, TeamId, Timestamp};
use sqlx::PgConnection;

use super::{Instant, charges::ChargeRead};
use crate::error::Error;

/// What was counted of a day or month before a charge and after it, in base units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeriodCount {
    /// Its first instant.
    pub start: Timestamp,
    /// Before.
    pub before: i64,
    /// After.
    pub after: i64,
}

struct Counted {
    start: Instant,
    before: i64,
    after: i64,
}

/// A charge of a team. What is open of it is not said: that takes the team at an instant.
pub async fn charge_in_tx(
    tx: &mut PgConnection,
    team: TeamId,
    charge: ChargeId,
) -> Result<Option<ChargeRead>, Error> {
    let found = sqlx::query_as!(
        ChargeRead,
        r#"select seq, charge_id, app_id, client_id, meter, failed, window_start, dimensions::text as "dimensions!",
                  events, quantity, amount_micros, uncharged_micros, 0::bigint as "open_micros!", price_id, zero_rated,
                  posted_at, case when amount_micros = 0 then 0 else journal_seq end as "journal_seq!", corrects
           from ledger.charge
           where account_id = (select account_id from ledger.balance where team_id = $1)
             and team_id = $1 and charge_id = $2"#,
        team.as_uuid(),
        charge.as_uuid(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(found)
}

/// What a price had counted of each month before charge `seq` and after it; of a meter that aggregates by day, of each
/// day (D19).
pub async fn counts_in_tx(
    tx: &mut PgConnection,
    team: TeamId,
    price: PriceId,
    seq: i64,
    aggregation: Aggregation,
) -> Result<Vec<PeriodCount>, Error> {
    let how = match aggregation {
        Aggregation::Sum | Aggregation::Count => "sum",
        Aggregation::Max(_) => "max",
        Aggregation::Unique(_) => "unique",
    };
    let period = match aggregation.period() {
        Some(Period::Day) => "day",
        Some(Period::Month) | None => "month",
    };
    let rows = sqlx::query_file_as!(
        Counted,
        "sql/reads/counts.sql",
        team.as_uuid(),
        price.as_uuid(),
        seq,
        how,
        period
    )
    .fetch_all(tx)
    .await?;
    let count = |row: Counted| PeriodCount { start: row.start.0, before: row.before, after: row.after };
    Ok(rows.into_iter().map(count).collect())
}
