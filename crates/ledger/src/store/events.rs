//! Events by id: what is remembered, and what was forgotten.
//!
//! Both reads and writes of ids happen under the cursor of their slot, whose lock makes an id unique in all months
//! together; the key of a month is a second guard.

use std::collections::HashMap;

use drawdown_ledger_core::Unattributable;
use drawdown_types::{ChargeId, EventName, Timestamp};
use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Instant;
use crate::error::Error;

/// What an event is found by: as `ledger.event_name` makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventKey(Uuid);

/// Who pays for a recorded event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is a part of this charge.
    Charged(ChargeId),
    /// Nobody, for this reason.
    Left(Unattributable),
}

/// A recorded event, as everybody is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// SHA-256 over its content.
    pub content: [u8; 32],
    /// When it was settled.
    pub recorded_at: Timestamp,
    /// The window that it counts in.
    pub window: Timestamp,
    /// Who pays.
    pub fate: Fate,
}

/// What is known of some events.
#[derive(Clone, Debug)]
pub struct Known {
    /// Those that are recorded.
    pub kept: HashMap<EventKey, Kept>,
    /// Events whose time lies before this instant may have been forgotten.
    pub refused_before: Timestamp,
}

/// An event as it is stored.
#[derive(Clone, Copy, Debug)]
pub struct EventRow<'a> {
    /// What it is found by.
    pub key: EventKey,
    /// Its name.
    pub name: &'a EventName,
    /// Its time, if its caller gave one.
    pub time: Option<Timestamp>,
    /// Its meter.
    pub meter: &'a str,
    /// In base units.
    pub quantity: i64,
    /// What is told of it.
    pub kept: Kept,
}

impl EventKey {
    /// Of a name.
    #[must_use]
    pub fn of(name: &EventName) -> Self {
        let hash =
            Sha256::new_with_prefix(name.source.as_str()).chain_update([0]).chain_update(name.id.as_str());
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..]: [u8; 32] = hash.finalize().into();
        Self(Uuid::from_bytes([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]))
    }

    /// As it is stored.
    #[must_use]
    pub const fn as_uuid(&self) -> Uuid {
        self.0
    }

    /// Of what is stored.
    #[must_use]
    pub const fn from_uuid(name: Uuid) -> Self {
        Self(name)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

/// What is known of these events; the cursor of their slot is locked.
pub async fn known_in_tx(tx: &mut PgConnection, keys: &[EventKey]) -> Result<Known, Error> {
    let names: Vec<Uuid> = keys.iter().map(|key| key.0).collect();
    let rows = sqlx::query!(
        r#"select h.refused_before as "refused_before!: Instant", e.name as "name?", e.content as "content?",
                  e.recorded_at as "recorded_at?: Instant", e.window_start as "window_start?: Instant",
                  e.charge_id as "charge_id?", e.left_as as "left_as?"
           from ledger.event_horizon h left join ledger.event e on e.name = any($1)"#,
        &names,
    )
    .fetch_all(tx)
    .await?;
    let mut known = Known { kept: HashMap::with_capacity(rows.len()), refused_before: Timestamp::MIN };
    for row in rows {
        known.refused_before = row.refused_before.0;
        let (Some(name), Some(content), Some(recorded_at), Some(window)) =
            (row.name, row.content, row.recorded_at, row.window_start)
        else {
            continue;
        };
        let content = <[u8; 32]>::try_from(content)
            .map_err(|_| Error::Broken("a digest has not 32 bytes".to_owned()))?;
        let fate = match (row.charge_id, row.left_as) {
            (Some(charge), _) => Fate::Charged(ChargeId::from_uuid(charge)),
            (None, Some(reason)) => {
                Fate::Left(reason.parse::<Unattributable>().map_err(|e| Error::stored("left_as")(e.into()))?)
            }
            (None, None) => return Err(Error::Broken("an event has no fate".to_owned())),
        };
        let kept = Kept { content, recorded_at: recorded_at.0, window: window.0, fate };
        known.kept.insert(EventKey(name), kept);
    }
    Ok(known)
}

/// Remembers events that are settled as this batch in this transaction.
pub async fn remember_in_tx(
    tx: &mut PgConnection,
    (shard, batch): (i32, i64),
    rows: &[EventRow<'_>],
) -> Result<(), Error> {
    let charge = |row: &EventRow<'_>| match row.kept.fate {
        Fate::Charged(charge) => Some(charge.as_uuid()),
        Fate::Left(_) => None,
    };
    let left = |row: &EventRow<'_>| match row.kept.fate {
        Fate::Charged(_) => None,
        Fate::Left(reason) => Some(reason.as_str()),
    };
    sqlx::query!(
        "insert into ledger.event (
             name, source, id, content, event_time, recorded_at, shard, batch, meter, quantity, window_start, charge_id,
             left_as)
         select unnest($1::uuid[]), unnest($2::text[]), unnest($3::text[]), unnest($4::bytea[]),
                unnest($5::timestamptz[]), unnest($6::timestamptz[]), $7, $8, unnest($9::text[]), unnest($10::bigint[]),
                unnest($11::timestamptz[]), unnest($12::uuid[]), unnest($13::text[])",
        &rows.iter().map(|row| row.key.0).collect::<Vec<_>>(),
        rows.iter().map(|row| row.name.source.as_str()).collect::<Vec<_>>() as _,
        rows.iter().map(|row| row.name.id.as_str()).collect::<Vec<_>>() as _,
        rows.iter().map(|row| &row.kept.content[..]).collect::<Vec<_>>() as _,
        rows.iter().map(|row| row.time.map(Instant)).collect::<Vec<_>>() as _,
        rows.iter().map(|row| Instant(row.kept.recorded_at)).collect::<Vec<_>>() as _,
        shard,
        batch,
        rows.iter().map(|row| row.meter).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.quantity).collect::<Vec<_>>(),
        rows.iter().map(|row| Instant(row.kept.window)).collect::<Vec<_>>() as _,
        rows.iter().map(charge).collect::<Vec<_>>() as _,
        rows.iter().map(left).collect::<Vec<_>>() as _,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Makes the months of events that are missing; gives how many.
pub async fn make_months_in_tx(tx: &mut PgConnection, now: Timestamp, ahead: i32) -> Result<i32, Error> {
    let made = sqlx::query_scalar!(
        r#"select ledger.make_event_months($1, $2) as "made!""#,
        Instant(now) as _,
        ahead
    )
    .fetch_one(tx)
    .await?;
    Ok(made)
}

/// Forgets the months whose events are no longer kept; gives how many.
pub async fn forget_in_tx(
    tx: &mut PgConnection,
    now: Timestamp,
    keep_secs: i64,
    ahead_secs: i64,
) -> Result<i32, Error> {
    let forgotten = sqlx::query_scalar!(
        r#"select ledger.forget_events($1, $2, $3) as "forgotten!""#,
        Instant(now) as _,
        keep_secs,
        ahead_secs,
    )
    .fetch_one(tx)
    .await?;
    Ok(forgotten)
}

#[cfg(test)]
mod tests {
    use drawdown_types::{EventId, EventSource};

    use super::*;

    #[test]
    fn an_event_is_found_by_the_hash_that_the_database_makes() {
        let name = EventName { source: EventSource::new("/eu").unwrap(), id: EventId::new("7").unwrap() };
        let hash: [u8; 32] = Sha256::digest(b"/eu\x007").into();
        assert_eq!(EventKey::of(&name).as_bytes()[..], hash[..16]);
    }
}
