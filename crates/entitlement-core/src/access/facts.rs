//! What an answer is made of.

use std::time::Duration;

use drawdown_types::{AppId, PriceId, Timestamp, Window, WindowSize};

use super::Month;
use crate::{ContractKind, calendar};

/// The instant of an answer, with the window and the month that hold it: made once for many questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The instant.
    pub now: Timestamp,
    /// Its window: the one that decides who pays and whether it is trial.
    pub window: Window,
    /// Its month.
    pub month: Month,
    /// The first instant after the month.
    pub month_ends: Timestamp,
}

/// What holds for all questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessRules {
    /// How old data may be before an answer is stale (D58).
    pub age_max: Duration,
}

/// What a meter does where data is too old (D58).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenStale {
    /// Soft meters are allowed, hard ones and those nothing is known of refused.
    #[default]
    ByLimit,
    /// Allowed, as far as known facts go.
    Allow,
    /// Refused.
    Refuse,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// No credential has the client id.
    Unknown,
    /// The credential is revoked.
    Revoked,
    /// An app.
    Known(Who),
}

/// What entitlement knows of an app at the instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// The app.
    pub app_id: AppId,
    /// It has a team.
    pub has_team: bool,
    /// The account is suspended.
    pub account_suspended: bool,
    /// The team is suspended.
    pub team_suspended: bool,
    /// The app is outside of the hubs of its account, and hub mode is on.
    pub archived: bool,
    /// The window lies in the trial of the account.
    pub in_trial: bool,
    /// The owner of the app may use the tokens of the team, or it has no owner.
    pub may_use_tokens: bool,
    /// The contract of the account.
    pub contract_kind: ContractKind,
    /// The first later instant at which one of these is different by itself; [`Timestamp::MAX`] for none.
    pub changes_at: Timestamp,
}

/// How a meter is charged under a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pricing {
    /// No price is in force: usage is recorded and never charged.
    Unpriced,
    /// The price is zero.
    Free,
    /// Charged, above the free quota if it has one.
    Charged,
    /// Only the free quota may be used (D16).
    FreeTierOnly,
}

/// What a quantity costs at most: `micros` for `per_units` base units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriceBound {
    /// Micro-tokens.
    pub micros: i64,
    /// Base units, at least 1.
    pub per_units: i64,
    /// Only whole units of so many base units are charged (D15); 0 where every base unit is.
    pub charged_unit: i64,
}

/// What a meter costs under a contract of one kind, from an instant on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeterTerm {
    /// Whose accounts.
    pub contract_kind: ContractKind,
    /// From when.
    pub from: Timestamp,
    /// How.
    pub pricing: Pricing,
    /// The price, where one is in force.
    pub price_id: Option<PriceId>,
    /// Base units of a month that cost nothing; 0 for none.
    pub free_quota: i64,
    /// The most that it costs, where the ledger told.
    pub bound: Option<PriceBound>,
}

/// A meter of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    /// Refused at the gate when the balance can not cover the use (D6).
    pub hard: bool,
    /// Its terms; of each kind of contract the last one that began holds.
    pub terms: Box<[MeterTerm]>,
}

/// What a ledger told of everything, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Everything that was committed by then is known.
    pub as_of: Timestamp,
    /// Who owes more is limited at once (D48), in micro-tokens.
    pub debt_limit_micros: Option<i64>,
}

/// The balance of a team from an instant on, if nothing is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// From when.
    pub from: Timestamp,
    /// Left in open lots, in micro-tokens.
    pub available_micros: i64,
    /// Open debt, in micro-tokens.
    pub uncharged_micros: i64,
    /// When the grace ends; present while the grace clock runs, which decides and not the sign of the balance (D57).
    pub grace_deadline: Option<Timestamp>,
}

/// A budget in one month (D59). In a later month nothing is used yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The app of the team that it is for; none for the whole team or account.
    pub app_id: Option<AppId>,
    /// The month.
    pub month: Month,
    /// The cap in micro-tokens; none where usage is counted only.
    pub cap_micros: Option<i64>,
    /// Used in the month, in micro-tokens.
    pub used_micros: i64,
    /// Charged use is refused once the cap is reached.
    pub hard: bool,
}

/// What a team used in a month of a meter with a free quota. In a later month nothing is used yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The price whose quota it is.
    pub price_id: PriceId,
    /// The month.
    pub month: Month,
    /// Base units.
    pub used_quantity: i64,
}

/// What a ledger told of a team. One that it told nothing of has nothing and owes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TeamStanding {
    /// In order of time; the last that began holds.
    pub steps: Box<[Step]>,
    /// From when on the steps are not told.
    pub steps_until: Option<Timestamp>,
    /// Of the team and of its apps.
    pub budgets: Box<[Budget]>,
    /// Of its meters with free quotas.
    pub quotas: Box<[Quota]>,
}

/// A time `[from, to)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First instant.
    pub from: Timestamp,
    /// First instant after it; none where nothing but a posting ends it.
    pub to: Option<Timestamp>,
}

/// What a ledger told of an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountStanding {
    /// While one of its teams is past its deadline (D48), in order of time, without overlap.
    pub no_grace: Box<[Span]>,
    /// Of the account.
    pub budgets: Box<[Budget]>,
}

/// Everything that one answer is made of.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Who asks.
    pub caller: Caller,
    /// Everything that entitlement committed by then is known.
    pub directory_as_of: Timestamp,
    /// The ledger of the account; none where it was never heard.
    pub ledger: Option<Heard>,
    /// The team; none where the ledger told nothing of it.
    pub team: Option<&'a TeamStanding>,
    /// The account; none where the ledger told nothing of it.
    pub account: Option<&'a AccountStanding>,
    /// The meter; none where the catalogue has none or is not known.
    pub meter: Option<&'a Meter>,
    /// The catalogue is known.
    pub catalogue_known: bool,
    /// What the meter does where data is too old.
    pub when_stale: WhenStale,
    /// How much is to be used, in base units, at least 1.
    pub quantity: u64,
}

// === impl Moment ===

impl Moment {
    /// Of an instant.
    #[must_use]
    pub fn at(now: Timestamp, window: WindowSize) -> Self {
        let next = now.checked_add(Duration::from_micros(1)).unwrap_or(Timestamp::MAX);
        Self {
            now,
            window: window.window_of(now),
            month: Month::of(now),
            month_ends: calendar::month_edge(next),
        }
    }
}

impl PriceBound {
    /// What `quantity` base units cost at most, in micro-tokens, rounded up. Where whole units are charged, a use may
    /// complete one that others began, so it counts as whole ones itself.
    #[must_use]
    pub fn cost(self, quantity: u64) -> i64 {
        let up = |quantity: i128, unit: i64| {
            let unit = i128::from(unit.max(1));
            quantity.saturating_add(unit).saturating_sub(1).checked_div(unit).unwrap_or(i128::MAX)
        };
        let units = i128::from(quantity);
        let charged = up(units, self.charged_unit).saturating_mul(i128::from(self.charged_unit.max(1)));
        let cost = up(charged.saturating_mul(i128::from(self.micros)), self.per_units);
        i64::try_from(cost).unwrap_or(i64::MAX)
    }
}

impl Meter {
    /// The term that holds at `now` under a kind of contract, and when the next one begins.
    pub(super) fn term_at(
        &self,
        kind: ContractKind,
        now: Timestamp,
    ) -> (Option<&MeterTerm>, Option<Timestamp>) {
        let of_kind = || self.terms.iter().filter(move |term| term.contract_kind == kind);
        let holds = of_kind().filter(|term| term.from <= now).max_by_key(|term| term.from);
        (holds, of_kind().map(|term| term.from).filter(|from| *from > now).min())
    }
}

impl Span {
    pub(super) fn holds_at(&self, at: Timestamp) -> bool {
        self.from <= at && self.to.is_none_or(|to| at < to)
    }
}

impl TeamStanding {
    /// The step that holds at `now`, and when the next one begins.
    pub(super) fn step_at(&self, now: Timestamp) -> (Option<&Step>, Option<Timestamp>) {
        let begun = self.steps.partition_point(|step| step.from <= now);
        // A reader whose clock is behind the ledger's is before the first step: it is the present one all the same.
        let index = begun.saturating_sub(1);
        (self.steps.get(index), self.steps.get(index.saturating_add(1)).map(|step| step.from))
    }
}
