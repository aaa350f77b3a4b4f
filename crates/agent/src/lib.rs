//! Gateway adapters over the client: access-log files, rules, replay.

pub mod access_log;
pub mod rules;
