//! Slices of what was posted to an account, and the charges and rows inside of them.

use drawdown_types::{AccountId, TeamId, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Instant, reads::JournalRead};
use crate::error::Error;

/// A part of the history of a team that has its place in the account's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its place.
    pub position: i64,
    /// The team.
    pub team_id: Uuid,
    /// Names this slice.
    pub mark: Uuid,
    /// Charges after this one,
    pub charge_after: i64,
    /// up to this one.
    pub charge_to: i64,
    /// Journal rows after this one,
    pub row_after: i64,
    /// up to this one.
    pub row_to: i64,
    /// The last charge of the team that is archived.
    pub charges_archived: i64,
    /// The last journal row that is.
    pub rows_archived: i64,
}

/// Which slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Of this team; none for all of the account.
    pub team: Option<TeamId>,
    /// From this place on.
    pub from: i64,
    /// Up to this one.
    pub to: i64,
    /// At most so many.
    pub limit: i64,
}

/// A part of a team's charges or rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The place of its slice.
    pub place: i64,
    /// The team.
    pub team_id: Uuid,
    /// After this sequence.
    pub after: i64,
    /// Up to this one.
    pub up_to: i64,
}

/// A charge as it was posted.
#[derive(Clone, Debug)]
pub struct PostedCharge {
    /// The place of its slice.
    pub place: i64,
    /// Posting order in the team.
    pub seq: i64,
    /// Its name.
    pub charge_id: Uuid,
    /// The app.
    pub app_id: Uuid,
    /// The client id as metered.
    pub client_id: String,
    /// The meter's slug.
    pub meter: String,
    /// The metered job failed.
    pub failed: bool,
    /// Start of the window.
    pub window_start: Instant,
    /// Dimensions as a JSON object of texts.
    pub dimensions: String,
    /// Events.
    pub events: i64,
    /// Quantity in the meter's base unit.
    pub quantity: i64,
    /// Price, paid or not.
    pub amount_micros: i64,
    /// What no lot covered.
    pub uncharged_micros: i64,
    /// The price, where it has one.
    pub price_id: Option<Uuid>,
    /// Why it costs nothing by rule.
    pub zero_rated: Option<String>,
    /// When it was posted.
    pub posted_at: Instant,
    /// Its first journal row, or one before it.
    pub journal_seq: i64,
    /// The lot that paid all of it: then it is its own journal row.
    pub lot_id: Option<Uuid>,
    /// The charge that it corrects or is made instead of.
    pub corrects: Option<Uuid>,
}

/// A price that counts whole units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitPrice {
    /// The price.
    pub price_id: Uuid,
    /// Micro-tokens …
    pub micros: i64,
    /// … for so many base units.
    pub per_units: i64,
    /// Base units of one charged unit.
    pub charged_unit: i64,
}

/// Makes the head of an account where it has none, and waits until nobody else cuts slices of it.
pub async fn lock_in_tx(tx: &mut PgConnection, account: AccountId) -> Result<(), Error> {
    sqlx::query!(
        "insert into ledger.posting_head (account_id) values ($1) on conflict do nothing",
        account.as_uuid()
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "select position from ledger.posting_head where account_id = $1 for update",
        account.as_uuid()
    )
    .fetch_one(tx)
    .await?;
    Ok(())
}

/// Cuts what was posted since the last time; the head is locked by an earlier statement.
pub async fn cut_in_tx(tx: &mut PgConnection, account: AccountId) -> Result<(), Error> {
    sqlx::query_file!("sql/reads/cut_slices.sql", account.as_uuid()).execute(tx).await?;
    Ok(())
}

/// The last place that was given out; 0 where nothing was cut.
pub async fn head(at: &mut PgConnection, account: AccountId) -> Result<i64, Error> {
    let position = sqlx::query_scalar!(
        "select position from ledger.posting_head where account_id = $1",
        account.as_uuid()
    )
    .fetch_optional(at)
    .await?;
    Ok(position.unwrap_or_default())
}

/// Slices by place.
pub async fn slices(
    at: &mut PgConnection,
    account: AccountId,
    range: Range,
    archived: bool,
) -> Result<Vec<Slice>, Error> {
    let slices = sqlx::query_file_as!(
        Slice,
        "sql/reads/slices.sql",
        account.as_uuid(),
        range.team.map(TeamId::as_uuid),
        range.from,
        range.to,
        range.limit,
        archived,
    )
    .fetch_all(at)
    .await?;
    Ok(slices)
}

/// Pieces as parameters.
struct Columns {
    places: Vec<i64>,
    teams: Vec<Uuid>,
    after: Vec<i64>,
    up_to: Vec<i64>,
}

impl Columns {
    fn of(pieces: &[Piece]) -> Self {
        Self {
            places: pieces.iter().map(|piece| piece.place).collect(),
            teams: pieces.iter().map(|piece| piece.team_id).collect(),
            after: pieces.iter().map(|piece| piece.after).collect(),
            up_to: pieces.iter().map(|piece| piece.up_to).collect(),
        }
    }
}

/// The charges of pieces, at most `limit` of each.
pub async fn charges(
    at: &mut PgConnection,
    account: AccountId,
    pieces: &[Piece],
    limit: i64,
) -> Result<Vec<PostedCharge>, Error> {
    let Columns { places, teams, after, up_to } = Columns::of(pieces);
    let charges = sqlx::query_file_as!(
        PostedCharge,
        "sql/reads/posted_charges.sql",
        account.as_uuid(),
        &places,
        &teams,
        &after,
        &up_to,
        limit,
    )
    .fetch_all(at)
    .await?;
    Ok(charges)
}

/// The journal rows of pieces that belong to charges (`of_charges`), or that do not; at most `limit` of each; each with the place of
/// its slice.
pub async fn rows(
    at: &mut PgConnection,
    account: AccountId,
    pieces: &[Piece],
    of_charges: bool,
    limit: i64,
) -> Result<Vec<(i64, JournalRead)>, Error> {
    let Columns { places, teams, after, up_to } = Columns::of(pieces);
    let rows = sqlx::query_file!(
        "sql/reads/posted_rows.sql",
        account.as_uuid(),
        &places,
        &teams,
        &after,
        &up_to,
        of_charges,
        limit,
    )
    .fetch_all(at)
    .await?;
    let read = rows.into_iter().map(|row| {
        let read = JournalRead {
            seq: row.seq,
            kind: row.kind,
            debit_book: row.debit_book,
            credit_book: row.credit_book,
            amount_micros: row.amount_micros,
            lot_id: row.lot_id,
            charge_id: row.charge_id,
            debt_from_micros: row.debt_from_micros,
            debt_to_micros: row.debt_to_micros,
            posted_at: row.posted_at,
            effective_at: row.effective_at,
            hold_id: row.hold_id,
            reverses: row.reverses,
        };
        (row.place, read)
    });
    Ok(read.collect())
}

/// The last journal row of a team that was posted at an instant or before.
pub async fn last_row(
    at: &mut PgConnection,
    account: AccountId,
    team: Uuid,
    posted_at: Timestamp,
) -> Result<i64, Error> {
    let seq = sqlx::query_scalar!(
        r#"select ledger.journal_seq_before($1, $2, $3::timestamptz + interval '1 microsecond') as "seq!""#,
        account.as_uuid(),
        team,
        Instant(posted_at) as _,
    )
    .fetch_one(at)
    .await?;
    Ok(seq)
}

/// Those of some prices that count whole units. Prices are of no account, so a tenant can not read them.
pub async fn unit_prices(at: &mut PgConnection, prices: &[Uuid]) -> Result<Vec<UnitPrice>, Error> {
    let prices = sqlx::query_as!(
        UnitPrice,
        r#"select distinct price_id, micros, per_units, charged_unit as "charged_unit!"
           from ledger.price where price_id = any($1) and charged_unit is not null"#,
        prices,
    )
    .fetch_all(at)
    .await?;
    Ok(prices)
}
