//! The trial of an account (D20, D50): the window decides, not the settlement.

use drawdown_types::{Timestamp, Window};

use crate::Rules;

/// The trial an account once began. Its end is fixed when it begins: a later change of the setting
/// must not change the answer for a window that was asked about before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Since when the first credential is in force.
    pub started_at: Timestamp,
    /// The edge at which it ends by itself.
    pub ends_at: Timestamp,
}

/// What decides about the trial of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrialTerms {
    /// The trial, once there is a credential.
    pub trial: Option<Trial>,
    /// The edge from which on the account is commercial, whatever is left of its trial (D20).
    pub commercial_from: Option<Timestamp>,
}

impl Trial {
    /// A trial whose first credential is in force since `first_credential`.
    #[must_use]
    pub fn begin(first_credential: Timestamp, rules: &Rules) -> Self {
        let ends_at = first_credential.checked_add(rules.trial).unwrap_or(Timestamp::MAX);
        Self { started_at: first_credential, ends_at: rules.window.ceil(ends_at) }
    }
}

impl TrialTerms {
    /// The edge at which the trial ends or ended; `None` where it has not begun.
    #[must_use]
    pub fn ends_at(&self) -> Option<Timestamp> {
        let own = self.trial?.ends_at;
        Some(self.commercial_from.map_or(own, |commercial| own.min(commercial)))
    }

    /// Whether the account is out of its trial at `at`. One that never began is not over.
    #[must_use]
    pub fn is_over_at(&self, at: Timestamp) -> bool {
        self.ends_at().or(self.commercial_from).is_some_and(|end| end <= at)
    }

    /// Whether a window lies in the trial. The window of the first credential does, as a whole.
    #[must_use]
    pub fn holds_at(&self, window: Window, rules: &Rules) -> bool {
        let Some((trial, end)) = self.trial.zip(self.ends_at()) else { return false };
        rules.window.floor(trial.started_at) <= window.start() && window.start() < end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_trial_ends_at_the_first_edge_at_or_after_ninety_days() {
        let rules = Rules::default();
        for (start, end) in [
            ("2026-01-01T00:00:00Z", "2026-04-01T00:00:00Z"),
            ("2026-01-01T00:00:00.000001Z", "2026-04-01T00:01:00Z"),
            ("2025-12-31T23:59:30Z", "2026-04-01T00:00:00Z"),
        ] {
            assert_eq!(Trial::begin(at(start), &rules).ends_at, at(end), "{start}");
        }
    }

    #[test]
    fn the_window_decides() {
        let rules = Rules::default();
        let trial = Some(Trial::begin(at("2026-01-01T00:00:30Z"), &rules));
        let free = TrialTerms { trial, commercial_from: None };
        let ended = TrialTerms { trial, commercial_from: Some(at("2026-02-01T00:00:00Z")) };
        for (window, in_free, in_ended) in [
            ("2025-12-31T23:59:00Z", false, false),
            ("2026-01-01T00:00:00Z", true, true),
            ("2026-01-31T23:59:00Z", true, true),
            ("2026-02-01T00:00:00Z", true, false),
            ("2026-04-01T00:00:00Z", true, false),
            ("2026-04-01T00:01:00Z", false, false),
        ] {
            let window = rules.window.window_of(at(window));
            assert_eq!(free.holds_at(window, &rules), in_free, "{window:?}");
            assert_eq!(ended.holds_at(window, &rules), in_ended, "{window:?}");
        }
        assert!(!TrialTerms::default().holds_at(rules.window.window_of(Timestamp::EPOCH), &rules));
    }

    #[test]
    fn an_account_that_was_commercial_before_its_first_credential_has_no_trial() {
        let rules = Rules::default();
        let terms = TrialTerms {
            trial: Some(Trial::begin(at("2026-01-01T00:00:30Z"), &rules)),
            commercial_from: Some(at("2025-06-01T00:00:00Z")),
        };
        assert!(!terms.holds_at(rules.window.window_of(at("2026-01-01T00:00:30Z")), &rules));
    }
}
