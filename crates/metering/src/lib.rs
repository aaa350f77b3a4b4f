//! takes high-volume usage by streaming gRPC, aggregates it in Redis, settles it into the ledger

pub mod redis;
