//! Reads for people and reports: one statement each, paged by position, never by offset.

use drawdown_ledger_core::Lot;
use drawdown_types::{AccountId, ChargeId, LotId, MicroTokens, TeamId, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Instant, teams::pool_kind};
use crate::error::Error;

/// All lots of a team, closed ones too, each with its note.
pub async fn lots(at: &mut PgConnection, team: TeamId) -> Result<Vec<(Lot, String)>, Error> {
    let rows = sqlx::query!(
        "select account_id, lot_id, pool_kind, original_micros, granted_micros, remaining_micros, held_micros,
                consumed_micros, expired_micros, void_micros, moved_micros, purchased_at, starts_at, valid_from,
                expires_at, closes_at, closed_at, moved_to, leaves_older_debts, note
         from ledger.lot where team_id = $1
           and account_id = (select account_id from ledger.balance where team_id = $1)",
        team.as_uuid(),
    )
    .fetch_all(at)
    .await?;
    rows.into_iter()
        .map(|row| {
            let lot = Lot {
                lot_id: LotId::from_uuid(row.lot_id),
                account_id: AccountId::from_uuid(row.account_id),
                team_id: team,
                pool_kind: pool_kind(&row.pool_kind)?,
                original: MicroTokens::from_micros(row.original_micros),
                granted: MicroTokens::from_micros(row.granted_micros),
                remaining: MicroTokens::from_micros(row.remaining_micros),
                held: MicroTokens::from_micros(row.held_micros),
                consumed: MicroTokens::from_micros(row.consumed_micros),
                expired: MicroTokens::from_micros(row.expired_micros),
                void: MicroTokens::from_micros(row.void_micros),
                moved: MicroTokens::from_micros(row.moved_micros),
                purchased_at: row.purchased_at.0,
                starts_at: row.starts_at.0,
                valid_from: row.valid_from.0,
                expires_at: row.expires_at.0,
                closes_at: row.closes_at.0,
                closed_at: row.closed_at.map(Timestamp::from),
                moved_to: row.moved_to.map(TeamId::from_uuid),
                leaves_older_debts: row.leaves_older_debts,
            };
            Ok((lot, row.note))
        })
        .collect()
}

/// A journal row as stored.
#[derive(Clone, Debug)]
pub struct JournalRead {
    /// Gapless per team.
    pub seq: i64,
    /// What happened.
    pub kind: String,
    /// The book that gives.
    pub debit_book: String,
    /// The book that takes.
    pub credit_book: String,
    /// Above zero.
    pub amount_micros: i64,
    /// The lot, where one is a side.
    pub lot_id: Option<Uuid>,
    /// The charge, where one is the cause.
    pub charge_id: Option<Uuid>,
    /// Start of the interval of the running debt.
    pub debt_from_micros: i64,
    /// Its end.
    pub debt_to_micros: i64,
    /// When it was posted.
    pub posted_at: Instant,
    /// When it takes effect.
    pub effective_at: Instant,
    /// The hold, where one is concerned.
    pub hold_id: Option<Uuid>,
    /// The row that it takes back.
    pub reverses: Option<i64>,
}

/// Conditions on journal rows; all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalFilter {
    /// Any of these kinds; empty for all.
    pub kinds: Vec<String>,
    /// Rows of this lot.
    pub lot_id: Option<LotId>,
    /// Rows of this charge.
    pub charge_id: Option<ChargeId>,
}

/// A part of a team's journal, by sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalPart {
    /// The billed account.
    pub account_id: AccountId,
    /// The team.
    pub team_id: TeamId,
    /// After this row.
    pub after: i64,
    /// Up to this one.
    pub up_to: i64,
    /// At most so many.
    pub limit: i64,
}

/// The rows of a part that fit a filter.
pub async fn journal(
    at: &mut PgConnection,
    part: &JournalPart,
    filter: &JournalFilter,
) -> Result<Vec<JournalRead>, Error> {
    let kinds = (!filter.kinds.is_empty()).then_some(&filter.kinds[..]);
    let rows = sqlx::query_file_as!(
        JournalRead,
        "sql/reads/journal.sql",
        part.account_id.as_uuid(),
        part.team_id.as_uuid(),
        part.after,
        part.up_to,
        kinds,
        filter.lot_id.map(LotId::as_uuid),
        filter.charge_id.map(ChargeId::as_uuid),
        part.limit,
    )
    .fetch_all(at)
    .await?;
    Ok(rows)
}
