//! The harness of Drawdown: real processes on private servers, the platform that demo and tests set
//! up, a recount by other code, and a naive model of lots.

pub mod check;
pub mod crash;
pub mod door;
pub mod figures;
pub mod foreign;
pub mod ingest;
pub mod installation;
pub mod ledger;
pub mod load;
pub mod load_platform;
pub mod lot_model;
pub mod null_server;
pub mod planted;
pub mod platform;
pub mod process;
pub mod raw_stream;
pub mod recount;
pub mod relay;
pub mod replay;
pub mod report;
pub mod run;
pub mod scenario;
pub mod scrape;
pub mod tls_cost;
pub mod up;
pub mod verdict;
