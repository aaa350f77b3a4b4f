//! The harness of Drawdown: real processes on private servers, the platform that demo and tests set
//! up, a recount by other code, and a naive model of lots.

pub mod lot_model;
pub mod platform;
pub mod recount;
pub mod report;
pub mod scenario;
pub mod verdict;
