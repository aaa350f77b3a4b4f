//! From messages about lots to checked values.

use drawdown_proto::ledger::v1;
use drawdown_service::{Refusal, Violations};
use drawdown_types::{MicroTokens, TeamId};

use super::decode::{NOTE_BYTES_MAX, parsed, request_id, text};
use crate::{lots::LotOrder, reason};

/// The fields that all of them have.
struct Named<'a> {
    account_id: &'a str,
    team_id: &'a str,
    lot_id: &'a str,
    reason: &'a str,
    request_id: &'a str,
}

fn order(v: &mut Violations, team_field: &str, named: &Named<'_>) -> Option<(LotOrder, TeamId)> {
    request_id(v, named.request_id);
    let account_id = parsed(v, "account_id", named.account_id);
    let team_id = parsed(v, team_field, named.team_id);
    let lot_id = parsed(v, "lot_id", named.lot_id);
    let reason = text(v, "reason", named.reason, 1, NOTE_BYTES_MAX);
    Some((LotOrder { account_id: account_id?, lot_id: lot_id?, reason: reason? }, team_id?))
}

pub(super) fn move_lot(request: &v1::MoveLotRequest) -> Result<(LotOrder, TeamId, TeamId), Refusal> {
    let mut v = Violations::new();
    let named = Named {
        account_id: &request.account_id,
        team_id: &request.from_team_id,
        lot_id: &request.lot_id,
        reason: &request.reason,
        request_id: &request.request_id,
    };
    let order = order(&mut v, "from_team_id", &named);
    let to = parsed(&mut v, "to_team_id", &request.to_team_id);
    v.finish(reason::REQUEST_INVALID, order.zip(to).map(|((order, from), to)| (order, from, to)))
}

pub(super) fn adjust(request: &v1::AdjustLotRequest) -> Result<(LotOrder, TeamId), Refusal> {
    let mut v = Violations::new();
    let named = Named {
        account_id: &request.account_id,
        team_id: &request.team_id,
        lot_id: &request.lot_id,
        reason: &request.reason,
        request_id: &request.request_id,
    };
    let order = order(&mut v, "team_id", &named);
    if request.delta_micros == 0 || request.delta_micros == i64::MIN {
        v.push("delta_micros", format!("is {}, must be above or below 0", request.delta_micros));
    }
    v.finish(reason::REQUEST_INVALID, order)
}

pub(super) fn refund(
    request: &v1::RefundLotRequest,
) -> Result<(LotOrder, TeamId, Option<MicroTokens>), Refusal> {
    let mut v = Violations::new();
    let named = Named {
        account_id: &request.account_id,
        team_id: &request.team_id,
        lot_id: &request.lot_id,
        reason: &request.reason,
        request_id: &request.request_id,
    };
    let order = order(&mut v, "team_id", &named);
    if request.micros < 0 {
        v.push("micros", format!("is {}, must be at least 0", request.micros));
    }
    let amount = (request.micros > 0).then(|| MicroTokens::from_micros(request.micros));
    v.finish(reason::REQUEST_INVALID, order.map(|(order, team)| (order, team, amount)))
}

/// A chargeback concerns every team of the account; none is named.
pub(super) fn charge_back(request: &v1::ChargeBackLotRequest) -> Result<LotOrder, Refusal> {
    let mut v = Violations::new();
    request_id(&mut v, &request.request_id);
    let account_id = parsed(&mut v, "account_id", &request.account_id);
    let lot_id = parsed(&mut v, "lot_id", &request.lot_id);
    let reason = text(&mut v, "reason", &request.reason, 1, NOTE_BYTES_MAX);
    let order = account_id.zip(lot_id).zip(reason);
    let order = order.map(|((account_id, lot_id), reason)| LotOrder { account_id, lot_id, reason });
    v.finish(reason::REQUEST_INVALID, order)
}
