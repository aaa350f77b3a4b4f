//! Limits of queries and watchers.

use drawdown_service::config::{Count, Millis};
use serde::Deserialize;

/// The section `[metering.usage]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageOptions {
    /// Client ids of one query or watcher, and app ids.
    pub client_ids_max: Count,
    /// Blobs that one answer may read.
    pub blobs_max: Count,
    /// Lines of one answer to a query, or to a watcher of one shard.
    pub answer_lines_max: Count,
    /// Queries at once.
    pub queries_max: Count,
    /// Lines and distinct values that a query may have read, wanted or not.
    pub query_lines_max: Count,
    /// Lines of one message to a watcher.
    pub message_lines_max: Count,
    /// Watchers at once.
    pub watchers_max: Count,
    /// From the end of one round of the reader for all watchers to the next, in ms.
    pub watch_interval_ms: Millis,
    /// How often a watcher is told how far its answers reach, in ms.
    pub watch_heartbeat_ms: Millis,
    /// Lines and distinct values that the reader holds of one shard.
    pub watch_lines_max: Count,
    /// Changes of one shard that are remembered for watchers that read slowly.
    pub watch_changes_max: Count,
}

impl Default for UsageOptions {
    fn default() -> Self {
        Self {
            client_ids_max: Count::of(1000),
            blobs_max: Count::of(65_536),
            answer_lines_max: Count::of(50_000),
            queries_max: Count::of(4),
            query_lines_max: Count::of(1_000_000),
            message_lines_max: Count::of(1000),
            watchers_max: Count::of(64),
            watch_interval_ms: Millis::from_millis(500),
            watch_heartbeat_ms: Millis::from_millis(5000),
            watch_lines_max: Count::of(200_000),
            watch_changes_max: Count::of(1 << 16),
        }
    }
}
