//! Takes high-volume usage by streaming gRPC, aggregates it in Redis, settles it into the ledger.

mod app;
pub mod config;
mod grpc;
mod instance;
mod jobs;
mod live;
mod metrics;
mod peer;
pub mod reason;
pub mod redis;

pub use app::run;
