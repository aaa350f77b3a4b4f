//! What the audit log shows of a thing, before and after an act. Everything here was loaded for the act itself.
//!
//! `before` and `after` of a line are objects. A member says what it shows: `budget`, `charge`, `hold`, `meter`,
//! `rate_card`, `shard` one thing, `teams`, `lots`, `entries` a list, each thing with its id. So the two are compared
//! member by member, and what only `after` has is new.

use drawdown_ledger_core::{Balance, BudgetTerms, CardVersion, Hold, Lot, Price};
use drawdown_service::identity::{self, Proof, Role};
use drawdown_types::MicroTokens;
use serde_json::{Value, json};

use crate::store::{
    catalog::{Meter, aggregation_names},
    shards::Cursor,
};

/// What a team has and owes.
pub(crate) fn books(balance: &Balance) -> Value {
    json!({
        "team": balance.team_id.to_string(),
        "lot_micros": balance.lot.as_micros(),
        "held_micros": balance.held.as_micros(),
        "void_micros": balance.void.as_micros(),
        "issued_micros": balance.issued.as_micros(),
        "debt_opened_micros": balance.debt_opened.as_micros(),
        "debt_paid_micros": balance.debt_paid.as_micros(),
        "journal_seq": balance.version,
    })
}

/// A lot in one of the teams it lived in.
pub(crate) fn lot(lot: &Lot) -> Value {
    json!({
        "lot": lot.lot_id.to_string(),
        "team": lot.team_id.to_string(),
        "granted_micros": lot.granted.as_micros(),
        "remaining_micros": lot.remaining.as_micros(),
        "held_micros": lot.held.as_micros(),
        "consumed_micros": lot.consumed.as_micros(),
        "expired_micros": lot.expired.as_micros(),
        "void_micros": lot.void.as_micros(),
        "moved_micros": lot.moved.as_micros(),
        "expires_at": lot.expires_at.to_string(),
        "moved_to": lot.moved_to.map(|team| team.to_string()),
    })
}

/// A hold.
pub(crate) fn hold(hold: &Hold) -> Value {
    json!({
        "hold": hold.hold_id.to_string(),
        "team": hold.team_id.to_string(),
        "remaining_micros": hold.remaining().as_micros(),
        "taken_micros": hold.taken().as_micros(),
        "expires_at": hold.expires_at.to_string(),
        "ended": hold.ended.map(|(_, end)| end.as_str()),
    })
}

/// A budget in its month; terms are null where usage is counted only.
pub(crate) fn budget(terms: Option<&BudgetTerms>, used: MicroTokens) -> Value {
    let terms = terms.map(|terms| {
        json!({ "cap_micros": terms.cap().as_micros(), "soft_percent": terms.soft(), "hard": terms.hard() })
    });
    json!({ "terms": terms, "used_micros": used.as_micros() })
}

/// A meter.
pub(crate) fn meter(meter: &Meter) -> Value {
    let (aggregation, period) = aggregation_names(meter.aggregation);
    json!({
        "meter": meter.slug.as_str(),
        "unit": meter.unit,
        "aggregation": aggregation,
        "period": period,
        "unique_dimension": meter.unique_dimension,
        "dimensions": meter.dimensions,
        "hard": meter.hard,
    })
}

/// A version of a rate card with all its prices.
pub(crate) fn card(card: &CardVersion) -> Value {
    json!({
        "rate_card": card.rate_card_id.to_string(),
        "effective_from": card.effective_from.to_string(),
        "prices": card.prices.iter().map(price).collect::<Vec<_>>(),
    })
}

fn price(price: &Price) -> Value {
    let terms = &price.terms;
    let tiers = terms.tiers().iter().map(|tier| json!({ "above": tier.above, "micros": tier.micros }));
    json!({
        "meter": price.meter.as_str(),
        "price": price.price_id.to_string(),
        "micros": terms.micros(),
        "per_units": terms.per_units(),
        "tiers": tiers.collect::<Vec<_>>(),
        "charged_unit": terms.charged_unit(),
        "free_quota": terms.free_quota(),
        "free_only": terms.free_only(),
        "failed_is_free": terms.failed_is_free(),
    })
}

/// The cursor of a shard. A generation is 64 random bits, which are no number of JSON.
pub(crate) fn shard(cursor: &Cursor) -> Value {
    json!({
        "shard": cursor.shard,
        "generation": format!("{:016x}", cursor.generation),
        "last_batch": cursor.last_batch,
    })
}

/// Teams, and lots beside them where there are any.
pub(crate) fn teams_with_lots(teams: Vec<Value>, lots: Vec<Value>) -> Value {
    if lots.is_empty() { json!({ "teams": teams }) } else { json!({ "teams": teams, "lots": lots }) }
}

/// Teams, and a hold beside them where there is one.
pub(crate) fn teams_with_hold(teams: Vec<Value>, held: Option<&Hold>) -> Value {
    match held {
        Some(held) => json!({ "teams": teams, "hold": hold(held) }),
        None => json!({ "teams": teams }),
    }
}

/// The caller in hand is known as an operator. What a gateway does with holds is traffic, told by the journal; where
/// identity is off nothing tells one from the other.
pub(crate) fn by_known_operator() -> bool {
    let caller = identity::current();
    caller.proof != Proof::Local && caller.roles.has(Role::Operator)
}
