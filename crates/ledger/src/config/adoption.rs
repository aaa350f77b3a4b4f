//! The section `[ledger.adoption]`: usage of an app from before its first team (D49).

use std::time::Duration;

use drawdown_service::{
    Problem,
    config::{Count, Millis, Problems},
};
use serde::Deserialize;

const AGE_SECS_MAX: u64 = 10 * 366 * 86_400;

/// The section as read.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdoptionOptions {
    /// How long before the first team usage is adopted, in seconds.
    pub age_secs: u64,
    /// How often apps with usage to adopt are looked for where nothing wakes the job, in ms.
    pub interval_ms: Millis,
    /// The most lines that one transaction adopts.
    pub lines_max: Count,
    /// The most such transactions for one app in one look.
    pub rounds_max: Count,
}

/// Limits of the job that adopts usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdoptionConfig {
    /// How often it looks.
    pub interval: Duration,
    /// Lines of one transaction.
    pub lines_max: u32,
    /// Transactions for one app in one look.
    pub rounds_max: usize,
}

impl Default for AdoptionOptions {
    fn default() -> Self {
        Self {
            age_secs: 90 * 86_400,
            interval_ms: Millis::from_millis(10_000),
            lines_max: Count::of(1_000),
            rounds_max: Count::of(100),
        }
    }
}

impl AdoptionOptions {
    /// Checks all values; gives the age beside the limits of the job.
    ///
    /// # Errors
    /// Every problem, by the path inside the section.
    pub fn validate(&self) -> Result<(Duration, AdoptionConfig), Vec<Problem>> {
        let mut problems = Problems::new();
        let fits = (1..=AGE_SECS_MAX).contains(&self.age_secs);
        problems.ensure(fits, "age_secs", format!("is not between 1 and {AGE_SECS_MAX}"));
        let config = AdoptionConfig {
            interval: self.interval_ms.duration(),
            lines_max: self.lines_max.get_u32(),
            rounds_max: self.rounds_max.get(),
        };
        problems.finish(Some((Duration::from_secs(self.age_secs), config)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_of_nothing_or_of_ages_is_refused() {
        for age_secs in [0, AGE_SECS_MAX + 1] {
            let problems = AdoptionOptions { age_secs, ..Default::default() }.validate().unwrap_err();
            assert_eq!(problems.iter().map(|p| p.field.as_str()).collect::<Vec<_>>(), ["age_secs"]);
        }
    }
}
