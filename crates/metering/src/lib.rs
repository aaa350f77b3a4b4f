//! Takes high-volume usage by streaming gRPC, aggregates it in Redis, settles it into the ledger.

mod app;
mod cloud;
pub mod config;
mod grpc;
mod http;
mod instance;
mod jobs;
mod live;
mod metrics;
mod peer;
pub mod reason;
mod record;
pub mod redis;

pub use app::run;
