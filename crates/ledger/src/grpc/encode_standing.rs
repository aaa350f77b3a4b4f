//! Standings as messages.

use drawdown_ledger_core::{BalanceStep, BudgetMonth, BudgetTerms, ContractKind, InForce, Terms, UsageState};
use drawdown_proto::{ledger::v1, scalar::timestamp_to_proto};
use drawdown_types::Timestamp;

use super::encode_notice::month_text;
use crate::{
    service::Ledger,
    standings::{AccountStanding, MeterStandings, TeamStanding},
    store::{budgets::BudgetRead, catalog::Meter},
};

fn at(at: Timestamp) -> Option<prost_types::Timestamp> {
    Some(timestamp_to_proto(at))
}

pub(super) fn team(ledger: &Ledger, standing: &TeamStanding) -> v1::TeamStanding {
    v1::TeamStanding {
        team_id: standing.team_id.to_string(),
        account_id: standing.account_id.to_string(),
        steps: standing.ahead.steps.iter().map(|step| balance(ledger, step)).collect(),
        steps_until: standing.ahead.until.and_then(at),
        budgets: standing.budgets.iter().map(budget).collect(),
        quotas: standing.quotas.iter().map(quota).collect(),
        version: standing.version,
    }
}

fn balance(ledger: &Ledger, step: &BalanceStep) -> v1::BalanceStep {
    let deadline = |since| ledger.notice_rules.deadline(since, ledger.settings.window_size);
    v1::BalanceStep {
        from: at(step.from),
        available_micros: step.available.as_micros(),
        uncharged_micros: step.uncharged.as_micros(),
        held_micros: step.held.as_micros(),
        negative_since: step.negative_since.and_then(at),
        grace_deadline: step.negative_since.map(deadline).and_then(at),
    }
}

fn budget(budget: &BudgetMonth) -> v1::BudgetStanding {
    v1::BudgetStanding {
        budget_id: budget.budget_id.to_string(),
        app_id: budget.app_id.map(|app| app.to_string()).unwrap_or_default(),
        month: month_text(budget.month),
        used_micros: budget.used.as_micros(),
        ..allowed(budget.terms.as_ref())
    }
}

fn account_budget(budget: &BudgetRead) -> v1::BudgetStanding {
    v1::BudgetStanding {
        budget_id: budget.budget_id.to_string(),
        month: month_text(budget.month),
        used_micros: budget.used.as_micros(),
        ..allowed(budget.terms.as_ref())
    }
}

fn allowed(terms: Option<&BudgetTerms>) -> v1::BudgetStanding {
    let soft = terms.map(BudgetTerms::soft).unwrap_or_default();
    v1::BudgetStanding {
        cap_micros: terms.map(|terms| terms.cap().as_micros()),
        soft_percent: soft.iter().copied().map(u32::from).collect(),
        hard: terms.is_some_and(BudgetTerms::hard),
        ..v1::BudgetStanding::default()
    }
}

fn quota(state: &UsageState) -> v1::QuotaStanding {
    v1::QuotaStanding {
        price_id: state.key.price_id.to_string(),
        meter: state.meter.to_string(),
        month: month_text(state.key.cycle.start()),
        used_quantity: state.quantity.as_units(),
    }
}

pub(super) fn account(standing: &AccountStanding) -> v1::AccountStanding {
    let no_grace =
        |(from, to): &(Timestamp, Option<Timestamp>)| v1::NoGrace { from: at(*from), to: to.and_then(at) };
    v1::AccountStanding {
        account_id: standing.account_id.to_string(),
        no_grace: standing.no_grace.iter().map(no_grace).collect(),
        budgets: standing.budget.iter().map(account_budget).collect(),
    }
}

pub(super) fn rules(ledger: &Ledger) -> v1::StandingRules {
    let debt_limit_micros = ledger.limits.standings.debt_limit.map(|limit| limit.as_micros());
    v1::StandingRules { debt_limit_micros }
}

pub(super) fn meters(standings: &MeterStandings, now: Timestamp) -> v1::MeterStandings {
    let meter = |meter: &Meter| v1::MeterStanding {
        meter: meter.slug.to_string(),
        hard: meter.hard,
        terms: ContractKind::ALL.into_iter().flat_map(|kind| terms(standings, meter, kind, now)).collect(),
    };
    v1::MeterStandings { meters: standings.meters.iter().map(meter).collect(), version: standings.version }
}

fn terms(
    standings: &MeterStandings,
    meter: &Meter,
    kind: ContractKind,
    now: Timestamp,
) -> impl Iterator<Item = v1::MeterTerm> {
    let course = standings.prices.course(kind, &meter.slug, now);
    course.into_iter().map(move |(from, price)| v1::MeterTerm {
        contract_kind: match kind {
            ContractKind::Flex => v1::ContractKind::Flex.into(),
            ContractKind::Enterprise => v1::ContractKind::Enterprise.into(),
        },
        from: at(from),
        pricing: pricing(price).into(),
        price_id: price.map(|price| price.price_id.to_string()).unwrap_or_default(),
        free_quota: price.map_or(0, |price| price.terms.free_quota()),
        micros_max: price.map_or(0, |price| dearest(&price.terms)),
        per_units: price.map_or(0, |price| price.terms.per_units()),
        charged_unit: price.and_then(|price| price.terms.charged_unit()).unwrap_or_default(),
    })
}

/// Micro-tokens of the dearest tier.
fn dearest(terms: &Terms) -> i64 {
    terms.tiers().iter().map(|tier| tier.micros).fold(terms.micros(), i64::max)
}

fn pricing(price: Option<&InForce>) -> v1::MeterPricing {
    let Some(terms) = price.map(|price| &price.terms) else { return v1::MeterPricing::Unpriced };
    if terms.free_only() {
        v1::MeterPricing::FreeTierOnly
    } else if dearest(terms) == 0 {
        v1::MeterPricing::Free
    } else {
        v1::MeterPricing::Charged
    }
}
