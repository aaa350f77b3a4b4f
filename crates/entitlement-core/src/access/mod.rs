//! May a client id use a meter now (D21, D22)?
//!
//! Shape: [`decide`] takes a question and [`Facts`], and returns a [`Decision`]; it allocates nothing. Facts are what
//! entitlement knows of the caller at the instant ([`Caller`]) and what a ledger told, as it told it: balances with
//! the steps that time alone brings, absolute deadlines, budgets and quotas with their month. So an old fact still
//! gives the right answer for a later instant as far as nothing was posted, and an old answer turns `limited` on
//! time (D58).
//!
//! Everything that is in the way is found, not only the first thing: a caller learns in one answer what would have to
//! be done.

mod decide;
mod facts;
mod month;
mod reason;

pub use decide::{BudgetView, Decision, Remedy, decide};
pub use facts::{
    AccessRules, AccountStanding, Budget, Caller, Facts, Heard, Meter, MeterTerm, Moment, PriceBound,
    Pricing, Quota, Span, Step, TeamStanding, WhenStale, Who,
};
pub use month::Month;
pub use reason::{Level, Reason, Reasons};
