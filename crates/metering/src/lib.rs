//! takes high-volume usage by streaming gRPC, aggregates it in Redis, settles it into the ledger

pub mod config;
pub mod jobs;
mod metrics;
pub mod peer;
pub mod reason;
pub mod redis;

pub use metrics::Metrics;
