//! The section `[ledger.known]`: what a process remembers from one batch to the next, so that it need not ask again.

use drawdown_service::config::Count;
use serde::Deserialize;

use crate::posting::KnownLimits;

/// The section as read.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KnownOptions {
    /// The most client ids whose newest window is remembered.
    pub clients_max: Count,
    /// The most teams that are remembered as they were left; 0 for none.
    pub teams_max: u32,
    /// The most usage states of all these teams together; 0 for none, and so for no team with usage.
    pub states_max: u32,
}

impl Default for KnownOptions {
    fn default() -> Self {
        Self { clients_max: Count::of(200_000), teams_max: 20_000, states_max: 100_000 }
    }
}

impl KnownOptions {
    /// As the poster takes it.
    #[must_use]
    pub fn limits(&self) -> KnownLimits {
        let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        KnownLimits {
            clients_max: self.clients_max.get(),
            teams_max: count(self.teams_max),
            states_max: count(self.states_max),
        }
    }
}
