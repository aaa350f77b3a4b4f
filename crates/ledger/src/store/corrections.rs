//! What a correction reads of a charge beside the journal, and what it removes of a period.

use drawdown_ledger_core::{PeriodKey, PeriodShrink, SeenValue, UsageKey};
use drawdown_types::{AccountId, ChargeId, Quantity, TeamId, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Instant;
use crate::error::Error;

/// A charge as stored, with what stands of it.
#[derive(Clone, Debug)]
pub struct StoredCharge {
    /// Posting order in the team.
    pub seq: i64,
    /// The app.
    pub app_id: Uuid,
    /// The client id as metered.
    pub client_id: String,
    /// The meter's slug.
    pub meter: String,
    /// How the meter adds up; usage of one that is not in the catalogue is recorded as a sum.
    pub aggregation: String,
    /// The metered job failed.
    pub failed: bool,
    /// Start of the window.
    pub window_start: Instant,
    /// Dimensions as a JSON object of texts.
    pub dimensions: String,
    /// Events, less those that were taken back.
    pub events: i64,
    /// Quantity, less what was taken back.
    pub quantity: i64,
    /// Its price, less what was refunded.
    pub amount_micros: i64,
    /// It is a correction itself.
    pub is_correction: bool,
    /// The price, where it has one.
    pub price_id: Option<Uuid>,
    /// Only whole units are charged at it: its state has no month (D15).
    pub by_unit: bool,
    /// Why it costs nothing by rule.
    pub zero_rated: Option<String>,
}

/// A charge of a team by name.
pub async fn charge_in_tx(
    tx: &mut PgConnection,
    account: AccountId,
    team: TeamId,
    charge: ChargeId,
) -> Result<Option<StoredCharge>, Error> {
    let found = sqlx::query_as!(
        StoredCharge,
        r#"select c.seq, c.app_id, c.client_id, c.meter, coalesce(m.aggregation, 'sum') as "aggregation!", c.failed, c.window_start,
                  c.dimensions::text as "dimensions!",
                  (c.events + coalesce(t.events, 0))::bigint as "events!",
                  (c.quantity + coalesce(t.quantity, 0))::bigint as "quantity!",
                  (c.amount_micros + coalesce(t.amount_micros, 0))::bigint as "amount_micros!",
                  c.quantity < 0 as "is_correction!",
                  c.price_id, c.zero_rated,
                  exists (select 1 from ledger.price p where p.price_id = c.price_id and p.charged_unit is not null)
                      as "by_unit!"
           from ledger.charge c
           left join ledger.meter m on m.slug = c.meter
           left join lateral (
               select sum(events) as events, sum(quantity) as quantity, sum(amount_micros) as amount_micros
               from ledger.charge
               where account_id = c.account_id and team_id = c.team_id and corrects = c.charge_id and quantity < 0
           ) t on true
           where c.account_id = $1 and c.team_id = $2 and c.charge_id = $3"#,
        account.as_uuid(),
        team.as_uuid(),
        charge.as_uuid(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(found)
}

/// Other lines of a key that cost something, the latest first. Cost: a walk back over the team's charges.
pub async fn latest_in_tx(
    tx: &mut PgConnection,
    account: AccountId,
    key: UsageKey,
    (corrected, by_unit): (ChargeId, bool),
    limit: i64,
) -> Result<Vec<ChargeId>, Error> {
    let charges = sqlx::query_scalar!(
        "select charge_id from ledger.charge
         where account_id = $1 and team_id = $2 and price_id = $3 and amount_micros > 0 and charge_id <> $4
           and ($5 or (window_start >= $6 and window_start < $7))
         order by seq desc
         limit $8",
        account.as_uuid(),
        key.team_id.as_uuid(),
        key.price_id.as_uuid(),
        corrected.as_uuid(),
        by_unit,
        Instant(key.cycle.start()) as _,
        Instant(key.cycle.end()) as _,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(charges.into_iter().map(ChargeId::from_uuid).collect())
}

/// The teams where lots live now that left a team, by id.
pub async fn homes_in_tx(
    tx: &mut PgConnection,
    account: AccountId,
    team: TeamId,
) -> Result<Vec<TeamId>, Error> {
    let teams = sqlx::query_scalar!(
        "select distinct h.team_id
         from ledger.lot l
         join ledger.lot h on h.lot_id = l.lot_id and h.account_id = l.account_id and h.moved_to is null
         where l.account_id = $1 and l.team_id = $2 and l.moved_to is not null
         order by h.team_id",
        account.as_uuid(),
        team.as_uuid(),
    )
    .fetch_all(tx)
    .await?;
    Ok(teams.into_iter().map(TeamId::from_uuid).collect())
}

/// The period of a line of `max` or `unique`, and what it is without the line.
pub async fn shrink_in_tx(
    tx: &mut PgConnection,
    account: AccountId,
    key: PeriodKey,
    end: Timestamp,
    charge: ChargeId,
) -> Result<PeriodShrink, Error> {
    let row = sqlx::query!(
        r#"with others as (
               select c.seq, c.posted_at, c.quantity
               from ledger.charge c
               where c.account_id = $1 and c.team_id = $2 and c.price_id = $3 and c.charge_id <> $6
                 and c.window_start >= $4 and c.window_start < $5 and c.quantity >= 0
                 and not exists (
                     select 1 from ledger.charge x
                     where x.account_id = c.account_id and x.team_id = c.team_id and x.corrects = c.charge_id
                       and x.quantity < 0)
           ), seen as (
               select distinct value
               from others o
               join ledger.charge_values v on v.account_id = $1 and v.team_id = $2 and v.seq = o.seq and v.posted_at = o.posted_at
               cross join lateral unnest(v.distinct_values) as value
           ), own as (
               select value
               from ledger.charge c
               join ledger.charge_values v using (account_id, team_id, seq, posted_at)
               cross join lateral unnest(v.distinct_values) as value
               where c.account_id = $1 and c.team_id = $2 and c.charge_id = $6
           )
           select u.quantity as "before!",
                  (case when m.aggregation = 'unique' then (select count(*) from seen)
                        else coalesce((select max(quantity) from others), 0) end)::bigint as "after!",
                  array(select value from own where value not in (select value from seen)) as "gone!"
           from ledger.usage_period u
           join (select distinct price_id, meter from ledger.price) p on p.price_id = u.price_id
           join ledger.meter m on m.slug = p.meter
           where u.account_id = $1 and u.team_id = $2 and u.price_id = $3 and u.start = $4"#,
        account.as_uuid(),
        key.team_id.as_uuid(),
        key.price_id.as_uuid(),
        Instant(key.start) as _,
        Instant(end) as _,
        charge.as_uuid(),
    )
    .fetch_optional(tx)
    .await?;
    // A largest value of 0, or no distinct values, leave no row.
    let Some(row) = row else {
        return Ok(PeriodShrink { key, before: Quantity::ZERO, after: Quantity::ZERO, gone: Vec::new() });
    };
    let quantity = |units| Quantity::new(units).map_err(|e| Error::stored("quantity of a period")(e.into()));
    let seen = |value: Vec<u8>| SeenValue { key, value: value.into() };
    Ok(PeriodShrink {
        key,
        before: quantity(row.before)?,
        after: quantity(row.after)?,
        gone: row.gone.into_iter().map(seen).collect(),
    })
}

/// Forgets values of a period that no line has any more.
pub async fn forget_in_tx(
    tx: &mut PgConnection,
    account: AccountId,
    gone: &[SeenValue],
) -> Result<(), Error> {
    let Some(SeenValue { key, .. }) = gone.first() else { return Ok(()) };
    sqlx::query!(
        "delete from ledger.usage_value
         where account_id = $1 and team_id = $2 and price_id = $3 and start = $4 and value = any($5)",
        account.as_uuid(),
        key.team_id.as_uuid(),
        key.price_id.as_uuid(),
        Instant(key.start) as _,
        gone.iter().map(|seen| &*seen.value).collect::<Vec<&[u8]>>() as _,
    )
    .execute(tx)
    .await?;
    Ok(())
}
