//! owns token lots, expiry, charges, debts and the journal in Postgres

mod adoption;
mod app;
pub mod archive;
mod budgets;
mod cards;
mod catalogue;
pub mod cells;
mod commands;
pub mod config;
mod corrections;
mod cursor;
pub mod directory;
mod earlier;
pub mod error;
mod explain;
pub mod export;
pub mod grpc;
mod holds;
mod imports;
pub mod jobs;
mod lanes;
mod lots;
pub mod metrics;
mod noting;
pub mod posting;
pub mod reason;
pub mod reports;
mod review;
pub mod service;
mod standings;
pub mod store;
mod tokens;
pub mod verify;
mod what_if;

pub use app::{migrate, run};
pub use config::{Config, Options};
