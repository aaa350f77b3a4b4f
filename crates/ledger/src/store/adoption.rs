//! Apps whose usage from before their first team is adopted (D49), and which of their client ids have some.
//!
//! Usage of an adopted client id that arrives later is told by the batch that keeps it, in its own
//! transaction: `arrived` goes up (`sql/settle.sql`). Who has looked at all of it says so by `looked`. An app is
//! registered while no posting is under way (it holds the catalogue), so whatever such a posting kept is there
//! before the first look, and whatever comes later finds its client id registered.

use drawdown_types::{AccountId, AppId, TeamId, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Instant,
    review::{Entry, EntryRow},
};
use crate::error::Error;

/// An app and what of its usage is adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// The billed account.
    pub account_id: AccountId,
    /// The app.
    pub app_id: AppId,
    /// Its first team.
    pub team_id: TeamId,
    /// Windows that start at or after it.
    pub windows_from: Timestamp,
    /// Windows that start before it: the edge from which the app has a team.
    pub windows_to: Timestamp,
    /// The request that registered it.
    pub request_id: String,
}

/// What was registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// The adoption, and its client ids.
    Done,
    /// A client id is registered for another app.
    ClientTaken,
}

struct AdoptionRow {
    account_id: Uuid,
    app_id: Uuid,
    team_id: Uuid,
    windows_from: Instant,
    windows_to: Instant,
    request_id: String,
}

impl From<AdoptionRow> for Adoption {
    fn from(row: AdoptionRow) -> Self {
        Self {
            account_id: AccountId::from_uuid(row.account_id),
            app_id: AppId::from_uuid(row.app_id),
            team_id: TeamId::from_uuid(row.team_id),
            windows_from: row.windows_from.0,
            windows_to: row.windows_to.0,
            request_id: row.request_id,
        }
    }
}

/// The adoption of an app.
pub async fn find_in_tx(tx: &mut PgConnection, app: AppId) -> Result<Option<Adoption>, Error> {
    let row = sqlx::query_as!(
        AdoptionRow,
        r#"select account_id, app_id, team_id, windows_from as "windows_from: Instant",
                  windows_to as "windows_to: Instant", request_id
           from ledger.adoption where app_id = $1"#,
        app.as_uuid(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(Adoption::from))
}

/// Registers an adoption where the app has none, and client ids of it; those that are registered already are
/// looked at again. The catalogue is held.
pub async fn register_in_tx(
    tx: &mut PgConnection,
    adoption: &Adoption,
    clients: &[String],
    now: Timestamp,
) -> Result<Registered, Error> {
    sqlx::query!(
        "insert into ledger.adoption (account_id, app_id, team_id, windows_from, windows_to, request_id, adopted_at)
         values ($1, $2, $3, $4, $5, $6, $7) on conflict (app_id) do nothing",
        adoption.account_id.as_uuid(),
        adoption.app_id.as_uuid(),
        adoption.team_id.as_uuid(),
        Instant(adoption.windows_from) as _,
        Instant(adoption.windows_to) as _,
        adoption.request_id,
        Instant(now) as _,
    )
    .execute(&mut *tx)
    .await?;
    let written = sqlx::query!(
        "insert into ledger.adopted_client (account_id, app_id, client_id)
         select $1, $2, client_id from unnest($3::text[]) as c (client_id) order by client_id
         on conflict (client_id) do update set arrived = ledger.adopted_client.arrived + 1
             where ledger.adopted_client.app_id = excluded.app_id",
        adoption.account_id.as_uuid(),
        adoption.app_id.as_uuid(),
        clients,
    )
    .execute(tx)
    .await?;
    let all = usize::try_from(written.rows_affected()) == Ok(clients.len());
    Ok(if all { Registered::Done } else { Registered::ClientTaken })
}

/// Adoptions with usage that nobody has looked at, after app `after`, at most `limit`, by app.
pub async fn due(at: &mut PgConnection, after: Option<AppId>, limit: i64) -> Result<Vec<Adoption>, Error> {
    let rows = sqlx::query_as!(
        AdoptionRow,
        r#"select a.account_id, a.app_id, a.team_id, a.windows_from as "windows_from: Instant",
                  a.windows_to as "windows_to: Instant", a.request_id
           from ledger.adoption a
           where a.app_id in (select app_id from ledger.adopted_client
                              where looked < arrived and ($1::uuid is null or app_id > $1))
           order by a.app_id limit $2"#,
        after.map(AppId::as_uuid),
        limit,
    )
    .fetch_all(at)
    .await?;
    Ok(rows.into_iter().map(Adoption::from).collect())
}

/// Where a look at an adoption's usage goes on: after this line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its window.
    pub window: Timestamp,
    /// Its meter.
    pub meter: String,
    /// Its client id.
    pub client_id: String,
    /// Its entry.
    pub entry: i64,
}

/// The client ids of an app, each with how often its usage arrived: read before the usage itself, so that what
/// arrives in between is looked at once more.
pub async fn clients_in_tx(tx: &mut PgConnection, adoption: &Adoption) -> Result<Vec<(String, i64)>, Error> {
    let rows = sqlx::query!(
        "select client_id, arrived from ledger.adopted_client where account_id = $1 and app_id = $2 order by client_id",
        adoption.account_id.as_uuid(),
        adoption.app_id.as_uuid(),
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.client_id, row.arrived)).collect())
}

/// The next lines to adopt: kept because the app had no team, inside the windows of its adoption, without a
/// decision; in order of window.
pub async fn lines_in_tx(
    tx: &mut PgConnection,
    adoption: &Adoption,
    clients: &[String],
    after: Option<&Place>,
    limit: i64,
) -> Result<Vec<Entry>, Error> {
    let window = after.map_or(adoption.windows_from, |place| place.window);
    let rows = sqlx::query_as!(
        EntryRow,
        r#"select u.entry, u.client_id, u.meter, u.failed, u.window_start as "window_start: Instant",
                  u.dimensions::text as "dimensions!", u.events, u.quantity, u.distinct_values, false as "decided!"
           from ledger.unattributed u
           where u.client_id = any($1) and u.reason = 'no_team' and u.window_start >= $2 and u.window_start < $3
             and ($4::bigint is null or (u.window_start, u.meter, u.client_id, u.entry) > ($2, $5, $6, $4))
             and not exists (select from ledger.review_decision d where d.entry = u.entry)
           order by u.window_start, u.meter, u.client_id, u.entry
           limit $7"#,
        clients,
        Instant(window) as _,
        Instant(adoption.windows_to) as _,
        after.map(|place| place.entry),
        after.map(|place| place.meter.as_str()),
        after.map(|place| place.client_id.as_str()),
        limit,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter().map(EntryRow::entry).collect()
}

/// Everything that had arrived is looked at. What arrived since then keeps the client id due.
pub async fn looked_in_tx(
    tx: &mut PgConnection,
    adoption: &Adoption,
    clients: &[(String, i64)],
) -> Result<(), Error> {
    let names: Vec<&str> = clients.iter().map(|(client, _)| client.as_str()).collect();
    let arrived: Vec<i64> = clients.iter().map(|(_, arrived)| *arrived).collect();
    sqlx::query!(
        // By client id, in the order in which batches take these rows.
        "with seen as (
             select c.client_id, n.arrived
             from ledger.adopted_client c
             join unnest($2::text[], $3::bigint[]) as n (client_id, arrived) using (client_id)
             where c.app_id = $1 and c.looked < n.arrived
             order by c.client_id
             for update of c
         )
         update ledger.adopted_client c set looked = greatest(c.looked, seen.arrived)
         from seen where c.client_id = seen.client_id",
        adoption.app_id.as_uuid(),
        &names as _,
        &arrived,
    )
    .execute(tx)
    .await?;
    Ok(())
}
