//! From messages about imports to checked values.

use std::collections::{HashMap, HashSet};

use drawdown_ledger_core::{Holdings, Import, ImportedLot, PoolKind, PriorDebt};
use drawdown_proto::ledger::v1;
use drawdown_service::{Refusal, Violations};
use drawdown_types::{LotId, MicroTokens, OrderId};

use super::decode::{NOTE_BYTES_MAX, instant, optional_instant, parsed, request_id, text};
use crate::{
    imports::{ImportOrder, TeamOrder},
    reason,
    service::ImportLimits,
    store::write::LotNote,
};

pub(super) fn import(request: &v1::ImportTeamsRequest, limits: ImportLimits) -> Result<ImportOrder, Refusal> {
    let mut v = Violations::new();
    if !request.validate_only {
        request_id(&mut v, &request.request_id);
    }
    let reason = text(&mut v, "reason", &request.reason, 1, NOTE_BYTES_MAX);
    let most = limits.teams_max;
    let fits = (1..=most).contains(&request.teams.len());
    if !fits {
        v.push("teams", format!("are {}, must be 1 to {most}", request.teams.len()));
    }
    let rows = request
        .teams
        .iter()
        .fold(0_usize, |rows, team| rows.saturating_add(team.lots.len()).saturating_add(team.debts.len()));
    let small = rows <= limits.rows_max;
    if !small {
        v.push("teams", format!("have {rows} lots and debts, at most {} are allowed", limits.rows_max));
    }
    if !fits || !small {
        return v.finish(reason::REQUEST_INVALID, None);
    }
    let mut teams = Vec::with_capacity(request.teams.len());
    let (mut named, mut orders) = (HashSet::new(), HashSet::new());
    for (index, wanted) in request.teams.iter().enumerate() {
        let order = v.within(&format!("teams[{index}]"), |v| {
            let order = team(v, wanted, &mut orders)?;
            if !named.insert(order.team_id) {
                v.push("team_id", "is there twice");
            }
            Some(order)
        });
        teams.extend(order);
    }
    v.finish(reason::REQUEST_INVALID, reason.map(|reason| ImportOrder { teams, reason }))
}

fn team(v: &mut Violations, wanted: &v1::TeamImport, orders: &mut HashSet<OrderId>) -> Option<TeamOrder> {
    let account_id = parsed(v, "account_id", &wanted.account_id);
    let team_id = parsed(v, "team_id", &wanted.team_id);
    let negative_since = optional_instant(v, "negative_since", wanted.negative_since.as_ref());
    let expected = v.require("expected", wanted.expected.as_ref());
    let expected = expected.map(|expected| v.within("expected", |v| holdings(v, expected)));
    let mut lots = Vec::with_capacity(wanted.lots.len());
    let mut notes = HashMap::with_capacity(wanted.lots.len());
    for (index, wanted) in wanted.lots.iter().enumerate() {
        if let Some((lot, note)) = v.within(&format!("lots[{index}]"), |v| self::lot(v, wanted, orders)) {
            notes.insert(lot.lot_id, note);
            lots.push(lot);
        }
    }
    let mut debts = Vec::with_capacity(wanted.debts.len());
    for (index, wanted) in wanted.debts.iter().enumerate() {
        let used_at =
            v.within(&format!("debts[{index}]"), |v| instant(v, "used_at", wanted.used_at.as_ref()));
        let amount = MicroTokens::from_micros(wanted.amount_micros);
        debts.extend(used_at.map(|used_at| PriorDebt { amount, used_at }));
    }
    let import = Import { lots, debts, negative_since: negative_since?, expected: expected? };
    Some(TeamOrder { account_id: account_id?, team_id: team_id?, import, notes })
}

fn lot(
    v: &mut Violations,
    wanted: &v1::ImportedLot,
    orders: &mut HashSet<OrderId>,
) -> Option<(ImportedLot, LotNote)> {
    let pool_kind = match v1::PoolKind::try_from(wanted.pool_kind) {
        Ok(v1::PoolKind::Free) => Some(PoolKind::Free),
        Ok(v1::PoolKind::Enterprise) => Some(PoolKind::Enterprise),
        Ok(v1::PoolKind::Credit) => Some(PoolKind::Credit),
        Ok(v1::PoolKind::Promotional) => Some(PoolKind::Promotional),
        Ok(v1::PoolKind::Flex) => Some(PoolKind::Flex),
        Ok(v1::PoolKind::Unspecified) | Err(_) => None,
    };
    let pool_kind = v.require("pool_kind", pool_kind);
    let purchased_at = instant(v, "purchased_at", wanted.purchased_at.as_ref());
    let starts_at = optional_instant(v, "starts_at", wanted.starts_at.as_ref());
    let expires_at = instant(v, "expires_at", wanted.expires_at.as_ref());
    let note = text(v, "note", &wanted.note, 0, NOTE_BYTES_MAX);
    let flex = pool_kind == Some(PoolKind::Flex);
    let order_id = match wanted.order_id.as_str() {
        "" => Some(flex.then(OrderId::generate)),
        _ if !flex => {
            v.push("order_id", "is for flex lots only");
            None
        }
        order => parsed(v, "order_id", order).map(Some),
    };
    if let Some(Some(order)) = order_id
        && !orders.insert(order)
    {
        v.push("order_id", "has bought another lot of this import");
    }
    let purchased_at = purchased_at?;
    let lot = ImportedLot {
        lot_id: LotId::generate(),
        pool_kind: pool_kind?,
        original: MicroTokens::from_micros(wanted.original_micros),
        left: MicroTokens::from_micros(wanted.left_micros),
        purchased_at,
        starts_at: starts_at?.unwrap_or(purchased_at),
        expires_at: expires_at?,
        leaves_older_debts: wanted.leaves_older_debts,
    };
    Some((lot, LotNote { order_id: order_id?, note: note?, ..LotNote::default() }))
}

fn holdings(v: &mut Violations, wanted: &v1::Holdings) -> Holdings {
    let v1::Holdings { available_micros, uncharged_micros, balance_micros, scheduled_micros, closing_micros } =
        *wanted;
    let mut amount = |field: &str, micros: i64| {
        if micros < 0 {
            v.push(field, format!("is {micros}, must be at least 0"));
        }
        MicroTokens::from_micros(micros)
    };
    let holdings = Holdings {
        available: amount("available_micros", available_micros),
        scheduled: amount("scheduled_micros", scheduled_micros),
        closing: amount("closing_micros", closing_micros),
        uncharged: amount("uncharged_micros", uncharged_micros),
    };
    let balance = available_micros.saturating_sub(uncharged_micros);
    if balance_micros != balance {
        let why = format!("is {balance_micros}, but available less uncharged is {balance}");
        v.push("balance_micros", why);
    }
    holdings
}
