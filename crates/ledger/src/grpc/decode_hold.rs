//! From messages about holds to checked values.

use std::time::Duration;

use drawdown_proto::ledger::v1;
use drawdown_service::{Refusal, Violations};
use drawdown_types::{AppId, HoldId, MicroTokens, Quantity, TeamId};

use super::decode::{NOTE_BYTES_MAX, parsed, request_id, text};
use crate::{
    holds::{CaptureOrder, ReserveOrder},
    reason,
};

/// An extension: the hold, how long it lasts from now on, what is taken in addition.
pub(super) struct Extension {
    pub(super) team: TeamId,
    pub(super) hold_id: HoldId,
    pub(super) lasts: Duration,
    pub(super) more: MicroTokens,
}

fn lasts(v: &mut Violations, lasts_ms: i64) -> Option<Duration> {
    let millis = u64::try_from(lasts_ms).ok().filter(|millis| *millis > 0);
    if millis.is_none() {
        v.push("lasts_ms", format!("is {lasts_ms}, must be at least 1"));
    }
    millis.map(Duration::from_millis)
}

fn not_negative(v: &mut Violations, field: &str, micros: i64) -> Option<MicroTokens> {
    if micros < 0 {
        v.push(field, format!("is {micros}, must be at least 0"));
    }
    (micros >= 0).then(|| MicroTokens::from_micros(micros))
}

fn optional_app(v: &mut Violations, app_id: &str) -> Option<Option<AppId>> {
    if app_id.is_empty() { Some(None) } else { parsed(v, "app_id", app_id).map(Some) }
}

pub(super) fn reserve(request: &v1::ReserveTokensRequest) -> Result<ReserveOrder, Refusal> {
    let mut v = Violations::new();
    request_id(&mut v, &request.request_id);
    let account_id = parsed(&mut v, "account_id", &request.account_id);
    let team_id = parsed(&mut v, "team_id", &request.team_id);
    let app_id = optional_app(&mut v, &request.app_id);
    if request.micros < 1 {
        v.push("micros", format!("is {}, must be at least 1", request.micros));
    }
    let least = not_negative(&mut v, "at_least_micros", request.at_least_micros);
    let lasts = lasts(&mut v, request.lasts_ms);
    let note = text(&mut v, "note", &request.note, 0, NOTE_BYTES_MAX);
    let order = account_id.zip(team_id).zip(app_id).zip(least).zip(lasts).zip(note);
    let order = order.map(|(((((account_id, team_id), app_id), least), lasts), note)| ReserveOrder {
        account_id,
        team_id,
        app_id,
        amount: MicroTokens::from_micros(request.micros),
        at_least: (least > MicroTokens::ZERO).then_some(least),
        lasts,
        note,
    });
    v.finish(reason::REQUEST_INVALID, order)
}

pub(super) fn extend(request: &v1::ExtendHoldRequest) -> Result<Extension, Refusal> {
    let mut v = Violations::new();
    request_id(&mut v, &request.request_id);
    let team = parsed(&mut v, "team_id", &request.team_id);
    let hold_id = parsed(&mut v, "hold_id", &request.hold_id);
    let lasts = lasts(&mut v, request.lasts_ms);
    let more = not_negative(&mut v, "more_micros", request.more_micros);
    let extension = team.zip(hold_id).zip(lasts).zip(more);
    let extension =
        extension.map(|(((team, hold_id), lasts), more)| Extension { team, hold_id, lasts, more });
    v.finish(reason::REQUEST_INVALID, extension)
}

pub(super) fn capture(request: &v1::CaptureHoldRequest) -> Result<CaptureOrder, Refusal> {
    let mut v = Violations::new();
    request_id(&mut v, &request.request_id);
    let team_id = parsed(&mut v, "team_id", &request.team_id);
    let hold_id = parsed(&mut v, "hold_id", &request.hold_id);
    let app_id = optional_app(&mut v, &request.app_id);
    let client_id = parsed(&mut v, "client_id", &request.client_id);
    let meter = parsed(&mut v, "meter", &request.meter);
    let quantity = v.field("quantity", || {
        u64::try_from(request.quantity)
            .map_err(|_| format!("is {}, must be at least 0", request.quantity))
            .and_then(|units| Quantity::of_event(units).map_err(|error| error.to_string()))
    });
    let order = team_id.zip(hold_id).zip(app_id).zip(client_id).zip(meter).zip(quantity);
    let order = order.map(|(((((team_id, hold_id), app_id), client_id), meter), quantity)| CaptureOrder {
        team_id,
        hold_id,
        app_id,
        client_id,
        meter,
        quantity,
        failed: request.failed,
        last: request.last,
    });
    v.finish(reason::REQUEST_INVALID, order)
}

pub(super) fn release(request: &v1::ReleaseHoldRequest) -> Result<(TeamId, HoldId), Refusal> {
    let mut v = Violations::new();
    request_id(&mut v, &request.request_id);
    let team = parsed(&mut v, "team_id", &request.team_id);
    let hold_id = parsed(&mut v, "hold_id", &request.hold_id);
    v.finish(reason::REQUEST_INVALID, team.zip(hold_id))
}

pub(super) fn one(request: &v1::GetHoldRequest) -> Result<(TeamId, HoldId), Refusal> {
    let mut v = Violations::new();
    let team = parsed(&mut v, "team_id", &request.team_id);
    let hold_id = parsed(&mut v, "hold_id", &request.hold_id);
    v.finish(reason::REQUEST_INVALID, team.zip(hold_id))
}

pub(super) fn team(team_id: &str) -> Result<TeamId, Refusal> {
    let mut v = Violations::new();
    let team = parsed(&mut v, "team_id", team_id);
    v.finish(reason::REQUEST_INVALID, team)
}
