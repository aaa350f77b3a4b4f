//! Limits of queries.

use drawdown_service::config::Count;
use serde::Deserialize;

/// The section `[metering.usage]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageOptions {
    /// Client ids of one query.
    pub client_ids_max: Count,
    /// Blobs that one answer may read.
    pub blobs_max: Count,
}

impl Default for UsageOptions {
    fn default() -> Self {
        Self { client_ids_max: Count::of(1000), blobs_max: Count::of(65_536) }
    }
}
