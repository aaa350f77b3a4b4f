//! What a load must have cost: rating is cumulative (D14), so the price of everything a team used of a
//! meter in a month is one floor division, however the usage was cut into windows, batches and writers.
//! And what the ledger says it did cost, read from its rows.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use drawdown_types::Timestamp;
use sqlx::PgPool;
use uuid::Uuid;

use super::fleet::{Fleet, price};

/// Usage added up per team, meter and month.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    used: HashMap<(usize, usize, (i16, i8)), Used>,
    month: Option<(Timestamp, (i16, i8))>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Used {
    lines: i64,
    events: i64,
    quantity: i64,
}

/// Sums of one team.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TeamSums {
    /// Charges.
    pub lines: i64,
    /// Events.
    pub events: i64,
    /// Quantity.
    pub quantity: i64,
    /// Price, in micro-tokens.
    pub amount: i64,
}

fn month_of(window: Timestamp) -> (i16, i8) {
    let at = jiff::Timestamp::from_microsecond(window.as_micros()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
    (date.year(), date.month())
}

// === impl Expected ===

impl Expected {
    /// Adds a line.
    pub fn add(&mut self, team: usize, meter: usize, window: Timestamp, events: u64, quantity: i64) {
        let month = match self.month {
            Some((known, month)) if known == window => month,
            _ => self.month.insert((window, month_of(window))).1,
        };
        let used = self.used.entry((team, meter, month)).or_default();
        used.lines += 1;
        used.events += i64::try_from(events).unwrap_or(i64::MAX);
        used.quantity += quantity;
    }

    /// Adds what another writer drew.
    pub fn merge(&mut self, other: &Self) {
        for (key, more) in &other.used {
            let used = self.used.entry(*key).or_default();
            used.lines += more.lines;
            used.events += more.events;
            used.quantity += more.quantity;
        }
    }

    /// The sums of each team of a fleet.
    #[must_use]
    pub fn of_teams(&self, teams: usize) -> Vec<TeamSums> {
        let mut sums = vec![TeamSums::default(); teams];
        for ((team, meter, _), used) in &self.used {
            let (micros, per_units) = price(*meter);
            let amount = i128::from(used.quantity) * i128::from(micros) / i128::from(per_units);
            let sum = &mut sums[*team];
            sum.lines += used.lines;
            sum.events += used.events;
            sum.quantity += used.quantity;
            sum.amount += i64::try_from(amount).unwrap_or(i64::MAX);
        }
        sums
    }
}

/// What the rows of one team say.
#[derive(Debug, Clone, Copy, Default)]
struct Stored {
    charged: TeamSums,
    journaled: i64,
    issued: i64,
    balance: i64,
}

async fn stored(pool: &PgPool) -> Result<HashMap<Uuid, Stored>> {
    type Row = (Uuid, i64, i64, i64, i64, i64, i64, i64);
    let rows: Vec<Row> = sqlx::query_as(
        "with charges as (
             select team_id, count(*) as lines, sum(events)::bigint as events, sum(quantity)::bigint as quantity,
                    sum(amount_micros)::bigint as amount
             from ledger.charge group by team_id
         ), journal as (
             select team_id,
                    sum(case when credit_book = 'consumed' then amount_micros
                             when debit_book = 'consumed' then -amount_micros else 0 end)::bigint as consumed,
                    sum(case when debit_book = 'issued' then amount_micros
                             when credit_book = 'issued' then -amount_micros else 0 end)::bigint as issued
             from ledger.full_journal group by team_id
         )
         select b.team_id, coalesce(c.lines, 0), coalesce(c.events, 0), coalesce(c.quantity, 0),
                coalesce(c.amount, 0), coalesce(j.consumed, 0), coalesce(j.issued, 0), b.consumed_micros
         from ledger.balance b left join charges c using (team_id) left join journal j using (team_id)",
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(team, lines, events, quantity, amount, journaled, issued, balance)| {
            let charged = TeamSums { lines, events, quantity, amount };
            (team, Stored { charged, journaled, issued, balance })
        })
        .collect())
}

/// Compares the ledger's rows with what was drawn, team by team; gives the micro-tokens by which charges,
/// journal, balances and lots issued differ, all of them together.
///
/// # Errors
/// Where lines, events or quantities differ: no amount means anything then.
pub async fn difference_micros(pool: &PgPool, fleets: &[(&Fleet, &Expected)]) -> Result<i64> {
    let stored = stored(pool).await?;
    let mut difference = 0_i64;
    for (fleet, expected) in fleets {
        let sums = expected.of_teams(fleet.teams.len());
        for (team, sums) in fleet.teams.iter().zip(sums) {
            let found = stored.get(&team.team.as_uuid()).context("a team has no balance")?;
            let counted = TeamSums { amount: sums.amount, ..found.charged };
            ensure!(counted == sums, "team {} has {counted:?}, the generator drew {sums:?}", team.id());
            let pairs = [
                (found.charged.amount, sums.amount),
                (found.journaled, sums.amount),
                (found.balance, sums.amount),
                (found.issued, team.issued),
            ];
            difference += pairs.iter().map(|(ledger, drawn)| (ledger - drawn).abs()).sum::<i64>();
        }
    }
    Ok(difference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_one_division_however_it_is_cut() {
        let window = |text: &str| text.parse::<Timestamp>().unwrap();
        let (mut cut, mut other, mut whole) = (Expected::default(), Expected::default(), Expected::default());
        for quantity in 1..=100 {
            let part = if quantity % 2 == 0 { &mut cut } else { &mut other };
            part.add(0, 3, window("2026-03-31T23:59:00Z"), 1, quantity);
        }
        cut.merge(&other);
        whole.add(0, 3, window("2026-03-01T00:00:00Z"), 100, 5050);
        assert_eq!(cut.of_teams(1)[0].amount, whole.of_teams(1)[0].amount);
        let (micros, per_units) = price(3);
        assert_eq!(whole.of_teams(1)[0].amount, 5050 * micros / per_units);
        cut.add(0, 3, window("2026-04-01T00:00:00Z"), 1, 1);
        assert_eq!(cut.of_teams(1)[0].amount, 5050 * micros / per_units + micros / per_units);
    }
}
