//! The decision.
//!
//! What is in the way of every use, and what only of use that is charged, are collected apart: so a use that costs
//! nothing passes where charged use is refused, and says why.

use std::time::Duration;

use drawdown_types::{AppId, Timestamp};

use super::{
    AccessRules, Budget, Caller, Facts, Heard, Level, Moment, Pricing, Reason, Reasons, Step, WhenStale, Who,
};

/// A budget that counts for a use, in the present month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetView {
    /// In micro-tokens; none where usage is counted only.
    pub cap_micros: Option<i64>,
    /// In micro-tokens.
    pub used_micros: i64,
    /// Charged use is refused once the cap is reached.
    pub hard: bool,
}

/// One thing that has to be done, or to happen, before the use is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// What is in the way.
    pub reason: Reason,
    /// How many micro-tokens have to come at least.
    pub tokens_micros: Option<i64>,
    /// When it is out of the way by itself.
    pub at: Option<Timestamp>,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Where the team stands; none where there is no team or nothing is known of it.
    pub level: Option<Level>,
    /// The first thing in the way, or why the use is allowed.
    pub reason: Reason,
    /// Everything in the way; nothing where the use is allowed.
    pub in_the_way: Reasons,
    /// Balance of the team in micro-tokens; none in the trial (D20) and where it is not known.
    pub balance_micros: Option<i64>,
    /// From when on charged use is refused, while the team is below zero. None where the debt limit refuses it already:
    /// since when that is, nobody told.
    pub grace_deadline: Option<Timestamp>,
    /// Data is older than the bound.
    pub stale: bool,
    /// How old what the ledger told is; none where it was never heard.
    pub ledger_age: Option<Duration>,
    /// How old what entitlement knows is.
    pub directory_age: Duration,
    /// When time alone may change the answer; [`Timestamp::MAX`] for never.
    pub changes_at: Timestamp,
    /// Budgets of app, team and account; none in the trial.
    pub budgets: [Option<BudgetView>; 3],
    owed_micros: i64,
    beyond_limit_micros: i64,
    cost_micros: i64,
    month_ends: Timestamp,
}

/// Where a team stands with its ledger.
struct Money {
    known: bool,
    balance_micros: i64,
    owed_micros: i64,
    beyond_limit_micros: i64,
    below_zero: bool,
    deadline: Option<Timestamp>,
    refused: Reasons,
    changes_at: Timestamp,
}

/// What the use costs.
struct Use {
    charged: bool,
    quota_matters: bool,
    above_free_tier: bool,
    depends_on_ledger: bool,
    cost_micros: i64,
    changes_at: Timestamp,
}

// === impl Decision ===

impl Decision {
    /// The use is allowed.
    #[must_use]
    pub const fn allowed(&self) -> bool {
        self.in_the_way.is_empty()
    }

    /// Everything that has to be done before the use is allowed, in order of weight.
    pub fn remedies(&self) -> impl Iterator<Item = Remedy> {
        self.in_the_way.iter().map(|reason| {
            let balance = self.balance_micros.unwrap_or_default();
            let tokens_micros = match reason {
                Reason::GraceOver | Reason::AccountWithoutGrace => Some(self.owed_micros),
                Reason::DebtLimitPassed => Some(self.beyond_limit_micros),
                Reason::BalanceTooLow => Some(self.cost_micros.saturating_sub(balance)),
                _ => None,
            };
            let monthly = matches!(
                reason,
                Reason::FreeQuotaUsedUp
                    | Reason::AppBudgetReached
                    | Reason::TeamBudgetReached
                    | Reason::AccountBudgetReached
            );
            Remedy { reason, tokens_micros, at: monthly.then_some(self.month_ends) }
        })
    }
}

// === decide ===

/// Decides one question.
#[must_use]
pub fn decide(moment: &Moment, facts: &Facts<'_>, rules: &AccessRules) -> Decision {
    match facts.caller {
        Caller::Unknown => refused(moment, facts, rules, Reason::ClientUnknown),
        Caller::Revoked => refused(moment, facts, rules, Reason::ClientRevoked),
        Caller::Known(who) => of_app(moment, facts, &who, rules),
    }
}

fn refused(moment: &Moment, facts: &Facts<'_>, rules: &AccessRules, reason: Reason) -> Decision {
    let directory_age = moment.now.saturating_since(facts.directory_as_of);
    let mut in_the_way = Reasons::NONE;
    in_the_way.add_if(true, reason);
    Decision {
        level: None,
        reason,
        in_the_way,
        balance_micros: None,
        grace_deadline: None,
        // nothing that a ledger knows would change it
        stale: directory_age > rules.age_max,
        ledger_age: facts.ledger.map(|heard| moment.now.saturating_since(heard.as_of)),
        directory_age,
        changes_at: Timestamp::MAX,
        budgets: [None; 3],
        owed_micros: 0,
        beyond_limit_micros: 0,
        cost_micros: 0,
        month_ends: moment.month_ends,
    }
}

fn of_app(moment: &Moment, facts: &Facts<'_>, who: &Who, rules: &AccessRules) -> Decision {
    let in_trial = who.has_team && who.in_trial;
    let money = money(moment, facts, who);
    let usage = usage(moment, facts, who, in_trial);
    let budgets = if in_trial || !who.has_team { [None; 3] } else { budgets(moment, facts, who.app_id) };
    let ledger_age = facts.ledger.map(|heard| moment.now.saturating_since(heard.as_of));
    let directory_age = moment.now.saturating_since(facts.directory_as_of);
    let told_no_further = facts.team.and_then(|team| team.steps_until).is_some_and(|end| end <= moment.now);
    let stale =
        ledger_age.is_none_or(|age| age > rules.age_max) || directory_age > rules.age_max || told_no_further;
    let always = in_every_way(facts, who, &usage, in_trial);
    let charged = in_charged_ways(who, facts, &money, &usage, &budgets);
    let mut in_the_way = if usage.charged { always.or(charged) } else { always };
    let by_policy = stale && usage.depends_on_ledger;
    in_the_way.add_if(by_policy && refuses(facts), Reason::RefusedWhileStale);
    let level = level(who, in_trial, &money);
    let reason = in_the_way.first().unwrap_or_else(|| match level {
        Some(Level::Trial) => Reason::InTrial,
        _ if by_policy => Reason::AllowedWhileStale,
        Some(Level::Full) if charged.is_empty() => Reason::InFull,
        Some(Level::Grace) if charged.is_empty() => Reason::InGrace,
        _ => Reason::FreeOfCharge,
    });
    let monthly = usage.quota_matters || budgets.iter().any(Option::is_some);
    let by_month = if monthly && !in_trial { moment.month_ends } else { Timestamp::MAX };
    let shown = money.known && who.has_team && !in_trial;
    let by_money = if shown { money.changes_at } else { Timestamp::MAX };
    Decision {
        level,
        reason,
        in_the_way,
        balance_micros: shown.then_some(money.balance_micros),
        grace_deadline: money.deadline.filter(|_| shown),
        stale,
        ledger_age,
        directory_age,
        changes_at: who.changes_at.min(by_money).min(usage.changes_at).min(by_month),
        budgets,
        owed_micros: money.owed_micros,
        beyond_limit_micros: money.beyond_limit_micros,
        cost_micros: usage.cost_micros,
        month_ends: moment.month_ends,
    }
}

const fn refuses(facts: &Facts<'_>) -> bool {
    match (facts.when_stale, facts.meter) {
        (WhenStale::Refuse, _) | (WhenStale::ByLimit, None) => true,
        (WhenStale::ByLimit, Some(meter)) => meter.hard,
        (WhenStale::Allow, _) => false,
    }
}

const fn level(who: &Who, in_trial: bool, money: &Money) -> Option<Level> {
    if !who.has_team {
        return None;
    }
    if who.account_suspended || who.team_suspended {
        return Some(Level::Suspended);
    }
    if in_trial {
        return Some(Level::Trial);
    }
    if !money.known {
        return None;
    }
    Some(match (money.below_zero, money.refused.is_empty()) {
        (false, _) => Level::Full,
        (true, true) => Level::Grace,
        (true, false) => Level::Limited,
    })
}

/// What refuses every use.
fn in_every_way(facts: &Facts<'_>, who: &Who, usage: &Use, in_trial: bool) -> Reasons {
    let mut reasons = Reasons::NONE;
    reasons.add_if(who.account_suspended, Reason::AccountSuspended);
    reasons.add_if(who.team_suspended, Reason::TeamSuspended);
    reasons.add_if(who.archived, Reason::AppArchived);
    reasons.add_if(facts.catalogue_known && facts.meter.is_none(), Reason::MeterNotKnown);
    reasons.add_if(usage.above_free_tier && !in_trial, Reason::FreeQuotaUsedUp);
    reasons
}

/// What refuses use that is charged.
fn in_charged_ways(
    who: &Who,
    facts: &Facts<'_>,
    money: &Money,
    usage: &Use,
    budgets: &[Option<BudgetView>; 3],
) -> Reasons {
    let mut reasons = money.refused;
    reasons.add_if(!who.has_team, Reason::TeamMissing);
    reasons.add_if(who.has_team && !who.may_use_tokens, Reason::ProductMissing);
    let hard = facts.meter.is_some_and(|meter| meter.hard);
    let covered = money.balance_micros >= usage.cost_micros;
    reasons.add_if(hard && money.known && who.has_team && usage.charged && !covered, Reason::BalanceTooLow);
    let of = [Reason::AppBudgetReached, Reason::TeamBudgetReached, Reason::AccountBudgetReached];
    for (budget, reason) in budgets.iter().zip(of) {
        reasons.add_if(budget.is_some_and(|budget| budget.is_reached()), reason);
    }
    reasons
}

impl BudgetView {
    fn is_reached(&self) -> bool {
        self.hard && self.cap_micros.is_some_and(|cap| self.used_micros >= cap)
    }
}

// === what the ledger told ===

/// The first of two instants.
fn sooner(at: Timestamp, other: Option<Timestamp>) -> Timestamp {
    other.map_or(at, |other| at.min(other))
}

fn money(moment: &Moment, facts: &Facts<'_>, who: &Who) -> Money {
    let now = moment.now;
    let nothing = Money {
        known: facts.ledger.is_some(),
        balance_micros: 0,
        owed_micros: 0,
        beyond_limit_micros: 0,
        below_zero: false,
        deadline: None,
        refused: Reasons::NONE,
        changes_at: Timestamp::MAX,
    };
    let (Some(heard), Some(team), true) = (facts.ledger, facts.team, who.has_team) else { return nothing };
    let (step, next) = team.step_at(now);
    let ahead = team.steps_until.filter(|until| *until > now);
    let changes_at = sooner(sooner(Timestamp::MAX, next), ahead);
    let Some(step) = step else { return Money { changes_at, ..nothing } };
    let balance_micros = step.available_micros.saturating_sub(step.uncharged_micros);
    let Some(own) = step.grace_deadline else { return Money { balance_micros, changes_at, ..nothing } };
    below_zero(now, facts, heard, step, own, Money { balance_micros, changes_at, ..nothing })
}

/// The grace of a team below zero (D21, D48): its own, that of its account, and the debt limit.
fn below_zero(
    now: Timestamp,
    facts: &Facts<'_>,
    heard: Heard,
    step: &Step,
    own: Timestamp,
    money: Money,
) -> Money {
    let spans = facts.account.map(|account| &*account.no_grace).unwrap_or_default();
    let without = spans.iter().find(|span| span.holds_at(now));
    let begins = spans.iter().map(|span| span.from).find(|from| *from > now);
    let owed_micros = step.uncharged_micros;
    let beyond_limit_micros =
        heard.debt_limit_micros.map_or(0, |limit| owed_micros.saturating_sub(limit)).max(0);
    let mut refused = Reasons::NONE;
    refused.add_if(own <= now, Reason::GraceOver);
    refused.add_if(own > now && without.is_some(), Reason::AccountWithoutGrace);
    refused.add_if(beyond_limit_micros > 0, Reason::DebtLimitPassed);
    let deadline = own.min(without.map_or(Timestamp::MAX, |span| span.from)).min(begins.unwrap_or(own));
    let by_grace = if own > now { own } else { Timestamp::MAX };
    let by_account = sooner(sooner(Timestamp::MAX, without.and_then(|span| span.to)), begins);
    let changes_at = money.changes_at.min(by_grace).min(by_account);
    // beyond the limit charged use is refused already: an instant that lies ahead would promise time
    let below_zero = true;
    let deadline = (beyond_limit_micros == 0 || deadline <= now).then_some(deadline);
    Money { below_zero, owed_micros, beyond_limit_micros, deadline, refused, changes_at, ..money }
}

fn usage(moment: &Moment, facts: &Facts<'_>, who: &Who, in_trial: bool) -> Use {
    let unknown = Use {
        // what nothing is known of may cost something
        charged: !in_trial && !facts.catalogue_known,
        quota_matters: false,
        above_free_tier: false,
        depends_on_ledger: !in_trial && !facts.catalogue_known,
        cost_micros: 0,
        changes_at: Timestamp::MAX,
    };
    let Some(meter) = facts.meter else { return unknown };
    let (term, next) = meter.term_at(who.contract_kind, moment.now);
    let changes_at = sooner(Timestamp::MAX, next);
    let free = Use { charged: false, depends_on_ledger: false, changes_at, ..unknown };
    let Some(term) = term else { return free };
    let within_quota = || {
        let quotas = facts.team.map(|team| &*team.quotas).unwrap_or_default();
        let of_price = quotas.iter().find(|quota| Some(quota.price_id) == term.price_id);
        let used =
            of_price.filter(|quota| quota.month >= moment.month).map_or(0, |quota| quota.used_quantity);
        let after = i128::from(used).saturating_add(i128::from(facts.quantity));
        after <= i128::from(term.free_quota)
    };
    match term.pricing {
        Pricing::Unpriced | Pricing::Free => free,
        Pricing::FreeTierOnly => Use {
            above_free_tier: !within_quota(),
            quota_matters: true,
            depends_on_ledger: !in_trial,
            ..free
        },
        Pricing::Charged => Use {
            charged: !in_trial && (term.free_quota == 0 || !within_quota()),
            quota_matters: term.free_quota > 0,
            depends_on_ledger: !in_trial,
            // a meter whose price was not told needs a balance at all
            cost_micros: term.bound.map_or(1, |bound| bound.cost(facts.quantity)),
            ..free
        },
    }
}

fn budgets(moment: &Moment, facts: &Facts<'_>, app_id: AppId) -> [Option<BudgetView>; 3] {
    let view = |budget: &Budget| BudgetView {
        cap_micros: budget.cap_micros,
        used_micros: if budget.month >= moment.month { budget.used_micros } else { 0 },
        hard: budget.hard,
    };
    let of_team = facts.team.map(|team| &*team.budgets).unwrap_or_default();
    let of_account = facts.account.map(|account| &*account.budgets).unwrap_or_default();
    [
        of_team.iter().find(|budget| budget.app_id == Some(app_id)).map(view),
        of_team.iter().find(|budget| budget.app_id.is_none()).map(view),
        of_account.first().map(view),
    ]
}
