//! States of meters that aggregate by day or month (D19), beside the usage states that every meter has.
//!
//! A post whose lines simply add up runs none of these statements; another one runs one more to load and
//! one more to write, whatever the number of periods and values. A distinct value is a row of its own,
//! found by its key: a period with many values costs a post no more than one with few.

use std::fmt::Write as _;

use drawdown_ledger_core::{DistinctValues, PeriodKey, PeriodState, Periods, PeriodsWanted, SeenValue};
use drawdown_types::{AccountId, PriceId, Quantity, TeamId, Timestamp};
use rustc_hash::FxHashMap;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Instant;
use crate::error::Error;

/// The values of one charge.
#[derive(Clone, Copy, Debug)]
pub struct ChargeValues<'a> {
    /// The billed account.
    pub account_id: AccountId,
    /// The team.
    pub team_id: TeamId,
    /// The charge's posting order in the team.
    pub seq: i64,
    /// The instant of its transaction.
    pub posted_at: Timestamp,
    /// Its line's values.
    pub values: &'a DistinctValues,
}

/// Loads what exists of the periods asked for; the teams are locked.
pub async fn load_in_tx(tx: &mut PgConnection, wanted: &PeriodsWanted) -> Result<Periods, Error> {
    if wanted.keys.is_empty() {
        return Ok(Periods::default());
    }
    let keys = || wanted.keys.iter();
    let values = || wanted.values.iter();
    let rows = sqlx::query_file!(
        "sql/load_periods.sql",
        &keys().map(|key| key.team_id.as_uuid()).collect::<Vec<Uuid>>(),
        &keys().map(|key| key.price_id.as_uuid()).collect::<Vec<Uuid>>(),
        keys().map(|key| Instant(key.start)).collect::<Vec<Instant>>() as _,
        &values().map(|seen| seen.key.team_id.as_uuid()).collect::<Vec<Uuid>>(),
        &values().map(|seen| seen.key.price_id.as_uuid()).collect::<Vec<Uuid>>(),
        values().map(|seen| Instant(seen.key.start)).collect::<Vec<Instant>>() as _,
        values().map(|seen| &*seen.value).collect::<Vec<&[u8]>>() as _,
    )
    .fetch_all(tx)
    .await?;
    let mut periods = Periods::default();
    for row in rows {
        let key = PeriodKey {
            team_id: TeamId::from_uuid(row.team_id),
            price_id: PriceId::from_uuid(row.price_id),
            start: row.start.0,
        };
        if let Some(quantity) = row.quantity {
            let quantity =
                Quantity::new(quantity).map_err(|e| Error::stored("quantity of a period")(e.into()))?;
            periods.states.push(PeriodState { key, quantity });
        }
        periods.values.extend(row.value.map(|value| SeenValue { key, value: value.into() }));
    }
    Ok(periods)
}

/// Writes periods, their new values and the values of charges; nothing where there are none.
pub async fn write_in_tx(
    tx: &mut PgConnection,
    accounts: &FxHashMap<TeamId, AccountId>,
    periods: &Periods,
    charges: &[ChargeValues<'_>],
) -> Result<(), Error> {
    if periods.is_empty() && charges.is_empty() {
        return Ok(());
    }
    let account = |key: &PeriodKey| accounts.get(&key.team_id).map(|account| account.as_uuid());
    let account = |key: &PeriodKey| account(key).unwrap_or_default();
    let states = || periods.states.iter();
    let seen = || periods.values.iter();
    let charges = || charges.iter();
    sqlx::query_file!(
        "sql/write_periods.sql",
        &states().map(|state| account(&state.key)).collect::<Vec<Uuid>>(),
        &states().map(|state| state.key.team_id.as_uuid()).collect::<Vec<Uuid>>(),
        &states().map(|state| state.key.price_id.as_uuid()).collect::<Vec<Uuid>>(),
        states().map(|state| Instant(state.key.start)).collect::<Vec<Instant>>() as _,
        &states().map(|state| state.quantity.as_units()).collect::<Vec<i64>>(),
        &seen().map(|seen| account(&seen.key)).collect::<Vec<Uuid>>(),
        &seen().map(|seen| seen.key.team_id.as_uuid()).collect::<Vec<Uuid>>(),
        &seen().map(|seen| seen.key.price_id.as_uuid()).collect::<Vec<Uuid>>(),
        seen().map(|seen| Instant(seen.key.start)).collect::<Vec<Instant>>() as _,
        seen().map(|seen| &*seen.value).collect::<Vec<&[u8]>>() as _,
        &charges().map(|charge| charge.account_id.as_uuid()).collect::<Vec<Uuid>>(),
        &charges().map(|charge| charge.team_id.as_uuid()).collect::<Vec<Uuid>>(),
        &charges().map(|charge| charge.seq).collect::<Vec<i64>>(),
        charges().map(|charge| Instant(charge.posted_at)).collect::<Vec<Instant>>() as _,
        &charges().map(|charge| literal(charge.values)).collect::<Vec<String>>(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Values as the text of a `bytea[]`: the arrays of several rows, which differ in length, can not be one
/// parameter.
pub(super) fn literal(values: &DistinctValues) -> String {
    let mut text = String::from("{");
    for (place, value) in values.as_slice().iter().enumerate() {
        text.push_str(if place == 0 { "\"\\\\x" } else { ",\"\\\\x" });
        for byte in value {
            // Writing to a string can not fail.
            let _ = write!(text, "{byte:02x}");
        }
        text.push('"');
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_an_array_of_bytes() {
        let of = |values: &[&[u8]]| literal(&DistinctValues::new(values.iter().map(|value| (*value).into())));
        assert_eq!(of(&[]), "{}");
        assert_eq!(of(&[b"", b"a\"\0"]), r#"{"\\x","\\x612200"}"#);
    }
}
