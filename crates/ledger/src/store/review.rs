//! Unattributed usage and what was decided about it (D25). Both only grow: an entry is open as long as it has
//! no decision. Who decides reads the entries after the lock of the team, by a statement of its own, and the key of
//! the decision refuses the second of two who decide about one entry for different teams.

use drawdown_ledger_core::DistinctValues;
use drawdown_types::{AccountId, AppId, ChargeId, ClientId, MeterSlug, TeamId, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Instant;
use crate::error::Error;

/// Conditions on unattributed usage; all must hold, of a list any.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct UnattributedFilter {
    /// Reasons; none for all.
    pub reasons: Vec<String>,
    /// Client ids; none for all.
    pub clients: Vec<String>,
    /// Meters; none for all.
    pub meters: Vec<String>,
    /// Start of the window: from, and before.
    pub window: (Option<Timestamp>, Option<Timestamp>),
    /// Start of the window of receipt: from, and before.
    pub received: (Option<Timestamp>, Option<Timestamp>),
    /// With a decision, without one, or either.
    pub decided: Option<bool>,
}

/// Unattributed usage as stored, with its decision.
#[derive(Clone, Debug)]
pub struct UnattributedRead {
    /// Its place in the list.
    pub entry: i64,
    /// The client id as metered.
    pub client_id: String,
    /// The meter's slug.
    pub meter: String,
    /// The metered job failed.
    pub failed: bool,
    /// Start of the window.
    pub window_start: Instant,
    /// Start of the window in which it was received.
    pub received_window_start: Instant,
    /// Dimensions as a JSON object.
    pub dimensions: String,
    /// Why no team is charged.
    pub reason: String,
    /// Events.
    pub events: i64,
    /// Quantity in the meter's base unit.
    pub quantity: i64,
    /// When it was posted.
    pub posted_at: Instant,
    /// The account that would have paid, where that was known.
    pub account_id: Option<Uuid>,
    /// Its team.
    pub team_id: Option<Uuid>,
    /// The app.
    pub app_id: Option<Uuid>,
    /// What was decided; absent with all that follows while it is open.
    pub decision: Option<String>,
    /// When.
    pub decided_at: Option<Instant>,
    /// By whom.
    pub decided_by: Option<String>,
    /// Why.
    pub why: Option<String>,
    /// Under which request.
    pub request_id: Option<String>,
    /// The account that is charged.
    pub charged_account: Option<Uuid>,
    /// Its team.
    pub charged_team: Option<Uuid>,
    /// The app that it is charged as usage of.
    pub charged_app: Option<Uuid>,
    /// The charge.
    pub charge_id: Option<Uuid>,
    /// Its place in the team.
    pub charge_seq: Option<i64>,
}

/// Unattributed usage after entry `after` that fits a filter, at most `limit`.
pub async fn list(
    at: &mut PgConnection,
    filter: &UnattributedFilter,
    after: i64,
    limit: i64,
) -> Result<Vec<UnattributedRead>, Error> {
    let some = |values: &[String]| (!values.is_empty()).then(|| values.to_vec());
    let bound = |at: Option<Timestamp>| at.map(Instant);
    let rows = sqlx::query_file_as!(
        UnattributedRead,
        "sql/reads/unattributed.sql",
        after,
        limit,
        some(&filter.reasons) as _,
        some(&filter.clients) as _,
        some(&filter.meters) as _,
        bound(filter.window.0) as _,
        bound(filter.window.1) as _,
        bound(filter.received.0) as _,
        bound(filter.received.1) as _,
        filter.decided,
    )
    .fetch_all(at)
    .await?;
    Ok(rows)
}

/// What has to be known of an entry to charge it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub entry: i64,
    /// The client id as metered.
    pub client_id: ClientId,
    /// The meter's slug.
    pub meter: MeterSlug,
    /// The metered job failed.
    pub failed: bool,
    /// Start of the window.
    pub window: Timestamp,
    /// Dimensions as a JSON object.
    pub dimensions: String,
    /// Events.
    pub events: i64,
    /// Quantity in the meter's base unit.
    pub quantity: i64,
    /// Its distinct values, of a unique meter.
    pub values: Option<DistinctValues>,
    /// There is a decision about it.
    pub decided: bool,
}

pub(super) struct EntryRow {
    pub(super) entry: i64,
    pub(super) client_id: String,
    pub(super) meter: String,
    pub(super) failed: bool,
    pub(super) window_start: Instant,
    pub(super) dimensions: String,
    pub(super) events: i64,
    pub(super) quantity: i64,
    pub(super) distinct_values: Option<Vec<Vec<u8>>>,
    pub(super) decided: bool,
}

impl EntryRow {
    pub(super) fn entry(self) -> Result<Entry, Error> {
        let values = self.distinct_values.map(|values| values.into_iter().map(Vec::into_boxed_slice));
        Ok(Entry {
            entry: self.entry,
            client_id: self.client_id.parse().map_err(|e| Error::stored("client id")(Box::new(e)))?,
            meter: self.meter.parse().map_err(|e| Error::stored("meter")(Box::new(e)))?,
            failed: self.failed,
            window: self.window_start.0,
            dimensions: self.dimensions,
            events: self.events,
            quantity: self.quantity,
            values: values.map(DistinctValues::new),
            decided: self.decided,
        })
    }
}

/// Entries by name, as committed, in order of their names; those that do not exist are missing.
pub async fn entries_in_tx(tx: &mut PgConnection, entries: &[i64]) -> Result<Vec<Entry>, Error> {
    let rows = sqlx::query_as!(
        EntryRow,
        r#"select u.entry, u.client_id, u.meter, u.failed, u.window_start as "window_start: Instant",
                  u.dimensions::text as "dimensions!", u.events, u.quantity, u.distinct_values,
                  d.entry is not null as "decided!"
           from ledger.unattributed u
           left join ledger.review_decision d using (entry)
           where u.entry = any($1)
           order by u.entry"#,
        entries,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter().map(EntryRow::entry).collect()
}

/// The charge that an entry became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChargedAs {
    /// The billed account.
    pub account_id: AccountId,
    /// The team.
    pub team_id: TeamId,
    /// The app.
    pub app_id: AppId,
    /// The charge.
    pub charge_id: ChargeId,
    /// Its place in the team.
    pub seq: i64,
}

/// Who decided what kind of thing, when and why.
#[derive(Clone, Copy, Debug)]
pub struct Verdict<'a> {
    /// What kind.
    pub kind: &'a str,
    /// When: the instant of the charges, where there are any.
    pub at: Timestamp,
    /// Who.
    pub by: &'a str,
    /// Why.
    pub reason: &'a str,
    /// Under which request.
    pub request_id: &'a str,
}

/// Writes decisions; false where one of the entries is decided already, and the transaction has to be given up.
pub async fn decide_in_tx(
    tx: &mut PgConnection,
    verdict: &Verdict<'_>,
    decided: &[(i64, Option<ChargedAs>)],
) -> Result<bool, Error> {
    let entries: Vec<i64> = decided.iter().map(|(entry, _)| *entry).collect();
    let column = |part: fn(&ChargedAs) -> Uuid| -> Vec<Option<Uuid>> {
        decided.iter().map(|(_, charge)| charge.as_ref().map(part)).collect()
    };
    let seqs: Vec<Option<i64>> = decided.iter().map(|(_, charge)| charge.map(|charge| charge.seq)).collect();
    let written = sqlx::query!(
        "insert into ledger.review_decision (
             entry, decided_at, kind, decided_by, reason, request_id, account_id, team_id, app_id, charge_id, charge_seq)
         select d.entry, $7, $8, $9, $10, $11, d.account_id, d.team_id, d.app_id, d.charge_id, d.charge_seq
         from unnest($1::bigint[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::bigint[])
             as d (entry, account_id, team_id, app_id, charge_id, charge_seq)
         order by d.entry
         on conflict (entry) do nothing",
        &entries,
        column(|charge| charge.account_id.as_uuid()) as _,
        column(|charge| charge.team_id.as_uuid()) as _,
        column(|charge| charge.app_id.as_uuid()) as _,
        column(|charge| charge.charge_id.as_uuid()) as _,
        seqs as _,
        Instant(verdict.at) as _,
        verdict.kind,
        verdict.by,
        verdict.reason,
        verdict.request_id,
    )
    .execute(tx)
    .await?;
    Ok(usize::try_from(written.rows_affected()) == Ok(decided.len()))
}
