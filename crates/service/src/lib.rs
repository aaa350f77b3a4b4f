//! What every server of Drawdown does the same way: configuration, telemetry, the layers around each
//! call, health, reflection, drain, and the way an error becomes a `tonic::Status`.
//!
//! A service is `pub async fn run(config: Config, ctx: Context) -> anyhow::Result<()>`: it builds its
//! store, binds a [`server::Server`], adds its gRPC services, starts its jobs and serves until
//! `ctx.shutdown` is cancelled. Nothing here knows a rule of any service.

pub mod config;
mod context;
pub mod identity;
mod jobs;
pub mod json;
pub mod page;
pub mod reason;
pub mod refusal;
pub mod server;
pub mod telemetry;
pub mod tls;

pub use config::Problem;
pub use context::{Addresses, Bound, Context};
pub use jobs::{JobFailed, Jobs};
pub use refusal::{Code, Refusal, Violations};
pub use server::Server;
pub use telemetry::Telemetry;
