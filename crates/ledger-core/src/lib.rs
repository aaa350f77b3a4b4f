//! The pure half of the ledger: what usage costs, which lot pays, what expires, what is owed.
//!
//! Doctrine. The caller (the ledger's store) loads whole teams, calls one function, and writes the
//! rows of the [`Plan`] it gets back; nothing here waits, reads a clock or touches a database. The
//! same functions serve the writer, the reader (on a copy, [`balance_at`] and [`lots_at`]) and the
//! check of a journal ([`replay`]), so that they cannot disagree.
//!
//! - One call is one transaction at one instant (D40). Teams are first rolled forward to it; each
//!   due step (lots that close, lots that start) is a transaction of its own at its own instant.
//! - State changes only through a journal row, written by one private function; the balance is the
//!   sum of its rows at every moment.
//! - Everything takes arrays. Cost of a batch: O(lines · log lines + lots · log lots + rows), plus
//!   a look at each live lot that is not valid at a line's window.
//! - Amounts are computed in `i128` and stored as checked `i64` (D53). Usage that would not fit
//!   leaves the batch as `overflow`; a batch never fails because of what a line holds.
//! - Public enums are exhaustive on purpose: a new kind must be seen by every place that matches.
//!
//! `D<n>` are the domain's rules.
#![deny(missing_docs, clippy::arithmetic_side_effects, clippy::float_arithmetic)]

mod ahead;
mod as_of;
mod batch;
mod budget;
mod calendar;
mod command;
mod correction;
mod crossing;
mod explain;
mod hold;
mod import;
mod journal;
mod lot;
mod meter;
mod notice;
mod outlook;
mod plan;
mod posting;
mod price;
mod rater;
mod rating;
mod replay;
mod reserve;
mod roll;
mod settings;
mod standing;
mod statement;
mod taking_back;
mod team;
mod terms;
mod transfer;
mod what_if;

pub use ahead::{Ahead, BalanceStep, ahead, no_grace};
pub use as_of::{AsOf, BooksAsOf, RowSum, books_as_of};
pub use batch::{
    Attribution, Batch, Charge, FoldError, Line, Payer, Rated, Unattributable, Unattributed, Usage,
    fold_batch,
};
pub use budget::{
    BudgetMonth, BudgetState, BudgetTerms, BudgetTermsError, Spent, budget_set, month_of, spend,
};
pub use command::{Grant, GrantError, LOT_MAX_TOKENS, Purchase, PurchaseError, grant, purchase};
pub use correction::{Corrected, Correction, CorrectionError, PeriodShrink, StandingCharge, correct};
pub use crossing::{Told, notices};
pub use explain::{
    Considered, ExplainError, Explanation, Netted, OwedPart, RatingStory, TakenBack, TierPart, Verdict,
    explain, explain_correction, explain_rating,
};
pub use hold::{Hold, HoldEnd, HoldPart};
pub use import::{Holdings, Import, ImportFault, ImportedLot, PriorDebt, import};
pub use journal::{Book, DebtInterval, JournalRow, Kind, UnknownName};
pub use lot::{Lot, LotState, PoolKind, draw_order};
pub use meter::{Aggregation, DistinctValues, Period};
pub use notice::{EXPIRING_DAYS_MAX, Fact, LEVEL_MAX_PERCENT, Notice, NoticeRules, NoticeRulesError, Watch};
pub use outlook::{
    BurnRate, Forecast, ForecastMethod, LotForecast, RED_PERCENT, TRAILING_DAYS_MAX, days_left, forecast,
    trailing_days,
};
pub use plan::Plan;
pub use price::{CardVersion, ContractKind, InForce, NewVersion, Price, PriceBook, PublishFault};
pub use rating::{
    Cycle, PeriodKey, PeriodState, Periods, PeriodsWanted, SeenValue, UsageKey, UsageState, periods_wanted,
    price_of, usage_keys,
};
pub use replay::{Violation, replay, replay_from};
pub use reserve::{HoldError, Reservation, extend_hold, release_hold, reserve};
pub use roll::{next_due, roll_forward};
pub use settings::{PoolOrder, PoolOrderError, Settings};
pub use standing::{ChargeJournal, Standing, StandingPayment};
pub use statement::{
    BookSums, LotStatement, LotSums, MovementSum, Position, Statement, StatementBalance, StatementError,
    statement,
};
pub use taking_back::{LotChangeError, LotJournal, Payment, adjust_lot, charge_back, refund_lot};
pub use team::{Balance, BalanceView, DebtItem, LotView, ReadError, Team, balance_at, lots_at};
pub use terms::{TIERS_MAX, Terms, TermsDraft, TermsError, Tier};
pub use transfer::{MoveError, move_lot};
pub use what_if::{PriceSpan, Quote, SpanUsage, what_if};
