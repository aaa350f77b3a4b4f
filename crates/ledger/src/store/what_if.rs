//! Reads for pricing a past month otherwise. They scan the charges of one team or account: there is no
//! index by window, since it would cost every post.

use std::collections::HashMap;

use drawdown_ledger_core::{Cycle, SpanUsage};
use drawdown_types::{AccountId, MeterSlug, MicroTokens, PriceId, Quantity, TeamId, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Instant, charges::AHEAD_MAX};
use crate::error::Error;

/// A span of one meter.
#[derive(Clone, Debug)]
pub struct MeterSpan {
    /// The meter.
    pub meter: MeterSlug,
    /// First instant.
    pub from: Timestamp,
    /// The instant after the last.
    pub to: Timestamp,
}

/// What a team used of a meter in a span.
#[derive(Clone, Debug)]
pub struct UsageRead {
    /// The team.
    pub team_id: TeamId,
    /// The meter.
    pub meter: MeterSlug,
    /// First instant of the span.
    pub from: Timestamp,
    /// Quantities and cost.
    pub usage: SpanUsage,
}

/// The account of a team that was ever posted to.
pub async fn account_in_tx(tx: &mut PgConnection, team: TeamId) -> Result<Option<AccountId>, Error> {
    let account =
        sqlx::query_scalar!("select account_id from ledger.balance where team_id = $1", team.as_uuid())
            .fetch_optional(tx)
            .await?;
    Ok(account.map(AccountId::from_uuid))
}

/// Usage of the month, by team, meter and span.
pub async fn usage_in_tx(
    tx: &mut PgConnection,
    account: AccountId,
    team: Option<TeamId>,
    (from, to): (Timestamp, Timestamp),
    spans: &[MeterSpan],
) -> Result<Vec<UsageRead>, Error> {
    let rows = sqlx::query_file!(
        "sql/what_if.sql",
        account.as_uuid(),
        team.map(TeamId::as_uuid),
        Instant(from) as _,
        Instant(to) as _,
        spans.iter().map(|span| span.meter.as_str()).collect::<Vec<_>>() as _,
        spans.iter().map(|span| Instant(span.from)).collect::<Vec<_>>() as _,
        spans.iter().map(|span| Instant(span.to)).collect::<Vec<_>>() as _,
        Instant(from.checked_sub(AHEAD_MAX).unwrap_or(Timestamp::MIN)) as _,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            let usage = SpanUsage {
                all: quantity(&row.everything)?,
                succeeded: quantity(&row.succeeded)?,
                cost: MicroTokens::from_micros(whole(&row.cost)?),
            };
            Ok(UsageRead {
                team_id: TeamId::from_uuid(row.team_id),
                meter: MeterSlug::new(&row.meter).map_err(|e| Error::stored("meter slug")(e.into()))?,
                from: row.span.0,
                usage,
            })
        })
        .collect()
}

/// Sums of what is stored fit 64 bits for what was charged; what entered no state may add up to more.
fn whole(text: &str) -> Result<i64, Error> {
    text.parse::<i128>()
        .map(|sum| i64::try_from(sum).unwrap_or(i64::MAX))
        .map_err(|e| Error::stored("sum of charges")(e.into()))
}

fn quantity(text: &str) -> Result<Quantity, Error> {
    Quantity::new(whole(text)?).map_err(|e| Error::stored("sum of quantities")(e.into()))
}

/// The quantities of all months before `from`, by team and price.
pub async fn earlier_months_in_tx(
    tx: &mut PgConnection,
    account: AccountId,
    team: Option<TeamId>,
    from: Timestamp,
    prices: &[PriceId],
) -> Result<HashMap<(TeamId, PriceId), Vec<Quantity>>, Error> {
    if prices.is_empty() {
        return Ok(HashMap::new());
    }
    let prices: Vec<Uuid> = prices.iter().map(|price| price.as_uuid()).collect();
    let rows = sqlx::query!(
        "select team_id, price_id, quantity from ledger.usage_state
         where account_id = $1 and ($2::uuid is null or team_id = $2) and price_id = any($3)
           and cycle < $4 and cycle > $5",
        account.as_uuid(),
        team.map(TeamId::as_uuid),
        &prices,
        Instant(from) as _,
        Instant(Cycle::ENDLESS.start()) as _,
    )
    .fetch_all(tx)
    .await?;
    let mut months: HashMap<_, Vec<Quantity>> = HashMap::new();
    for row in rows {
        let quantity =
            Quantity::new(row.quantity).map_err(|e| Error::stored("quantity of a usage state")(e.into()))?;
        let key = (TeamId::from_uuid(row.team_id), PriceId::from_uuid(row.price_id));
        months.entry(key).or_default().push(quantity);
    }
    Ok(months)
}
