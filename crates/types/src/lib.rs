//! Values that two or more crates of Drawdown share: ids, token amounts, quantities, instants,
//! windows, names and the clock. No async, no I/O, no rules of one service only.
//!
//! Doctrine: every value is checked where it is made, so that no later code asks again; integers
//! are never wrapped (arithmetic returns `Option` or a typed error); an instant never comes from
//! anywhere but a [`Clock`].
#![deny(missing_docs, clippy::arithmetic_side_effects, clippy::float_arithmetic)]

mod amount;
mod clock;
mod event;
mod id;
mod name;
mod time;
mod window;

pub use amount::{AmountError, MICROS_PER_TOKEN, MicroTokens, Quantity};
pub use clock::{Clock, ManualClock, SystemClock};
pub use event::{EVENT_SLOTS, EventName};
pub use id::{
    AccountId, AppId, BatchId, BudgetId, ChargeId, CredentialId, HoldId, HubId, IdError, KeyId, LotId,
    NoticeId, OrderId, PriceId, PrincipalId, ProducerId, RateCardId, StatementId, TeamId, TransferId, UserId,
};
pub use name::{ClientId, DimensionName, EventId, EventSource, MeterSlug, NameError, Slug};
pub use time::{TimeError, Timestamp};
pub use window::{Window, WindowSize, WindowSizeError};
