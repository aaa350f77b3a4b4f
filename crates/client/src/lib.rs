//! The caller's side of Drawdown: channels with deadlines and retries, typed clients,
//! and the [`producer::Producer`] with its durable log.
//!
//! Doctrine: services meet in `drawdown-proto` and reach each other through this crate only. A channel
//! never blocks where it is made (it connects when the first call needs it), every unary call carries a
//! deadline and the trace context of the span it is made in, and nothing here waits or queues without
//! a named limit.
#![deny(missing_docs)]

pub mod channel;
pub mod clients;
mod key;
pub mod producer;
pub mod retry;

pub use channel::{CellOptions, Channel, ChannelError, ChannelOptions, OptionProblem, TlsOptions, connect};
pub use clients::{entitlement, ledger, metering};
pub use key::{KeyText, KeyTextError};
pub use retry::{RetryOptions, is_transient, reason_of, retry};

/// The examples of the README are compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
