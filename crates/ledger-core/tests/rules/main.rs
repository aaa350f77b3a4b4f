//! The rules one by one: boundaries, the examples of the domain, and the cases that broke other
//! systems.
#![expect(clippy::unwrap_used, reason = "tests and their helpers fail by panicking")]

mod aggregations;
mod budgets;
mod cases;
mod corrections;
mod explain;
mod holds;
mod lots;
mod notices;
mod outlook;
mod prices;
mod rating;
mod shapes;
mod statement;
mod tampered;
mod world;
