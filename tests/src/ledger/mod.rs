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
pub mod wire;
pub mod world;
pub mod writer;
