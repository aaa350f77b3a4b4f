//! Gateway adapters over the client: access-log files, rules, replay.
//!
//! Doctrine: an adapter turns what a gateway already writes into events of a
//! [`drawdown_client::producer::Producer`] and knows nothing of metering, Redis or the ledger. Whatever
//! the input holds, it is counted: as an event, as ignored by a rule, or as malformed with its place.

pub mod access_log;
mod position;
pub mod progress;
pub mod replay;
pub mod rules;
mod sink;
mod source;

pub use position::Tally;
pub use sink::Sink;
pub use source::{Input, SOURCE_NAME_BYTES_MAX, SourceError};
