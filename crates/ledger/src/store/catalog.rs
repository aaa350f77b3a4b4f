//! Meters and rate cards. Few and small: they are read as a whole and remembered by the version of the
//! catalogue, which every change raises in its own transaction.

use std::collections::HashMap;

use drawdown_ledger_core::{CardVersion, Price, Terms, UnknownName};
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
    /// Names of dimensions, in the order given.
    pub dimensions: Vec<String>,
    /// Refused at the gate when the balance can not cover it; else it may go below zero.
    pub hard: bool,
}

/// How a meter's events become a quantity (D19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// Sum of quantities.
    Sum,
    /// Number of events.
    Count,
}

impl Aggregation {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Count => "count",
        }
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

/// The version of the catalogue as committed.
pub async fn version_in_tx(tx: &mut PgConnection) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!("select version from ledger.catalogue").fetch_one(tx).await?)
}

/// All meters, by slug.
pub async fn meters_in_tx(tx: &mut PgConnection) -> Result<Vec<Meter>, Error> {
    let rows = sqlx::query!(
        "select slug, unit, aggregation, dimensions, limit_kind from ledger.meter order by slug collate \"C\""
    )
    .fetch_all(tx)
    .await?;
    let meter = |slug: &str, unit, aggregation: &str, dimensions, limit_kind: &str| {
        Ok(Meter {
            slug: MeterSlug::new(slug).map_err(|e| Error::stored("meter slug")(e.into()))?,
            unit,
            aggregation: if aggregation == "count" { Aggregation::Count } else { Aggregation::Sum },
            dimensions,
            hard: limit_kind == "hard",
        })
    };
    rows.into_iter().map(|r| meter(&r.slug, r.unit, &r.aggregation, r.dimensions, &r.limit_kind)).collect()
}

/// Stores a meter; false where one of that slug exists.
pub async fn insert_meter_in_tx(tx: &mut PgConnection, meter: &Meter, now: Timestamp) -> Result<bool, Error> {
    let done = sqlx::query!(
        "insert into ledger.meter (slug, unit, aggregation, dimensions, limit_kind, created_at)
         values ($1, $2, $3, $4, $5, $6) on conflict (slug) do nothing",
        meter.slug.as_str(),
        meter.unit,
        meter.aggregation.as_str(),
        &meter.dimensions,
        if meter.hard { "hard" } else { "soft" },
        Instant(now) as _,
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// All versions of all cards with their prices.
pub async fn cards_in_tx(tx: &mut PgConnection) -> Result<Vec<CardVersion>, Error> {
    let rows = sqlx::query!(
        r#"select c.rate_card_id, c.name, c.contract_kind, c.effective_from,
                  p.meter as "meter?", p.price_id as "price_id?", p.micros as "micros?",
                  p.per_units as "per_units?", p.failed_is_free as "failed_is_free?"
           from ledger.rate_card c left join ledger.price p using (rate_card_id)
           order by c.rate_card_id, p.meter collate "C""#
    )
    .fetch_all(tx)
    .await?;
    let mut cards: HashMap<Uuid, CardVersion> = HashMap::new();
    for row in rows {
        let card = match cards.entry(row.rate_card_id) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(CardVersion {
                rate_card_id: RateCardId::from_uuid(row.rate_card_id),
                name: Slug::new(&row.name).map_err(|e| Error::stored("rate card name")(e.into()))?,
                contract_kind: row
                    .contract_kind
                    .parse()
                    .map_err(|e: UnknownName| Error::stored("contract kind")(e.into()))?,
                effective_from: row.effective_from.0,
                prices: Vec::new(),
            }),
        };
        if let (Some(meter), Some(price_id), Some(micros), Some(per_units), Some(failed_is_free)) =
            (row.meter, row.price_id, row.micros, row.per_units, row.failed_is_free)
        {
            card.prices.push(Price {
                meter: MeterSlug::new(&meter).map_err(|e| Error::stored("meter slug")(e.into()))?,
                price_id: PriceId::from_uuid(price_id),
                terms: Terms::new(micros, per_units, failed_is_free)
                    .map_err(|e| Error::stored("price")(e.into()))?,
            });
        }
    }
    let mut cards: Vec<_> = cards.into_values().collect();
    cards.sort_by(|a, b| {
        (&a.name, a.contract_kind, a.effective_from).cmp(&(&b.name, b.contract_kind, b.effective_from))
    });
    Ok(cards)
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
         insert into ledger.price (rate_card_id, meter, price_id, micros, per_units, failed_is_free)
         select $1, * from unnest($7::text[], $8::uuid[], $9::bigint[], $10::bigint[], $11::boolean[])",
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
