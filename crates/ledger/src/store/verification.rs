//! Reads of a verification: whole tables, one instant, whatever time they take within their own limit.

use std::time::Duration;

use drawdown_ledger_core::{DebtInterval, JournalRow, Lot, Team, UnknownName};
use drawdown_types::{AccountId, ChargeId, HoldId, LotId, MicroTokens, PriceId, TeamId, Timestamp};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::{Instant, reads, teams};
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
    let account =
        sqlx::query_scalar!("select account_id from ledger.balance where team_id = $1", team.as_uuid())
            .fetch_optional(&mut *tx)
            .await?;
    match account {
        None => Ok(Vec::new()),
        Some(account) => journal_rows(tx, AccountId::from_uuid(account), team, None).await,
    }
}

struct Row {
    account_id: Uuid,
    team_id: Uuid,
    seq: i64,
    transaction: i64,
    kind: String,
    debit_book: String,
    credit_book: String,
    amount_micros: i64,
    lot_id: Option<Uuid>,
    lot_state: Option<String>,
    charge_id: Option<Uuid>,
    price_id: Option<Uuid>,
    window_start: Option<Instant>,
    debt_from_micros: i64,
    debt_to_micros: i64,
    posted_at: Instant,
    effective_at: Instant,
    hold_id: Option<Uuid>,
    reverses: Option<i64>,
}

/// Journal rows of a team by sequence: all of them, or those of one lot.
pub(super) async fn journal_rows(
    tx: &mut PgConnection,
    account: AccountId,
    team: TeamId,
    lot: Option<LotId>,
) -> Result<Vec<JournalRow>, Error> {
    let rows = sqlx::query_as!(
        Row,
        "select account_id, team_id, seq, transaction, kind, debit_book, credit_book, amount_micros, lot_id, lot_state,
                charge_id, price_id, window_start, debt_from_micros, debt_to_micros, posted_at, effective_at, hold_id,
                reverses
         from ledger.journal
         where account_id = $1 and team_id = $2 and ($3::uuid is null or lot_id = $3)
         order by seq",
        account.as_uuid(),
        team.as_uuid(),
        lot.map(LotId::as_uuid),
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter().map(Row::read).collect()
}

/// Rows that opened debt between two positions of a team's running debt, by sequence.
pub(super) async fn debt_rows(
    tx: &mut PgConnection,
    account: AccountId,
    team: TeamId,
    from: MicroTokens,
    to: MicroTokens,
) -> Result<Vec<JournalRow>, Error> {
    let rows = sqlx::query_as!(
        Row,
        "select account_id, team_id, seq, transaction, kind, debit_book, credit_book, amount_micros, lot_id, lot_state,
                charge_id, price_id, window_start, debt_from_micros, debt_to_micros, posted_at, effective_at, hold_id,
                reverses
         from ledger.journal
         where account_id = $1 and team_id = $2 and debit_book = 'uncharged'
           and debt_to_micros > $3 and debt_to_micros > 0 and debt_from_micros < $4
         order by seq",
        account.as_uuid(),
        team.as_uuid(),
        from.as_micros(),
        to.as_micros(),
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter().map(Row::read).collect()
}

// === impl Row ===

impl Row {
    fn read(self) -> Result<JournalRow, Error> {
        let named = |error: UnknownName| Error::stored("name in a journal row")(error.into());
        let debt = DebtInterval {
            from: MicroTokens::from_micros(self.debt_from_micros),
            to: MicroTokens::from_micros(self.debt_to_micros),
        };
        Ok(JournalRow {
            account_id: AccountId::from_uuid(self.account_id),
            team_id: TeamId::from_uuid(self.team_id),
            seq: self.seq,
            transaction: self.transaction,
            kind: self.kind.parse().map_err(named)?,
            debit: self.debit_book.parse().map_err(named)?,
            credit: self.credit_book.parse().map_err(named)?,
            amount: MicroTokens::from_micros(self.amount_micros),
            lot_id: self.lot_id.map(LotId::from_uuid),
            lot_state: self.lot_state.map(|state| state.parse()).transpose().map_err(named)?,
            charge_id: self.charge_id.map(ChargeId::from_uuid),
            price_id: self.price_id.map(PriceId::from_uuid),
            hold_id: self.hold_id.map(HoldId::from_uuid),
            reverses: self.reverses,
            debt: (debt.from < debt.to).then_some(debt),
            window: self.window_start.map(Timestamp::from),
            posted_at: self.posted_at.0,
            effective_at: self.effective_at.0,
        })
    }
}
