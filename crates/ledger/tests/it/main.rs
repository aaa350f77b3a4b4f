//! The ledger on a real Postgres: a database per test, handlers called in process.
#![cfg(test)]

mod adoption;
mod archive;
mod budgets;
mod catalog;
mod chain;
mod corrections;
mod corruption;
mod earlier;
mod explain;
mod export;
mod gate;
mod holds;
mod imports;
mod incremental;
mod journal;
mod lots;
mod model;
mod notices;
mod outbox;
mod outlook;
mod partitions;
mod pooler;
mod posting;
mod producers;
mod race;
mod rating;
mod reports;
mod review;
mod rights;
mod rollups;
mod served;
mod statements;
mod tokens;
mod what_if;
mod world;
