//! Decisions as messages.

use std::time::Duration;

use drawdown_entitlement_core::access::{BudgetView, Level, Reason, Remedy};
use drawdown_proto::{
    entitlement::v1::{AccessAnswer, AccessBudget, AccessLevel, AccessReason, AccessRemedy, BudgetScope},
    scalar::timestamp_to_proto,
};
use drawdown_types::Timestamp;

use super::encode;
use crate::memory::Answered;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const fn level(level: Option<Level>) -> AccessLevel {
    match level {
        None => AccessLevel::Unspecified,
        Some(Level::Trial) => AccessLevel::Trial,
        Some(Level::Full) => AccessLevel::Full,
        Some(Level::Grace) => AccessLevel::Grace,
        Some(Level::Limited) => AccessLevel::Limited,
        Some(Level::Suspended) => AccessLevel::Suspended,
    }
}

pub(crate) const fn reason(reason: Reason) -> AccessReason {
    match reason {
        Reason::InTrial => AccessReason::InTrial,
        Reason::InFull => AccessReason::InFull,
        Reason::InGrace => AccessReason::InGrace,
        Reason::FreeOfCharge => AccessReason::FreeOfCharge,
        Reason::AllowedWhileStale => AccessReason::AllowedWhileStale,
        Reason::ClientUnknown => AccessReason::ClientUnknown,
        Reason::ClientRevoked => AccessReason::ClientRevoked,
        Reason::AccountSuspended => AccessReason::AccountSuspended,
        Reason::TeamSuspended => AccessReason::TeamSuspended,
        Reason::AppArchived => AccessReason::AppArchived,
        Reason::TeamMissing => AccessReason::TeamMissing,
        Reason::MeterNotKnown => AccessReason::MeterNotKnown,
        Reason::ProductMissing => AccessReason::ProductMissing,
        Reason::GraceOver => AccessReason::GraceOver,
        Reason::AccountWithoutGrace => AccessReason::AccountWithoutGrace,
        Reason::DebtLimitPassed => AccessReason::DebtLimitPassed,
        Reason::BalanceTooLow => AccessReason::BalanceTooLow,
        Reason::FreeQuotaUsedUp => AccessReason::FreeQuotaUsedUp,
        Reason::AppBudgetReached => AccessReason::AppBudgetReached,
        Reason::TeamBudgetReached => AccessReason::TeamBudgetReached,
        Reason::AccountBudgetReached => AccessReason::AccountBudgetReached,
        Reason::RefusedWhileStale => AccessReason::RefusedWhileStale,
    }
}

fn remedy(remedy: Remedy) -> AccessRemedy {
    AccessRemedy {
        reason: reason(remedy.reason).into(),
        tokens_micros: remedy.tokens_micros,
        at: remedy.at.map(timestamp_to_proto),
    }
}

fn budget((budget, scope): (&Option<BudgetView>, BudgetScope)) -> Option<AccessBudget> {
    budget.map(|budget| AccessBudget {
        scope: scope.into(),
        cap_micros: budget.cap_micros,
        used_micros: budget.used_micros,
        hard: budget.hard,
    })
}

/// An answer. Lists of an ordinary one are empty and take no memory.
pub(super) fn answer(answered: &Answered) -> AccessAnswer {
    let Answered { decision, billed_to, .. } = answered;
    let scopes = [BudgetScope::App, BudgetScope::Team, BudgetScope::Account];
    AccessAnswer {
        allowed: decision.allowed(),
        level: level(decision.level).into(),
        reason: reason(decision.reason).into(),
        balance_micros: decision.balance_micros,
        grace_deadline: decision.grace_deadline.map(timestamp_to_proto),
        stale: decision.stale,
        ledger_age_ms: decision.ledger_age.map(millis),
        directory_age_ms: millis(decision.directory_age),
        changes_at: (decision.changes_at < Timestamp::MAX).then(|| timestamp_to_proto(decision.changes_at)),
        budgets: decision.budgets.iter().zip(scopes).filter_map(budget).collect(),
        remedies: decision.remedies().map(remedy).collect(),
        billed_to: billed_to.as_ref().map(encode::billed_to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::access::NAMES;

    #[test]
    fn each_reason_has_its_name_on_the_wire_and_in_the_list() {
        for of_core in Reason::ALL {
            let wire = reason(of_core).as_str_name();
            assert_eq!(wire.strip_prefix("ACCESS_REASON_"), NAMES.get(of_core.index()).copied(), "{wire}");
        }
    }
}
