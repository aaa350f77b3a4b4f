//! From reports to messages.

use drawdown_ledger_core::{ForecastMethod, LotForecast, days_left};
use drawdown_proto::{ledger::v1, scalar::timestamp_to_proto};
use drawdown_service::{Code, Refusal};
use drawdown_types::{AppId, ChargeId, PriceId, TeamId};

use crate::{
    error::Error,
    reason,
    reports::{ExportSums, Reach, Summary, TeamForecast},
    store::charges::{ChargeRead, GroupBy, UsageGroup},
};

pub(super) fn completeness(reach: &Reach) -> v1::Completeness {
    let settled = |&(shard, batch): &(i32, i64)| v1::SettledBatch {
        shard: u32::try_from(shard).unwrap_or_default(),
        batch: u64::try_from(batch).unwrap_or_default(),
    };
    v1::Completeness {
        complete_up_to: Some(timestamp_to_proto(reach.at)),
        newest_window_end: reach.newest_window_end.map(timestamp_to_proto),
        final_up_to: Some(timestamp_to_proto(reach.final_up_to)),
        settled: reach.settled.0.iter().map(settled).collect(),
    }
}

pub(super) fn charge(team: TeamId, read: ChargeRead) -> Result<v1::Charge, Error> {
    let dimensions = serde_json::from_str(&read.dimensions);
    Ok(v1::Charge {
        charge_id: ChargeId::from_uuid(read.charge_id).to_string(),
        team_id: team.to_string(),
        app_id: AppId::from_uuid(read.app_id).to_string(),
        client_id: read.client_id,
        meter: read.meter,
        failed: read.failed,
        window_start: Some(timestamp_to_proto(read.window_start.0)),
        events: read.events,
        quantity: read.quantity,
        amount_micros: read.amount_micros,
        uncharged_micros: read.uncharged_micros,
        price_id: read.price_id.map(|id| PriceId::from_uuid(id).to_string()).unwrap_or_default(),
        posted_at: Some(timestamp_to_proto(read.posted_at.0)),
        journal_seq: read.journal_seq,
        seq: read.seq,
        dimensions: dimensions.map_err(|e| Error::stored("dimensions of a charge")(e.into()))?,
        open_micros: read.open_micros,
        zero_rated: read.zero_rated.unwrap_or_default(),
        corrects: read.corrects.map(|id| ChargeId::from_uuid(id).to_string()).unwrap_or_default(),
    })
}

pub(super) fn charges(team: TeamId, read: Vec<ChargeRead>) -> Result<Vec<v1::Charge>, Error> {
    read.into_iter().map(|read| charge(team, read)).collect()
}

/// Sums of any size.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    charges: i128,
    events: i128,
    quantity: i128,
    amount: i128,
    open: i128,
}

// === impl Sums ===

impl Sums {
    fn of(group: &UsageGroup) -> Result<Self, Error> {
        let number = |text: &str| text.parse().map_err(|e: std::num::ParseIntError| e.into());
        let number = |text: &str| number(text).map_err(Error::stored("sum"));
        Ok(Self {
            charges: group.charges.into(),
            events: number(&group.events)?,
            quantity: number(&group.quantity)?,
            amount: number(&group.amount_micros)?,
            open: number(&group.open_micros)?,
        })
    }

    /// Sums of 64 bits over at most 2^63 rows: 126 bits.
    fn plus(self, other: Self) -> Self {
        Self {
            charges: self.charges.saturating_add(other.charges),
            events: self.events.saturating_add(other.events),
            quantity: self.quantity.saturating_add(other.quantity),
            amount: self.amount.saturating_add(other.amount),
            open: self.open.saturating_add(other.open),
        }
    }

    fn encode(self) -> Result<v1::UsageSums, Error> {
        Ok(v1::UsageSums {
            charges: fits("charges", self.charges)?,
            events: fits("events", self.events)?,
            quantity: fits("quantity", self.quantity)?,
            amount_micros: fits("amount", self.amount)?,
            charged_micros: fits("amount", self.amount.saturating_sub(self.open))?,
            open_micros: fits("amount", self.open)?,
        })
    }
}

pub(super) fn export_sums(sums: &ExportSums) -> Result<v1::UsageSums, Error> {
    let ExportSums { charges, events, quantity, amount, open, .. } = *sums;
    Sums { charges, events, quantity, amount, open }.encode()
}

fn fits(what: &str, sum: i128) -> Result<i64, Error> {
    i64::try_from(sum).map_err(|_| {
        let why = format!("the sum of {what} is {sum} and does not fit 64 bits: ask for smaller groups");
        Refusal::new(Code::FailedPrecondition, reason::SUM_TOO_LARGE, why).into()
    })
}

pub(super) fn summary(summary: &Summary, by: &GroupBy) -> Result<v1::SummarizeUsageResponse, Error> {
    let mut totals = Sums::default();
    let mut groups = Vec::with_capacity(summary.groups.len());
    for found in &summary.groups {
        let sums = Sums::of(found)?;
        totals = totals.plus(sums);
        groups.push(group(found, by, sums.encode()?));
    }
    // Without a key the one group is the total.
    if *by == GroupBy::default() {
        groups.clear();
    }
    Ok(v1::SummarizeUsageResponse {
        groups,
        totals: Some(totals.encode()?),
        completeness: Some(completeness(&summary.reach)),
    })
}

fn group(group: &UsageGroup, by: &GroupBy, sums: v1::UsageSums) -> v1::UsageGroup {
    let values = group.dimensions.iter().flatten();
    let dimensions = by.dimensions.iter().zip(values);
    let outcome = match group.failed {
        None => v1::ChargeOutcome::Unspecified,
        Some(true) => v1::ChargeOutcome::Failed,
        Some(false) => v1::ChargeOutcome::Succeeded,
    };
    v1::UsageGroup {
        team_id: group.team_id.map(|id| TeamId::from_uuid(id).to_string()).unwrap_or_default(),
        app_id: group.app_id.map(|id| AppId::from_uuid(id).to_string()).unwrap_or_default(),
        client_id: group.client_id.clone().unwrap_or_default(),
        meter: group.meter.clone().unwrap_or_default(),
        day: group.day.map(|day| timestamp_to_proto(day.0)),
        hour: group.hour.map(|hour| timestamp_to_proto(hour.0)),
        outcome: outcome.into(),
        dimensions: dimensions
            .map(|(name, value)| v1::DimensionValue { name: name.clone(), value: value.clone() })
            .collect(),
        sums: Some(sums),
    }
}

pub(super) fn forecast(team: TeamId, found: &TeamForecast) -> v1::GetForecastResponse {
    let forecast = &found.forecast;
    let method = match found.method {
        ForecastMethod::TrailingMean => v1::ForecastMethod::TrailingMean,
        ForecastMethod::Given => v1::ForecastMethod::Given,
    };
    let lot = |lot: &LotForecast| v1::LotForecast {
        lot_id: lot.lot_id.to_string(),
        expires_at: Some(timestamp_to_proto(lot.expires_at)),
        days_left: days_left(lot.expires_at, forecast.at),
        remaining_micros: lot.remaining.as_micros(),
        used_micros: lot.used.as_micros(),
        unused_micros: lot.unused.as_micros(),
        empty_at: lot.empty_at.map(timestamp_to_proto),
    };
    let forecast = v1::Forecast {
        team_id: team.to_string(),
        at: Some(timestamp_to_proto(forecast.at)),
        method: method.into(),
        rate_micros: forecast.rate.micros().as_micros(),
        rate_days: forecast.rate.days(),
        rate_from: found.days.map(|(from, _)| timestamp_to_proto(from)),
        rate_to: found.days.map(|(_, to)| timestamp_to_proto(to)),
        runs_out_at: Some(timestamp_to_proto(forecast.runs_out_at)),
        unused_micros: forecast.unused.as_micros(),
        lots: forecast.lots.iter().map(lot).collect(),
    };
    v1::GetForecastResponse { forecast: Some(forecast), completeness: Some(completeness(&found.reach)) }
}
