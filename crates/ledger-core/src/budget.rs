//! Budgets: an optional cap on what a team, or one of its apps, uses in a UTC month (D59).
//!
//! A budget counts by the window of the usage, not by its posting, so late usage counts in the month in which
//! it was used, also when that month is over. It never stops a charge: the cap is a fact that the access check
//! asks for. What is counted is the price of charges, paid or not; a correction takes its part away again,
//! as a [`Spent`] below zero.
//!
//! A level is told when the usage of a month rises to it. What a correction takes away arms it again.
//!
//! Cost: O(charges) for teams with budgets, nothing for others.

use std::collections::HashMap;

use drawdown_types::{AccountId, AppId, BudgetId, MicroTokens, TeamId, Timestamp};

use crate::{
    calendar,
    notice::{Fact, Notice},
};

/// The cap itself, in percent.
const CAP_PERCENT: u16 = 100;

/// What a budget allows in a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetTerms {
    cap: MicroTokens,
    soft: Vec<u16>,
    hard: bool,
}

/// Terms that can not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetTermsError {
    /// A cap of nothing, or less.
    #[error("a cap of {0} tokens is not above zero")]
    Cap(MicroTokens),
    /// A level outside the cap, or not above the one before.
    #[error("soft levels must ascend and lie between 1 and 99 percent of the cap")]
    Soft,
}

impl BudgetTerms {
    /// `soft` levels in percent of the cap, ascending; `hard`: usage is refused once the cap is reached.
    ///
    /// # Errors
    /// [`BudgetTermsError`], the first that applies.
    pub fn new(cap: MicroTokens, soft: &[u16], hard: bool) -> Result<Self, BudgetTermsError> {
        if cap <= MicroTokens::ZERO {
            return Err(BudgetTermsError::Cap(cap));
        }
        let ascends = soft.iter().zip(soft.iter().skip(1)).all(|(one, next)| one < next);
        if !ascends || soft.iter().any(|percent| !(1..CAP_PERCENT).contains(percent)) {
            return Err(BudgetTermsError::Soft);
        }
        Ok(Self { cap, soft: soft.to_vec(), hard })
    }

    /// The most that is meant to be used.
    #[must_use]
    pub const fn cap(&self) -> MicroTokens {
        self.cap
    }

    /// Levels below the cap, in percent of it, ascending.
    #[must_use]
    pub fn soft(&self) -> &[u16] {
        &self.soft
    }

    /// Usage is refused once the cap is reached.
    #[must_use]
    pub const fn hard(&self) -> bool {
        self.hard
    }

    /// Every level, the cap last.
    fn levels(&self) -> impl Iterator<Item = u16> + '_ {
        self.soft.iter().copied().chain([CAP_PERCENT])
    }

    fn is_reached(&self, percent: u16, used: i128) -> bool {
        let cap = i128::from(self.cap.as_micros());
        used.saturating_mul(100) >= cap.saturating_mul(i128::from(percent))
    }

    /// Where `used` stands.
    #[must_use]
    pub fn state(&self, used: MicroTokens) -> BudgetState {
        let reached = |percent: &u16| self.is_reached(*percent, used.as_micros().into());
        match self.levels().filter(reached).last() {
            None => BudgetState::Under,
            Some(CAP_PERCENT) => BudgetState::CapReached,
            Some(percent) => BudgetState::SoftReached(percent),
        }
    }
}

/// Where the usage of a month stands against a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetState {
    /// Below every level.
    Under,
    /// At or above this soft level, the highest that is reached.
    SoftReached(u16),
    /// At or above the cap.
    CapReached,
}

/// A budget in one month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetMonth {
    /// The budget.
    pub budget_id: BudgetId,
    /// The billed account.
    pub account_id: AccountId,
    /// The team.
    pub team_id: TeamId,
    /// The app, for a budget of one.
    pub app_id: Option<AppId>,
    /// First instant of the month.
    pub month: Timestamp,
    /// Used so far in the windows of that month.
    pub used: MicroTokens,
    /// What is allowed in that month; absent where usage is counted only.
    pub terms: Option<BudgetTerms>,
}

/// A part of a team's usage: below zero where a correction takes it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// The team.
    pub team_id: TeamId,
    /// The app.
    pub app_id: AppId,
    /// Start of the window.
    pub window: Timestamp,
    /// The price, in micro-tokens.
    pub amount: i64,
}

/// The first instant of the UTC month that holds `at`, and of the one after.
#[must_use]
pub fn month_of(at: Timestamp) -> (Timestamp, Timestamp) {
    calendar::month_of(at).unwrap_or((Timestamp::MIN, Timestamp::MAX))
}

/// Counts `spent` in the budgets of its teams and months, in the order given, and finds the levels that were
/// reached on the way. Budgets of months that are not there do not count. `at` is the posting instant. Gives
/// the budgets that changed, by index.
pub fn spend(
    budgets: &mut [BudgetMonth],
    spent: impl IntoIterator<Item = Spent>,
    at: Timestamp,
) -> (Vec<usize>, Vec<Notice>) {
    if budgets.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let mut of_team: HashMap<TeamId, Vec<usize>> = HashMap::new();
    for (index, budget) in budgets.iter().enumerate() {
        of_team.entry(budget.team_id).or_default().push(index);
    }
    let mut changed: HashMap<usize, Rise> = HashMap::new();
    for part in spent {
        let Some(indices) = of_team.get(&part.team_id) else { continue };
        let month = month_of(part.window).0;
        for index in indices {
            let Some(budget) = budgets.get(*index) else { continue };
            if budget.month == month && budget.app_id.is_none_or(|app| app == part.app_id) {
                let begin = i128::from(budget.used.as_micros());
                changed.entry(*index).or_insert(Rise { begin, now: begin, highest: begin }).add(part.amount);
            }
        }
    }
    let mut indices: Vec<usize> = changed.keys().copied().collect();
    indices.sort_unstable();
    let mut notices = Vec::new();
    for (index, rise) in indices.iter().filter_map(|index| changed.get(index).map(|rise| (*index, *rise))) {
        let Some(budget) = budgets.get_mut(index) else { continue };
        // Parts of what the team used, whose sum was checked (D53): it always fits.
        budget.used = MicroTokens::from_micros(i64::try_from(rise.now).unwrap_or(i64::MAX));
        notices.extend(reached(budget, rise.highest, at, |terms, percent| {
            terms.is_reached(percent, rise.begin)
        }));
    }
    (indices, notices)
}

#[derive(Clone, Copy)]
struct Rise {
    begin: i128,
    now: i128,
    highest: i128,
}

impl Rise {
    fn add(&mut self, amount: i64) {
        self.now = self.now.saturating_add(amount.into());
        self.highest = self.highest.max(self.now);
    }
}

/// The levels that new terms put at or below what is used already, where the old ones did not.
#[must_use]
pub fn budget_set(budget: &BudgetMonth, old: Option<&BudgetTerms>, at: Timestamp) -> Vec<Notice> {
    let used = i128::from(budget.used.as_micros());
    reached(budget, used, at, |_, percent| {
        old.is_some_and(|old| old.levels().any(|level| level == percent) && old.is_reached(percent, used))
    })
}

/// Levels of the budget's terms that `highest` reaches, but for those that `before` says were reached then.
fn reached(
    budget: &BudgetMonth,
    highest: i128,
    at: Timestamp,
    before: impl Fn(&BudgetTerms, u16) -> bool,
) -> Vec<Notice> {
    let Some(terms) = &budget.terms else { return Vec::new() };
    let crossed = |percent: &u16| terms.is_reached(*percent, highest) && !before(terms, *percent);
    let notice = |percent| Notice {
        account_id: budget.account_id,
        team_id: budget.team_id,
        occurred_at: at,
        seq: 0,
        fact: Fact::BudgetReached {
            budget_id: budget.budget_id,
            app_id: budget.app_id,
            month: budget.month,
            percent,
            used: MicroTokens::from_micros(i64::try_from(highest).unwrap_or(i64::MAX)),
            cap: terms.cap,
            hard: terms.hard,
            late: month_of(budget.month).1 <= at,
        },
    };
    terms.levels().filter(crossed).map(notice).collect()
}
