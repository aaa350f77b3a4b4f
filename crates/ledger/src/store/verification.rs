//! Reads of a verification: whole tables, one instant, whatever time they take within their own limit.

use std::time::Duration;

use drawdown_ledger_core::{DebtInterval, JournalRow, Lot, Team, UnknownName};
use drawdown_types::{AccountId, ChargeId, LotId, MicroTokens, PriceId, TeamId, Timestamp};
use sqlx::{AssertSqlSafe, PgConnection};

use super::{reads, teams};
use crate::error::Error;

/// Gives the statements of a transaction a limit of their own.
pub async fn limit_in_tx(tx: &mut PgConnection, statement_timeout: Duration) -> Result<(), Error> {
    // A setting takes no parameters; this is a number.
    let limit = format!("set local statement_timeout = {}", statement_timeout.as_millis());
    sqlx::query(AssertSqlSafe(limit)).execute(tx).await?;
    Ok(())
}

/// What a statement of an invariant finds. The statements are files of this crate, each of one text
/// column; they are run by name, so the macro that checks a statement where it stands can not be used.
pub async fn violations_in_tx(tx: &mut PgConnection, sql: &'static str) -> Result<Vec<String>, Error> {
    Ok(sqlx::query_scalar(sql).fetch_all(tx).await?)
}

/// Balances by team id, after a team; without their lots.
pub async fn teams_in_tx(
    tx: &mut PgConnection,
    after: Option<TeamId>,
    limit: i64,
) -> Result<Vec<Team>, Error> {
    let ids = sqlx::query_scalar!(
        "select team_id from ledger.balance where $1::uuid is null or team_id > $1 order by team_id limit $2",
        after.map(TeamId::as_uuid),
        limit,
    )
    .fetch_all(&mut *tx)
    .await?;
    let ids: Vec<TeamId> = ids.into_iter().map(TeamId::from_uuid).collect();
    let (mut loaded, _) = teams::load_in_tx(tx, &ids, &[]).await?;
    loaded.sort_by_key(|stored| stored.team.balance.team_id);
    Ok(loaded.into_iter().map(|stored| Team { lots: Vec::new(), ..stored.team }).collect())
}

/// All lots of a team, closed ones too.
pub async fn lots_in_tx(tx: &mut PgConnection, team: TeamId) -> Result<Vec<Lot>, Error> {
    Ok(reads::lots(tx, team).await?.into_iter().map(|(lot, _)| lot).collect())
}

/// The whole journal of a team, by sequence.
pub async fn journal_in_tx(tx: &mut PgConnection, team: TeamId) -> Result<Vec<JournalRow>, Error> {
    let rows = sqlx::query!(
        "select account_id, seq, transaction, kind, debit_book, credit_book, amount_micros, lot_id, lot_state,
                charge_id, price_id, window_start, debt_from_micros, debt_to_micros, posted_at, effective_at
         from ledger.journal
         where account_id = (select account_id from ledger.balance where team_id = $1) and team_id = $1
         order by seq",
        team.as_uuid(),
    )
    .fetch_all(tx)
    .await?;
    let named = |error: UnknownName| Error::stored("name in a journal row")(error.into());
    rows.into_iter()
        .map(|row| {
            let debt = DebtInterval {
                from: MicroTokens::from_micros(row.debt_from_micros),
                to: MicroTokens::from_micros(row.debt_to_micros),
            };
            Ok(JournalRow {
                account_id: AccountId::from_uuid(row.account_id),
                team_id: team,
                seq: row.seq,
                transaction: row.transaction,
                kind: row.kind.parse().map_err(named)?,
                debit: row.debit_book.parse().map_err(named)?,
                credit: row.credit_book.parse().map_err(named)?,
                amount: MicroTokens::from_micros(row.amount_micros),
                lot_id: row.lot_id.map(LotId::from_uuid),
                lot_state: row.lot_state.map(|state| state.parse()).transpose().map_err(named)?,
                charge_id: row.charge_id.map(ChargeId::from_uuid),
                price_id: row.price_id.map(PriceId::from_uuid),
                debt: (debt.from < debt.to).then_some(debt),
                window: row.window_start.map(Timestamp::from),
                posted_at: row.posted_at.0,
                effective_at: row.effective_at.0,
            })
        })
        .collect()
}
