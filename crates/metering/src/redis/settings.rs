//! How the server is reached.

use std::time::Duration;

use redis::aio::ConnectionManagerConfig;

use super::keys::Namespace;

/// Pauses between attempts to connect again.
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(20);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);
/// Attempts to connect again within one call; the next call begins anew.
const RECONNECTS_MAX: usize = 2;

/// How the server is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address such as `redis://127.0.0.1:6379`.
    pub url: String,
    /// What all keys begin with.
    pub namespace: Namespace,
    /// How long to wait for a connection.
    pub connection_timeout: Duration,
    /// How long to wait for an answer; then its outcome is unknown.
    pub response_timeout: Duration,
    /// Take a server that could lose or evict data. For development.
    pub allow_unsafe: bool,
}

impl Settings {
    pub(super) fn connection(&self) -> ConnectionManagerConfig {
        ConnectionManagerConfig::new()
            .set_connection_timeout(Some(self.connection_timeout))
            .set_response_timeout(Some(self.response_timeout))
            .set_min_delay(RECONNECT_PAUSE_MIN)
            .set_max_delay(RECONNECT_PAUSE_MAX)
            .set_number_of_retries(RECONNECTS_MAX)
    }
}
