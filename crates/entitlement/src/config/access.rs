//! The section `[entitlement.access]`.

use std::{collections::BTreeMap, time::Duration};

use drawdown_entitlement_core::access::WhenStale;
use drawdown_service::{
    Problem,
    config::{Count, Millis, Problems},
};
use drawdown_types::MeterSlug;
use serde::Deserialize;

use crate::{jobs::follow::FollowConfig, memory::AccessPolicy};

/// The most questions that one message can be configured to hold.
const QUESTIONS_MAX: usize = 10_000;
/// The most questions that one watcher can be configured to have.
const WATCH_QUESTIONS_MAX: usize = 100_000;

/// The section `[entitlement.access]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessOptions {
    /// How old what is known may be before an answer is stale, in ms (D58).
    pub age_max_ms: Millis,
    /// What meters do where it is older.
    pub when_stale: StaleOption,
    /// Meters that do something else.
    pub meters: BTreeMap<String, StaleOption>,
    /// The most questions in one message.
    pub questions_max: Count,
    /// The most questions of one watcher.
    pub watch_questions_max: Count,
    /// The most watchers.
    pub watchers_max: Count,
    /// The most streams of questions at once.
    pub check_streams_max: Count,
    /// How long the rounds of a watcher are apart at least, in ms.
    pub watch_pause_ms: Millis,
    /// How long a watcher hears nothing at most, in ms.
    pub watch_heartbeat_ms: Millis,
    /// How often the database is asked what changed where it does not say so itself, in ms.
    pub feed_interval_ms: Millis,
    /// How many changes are read at a time.
    pub feed_rows_max: Count,
    /// The database says so itself: off where a pooler is in between that keeps no session.
    pub feed_listens: bool,
    /// How long one statement of a load of the whole directory may run, in ms.
    pub load_timeout_ms: Millis,
    /// How long the ledger may be silent before it is called again, in ms.
    pub ledger_silence_max_ms: Millis,
    /// How long to wait before the ledger is called again, in ms.
    pub ledger_retry_ms: Millis,
}

/// What a meter does where what is known is too old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StaleOption {
    /// Soft meters are allowed, hard ones refused.
    #[default]
    ByLimit,
    /// Allowed.
    Allow,
    /// Refused.
    Refuse,
}

/// Limits of the handlers of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessLimits {
    /// The most questions in one message.
    pub questions_max: usize,
    /// The most questions of one watcher.
    pub watch_questions_max: usize,
    /// The most watchers.
    pub watchers_max: usize,
    /// The most streams of questions at once.
    pub check_streams_max: usize,
    /// How long the rounds of a watcher are apart at least.
    pub watch_pause: Duration,
    /// How long a watcher hears nothing at most.
    pub watch_heartbeat: Duration,
}

/// Checked [`AccessOptions`].
#[derive(Clone, Debug)]
pub struct AccessConfig {
    /// How access is answered.
    pub policy: AccessPolicy,
    /// Limits of the handlers.
    pub limits: AccessLimits,
    /// How often the database is asked what changed.
    pub feed_interval: Duration,
    /// Whether the database says so itself.
    pub feed_listens: bool,
    /// How the ledger is followed.
    pub follow: FollowConfig,
}

impl Default for AccessOptions {
    fn default() -> Self {
        Self {
            age_max_ms: Millis::from_millis(10_000),
            when_stale: StaleOption::ByLimit,
            meters: BTreeMap::new(),
            questions_max: Count::of(1_000),
            watch_questions_max: Count::of(10_000),
            watchers_max: Count::of(64),
            check_streams_max: Count::of(256),
            watch_pause_ms: Millis::from_millis(50),
            watch_heartbeat_ms: Millis::from_millis(1_000),
            feed_interval_ms: Millis::from_millis(500),
            feed_rows_max: Count::of(1_000),
            feed_listens: true,
            load_timeout_ms: Millis::from_millis(120_000),
            ledger_silence_max_ms: Millis::from_millis(3_000),
            ledger_retry_ms: Millis::from_millis(200),
        }
    }
}

impl From<StaleOption> for WhenStale {
    fn from(option: StaleOption) -> Self {
        match option {
            StaleOption::ByLimit => Self::ByLimit,
            StaleOption::Allow => Self::Allow,
            StaleOption::Refuse => Self::Refuse,
        }
    }
}

impl AccessOptions {
    /// `others` are the cells that are followed beside the leading one.
    pub(super) fn validate(self, others: impl Iterator<Item = u8>) -> Result<AccessConfig, Vec<Problem>> {
        let mut problems = Problems::new();
        for (field, count, max) in [
            ("questions_max", self.questions_max, QUESTIONS_MAX),
            ("watch_questions_max", self.watch_questions_max, WATCH_QUESTIONS_MAX),
        ] {
            problems.ensure(count.get() <= max, field, format!("is above {max}"));
        }
        for slug in self.meters.keys() {
            let well_formed = MeterSlug::new(slug);
            problems.field(&format!("meters.{slug}"), well_formed);
        }
        let meters = self.meters.into_iter().map(|(slug, option)| (slug, option.into())).collect();
        problems.finish(Some(AccessConfig {
            policy: AccessPolicy {
                age_max: self.age_max_ms.duration(),
                when_stale: self.when_stale.into(),
                meters,
                others: others.collect(),
                feed_rows_max: self.feed_rows_max.get_u32(),
                load_timeout_ms: u64::try_from(self.load_timeout_ms.duration().as_millis())
                    .unwrap_or(u64::MAX),
            },
            limits: AccessLimits {
                questions_max: self.questions_max.get(),
                watch_questions_max: self.watch_questions_max.get(),
                watchers_max: self.watchers_max.get().min(tokio::sync::Semaphore::MAX_PERMITS),
                check_streams_max: self.check_streams_max.get().min(tokio::sync::Semaphore::MAX_PERMITS),
                watch_pause: self.watch_pause_ms.duration(),
                watch_heartbeat: self.watch_heartbeat_ms.duration(),
            },
            feed_interval: self.feed_interval_ms.duration(),
            feed_listens: self.feed_listens,
            follow: FollowConfig {
                silence_max: self.ledger_silence_max_ms.duration(),
                retry: self.ledger_retry_ms.duration(),
            },
        }))
    }
}
