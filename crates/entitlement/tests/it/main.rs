//! Entitlement on a real Postgres: one database a test, a clock that the test moves, a ledger that the
//! test makes up.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod access;
mod adoption;
mod asking;
mod assignments;
mod audited;
mod cells;
mod contention;
mod credentials;
mod feed;
mod hierarchy;
mod history;
mod hubs;
mod imports;
mod members;
#[path = "../../../entitlement-core/tests/model/mod.rs"]
mod model;
mod operators;
mod principals;
mod purchases;
mod random;
mod records;
mod refusals;
mod resolution;
mod revocation;
mod roles;
mod standings;
#[path = "../../../entitlement-core/tests/strategy/mod.rs"]
mod strategy;
mod tenants;
mod terms;
mod transfers;
mod wire;
mod world;
