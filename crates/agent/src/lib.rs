//! gateway adapters over the client: access-log files, rules, replay
