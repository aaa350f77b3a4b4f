//! The pure half of metering: frames, lanes and chains, aggregation, blobs, settlement plans.
//!
//! Doctrine: no I/O, no clock, no randomness, no service types; whatever comes from outside is
//! checked here once and refused with a stable [`reason`] before it can reach Redis, because one
//! damaged blob replays a whole shard. Nothing here panics, whatever the bytes. The protocol these
//! modules implement was explored exhaustively as a model: a rule is changed there first.
#![deny(missing_docs, clippy::arithmetic_side_effects)]

pub mod aggregate;
pub mod blob;
pub mod cells;
pub mod chain;
pub mod dictionary;
pub mod envelope;
pub mod fault;
pub mod frame;
pub mod idle;
pub mod look;
pub mod meter;
pub mod reason;
pub mod resume;
pub mod series;
pub mod settle;
pub mod shard;
mod wire;

pub use wire::count_messages;
