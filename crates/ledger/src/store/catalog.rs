//! Meters and rate cards. Few and small: they are read as a whole and remembered by the version of the
//! catalogue, which every change raises in its own transaction.

use std::collections::HashMap;

use drawdown_ledger_core::{
    Aggregation, CardVersion, Period, Price, Terms, TermsDraft, TermsError, Tier, UnknownName,
};
use drawdown_types::{MeterSlug, PriceId, RateCardId, Slug, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Instant, Pool};
use crate::error::Error;

/// A meter as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    /// Its slug.
    pub slug: MeterSlug,
    /// Its base unit.
    pub unit: String,
    /// How events become a quantity.
    pub aggregation: Aggregation,
    /// The dimension whose distinct values are counted; of a unique meter only.
    pub unique_dimension: Option<String>,
    /// Names of dimensions, in the order given.
    pub dimensions: Vec<String>,
    /// Refused at the gate when the balance can not cover it; else it may go below zero.
    pub hard: bool,
}

/// As stored: the kind, and the period where it has one.
pub(crate) const fn aggregation_names(aggregation: Aggregation) -> (&'static str, Option<&'static str>) {
    const fn name(period: Period) -> Option<&'static str> {
        Some(match period {
            Period::Day => "day",
            Period::Month => "month",
        })
    }
    match aggregation {
        Aggregation::Sum => ("sum", None),
        Aggregation::Count => ("count", None),
        Aggregation::Max(period) => ("max", name(period)),
        Aggregation::Unique(period) => ("unique", name(period)),
    }
}

fn aggregation(kind: &str, period: Option<&str>) -> Result<Aggregation, Error> {
    let period = match period {
        Some("day") => Some(Period::Day),
        Some("month") => Some(Period::Month),
        Some(_) | None => None,
    };
    match (kind, period) {
        ("sum", None) => Ok(Aggregation::Sum),
        ("count", None) => Ok(Aggregation::Count),
        ("max", Some(period)) => Ok(Aggregation::Max(period)),
        ("unique", Some(period)) => Ok(Aggregation::Unique(period)),
        _ => Err(Error::Broken(format!("a meter of aggregation {kind} is stored without a known period"))),
    }
}

/// Locks the catalogue, waiting for every posting that reads it, and raises its version.
pub async fn lock_in_tx(tx: &mut PgConnection) -> Result<i64, Error> {
    let version = sqlx::query_scalar!("update ledger.catalogue set version = version + 1 returning version")
        .fetch_one(tx)
        .await?;
    Ok(version)
}

/// The version of the catalogue, which stays as it is until the transaction ends.
pub async fn share_in_tx(tx: &mut PgConnection) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!("select version from ledger.catalogue for share").fetch_one(tx).await?)
}

/// Holds the catalogue as it is until the transaction ends: waits for every posting under way, and every later one
/// waits.
pub async fn hold_in_tx(tx: &mut PgConnection) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!("select version from ledger.catalogue for update").fetch_one(tx).await?)
}

/// The version of the catalogue as committed.
pub async fn version_in_tx(tx: &mut PgConnection) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!("select version from ledger.catalogue").fetch_one(tx).await?)
}

/// All meters, by slug.
pub async fn meters_in_tx(tx: &mut PgConnection) -> Result<Vec<Meter>, Error> {
    let rows = sqlx::query!(
        "select slug, unit, aggregation, period, unique_dimension, dimensions, limit_kind
         from ledger.meter order by slug collate \"C\""
    )
    .fetch_all(tx)
    .await?;
    let meters = rows.into_iter().map(|row| {
        Ok(Meter {
            slug: MeterSlug::new(&row.slug).map_err(|e| Error::stored("meter slug")(e.into()))?,
            unit: row.unit,
            aggregation: aggregation(&row.aggregation, row.period.as_deref())?,
            unique_dimension: row.unique_dimension,
            dimensions: row.dimensions,
            hard: row.limit_kind == "hard",
        })
    });
    meters.collect()
}

/// Stores a meter; false where one of that slug exists.
pub async fn insert_meter_in_tx(tx: &mut PgConnection, meter: &Meter, now: Timestamp) -> Result<bool, Error> {
    let (aggregation, period) = aggregation_names(meter.aggregation);
    let done = sqlx::query!(
        "insert into ledger.meter (
             slug, unit, aggregation, dimensions, limit_kind, created_at, period, unique_dimension)
         values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (slug) do nothing",
        meter.slug.as_str(),
        meter.unit,
        aggregation,
        &meter.dimensions,
        if meter.hard { "hard" } else { "soft" },
        Instant(now) as _,
        period,
        meter.unique_dimension,
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// All versions of all cards with their prices.
pub async fn cards_in_tx(tx: &mut PgConnection) -> Result<Vec<CardVersion>, Error> {
    let rows = sqlx::query!("select rate_card_id, name, contract_kind, effective_from from ledger.rate_card")
        .fetch_all(&mut *tx)
        .await?;
    let mut cards: HashMap<Uuid, CardVersion> = HashMap::with_capacity(rows.len());
    for row in rows {
        let card = CardVersion {
            rate_card_id: RateCardId::from_uuid(row.rate_card_id),
            name: Slug::new(&row.name).map_err(|e| Error::stored("rate card name")(e.into()))?,
            contract_kind: row
                .contract_kind
                .parse()
                .map_err(|e: UnknownName| Error::stored("contract kind")(e.into()))?,
            effective_from: row.effective_from.0,
            prices: Vec::new(),
        };
        cards.insert(row.rate_card_id, card);
    }
    let rows = sqlx::query_as!(
        PriceRow,
        "select rate_card_id, meter, price_id, micros, per_units, failed_is_free, tier_above, tier_micros,
                charged_unit, free_quota, free_only
         from ledger.price order by rate_card_id, meter collate \"C\""
    )
    .fetch_all(tx)
    .await?;
    for row in rows {
        // Both statements see the same cards: who publishes holds the catalogue's row alone.
        let card = cards.get_mut(&row.rate_card_id);
        card.ok_or_else(|| Error::Broken("a price has no card".to_owned()))?.prices.push(row.price()?);
    }
    let mut cards: Vec<_> = cards.into_values().collect();
    cards.sort_by(|a, b| {
        (&a.name, a.contract_kind, a.effective_from).cmp(&(&b.name, b.contract_kind, b.effective_from))
    });
    Ok(cards)
}

struct PriceRow {
    rate_card_id: Uuid,
    meter: String,
    price_id: Uuid,
    micros: i64,
    per_units: i64,
    failed_is_free: bool,
    tier_above: Vec<i64>,
    tier_micros: Vec<i64>,
    charged_unit: Option<i64>,
    free_quota: i64,
    free_only: bool,
}

// === impl PriceRow ===

impl PriceRow {
    fn price(self) -> Result<Price, Error> {
        let tiers = self.tier_above.into_iter().zip(self.tier_micros);
        let draft = TermsDraft {
            micros: self.micros,
            per_units: self.per_units,
            tiers: tiers.map(|(above, micros)| Tier { above, micros }).collect(),
            charged_unit: self.charged_unit,
            free_quota: self.free_quota,
            free_only: self.free_only,
            failed_is_free: self.failed_is_free,
        };
        let told = |faults: Vec<TermsError>| {
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            Error::Broken(format!("a stored price means nothing: {}", faults.join(", ")))
        };
        Ok(Price {
            meter: MeterSlug::new(&self.meter).map_err(|e| Error::stored("meter slug")(e.into()))?,
            price_id: PriceId::from_uuid(self.price_id),
            terms: draft.check().map_err(told)?,
        })
    }
}

/// The tiers of many prices as text, one array each: arrays of several rows, which differ in length, can
/// not be one parameter.
fn tiers(prices: &[Price], part: fn(&Tier) -> i64) -> Vec<String> {
    let text = |terms: &Terms| {
        let parts: Vec<_> = terms.tiers().iter().map(|tier| part(tier).to_string()).collect();
        format!("{{{}}}", parts.join(","))
    };
    prices.iter().map(|price| text(&price.terms)).collect()
}

/// Stores a version with its prices.
pub async fn insert_card_in_tx(
    tx: &mut PgConnection,
    card: &CardVersion,
    set_up: bool,
    now: Timestamp,
) -> Result<(), Error> {
    let prices = &card.prices;
    sqlx::query!(
        "with card as (
             insert into ledger.rate_card (rate_card_id, name, contract_kind, effective_from, set_up, published_at)
             values ($1, $2, $3, $4, $5, $6))
         insert into ledger.price (
             rate_card_id, meter, price_id, micros, per_units, failed_is_free, tier_above, tier_micros,
             charged_unit, free_quota, free_only)
         select $1, p.meter, p.price_id, p.micros, p.per_units, p.failed_is_free, p.tier_above::bigint[],
                p.tier_micros::bigint[], p.charged_unit, p.free_quota, p.free_only
         from unnest(
             $7::text[], $8::uuid[], $9::bigint[], $10::bigint[], $11::boolean[], $12::text[], $13::text[],
             $14::bigint[], $15::bigint[], $16::boolean[]
         ) as p (meter, price_id, micros, per_units, failed_is_free, tier_above, tier_micros, charged_unit,
                 free_quota, free_only)",
        card.rate_card_id.as_uuid(),
        card.name.as_str(),
        card.contract_kind.as_str(),
        Instant(card.effective_from) as _,
        set_up,
        Instant(now) as _,
        prices.iter().map(|price| price.meter.as_str()).collect::<Vec<_>>() as _,
        &prices.iter().map(|price| price.price_id.as_uuid()).collect::<Vec<_>>(),
        &prices.iter().map(|price| price.terms.micros()).collect::<Vec<_>>(),
        &prices.iter().map(|price| price.terms.per_units()).collect::<Vec<_>>(),
        &prices.iter().map(|price| price.terms.failed_is_free()).collect::<Vec<_>>(),
        &tiers(prices, |tier| tier.above),
        &tiers(prices, |tier| tier.micros),
        prices.iter().map(|price| price.terms.charged_unit()).collect::<Vec<_>>() as _,
        &prices.iter().map(|price| price.terms.free_quota()).collect::<Vec<_>>(),
        &prices.iter().map(|price| price.terms.free_only()).collect::<Vec<_>>(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The whole catalogue at one instant, with its version.
pub async fn load(pool: &Pool) -> Result<(i64, Vec<Meter>, Vec<CardVersion>), Error> {
    let mut tx = pool.snapshot().await?;
    let version = version_in_tx(&mut tx).await?;
    let loaded = (version, meters_in_tx(&mut tx).await?, cards_in_tx(&mut tx).await?);
    tx.commit().await?;
    Ok(loaded)
}
