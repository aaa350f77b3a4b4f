//! The ledger alone, in this process, on a private Postgres: for its benches and its drill.
//!
//! Calls go to the real handlers with messages as they are after the wire, so that what is compared with
//! plain SQL is the ledger and not HTTP/2, which the plain SQL does not cross either. What a load costs is
//! known in a closed form before the ledger has seen it ([`expected::Expected`]).

pub mod baseline;
pub mod bench;
pub mod drill;
pub mod expected;
pub mod fleet;
pub mod history;
pub mod month;
pub mod world;
pub mod writer;

/// Handlers of this process log the causes of what they answer with INTERNAL or UNAVAILABLE; nobody else would see
/// them.
pub fn log_failures() {
    use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};
    let ours = Targets::new().with_target("drawdown", tracing_subscriber::filter::LevelFilter::WARN);
    let to_stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // Where a subscriber is set already, it is that one that sees them.
    let _ = tracing_subscriber::registry().with(to_stderr).with(ours).try_init();
}
