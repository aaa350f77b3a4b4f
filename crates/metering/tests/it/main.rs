//! The whole service against a real Redis and a naive ledger: whatever breaks on the way, what the ledger has
//! at the end equals what the producers wrote, event for event.
#![cfg(test)]

mod aggregations;
mod bad_input;
mod book;
mod cells;
mod damage;
mod disasters;
mod doubt;
mod gate;
mod idle_lanes;
mod leases;
mod live;
mod lost;
mod memory_only;
mod paths;
mod producer;
mod proxy;
mod records;
mod records_http;
mod records_of_cells;
mod rig;
mod several;
mod wire_faults;
mod wire_forms;
