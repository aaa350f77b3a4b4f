//! What a correction says in the audit log.

use drawdown_ledger_core::{Charge, Corrected};
use serde_json::{Value, json};

use super::CorrectionOrder;
use crate::{
    audited,
    store::{audit, corrections::StoredCharge, teams::StoredTeam},
};

/// The books of the teams concerned.
pub(super) fn teams(stored: &[StoredTeam]) -> Vec<Value> {
    stored.iter().map(|stored| audited::books(&stored.team.balance)).collect()
}

/// The line of a correction: what stood of the charge, and what stands of it now, beside the teams.
pub(super) fn line(
    order: &CorrectionOrder,
    found: &StoredCharge,
    corrected: &Corrected,
    instead: Option<&Charge>,
    [before, after]: [Vec<Value>; 2],
) -> audit::Line {
    let charge = |quantity: i64, micros: i64| json!({ "charge": order.charge_id.to_string(), "quantity": quantity, "amount_micros": micros });
    let was = charge(found.quantity, found.amount_micros);
    let is = charge(
        found.quantity.saturating_sub(corrected.quantity.as_units()),
        found.amount_micros.saturating_sub(corrected.amount.as_micros()),
    );
    audit::Line {
        action: "charge.correct",
        subject: order.charge_id.to_string(),
        detail: json!({
            "reason": order.reason,
            "team": order.team_id.to_string(),
            "correction": corrected.charge_id.to_string(),
            "quantity": corrected.quantity.as_units(),
            "refund_micros": corrected.amount.as_micros(),
            "cancelled_micros": corrected.cancelled.as_micros(),
            "instead": instead.map(|charge| charge.charge_id.to_string()),
            "instead_team": instead.map(|charge| charge.team_id.to_string()),
            "instead_micros": instead.map(|charge| charge.amount.as_micros()),
        }),
        before: Some(json!({ "charge": was, "teams": before })),
        after: json!({ "charge": is, "teams": after }),
    }
}
