//! Issued statements, and the sums of a journal that they are made of. A million rows are added up where
//! they are; what leaves the database are their sums by kind, books and lot.

use std::collections::BTreeMap;

use drawdown_ledger_core::{Book, BookSums, LotSums, MovementSum, Position, UnknownName};
use drawdown_types::{AccountId, LotId, MicroTokens, StatementId, TeamId, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Instant, watermarks::Watermarks};
use crate::error::Error;

/// What a statement is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Its name.
    pub statement_id: StatementId,
    /// The billed account.
    pub account_id: AccountId,
    /// The team.
    pub team_id: TeamId,
    /// First instant of the period.
    pub from: Timestamp,
    /// First instant after it.
    pub to: Timestamp,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// The version of its form.
    pub format: i16,
    /// The last journal row before the period.
    pub opening_seq: i64,
    /// The last journal row of the period.
    pub closing_seq: i64,
    /// The last settled batch of each shard, by shard.
    pub watermarks: Watermarks,
}

/// An issue with what it came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// What it is made from.
    pub issue: Issue,
    /// SHA-256 of its bytes.
    pub digest: Vec<u8>,
}

/// Sums of one part of a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartSums {
    /// By kind, books and lot.
    pub sums: Vec<MovementSum>,
    /// The first and the last window of its usage.
    pub windows: Option<(Timestamp, Timestamp)>,
}

/// A place in a team's journal with its position there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The row; 0 for the beginning.
    pub seq: i64,
    /// Books and lots after it.
    pub position: Position,
}

/// A position as stored.
#[derive(Debug, Serialize, Deserialize)]
struct StoredPosition {
    books: BTreeMap<String, MicroTokens>,
    lots: BTreeMap<LotId, StoredLot>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredLot {
    received: MicroTokens,
    remaining: MicroTokens,
    held: MicroTokens,
    used: MicroTokens,
    expired: MicroTokens,
    void: MicroTokens,
    moved: MicroTokens,
}

fn stored(position: &Position) -> StoredPosition {
    let books = Book::ALL.map(|book| (book.as_str().to_owned(), position.books.get(book)));
    let lot = |lot: &LotSums| StoredLot {
        received: lot.received,
        remaining: lot.remaining,
        held: lot.held,
        used: lot.used,
        expired: lot.expired,
        void: lot.void,
        moved: lot.moved,
    };
    StoredPosition {
        books: books.into(),
        lots: position.lots.iter().map(|(lot_id, sums)| (*lot_id, lot(sums))).collect(),
    }
}

fn position(stored: &StoredPosition) -> Position {
    let lot = |lot: &StoredLot| LotSums {
        received: lot.received,
        remaining: lot.remaining,
        held: lot.held,
        used: lot.used,
        expired: lot.expired,
        void: lot.void,
        moved: lot.moved,
    };
    Position {
        books: BookSums::of(|book| stored.books.get(book.as_str()).copied().unwrap_or_default()),
        lots: stored.lots.iter().map(|(lot_id, sums)| (*lot_id, lot(sums))).collect(),
    }
}

/// The rows of a period: the last one posted before it, and the last one posted in it.
pub async fn bounds_in_tx(
    tx: &mut PgConnection,
    (account, team): (AccountId, TeamId),
    (from, to): (Timestamp, Timestamp),
) -> Result<(i64, i64), Error> {
    let row = sqlx::query!(
        r#"select ledger.journal_seq_before($1, $2, $3) as "opening!",
                  ledger.journal_seq_before($1, $2, $4) as "closing!""#,
        account.as_uuid(),
        team.as_uuid(),
        Instant(from) as _,
        Instant(to) as _,
    )
    .fetch_one(tx)
    .await?;
    Ok((row.opening, row.closing))
}

/// The newest end of an issued statement at or before row `seq`; the beginning where there is none.
pub async fn checkpoint_in_tx(
    tx: &mut PgConnection,
    (account, team): (AccountId, TeamId),
    seq: i64,
) -> Result<Checkpoint, Error> {
    let row = sqlx::query!(
        r#"select closing_seq, closing::text as "closing!" from ledger.statement
           where account_id = $1 and team_id = $2 and closing_seq <= $3 order by closing_seq desc limit 1"#,
        account.as_uuid(),
        team.as_uuid(),
        seq,
    )
    .fetch_optional(tx)
    .await?;
    let Some(row) = row else { return Ok(Checkpoint::default()) };
    let closing = serde_json::from_str(&row.closing).map_err(|e| Error::stored("statement")(e.into()))?;
    Ok(Checkpoint { seq: row.closing_seq, position: position(&closing) })
}

/// Adds up a team's journal after `checkpoint` in three parts: up to the period's opening, in the period,
/// and from there to row `up_to`.
pub async fn sums_in_tx(
    tx: &mut PgConnection,
    issue: &Issue,
    checkpoint: i64,
    up_to: i64,
) -> Result<[PartSums; 3], Error> {
    let rows = sqlx::query_file!(
        "sql/reads/movement_sums.sql",
        issue.account_id.as_uuid(),
        issue.team_id.as_uuid(),
        checkpoint,
        issue.opening_seq,
        issue.closing_seq,
        up_to,
        Instant(issue.from) as _,
    )
    .fetch_all(tx)
    .await?;
    let mut parts: [PartSums; 3] = Default::default();
    for row in rows {
        let part = usize::try_from(row.part).ok().and_then(|part| parts.get_mut(part));
        let part = part.ok_or_else(|| Error::Broken("a journal has three parts".to_owned()))?;
        let named = |error: UnknownName| Error::stored("name in a journal row")(error.into());
        let amount = row.amount.parse().map_err(|_| Error::Broken("a sum does not fit".to_owned()))?;
        part.sums.push(MovementSum {
            kind: row.kind.parse().map_err(named)?,
            debit: row.debit_book.parse().map_err(named)?,
            credit: row.credit_book.parse().map_err(named)?,
            lot_id: row.lot_id.map(LotId::from_uuid),
            earlier: row.earlier,
            rows: row.rows,
            amount: MicroTokens::from_micros(amount),
        });
        if let Some((first, last)) = row.first_window.zip(row.last_window) {
            let (first, last) = (first.0, last.0);
            let (from, to) = part.windows.unwrap_or((first, last));
            part.windows = Some((from.min(first), to.max(last)));
        }
    }
    Ok(parts)
}

/// Keeps an issue; false where the period of the team has a statement already.
pub async fn insert_in_tx(tx: &mut PgConnection, issued: &Issued, closing: &Position) -> Result<bool, Error> {
    let Issued { issue, digest } = issued;
    let (shards, batches): (Vec<i32>, Vec<i64>) = issue.watermarks.0.iter().copied().unzip();
    let closing = serde_json::to_string(&stored(closing)).map_err(|e| Error::Broken(e.to_string()))?;
    let inserted = sqlx::query!(
        "insert into ledger.statement (
             statement_id, account_id, team_id, period_from, period_to, issued_at, format, opening_seq, closing_seq,
             shards, batches, closing, digest)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::text::jsonb, $13)
         on conflict (account_id, team_id, period_from, period_to) do nothing",
        issue.statement_id.as_uuid(),
        issue.account_id.as_uuid(),
        issue.team_id.as_uuid(),
        Instant(issue.from) as _,
        Instant(issue.to) as _,
        Instant(issue.issued_at) as _,
        issue.format,
        issue.opening_seq,
        issue.closing_seq,
        &shards,
        &batches,
        closing,
        digest,
    )
    .execute(tx)
    .await?;
    Ok(inserted.rows_affected() > 0)
}

struct IssuedRow {
    statement_id: Uuid,
    account_id: Uuid,
    team_id: Uuid,
    period_from: Instant,
    period_to: Instant,
    issued_at: Instant,
    format: i16,
    opening_seq: i64,
    closing_seq: i64,
    shards: Vec<i32>,
    batches: Vec<i64>,
    digest: Vec<u8>,
}

impl From<IssuedRow> for Issued {
    fn from(row: IssuedRow) -> Self {
        let issue = Issue {
            statement_id: StatementId::from_uuid(row.statement_id),
            account_id: AccountId::from_uuid(row.account_id),
            team_id: TeamId::from_uuid(row.team_id),
            from: row.period_from.0,
            to: row.period_to.0,
            issued_at: row.issued_at.0,
            format: row.format,
            opening_seq: row.opening_seq,
            closing_seq: row.closing_seq,
            watermarks: Watermarks(row.shards.into_iter().zip(row.batches).collect()),
        };
        Self { issue, digest: row.digest }
    }
}

/// An issued statement by its name.
pub async fn find(at: &mut PgConnection, statement: StatementId) -> Result<Option<Issued>, Error> {
    let row = sqlx::query_as!(
        IssuedRow,
        r#"select statement_id, account_id, team_id, period_from as "period_from: Instant",
                  period_to as "period_to: Instant", issued_at as "issued_at: Instant", format, opening_seq,
                  closing_seq, shards, batches, digest
           from ledger.statement where statement_id = $1"#,
        statement.as_uuid(),
    )
    .fetch_optional(at)
    .await?;
    Ok(row.map(Issued::from))
}

/// The issued statement of a team's period.
pub async fn of_period(
    at: &mut PgConnection,
    (account, team): (AccountId, TeamId),
    (from, to): (Timestamp, Timestamp),
) -> Result<Option<Issued>, Error> {
    let row = sqlx::query_as!(
        IssuedRow,
        r#"select statement_id, account_id, team_id, period_from as "period_from: Instant",
                  period_to as "period_to: Instant", issued_at as "issued_at: Instant", format, opening_seq,
                  closing_seq, shards, batches, digest
           from ledger.statement
           where account_id = $1 and team_id = $2 and period_from = $3 and period_to = $4"#,
        account.as_uuid(),
        team.as_uuid(),
        Instant(from) as _,
        Instant(to) as _,
    )
    .fetch_optional(at)
    .await?;
    Ok(row.map(Issued::from))
}

/// Issued statements of an account, or of one of its teams, by team and period, after a place.
pub async fn list(
    at: &mut PgConnection,
    account: AccountId,
    team: Option<TeamId>,
    after: Option<(TeamId, Timestamp, Timestamp)>,
    limit: i64,
) -> Result<Vec<Issued>, Error> {
    let (after_team, after_from, after_to) = match after {
        Some((team, from, to)) => (Some(team.as_uuid()), Some(Instant(from)), Some(Instant(to))),
        None => (None, None, None),
    };
    let rows = sqlx::query_as!(
        IssuedRow,
        r#"select statement_id, account_id, team_id, period_from as "period_from: Instant",
                  period_to as "period_to: Instant", issued_at as "issued_at: Instant", format, opening_seq,
                  closing_seq, shards, batches, digest
           from ledger.statement
           where account_id = $1
             and ($2::uuid is null or team_id = $2)
             and ($3::uuid is null or (team_id, period_from, period_to) > ($3, $4, $5))
           order by team_id, period_from, period_to
           limit $6"#,
        account.as_uuid(),
        team.map(TeamId::as_uuid),
        after_team,
        after_from as _,
        after_to as _,
        limit,
    )
    .fetch_all(at)
    .await?;
    Ok(rows.into_iter().map(Issued::from).collect())
}
