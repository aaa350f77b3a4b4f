//! What is corrected and what is charged instead, as the core knows usage.

use std::time::Duration;

use drawdown_ledger_core::{
    Aggregation, Attribution, Line, Payer, Period, PeriodKey, PeriodShrink, Rated, Settings, StandingCharge,
    Usage, UsageKey,
};
use drawdown_service::Code;
use drawdown_types::{AccountId, NameError, PriceId, Quantity, Timestamp};
use sqlx::PgConnection;

use super::{CorrectionOrder, Instead};
use crate::{
    catalogue::Catalogue,
    error::Error,
    reason,
    store::corrections::{self, StoredCharge},
    tokens::refuse,
};

/// The corrected charge.
pub(super) fn standing(found: &StoredCharge, order: &CorrectionOrder) -> Result<StandingCharge, Error> {
    let price_id = found.price_id.map(PriceId::from_uuid);
    let rated = match (found.zero_rated.as_deref(), price_id) {
        (None, Some(price_id)) => Rated::Priced(price_id),
        (Some("over_quota"), Some(price_id)) => Rated::OverQuota(price_id),
        (Some("trial"), None) => Rated::Trial,
        (Some("failed"), None) => Rated::FailedFree,
        (Some("unpriced"), None) => Rated::Unpriced,
        _ => return Err(Error::Broken(format!("charge {} is rated as nothing is", order.charge_id))),
    };
    Ok(StandingCharge {
        charge_id: order.charge_id,
        team_id: order.team_id,
        meter: found.meter.parse().map_err(|e: NameError| Error::stored("meter")(e.into()))?,
        window: found.window_start.0,
        rated,
        quantity: Quantity::new(found.quantity)
            .map_err(|e| Error::stored("quantity of a charge")(e.into()))?,
    })
}

/// The period of a line of `max` or `unique`, without it.
pub(super) async fn period_of(
    tx: &mut PgConnection,
    account: AccountId,
    key: UsageKey,
    standing: &StandingCharge,
    catalogue: &Catalogue,
) -> Result<Option<PeriodShrink>, Error> {
    let Some(period) = catalogue.prices.named(key.price_id).and_then(|(_, price)| price.period) else {
        return Ok(None);
    };
    let start = period.start(standing.window);
    let end = match period {
        Period::Day => start.checked_add(Duration::from_secs(86_400)).unwrap_or(Timestamp::MAX),
        Period::Month => key.cycle.end(),
    };
    let key = PeriodKey { team_id: key.team_id, price_id: key.price_id, start };
    corrections::shrink_in_tx(tx, account, key, end, standing.charge_id).await.map(Some)
}

/// The usage to charge instead, as a line of its own. Its window may begin no later than `latest` or the window of what is
/// corrected: a slip of the pen would be the newest settled window for decades, and no price or link could be set up before it (D61).
pub(super) fn line(
    instead: &Instead,
    payer: Payer,
    (found, latest): (&StoredCharge, Timestamp),
    catalogue: &Catalogue,
    settings: &Settings,
) -> Result<Line, Error> {
    let named = |e: NameError| Error::stored("name in a charge")(e.into());
    let meter = instead.meter.clone().map_or_else(|| found.meter.parse().map_err(named), Ok)?;
    let client_id = instead.client_id.clone().map_or_else(|| found.client_id.parse().map_err(named), Ok)?;
    let window = instead.window.unwrap_or(found.window_start.0);
    if settings.window_size.floor(window) != window {
        let why = format!("{window} is not the start of a window");
        return Err(refuse(Code::InvalidArgument, reason::REQUEST_INVALID, "instead.window_start", why));
    }
    let latest = latest.max(found.window_start.0);
    if window > latest {
        let why = format!("{window} has not come yet: usage up to {latest} can be charged");
        return Err(refuse(Code::InvalidArgument, reason::REQUEST_INVALID, "instead.window_start", why));
    }
    let units = u64::try_from(instead.quantity.as_units()).unwrap_or_default();
    let (events, usage) = match catalogue.meters.get(&meter) {
        Some(Aggregation::Sum) => (1, Usage::Sum(instead.quantity)),
        Some(Aggregation::Count) => (units, Usage::Count),
        Some(Aggregation::Max(_)) => (1, Usage::Max(instead.quantity)),
        Some(Aggregation::Unique(_)) | None => {
            let why = format!("there is no meter {meter} whose usage is one quantity");
            return Err(refuse(Code::InvalidArgument, reason::METER_UNKNOWN, "instead.meter", why));
        }
    };
    Ok(Line {
        client_id,
        meter,
        failed: instead.failed.unwrap_or(found.failed),
        series: Vec::new(),
        window,
        received_window: window,
        events,
        usage,
        hold_id: None,
        attribution: Attribution::Payer(payer),
    })
}
