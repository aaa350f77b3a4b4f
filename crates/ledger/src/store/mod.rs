//! SQL only: rows in, rows out, no rules. Functions named `*_in_tx` run in the caller's transaction and
//! hold its locks; the others are reads of one statement, each of one instant, or begin their own transaction.
//!
//! Lock order of every writer, so that writers wait for each other and never deadlock:
//! cursor of the shard → catalogue row → balances by team id → everything else, which a balance or a
//! cursor guards. Rows without such a guard (newest usage of a client id) come last, sorted.

pub mod account_budgets;
pub mod adoption;
pub mod audit;
pub mod budgets;
pub mod catalog;
pub mod charges;
pub mod claims;
pub mod clock;
pub mod corrections;
pub mod due;
pub mod events;
pub mod explain;
pub mod holds;
pub mod idempotency;
pub mod installation;
mod instant;
pub mod journal;
pub mod lots;
pub mod outbox;
pub mod partitions;
pub mod parts;
pub mod periods;
pub mod pool;
pub mod postings;
pub mod reads;
pub mod review;
pub mod rollups;
pub mod scope;
pub mod settlement;
pub mod shards;
pub mod standings;
pub mod statements;
pub mod teams;
pub mod undone;
pub mod verification;
pub mod watermarks;
pub mod what_if;
pub mod write;

pub use instant::Instant;
pub use pool::{Pool, PoolConfig, Pooler, Reader};

use drawdown_types::Timestamp;

/// Instants of an optional column.
pub(crate) fn instants(values: impl IntoIterator<Item = Option<Timestamp>>) -> Vec<Option<Instant>> {
    values.into_iter().map(|value| value.map(Instant)).collect()
}
