//! Rows of the journal as the core knows them.

use drawdown_ledger_core::{ChargeJournal, DebtInterval, JournalRow, UnknownName};
use drawdown_types::{AccountId, ChargeId, HoldId, LotId, MicroTokens, PriceId, TeamId, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Instant;
use crate::error::Error;

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

/// Journal rows of a team after a sequence, in order: all of them, or those of one lot.
pub(super) async fn journal_rows(
    tx: &mut PgConnection,
    account: AccountId,
    team: TeamId,
    lot: Option<LotId>,
    after: i64,
) -> Result<Vec<JournalRow>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select account_id as "account_id!", team_id as "team_id!", seq as "seq!", transaction as "transaction!",
                  kind as "kind!", debit_book as "debit_book!", credit_book as "credit_book!",
                  amount_micros as "amount_micros!", lot_id, lot_state, charge_id, price_id,
                  window_start as "window_start: Instant", debt_from_micros as "debt_from_micros!",
                  debt_to_micros as "debt_to_micros!", posted_at as "posted_at!: Instant",
                  effective_at as "effective_at!: Instant", hold_id, reverses
         from ledger.journal_between($1, $2, $4, 9223372036854775807)
         where $3::uuid is null or lot_id = $3
         order by seq"#,
        account.as_uuid(),
        team.as_uuid(),
        lot.map(LotId::as_uuid),
        after,
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
        r#"select account_id as "account_id!", team_id as "team_id!", seq as "seq!", transaction as "transaction!",
                  kind as "kind!", debit_book as "debit_book!", credit_book as "credit_book!",
                  amount_micros as "amount_micros!", lot_id, lot_state, charge_id, price_id,
                  window_start as "window_start: Instant", debt_from_micros as "debt_from_micros!",
                  debt_to_micros as "debt_to_micros!", posted_at as "posted_at!: Instant",
                  effective_at as "effective_at!: Instant", hold_id, reverses
         from ledger.journal
         where account_id = $1 and team_id = $2 and debit_book = 'uncharged'
           and debt_to_micros > $3 and debt_to_micros > 0 and debt_from_micros < $4
         order by seq"#,
        account.as_uuid(),
        team.as_uuid(),
        from.as_micros(),
        to.as_micros(),
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter().map(Row::read).collect()
}

/// What decides what stands of some charges: their rows, what settles the debts they opened, and what takes one of
/// these back.
pub async fn of_charges_in_tx(
    tx: &mut PgConnection,
    account: AccountId,
    team: TeamId,
    charges: &[ChargeId],
) -> Result<ChargeJournal, Error> {
    let charges: Vec<Uuid> = charges.iter().map(|charge| charge.as_uuid()).collect();
    let rows =
        sqlx::query_file_as!(Row, "sql/charge_journal.sql", account.as_uuid(), team.as_uuid(), &charges,)
            .fetch_all(tx)
            .await?;
    let rows = rows.into_iter().map(Row::read).collect::<Result<_, _>>()?;
    Ok(ChargeJournal { rows })
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
