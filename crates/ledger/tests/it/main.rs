//! The ledger on a real Postgres: a database per test, handlers called in process.
#![cfg(test)]

mod budgets;
mod catalog;
mod corruption;
mod gate;
mod holds;
mod lots;
mod model;
mod notices;
mod outbox;
mod pooler;
mod posting;
mod producers;
mod race;
mod rights;
mod served;
mod tokens;
mod world;
